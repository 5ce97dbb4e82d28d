//! Layers used by several model families.

pub mod rotary;

use crate::graph::{Graph, GraphError, Value};

/// Prefix of the names of outputs that expose intermediate values for comparison.
pub const PROBE: &str = "probe.";

/// `down(swish(gate(x)) · up(x))`. Fails if the checkpoint lacks one of the three weights.
pub fn swiglu(graph: &mut Graph<'_>, x: &Value, prefix: &str) -> Result<Value, GraphError> {
    let gate = graph.linear(x, &format!("{prefix}.gate_proj"))?;
    let gate = graph.swish(&gate);
    let up = graph.linear(x, &format!("{prefix}.up_proj"))?;
    let hidden = graph.mul(&gate, &up);
    graph.linear(&hidden, &format!("{prefix}.down_proj"))
}

/// Intermediate values that become additional outputs after the regular ones, if enabled.
pub struct Probes {
    is_enabled: bool,
    values: Vec<(String, Value)>,
}

impl Probes {
    /// Creates an empty list. If it is not enabled, added values are dropped.
    pub fn new(is_enabled: bool) -> Self {
        Self { is_enabled, values: Vec::new() }
    }

    /// Adds a value under the name `probe.NAME`.
    pub fn add(&mut self, name: impl Into<String>, value: &Value) {
        if self.is_enabled {
            self.values.push((name.into(), value.clone()));
        }
    }

    /// Adds the values to the outputs of the graph.
    pub fn emit(self, graph: &mut Graph<'_>) {
        for (name, value) in self.values {
            graph.output(&format!("{}{name}", PROBE), &value, "probe for golden tests");
        }
    }
}
