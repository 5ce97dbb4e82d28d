//! Layers that networks of several families share.

pub mod rotary;

use crate::graph::{Graph, GraphError, Value};

/// Start of the names of intermediate values that are exported as outputs for comparisons.
pub const PROBE: &str = "probe.";

/// `down(swish(gate(x)) · up(x))`.
///
/// # Errors
/// If the checkpoint lacks one of the three weights.
pub fn swiglu(graph: &mut Graph<'_>, x: &Value, prefix: &str) -> Result<Value, GraphError> {
    let gate = graph.linear(x, &format!("{prefix}.gate_proj"))?;
    let gate = graph.swish(&gate);
    let up = graph.linear(x, &format!("{prefix}.up_proj"))?;
    let hidden = graph.mul(&gate, &up);
    graph.linear(&hidden, &format!("{prefix}.down_proj"))
}

/// Values in between that become outputs behind the real ones, if probes are wanted.
pub struct Probes {
    wanted: bool,
    values: Vec<(String, Value)>,
}

impl Probes {
    /// Without values yet; they are kept only if they are `wanted`.
    pub fn new(wanted: bool) -> Self {
        Self { wanted, values: Vec::new() }
    }

    /// Adds a value.
    pub fn add(&mut self, name: impl Into<String>, value: &Value) {
        if self.wanted {
            self.values.push((name.into(), value.clone()));
        }
    }

    /// Makes the values outputs of the graph.
    pub fn emit(self, graph: &mut Graph<'_>) {
        for (name, value) in self.values {
            graph.output(&format!("{}{name}", PROBE), &value, "probe for golden tests");
        }
    }
}
