//! Files with specifications of checkpoints to synthesize.
//!
//! A file may name its model family under the key `family`. Without that key it belongs to AutoMoT,
//! unless it is the published configuration of a model that another family recognizes.

use crate::checkpoint::CheckpointError;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Key under which a file names its family.
pub(crate) const FAMILY_KEY: &str = "family";

/// Specification of a checkpoint to synthesize.
#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    /// Argument of [`Family::synthesize`](crate::family::Family::synthesize).
    pub value: Value,
    /// Assumptions about parts that the file does not describe.
    pub notes: Vec<String>,
}

/// A file with a specification, or with the published configuration of a model.
pub struct SpecFile {
    path: PathBuf,
    text: String,
    content: Value,
}

impl SpecFile {
    /// Reads a YAML or JSON file, or the `config.json` of a folder. Fails if the file
    /// cannot be read, or is not YAML.
    pub fn read(path: &Path) -> Result<Self, SpecError> {
        let path = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(path, text),
            Err(source) => Err(SpecError::Read { path, source }),
        }
    }

    /// Parses the text of a file. `path` is used in errors. Fails if the text is not YAML.
    pub fn parse(path: PathBuf, text: String) -> Result<Self, SpecError> {
        let content = match serde_saphyr::from_str(&text) {
            Ok(content) => content,
            // Some JSON is not valid YAML: YAML forbids indentation with tabs.
            Err(source) => match serde_json::from_str(&text) {
                Ok(content) => content,
                Err(_) => return Err(SpecError::Parse { path, source: Box::new(source) }),
            },
        };
        Ok(Self { path, text, content })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the parsed content of the file.
    pub fn content(&self) -> &Value {
        &self.content
    }

    /// Deserializes the content without the key `family`. Fails if the content does not match `T`.
    /// The error contains the line in the file, unless the file names its family.
    pub fn specification<T: DeserializeOwned>(&self) -> Result<T, SpecError> {
        if self.content.get(FAMILY_KEY).is_some() {
            let mut content = self.content.clone();
            content.as_object_mut().and_then(|content| content.shift_remove(FAMILY_KEY));
            return serde_json::from_value(content)
                .map_err(|source| SpecError::Content { path: self.path.clone(), source });
        }
        // Parsed from the text again, so that errors contain the line.
        serde_saphyr::from_str(&self.text).map_err(|source| SpecError::Parse {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }
}

/// Error of reading a specification.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file does not exist or cannot be read.
    #[error("cannot read configuration {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The text is not YAML, or not a specification of the family.
    #[error("{} is not a checkpoint configuration", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// The file names its family, and the rest is not a specification of that family.
    #[error("{} is not a checkpoint configuration", path.display())]
    Content {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The file names a family that is not registered.
    #[error("{} is of model family {found:?}, this tandem has {known}", path.display())]
    UnknownFamily {
        path: PathBuf,
        /// Name of the family, shortened.
        found: String,
        /// Names of the registered families.
        known: String,
    },
    /// The published configuration of a model is not valid for the family.
    #[error(transparent)]
    Published(#[from] CheckpointError),
}
