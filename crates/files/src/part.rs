//! Temporary names, their locks, and what killed writers left.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use tempfile::NamedTempFile;

/// How the names of files and folders end that are being written.
pub(super) const PART: &str = ".part";

/// How the name of a folder's lock ends.
pub(super) const LOCK: &str = ".lock";

/// Random letters and digits in a temporary name.
const RANDOM: usize = 12;

/// Fewest random letters and digits of a temporary name, also of earlier versions.
const RANDOM_AT_LEAST: usize = 6;

/// Bytes of the target's name that a temporary name repeats: with the rest it stays below the 255
/// that file systems allow.
const LONGEST_NAME: usize = 200;

/// Attempts to create a temporary file that nobody removes before it is locked.
const ATTEMPTS: usize = 16;

/// Creates `.NAME.RANDOM` + `end` in `folder`, exclusively, and locks it. Dropping it removes it.
pub(super) fn create(folder: &Path, name: &OsStr, end: &str) -> io::Result<NamedTempFile> {
    let prefix = prefix(name);
    let mut builder = tempfile::Builder::new();
    // Results are for everyone that the umask lets read them, unlike other temporary files.
    let permissions = fs::Permissions::from_mode(0o666);
    builder.prefix(&prefix).suffix(end).rand_bytes(RANDOM).permissions(permissions);
    for _ in 0..ATTEMPTS {
        let file = builder.tempfile_in(folder)?;
        // A file system without locks refuses `remove_dead` as well, which then removes nothing.
        let _ = file.as_file().lock();
        // Another process may have locked and removed it before this one had the lock.
        if file.as_file().metadata()?.nlink() > 0 {
            return Ok(file);
        }
    }
    Err(io::Error::other("temporary files are removed as soon as they are created"))
}

/// Creates the link `.NAME.RANDOM.part` in `folder`. Dropping it removes it.
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

/// Removes what killed writers of `name` left in `folder`. What cannot be removed stays: it is
/// hidden, and no writer depends on its absence.
pub(super) fn remove_dead(folder: &Path, name: &OsStr) {
    remove_dead_after(folder, &prefix(name));
}

/// Removes what killed writers of `path` left, for a file that is not going to be written now.
pub fn remove_leftovers_of(path: &Path) {
    if let Some(name) = path.file_name() {
        remove_dead(super::folder_of(path), name);
    }
}

/// Removes what killed writers of any name left in `folder`, which has to be one that only this
/// program writes to.
pub fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.retain(|name| name.as_bytes().starts_with(b"."));
    let mut prefixes: Vec<&[u8]> = names.iter().filter_map(|name| prefix_of(name)).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.iter().for_each(|prefix| remove_dead_after(folder, OsStr::from_bytes(prefix)));
}

/// Beginning of a temporary name, its last `.` before the random part included.
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

/// Calls `first` and removes a file, unless its writer still has it locked.
fn remove_if_dead(path: &Path, first: impl FnOnce() -> io::Result<()>) {
    let Ok(file) = File::options().write(true).open(path) else { return };
    if file.try_lock().is_ok() && first().is_ok() {
        let _ = fs::remove_file(path);
    }
}

/// Removes a folder and everything in it; one that does not exist is fine.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The same temporary name with another ending.
pub(super) fn renamed(path: &Path, end: &str, other_end: &str) -> std::path::PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let stem = name.strip_suffix(end.as_bytes()).unwrap_or(name);
    path.with_file_name(OsString::from_vec([stem, other_end.as_bytes()].concat()))
}

/// Beginning of the temporary names of `name`.
fn prefix(name: &OsStr) -> OsString {
    let name = name.as_bytes();
    let name = &name[..name.len().min(LONGEST_NAME)];
    OsString::from_vec([b".", name, b"."].concat())
}

fn joined(prefix: &OsStr, random: &[u8], end: &str) -> OsString {
    OsString::from_vec([prefix.as_bytes(), random, end.as_bytes()].concat())
}

/// The random part of a temporary name; `None` for any other name.
fn random_of<'a>(found: &'a OsStr, prefix: &OsStr, end: &str) -> Option<&'a [u8]> {
    let rest = found.as_bytes().strip_prefix(prefix.as_bytes())?;
    let random = rest.strip_suffix(end.as_bytes())?;
    let is_random = random.len() >= RANDOM_AT_LEAST && random.iter().all(u8::is_ascii_alphanumeric);
    is_random.then_some(random)
}
