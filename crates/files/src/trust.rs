//! Detection of files that every user of the machine may replace.

use std::io;
use std::path::{Path, PathBuf};

/// Returns the world-writable file or parent folder through which every user of this machine may
/// replace `path`. Both the path and its canonical form are checked. `None` if nothing is
/// world-writable, or on systems without such permissions. Sticky folders such as `/tmp` are not
/// reported: only owners may replace files in them.
///
/// # Errors
/// If the metadata of the file or a folder cannot be read.
pub fn replaceable_by_all(path: &Path) -> io::Result<Option<PathBuf>> {
    let (named, real) = (std::path::absolute(path)?, path.canonicalize()?);
    for place in named.ancestors().chain(real.ancestors()) {
        if may_be_changed_by_all(place)? {
            return Ok(Some(place.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(unix)]
fn may_be_changed_by_all(place: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    const ALL_MAY_WRITE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let metadata = place.metadata()?;
    let mode = metadata.mode();
    let only_owners_replace = metadata.is_dir() && mode & STICKY != 0;
    Ok(mode & ALL_MAY_WRITE != 0 && !only_owners_replace)
}

#[cfg(not(unix))]
fn may_be_changed_by_all(_: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn world_writable_paths_are_found_except_sticky_folders() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let (folder, links) = (root.join("folder"), root.join("links"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&links).unwrap();
        let (file, link) = (folder.join("library.so"), links.join("library.so"));
        fs::write(&file, "").unwrap();
        symlink(&file, &link).unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        let check = |path: &Path, expected: Option<&Path>| {
            assert_eq!(replaceable_by_all(path).unwrap().as_deref(), expected);
        };
        set(&file, 0o664).unwrap();
        check(&file, None);
        set(&file, 0o666).unwrap();
        check(&file, Some(&file));
        set(&file, 0o644).unwrap();
        set(&folder, 0o777).unwrap();
        check(&file, Some(&folder));
        check(&link, Some(&folder));
        set(&folder, 0o1777).unwrap();
        check(&file, None);
        set(&links, 0o777).unwrap();
        check(&link, Some(&links));
        check(&file, None);
        assert!(replaceable_by_all(&folder.join("missing")).is_err());
    }
}
