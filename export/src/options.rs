//! Options of an export: those of every model family, and those of one.

use crate::checkpoint::Tensors;
use crate::dtype::DType;
use crate::graph::{Graph, to_grid};
use half::f16;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the networks compute in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision, for CPUs.
    F32,
    /// bfloat16, for GPUs.
    Bf16,
    /// Half precision, for GPUs: as bfloat16, with three more bits of precision and a range that
    /// ends at 65504.
    F16,
    /// bfloat16 as the release computes it on a GPU, in single precision with every result rounded:
    /// slow, for CPUs, to know what bfloat16 alone changes.
    Bf16Emulated,
}

impl Precision {
    /// Element type of weights and activations; what emulates it carries it in f32.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 | Self::Bf16Emulated => DType::Bf16,
            Self::F16 => DType::F16,
        }
    }

    /// An empty graph over the checkpoint's tensors that computes in this precision.
    pub fn graph<'a>(self, name: &str, checkpoint: &'a Tensors) -> Graph<'a> {
        let graph = Graph::new(name, checkpoint.tensors(), self.dtype());
        if self == Self::Bf16Emulated { graph.emulating() } else { graph }
    }

    /// What constants that are computed at export round every step to.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 | Self::Bf16Emulated => to_grid(value),
            Self::F16 => f16::from_f32(value).to_f32(),
        }
    }
}

/// Where a network folder has the weights that are used as the checkpoint stores them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightStorage {
    /// Copied up to a gigabyte; beyond that shared with the checkpoint by the file system where it
    /// can, else linked.
    #[default]
    Auto,
    /// Links to the checkpoint's files, which ONNX's checker and ONNX Runtime refuse to follow.
    Link,
    /// In the folder itself, which is then complete.
    Copy,
}

/// Name of the option that fixes the capacity of the prefix KV cache, in families that have one.
pub const PREFIX_CAPACITY: &str = "prefix_capacity";

/// Options of an export, as `export.json` holds them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// What the networks compute in.
    pub precision: Precision,
    /// Options of the model family, by name; the family checks them. Absent ones have its defaults.
    #[serde(flatten)]
    pub own: Map<String, Value>,
    /// Adds outputs for values in between, which golden tests compare.
    #[serde(default)]
    pub probes: bool,
    /// Where the weights are that need no conversion.
    #[serde(default)]
    pub weights: WeightStorage,
}

impl From<&Self> for Options {
    fn from(options: &Self) -> Self {
        options.clone()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            precision: Precision::F32,
            own: Map::new(),
            probes: false,
            weights: WeightStorage::Auto,
        }
    }
}
