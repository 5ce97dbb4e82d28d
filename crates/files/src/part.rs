//! Temporary names, their locks, and removal of leftovers of killed writers.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use tempfile::NamedTempFile;

/// Suffix of files and folders that are being written.
pub(super) const PART: &str = ".part";

/// Suffix of the lock file of a folder that is being written.
pub(super) const LOCK: &str = ".lock";

/// Number of random letters and digits in a temporary name.
const RANDOM: usize = 12;

/// Minimum number of random characters in a temporary name, including those of earlier versions.
const RANDOM_AT_LEAST: usize = 6;

/// Maximum number of bytes of the target's name in a temporary name, so that the temporary name
/// stays below the limit of file systems (255 bytes).
const LONGEST_NAME: usize = 200;

/// Number of attempts to create a temporary file and lock it before another process removes it.
const ATTEMPTS: usize = 16;

/// Creates `.NAME.RANDOM` + `end` in `folder` exclusively and locks it. Dropping it removes it.
pub(super) fn create(folder: &Path, name: &OsStr, end: &str) -> io::Result<NamedTempFile> {
    let prefix = prefix(name);
    let mut builder = tempfile::Builder::new();
    // Results get the permissions of the umask, unlike other temporary files.
    let permissions = fs::Permissions::from_mode(0o666);
    builder.prefix(&prefix).suffix(end).rand_bytes(RANDOM).permissions(permissions);
    for _ in 0..ATTEMPTS {
        let file = builder.tempfile_in(folder)?;
        // On a file system without locks, `remove_dead` cannot lock either and removes nothing.
        let _ = file.as_file().lock();
        // Another process may have locked and removed the file before this process locked it.
        if file.as_file().metadata()?.nlink() > 0 {
            return Ok(file);
        }
    }
    Err(io::Error::other("temporary files are removed as soon as they are created"))
}

/// Creates the symbolic link `.NAME.RANDOM.part` in `folder`. Dropping it removes it.
pub(super) fn create_link(
    target: &Path,
    folder: &Path,
    name: &OsStr,
) -> io::Result<NamedTempFile<()>> {
    let prefix = prefix(name);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(PART).rand_bytes(RANDOM);
    builder.make_in(folder, |path| std::os::unix::fs::symlink(target, path))
}

/// Removes leftovers of killed writers of `name` in `folder`. Leftovers that cannot be removed are
/// hidden and do not affect writers.
pub(super) fn remove_dead(folder: &Path, name: &OsStr) {
    remove_dead_after(folder, &prefix(name));
}

/// Removes leftovers of killed writers of `path`, without writing it.
pub fn remove_leftovers_of(path: &Path) {
    if let Some(name) = path.file_name() {
        remove_dead(super::folder_of(path), name);
    }
}

/// Removes leftovers of killed writers of any name in `folder`. Only for folders of this program.
pub fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.retain(|name| name.as_bytes().starts_with(b"."));
    let mut prefixes: Vec<&[u8]> = names.iter().filter_map(|name| prefix_of(name)).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.iter().for_each(|prefix| remove_dead_after(folder, OsStr::from_bytes(prefix)));
}

/// Returns the part of a temporary name before `RANDOM`, including the final `.`.
fn prefix_of(name: &OsStr) -> Option<&[u8]> {
    let name = name.as_bytes();
    let stem = [PART, LOCK].iter().find_map(|end| name.strip_suffix(end.as_bytes()))?;
    let dot = stem.iter().rposition(|&byte| byte == b'.')?;
    Some(&stem[..=dot])
}

fn remove_dead_after(folder: &Path, prefix: &OsStr) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let found = entry.file_name();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file {
            continue;
        }
        let path = entry.path();
        if random_of(&found, prefix, PART).is_some() {
            remove_if_dead(&path, || Ok(()));
        } else if let Some(random) = random_of(&found, prefix, LOCK) {
            let part = folder.join(joined(prefix, random, PART));
            remove_if_dead(&path, || remove_folder(&part));
        }
    }
}

/// Calls `first` and removes the file, unless its writer still holds the lock.
fn remove_if_dead(path: &Path, first: impl FnOnce() -> io::Result<()>) {
    let Ok(file) = File::options().write(true).open(path) else { return };
    if file.try_lock().is_ok() && first().is_ok() {
        let _ = fs::remove_file(path);
    }
}

/// Removes a folder with its content; succeeds if it does not exist.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Returns the temporary name with another suffix.
pub(super) fn renamed(path: &Path, end: &str, other_end: &str) -> std::path::PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let stem = name.strip_suffix(end.as_bytes()).unwrap_or(name);
    path.with_file_name(OsString::from_vec([stem, other_end.as_bytes()].concat()))
}

/// Returns the beginning of the temporary names of `name`.
fn prefix(name: &OsStr) -> OsString {
    let name = name.as_bytes();
    let name = &name[..name.len().min(LONGEST_NAME)];
    OsString::from_vec([b".", name, b"."].concat())
}

fn joined(prefix: &OsStr, random: &[u8], end: &str) -> OsString {
    OsString::from_vec([prefix.as_bytes(), random, end.as_bytes()].concat())
}

/// Returns the random part of a temporary name; `None` for any other name.
fn random_of<'a>(found: &'a OsStr, prefix: &OsStr, end: &str) -> Option<&'a [u8]> {
    let rest = found.as_bytes().strip_prefix(prefix.as_bytes())?;
    let random = rest.strip_suffix(end.as_bytes())?;
    let is_random = random.len() >= RANDOM_AT_LEAST && random.iter().all(u8::is_ascii_alphanumeric);
    is_random.then_some(random)
}
