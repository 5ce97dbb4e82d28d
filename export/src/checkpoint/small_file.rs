//! Reads the small files of a checkpoint folder: configurations, the shard index, the tokenizer.

use super::CheckpointError;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Largest configuration or tokenizer file that is read, bytes. Qwen3's tokenizer has 11 MB.
const MAX_BYTES: u64 = 256 << 20;

/// First bytes of a git-lfs pointer.
const POINTER_START: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Upper bound on the length of a git-lfs pointer, bytes.
const MAX_POINTER_BYTES: usize = 1024;

/// Reads a file; `None` if it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    // A broken link is an error, not an absent file.
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let unreadable = |source| CheckpointError::Read { path: path.into(), source };
    let bytes = require_regular(path)?;
    if bytes > MAX_BYTES {
        return Err(CheckpointError::TooLong { path: path.into(), limit: MAX_BYTES, found: bytes });
    }
    let mut content = Vec::new();
    // The file may have grown since its length was read.
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut content))
        .map_err(unreadable)?;
    refuse_pointer(path, &content)?;
    Ok(Some(content))
}

/// Returns the length of a regular file. Other files are refused: a named pipe would
/// block, and a device has no end.
pub(crate) fn require_regular(path: &Path) -> Result<u64, CheckpointError> {
    let metadata =
        fs::metadata(path).map_err(|source| CheckpointError::Read { path: path.into(), source })?;
    if metadata.is_file() {
        Ok(metadata.len())
    } else {
        Err(CheckpointError::NotAFile { path: path.into() })
    }
}

/// Refuses a git-lfs pointer.
pub(crate) fn refuse_pointer(path: &Path, content: &[u8]) -> Result<(), CheckpointError> {
    if content.len() < MAX_POINTER_BYTES && content.starts_with(POINTER_START) {
        return Err(CheckpointError::LfsPointer { path: path.into() });
    }
    Ok(())
}
