//! What a caller decides about AutoMoT's networks.

use super::NAME;
use crate::family::NetworkError;
use crate::options::{Options, Precision, WeightStorage};
use serde::{Deserialize, Serialize};

/// Options of an export of AutoMoT: its own and those of every family.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportOptions {
    /// What they compute in.
    pub precision: Precision,
    /// Height and width of the frames that the vision tower sees, pixels.
    pub frame_size: [usize; 2],
    /// Frames in one prompt.
    pub frames: usize,
    /// Tokens that a prefix has room for; `None` for the multiple of 64 that holds every prompt.
    pub prefix_capacity: Option<usize>,
    /// Networks that the layers of the understanding expert are divided among: 1 for one run, more
    /// for runs between which something more urgent may have the device.
    pub understanding_groups: usize,
    /// Adds outputs for values in between, which golden tests compare.
    pub probes: bool,
    /// Where the weights are that need no conversion.
    pub weights: WeightStorage,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            precision: Precision::F32,
            frame_size: [256, 512],
            frames: 4,
            prefix_capacity: None,
            understanding_groups: 1,
            probes: false,
            weights: WeightStorage::Auto,
        }
    }
}

impl ExportOptions {
    /// Reads the options of an export.
    ///
    /// # Errors
    /// If one is not an option of AutoMoT, or has a value of another type.
    pub fn of(options: &Options) -> Result<Self, NetworkError> {
        let options = serde_json::to_value(options).expect("maps with string keys serialize");
        serde_json::from_value(options)
            .map_err(|source| NetworkError::Options { family: NAME, source })
    }
}

impl From<&ExportOptions> for Options {
    fn from(options: &ExportOptions) -> Self {
        let options = serde_json::to_value(options).expect("plain structs serialize");
        serde_json::from_value(options).expect("AutoMoT has the options of every family")
    }
}
