//! JSON files with the official indent, which appear whole or not at all.

use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};

/// A result file could not be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write {path:?}; finished drives are kept: put it right and run the same command again"
)]
pub struct WriteError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Writes `value` as JSON with the official indent of 4; `path` holds either what it held before or
/// all of it.
///
/// # Errors
/// If one of these steps fails.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), WriteError> {
    let written = json_text(value).and_then(|text| tandem_files::write(path, &text));
    written.map_err(|source| WriteError { path: path.to_owned(), source })
}

/// As [`write_json`], on one line.
///
/// # Errors
/// If a step fails.
pub fn write_json_compact(path: &Path, value: &impl Serialize) -> Result<(), WriteError> {
    serde_json::to_vec(value)
        .map_err(io::Error::from)
        .and_then(|text| tandem_files::write(path, &text))
        .map_err(|source| WriteError { path: path.to_owned(), source })
}

/// As [`write_json`], unless there is a file already: of several writers at once one wins. Returns
/// whether this one did.
///
/// # Errors
/// If a step fails.
pub(crate) fn write_new(path: &Path, value: &impl Serialize) -> Result<bool, WriteError> {
    let written = json_text(value).and_then(|text| tandem_files::write_new(path, &text));
    written.map_err(|source| WriteError { path: path.to_owned(), source })
}

pub(crate) fn json_text(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, indent);
    value.serialize(&mut serializer)?;
    Ok(text)
}
