//! Cache file of kernels that TensorRT-RTX compiled in first runs, stored in the engine folder.
//!
//! The file consists of a line of text, with the library, GPU and driver and the hash of the rest, and
//! of the library's bytes. A file that is damaged or was written for another library, GPU or driver is
//! ignored: the library compiles the kernels again, and the file is replaced.

use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tandem_export::weights::hex;

/// Start of the file, with the format version.
const MAGIC: &str = "tandem runtime cache 1";

/// Cache file of one engine on one machine.
#[derive(Debug)]
pub(super) struct RuntimeCacheFile {
    path: PathBuf,
    /// Library, GPU and driver, on one line.
    platform: String,
}

impl RuntimeCacheFile {
    pub(super) fn new(path: &Path, platform: &str) -> Self {
        Self { path: path.to_path_buf(), platform: platform.replace('\n', " ") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn header(&self, blob: &[u8]) -> String {
        format!("{MAGIC}; {}; sha256 {}\n", self.platform, hex(&Sha256::digest(blob)))
    }

    /// Returns the library's bytes if the file exists, is complete, and was written for this platform.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = fs::read(&self.path).ok()?;
        let line = bytes.iter().position(|&byte| byte == b'\n')? + 1;
        let blob = bytes.split_off(line);
        (bytes == self.header(&blob).as_bytes()).then_some(blob)
    }

    /// Replaces the file atomically.
    pub(super) fn write(&self, blob: &[u8]) -> io::Result<()> {
        tandem_files::write_with(&self.path, |file| {
            file.write_all(self.header(blob).as_bytes())?;
            file.write_all(blob)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_is_read_only_on_the_same_platform() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("action.0123456789ab.runtime-cache");
        let file = RuntimeCacheFile::new(&path, "TensorRT-RTX 1.7.1; some GPU; driver 13.0");
        assert_eq!((file.read(), file.path()), (None, &*path));
        for blob in [&b"kernels\nof a first run"[..], b"more of them"] {
            file.write(blob).unwrap();
            assert_eq!(file.read().as_deref(), Some(blob));
        }
        let other = RuntimeCacheFile::new(&path, "TensorRT-RTX 1.7.1; some GPU; driver 13.1");
        assert_eq!(other.read(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file remains");
    }

    #[test]
    fn damaged_file_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let file = RuntimeCacheFile::new(&path, "here");
        file.write(b"kernels").unwrap();
        let complete = fs::read(&path).unwrap();
        for cut in [0, 10, complete.len() - 1] {
            fs::write(&path, &complete[..cut]).unwrap();
            assert_eq!(file.read(), None, "the first {cut} bytes");
        }
        let mut changed = complete;
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&path, changed).unwrap();
        assert_eq!(file.read(), None);
    }

    #[test]
    fn write_to_a_missing_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone").join("cache");
        assert!(RuntimeCacheFile::new(&gone, "here").write(b"kernels").is_err());
    }
}
