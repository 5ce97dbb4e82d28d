//! How much memory and disk a build takes, before it starts.

use crate::engine::NetworkFile;
use prost::Message;
use std::collections::BTreeMap;
use tandem_export::onnx::{ModelProto, TensorProto};

/// What a build of a network will take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prediction {
    /// Host memory at the peak, bytes, beyond what the process already holds.
    pub host_memory_bytes: u64,
    /// Size of the engine, bytes.
    pub engine_bytes: u64,
}

/// A graph does not say how large its weights are.
#[derive(Debug, thiserror::Error)]
pub enum PredictionError {
    /// The graph is not one.
    #[error("network {network:?}: its graph is not ONNX: {source}; export it again")]
    Graph {
        /// The network.
        network: String,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
    /// A weight in a file has no length.
    #[error("network {network:?}: weight {weight:?} has no length; export it again")]
    Length {
        /// The network.
        network: String,
        /// The weight.
        weight: String,
    },
}

/// Predicts what building `file` takes, from the bytes of its weights and the number of its nodes.
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
    Ok(for_sizes(places.into_values().sum(), graph.node.len() as u64))
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

/// The fitted formula, from above: the library holds the weights three times at its peak (as read, as
/// laid out for its kernels, in the engine), an engine holds them once beside constants that were
/// folded. What remains grows with the nodes, and with how many layers the library makes of each.
fn for_sizes(weight_bytes: u64, nodes: u64) -> Prediction {
    Prediction {
        host_memory_bytes: weight_bytes * 32 / 10 + 150_000_000 + 400_000 * nodes,
        engine_bytes: weight_bytes * 102 / 100 + 2_000_000 + 20_000 * nodes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_action_expert_at_full_size_was_measured_once() {
        // 1 657 nodes over 3.28 GB of weights took 10.1 GB and gave an engine of 3.30 GB.
        let Prediction { host_memory_bytes, engine_bytes } = for_sizes(3_280_000_000, 1_657);
        assert!(
            (10_100_000_000..12_000_000_000).contains(&host_memory_bytes),
            "{host_memory_bytes}"
        );
        assert!((3_300_000_000..3_400_000_000).contains(&engine_bytes), "{engine_bytes}");
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
