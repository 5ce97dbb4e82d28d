//! What an engine's layers make of the graph that it was built from: which attentions became one
//! kernel, and what is held or computed in another type than the graph says.

use crate::engine::folder::ExternalData;
use crate::engine::{Layer, LayerReport, LayerTensor};
use prost::Message;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tandem_export::onnx::{DataType, ModelProto, NodeProto, TensorProto, ValueInfoProto};

/// Operators that multiply by weights which make up a network's size.
const WEIGHTED: [&str; 3] = ["Gemm", "MatMul", "Conv"];

/// Layers against graph.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LayerFindings {
    /// Layers that launch work.
    pub launches: usize,
    /// The same by kind, in the library's words.
    pub launches_by_kind: BTreeMap<String, usize>,
    /// The same by the floating-point types that they take and give, such as `bf16` or `bf16 f32`;
    /// empty for those that take and give integers.
    pub launches_by_types: BTreeMap<String, usize>,
    /// Layers that only order streams of the engine among each other; any is one too many, since an
    /// engine runs on its lane's stream alone.
    pub orders_streams: Vec<String>,
    /// Layers that write a weight out in a larger form for the product behind them, so that every run
    /// writes and reads the large one.
    pub expanded_weights: Vec<ExpandedWeight>,
    /// Layers that compute a whole attention.
    pub attention_kernels: usize,
    /// The graph's attentions, in its order.
    pub attention: Vec<AttentionFinding>,
    /// Constants of the engine and weights of the graph by element type, bytes; what is used twice
    /// counts once.
    pub weights: BTreeMap<String, WeightBytes>,
    /// Weights of matrix products and convolutions that were looked for in the engine.
    pub weights_checked: usize,
    /// Those that no layer of their node holds whole in their own type.
    pub weights_changed: Vec<ChangedWeight>,
    /// Tensors in a smaller type than any that the graph has there, or in another of the same size.
    pub narrowed: Vec<OtherType>,
    /// Tensors in a larger type than any that the graph has there.
    pub widened: Vec<OtherType>,
}

impl LayerFindings {
    /// Whether every attention operator became one kernel, nothing lost precision, all runs on one
    /// stream, and every product reads its weights as they are stored. Attention that the graph spells
    /// out in other operators is not asked for as one kernel.
    pub fn is_as_asked(&self) -> bool {
        self.attention.iter().all(|attention| attention.is_fused || attention.is_spelled_out)
            && self.weights_changed.is_empty()
            && self.narrowed.is_empty()
            && self.orders_streams.is_empty()
            && self.expanded_weights.is_empty()
    }

    /// Attentions that are one kernel each.
    pub fn fused(&self) -> usize {
        self.attention.iter().filter(|attention| attention.is_fused).count()
    }
}

/// One attention of the graph.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AttentionFinding {
    /// The node: the operator `Attention`, or the softmax of one that is spelled out.
    pub node: String,
    /// Whether the graph has a softmax between two products rather than the operator.
    pub is_spelled_out: bool,
    /// Whether one kernel computes it, and nothing else of this kind.
    pub is_fused: bool,
    /// Layers that compute something of it.
    pub layers: Vec<String>,
}

/// Bytes of one element type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct WeightBytes {
    /// In the graph.
    pub graph: u64,
    /// In the engine.
    pub engine: u64,
}

/// A weight that the engine holds otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ChangedWeight {
    /// The node that it is of.
    pub node: String,
    pub weight: String,
    /// Its type in the graph.
    pub dtype: String,
    /// Its size.
    pub elements: u64,
    /// Elements of constants by type, in the layer of that node that holds most of that type.
    pub found: BTreeMap<String, u64>,
}

/// A weight that a layer of its own expands in front of its product.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExpandedWeight {
    /// The layer that expands it.
    pub layer: String,
    /// The graph's nodes that the layer is of.
    pub nodes: Vec<String>,
    /// Layers that read what it writes.
    pub read_by: Vec<String>,
    /// Bytes of what it writes.
    pub bytes: u64,
}

/// A tensor of a layer in a type that the graph does not have there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OtherType {
    pub layer: String,
    /// The graph's nodes that it is of.
    pub nodes: Vec<String>,
    /// The tensor's type.
    pub dtype: String,
    /// Types that the graph has there.
    pub graph: Vec<String>,
}

/// The graph is not one.
#[derive(Debug, thiserror::Error)]
#[error("its graph is not ONNX: {0}; export it again")]
pub struct GraphError(#[from] prost::DecodeError);

impl LayerReport {
    /// Compares the layers with the graph, an ONNX file, that they were built from.
    ///
    /// # Errors
    /// If the graph is not ONNX.
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
            // Without nodes there is nothing to compare with: the library made the layer itself.
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

/// Layers that make something large of constants alone which a weighted product then reads.
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

/// Whether a constant is a weight rather than a factor or a short vector of them.
fn is_large(constant: &LayerTensor) -> bool {
    constant.shape.iter().filter(|&&extent| extent > 1).count() > 1
}

/// Whether a node is what an attention is counted by.
fn is_attention(node: &NodeProto) -> bool {
    matches!(node.op_type(), "Attention" | "Softmax")
}

/// The weight as it was changed; `None` if a layer of its node holds it.
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
    // Weights of several products are laid together, so that a constant may be larger.
    let most = holders.iter().map(found).max_by_key(|found| found.get(dtype).copied().unwrap_or(0));
    let found = most.unwrap_or_default();
    if found.get(dtype).is_some_and(|&held| held >= elements) {
        return None;
    }
    let (node, weight) = (node.name().to_owned(), weight.name().to_owned());
    Some(ChangedWeight { node, weight, dtype: dtype.to_owned(), elements, found })
}

/// Floating-point types at a layer; with `constants`, those of what it holds too, factors of a whole
/// tensor excepted.
fn float_types(layer: &Layer, constants: bool) -> BTreeSet<&str> {
    let held = layer.constants.iter().filter(|held| constants && held.elements() > 1);
    let tensors = layer.inputs.iter().chain(&layer.outputs).chain(held);
    tensors.map(|t| t.dtype.as_str()).filter(|dtype| float_bytes(dtype).is_some()).collect()
}

/// Size of a floating-point element, or of an integer that stands for one; `None` for integers that
/// the graphs have themselves.
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
    let mut places = Vec::new();
    for weight in weights {
        let place = ExternalData::of(weight);
        if place.is_some() && places.contains(&place) {
            continue;
        }
        places.push(place);
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

/// Values that are one another in another type. A layer names the node behind a cast, not always the
/// cast.
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

    /// Types of a value, and of what a cast makes of it or made it of.
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

/// An element type of the graph in tandem's words.
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
