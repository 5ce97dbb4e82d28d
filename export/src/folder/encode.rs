//! Encoding of graph files.

use super::weights_file::{WeightsPlan, byte_length};
use super::{WEIGHTS_FILE, file_name};
use crate::checkpoint::Tensors;
use crate::graph::{Initializer, Network, Source};
use crate::onnx::{
    DataLocation, DataType, GraphProto, IR_VERSION, ModelProto, OPSET, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, ValueInfoProto,
};
use prost::Message;

/// Encodes the graph file of a network.
pub(super) fn encode_graph(
    network: &Network,
    checkpoint: &Tensors,
    weights: &WeightsPlan<'_>,
) -> Vec<u8> {
    let info = |specs: &[crate::contract::TensorSpec]| -> Vec<ValueInfoProto> {
        specs.iter().map(|s| ValueInfoProto::tensor(&s.name, s.dtype, &s.shape)).collect()
    };
    let initializer = network
        .initializers
        .iter()
        .map(|initializer| encode_initializer(network, initializer, checkpoint, weights))
        .collect();
    let graph = GraphProto {
        node: network.nodes.clone(),
        name: Some(network.name.clone()),
        initializer,
        input: info(&network.inputs),
        output: info(&network.outputs),
        value_info: network.values.clone(),
    };
    ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some(env!("CARGO_PKG_NAME").to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(OPSET),
        }],
    }
    .encode_to_vec()
}

fn encode_initializer(
    network: &Network,
    initializer: &Initializer,
    checkpoint: &Tensors,
    weights: &WeightsPlan<'_>,
) -> TensorProto {
    let tensor = TensorProto {
        dims: initializer.dims.iter().map(|&dim| dim as i64).collect(),
        data_type: Some(DataType::from(initializer.dtype) as i32),
        name: Some(initializer.name.clone()),
        ..TensorProto::default()
    };
    let external = |location: &str, offset: u64, length: u64| TensorProto {
        data_location: Some(DataLocation::External as i32),
        external_data: vec![
            StringStringEntryProto::new("location", location),
            StringStringEntryProto::new("offset", offset.to_string()),
            StringStringEntryProto::new("length", length.to_string()),
        ],
        ..tensor.clone()
    };
    let length = byte_length(initializer);
    match &initializer.source {
        Source::Inline(bytes) => TensorProto { raw_data: Some(bytes.clone()), ..tensor },
        Source::Stored(stored) => {
            assert_eq!(stored.length, length, "bytes of {}", initializer.name);
            if let Some(&offset) = weights.converted.get(&(*stored, initializer.dtype)) {
                return external(WEIGHTS_FILE, offset, length);
            }
            external(&file_name(&checkpoint.files()[stored.file]), stored.offset, length)
        }
        Source::Converted(stored, _) | Source::Rounded(stored, _) => {
            external(WEIGHTS_FILE, weights.converted[&(*stored, initializer.dtype)], length)
        }
        Source::Scaled(_) | Source::Folded(_) => {
            let key = (network.name.as_str(), initializer.name.as_str());
            external(WEIGHTS_FILE, weights.folded[&key], length)
        }
    }
}
