//! Kernels that TensorRT-RTX compiled at first runs, kept beside the engine for the next start.
//!
//! The file is a line of text, which says what it was made for and the hash of the rest, and the
//! library's own bytes. What was made for another driver, GPU or library, or is damaged, is as good
//! as none: the library compiles again, and the file is written anew.

use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tandem_export::weights::hex;

/// First words of the file; a later layout has another number.
const MAGIC: &str = "tandem runtime cache 1";

/// A cache file of one engine, for one machine.
#[derive(Debug)]
pub(super) struct RuntimeCacheFile {
    path: PathBuf,
    /// Library, GPU and driver, in one line.
    made_for: String,
}

impl RuntimeCacheFile {
    pub(super) fn new(path: &Path, made_for: &str) -> Self {
        Self { path: path.to_path_buf(), made_for: made_for.replace('\n', " ") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn header(&self, blob: &[u8]) -> String {
        format!("{MAGIC}; {}; sha256 {}\n", self.made_for, hex(&Sha256::digest(blob)))
    }

    /// The library's bytes, if the file is there, whole, and made for this machine.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = fs::read(&self.path).ok()?;
        let line = bytes.iter().position(|&byte| byte == b'\n')? + 1;
        let blob = bytes.split_off(line);
        (bytes == self.header(&blob).as_bytes()).then_some(blob)
    }

    /// Replaces the file: readers see the old one or the new one.
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
    fn what_was_kept_is_read_on_the_same_machine_alone() {
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
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let file = RuntimeCacheFile::new(&path, "here");
        file.write(b"kernels").unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in [0, 10, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(file.read(), None, "the first {cut} bytes");
        }
        let mut changed = whole;
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&path, changed).unwrap();
        assert_eq!(file.read(), None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone").join("cache");
        assert!(RuntimeCacheFile::new(&gone, "here").write(b"kernels").is_err());
    }
}
