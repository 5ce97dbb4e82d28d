//! A folder that appears complete or not at all.

use super::part::{self, LOCK, PART};
use super::{folder_of, sync_folder};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Attempts to publish while other writers publish at the same place.
const ATTEMPTS: usize = 16;

/// A folder under a temporary name beside its target until it is published; dropping it removes it.
///
/// A link at the target is followed: the folder that it points to is replaced.
#[derive(Debug)]
pub struct WholeFolder {
    part: PathBuf,
    target: PathBuf,
    /// Locked while this lives, so that nobody takes the folder for a leftover.
    _lock: NamedTempFile,
}

impl WholeFolder {
    /// Begins a folder for `target`, creates the folder that it is in, and removes what killed
    /// writers of the same target left.
    ///
    /// # Errors
    /// If `target` does not name a folder, or nothing can be written beside it.
    pub fn create(target: &Path) -> io::Result<Self> {
        // Replacing `.` would leave the shell in a folder that was removed.
        let named = target.file_name().map(|_| target.canonicalize());
        let target = named.and_then(Result::ok).unwrap_or_else(|| target.to_owned());
        Self::create_in(folder_of(&target), &target)
    }

    /// As [`create`](Self::create), with the temporary folder in `parent`, which has to be on the
    /// same disk.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_in(parent: &Path, target: &Path) -> io::Result<Self> {
        let unnamed =
            || io::Error::new(io::ErrorKind::InvalidInput, "the path does not name a folder");
        let name = target.file_name().ok_or_else(unnamed)?;
        fs::create_dir_all(parent)?;
        part::remove_dead(parent, name);
        let lock = part::create(parent, name, LOCK)?;
        let part = part::renamed(lock.path(), LOCK, PART);
        fs::create_dir(&part)?;
        Ok(Self { part, target: target.to_owned(), _lock: lock })
    }

    /// Where the folder is while it is being written.
    pub fn path(&self) -> &Path {
        &self.part
    }

    /// Creates a file of the folder, and the folders that it is in. The caller syncs it.
    ///
    /// # Errors
    /// If it is there already or cannot be created.
    pub fn create_file(&self, place: impl AsRef<Path>) -> io::Result<File> {
        // Recreating the temporary folder would lose what is already in it, unseen.
        fs::metadata(&self.part)?;
        let path = self.part.join(place);
        fs::create_dir_all(folder_of(&path))?;
        File::create_new(path)
    }

    /// Writes and syncs a file of the folder.
    ///
    /// # Errors
    /// As [`create_file`](Self::create_file), or if the disk is full.
    pub fn write(&self, place: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create_file(place)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Gives the folder its name. What has the name now is replaced in one step and removed: the
    /// caller has checked that it may be.
    ///
    /// # Errors
    /// If a step fails; what had the name keeps it.
    pub fn publish(self) -> io::Result<()> {
        sync_folders(&self.part)?;
        let mut moved = self.take_place();
        for _ in 0..ATTEMPTS {
            // Another writer published or removed its own in between.
            if !moved.as_ref().is_err_and(|error| is_occupied(error) || is_missing(error)) {
                break;
            }
            moved = self.take_place();
        }
        moved.map_err(hinted)?;
        sync_folder(folder_of(&self.target))
        // Dropping removes what has the temporary name now: the earlier folder, if any.
    }

    fn take_place(&self) -> io::Result<()> {
        if self.target.exists() { self.swap() } else { fs::rename(&self.part, &self.target) }
    }

    /// Gives the folder its name unless something has it; an empty folder is replaced. Returns
    /// whether it was free.
    ///
    /// # Errors
    /// If a step fails.
    pub fn publish_new(self) -> io::Result<bool> {
        sync_folders(&self.part)?;
        match fs::rename(&self.part, &self.target) {
            Ok(()) => sync_folder(folder_of(&self.target)).map(|()| true),
            Err(error) if is_occupied(&error) => Ok(false),
            Err(error) => Err(hinted(error)),
        }
    }

    /// Exchanges two folders in one step, so that the target is never absent.
    #[cfg(target_os = "linux")]
    fn swap(&self) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, &self.part, CWD, &self.target, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            // Some network file systems cannot exchange.
            Err(Errno::INVAL | Errno::NOSYS) => self.replace(),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn swap(&self) -> io::Result<()> {
        self.replace()
    }

    /// Two renames; the target is absent in between and comes back if the second fails.
    fn replace(&self) -> io::Result<()> {
        let old = part::renamed(&self.part, PART, ".old");
        fs::rename(&self.target, &old)?;
        if let Err(error) = fs::rename(&self.part, &self.target) {
            fs::rename(&old, &self.target)?;
            return Err(error);
        }
        fs::rename(&old, &self.part)
    }
}

impl Drop for WholeFolder {
    fn drop(&mut self) {
        // A leftover is hidden, and the next writer of the same target removes it.
        let _ = part::remove_folder(&self.part);
    }
}

fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync_folder(folder)
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// True if a rename failed because its target is a folder with content, or a file.
fn is_occupied(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
}

/// Adds what to do about a target that cannot be renamed to: the mount point of a disk.
fn hinted(error: io::Error) -> io::Error {
    use io::ErrorKind::{CrossesDevices, ResourceBusy};
    if !matches!(error.kind(), CrossesDevices | ResourceBusy) {
        return error;
    }
    let text = format!("{error}; if it is a mount point, give the path of a new folder in it");
    io::Error::new(error.kind(), text)
}
