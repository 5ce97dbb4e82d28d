//! Files and folders that appear complete or not at all, and text of files in paths and messages.
//!
//! Everything that is published goes through a temporary name beside its target:
//!
//! | on disk | is |
//! |---|---|
//! | `.NAME.RANDOM.part` | a file or folder that is being written |
//! | `.NAME.RANDOM.lock` | locked for as long as the folder of the same `RANDOM` is being written |
//!
//! `RANDOM` cannot be guessed and the name is opened exclusively, so neither another writer nor a
//! link that somebody left there is written through. The writer holds a lock on the file until it
//! ends, in whatever way: the next writer of the same target removes what it can lock.

mod folder;
mod mapped;
mod name;
mod part;
mod quote;
mod regular;
mod trust;
mod whole;

pub use folder::WholeFolder;
pub use mapped::{MappedFile, tell_of_shortened_files};
pub use name::path_component;
pub use part::{remove_leftovers, remove_leftovers_of};
pub use quote::{shortened, shortened_error};
pub use regular::{open_regular, read_regular};
pub use trust::replaceable_by_all;
pub use whole::{WholeFile, link, write, write_new, write_with};

use std::fs::File;
use std::io;
use std::path::Path;

/// Returns the folder that `path` is in; `.` for a plain name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Waits until the names in `folder` are on the disk: only then is a rename durable.
///
/// # Errors
/// If the disk reports one. Folders that cannot be opened for reading and file systems that cannot
/// sync folders are passed over: the files themselves are synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported) => {
            Ok(())
        }
        result => result,
    }
}
