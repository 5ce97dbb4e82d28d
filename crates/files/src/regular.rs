//! Reading files from untrusted paths or with untrusted content.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// Opens a regular file for reading. Other file types are rejected before they are opened, because
/// opening a pipe waits for a writer and reading a device may never end.
///
/// # Errors
/// If it does not exist, cannot be read or is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let irregular = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    if !fs::metadata(path)?.is_file() {
        return Err(irregular());
    }
    let mut options = OpenOptions::new();
    options.read(true);
    // If the file was replaced by a pipe in the meantime, opening it does not block.
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(irregular()) }
}

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// Same as [`open_regular`], or if the file is larger.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let bytes = file.metadata()?.len();
    if bytes > most {
        let text = format!("it has {bytes} bytes, expected at most {most}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut content = Vec::with_capacity(bytes as usize);
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_folders_are_rejected_before_opening() {
        for path in ["/dev/zero", "/dev/null", "/"] {
            let error = open_regular(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn larger_file_is_rejected_with_both_sizes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "four").unwrap();
        assert_eq!(read_regular(&path, 4).unwrap(), b"four");
        let error = read_regular(&path, 3).unwrap_err().to_string();
        assert_eq!(error, "it has 4 bytes, expected at most 3");
    }
}
