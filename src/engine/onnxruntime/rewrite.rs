//! Rewrites the locations of a graph's external weights and leaves the rest unchanged.
//!
//! Graphs written by the library contain messages that `tandem_export::onnx` does not define, so
//! everything except the changed weights is copied byte by byte.

use crate::engine::LoadError;
use crate::engine::folder::ExternalData;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost::{DecodeError, Message};
use tandem_export::onnx::{DataLocation, ModelProto, TensorProto};

/// Field number of `ModelProto.graph`.
const GRAPH: u32 = 7;

/// Field number of `GraphProto.initializer`.
const INITIALIZER: u32 = 5;

/// Error returned when a graph cannot be rewritten.
#[derive(Debug)]
pub(super) enum RewriteError<E = LoadError> {
    NotOnnx(DecodeError),
    /// Error of the function that changes a weight.
    Weight(E),
}

impl<E> From<DecodeError> for RewriteError<E> {
    fn from(error: DecodeError) -> Self {
        Self::NotOnnx(error)
    }
}

/// Error returned for a graph with weights or subgraphs in fields that tandem's graphs do not use.
#[derive(Debug, thiserror::Error)]
pub(super) enum HiddenError {
    #[error("not an ONNX file: {0}")]
    NotOnnx(#[from] DecodeError),
    #[error("it has {0}, which tandem's graphs do not use; build or export it again")]
    Hidden(&'static str),
}

/// Refuses external weights and subgraphs that [`with_external_weights`] does not visit: the library
/// would open the files that they refer to without a check.
pub(super) fn refuse_hidden(model: &[u8]) -> Result<(), HiddenError> {
    let model = hidden::Model::decode(model)?;
    let is_external = |tensor: &TensorProto| {
        !tensor.external_data.is_empty()
            || tensor.data_location.is_some_and(|place| place != DataLocation::Default as i32)
    };
    let graph = model.graph.unwrap_or_default();
    if !model.training.is_empty() || !model.functions.is_empty() {
        return Err(HiddenError::Hidden("functions"));
    }
    if !graph.sparse.is_empty() {
        return Err(HiddenError::Hidden("sparse weights"));
    }
    for attribute in graph.node.iter().flat_map(|node| &node.attribute) {
        let hidden::Attribute { tensor, tensors, graph, graphs, sparse, sparses } = attribute;
        if graph.is_some() || !graphs.is_empty() {
            return Err(HiddenError::Hidden("subgraphs"));
        }
        if sparse.is_some() || !sparses.is_empty() {
            return Err(HiddenError::Hidden("sparse constants"));
        }
        if tensor.iter().chain(tensors).any(is_external) {
            return Err(HiddenError::Hidden("constants in files"));
        }
    }
    Ok(())
}

/// Parts of ONNX messages that `tandem_export::onnx` leaves out, with the field numbers of `onnx.proto`.
mod hidden {
    use tandem_export::onnx::TensorProto;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Model {
        #[prost(message, optional, tag = "7")]
        pub(super) graph: Option<Graph>,
        #[prost(bytes = "vec", repeated, tag = "20")]
        pub(super) training: Vec<Vec<u8>>,
        #[prost(bytes = "vec", repeated, tag = "25")]
        pub(super) functions: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Graph {
        #[prost(message, repeated, tag = "1")]
        pub(super) node: Vec<Node>,
        #[prost(bytes = "vec", repeated, tag = "15")]
        pub(super) sparse: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Node {
        #[prost(message, repeated, tag = "5")]
        pub(super) attribute: Vec<Attribute>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Attribute {
        #[prost(message, optional, tag = "5")]
        pub(super) tensor: Option<TensorProto>,
        #[prost(message, repeated, tag = "10")]
        pub(super) tensors: Vec<TensorProto>,
        #[prost(bytes = "vec", optional, tag = "6")]
        pub(super) graph: Option<Vec<u8>>,
        #[prost(bytes = "vec", repeated, tag = "11")]
        pub(super) graphs: Vec<Vec<u8>>,
        #[prost(bytes = "vec", optional, tag = "22")]
        pub(super) sparse: Option<Vec<u8>>,
        #[prost(bytes = "vec", repeated, tag = "23")]
        pub(super) sparses: Vec<Vec<u8>>,
    }
}

/// Returns a copy of `model` in which `change` was applied to each external weight.
pub(super) fn with_external_weights<E>(
    model: &[u8],
    mut change: impl FnMut(&mut TensorProto, ExternalData) -> Result<(), E>,
) -> Result<Vec<u8>, RewriteError<E>> {
    // The loop below accepts any Protocol Buffers message, so the model is decoded first.
    ModelProto::decode(model)?;
    copy(model, GRAPH, |graph| {
        copy(graph, INITIALIZER, |tensor| {
            let mut decoded = TensorProto::decode(tensor)?;
            let Some(place) = ExternalData::of(&decoded) else { return Ok(tensor.to_vec()) };
            change(&mut decoded, place).map_err(RewriteError::Weight)?;
            Ok(decoded.encode_to_vec())
        })
    })
}

/// Returns a copy of `message` in which `change` replaced each submessage with number `field`.
fn copy<E>(
    message: &[u8],
    field: u32,
    mut change: impl FnMut(&[u8]) -> Result<Vec<u8>, RewriteError<E>>,
) -> Result<Vec<u8>, RewriteError<E>> {
    let mut copied = Vec::with_capacity(message.len());
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let (tag, wire) = decode_key(&mut rest)?;
        let length = match wire {
            WireType::Varint => {
                decode_varint(&mut rest)?;
                0
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => decode_varint(&mut rest)? as usize,
            // Groups do not occur: decoding as a model refused them.
            WireType::StartGroup | WireType::EndGroup => 0,
        };
        let (value, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        if tag == field && wire == WireType::LengthDelimited {
            let value = change(value)?;
            encode_key(tag, wire, &mut copied);
            encode_varint(value.len() as u64, &mut copied);
            copied.extend(value);
        } else {
            copied.extend(&start[..start.len() - rest.len()]);
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tandem_export::onnx::{DataType, GraphProto};

    fn model() -> ModelProto {
        let inline = TensorProto {
            name: Some("inline".into()),
            data_type: Some(DataType::Float as i32),
            raw_data: Some(vec![1, 2, 3, 4]),
            ..TensorProto::default()
        };
        let mut outside = TensorProto { name: Some("outside".into()), ..TensorProto::default() };
        let place = ExternalData { location: "a".into(), offset: 3, length: 4 };
        super::super::weights::set_external_data(&mut outside, &place);
        ModelProto {
            ir_version: Some(10),
            graph: Some(GraphProto { initializer: vec![inline, outside], ..GraphProto::default() }),
            ..ModelProto::default()
        }
    }

    fn moved(bytes: &[u8]) -> Vec<u8> {
        with_external_weights(bytes, |tensor, place| {
            assert_eq!(place, ExternalData { location: "a".into(), offset: 3, length: 4 });
            super::super::weights::set_external_data(
                tensor,
                &ExternalData { location: "bcd".into(), ..place },
            );
            Ok::<(), Infallible>(())
        })
        .unwrap()
    }

    #[test]
    fn rewrite_changes_external_weights_and_keeps_unknown_fields() {
        // Unknown fields: a varint, a fixed 32-bit number and a string.
        let unknown = [0xc0, 0x3e, 5, 0xc5, 0x3e, 1, 2, 3, 4, 0xca, 0x3e, 2, b'h', b'i'];
        let bytes = [model().encode_to_vec().as_slice(), &unknown].concat();
        let moved = moved(&bytes);
        assert!(moved.ends_with(&unknown));
        let mut expected = model();
        let outside = &mut expected.graph.as_mut().unwrap().initializer[1];
        let place = ExternalData { location: "bcd".into(), offset: 3, length: 4 };
        super::super::weights::set_external_data(outside, &place);
        assert_eq!(ModelProto::decode(moved.as_slice()).unwrap(), expected);
    }

    #[test]
    fn constants_in_files_and_subgraphs_are_refused() {
        refuse_hidden(&model().encode_to_vec()).unwrap();
        let place = ExternalData { location: "/etc/passwd".into(), offset: 0, length: 4 };
        let mut tensor = TensorProto::default();
        super::super::weights::set_external_data(&mut tensor, &place);
        let constant = hidden::Attribute { tensor: Some(tensor), ..Default::default() };
        let body = hidden::Attribute { graph: Some(vec![]), ..Default::default() };
        for (attribute, text) in [(constant, "constants in files"), (body, "subgraphs")] {
            let node = hidden::Node { attribute: vec![attribute] };
            let graph = hidden::Graph { node: vec![node], sparse: vec![] };
            let model = hidden::Model { graph: Some(graph), ..Default::default() };
            let error = refuse_hidden(&model.encode_to_vec()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn truncation_at_any_length_does_not_panic() {
        let bytes = model().encode_to_vec();
        for length in 1..bytes.len() {
            // A cut between two fields leaves a valid message.
            let _ = with_external_weights(&bytes[..length], |_, _| Ok::<(), Infallible>(()));
        }
        let cut = &bytes[..bytes.len() - 1];
        assert!(with_external_weights(cut, |_, _| Ok::<(), Infallible>(())).is_err());
    }
}
