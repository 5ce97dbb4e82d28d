//! Checks of an exported graph before a library parses it: the graph has only fields that the
//! exporter writes, and the location of each weight is valid.
//!
//! Libraries open any file that a graph refers to. Exported graphs may refer only to files of their own
//! folder, with lengths that match the tensors' shapes.

use super::weight_file::ExternalData;
use prost::Message;
use tandem_export::onnx::{DataLocation, DataType, ModelProto, TensorProto};
use tandem_export::summary::is_file_name;
use tandem_files::shortened;

/// Largest tensor that a graph may hold, bytes.
const LARGEST_TENSOR: u64 = 1 << 38;

/// Error returned for a graph that `tandem export` cannot have written.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    #[error("it is not an ONNX file: {0}")]
    NotOnnx(#[from] prost::DecodeError),
    #[error("it has fields that `tandem export` does not write")]
    Unknown,
    #[error("weight {weight:?}: {what}")]
    Weight { weight: String, what: String },
}

/// Checks a graph that `tandem export` wrote.
pub(in crate::engine) fn check_exported(graph: &[u8]) -> Result<(), GraphError> {
    let model = ModelProto::decode(graph)?;
    // Unknown fields are skipped by decoding, so they are missing from the encoded copy.
    if model.encoded_len() != graph.len() || model.encode_to_vec() != graph {
        return Err(GraphError::Unknown);
    }
    model.graph.unwrap_or_default().initializer.iter().try_for_each(check_weight)
}

/// Checks the shape and the location of one weight.
pub(in crate::engine) fn check_weight(tensor: &TensorProto) -> Result<(), GraphError> {
    let refused = |what: String| GraphError::Weight { weight: shortened(tensor.name()), what };
    let Some(bytes) = tensor_bytes(tensor) else {
        return Err(refused("its element type or shape is not one that tandem writes".into()));
    };
    if tensor.data_location != Some(DataLocation::External as i32) {
        let found = tensor.raw_data.as_ref().map_or(0, Vec::len) as u64;
        return match found == bytes && tensor.external_data.is_empty() {
            true => Ok(()),
            false => Err(refused(format!("its shape takes {bytes} bytes, the graph has {found}"))),
        };
    }
    let value = |key: &str| {
        let mut entries = tensor.external_data.iter().filter(|e| e.key.as_deref() == Some(key));
        let entry = entries.next().filter(|_| entries.next().is_none());
        entry.and_then(|entry| entry.value.as_deref()).unwrap_or_default()
    };
    let location = value("location");
    if !is_file_name(location) {
        let location = shortened(location);
        return Err(refused(format!("{location:?} is not the name of a file of its folder")));
    }
    let number = |key: &str| value(key).parse::<u64>().ok();
    let (Some(offset), Some(length)) = (number("offset"), number("length")) else {
        return Err(refused("its offset and length are not numbers".into()));
    };
    if length != bytes {
        return Err(refused(format!("its shape takes {bytes} bytes, its entry has {length}")));
    }
    match offset.checked_add(length).is_some_and(|end| i64::try_from(end).is_ok()) {
        true => Ok(()),
        false => Err(refused(format!("it begins at byte {offset}, beyond any file"))),
    }
}

/// Returns the files that hold weights of an exported graph, sorted.
pub(in crate::engine) fn locations(graph: &[u8]) -> Result<Vec<String>, GraphError> {
    let tensors = ModelProto::decode(graph)?.graph.unwrap_or_default().initializer;
    let mut locations: Vec<String> =
        tensors.iter().filter_map(|tensor| Some(ExternalData::of(tensor)?.location)).collect();
    locations.sort();
    locations.dedup();
    Ok(locations)
}

/// Returns the size of a tensor in bytes; `None` if the type is unknown or a dimension is invalid.
fn tensor_bytes(tensor: &TensorProto) -> Option<u64> {
    let size: u64 = match DataType::try_from(tensor.data_type?).ok()? {
        DataType::Float => 4,
        DataType::Float16 | DataType::Bfloat16 => 2,
        DataType::Int64 => 8,
        DataType::Uint8 | DataType::Bool => 1,
        DataType::Undefined => return None,
    };
    let mut bytes = size;
    for &dim in &tensor.dims {
        bytes = bytes.checked_mul(u64::try_from(dim).ok()?)?;
    }
    (bytes <= LARGEST_TENSOR).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_export::onnx::{GraphProto, StringStringEntryProto};

    fn weight(dims: &[i64], place: [&str; 3]) -> TensorProto {
        let [location, offset, length] = place;
        let entry = StringStringEntryProto::new;
        TensorProto {
            dims: dims.to_vec(),
            data_type: Some(DataType::Float as i32),
            name: Some("w".into()),
            data_location: Some(DataLocation::External as i32),
            external_data: vec![
                entry("location", location),
                entry("offset", offset),
                entry("length", length),
            ],
            ..TensorProto::default()
        }
    }

    #[track_caller]
    fn refused(dims: &[i64], place: [&str; 3], part: &str) {
        let error = check_weight(&weight(dims, place)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn weight_file_outside_the_folder_is_refused() {
        check_weight(&weight(&[2, 3], ["weights.bin", "13", "24"])).unwrap();
        for location in ["../../etc/passwd", "/etc/passwd", "/dev/zero", "sub/w.bin", "..", ""] {
            refused(&[2, 3], [location, "0", "24"], "not the name of a file");
        }
    }

    #[test]
    fn location_that_does_not_match_the_shape_is_refused() {
        refused(&[2, 3], ["w.bin", "0", "23"], "takes 24 bytes, its entry has 23");
        refused(&[2, 3], ["w.bin", "x", "24"], "not numbers");
        refused(&[2, 3], ["w.bin", "18446744073709551615", "24"], "beyond any file");
        refused(&[-1, 3], ["w.bin", "0", "24"], "element type or shape");
        refused(&[i64::MAX, i64::MAX], ["w.bin", "0", "4"], "element type or shape");
    }

    #[test]
    fn field_that_the_exporter_does_not_write_is_refused() {
        let graph = GraphProto {
            initializer: vec![weight(&[1], ["w.bin", "0", "4"])],
            ..GraphProto::default()
        };
        let mut bytes = ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec();
        check_exported(&bytes).unwrap();
        assert_eq!(locations(&bytes).unwrap(), ["w.bin"]);
        // Field 25: a function.
        bytes.extend([0xca, 0x01, 0]);
        assert!(matches!(check_exported(&bytes), Err(GraphError::Unknown)));
    }
}
