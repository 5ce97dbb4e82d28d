//! Specifications of checkpoints to synthesize, as files hold them.
//!
//! A file may name its model family under the key `family`. Without it the file is AutoMoT's, unless
//! it is the published configuration of a model that another family recognizes.

use crate::checkpoint::CheckpointError;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Key of a file that names its family.
pub(crate) const FAMILY_KEY: &str = "family";

/// Specification of a checkpoint to synthesize.
#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    /// The specification, as [`Family::synthesize`](crate::family::Family::synthesize) takes it.
    pub value: Value,
    /// Assumptions about what the file does not describe.
    pub notes: Vec<String>,
}

/// A file with a specification, or with the published configuration of a model.
pub struct SpecFile {
    path: PathBuf,
    text: String,
    content: Value,
}

impl SpecFile {
    /// Reads a file (YAML includes JSON); a folder stands for the `config.json` in it.
    ///
    /// # Errors
    /// If the file cannot be read, or is not YAML.
    pub fn read(path: &Path) -> Result<Self, SpecError> {
        let path = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(path, text),
            Err(source) => Err(SpecError::Read { path, source }),
        }
    }

    /// Parses the text of a file; errors name it `path`.
    ///
    /// # Errors
    /// If the text is not YAML.
    pub fn parse(path: PathBuf, text: String) -> Result<Self, SpecError> {
        let content = match serde_saphyr::from_str(&text) {
            Ok(content) => content,
            // Not all JSON is YAML: tabs may not indent.
            Err(source) => match serde_json::from_str(&text) {
                Ok(content) => content,
                Err(_) => return Err(SpecError::Parse { path, source: Box::new(source) }),
            },
        };
        Ok(Self { path, text, content })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Content of the file.
    pub fn content(&self) -> &Value {
        &self.content
    }

    /// Reads the content as a family's own type, without the key `family`.
    ///
    /// # Errors
    /// If it is not one. The error names the line in the file, unless the file names its family.
    pub fn specification<T: DeserializeOwned>(&self) -> Result<T, SpecError> {
        if self.content.get(FAMILY_KEY).is_some() {
            let mut content = self.content.clone();
            content.as_object_mut().and_then(|content| content.shift_remove(FAMILY_KEY));
            return serde_json::from_value(content)
                .map_err(|source| SpecError::Content { path: self.path.clone(), source });
        }
        // From the text again, so that errors name a line.
        serde_saphyr::from_str(&self.text).map_err(|source| SpecError::Parse {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }
}

/// Why a file is not a specification.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file cannot be read.
    #[error("cannot read configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The text is not YAML, or not a specification of the family.
    #[error("{} is not a checkpoint configuration", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with the line.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// The content is not a specification of the family.
    #[error("{} is not a checkpoint configuration", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The file names a family that is not known.
    #[error("{} is of model family {found:?}, this tandem has {known}", path.display())]
    UnknownFamily {
        /// The file.
        path: PathBuf,
        /// The name of the family, shortened.
        found: String,
        /// The families that are known, as text.
        known: String,
    },
    /// A published configuration describes no model of the family.
    #[error(transparent)]
    Published(#[from] CheckpointError),
}
