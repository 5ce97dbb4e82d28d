//! Cost of one run of an exported network: exact counts of parameters, bytes and floating-point
//! operations, from its graph and contract alone.
//!
//! There are two counts of memory traffic, an upper and a lower bound of a real run. *Unfused*: every
//! node reads its inputs from memory and writes its result. *Minimum*: every weight, input and output
//! is transferred once, and intermediate values never reach memory.
//!
//! Graphs compute over the full capacity of the prefix KV cache, and so do these counts.

mod operators;

use crate::contract::{Contract, TensorSpec};
use crate::dtype::DType;
use crate::onnx::{DataType, ModelProto, NodeProto, ValueInfoProto};
use operators::{Count, count};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// Error of counting a network's cost.
#[derive(Debug, thiserror::Error)]
pub enum CostError {
    /// The bytes are not an ONNX file, or the file has no graph.
    #[error("the graph of network {network:?} is not an ONNX file")]
    NotOnnx {
        network: String,
        /// `None` if the file has no graph.
        #[source]
        source: Option<prost::DecodeError>,
    },
    /// The cost model does not have the operator of a node.
    #[error(
        "network {network:?}: the cost model does not have operator {operator:?} (node {node:?}); add it there first"
    )]
    UnknownOperator { network: String, node: String, operator: String },
    /// A value has no static shape or an unsupported element type.
    #[error(
        "network {network:?}: value {value:?} has no supported element type and static shape; export it again"
    )]
    Untyped { network: String, value: String },
    /// The shapes of a node contradict each other.
    #[error("network {network:?}: node {node:?} ({operator}) has inconsistent shapes: {what}")]
    Shapes { network: String, node: String, operator: String, what: String },
    /// The graph does not match the contract.
    #[error(
        "network {network:?}: {what} {name:?} of the contract differs from the graph; export it again"
    )]
    Contract {
        network: String,
        /// `"input"` or `"output"`.
        what: &'static str,
        name: String,
    },
}

/// Cost of one run of a node, a part of a network or a network. Costs can be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Elements of checkpoint tensors, counted at the first node that reads them.
    pub parameters: u64,
    /// Bytes of the parameters in the element type of the graph.
    pub parameter_bytes: u64,
    /// Bytes of constants other than parameters (tables, masks, folded tokens), counted at the
    /// first node that reads them.
    pub constant_bytes: u64,
    /// Bytes of parameters and constants read, counted at every node. A lookup counts
    /// only the rows that it selects.
    pub stored_bytes_read: u64,
    /// Bytes of inputs and intermediate results read, counted at every node.
    pub activation_bytes_read: u64,
    pub activation_bytes_written: u64,
    /// Operations of matrix products and convolutions, two per multiply-add.
    pub matrix_flops: u64,
    /// Operations of the two products of `Attention` nodes, including masked columns.
    pub attention_flops: u64,
    /// Other operations, one per element: elementwise operators, normalizations, softmax, means.
    pub elementwise_ops: u64,
}

impl Cost {
    /// Operations of matrix units: matrix products, convolutions and attention.
    pub fn flops(&self) -> u64 {
        self.matrix_flops + self.attention_flops
    }

    /// Bytes transferred if every node reads from and writes to memory: the upper bound.
    pub fn unfused_bytes(&self) -> u64 {
        self.stored_bytes_read + self.activation_bytes_read + self.activation_bytes_written
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            parameters: self.parameters + other.parameters,
            parameter_bytes: self.parameter_bytes + other.parameter_bytes,
            constant_bytes: self.constant_bytes + other.constant_bytes,
            stored_bytes_read: self.stored_bytes_read + other.stored_bytes_read,
            activation_bytes_read: self.activation_bytes_read + other.activation_bytes_read,
            activation_bytes_written: self.activation_bytes_written
                + other.activation_bytes_written,
            matrix_flops: self.matrix_flops + other.matrix_flops,
            attention_flops: self.attention_flops + other.attention_flops,
            elementwise_ops: self.elementwise_ops + other.elementwise_ops,
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

/// Minimum memory traffic of one run: bytes that every implementation has to transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MinimumTraffic {
    /// Parameters and constants, each once; of a lookup table only the selected rows.
    pub stored_bytes: u64,
    /// Inputs, including keys and values of the prefix at full capacity.
    pub input_bytes: u64,
    /// Outputs, including keys and values of the prefix at full capacity.
    pub output_bytes: u64,
    /// Part of the inputs and outputs that are keys and values of the prefix.
    pub kv_bytes: u64,
}

impl MinimumTraffic {
    /// Sum over weights, inputs and outputs: the lower bound.
    pub fn bytes(&self) -> u64 {
        self.stored_bytes + self.input_bytes + self.output_bytes
    }
}

/// Cost of one node of the graph.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeCost {
    /// Name of the node with its scopes, e.g. `layer.0/rms_norm`.
    pub name: String,
    pub operator: String,
    pub cost: Cost,
}

/// Cost of a part: all nodes of one outermost scope.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartCost {
    /// The scope, e.g. `layer.0`; empty for nodes without a scope.
    pub name: String,
    pub cost: Cost,
}

/// Cost of one run of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetworkCost {
    pub network: String,
    pub total: Cost,
    #[serde(rename = "compulsory")]
    pub minimum_traffic: MinimumTraffic,
    /// [`Cost::flops`] by element type of the factors; the peak rate of matrix units depends on it.
    pub flops_by_dtype: BTreeMap<DType, u64>,
    /// Parts in the order of their first node.
    pub parts: Vec<PartCost>,
    /// All nodes in execution order.
    pub nodes: Vec<NodeCost>,
}

impl NetworkCost {
    /// Sum over the parts with names that begin with `prefix`.
    pub fn parts_named(&self, prefix: &str) -> Cost {
        self.parts.iter().filter(|part| part.name.starts_with(prefix)).map(|part| part.cost).sum()
    }
}

/// Element type and shape of a value.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Typed {
    dtype: DType,
    shape: Vec<u64>,
    bytes: u64,
}

impl Typed {
    fn new(dtype: DType, shape: Vec<u64>) -> Option<Self> {
        let bytes = product(&shape)?.checked_mul(dtype.size() as u64)?;
        Some(Self { dtype, shape, bytes })
    }

    fn elements(&self) -> u64 {
        self.bytes / self.dtype.size() as u64
    }

    fn dim(&self, axis: usize) -> Option<u64> {
        self.shape.get(axis).copied()
    }
}

/// Product of numbers; `None` on overflow.
fn product(numbers: &[u64]) -> Option<u64> {
    numbers.iter().try_fold(1_u64, |product, &n| product.checked_mul(n))
}

/// A value of the graph. Reads of stored values are counted separately.
struct Known {
    typed: Typed,
    stored: Option<Stored>,
}

/// An initializer: a parameter or a constant.
#[derive(Default)]
struct Stored {
    is_parameter: bool,
    /// Maximum number of bytes that one node reads; `None` before the first reader.
    read: Option<u64>,
}

/// Counts the cost of one run of a network from the bytes of its graph file and its contract.
///
/// Fails if the graph is not an ONNX file or does not match the contract, a value has no static
/// shape, shapes contradict each other, or the cost model does not have an operator.
pub fn network_cost(graph: &[u8], contract: &Contract) -> Result<NetworkCost, CostError> {
    let network = contract.network.as_str();
    let model = ModelProto::decode(graph).map_err(|source| CostError::NotOnnx {
        network: network.to_owned(),
        source: Some(source),
    })?;
    let graph = model
        .graph
        .ok_or_else(|| CostError::NotOnnx { network: network.to_owned(), source: None })?;

    let mut values = BTreeMap::new();
    for info in graph.input.iter().chain(&graph.output).chain(&graph.value_info) {
        let (name, typed) = typed_value(network, info)?;
        values.insert(name, Known { typed, stored: None });
    }
    for tensor in &graph.initializer {
        let name = tensor.name().to_owned();
        let typed = typed(tensor.data_type(), tensor.dims.iter().copied())
            .ok_or_else(|| untyped(network, &name))?;
        let stored = Stored { is_parameter: is_parameter(&name), read: None };
        values.insert(name, Known { typed, stored: Some(stored) });
    }
    let inputs = matched(network, "input", &contract.inputs, &graph.input, &values)?;
    let outputs = matched(network, "output", &contract.outputs, &graph.output, &values)?;

    let mut nodes = Vec::with_capacity(graph.node.len());
    let mut parts: Vec<PartCost> = Vec::new();
    let mut flops_by_dtype = BTreeMap::new();
    for node in &graph.node {
        let (cost, dtype) = node_cost(network, node, &mut values)?;
        if cost.flops() > 0 {
            *flops_by_dtype.entry(dtype).or_default() += cost.flops();
        }
        let name = node.name().to_owned();
        let part = name.split_once('/').map_or("", |(scope, _)| scope);
        match parts.iter_mut().find(|known| known.name == part) {
            Some(known) => known.cost += cost,
            None => parts.push(PartCost { name: part.to_owned(), cost }),
        }
        nodes.push(NodeCost { name, operator: node.op_type().to_owned(), cost });
    }

    let stored_bytes = values.values().filter_map(|value| value.stored.as_ref()?.read).sum();
    let total_of = |specs: &[(&TensorSpec, u64)]| specs.iter().map(|(_, bytes)| bytes).sum();
    let kv = |(spec, bytes): &(&TensorSpec, u64)| is_kv(&spec.name).then_some(*bytes);
    Ok(NetworkCost {
        network: network.to_owned(),
        total: nodes.iter().map(|node| node.cost).sum(),
        minimum_traffic: MinimumTraffic {
            stored_bytes,
            input_bytes: total_of(&inputs),
            output_bytes: total_of(&outputs),
            kv_bytes: inputs.iter().chain(&outputs).filter_map(kv).sum(),
        },
        flops_by_dtype,
        parts,
        nodes,
    })
}

/// Cost of one node, and the element type in which it computes.
fn node_cost(
    network: &str,
    node: &NodeProto,
    values: &mut BTreeMap<String, Known>,
) -> Result<(Cost, DType), CostError> {
    let inconsistent = |what: String| CostError::Shapes {
        network: network.to_owned(),
        node: node.name().to_owned(),
        operator: node.op_type().to_owned(),
        what,
    };
    let known = |name: &String| values.get(name).ok_or_else(|| untyped(network, name));
    // An empty name is an optional input that is absent.
    let inputs = node
        .input
        .iter()
        .map(|name| if name.is_empty() { Ok(None) } else { known(name).map(|v| Some(&v.typed)) })
        .collect::<Result<Vec<_>, _>>()?;
    let [output] = &node.output[..] else {
        return Err(inconsistent(format!("{} results instead of one", node.output.len())));
    };
    let output = &known(output)?.typed;
    let dtype = inputs.first().copied().flatten().unwrap_or(output).dtype;
    let Count { matrix_flops, attention_flops, elementwise_ops, read, written } =
        count(node, &inputs, output).map_err(inconsistent)?.ok_or_else(|| {
            CostError::UnknownOperator {
                network: network.to_owned(),
                node: node.name().to_owned(),
                operator: node.op_type().to_owned(),
            }
        })?;

    let mut cost = Cost {
        matrix_flops,
        attention_flops,
        elementwise_ops,
        activation_bytes_written: written,
        ..Cost::default()
    };
    for (name, &bytes) in node.input.iter().zip(&read).filter(|(name, _)| !name.is_empty()) {
        let value = values.get_mut(name).expect("looked up above");
        let Some(stored) = &mut value.stored else {
            cost.activation_bytes_read += bytes;
            continue;
        };
        cost.stored_bytes_read += bytes;
        if stored.read.is_none() {
            if stored.is_parameter {
                cost.parameters += value.typed.elements();
                cost.parameter_bytes += value.typed.bytes;
            } else {
                cost.constant_bytes += value.typed.bytes;
            }
        }
        stored.read = Some(stored.read.unwrap_or(0).max(bytes));
    }
    Ok((cost, dtype))
}

/// Checks that the tensors of a contract are those of the graph, in order;
/// returns them with their bytes.
fn matched<'a>(
    network: &str,
    what: &'static str,
    specs: &'a [TensorSpec],
    infos: &[ValueInfoProto],
    values: &BTreeMap<String, Known>,
) -> Result<Vec<(&'a TensorSpec, u64)>, CostError> {
    let other = |name: &str| CostError::Contract {
        network: network.to_owned(),
        what,
        name: name.to_owned(),
    };
    if let Some(extra) = infos.get(specs.len()) {
        return Err(other(extra.name()));
    }
    let match_one = |(i, spec): (usize, &'a TensorSpec)| {
        let info = infos.get(i).filter(|info| info.name() == spec.name);
        let typed = info.and_then(|info| Some(&values.get(info.name())?.typed));
        let shape = || spec.shape.iter().map(|&n| n as u64);
        typed
            .filter(|typed| typed.dtype == spec.dtype && shape().eq(typed.shape.iter().copied()))
            .map(|typed| (spec, typed.bytes))
            .ok_or_else(|| other(&spec.name))
    };
    specs.iter().enumerate().map(match_one).collect()
}

fn typed_value(network: &str, info: &ValueInfoProto) -> Result<(String, Typed), CostError> {
    let name = info.name().to_owned();
    let known = || {
        let tensor = info.r#type.as_ref()?.tensor_type.as_ref()?;
        let dims = &tensor.shape.as_ref()?.dim;
        let dims = dims.iter().map(|dim| dim.dim_value).collect::<Option<Vec<_>>>()?;
        typed(DataType::try_from(tensor.elem_type?).ok()?, dims)
    };
    known().map(|typed| (name.clone(), typed)).ok_or_else(|| untyped(network, &name))
}

fn typed(data_type: DataType, dims: impl IntoIterator<Item = i64>) -> Option<Typed> {
    let shape = dims.into_iter().map(u64::try_from).collect::<Result<Vec<_>, _>>().ok()?;
    Typed::new(dtype(data_type)?, shape)
}

fn dtype(data_type: DataType) -> Option<DType> {
    let all = [DType::F32, DType::F16, DType::Bf16, DType::I64, DType::U8, DType::Bool];
    all.into_iter().find(|&dtype| DataType::from(dtype) == data_type)
}

fn untyped(network: &str, value: &str) -> CostError {
    CostError::Untyped { network: network.to_owned(), value: value.to_owned() }
}

/// True for an initializer that is a tensor of the checkpoint, possibly with fewer rows, other
/// dimensions or scaled rows. Its name contains the tensor's name, unlike the names of constants.
fn is_parameter(name: &str) -> bool {
    let tensor = name.split_once(".rows.").or_else(|| name.split_once(".as."));
    let tensor = tensor.map_or(name, |(tensor, _)| tensor);
    let tensor = tensor.strip_suffix(".scaled").unwrap_or(tensor);
    let last = tensor.rsplit_once('.').map_or(tensor, |(_, last)| last);
    matches!(last, "weight" | "bias" | "pos_emb")
}

/// True for keys or values of one layer of the prefix: `keys.0`, `values.35`.
fn is_kv(name: &str) -> bool {
    let layer = name.strip_prefix("keys.").or_else(|| name.strip_prefix("values."));
    layer.is_some_and(|layer| !layer.is_empty() && layer.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
