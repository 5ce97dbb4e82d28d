//! The layers of an engine, as its library listed them while it built it.
//!
//! They are kept beside the engine, in a file that holds a [`LayerReport`].

use serde::{Deserialize, Serialize};

/// Version of [`LayerReport`]'s layout; a reader refuses another.
pub const LAYER_FORMAT: u32 = 1;

/// The layers of an engine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerReport {
    /// [`LAYER_FORMAT`] at the time of writing.
    pub format: u32,
    /// The library, with its version.
    pub library: String,
    /// Layers in the order in which they run, one after the other on each stream.
    pub layers: Vec<Layer>,
}

/// One layer of an engine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Name, which the library makes.
    pub name: String,
    /// What it is, in the library's words, such as `gemm`.
    pub kind: String,
    /// The kernel, where it is known ahead of time.
    pub kernel: String,
    /// What it takes of other layers and of the network's inputs.
    pub inputs: Vec<LayerTensor>,
    /// What the engine holds for it.
    pub constants: Vec<LayerTensor>,
    /// What it gives.
    pub outputs: Vec<LayerTensor>,
    /// Names of the graph's nodes that it computes, in whole or in part.
    pub nodes: Vec<String>,
}

/// A tensor at a layer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerTensor {
    /// Name, which the library makes.
    pub name: String,
    /// Element type in tandem's words, `i32` and types of one byte beside those of contracts.
    pub dtype: String,
    /// Extents, outermost first.
    pub shape: Vec<u64>,
}

impl LayerTensor {
    /// How many elements it has.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}
