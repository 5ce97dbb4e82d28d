//! Export options of AutoMoT.

use super::NAME;
use crate::family::NetworkError;
use crate::options::{Options, Precision, WeightStorage};
use serde::{Deserialize, Serialize};

/// Options of an export of AutoMoT, including those of every family.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportOptions {
    pub precision: Precision,
    /// Height and width of the frames of the vision tower, pixels.
    pub frame_size: [usize; 2],
    pub frames: usize,
    /// Capacity of the prefix KV cache in tokens; `None` for the smallest multiple of
    /// 64 that fits every prompt.
    pub prefix_capacity: Option<usize>,
    /// Number of networks among which the layers of the understanding expert are divided. With more
    /// than one, more urgent work can use the device between their runs.
    pub understanding_groups: usize,
    /// Adds outputs for intermediate values, which golden tests compare.
    pub probes: bool,
    /// Location of the weights that need no conversion.
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
    /// Reads the options of an export. Fails if AutoMoT has no such option, or
    /// a value has the wrong type.
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
