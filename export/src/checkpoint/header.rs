//! The header of one safetensors file: an eight-byte length, then JSON, then the tensors' bytes.
//!
//! The safetensors crate is not used because its errors name neither the file nor the tensor, it
//! refuses gaps, and an unsupported element type of one tensor would make the other tensors of the
//! file unreadable.

use super::CheckpointError;
use crate::dtype::DType;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::fmt;
use std::path::Path;
use tandem_files::shortened;

/// Limit of the format on the length of the header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Limits on parts of a header that are quoted in messages: bytes of a tensor's name, bytes of a
/// type's name, number of dimensions.
const MAX_NAME_BYTES: usize = 512;
const MAX_DTYPE_BYTES: usize = 32;
const MAX_DIMENSIONS: usize = 16;

/// One tensor of the header, checked against the length of the file.
pub(super) struct Described {
    pub(super) name: String,
    /// Element type as named in the file.
    pub(super) dtype_name: String,
    /// Element type; `None` if it is not supported.
    pub(super) dtype: Option<DType>,
    /// Dimensions, outermost first.
    pub(super) shape: Vec<usize>,
    /// Bytes from the start of the file.
    pub(super) offset: u64,
    /// Size of the tensor, bytes.
    pub(super) length: u64,
}

/// Key and value in the metadata that mark the weights as a hole in a sparse file.
pub(crate) const SPARSE_KEY: &str = "tandem.weights";
pub(crate) const SPARSE_VALUE: &str = "sparse";

/// Content of the header of a weight file.
pub(super) struct FileHeader {
    pub(super) tensors: Vec<Described>,
    /// True if the file is marked as sparse: all weights read as zero.
    pub(super) is_sparse: bool,
}

/// Reads and checks the header of a file from its bytes.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<FileHeader, CheckpointError> {
    let file_bytes = bytes.len() as u64;
    let truncated =
        |expected| CheckpointError::Truncated { path: path.into(), expected, found: file_bytes };
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| truncated(8))?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(CheckpointError::HeaderTooLong {
            path: path.into(),
            limit: MAX_HEADER_BYTES,
            found: length,
        });
    }
    let json = rest.get(..length as usize).ok_or_else(|| truncated(8 + length))?;
    let header: Header = serde_json::from_slice(json)
        .map_err(|source| CheckpointError::HeaderNotJson { path: path.into(), source })?;

    let data_start = 8 + length;
    let mut described = Vec::with_capacity(header.tensors.len());
    for (name, entry) in header.tensors {
        described.push(check_entry(path, name, entry, data_start, file_bytes - data_start)?);
    }
    check_disjoint(path, data_start, &mut described)?;
    Ok(FileHeader { tensors: described, is_sparse: header.is_sparse })
}

/// Checks the byte range of one tensor against the file and the shape.
fn check_entry(
    path: &Path,
    name: String,
    entry: Entry,
    data_start: u64,
    available: u64,
) -> Result<Described, CheckpointError> {
    let [begin, end] = entry.data_offsets;
    if begin > end || end > available {
        return Err(CheckpointError::OutsideFile {
            path: path.into(),
            tensor: name,
            begin,
            end,
            available,
        });
    }
    if let Some(size) = element_size(&entry.dtype) {
        let expected = entry
            .shape
            .iter()
            .try_fold(size, |bytes, &dimension| bytes.checked_mul(dimension as u64));
        if expected != Some(end - begin) {
            return Err(CheckpointError::WrongLength {
                path: path.into(),
                tensor: name,
                dtype: entry.dtype,
                shape: entry.shape,
                expected,
                found: end - begin,
            });
        }
    }
    Ok(Described {
        name,
        dtype: known_dtype(&entry.dtype),
        dtype_name: entry.dtype,
        shape: entry.shape,
        offset: data_start + begin,
        length: end - begin,
    })
}

/// Checks that no two tensors share bytes or a name. Gaps are allowed: writers use them for alignment.
fn check_disjoint(
    path: &Path,
    data_start: u64,
    described: &mut [Described],
) -> Result<(), CheckpointError> {
    described.sort_by(|a, b| a.name.cmp(&b.name));
    for pair in described.windows(2) {
        if pair[0].name == pair[1].name {
            return Err(CheckpointError::DuplicateTensor {
                tensor: pair[0].name.clone(),
                first: path.into(),
                second: path.into(),
            });
        }
    }
    described.sort_by_key(|tensor| (tensor.offset, tensor.length));
    for pair in described.windows(2) {
        let end = pair[0].offset + pair[0].length;
        if pair[1].offset < end {
            return Err(CheckpointError::Overlap {
                path: path.into(),
                tensor: pair[1].name.clone(),
                other: pair[0].name.clone(),
                expected: end - data_start,
                found: pair[1].offset - data_start,
            });
        }
    }
    Ok(())
}

/// Returns the element type for a name of the format; `None` if it is not supported.
fn known_dtype(name: &str) -> Option<DType> {
    Some(match name {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::Bf16,
        "I64" => DType::I64,
        "U8" => DType::U8,
        "BOOL" => DType::Bool,
        _ => return None,
    })
}

/// Bytes of one element; `None` for types that newer versions of the format added. Their lengths are
/// not checked, so that an unused tensor does not make the file unreadable.
fn element_size(name: &str) -> Option<u64> {
    Some(match name {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" => 1,
        "U16" | "I16" | "F16" | "BF16" => 2,
        "U32" | "I32" | "F32" => 4,
        "U64" | "I64" | "F64" => 8,
        _ => return None,
    })
}

/// Entry of one tensor in the header.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// Tensors of the header in file order, including repeated names, and the sparse mark.
struct Header {
    tensors: Vec<(String, Entry)>,
    is_sparse: bool,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                let mut is_sparse = false;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        let metadata = map.next_value::<serde_json::Value>()?;
                        is_sparse = metadata[SPARSE_KEY] == SPARSE_VALUE;
                        continue;
                    }
                    if name.len() > MAX_NAME_BYTES {
                        let start = shortened(&name);
                        let length = name.len();
                        return Err(A::Error::custom(format!(
                            "a name of {length} bytes, above the limit of {MAX_NAME_BYTES}: {start}"
                        )));
                    }
                    let refused = |error: &str| A::Error::custom(format!("tensor {name}: {error}"));
                    let entry =
                        map.next_value::<Entry>().map_err(|error| refused(&shortened(error)))?;
                    if entry.dtype.len() > MAX_DTYPE_BYTES || entry.shape.len() > MAX_DIMENSIONS {
                        return Err(refused("its type or its shape is too long"));
                    }
                    tensors.push((name, entry));
                }
                Ok(Header { tensors, is_sparse })
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}
