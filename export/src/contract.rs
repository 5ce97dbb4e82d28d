//! The contract of a network: what a file beside each ONNX graph says about its inputs and outputs.
//!
//! An exporter writes it, an engine checks a loaded graph against it, a model checks that it is the
//! network it means to drive. Order matters: sessions bind tensors by position.

use crate::dtype::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the contract's own layout; a reader refuses another.
pub const FORMAT: u32 = 1;

/// One input or output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; all static.
    pub shape: Vec<usize>,
    /// What it holds: axes, unit, coordinate frame.
    pub meaning: String,
}

/// Everything a caller must know to run one network.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// [`FORMAT`] at the time of writing.
    pub format: u32,
    /// Which network this is, e.g. `vision`.
    pub network: String,
    /// Which model family it belongs to, e.g. `automot`.
    pub model: String,
    /// Inputs, in binding order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, in binding order.
    pub outputs: Vec<TensorSpec>,
    /// Sizes and numbers of the network that its user needs, by name (layers, heads, RoPE theta …).
    pub sizes: BTreeMap<String, f64>,
    /// Lower-case SHA-256 of the graph file.
    pub graph_sha256: String,
}

impl Contract {
    /// Position of an input, by name.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|tensor| tensor.name == name)
    }

    /// Position of an output, by name.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|tensor| tensor.name == name)
    }
}
