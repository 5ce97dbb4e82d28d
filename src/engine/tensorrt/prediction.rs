//! Predicts the memory and disk use of a build.

use crate::engine::NetworkFile;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use tandem_export::onnx::{GraphProto, ModelProto, TensorProto};

/// Predicted memory and disk use of one network's build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prediction {
    /// Peak host memory of the process, the library's included.
    pub host_memory_bytes: u64,
    /// Mapped files at the peak: the weights, which are read once, and the library.
    pub mapped_bytes: u64,
    pub engine_bytes: u64,
}

/// Error returned when the size of a graph's weights cannot be determined.
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

/// Predicts the resources for building `file` from the size of its weights and its nodes. Fails if
/// the graph is not ONNX, or a weight has no length.
pub fn predict(file: &NetworkFile) -> Result<Prediction, PredictionError> {
    let network = &file.contract.network;
    let model = ModelProto::decode(file.graph.as_slice())
        .map_err(|source| PredictionError::Graph { network: network.clone(), source })?;
    let graph = model.graph.unwrap_or_default();
    // Weights at the same location of the same file count once.
    let mut sizes = BTreeMap::new();
    for (index, tensor) in graph.initializer.iter().enumerate() {
        let (location, bytes) = extent(tensor, index).ok_or_else(|| PredictionError::Length {
            network: network.clone(),
            weight: tensor.name.clone().unwrap_or_default(),
        })?;
        sizes.insert(location, bytes);
    }
    let kernels = Kernels::of(&graph);
    Ok(for_sizes(sizes.into_values().sum(), &kernels))
}

/// Returns the location of a weight, as file and offset, and its size in bytes.
fn extent(tensor: &TensorProto, index: usize) -> Option<((String, u64), u64)> {
    let entry = |key: &str| {
        let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key))?;
        entry.value.as_deref()
    };
    if let Some(location) = entry("location") {
        let offset = entry("offset").map_or(Some(0), |text| text.parse().ok())?;
        return Some(((location.to_owned(), offset), entry("length")?.parse().ok()?));
    }
    // A weight inside the graph is identified by its index; no file has an empty name.
    let bytes = tensor.raw_data.as_ref().map_or(0, Vec::len);
    Some(((String::new(), index as u64), bytes as u64))
}

/// Node counts of a graph that determine its number of kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kernels {
    /// Nodes except casts, which are fused with others.
    nodes: u64,
    /// Nodes that differ in operator, attributes, or type or shape of a value, without casts and
    /// reshapes. Equal nodes share a kernel.
    distinct: u64,
    /// Reshapes. Most of them end a fused kernel, so they estimate the number of fused kernels.
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

/// Fitted formula. At the peak the engine exists twice, in the compiler and as serialized bytes, in
/// addition to the weights that were read. The constant term is the library, the term per node is
/// compiler data. The engine consists of weights and kernels.
///
/// The constants are fitted to the tiny and the mid-size configuration. For networks of release width,
/// which were not part of the fit, the error was at most 10 % in memory and 1 % in size.
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
    fn kernels_count_equal_nodes_once_and_no_casts() {
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
    fn weights_at_one_location_have_equal_extents() {
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
