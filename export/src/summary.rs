//! `export.json`: the sources, options and weight files of a network folder.

use crate::options::{Options, PREFIX_CAPACITY, Precision, WeightStorage};
use crate::registry::Families;
use crate::weights::{HashCache, WeightFile, WeightsError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tandem_files::shortened;

/// Format version of `export.json`. Readers refuse any other.
pub const SUMMARY_FORMAT: u32 = 2;

/// Content of `export.json`, the summary of an export.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// [`SUMMARY_FORMAT`] at the time of writing.
    pub format: u32,
    pub exporter_version: String,
    pub model: String,
    pub checkpoint: PathBuf,
    /// Lower-case SHA-256 over names and headers of the checkpoint's weight files. It changes with
    /// the name, type, shape or offset of any tensor, but not with the values.
    pub headers_sha256: String,
    pub options: Options,
    /// Capacity of the prefix KV cache in tokens; absent in a family without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_capacity: Option<usize>,
    /// Lower-case SHA-256 of the graph file of each network.
    pub networks: BTreeMap<String, String>,
    /// Warnings about the checkpoint.
    pub warnings: Vec<String>,
    /// Checkpoint files that graphs reference.
    pub weight_files: Vec<String>,
    /// Every file in the folder from which weights are read.
    pub weights: Vec<WeightFile>,
    /// The checkpoint's weight files, whether used or not.
    pub sources: Vec<WeightFile>,
    /// Size of the file of converted, folded and copied weights in bytes; zero without such a file.
    pub converted_bytes: u64,
}

/// Error of reading `export.json`.
#[derive(Debug, thiserror::Error)]
pub enum SummaryError {
    /// The text is not JSON or lacks a key.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The file has another format version.
    #[error(
        "{}, this tandem reads format {SUMMARY_FORMAT}",
        found.map_or("it has no format".to_owned(), |found| format!("it has format {found}"))
    )]
    Format {
        /// `None` in folders of earlier versions.
        found: Option<u64>,
    },
    /// A name in the file is not a valid network or file name.
    #[error("it names {name:?}, which is not the name of a {what} of an export")]
    Name {
        /// "network" or "weight file".
        what: &'static str,
        name: String,
    },
    /// The model family is not registered.
    #[error("it is of model {found:?}, this tandem has {known}")]
    Model {
        /// Name of the family, shortened.
        found: String,
        /// Names of the registered families.
        known: String,
    },
}

impl Families {
    /// Parses an `export.json`. Fails if the text is not a summary, has another format version or
    /// another family, or has names that point outside the folder.
    pub fn parse_summary(&self, text: &[u8]) -> Result<Summary, SummaryError> {
        let summary = Summary::parse_of_any_family(text)?;
        let Some(family) = self.named(&summary.model) else {
            let (found, known) = (shortened(&summary.model), self.names());
            return Err(SummaryError::Model { found, known });
        };
        match summary.networks.keys().find(|name| !family.is_network(name)) {
            Some(name) => Err(SummaryError::Name { what: "network", name: shortened(name) }),
            None => Ok(summary),
        }
    }
}

impl Summary {
    /// Parses an `export.json` of a registered family. Fails like [`Families::parse_summary`].
    pub fn parse(text: &[u8]) -> Result<Self, SummaryError> {
        Families::known().parse_summary(text)
    }

    /// Parses an `export.json` without checking its model. Fails if the text is not a summary, has
    /// another format version, or has names that point outside the folder.
    pub fn parse_of_any_family(text: &[u8]) -> Result<Self, SummaryError> {
        let value: serde_json::Value = serde_json::from_slice(text)?;
        let found = value["format"].as_u64();
        if found != Some(SUMMARY_FORMAT.into()) {
            return Err(SummaryError::Format { found });
        }
        // Parsed from the text again, so that errors contain the line.
        let summary: Self = serde_json::from_slice(text)?;
        let mut files = summary.weights.iter().map(|file| &file.name);
        match files.find(|name| !is_file_name(name)) {
            Some(name) => Err(SummaryError::Name { what: "weight file", name: shortened(name) }),
            None => Ok(summary),
        }
    }

    /// Returns the names of the networks in execution order.
    pub fn network_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.networks.keys().cloned().collect();
        if let Some(family) = Families::known().named(&self.model) {
            family.sort_networks(&mut names);
        }
        names
    }

    /// Checks that the weight files in `folder` are unchanged since the export. Fails if a file
    /// is missing or has changed.
    pub fn check_weights(&self, folder: &Path, cache: &HashCache) -> Result<(), WeightsError> {
        let export = self.export_command(folder);
        self.weights.iter().try_for_each(|file| file.check(folder, cache, &export))
    }

    /// Returns the checkpoint's weight files that have changed since the export, without missing
    /// files.
    pub fn changed_sources(&self, cache: &HashCache) -> Vec<PathBuf> {
        let path = |file: &WeightFile| self.checkpoint.join(&file.name);
        let has_changed = |file: &&WeightFile| {
            let check = file.check(&self.checkpoint, cache, "");
            matches!(check, Err(WeightsError::Changed { .. }))
        };
        self.sources.iter().filter(has_changed).map(path).collect()
    }

    /// Returns the summary of the same export in another precision, with the same prefix capacity.
    #[must_use]
    pub fn in_precision(mut self, precision: Precision) -> Self {
        self.options.precision = precision;
        if let Some(capacity) = self.prefix_capacity {
            self.options.own.insert(PREFIX_CAPACITY.to_owned(), capacity.into());
        }
        self
    }

    /// Returns the command that exports the same networks to `out`.
    pub fn export_command(&self, out: &Path) -> String {
        let mut command = format!(
            "tandem export --checkpoint {} --precision {}",
            quoted(&self.checkpoint),
            spelled(&self.options.precision),
        );
        if let Some(family) = Families::known().named(&self.model) {
            command += &family.arguments(&self.options);
        }
        if self.options.probes {
            command += " --probes";
        }
        if self.options.weights != WeightStorage::Auto {
            command += &format!(" --weights {}", spelled(&self.options.weights));
        }
        command + &format!(" --out {}", quoted(out))
    }
}

/// True if `name` is a plain file name, without a path.
pub fn is_file_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}

/// Formats an enum value as a command-line argument.
fn spelled(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).expect("a fieldless enum");
    value.as_str().unwrap_or_default().to_owned()
}

/// Quotes a path for a shell if necessary.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if !path.is_empty() && path.chars().all(is_plain) {
        return path;
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_outside_the_folder_is_not_a_file_name() {
        for name in ["", ".", "..", "/etc/passwd", "../w", "a/b", "a/"] {
            assert!(!is_file_name(name), "{name}");
        }
        assert!(is_file_name("model-00001-of-00002.safetensors"));
    }

    #[test]
    fn path_with_special_characters_is_quoted() {
        assert_eq!(quoted(Path::new("/a/b-1.0")), "/a/b-1.0");
        assert_eq!(quoted(Path::new("my model")), "'my model'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
    }
}
