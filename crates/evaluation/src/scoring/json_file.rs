//! JSON files with the official indent, written atomically.

use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};

/// Error returned when a result file can't be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write {path:?}; finished drives are kept: fix the cause and run the same command again"
)]
pub struct WriteError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Writes `value` atomically as JSON with the official indent of 4.
///
/// # Errors
/// If `value` can't be serialized or the file can't be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), WriteError> {
    let written = json_text(value).and_then(|text| tandem_files::write(path, &text));
    written.map_err(|source| WriteError { path: path.to_owned(), source })
}

/// Writes `value` atomically as JSON on one line.
pub fn write_json_compact(path: &Path, value: &impl Serialize) -> Result<(), WriteError> {
    serde_json::to_vec(value)
        .map_err(io::Error::from)
        .and_then(|text| tandem_files::write(path, &text))
        .map_err(|source| WriteError { path: path.to_owned(), source })
}

/// Writes `value` as [`write_json`] does, unless the file exists. Of several concurrent writers one
/// succeeds. Returns true if this one did.
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
