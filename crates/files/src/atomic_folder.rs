//! Atomic creation and replacement of folders.

use super::part::{self, LOCK, PART};
use super::{folder_of, sync_folder};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Number of attempts to publish while other writers publish to the same target.
const ATTEMPTS: usize = 16;

/// A folder under a temporary name until it is published; dropping it removes it. If the target is
/// a link, the folder that it points to is replaced.
#[derive(Debug)]
pub struct AtomicFolder {
    part: PathBuf,
    target: PathBuf,
    /// Lock held during the lifetime of this value, so that other writers do not remove the folder.
    _lock: NamedTempFile,
}

impl AtomicFolder {
    /// Starts a folder for `target`, creates its parent folder, and removes leftovers of killed
    /// writers of the same target.
    ///
    /// # Errors
    /// If `target` does not name a folder, or its parent folder is not writable.
    pub fn create(target: &Path) -> io::Result<Self> {
        // Replacing `.` by name would leave the shell in a removed folder.
        let named = target.file_name().map(|_| target.canonicalize());
        let target = named.and_then(Result::ok).unwrap_or_else(|| target.to_owned());
        Self::create_in(folder_of(&target), &target)
    }

    /// Same as [`create`](Self::create), with the temporary folder in `parent` (same file system).
    ///
    /// # Errors
    /// Same as [`create`](Self::create).
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

    /// Returns the temporary path of the folder while it is being written.
    pub fn path(&self) -> &Path {
        &self.part
    }

    /// Creates a file in the folder, with its parent folders. The caller has to sync it.
    ///
    /// # Errors
    /// If the file already exists or cannot be created.
    pub fn create_file(&self, place: impl AsRef<Path>) -> io::Result<File> {
        // Fail if the temporary folder was removed: recreating it would silently lose its content.
        fs::metadata(&self.part)?;
        let path = self.part.join(place);
        fs::create_dir_all(folder_of(&path))?;
        File::create_new(path)
    }

    /// Writes and syncs a file in the folder.
    ///
    /// # Errors
    /// Same as [`create_file`](Self::create_file), or if the disk is full.
    pub fn write(&self, place: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create_file(place)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Renames the folder to its target. An existing target is replaced atomically and removed; the
    /// caller must have checked that this is allowed.
    ///
    /// # Errors
    /// If a step fails; an existing target stays in place.
    pub fn publish(self) -> io::Result<()> {
        sync_folders(&self.part)?;
        let mut moved = self.rename_or_swap();
        for _ in 0..ATTEMPTS {
            // Another writer published or removed the target in the meantime.
            if !moved.as_ref().is_err_and(|error| is_occupied(error) || is_missing(error)) {
                break;
            }
            moved = self.rename_or_swap();
        }
        moved.map_err(hinted)?;
        sync_folder(folder_of(&self.target))
        // Dropping `self` removes the earlier folder, which now has the temporary name.
    }

    fn rename_or_swap(&self) -> io::Result<()> {
        if self.target.exists() { self.swap() } else { fs::rename(&self.part, &self.target) }
    }

    /// Renames the folder to its target unless the target exists; an empty folder is replaced.
    /// Returns true if the folder was published.
    ///
    /// # Errors
    /// If a sync or a rename fails.
    pub fn publish_new(self) -> io::Result<bool> {
        sync_folders(&self.part)?;
        match fs::rename(&self.part, &self.target) {
            Ok(()) => sync_folder(folder_of(&self.target)).map(|()| true),
            Err(error) if is_occupied(&error) => Ok(false),
            Err(error) => Err(hinted(error)),
        }
    }

    /// Exchanges the two folders atomically, so that the target is never absent.
    #[cfg(target_os = "linux")]
    fn swap(&self) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, &self.part, CWD, &self.target, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            // Some network file systems do not support the exchange.
            Err(Errno::INVAL | Errno::NOSYS) => self.replace(),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn swap(&self) -> io::Result<()> {
        self.replace()
    }

    /// Replaces the target by two renames, absent in between; restores it if the second one fails.
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

impl Drop for AtomicFolder {
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

/// Returns true if a rename failed because its target is a file or a non-empty folder.
fn is_occupied(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
}

/// Adds a hint to errors that occur if the target is a mount point.
fn hinted(error: io::Error) -> io::Error {
    use io::ErrorKind::{CrossesDevices, ResourceBusy};
    if !matches!(error.kind(), CrossesDevices | ResourceBusy) {
        return error;
    }
    let text = format!("{error}; if the target is a mount point, use a new folder inside it");
    io::Error::new(error.kind(), text)
}
