//! Values and weights that channels added to a convolution affect.

use super::{Grouped, groups, size, weight};
use std::collections::{BTreeMap, BTreeSet};
use tandem_export::onnx::{GraphProto, NodeProto};

/// Values that get the added channels of a convolution, and the weights applied to them.
#[derive(Default)]
pub(super) struct Region {
    values: BTreeSet<String>,
    /// For each weight, whether its first and its second dimension are channels.
    weights: BTreeMap<String, [bool; 2]>,
}

/// Side of a node on which a value is.
#[derive(Clone, Copy)]
enum End {
    Output,
    Input,
}

impl Region {
    /// Collects the values around `grouped` up to the next convolutions. `None` if added channels would
    /// reach an output of the network or an operator that is not known to keep channels separate.
    pub(super) fn around(graph: &GraphProto, grouped: &Grouped) -> Option<Self> {
        let mut region = Self::default();
        if grouped.widened == grouped.channels {
            return Some(region);
        }
        let conv = &graph.node[grouped.node];
        let mut next = vec![conv.input.first()?.clone(), conv.output.first()?.clone()];
        while let Some(value) = next.pop() {
            if region.values.contains(&value) {
                continue;
            }
            if !has_channels(graph, &value, grouped.channels) {
                return None;
            }
            let maker = graph.node.iter().position(|node| node.output.contains(&value))?;
            region.pass(graph, grouped, maker, End::Output, &mut next)?;
            for (reader, node) in graph.node.iter().enumerate() {
                if node.input.contains(&value) {
                    region.pass(graph, grouped, reader, End::Input, &mut next)?;
                }
            }
            region.values.insert(value);
        }
        Some(region)
    }

    /// Follows the channels through a node to its other values or into its weights.
    fn pass(
        &mut self,
        graph: &GraphProto,
        grouped: &Grouped,
        index: usize,
        end: End,
        next: &mut Vec<String>,
    ) -> Option<()> {
        let node = &graph.node[index];
        match (node.op_type.as_deref()?, end) {
            ("Conv", _) if index == grouped.node => self.add_bias(graph, grouped, node)?,
            ("Conv", _) if groups(node)? > 1 => return None,
            ("Conv", End::Input) => self.add(graph, grouped, node.input.get(1)?, 1)?,
            ("Conv", End::Output) => {
                self.add(graph, grouped, node.input.get(1)?, 0)?;
                self.add_bias(graph, grouped, node)?;
            }
            // The mean is over height and width only, so its value has the same channels.
            ("Relu" | "Sigmoid" | "GlobalAveragePool" | "ReduceMean", _) => {
                next.extend([node.input.first()?.clone(), node.output.first()?.clone()]);
            }
            ("Mul", _) => next.extend(node.input.iter().chain(&node.output).cloned()),
            _ => return None,
        }
        Some(())
    }

    fn add_bias(&mut self, graph: &GraphProto, grouped: &Grouped, conv: &NodeProto) -> Option<()> {
        match conv.input.get(2) {
            Some(bias) => self.add(graph, grouped, bias, 0),
            None => Some(()),
        }
    }

    fn add(
        &mut self,
        graph: &GraphProto,
        grouped: &Grouped,
        name: &str,
        dimension: usize,
    ) -> Option<()> {
        let channels = *size(weight(graph, name)?)?.get(dimension)?;
        if channels != grouped.channels {
            return None;
        }
        self.weights.entry(name.to_owned()).or_default()[dimension] = true;
        Some(())
    }

    /// Returns the number of zeros to append to the first two dimensions of a weight.
    pub(super) fn more(&self, weight: &str, grouped: &Grouped) -> [usize; 2] {
        let are_channels = self.weights.get(weight).copied().unwrap_or_default();
        are_channels.map(|is_channels| match is_channels {
            true => grouped.widened - grouped.channels,
            false => 0,
        })
    }

    /// Sets the new number of channels in the shapes of the values.
    pub(super) fn widen_values(&self, graph: &mut GraphProto, grouped: &Grouped) {
        for info in &mut graph.value_info {
            let is_wider = info.name.as_ref().is_some_and(|name| self.values.contains(name));
            let tensor = info.r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut());
            let shape = tensor.and_then(|tensor| tensor.shape.as_mut());
            if let Some(channels) = shape.and_then(|shape| shape.dim.get_mut(1))
                && is_wider
            {
                channels.dim_value = Some(grouped.widened as i64);
            }
        }
    }
}

/// Returns whether `value` is an inner value of the graph with shape `[batch, channels, height, width]`.
fn has_channels(graph: &GraphProto, value: &str, channels: usize) -> bool {
    let shape = || {
        let info = graph.value_info.iter().find(|info| info.name.as_deref() == Some(value))?;
        Some(&info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?.dim)
    };
    let is_output = graph.output.iter().any(|output| output.name.as_deref() == Some(value));
    let is_map = shape().is_some_and(|dims| {
        dims.len() == 4 && dims[1].dim_value.and_then(|dim| dim.try_into().ok()) == Some(channels)
    });
    is_map && !is_output
}
