//! Compares the layers of an engine with the graph that it was built from: which attentions became one
//! kernel, and which tensors have another type than in the graph.

use crate::engine::folder::ExternalData;
use crate::engine::{Layer, LayerReport, LayerTensor};
use prost::Message;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tandem_export::onnx::{DataType, ModelProto, NodeProto, TensorProto, ValueInfoProto};

/// Operators with large weights.
const WEIGHTED: [&str; 3] = ["Gemm", "MatMul", "Conv"];

/// Result of comparing an engine's layers with its graph.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LayerFindings {
    /// Number of layers that launch kernels.
    pub launches: usize,
    /// Launches by layer type as the library names it.
    pub launches_by_kind: BTreeMap<String, usize>,
    /// Launches by the floating-point types of inputs and outputs, such as `bf16` or `bf16 f32`; the
    /// key is empty for layers with integers only.
    pub launches_by_types: BTreeMap<String, usize>,
    /// Layers that only synchronize streams within the engine; expected empty, as it has one stream.
    pub orders_streams: Vec<String>,
    /// Layers that expand a weight to a larger form before the product that reads it, so that each run
    /// writes and reads the larger form.
    pub expanded_weights: Vec<ExpandedWeight>,
    /// Number of layers that compute a complete attention.
    pub attention_kernels: usize,
    /// Attentions in the order of the graph.
    pub attention: Vec<AttentionFinding>,
    /// Bytes of the engine's constants and the graph's weights by element type, shared ones counted once.
    pub weights: BTreeMap<String, WeightBytes>,
    /// Number of checked weights of matrix products and convolutions.
    pub weights_checked: usize,
    /// Weights that no layer of their node holds completely in the graph's type.
    pub weights_changed: Vec<ChangedWeight>,
    /// Tensors with a smaller type than all of the graph's types there, or another of the same size.
    pub narrowed: Vec<OtherType>,
    /// Tensors with a larger type than all of the graph's types there.
    pub widened: Vec<OtherType>,
}

impl LayerFindings {
    /// Returns whether each attention operator became one kernel, no tensor lost precision, all layers
    /// run on one stream, and each product reads its weights as stored. An attention that the graph
    /// expresses with other operators need not be one kernel.
    pub fn is_as_requested(&self) -> bool {
        self.attention.iter().all(|attention| attention.is_fused || attention.is_spelled_out)
            && self.weights_changed.is_empty()
            && self.narrowed.is_empty()
            && self.orders_streams.is_empty()
            && self.expanded_weights.is_empty()
    }

    /// Returns the number of attentions that became one kernel.
    pub fn fused(&self) -> usize {
        self.attention.iter().filter(|attention| attention.is_fused).count()
    }
}

/// Layers of one attention of the graph.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AttentionFinding {
    /// Node `Attention`, or the softmax of an attention built of other operators.
    pub node: String,
    /// True if the graph has a softmax between two products instead of the operator.
    pub is_spelled_out: bool,
    /// True if one kernel computes this attention and no other.
    pub is_fused: bool,
    /// Layers that compute a part of it.
    pub layers: Vec<String>,
}

/// Bytes of one element type, in the graph and in the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct WeightBytes {
    pub graph: u64,
    pub engine: u64,
}

/// Weight that the engine does not hold in the graph's type.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ChangedWeight {
    pub node: String,
    pub weight: String,
    /// Element type in the graph.
    pub dtype: String,
    pub elements: u64,
    /// Elements of constants by type, in the layer of the node that holds the most of type `dtype`.
    pub found: BTreeMap<String, u64>,
}

/// Weight that a separate layer expands before its product.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExpandedWeight {
    /// Layer that expands the weight.
    pub layer: String,
    /// Graph nodes of that layer.
    pub nodes: Vec<String>,
    /// Layers that read the result.
    pub read_by: Vec<String>,
    /// Size of the expanded weight.
    pub bytes: u64,
}

/// Tensor of a layer with a type that the graph does not have there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OtherType {
    pub layer: String,
    /// Graph nodes that the layer computes.
    pub nodes: Vec<String>,
    pub dtype: String,
    /// Types in the graph at these nodes.
    pub graph: Vec<String>,
}

/// Error returned when the graph of an engine cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("its graph is not ONNX: {0}; export it again")]
pub struct GraphError(#[from] prost::DecodeError);

impl LayerReport {
    /// Compares the layers with `graph`, the ONNX file that the engine was built from. Fails if
    /// `graph` is not an ONNX file.
    pub fn findings(&self, graph: &[u8]) -> Result<LayerFindings, GraphError> {
        let graph = ModelProto::decode(graph)?.graph.unwrap_or_default();
        let types = Types::of(&graph.input, &graph.output, &graph.value_info, &graph.initializer);
        let casts = Casts::of(&graph.node, &types);
        let by_name: BTreeMap<&str, &NodeProto> =
            graph.node.iter().map(|node| (node.name(), node)).collect();
        let launches: Vec<&Layer> = self.layers.iter().filter(|layer| layer.is_launch()).collect();
        let of_node = |name: &str| -> Vec<&Layer> {
            launches.iter().copied().filter(|l| l.nodes.iter().any(|node| node == name)).collect()
        };

        let attentions: Vec<&NodeProto> =
            graph.node.iter().filter(|node| is_attention(node)).collect();
        let is_fused = |node: &NodeProto| {
            let kernels: Vec<&Layer> =
                of_node(node.name()).into_iter().filter(|l| l.is_attention_kernel()).collect();
            let is_alone = |kernel: &Layer| {
                let of = |other: &&&NodeProto| kernel.nodes.iter().any(|n| n == other.name());
                attentions.iter().filter(of).count() == 1
            };
            matches!(kernels[..], [kernel] if is_alone(kernel))
        };
        let attention = attentions.iter().map(|node| AttentionFinding {
            node: node.name().to_owned(),
            is_spelled_out: node.op_type() != "Attention",
            is_fused: is_fused(node),
            layers: of_node(node.name()).into_iter().map(|layer| layer.name.clone()).collect(),
        });

        let orders_streams = self.layers.iter().filter(|layer| !layer.is_launch());
        let expanded_weights = expanded(&launches, &by_name);

        let initializers: BTreeMap<&str, &TensorProto> =
            graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        let mut weights_checked = 0;
        let mut weights_changed = Vec::new();
        for node in graph.node.iter().filter(|node| WEIGHTED.contains(&node.op_type())) {
            let holders = of_node(node.name());
            let weights = node.input.iter().filter_map(|name| initializers.get(name.as_str()));
            for weight in weights.filter(|weight| weight.dims.len() > 1) {
                let dtype = data_type(weight.data_type);
                weights_checked += 1;
                weights_changed.extend(changed(node, weight, &dtype, &holders));
            }
        }

        let mut others = [Vec::new(), Vec::new()];
        for layer in &launches {
            let nodes = layer.nodes.iter().filter_map(|name| by_name.get(name.as_str()));
            let expected: BTreeSet<&str> = nodes
                .flat_map(|node| node.input.iter().chain(&node.output))
                .flat_map(|value| casts.types_around(value, &types))
                .collect();
            // The library inserted layers without nodes, so they have no expected type.
            if layer.nodes.is_empty() {
                continue;
            }
            let other = |dtype: &str| OtherType {
                layer: layer.name.clone(),
                nodes: layer.nodes.clone(),
                dtype: dtype.to_owned(),
                graph: expected.iter().map(|&dtype| dtype.to_owned()).collect(),
            };
            for dtype in float_types(layer, true).difference(&expected) {
                let largest = expected.iter().filter_map(|dtype| float_bytes(dtype)).max();
                let is_wider = largest.is_none_or(|largest| float_bytes(dtype) > Some(largest));
                others[usize::from(is_wider)].push(other(dtype));
            }
        }
        let [narrowed, widened] = others;

        let mut launches_by_kind = BTreeMap::new();
        let mut launches_by_types = BTreeMap::new();
        for layer in &launches {
            *launches_by_kind.entry(layer.kind.clone()).or_default() += 1;
            let types: Vec<&str> = float_types(layer, false).into_iter().collect();
            *launches_by_types.entry(types.join(" ")).or_default() += 1;
        }
        Ok(LayerFindings {
            launches: launches.len(),
            launches_by_kind,
            launches_by_types,
            orders_streams: orders_streams.map(|layer| layer.name.clone()).collect(),
            expanded_weights,
            attention_kernels: launches.iter().filter(|l| l.is_attention_kernel()).count(),
            attention: attention.collect(),
            weights: weight_bytes(&launches, &graph.initializer),
            weights_checked,
            weights_changed,
            narrowed,
            widened,
        })
    }
}

/// Finds layers that only read constants and whose large output is read by a product with weights.
fn expanded(launches: &[&Layer], by_name: &BTreeMap<&str, &NodeProto>) -> Vec<ExpandedWeight> {
    let is_product = |layer: &&&Layer| {
        let operators = layer.nodes.iter().filter_map(|name| by_name.get(name.as_str()));
        operators.clone().any(|node| WEIGHTED.contains(&node.op_type()))
    };
    let of_constants = launches
        .iter()
        .filter(|layer| layer.inputs.is_empty() && layer.constants.iter().any(is_large));
    of_constants
        .filter_map(|layer| {
            let written =
                |tensor: &LayerTensor| layer.outputs.iter().any(|o| o.name == tensor.name);
            let readers = launches.iter().filter(|reader| reader.inputs.iter().any(written));
            let read_by: Vec<String> =
                readers.filter(is_product).map(|reader| reader.name.clone()).collect();
            let bytes = layer.outputs.iter().map(|o| o.elements() * element_bytes(&o.dtype)).sum();
            let (layer, nodes) = (layer.name.clone(), layer.nodes.clone());
            (!read_by.is_empty()).then_some(ExpandedWeight { layer, nodes, read_by, bytes })
        })
        .collect()
}

/// Returns whether a constant is a weight, not a scalar factor or a vector of factors.
fn is_large(constant: &LayerTensor) -> bool {
    constant.shape.iter().filter(|&&extent| extent > 1).count() > 1
}

/// Returns whether a node identifies an attention: the operator, or the softmax of an expanded one.
fn is_attention(node: &NodeProto) -> bool {
    matches!(node.op_type(), "Attention" | "Softmax")
}

/// Returns how a weight was changed; `None` if a layer of its node holds it in type `dtype`.
fn changed(
    node: &NodeProto,
    weight: &TensorProto,
    dtype: &str,
    holders: &[&Layer],
) -> Option<ChangedWeight> {
    let elements = weight.dims.iter().map(|&extent| extent.unsigned_abs()).product();
    let found = |layer: &&Layer| {
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for constant in &layer.constants {
            *found.entry(constant.dtype.clone()).or_default() += constant.elements();
        }
        found
    };
    // The library may concatenate weights of several products, so a constant may be larger.
    let most = holders.iter().map(found).max_by_key(|found| found.get(dtype).copied().unwrap_or(0));
    let found = most.unwrap_or_default();
    if found.get(dtype).is_some_and(|&held| held >= elements) {
        return None;
    }
    let (node, weight) = (node.name().to_owned(), weight.name().to_owned());
    Some(ChangedWeight { node, weight, dtype: dtype.to_owned(), elements, found })
}

/// Returns the floating-point types of inputs and outputs and, with `constants`, of constant arrays.
fn float_types(layer: &Layer, constants: bool) -> BTreeSet<&str> {
    let held = layer.constants.iter().filter(|held| constants && held.elements() > 1);
    let tensors = layer.inputs.iter().chain(&layer.outputs).chain(held);
    tensors.map(|t| t.dtype.as_str()).filter(|dtype| float_bytes(dtype).is_some()).collect()
}

/// Returns the bytes of a floating-point or quantized element; `None` for integer types of graphs.
fn float_bytes(dtype: &str) -> Option<u64> {
    match dtype {
        "f32" => Some(4),
        "f16" | "bf16" => Some(2),
        "i64" | "i32" | "u8" | "bool" | "undefined" => None,
        _ => Some(1),
    }
}

fn element_bytes(dtype: &str) -> u64 {
    match dtype {
        "i64" => 8,
        "i32" => 4,
        other => float_bytes(other).unwrap_or(1),
    }
}

fn weight_bytes(launches: &[&Layer], weights: &[TensorProto]) -> BTreeMap<String, WeightBytes> {
    let mut bytes: BTreeMap<String, WeightBytes> = BTreeMap::new();
    let constants = launches.iter().flat_map(|layer| &layer.constants);
    let by_name: BTreeMap<&str, &LayerTensor> =
        constants.map(|constant| (constant.name.as_str(), constant)).collect();
    for constant in by_name.into_values() {
        let dtype = &constant.dtype;
        bytes.entry(dtype.clone()).or_default().engine +=
            constant.elements() * element_bytes(dtype);
    }
    let mut locations = Vec::new();
    for weight in weights {
        let location = ExternalData::of(weight);
        if location.is_some() && locations.contains(&location) {
            continue;
        }
        locations.push(location);
        let dtype = data_type(weight.data_type);
        let elements: u64 = weight.dims.iter().map(|&extent| extent.unsigned_abs()).product();
        bytes.entry(dtype.clone()).or_default().graph += elements * element_bytes(&dtype);
    }
    bytes
}

/// Element types of the graph's values, by name.
struct Types(BTreeMap<String, String>);

impl Types {
    fn of(
        inputs: &[ValueInfoProto],
        outputs: &[ValueInfoProto],
        between: &[ValueInfoProto],
        weights: &[TensorProto],
    ) -> Self {
        let values = inputs.iter().chain(outputs).chain(between).map(|info| {
            let tensor = info.r#type.as_ref().and_then(|dtype| dtype.tensor_type.as_ref());
            (info.name().to_owned(), data_type(tensor.and_then(|tensor| tensor.elem_type)))
        });
        let weights =
            weights.iter().map(|weight| (weight.name().to_owned(), data_type(weight.data_type)));
        Self(values.chain(weights).collect())
    }

    fn get(&self, value: &str) -> Option<&str> {
        self.0.get(value).map(String::as_str)
    }
}

/// Types of values before and after casts. A layer lists the node after a cast, but not every cast.
struct Casts(BTreeMap<String, Vec<String>>);

impl Casts {
    fn of(nodes: &[NodeProto], types: &Types) -> Self {
        let mut around: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for node in nodes.iter().filter(|node| node.op_type() == "Cast") {
            let ([from], [to]) = (&node.input[..], &node.output[..]) else { continue };
            for (value, other) in [(from, to), (to, from)] {
                let dtype = types.get(other).map(str::to_owned);
                around.entry(value.clone()).or_default().extend(dtype);
            }
        }
        Self(around)
    }

    /// Returns the type of a value and the types from and to which it is cast.
    fn types_around<'a>(
        &'a self,
        value: &str,
        types: &'a Types,
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        let cast = self.0.get(value).into_iter().flatten().map(String::as_str);
        let all = types.get(value).into_iter().chain(cast);
        all.filter(|dtype| float_bytes(dtype).is_some())
    }
}

/// Returns tandem's name of an ONNX element type.
fn data_type(number: Option<i32>) -> String {
    let known = number.and_then(|number| DataType::try_from(number).ok());
    match known {
        Some(DataType::Float) => "f32".into(),
        Some(DataType::Float16) => "f16".into(),
        Some(DataType::Bfloat16) => "bf16".into(),
        Some(DataType::Int64) => "i64".into(),
        Some(DataType::Uint8) => "u8".into(),
        Some(DataType::Bool) => "bool".into(),
        Some(DataType::Undefined) | None => "undefined".into(),
    }
}
