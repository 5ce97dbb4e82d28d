//! Classifies TensorRT's layers by the names of layers and kernels.
//!
//! TensorRT's engine inspector needs a loaded engine, and therefore a GPU. The list of layers comes from
//! the builder's log instead, which with detailed profiling verbosity lists each layer's inputs, outputs,
//! constants and graph nodes.

use crate::engine::Layer;

/// Layer types that only synchronize others and launch no kernel.
const ORDERING: [&str; 2] = ["signal", "wait"];

/// Part of the names of kernels that compute a complete attention.
const ATTENTION_KERNEL: &str = "mha";

impl Layer {
    /// Returns whether the layer launches kernels, and does not only synchronize others.
    pub fn is_launch(&self) -> bool {
        !ORDERING.contains(&self.kind.as_str())
    }

    /// Returns whether the layer is one kernel that computes a complete attention.
    pub fn is_attention_kernel(&self) -> bool {
        self.is_launch() && [&self.name, &self.kernel].iter().any(|n| n.contains(ATTENTION_KERNEL))
    }
}
