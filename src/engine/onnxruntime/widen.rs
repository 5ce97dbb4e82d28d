//! Rewrites grouped convolutions for ONNX Runtime's blocked CPU kernels.
//!
//! The library computes convolutions in blocks of channels, but grouped ones only if the width of each
//! group is a multiple of the block. Others run group by group through im2col, at a tenth of the speed,
//! with layout changes before and after. Here, adjacent groups are merged into one, with zero weights
//! between channels of different groups: more arithmetic, but in much faster kernels. If the number of
//! groups is not divisible, the missing channels are added to the operators around the convolution,
//! with zero weights.
//!
//! The results are the same sums in another order. A convolution with unknown operators around it is
//! not changed.

mod region;

use crate::engine::folder::check_weight;
use prost::{DecodeError, Message};
use region::Region;
use tandem_export::onnx::{DataType, GraphProto, ModelProto, NodeProto, TensorProto};

/// Returns the number of channels in a block of the library's convolution kernels on this machine;
/// `None` if they accept the networks' group widths (8 with AVX2) or no such kernels exist.
pub(super) fn block() -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        return Some(16);
    }
    None
}

/// Returns `model` with grouped convolutions widened to multiples of `block` channels. `bytes` returns
/// the values of a weight. Models with fields that the exporter does not write are returned unchanged;
/// fails if the model is not an ONNX file.
pub(super) fn widened<'w>(
    model: &[u8],
    block: usize,
    bytes: impl Fn(&TensorProto) -> Option<&'w [u8]>,
) -> Result<Vec<u8>, DecodeError> {
    let mut decoded = ModelProto::decode(model)?;
    if decoded.encoded_len() != model.len() {
        return Ok(model.to_vec());
    }
    let Some(graph) = &mut decoded.graph else { return Ok(model.to_vec()) };
    let nodes = 0..graph.node.len();
    let found: Vec<_> = nodes.filter_map(|node| Grouped::of(graph, node, block)).collect();
    for grouped in found {
        widen(graph, &grouped, &bytes);
    }
    Ok(decoded.encode_to_vec())
}

/// Widens one convolution, if the operators around it are known and all weights can be read.
fn widen<'w>(
    graph: &mut GraphProto,
    grouped: &Grouped,
    bytes: &impl Fn(&TensorProto) -> Option<&'w [u8]>,
) -> Option<()> {
    let region = Region::around(graph, grouped)?;
    let kernel = graph.node[grouped.node].input.get(1)?.clone();
    let mut changed = Vec::new();
    for (index, tensor) in graph.initializer.iter().enumerate() {
        let more = region.more(tensor.name(), grouped);
        let is_kernel = tensor.name() == kernel;
        if !is_kernel && more == [0, 0] {
            continue;
        }
        // A weight that was changed for an earlier convolution is stored in the graph.
        let values = match &tensor.raw_data {
            Some(values) => values.as_slice(),
            None => bytes(tensor)?,
        };
        changed.push((
            index,
            match is_kernel {
                true => grouped.merged_kernel(&tensor.dims, values),
                false => with_zeros(&tensor.dims, values, more),
            },
        ));
    }
    for (index, (dims, values)) in changed {
        let tensor = &mut graph.initializer[index];
        tensor.dims = dims;
        tensor.raw_data = Some(values);
        tensor.external_data = Vec::new();
        tensor.data_location = None;
    }
    region.widen_values(graph, grouped);
    let group = grouped.widened / (grouped.merged * grouped.width);
    let attributes = graph.node[grouped.node].attribute.iter_mut();
    for attribute in attributes.filter(|attribute| attribute.name.as_deref() == Some("group")) {
        attribute.i = Some(group as i64);
    }
    Some(())
}

/// Grouped convolution for which the library has no blocked kernel.
struct Grouped {
    /// Index of the node in the graph.
    node: usize,
    /// Number of channels of a group.
    width: usize,
    /// Number of groups that are merged into one.
    merged: usize,
    /// Number of channels of the input and of the output.
    channels: usize,
    /// `channels` rounded up to a complete last merged group.
    widened: usize,
}

impl Grouped {
    fn of(graph: &GraphProto, node: usize, block: usize) -> Option<Self> {
        let conv = &graph.node[node];
        let groups = groups(conv)?;
        let &[channels, width, _, _] = size(weight(graph, conv.input.get(1)?)?)?.as_slice() else {
            return None;
        };
        // Depthwise convolutions (one channel per group) have separate kernels.
        let is_square = groups.checked_mul(width)? == channels;
        if groups < 2 || width < 2 || !is_square || width.is_multiple_of(block) {
            return None;
        }
        let merged = (1..=block).find(|merged| (merged * width).is_multiple_of(block))?;
        let widened = channels.next_multiple_of(merged * width);
        Some(Self { node, width, merged, channels, widened })
    }

    /// Returns the kernel `[channels, width, ..]` with merged groups.
    fn merged_kernel(&self, dims: &[i64], values: &[u8]) -> (Vec<i64>, Vec<u8>) {
        let row = values.len() / self.channels;
        let mut merged = vec![0; self.widened * self.merged * row];
        for (channel, from) in values.chunks_exact(row).enumerate() {
            let group = channel / self.width % self.merged;
            let at = (channel * self.merged + group) * row;
            merged[at..at + row].copy_from_slice(from);
        }
        let mut dims = dims.to_vec();
        dims[0] = self.widened as i64;
        dims[1] = (self.merged * self.width) as i64;
        (dims, merged)
    }
}

/// Returns the number of groups of a convolution; `None` for other operators.
fn groups(node: &NodeProto) -> Option<usize> {
    if node.op_type.as_deref() != Some("Conv") {
        return None;
    }
    let group = node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some("group"));
    usize::try_from(group.map_or(1, |group| group.i.unwrap_or(1))).ok()
}

/// Returns the weight `name` if it is in single precision, is not empty, and has a single reader.
fn weight<'a>(graph: &'a GraphProto, name: &str) -> Option<&'a TensorProto> {
    let readers = graph.node.iter().flat_map(|node| &node.input).filter(|input| *input == name);
    let mut tensors = graph.initializer.iter().filter(|tensor| tensor.name() == name);
    let tensor = tensors.next().filter(|_| tensors.next().is_none() && readers.count() == 1)?;
    let is_single = tensor.data_type == Some(DataType::Float as i32);
    let has_elements = size(tensor)?.iter().all(|&length| length > 0);
    (is_single && has_elements && check_weight(tensor).is_ok()).then_some(tensor)
}

/// Returns the extents of a weight.
fn size(tensor: &TensorProto) -> Option<Vec<usize>> {
    tensor.dims.iter().map(|&length| usize::try_from(length).ok()).collect()
}

/// Returns a weight with `more` zeros appended to its first two dimensions.
fn with_zeros(dims: &[i64], values: &[u8], more: [usize; 2]) -> (Vec<i64>, Vec<u8>) {
    let mut dims = dims.to_vec();
    let rows = dims[0] as usize;
    let row = values.len() / rows;
    let columns = dims.get(1).map_or(1, |&columns| columns as usize);
    let wider = row / columns * (columns + more[1]);
    let mut padded = vec![0; (rows + more[0]) * wider];
    for (from, to) in values.chunks_exact(row).zip(padded.chunks_exact_mut(wider)) {
        to[..row].copy_from_slice(from);
    }
    dims[0] += more[0] as i64;
    if let Some(columns) = dims.get_mut(1) {
        *columns += more[1] as i64;
    }
    (dims, padded)
}

#[cfg(test)]
mod tests;
