//! What TensorRT's names of layers and kernels say.
//!
//! The engine itself cannot be asked without a GPU: its inspector takes a loaded engine. The listing
//! comes from the builder's log, which with detailed profiling information names every layer, the
//! tensors that it takes and gives, the constants that it holds, and the graph's nodes that it is of.

use crate::engine::Layer;

/// Kinds of layers that only order others; they launch nothing.
const ORDERING: [&str; 2] = ["signal", "wait"];

/// Part of the names of kernels that compute a whole attention.
const ATTENTION_KERNEL: &str = "mha";

impl Layer {
    /// Whether it launches work, and does not only order what does.
    pub fn is_launch(&self) -> bool {
        !ORDERING.contains(&self.kind.as_str())
    }

    /// Whether it is one kernel that computes a whole attention.
    pub fn is_attention_kernel(&self) -> bool {
        self.is_launch() && [&self.name, &self.kernel].iter().any(|n| n.contains(ATTENTION_KERNEL))
    }
}
