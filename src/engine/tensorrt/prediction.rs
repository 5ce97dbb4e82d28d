//! How much memory and disk a build takes, before it starts.

use crate::engine::NetworkFile;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use tandem_export::onnx::{GraphProto, ModelProto, TensorProto};

/// What a build of a network will take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prediction {
    /// Host memory of the process at the peak, bytes, the library's own included.
    pub host_memory_bytes: u64,
    /// Mapped files at the peak, bytes: the weights, which are read once, and the library.
    pub mapped_bytes: u64,
    /// Size of the engine, bytes.
    pub engine_bytes: u64,
}

/// A graph does not say how large its weights are.
#[derive(Debug, thiserror::Error)]
pub enum PredictionError {
    #[error("network {network:?}: its graph is not ONNX: {source}; export it again")]
    Graph {
        network: String,
        #[source]
        source: prost::DecodeError,
    },
    #[error("network {network:?}: weight {weight:?} has no length; export it again")]
    Length { network: String, weight: String },
}

/// Predicts what building `file` takes, from the bytes of its weights and from its nodes.
///
/// # Errors
/// If the graph is not ONNX, or a weight has no length.
pub fn predict(file: &NetworkFile) -> Result<Prediction, PredictionError> {
    let network = &file.contract.network;
    let model = ModelProto::decode(file.graph.as_slice())
        .map_err(|source| PredictionError::Graph { network: network.clone(), source })?;
    let graph = model.graph.unwrap_or_default();
    // Weights that lie in one place of one file are one weight.
    let mut places = BTreeMap::new();
    for (index, tensor) in graph.initializer.iter().enumerate() {
        let (place, bytes) = extent(tensor, index).ok_or_else(|| PredictionError::Length {
            network: network.clone(),
            weight: tensor.name.clone().unwrap_or_default(),
        })?;
        places.insert(place, bytes);
    }
    let kernels = Kernels::of(&graph);
    Ok(for_sizes(places.into_values().sum(), &kernels))
}

/// What identifies a weight's bytes, and how many there are.
fn extent(tensor: &TensorProto, index: usize) -> Option<((String, u64), u64)> {
    let entry = |key: &str| {
        let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key))?;
        entry.value.as_deref()
    };
    if let Some(location) = entry("location") {
        let offset = entry("offset").map_or(Some(0), |text| text.parse().ok())?;
        return Some(((location.to_owned(), offset), entry("length")?.parse().ok()?));
    }
    // No file is called "", so the place of a weight in the graph itself is its number.
    let bytes = tensor.raw_data.as_ref().map_or(0, Vec::len);
    Some(((String::new(), index as u64), bytes as u64))
}

/// What of a graph becomes kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kernels {
    /// Nodes but casts, which join others.
    nodes: u64,
    /// Nodes that differ in operator, attributes, or type or shape of a value; casts and reshapes do
    /// not count. Equal ones share a kernel.
    distinct: u64,
    /// Reshapes. Fused kernels end at most of them, so that they count how many there are.
    reshapes: u64,
}

impl Kernels {
    fn of(graph: &GraphProto) -> Self {
        let mut types: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for info in graph.input.iter().chain(&graph.output).chain(&graph.value_info) {
            let dtype = info.r#type.as_ref().map(Message::encode_to_vec).unwrap_or_default();
            types.insert(info.name(), dtype);
        }
        for tensor in &graph.initializer {
            let dtype = format!("{:?} {:?}", tensor.data_type, tensor.dims);
            types.insert(tensor.name(), dtype.into_bytes());
        }
        let count =
            |operator: &str| graph.node.iter().filter(|n| n.op_type() == operator).count() as u64;
        let signatures = graph.node.iter().filter(|n| !["Cast", "Reshape"].contains(&n.op_type()));
        let signatures: BTreeSet<_> = signatures
            .map(|node| {
                let values = node.input.iter().map(Some).chain([None]);
                let values = values.chain(node.output.iter().map(Some));
                let values: Vec<_> = values.map(|v| types.get(v?.as_str())).collect();
                let attributes: Vec<_> =
                    node.attribute.iter().map(Message::encode_to_vec).collect();
                (node.op_type(), values, attributes)
            })
            .collect();
        Self {
            nodes: graph.node.len() as u64 - count("Cast"),
            distinct: signatures.len() as u64,
            reshapes: count("Reshape"),
        }
    }
}

/// The fitted formula. At the peak an engine is there twice, as the compiler holds it and as one
/// piece of bytes, beside the weights as they were read. What remains is the library, and a compiler
/// that keeps something of every node. An engine is its weights and its kernels.
///
/// Constants are fitted on the tiny and the mid-size configuration. Networks of release width, which
/// they were not fitted on, came out within 10 % in memory and 1 % in size.
fn for_sizes(weight_bytes: u64, kernels: &Kernels) -> Prediction {
    let engine_bytes = weight_bytes + 40_000 * kernels.distinct + 78_000 * kernels.reshapes;
    Prediction {
        host_memory_bytes: 2 * engine_bytes + 91_000_000 + 255_000 * kernels.nodes,
        mapped_bytes: weight_bytes + 100_000_000,
        engine_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_nodes_share_a_kernel_and_casts_have_none() {
        use tandem_export::dtype::DType;
        use tandem_export::onnx::{NodeProto, ValueInfoProto};
        let node = |operator: &str, input: &str, output: &str| NodeProto {
            op_type: Some(operator.into()),
            input: vec![input.into()],
            output: vec![output.into()],
            ..NodeProto::default()
        };
        let graph = GraphProto {
            node: vec![
                node("Relu", "a", "b"),
                node("Relu", "b", "c"),
                node("Relu", "d", "d2"),
                node("Cast", "c", "d"),
                node("Reshape", "d", "e"),
            ],
            value_info: [("a", 2), ("b", 2), ("c", 2), ("d", 3), ("d2", 3)]
                .map(|(name, extent)| ValueInfoProto::tensor(name, DType::F32, &[extent]))
                .to_vec(),
            ..GraphProto::default()
        };
        let kernels = Kernels::of(&graph);
        assert_eq!(kernels, Kernels { nodes: 4, distinct: 2, reshapes: 1 });
    }

    #[test]
    fn a_weight_counts_once_wherever_it_is_used() {
        let entry = |key: &str, value: &str| {
            tandem_export::onnx::StringStringEntryProto::new(key, value.to_owned())
        };
        let external = |offset: &str| TensorProto {
            external_data: vec![
                entry("location", "model.safetensors"),
                entry("offset", offset),
                entry("length", "100"),
            ],
            ..TensorProto::default()
        };
        let inline = TensorProto { raw_data: Some(vec![0; 7]), ..TensorProto::default() };
        assert_eq!(extent(&external("8"), 0), extent(&external("8"), 1));
        assert_ne!(extent(&external("8"), 0), extent(&external("108"), 0));
        assert_ne!(extent(&inline, 0), extent(&inline, 1));
        assert_eq!(extent(&inline, 0).unwrap().1, 7);
        assert_eq!(extent(&external("eight"), 0), None);
    }
}
