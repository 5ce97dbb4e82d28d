//! External weights: mapped files and the library's descriptors over them.

#![expect(unsafe_code, reason = "maps weight files and describes their memory to the library")]

use super::session::{check, element_type};
use crate::engine::{LoadError, NetworkFile};
use crate::tensor::DType;
use memmap2::Mmap;
use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::value::DynValue;
use std::collections::BTreeMap;
use std::fs::File;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use tandem_export::onnx::{
    DataLocation, DataType, ModelProto, StringStringEntryProto, TensorProto,
};

/// The weights of one network, where they lie on disk.
pub(super) struct Weights {
    /// Descriptors by initializer name. Declared first: they go before the memory they describe.
    pub(super) values: Vec<(String, Arc<DynValue>)>,
    /// The files, by location as the graph names it.
    files: BTreeMap<String, WeightFile>,
}

/// A mapped file.
struct WeightFile {
    bytes: Mmap,
    /// Its path as a location relative to [`ROOT`].
    from_root: String,
}

/// The folder that every rewritten location is relative to.
pub(super) const ROOT: &str = "/";

impl Weights {
    /// Maps every external weight of `model`, and rewrites the graph's locations to be relative to
    /// [`ROOT`].
    ///
    /// The library refuses weight files outside the model's folder, links included, even when the
    /// weight is given by address, and its optimizer reads some weights (convolutions that it fuses)
    /// by location all the same. So it is told that the model's folder is the root of the file system.
    pub(super) fn map(file: &NetworkFile, model: &mut ModelProto) -> Result<Self, LoadError> {
        let network = &file.contract.network;
        let mut weights = Self { values: Vec::new(), files: BTreeMap::new() };
        for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
            let Some(place) = Place::of(tensor) else { continue };
            let mapped = match weights.files.get(&place.location) {
                Some(mapped) => mapped,
                None => {
                    let path = file.folder.join(&place.location);
                    let open = |source| LoadError::WeightFile {
                        network: network.clone(),
                        file: path.clone(),
                        source,
                    };
                    let real = path.canonicalize().map_err(open)?;
                    let weight_file = File::open(&real).map_err(open)?;
                    // SAFETY: the mapping is read-only. That nobody truncates or rewrites a
                    // checkpoint under a running engine is the operator's promise, as with every
                    // mapped model; tandem itself replaces files only by rename.
                    let bytes = unsafe { Mmap::map(&weight_file) }.map_err(open)?;
                    let from_root = real.to_string_lossy().trim_start_matches(ROOT).to_owned();
                    let file = WeightFile { bytes, from_root };
                    weights.files.entry(place.location.clone()).or_insert(file)
                }
            };
            let (from, to) = (place.offset, place.offset.saturating_add(place.length));
            let bytes = usize::try_from(from)
                .ok()
                .zip(usize::try_from(to).ok())
                .and_then(|(from, to)| mapped.bytes.get(from..to))
                .ok_or_else(|| LoadError::Weight {
                    network: network.clone(),
                    weight: tensor.name().to_owned(),
                    file: file.folder.join(&place.location),
                    from,
                    to,
                    length: mapped.bytes.len() as u64,
                })?;
            let value = describe(network, tensor, bytes)?;
            weights.values.push((tensor.name().to_owned(), Arc::new(value)));
            place.move_to(tensor, &mapped.from_root);
        }
        Ok(weights)
    }
}

/// Where the graph says that a weight lies.
struct Place {
    location: String,
    offset: u64,
    length: u64,
}

impl Place {
    /// The place of an external weight; `None` if the graph holds it itself.
    fn of(tensor: &TensorProto) -> Option<Self> {
        if tensor.data_location != Some(DataLocation::External as i32) {
            return None;
        }
        let value = |key: &str| {
            let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
            entry.and_then(|entry| entry.value.clone()).unwrap_or_default()
        };
        let number = |key: &str| value(key).parse().unwrap_or(0);
        Some(Self {
            location: value("location"),
            offset: number("offset"),
            length: number("length"),
        })
    }

    fn move_to(&self, tensor: &mut TensorProto, location: &str) {
        tensor.external_data = vec![
            StringStringEntryProto::new("location", location),
            StringStringEntryProto::new("offset", self.offset.to_string()),
            StringStringEntryProto::new("length", self.length.to_string()),
        ];
    }
}

/// A descriptor of the library over mapped bytes.
fn describe(network: &str, tensor: &TensorProto, bytes: &[u8]) -> Result<DynValue, LoadError> {
    let refused = |reason: String| LoadError::Refused {
        library: "tandem".into(),
        network: network.to_owned(),
        reason,
    };
    let dtype = dtype_of(tensor).ok_or_else(|| {
        refused(format!("weight {:?} has an element type that tandem does not know", tensor.name()))
    })?;
    let info = MemoryInfo::default();
    let mut value = ptr::null_mut();
    // SAFETY: the mapped bytes outlive the descriptor (field order of `Weights`, which the engine
    // keeps beside its session) and the library only reads initializers. Length against shape is
    // checked by the library.
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            info.ptr(),
            bytes.as_ptr().cast_mut().cast(),
            bytes.len(),
            tensor.dims.as_ptr(),
            tensor.dims.len(),
            element_type(dtype),
            &mut value,
        )
    };
    check(network, status).map_err(|error| refused(error.to_string()))?;
    let value = NonNull::new(value).expect("the library reported success");
    // SAFETY: a valid value just made by the library, owned by nobody else.
    Ok(unsafe { DynValue::from_ptr(value, Some(&Allocator::default())) })
}

fn dtype_of(tensor: &TensorProto) -> Option<DType> {
    Some(match DataType::try_from(tensor.data_type?).ok()? {
        DataType::Float => DType::F32,
        DataType::Float16 => DType::F16,
        DataType::Bfloat16 => DType::Bf16,
        DataType::Int64 => DType::I64,
        DataType::Uint8 => DType::U8,
        DataType::Bool => DType::Bool,
        DataType::Undefined => return None,
    })
}
