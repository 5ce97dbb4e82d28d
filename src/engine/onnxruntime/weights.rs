//! External weights: mapped files and the library's descriptors over them.

#![expect(unsafe_code, reason = "maps weight files and describes their memory to the library")]

use super::rewrite::{RewriteError, with_external_weights};
use super::session::{check, element_type};
use crate::engine::weight_hash::Place;
use crate::engine::{LoadError, NetworkFile};
use crate::tensor::DType;
use memmap2::Mmap;
use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::builder::SessionBuilder;
use ort::value::DynValue;
use std::collections::BTreeMap;
use std::fs::File;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use tandem_export::onnx::{DataLocation, DataType, StringStringEntryProto, TensorProto};

/// The weights of one network, where they lie on disk.
pub(super) struct Weights {
    /// Descriptors by initializer name. Declared first: they go before the memory they describe.
    values: Vec<(String, Arc<DynValue>)>,
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
    /// Maps every external weight of `graph`, which is `file`'s, exported or built, and gives it back
    /// with locations that are relative to [`ROOT`].
    ///
    /// The library refuses weight files outside the model's folder, links included, even when the
    /// weight is given by address, and its optimizer reads some weights (convolutions that it fuses)
    /// by location all the same. So it is told that the model's folder is the root of the file system.
    pub(super) fn map(file: &NetworkFile, graph: &[u8]) -> Result<(Self, Vec<u8>), LoadError> {
        let network = &file.contract.network;
        let mut weights = Self { values: Vec::new(), files: BTreeMap::new() };
        let graph = with_external_weights(graph, |tensor, place| {
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
            let location = mapped.from_root.clone();
            set_place(tensor, &Place { location, ..place });
            Ok(())
        });
        let graph = graph.map_err(|error| match error {
            RewriteError::NotOnnx(error) => LoadError::Refused {
                library: "tandem".into(),
                network: network.clone(),
                reason: format!("not an ONNX file: {error}"),
            },
            RewriteError::Weight(error) => error,
        })?;
        Ok((weights, graph))
    }

    /// Gives all of them to a session to be.
    pub(super) fn add_to(&self, mut builder: SessionBuilder) -> Result<SessionBuilder, String> {
        for (name, value) in &self.values {
            builder = builder
                .with_initializer(name, Arc::clone(value))
                .map_err(|error| error.to_string())?;
        }
        Ok(builder)
    }
}

/// Writes where a weight lies into its message.
pub(super) fn set_place(tensor: &mut TensorProto, place: &Place) {
    tensor.raw_data = None;
    tensor.data_location = Some(DataLocation::External as i32);
    tensor.external_data = vec![
        StringStringEntryProto::new("location", place.location.as_str()),
        StringStringEntryProto::new("offset", place.offset.to_string()),
        StringStringEntryProto::new("length", place.length.to_string()),
    ];
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
