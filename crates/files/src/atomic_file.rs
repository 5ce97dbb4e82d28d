//! Atomic writes of single files.

use super::part::{self, PART};
use super::{folder_of, sync_folder};
use std::fs;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file under a temporary name until [`AtomicFile::publish`]; dropping it removes it. If the
/// target is a link, the link itself is replaced. Writes are unbuffered.
#[derive(Debug)]
pub struct AtomicFile {
    part: NamedTempFile,
    path: PathBuf,
}

impl AtomicFile {
    /// Starts a file for `path` and removes leftovers of killed writers of the same path.
    ///
    /// # Errors
    /// If the folder is missing or not writable, or `path` is a folder, a device or a pipe.
    pub fn create(path: &Path) -> io::Result<Self> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text);
        let name = path.file_name().ok_or_else(|| invalid("the path does not name a file"))?;
        match fs::metadata(path) {
            Ok(target) if target.is_dir() => return Err(invalid("it is a folder, not a file")),
            // A rename would replace e.g. /dev/null by a regular file.
            Ok(target) if !target.is_file() => {
                return Err(invalid("it is a device, a pipe or a socket, not a file"));
            }
            _ => {}
        }
        let folder = folder_of(path);
        part::remove_dead(folder, name);
        Ok(Self { part: part::create(folder, name, PART)?, path: path.to_owned() })
    }

    /// Returns the number of bytes written so far.
    ///
    /// # Errors
    /// If the metadata cannot be read.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.part.as_file().metadata()?.len())
    }

    /// Keeps the unfinished file and returns its temporary path. The next writer removes it.
    ///
    /// # Errors
    /// If the file cannot be kept.
    pub fn leave(self) -> io::Result<PathBuf> {
        let (_, path) = self.part.keep().map_err(|error| error.error)?;
        Ok(path)
    }

    /// Syncs the file and renames it to its target, replacing an earlier file.
    ///
    /// # Errors
    /// If a step fails; an earlier file is unchanged.
    pub fn publish(self) -> io::Result<()> {
        self.part.as_file().sync_all()?;
        self.part.persist(&self.path).map_err(|error| error.error)?;
        sync_folder(folder_of(&self.path))
    }

    /// Same as [`publish`](Self::publish), unless the target exists. Of several concurrent writers
    /// one succeeds. Returns true if this one did.
    ///
    /// # Errors
    /// If a sync or a rename fails.
    pub fn publish_new(self) -> io::Result<bool> {
        self.part.as_file().sync_all()?;
        match self.part.persist_noclobber(&self.path) {
            Ok(_) => sync_folder(folder_of(&self.path)).map(|()| true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.part.as_file_mut().flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.part.as_file_mut().seek(position)
    }
}

/// Writes `bytes` to `path` atomically: afterwards it has either the old or the new content.
///
/// # Errors
/// If a step fails; no temporary file is left.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let publish = || write_with(path, |file| file.write_all(bytes));
    retry_if_lost(path, publish(), publish)
}

/// Same as [`write()`], with the content that `fill` writes.
///
/// # Errors
/// If `fill` or a step fails; no temporary file is left.
pub fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<AtomicFile>) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufWriter::new(AtomicFile::create(path)?);
    fill(&mut file)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.publish()
}

/// Makes `path` a symbolic link to `target`, replacing an earlier file or link.
///
/// # Errors
/// If the link cannot be created or renamed; an earlier file is unchanged.
pub fn link(target: &Path, path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let link = part::create_link(target, folder_of(path), name)?;
    link.persist(path).map_err(|error| error.error)?;
    sync_folder(folder_of(path))
}

/// Same as [`write()`], unless the file exists. Returns true if this call wrote it.
///
/// # Errors
/// If a sync or a rename fails.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let publish = || {
        let mut file = AtomicFile::create(path)?;
        file.write_all(bytes)?;
        file.publish_new()
    };
    retry_if_lost(path, publish(), publish)
}

/// Retries once if a writer on another machine removed the temporary file. On network file systems
/// with machine-local locks, it appears to that writer as a leftover.
fn retry_if_lost<T>(
    path: &Path,
    result: io::Result<T>,
    again: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder_of(path).is_dir() => {
            again()
        }
        result => result,
    }
}
