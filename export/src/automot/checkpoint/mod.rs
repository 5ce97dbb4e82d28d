//! A checkpoint folder in AutoMoT's own format: configuration and tensors.
//!
//! [`Checkpoint::check`] compares every tensor with what the networks need, and
//! [`Tensors::scan_values`] reads all of the weights.

mod config;
pub mod expected;
mod trunk;

mod check;
mod ignored_keys;
mod naming;
mod parse;
mod preprocessor;
mod tokenizer;

pub use config::{AutomotConfig, BevConfig, MotConfig, SpecialTokens, TextConfig, VisionConfig};
pub use expected::Network;
pub use trunk::{Stage, Trunk};

use crate::checkpoint::{CheckpointError, Tensors};
use naming::NAMING;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;

/// An opened checkpoint folder: its tensors and its configuration.
pub struct Checkpoint {
    stored: Tensors,
    config: AutomotConfig,
}

impl Deref for Checkpoint {
    type Target = Tensors;

    fn deref(&self) -> &Tensors {
        &self.stored
    }
}

impl Checkpoint {
    /// Opens a folder: its configuration files and the headers of its weight files.
    ///
    /// Fails like [`Tensors::open`], and if the configuration is not valid.
    /// [`Self::check`] compares the tensors.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let stored = Tensors::open(dir, &NAMING)?;
        let config = parse::read(&dir.join(parse::CONFIG_FILE), stored.tensors())?;
        Ok(Self { stored, config })
    }

    /// Reads the sizes of the networks from a `config.json`, whatever its file name, and the other
    /// configuration files in its folder.
    pub(crate) fn config_of(file: &Path) -> Result<AutomotConfig, CheckpointError> {
        parse::read(file, &BTreeMap::new())
    }

    /// Checks the configuration files of a folder without weights.
    pub(crate) fn check_config(dir: &Path) -> Result<(), CheckpointError> {
        Self::config_of(&dir.join(parse::CONFIG_FILE)).map(|_| ())
    }

    /// Returns the sizes of the networks.
    pub fn config(&self) -> &AutomotConfig {
        &self.config
    }
}
