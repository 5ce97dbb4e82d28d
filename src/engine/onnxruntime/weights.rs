//! External weights: mapped files and the library's descriptors of them.

#![expect(unsafe_code, reason = "describes the memory of mapped weight files to the library")]

use super::error::SessionError;
use super::raw::{check, element_type};
use super::rewrite::{RewriteError, refuse_hidden, with_external_weights};
use super::widen::widened;
use crate::engine::folder::ExternalData;
use crate::engine::folder::check_weight;
use crate::engine::{LoadError, NetworkFile};
use crate::tensor::DType;
use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::builder::SessionBuilder;
use ort::value::DynValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use tandem_export::onnx::{DataLocation, DataType, StringStringEntryProto, TensorProto};
use tandem_files::{MappedFile, open_regular, shortened};

/// Weights of one network, mapped from their files.
pub(super) struct Weights {
    /// Descriptors by initializer name. Declared first, so that they are dropped before their memory.
    values: Vec<(String, Arc<DynValue>)>,
    /// Files by location as the graph names it.
    files: BTreeMap<String, WeightFile>,
    /// Copies of weights whose offset is not aligned for their elements.
    copies: Vec<Box<[u64]>>,
    /// Folder that rewritten locations are relative to: the deepest common ancestor of all files.
    root: PathBuf,
}

/// Weight file that is mapped into memory.
struct WeightFile {
    bytes: MappedFile,
    /// Canonical path of the file.
    path: PathBuf,
}

impl Weights {
    /// Maps all external weights of `graph`, the exported or built graph of `file`, and returns the
    /// graph with locations relative to [`root`](Self::root). With `block`, grouped convolutions are
    /// widened to multiples of that number of channels.
    ///
    /// The library refuses weight files outside the model's folder, links included, even for weights
    /// passed by address, and its optimizer reads the weights of convolutions that it fuses by
    /// location. Each file is therefore opened and checked here, and the library receives the common
    /// folder and the paths of exactly these files in it; other references are refused before.
    pub(super) fn map(
        file: &NetworkFile,
        graph: &[u8],
        block: Option<usize>,
    ) -> Result<(Self, Vec<u8>), LoadError> {
        let network = &file.contract.network;
        let mut files = BTreeMap::new();
        refuse_hidden(graph).map_err(|error| refused(network, error.to_string()))?;
        with_external_weights(graph, |tensor, place| {
            check_weight(tensor).map_err(|error| refused(network, error.to_string()))?;
            if let Entry::Vacant(vacant) = files.entry(place.location) {
                let mapped = WeightFile::map(file, vacant.key())?;
                vacant.insert(mapped);
            }
            Ok(())
        })
        .map_err(|error| as_load_error(network, error))?;
        let root = common_folder(files.values().map(|file| file.path.as_path()));
        let mut weights = Self { values: Vec::new(), files, copies: Vec::new(), root };
        let graph = match block {
            None => Cow::Borrowed(graph),
            Some(block) => Cow::Owned(
                widened(graph, block, |tensor| {
                    let place = ExternalData::of(tensor)?;
                    weights.files.get(&place.location)?.at(&place)
                })
                .map_err(|error| refused(network, format!("not an ONNX file: {error}")))?,
            ),
        };
        let graph = with_external_weights(&graph, |tensor, place| {
            let location = weights.add(file, tensor, &place)?;
            set_external_data(tensor, &ExternalData { location, ..place });
            Ok(())
        })
        .map_err(|error| as_load_error(network, error))?;
        Ok((weights, graph))
    }

    /// Creates the descriptor of one weight and returns its file's path relative to the root folder.
    fn add(
        &mut self,
        file: &NetworkFile,
        tensor: &TensorProto,
        place: &ExternalData,
    ) -> Result<String, LoadError> {
        let network = &file.contract.network;
        let mapped = &self.files[&place.location];
        let bytes = mapped.at(place).ok_or_else(|| LoadError::Weight {
            network: network.clone(),
            weight: shortened(tensor.name()),
            file: file.folder.join(&place.location),
            from: place.offset,
            to: place.offset.saturating_add(place.length),
            length: mapped.bytes.len() as u64,
        })?;
        let dtype = dtype_of(tensor).ok_or_else(|| {
            let name = shortened(tensor.name());
            refused(network, format!("weight {name:?} has an unknown element type"))
        })?;
        let value = match bytes.as_ptr().align_offset(dtype.size()) {
            0 => describe(network, tensor, dtype, bytes)?,
            _ => {
                let mut copy = vec![0_u64; bytes.len().div_ceil(size_of::<u64>())];
                bytemuck::cast_slice_mut::<u64, u8>(&mut copy)[..bytes.len()]
                    .copy_from_slice(bytes);
                self.copies.push(copy.into());
                let copy = self.copies.last().expect("pushed just above");
                describe(
                    network,
                    tensor,
                    dtype,
                    &bytemuck::cast_slice::<u64, u8>(copy)[..bytes.len()],
                )?
            }
        };
        self.values.push((tensor.name().to_owned(), Arc::new(value)));
        let in_root = mapped.path.strip_prefix(&self.root).expect("the root contains all files");
        in_root.to_str().map(str::to_owned).ok_or_else(|| {
            refused(network, format!("the path of {} is not UTF-8", mapped.path.display()))
        })
    }

    /// Returns the folder that rewritten locations are relative to.
    #[cfg(feature = "cuda")]
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Adds all weights to the builder of a session.
    pub(super) fn add_to(&self, builder: SessionBuilder) -> Result<SessionBuilder, SessionError> {
        let root = self.root.to_str().ok_or(SessionError::Root)?;
        let mut builder = builder.with_config_entry(ROOT_ENTRY, root)?;
        for (name, value) in &self.values {
            builder = builder.with_initializer(name, Arc::clone(value))?;
        }
        Ok(builder)
    }
}

impl WeightFile {
    fn map(file: &NetworkFile, location: &str) -> Result<Self, LoadError> {
        let path = file.folder.join(location);
        let open = |source| LoadError::WeightFile {
            network: file.contract.network.clone(),
            file: path.clone(),
            link_target: fs::read_link(&path).ok(),
            source,
        };
        let real = path.canonicalize().map_err(open)?;
        let weight_file = open_regular(&real).map_err(open)?;
        let bytes = MappedFile::map(&weight_file, &real).map_err(open)?;
        Ok(Self { bytes, path: real })
    }

    /// Returns the bytes at `place`; `None` if the file is too short.
    fn at(&self, place: &ExternalData) -> Option<&[u8]> {
        let from = usize::try_from(place.offset).ok()?;
        let to = from.checked_add(usize::try_from(place.length).ok()?)?;
        self.bytes.get(from..to)
    }
}

/// Session option of the library: the folder that locations are relative to.
pub(super) const ROOT_ENTRY: &str = "session.model_external_initializers_file_folder_path";

/// Returns the deepest folder that contains all of `files`, which are absolute; `/` for no files.
fn common_folder<'a>(files: impl Iterator<Item = &'a Path>) -> PathBuf {
    let mut folders = files.filter_map(Path::parent);
    let Some(first) = folders.next() else { return PathBuf::from("/") };
    let mut common = first;
    for folder in folders {
        while !folder.starts_with(common) {
            common = common.parent().expect("absolute paths have the common root /");
        }
    }
    common.to_owned()
}

fn refused(network: &str, reason: String) -> LoadError {
    LoadError::Refused { library: "tandem".into(), network: network.to_owned(), reason }
}

fn as_load_error(network: &str, error: RewriteError) -> LoadError {
    match error {
        RewriteError::NotOnnx(error) => refused(network, format!("not an ONNX file: {error}")),
        RewriteError::Weight(error) => error,
    }
}

/// Sets the location of an external weight in its message.
pub(super) fn set_external_data(tensor: &mut TensorProto, place: &ExternalData) {
    tensor.raw_data = None;
    tensor.data_location = Some(DataLocation::External as i32);
    tensor.external_data = vec![
        StringStringEntryProto::new("location", place.location.as_str()),
        StringStringEntryProto::new("offset", place.offset.to_string()),
        StringStringEntryProto::new("length", place.length.to_string()),
    ];
}

/// Creates the library's descriptor of `bytes`, which are aligned for elements of `dtype`.
fn describe(
    network: &str,
    tensor: &TensorProto,
    dtype: DType,
    bytes: &[u8],
) -> Result<DynValue, LoadError> {
    let info = MemoryInfo::default();
    let mut value = ptr::null_mut();
    // SAFETY: `bytes` outlives the descriptor: it is mapped or copied memory that `Weights` drops after
    // it (field order), and the engine drops `Weights` after its session. It is aligned for `dtype` and
    // as long as the shape requires (`check_weight`), and the library only reads initializers.
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
    check(status).map_err(|error| refused(network, error.to_string()))?;
    let value = NonNull::new(value).expect("the library reported success");
    // SAFETY: `value` was just created by the library and has no other owner.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_folder_is_the_deepest_common_ancestor() {
        let check = |files: &[&str], expected: &str| {
            assert_eq!(common_folder(files.iter().map(Path::new)), Path::new(expected));
        };
        check(&[], "/");
        check(&["/a/b/w.bin"], "/a/b");
        check(&["/a/b/w.bin", "/a/b/x.bin"], "/a/b");
        check(&["/a/b/c/w.bin", "/a/bc/x.bin"], "/a");
        check(&["/a/w.bin", "/b/x.bin"], "/");
    }
}
