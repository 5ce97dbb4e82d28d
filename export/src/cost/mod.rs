//! What one run of an exported network costs: parameters, bytes and floating-point operations,
//! exactly, from its graph and contract alone.
//!
//! Two figures of bytes stand side by side. *Unfused* is the upper one: every node reads its inputs
//! from memory and writes its result there. *Compulsory* is the lower one: every weight, input and
//! output passes once and nothing in between touches memory. A real run lies between them.
//!
//! Prefixes have a capacity and a shorter real length; graphs compute over the capacity, and so do
//! these counts.

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

/// Why a graph's cost cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum CostError {
    /// The bytes are no ONNX file, or one without a graph.
    #[error("the graph of network {network:?} is not an ONNX file")]
    NotOnnx {
        /// The network.
        network: String,
        /// What the decoder says, if it says anything.
        #[source]
        source: Option<prost::DecodeError>,
    },
    /// A node's operator is not in the cost model.
    #[error(
        "network {network:?}: the cost of operator {operator:?} (node {node:?}) is not known; count it in the exporter's cost model first"
    )]
    UnknownOperator {
        /// The network.
        network: String,
        /// The node.
        node: String,
        /// Its operator.
        operator: String,
    },
    /// A value has no static shape, or an element type of none of ours.
    #[error(
        "network {network:?}: value {value:?} has no known element type and static shape; export it again"
    )]
    Untyped {
        /// The network.
        network: String,
        /// The value.
        value: String,
    },
    /// Shapes contradict each other.
    #[error("network {network:?}: node {node:?} ({operator}) does not add up: {what}")]
    Misfit {
        /// The network.
        network: String,
        /// The node.
        node: String,
        /// Its operator.
        operator: String,
        /// What contradicts what.
        what: String,
    },
    /// The graph is not the contract's.
    #[error(
        "network {network:?}: {what} {name:?} of the contract is not that of the graph; export it again"
    )]
    Contract {
        /// The network.
        network: String,
        /// "input" or "output".
        what: &'static str,
        /// Name in the contract.
        name: String,
    },
}

/// What a node, a part of a network, or a network costs in one run. Costs add up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Numbers of the checkpoint that are read, each at the first node that reads it.
    pub parameters: u64,
    /// Their bytes in the element type that the graph sees.
    pub parameter_bytes: u64,
    /// Bytes of constants that are not parameters (tables, masks, folded tokens), each at the first
    /// node that reads it.
    pub constant_bytes: u64,
    /// Bytes of parameters and constants that nodes read, anew at every node. A lookup reads only
    /// the rows that it picks.
    pub stored_bytes_read: u64,
    /// Bytes of inputs and intermediate results that nodes read, anew at every node.
    pub activation_bytes_read: u64,
    /// Bytes of results that nodes write.
    pub activation_bytes_written: u64,
    /// Operations of matrix products and convolutions: two per multiply-add.
    pub matrix_flops: u64,
    /// Operations of the two products inside `Attention` nodes, over all columns, masked or not.
    pub attention_flops: u64,
    /// Everything else at one per element: element by element, normalizations, softmax, means.
    pub elementwise_ops: u64,
}

impl Cost {
    /// Operations that matrix units run: matrix products, convolutions and attention.
    pub fn flops(&self) -> u64 {
        self.matrix_flops + self.attention_flops
    }

    /// Bytes if every node goes through memory: the upper figure.
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

/// Bytes that no implementation can avoid moving in one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Compulsory {
    /// Parameters and constants, each once; of a lookup's table only as much as it picks.
    pub stored_bytes: u64,
    /// Inputs, keys and values of the prefix included, at full capacity.
    pub input_bytes: u64,
    /// Outputs, keys and values of the prefix included, at full capacity.
    pub output_bytes: u64,
    /// How much of the inputs and outputs are keys and values of the prefix.
    pub kv_bytes: u64,
}

impl Compulsory {
    /// All of it: the lower figure.
    pub fn bytes(&self) -> u64 {
        self.stored_bytes + self.input_bytes + self.output_bytes
    }
}

/// The cost of one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeCost {
    /// Name of the node, scopes first: `layer.0/rms_norm`.
    pub name: String,
    /// Its operator.
    pub operator: String,
    /// What it costs.
    pub cost: Cost,
}

/// The cost of a part: all nodes of one outermost scope.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartCost {
    /// The scope, e.g. `layer.0`; empty for nodes outside of any.
    pub name: String,
    /// What it costs.
    pub cost: Cost,
}

/// The cost of one run of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetworkCost {
    /// Which network.
    pub network: String,
    /// The sum over all nodes.
    pub total: Cost,
    /// Bytes that no implementation can avoid moving.
    pub compulsory: Compulsory,
    /// [`Cost::flops`] by the element type of the factors; matrix units have a rate for each.
    pub flops_by_dtype: BTreeMap<DType, u64>,
    /// Parts in the order in which they first appear. Each costs what its nodes cost.
    pub parts: Vec<PartCost>,
    /// Nodes in the order in which they run.
    pub nodes: Vec<NodeCost>,
}

impl NetworkCost {
    /// The sum over the parts whose name begins with `prefix`.
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

/// Product of numbers, or nothing if it does not fit.
fn product(numbers: &[u64]) -> Option<u64> {
    numbers.iter().try_fold(1_u64, |product, &n| product.checked_mul(n))
}

/// A value of the graph: where it lives decides how reading it is counted.
struct Known {
    typed: Typed,
    stored: Option<Stored>,
}

/// An initializer.
#[derive(Default)]
struct Stored {
    is_parameter: bool,
    /// The most that one node reads of it, bytes; nothing before the first reader.
    read: Option<u64>,
}

/// The cost of one run of the network whose file is `graph` and whose contract is `contract`.
///
/// # Errors
/// The graph is not an ONNX file of the contract's network, some value has no static shape, shapes
/// contradict each other, or an operator is none that the exporter writes.
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
    let inputs = held(network, "input", &contract.inputs, &graph.input, &values)?;
    let outputs = held(network, "output", &contract.outputs, &graph.output, &values)?;

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
        compulsory: Compulsory {
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

/// The cost of one node, and the element type that it computes in.
fn node_cost(
    network: &str,
    node: &NodeProto,
    values: &mut BTreeMap<String, Known>,
) -> Result<(Cost, DType), CostError> {
    let misfit = |what: String| CostError::Misfit {
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
        return Err(misfit(format!(
            "{} results, every operator of ours has one",
            node.output.len()
        )));
    };
    let output = &known(output)?.typed;
    let dtype = inputs.first().copied().flatten().unwrap_or(output).dtype;
    let Count { matrix_flops, attention_flops, elementwise_ops, read, written } =
        count(node, &inputs, output).map_err(misfit)?.ok_or_else(|| {
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

/// The tensors of a contract with their bytes, if they are those of the graph, in order.
fn held<'a>(
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
    let hold = |(i, spec): (usize, &'a TensorSpec)| {
        let info = infos.get(i).filter(|info| info.name() == spec.name);
        let typed = info.and_then(|info| Some(&values.get(info.name())?.typed));
        let shape = || spec.shape.iter().map(|&n| n as u64);
        typed
            .filter(|typed| typed.dtype == spec.dtype && shape().eq(typed.shape.iter().copied()))
            .map(|typed| (spec, typed.bytes))
            .ok_or_else(|| other(&spec.name))
    };
    specs.iter().enumerate().map(hold).collect()
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

/// True for an initializer that is a tensor of the checkpoint, or rows of one, or one with other
/// dimensions or scaled rows: it keeps that tensor's name. What else the exporter computes is named
/// for what it is.
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
