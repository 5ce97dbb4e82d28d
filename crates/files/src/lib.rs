//! Atomic writes of files and folders, mapped files, and file names and texts in messages.
//!
//! Files and folders are written under a temporary name next to the target and then renamed:
//!
//! | on disk | content |
//! |---|---|
//! | `.NAME.RANDOM.part` | file or folder that is being written |
//! | `.NAME.RANDOM.lock` | locked while the folder with the same `RANDOM` is being written |
//!
//! `RANDOM` cannot be guessed and the file is created exclusively, so an existing file or link is
//! never written to. The writer holds a lock on the file until it exits or is killed. The next
//! writer of the same target removes leftovers that it can lock.

mod atomic_file;
mod atomic_folder;
mod mapped;
mod name;
mod part;
mod quote;
mod regular;
mod trust;

pub use atomic_file::{AtomicFile, link, write, write_new, write_with};
pub use atomic_folder::AtomicFolder;
pub use mapped::{MappedFile, install_truncation_handler};
pub use name::path_component;
pub use part::{remove_leftovers, remove_leftovers_of};
pub use quote::{shortened, shortened_error};
pub use regular::{open_regular, read_regular};
pub use trust::replaceable_by_all;

use std::fs::File;
use std::io;
use std::path::Path;

/// Returns the parent folder of `path`; `.` for a plain name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs the entries of `folder` to disk, which makes a rename in it durable.
///
/// # Errors
/// If the sync fails. Folders that cannot be opened for reading and file systems that cannot sync
/// folders are ignored, because the files themselves are synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported) => {
            Ok(())
        }
        result => result,
    }
}
