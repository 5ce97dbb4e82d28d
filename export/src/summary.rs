//! `export.json`: what a network folder was made from, and what it needs.

use crate::options::{Options, PREFIX_CAPACITY, Precision, WeightStorage};
use crate::registry::Families;
use crate::weights::{HashCache, WeightFile, WeightsError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tandem_files::shortened;

/// Version of the layout of `export.json`; a reader refuses another.
pub const SUMMARY_FORMAT: u32 = 2;

/// What an export is of; the content of `export.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// [`SUMMARY_FORMAT`] at the time of writing.
    pub format: u32,
    /// Version of this crate.
    pub exporter_version: String,
    /// Model family.
    pub model: String,
    /// Folder of the checkpoint.
    pub checkpoint: PathBuf,
    /// Lower-case SHA-256 over names and headers of the checkpoint's weight files: it changes with
    /// any tensor's name, type, shape or place, not with the weights' values.
    pub headers_sha256: String,
    /// What the caller chose.
    pub options: Options,
    /// Tokens that a prefix has room for; absent in a family without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_capacity: Option<usize>,
    /// Networks with the lower-case SHA-256 of their graph files.
    pub networks: BTreeMap<String, String>,
    /// What is odd about the checkpoint, as text.
    pub warnings: Vec<String>,
    /// Checkpoint files that graphs point into.
    pub weight_files: Vec<String>,
    /// Every file in the folder that weights are read from.
    pub weights: Vec<WeightFile>,
    /// The checkpoint's weight files, used or not.
    pub sources: Vec<WeightFile>,
    /// Bytes of the file of converted, folded and copied weights; zero if there is none.
    pub converted_bytes: u64,
}

/// Text that is not a usable `export.json`.
#[derive(Debug, thiserror::Error)]
pub enum SummaryError {
    /// It has another structure.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It has another format.
    #[error(
        "{}, this tandem reads format {SUMMARY_FORMAT}",
        found.map_or("it has no format".to_owned(), |found| format!("it has format {found}"))
    )]
    Format {
        /// Its format; `None` in folders of earlier versions.
        found: Option<u64>,
    },
    /// It names a network or a file that no export has.
    #[error("it names {name:?}, which is not the name of a {what} of an export")]
    Name {
        /// "network" or "weight file".
        what: &'static str,
        /// The name, shortened.
        name: String,
    },
    /// It is of another model family.
    #[error("it is of model {found:?}, this tandem has {known}")]
    Model {
        /// The model, shortened.
        found: String,
        /// The models that are known, as text.
        known: String,
    },
}

impl Families {
    /// Reads the text of an `export.json`.
    ///
    /// # Errors
    /// If it is not one, is of another format or of another family, or has names that lead out of its
    /// folder.
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
    /// Reads the text of an `export.json` of a known family.
    ///
    /// # Errors
    /// If it is not one, is of another format or model, or has names that lead out of its folder.
    pub fn parse(text: &[u8]) -> Result<Self, SummaryError> {
        Families::known().parse_summary(text)
    }

    /// Reads the text of an `export.json` without checking its model.
    ///
    /// # Errors
    /// If it is not one, is of another format, or has names that lead out of its folder.
    pub fn parse_of_any_family(text: &[u8]) -> Result<Self, SummaryError> {
        let value: serde_json::Value = serde_json::from_slice(text)?;
        let found = value["format"].as_u64();
        if found != Some(SUMMARY_FORMAT.into()) {
            return Err(SummaryError::Format { found });
        }
        // From the text again, so that errors name a line.
        let summary: Self = serde_json::from_slice(text)?;
        let mut files = summary.weights.iter().map(|file| &file.name);
        match files.find(|name| !is_file_name(name)) {
            Some(name) => Err(SummaryError::Name { what: "weight file", name: shortened(name) }),
            None => Ok(summary),
        }
    }

    /// Names of the networks, in the order in which they run.
    pub fn network_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.networks.keys().cloned().collect();
        if let Some(family) = Families::known().named(&self.model) {
            family.sort_networks(&mut names);
        }
        names
    }

    /// Checks that the weight files in `folder` are what they were when the networks were written.
    ///
    /// # Errors
    /// If one is missing or has changed.
    pub fn check_weights(&self, folder: &Path, cache: &HashCache) -> Result<(), WeightsError> {
        let export = self.export_command(folder);
        self.weights.iter().try_for_each(|file| file.check(folder, cache, &export))
    }

    /// The checkpoint's weight files that have other content than when the networks were written.
    /// Files that are no longer there are not among them.
    pub fn changed_sources(&self, cache: &HashCache) -> Vec<PathBuf> {
        let path = |file: &WeightFile| self.checkpoint.join(&file.name);
        let has_changed = |file: &&WeightFile| {
            let check = file.check(&self.checkpoint, cache, "");
            matches!(check, Err(WeightsError::Changed { .. }))
        };
        self.sources.iter().filter(has_changed).map(path).collect()
    }

    /// The summary of the same export in another precision, with the same prefix capacity.
    #[must_use]
    pub fn in_precision(mut self, precision: Precision) -> Self {
        self.options.precision = precision;
        if let Some(capacity) = self.prefix_capacity {
            self.options.own.insert(PREFIX_CAPACITY.to_owned(), capacity.into());
        }
        self
    }

    /// The command that exports the same networks to `out` again.
    pub fn export_command(&self, out: &Path) -> String {
        let mut command = format!(
            "tandem export --checkpoint {} --precision {}",
            quoted(&self.checkpoint),
            word(&self.options.precision),
        );
        if let Some(family) = Families::known().named(&self.model) {
            command += &family.arguments(&self.options);
        }
        if self.options.probes {
            command += " --probes";
        }
        if self.options.weights != WeightStorage::Auto {
            command += &format!(" --weights {}", word(&self.options.weights));
        }
        command + &format!(" --out {}", quoted(out))
    }
}

/// True if `name` stays in its folder.
pub fn is_file_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}

/// A value of an enum as the command line spells it.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).expect("an enum of words");
    value.as_str().unwrap_or_default().to_owned()
}

/// A path as a shell reads it.
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
    fn names_stay_in_their_folder() {
        for name in ["", ".", "..", "/etc/passwd", "../w", "a/b", "a/"] {
            assert!(!is_file_name(name), "{name}");
        }
        assert!(is_file_name("model-00001-of-00002.safetensors"));
    }

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("/a/b-1.0")), "/a/b-1.0");
        assert_eq!(quoted(Path::new("my model")), "'my model'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
    }
}
