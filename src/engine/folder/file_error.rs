//! Error of one operation on one file.

use std::io;
use std::path::{Path, PathBuf};

/// Error returned when a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", path.display())]
pub struct FileError {
    pub what: &'static str,
    pub path: PathBuf,
    /// Error of the operating system.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// Returns a function for `map_err` on operation `what` on `path`.
    pub(in crate::engine) fn at(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self { what, path, source }
    }
}
