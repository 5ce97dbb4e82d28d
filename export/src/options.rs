//! Options of an export: common ones and those of one model family.

use crate::checkpoint::Tensors;
use crate::dtype::DType;
use crate::graph::{Graph, round_bf16};
use half::f16;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Number format in which the networks compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision, for CPUs.
    F32,
    /// bfloat16, for GPUs.
    Bf16,
    /// Half precision, for GPUs. Compared with bfloat16 it has three more bits of precision and
    /// a range that ends at 65504.
    F16,
    /// bfloat16 as the AutoMoT release computes it on a GPU, emulated in single precision by
    /// rounding every result. Slow; for CPUs, to measure the effect of bfloat16 alone.
    Bf16Emulated,
}

impl Precision {
    /// Element type of weights and activations. An emulated type is stored as f32.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 | Self::Bf16Emulated => DType::Bf16,
            Self::F16 => DType::F16,
        }
    }

    /// Returns an empty graph over the checkpoint's tensors that computes in this precision.
    pub fn graph<'a>(self, name: &str, checkpoint: &'a Tensors) -> Graph<'a> {
        let graph = Graph::new(name, checkpoint.tensors(), self.dtype());
        if self == Self::Bf16Emulated { graph.emulating() } else { graph }
    }

    /// Rounds an intermediate value of a constant that is computed at export.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 | Self::Bf16Emulated => round_bf16(value),
            Self::F16 => f16::from_f32(value).to_f32(),
        }
    }
}

/// Location of the weights that are used as the checkpoint stores them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightStorage {
    /// Copied up to 1 GiB in total. Beyond that, cloned if the file system supports it, else linked.
    #[default]
    Auto,
    /// Links to the checkpoint's files. ONNX's checker and ONNX Runtime do not follow them.
    Link,
    /// Copied into the network folder, which then does not need the checkpoint.
    Copy,
}

/// Name of the option that sets the capacity of the prefix KV cache, in families that have one.
pub const PREFIX_CAPACITY: &str = "prefix_capacity";

/// Options of an export, as stored in `export.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Options {
    pub precision: Precision,
    /// Options of the model family by name. The family validates them and supplies the defaults.
    #[serde(flatten)]
    pub own: Map<String, Value>,
    /// Adds outputs for intermediate values, which golden tests compare.
    #[serde(default)]
    pub probes: bool,
    /// Location of the weights that need no conversion.
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
