//! One file that appears complete or not at all.

use super::part::{self, PART};
use super::{folder_of, sync_folder};
use std::fs;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file under a temporary name until [`WholeFile::publish`]; dropping it removes it.
///
/// A link at the target is replaced, never followed. Writes go to the file unbuffered.
#[derive(Debug)]
pub struct WholeFile {
    part: NamedTempFile,
    path: PathBuf,
}

impl WholeFile {
    /// Begins a file for `path`, and removes what killed writers of the same path left.
    ///
    /// # Errors
    /// If the folder is missing or not writable, or `path` is a folder, a device or a pipe.
    pub fn create(path: &Path) -> io::Result<Self> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text);
        let name = path.file_name().ok_or_else(|| invalid("the path does not name a file"))?;
        match fs::metadata(path) {
            Ok(target) if target.is_dir() => return Err(invalid("it is a folder, not a file")),
            // A rename would put a plain file in the place of e.g. /dev/null.
            Ok(target) if !target.is_file() => {
                return Err(invalid("it is a device, a pipe or a socket, not a file"));
            }
            _ => {}
        }
        let folder = folder_of(path);
        part::remove_dead(folder, name);
        Ok(Self { part: part::create(folder, name, PART)?, path: path.to_owned() })
    }

    /// Number of bytes written so far.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.part.as_file().metadata()?.len())
    }

    /// Leaves the unfinished file under its temporary name, which is returned. The next writer of
    /// the same path removes it.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub fn leave(self) -> io::Result<PathBuf> {
        let (_, path) = self.part.keep().map_err(|error| error.error)?;
        Ok(path)
    }

    /// Syncs the file and gives it its name, in place of an earlier file.
    ///
    /// # Errors
    /// If a step fails; an earlier file stays as it was.
    pub fn publish(self) -> io::Result<()> {
        self.part.as_file().sync_all()?;
        self.part.persist(&self.path).map_err(|error| error.error)?;
        sync_folder(folder_of(&self.path))
    }

    /// As [`publish`](Self::publish), unless there is a file already: of several writers at once one
    /// wins. Returns whether this one did.
    ///
    /// # Errors
    /// If a step fails.
    pub fn publish_new(self) -> io::Result<bool> {
        self.part.as_file().sync_all()?;
        match self.part.persist_noclobber(&self.path) {
            Ok(_) => sync_folder(folder_of(&self.path)).map(|()| true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.part.as_file_mut().flush()
    }
}

impl Seek for WholeFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.part.as_file_mut().seek(position)
    }
}

/// Writes `bytes` to `path`, which holds either what it held before or all of them.
///
/// # Errors
/// If a step fails; nothing is left beside `path` then.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let publish = || write_with(path, |file| file.write_all(bytes));
    again_if_lost(path, publish(), publish)
}

/// As [`write()`], with what `fill` writes.
///
/// # Errors
/// If `fill` or a step fails; nothing is left beside `path` then.
pub fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<WholeFile>) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufWriter::new(WholeFile::create(path)?);
    fill(&mut file)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.publish()
}

/// Makes `path` a symbolic link to `target`, in place of an earlier file or link.
///
/// # Errors
/// If it cannot be created or renamed; an earlier file stays as it was.
pub fn link(target: &Path, path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let link = part::create_link(target, folder_of(path), name)?;
    link.persist(path).map_err(|error| error.error)?;
    sync_folder(folder_of(path))
}

/// As [`write()`], unless there is a file already. Returns whether this call wrote it.
///
/// # Errors
/// If a step fails.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let publish = || {
        let mut file = WholeFile::create(path)?;
        file.write_all(bytes)?;
        file.publish_new()
    };
    again_if_lost(path, publish(), publish)
}

/// Tries once more if the temporary file was removed by another machine's writer: network file
/// systems whose locks count on one machine alone let it take the file for a dead writer's.
fn again_if_lost<T>(
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
