//! Writes the networks of a checkpoint as a folder: graphs, contracts, converted weights, links.
//!
//! | file | holds |
//! |---|---|
//! | `vision.onnx`, `understanding.onnx`, `bev.onnx`, `action.onnx` | the graphs |
//! | `vision.json`, … | their contracts |
//! | `understanding.0.onnx`, `understanding.0.json`, … | the same in layer groups, if they were asked for |
//! | `weights.bin` | weights in another element type than stored, folded constants, and weights that were copied |
//! | `tokenizer.json` | a copy of the checkpoint's, so that the folder is all that driving needs |
//! | `model.safetensors` or its shards | the checkpoint files that graphs point into, if weights are not copied: links, or clones that share the disk |
//! | `export.json` | the [`Summary`]; written last |
//!
//! The folder appears whole or not at all: it is written beside its place, synced and renamed. Only
//! in the checkpoint's own folder, which cannot be swapped, do files appear one by one; there
//! `export.json` goes first and comes back last, so a folder without it is not an export.

use crate::checkpoint::{CheckpointError, TensorEntry, Tensors};
use crate::contract::{Contract, FORMAT};
use crate::dtype::DType;
use crate::family::{FAMILIES, Family, NetworkError, OpenCheckpoint};
use crate::graph::{Initializer, Network, Source, Stored, encode, to_grid};
use crate::onnx::{
    DataLocation, DataType, GraphProto, IR_VERSION, ModelProto, OPSET, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, ValueInfoProto,
};
use crate::options::{Options, WeightStorage};
use crate::summary::SUMMARY_FORMAT;
pub use crate::summary::Summary;
use crate::weights::{WeightFile, hex};
use half::{bf16, f16};
use prost::Message;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use tandem_files::WholeFolder;

/// File of converted and folded weights.
pub const WEIGHTS_FILE: &str = "weights.bin";

/// File of the [`Summary`]; a folder that has it is a whole export.
pub const SUMMARY_FILE: &str = "export.json";

/// The tokenizer, in a checkpoint and in an export of it.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// What a comparison of this export with another found; written beside it later, gone with it.
pub const ACCURACY_FILE: &str = "accuracy.json";

/// A short drive with a reference's answers, for wherever this export is loaded; written by the same
/// comparison, gone with it.
pub const GOLDEN_FILE: &str = "golden.json";

/// Every tensor of [`WEIGHTS_FILE`] starts at a multiple of this.
const ALIGNMENT: u64 = 64;

/// With [`WeightStorage::Auto`], weights that need no conversion are copied up to this size, bytes.
const COPIED_AUTOMATICALLY: u64 = 1 << 30;

/// Elements converted at a time.
const CHUNK: usize = 1 << 18;

/// How far an export is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// A network's graph is about to be built.
    Network(&'static str),
    /// So many bytes of converted weights are written.
    Weights {
        /// Bytes written so far.
        written: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Everything is written and is being synced to disk.
    Syncing,
}

/// Why networks cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A tensor that a network needs is missing or wrong.
    #[error("checkpoint {} cannot be exported", dir.display())]
    Checkpoint {
        /// The checkpoint's folder.
        dir: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<CheckpointError>,
    },
    /// A network cannot be built.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A weight is finite as stored and infinite in the type of the networks.
    #[error("weight {name:?} has the value {value}, beyond the range of {dtype}; export as bf16")]
    Range {
        /// The weight.
        name: String,
        /// The first such value.
        value: f32,
        /// What it was to become.
        dtype: DType,
    },
    /// A checkpoint file cannot be read again.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written, e.g. because the disk is full.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Something that is not an export is in the way.
    #[error("{} is not part of an export; give an empty or a new folder", path.display())]
    InTheWay {
        /// The file or folder.
        path: PathBuf,
    },
    /// The folder's path has no last part.
    #[error("{} does not name a folder", path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
}

/// Writes the networks of `checkpoint` to the folder `out_dir`.
///
/// An export that is already there is replaced; it stays as it was if this one fails.
///
/// # Errors
/// The networks do not fit the checkpoint, or a file cannot be read or written. Nothing new is left
/// at `out_dir` then.
pub fn export_networks(
    checkpoint: &dyn OpenCheckpoint,
    options: impl Into<Options>,
    out_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, ExportError> {
    export(checkpoint, options.into(), out_dir, progress)
}

fn export(
    opened: &dyn OpenCheckpoint,
    options: Options,
    out_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, ExportError> {
    let (family, checkpoint) = (opened.family(), opened.tensors());
    let warnings = opened.check().map_err(|source| ExportError::Checkpoint {
        dir: checkpoint.dir().into(),
        source: Box::new(source),
    })?;
    let built = opened.build(&options, &mut |name| progress(Progress::Network(name)))?;
    let networks = built.networks;

    let checkpoint_dir = canonical(checkpoint.dir())?;
    let in_place = out_dir.exists() && canonical(out_dir)? == checkpoint_dir;
    if !in_place {
        refuse_foreign(out_dir, family)?;
    }
    let staging = begin(out_dir, in_place)?;
    let write = |name: &str, bytes: &[u8]| {
        staging.write(name, bytes).map_err(|source| writing(&out_dir.join(name))(source))
    };

    let referenced = referenced_files(&networks);
    let placement = match in_place {
        true => Placement::InPlace,
        false => Placement::choose(options.weights, &networks, checkpoint, staging.path())?,
    };
    let weights = WeightsPlan::of(&networks, placement == Placement::Copied);
    if weights.total > 0 {
        let path = out_dir.join(WEIGHTS_FILE);
        let file = staging.create_file(WEIGHTS_FILE).map_err(writing(&path))?;
        weights.write(checkpoint, file, &path, progress)?;
    }
    let mut graphs = BTreeMap::new();
    for network in &networks {
        let graph = encode_graph(network, checkpoint, &weights);
        let hash = hex(&Sha256::digest(&graph));
        write(&graph_file(&network.name), &graph)?;
        let contract = Contract {
            format: FORMAT,
            network: network.name.clone(),
            model: family.name().to_owned(),
            inputs: network.inputs.clone(),
            outputs: network.outputs.clone(),
            sizes: network.sizes.clone(),
            numbers: network.numbers.clone(),
            graph_sha256: hash.clone(),
        };
        write(&contract_file(&network.name), &json(&contract))?;
        graphs.insert(network.name.clone(), hash);
    }

    let reading = |path: &Path| {
        let path = path.to_owned();
        |source| ExportError::Read { path, source }
    };
    let mut sources = Vec::new();
    for path in checkpoint.files() {
        sources.push(WeightFile::of_checkpoint(path).map_err(reading(path))?);
    }
    let mut weight_files = Vec::new();
    let mut read_from = Vec::new();
    if weights.total > 0 {
        let written = WeightFile::written(staging.path(), WEIGHTS_FILE);
        read_from.push(written.map_err(reading(&out_dir.join(WEIGHTS_FILE)))?);
    }
    for file in referenced.into_iter().filter(|_| placement != Placement::Copied) {
        let source: &WeightFile = &sources[file];
        let name = source.name.clone();
        match placement {
            Placement::Linked => {
                let target = canonical(&checkpoint.files()[file])?;
                tandem_files::link(&target, &staging.path().join(&name))
                    .map_err(writing(&out_dir.join(&name)))?;
                read_from.push(source.clone());
            }
            Placement::Cloned => read_from.push(WeightFile { origin: None, ..source.clone() }),
            Placement::InPlace | Placement::Copied => read_from.push(source.clone()),
        }
        weight_files.push(name);
    }

    let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    for name in family.companions() {
        let path = checkpoint.dir().join(name);
        if !path.exists() {
            warnings.push(format!("the checkpoint has no {name}: its networks cannot drive"));
        } else if !in_place {
            let text = fs::read(&path).map_err(|source| ExportError::Read { path, source })?;
            write(name, &text)?;
        }
    }

    let summary = Summary {
        format: SUMMARY_FORMAT,
        exporter_version: env!("CARGO_PKG_VERSION").to_owned(),
        model: family.name().to_owned(),
        checkpoint: checkpoint_dir,
        headers_sha256: headers_hash(checkpoint)?,
        options,
        prefix_capacity: built.prefix_capacity,
        networks: graphs,
        warnings,
        weight_files,
        weights: read_from,
        sources,
        converted_bytes: weights.total,
    };
    write(SUMMARY_FILE, &json(&summary))?;
    progress(Progress::Syncing);
    match in_place {
        true => publish_into(staging.path(), out_dir, family)?,
        false => staging.publish().map_err(writing(out_dir))?,
    }
    Ok(summary)
}

/// Begins the folder that becomes `out_dir`.
fn begin(out_dir: &Path, in_place: bool) -> Result<WholeFolder, ExportError> {
    let name = out_dir.file_name().ok_or_else(|| ExportError::NoName { path: out_dir.into() })?;
    let beside = if in_place { out_dir } else { tandem_files::folder_of(out_dir) };
    remove_earlier_leftovers(beside, &name.to_string_lossy());
    let staging = match in_place {
        true => WholeFolder::create_in(out_dir, out_dir),
        false => WholeFolder::create(out_dir),
    };
    staging.map_err(writing(out_dir))
}

/// Removes the folders `.NAME.export-PROCESS` of exports by earlier versions that were killed.
fn remove_earlier_leftovers(beside: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(beside) else { return };
    let prefix = format!(".{name}.export-");
    for entry in entries.flatten() {
        let found = entry.file_name();
        let process = found.to_str().and_then(|found| found.strip_prefix(&prefix)?.parse().ok());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && process.is_some_and(|process| !is_exporting(process)) {
            // One that cannot be removed is hidden and in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// True if `process` runs this program, in a version that may still write the folder of its number.
fn is_exporting(process: u32) -> bool {
    let name = |process: &str| fs::read(format!("/proc/{process}/comm"));
    match (name("self"), name(&process.to_string())) {
        (Ok(own), Ok(other)) => own == other && process != std::process::id(),
        // Without `/proc` nothing is known of other processes.
        (own, _) => own.is_err(),
    }
}

/// Moves the files into a folder that holds other things too, the summary last.
fn publish_into(staging: &Path, out_dir: &Path, family: &dyn Family) -> Result<(), ExportError> {
    let summary = out_dir.join(SUMMARY_FILE);
    for earlier in [summary, out_dir.join(ACCURACY_FILE), out_dir.join(GOLDEN_FILE)] {
        if earlier.exists() {
            fs::remove_file(&earlier).map_err(writing(&earlier))?;
            tandem_files::sync_folder(out_dir).map_err(writing(out_dir))?;
        }
    }
    let list = |folder: &Path| -> Result<Vec<_>, ExportError> {
        let entries = fs::read_dir(folder).map_err(writing(folder))?;
        entries.map(|entry| Ok(entry.map_err(writing(folder))?.file_name())).collect()
    };
    let mut names = list(staging)?;
    // Networks that the export before had and this one has not would read its weights.
    for name in list(out_dir)? {
        if is_network_file(&name.to_string_lossy(), family) && !names.contains(&name) {
            let path = out_dir.join(name);
            fs::remove_file(&path).map_err(writing(&path))?;
        }
    }
    names.sort_by_key(|name| name == SUMMARY_FILE);
    for name in names {
        let to = out_dir.join(&name);
        fs::rename(staging.join(&name), &to).map_err(writing(&to))?;
    }
    tandem_files::sync_folder(out_dir).map_err(writing(out_dir))
}

/// Where weights are that need no conversion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Placement {
    /// In the checkpoint's own folder, beside the graphs.
    InPlace,
    /// In the file of converted weights.
    Copied,
    /// In clones of the checkpoint's files, which share its blocks on the disk.
    Cloned,
    /// In the checkpoint's files, which the folder links to.
    Linked,
}

impl Placement {
    /// Places the weights of a folder beside the checkpoint. Clones are created in `folder`.
    fn choose(
        storage: WeightStorage,
        networks: &[Network],
        checkpoint: &Tensors,
        folder: &Path,
    ) -> Result<Self, ExportError> {
        if storage == WeightStorage::Link {
            return Ok(Self::Linked);
        }
        let mut stored = BTreeSet::new();
        for initializer in networks.iter().flat_map(|network| &network.initializers) {
            if let Source::Stored(place) = &initializer.source {
                stored.insert(*place);
            }
        }
        if stored.iter().map(|place| place.length).sum::<u64>() <= COPIED_AUTOMATICALLY {
            return Ok(Self::Copied);
        }
        let mut cloned = Vec::new();
        for file in referenced_files(networks) {
            let path = &checkpoint.files()[file];
            let clone = folder.join(file_name(path));
            cloned.push(clone.clone());
            if !clone_file(path, &clone).map_err(writing(&clone))? {
                for path in cloned.iter().filter(|path| path.exists()) {
                    fs::remove_file(path).map_err(writing(path))?;
                }
                return Ok(match storage {
                    WeightStorage::Copy => Self::Copied,
                    WeightStorage::Auto | WeightStorage::Link => Self::Linked,
                });
            }
        }
        Ok(Self::Cloned)
    }
}

/// Creates a file that shares all blocks with another until one of the two is written to. Returns
/// false if the file system cannot.
#[cfg(target_os = "linux")]
fn clone_file(from: &Path, to: &Path) -> io::Result<bool> {
    let (from, to) = (File::open(from)?, File::create_new(to)?);
    // Whatever the reason, such as another file system: there are other ways to place weights.
    Ok(rustix::fs::ioctl_ficlone(&to, &from).is_ok() && to.sync_all().is_ok())
}

#[cfg(not(target_os = "linux"))]
fn clone_file(_: &Path, _: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Where each converted, folded or copied tensor lies in the weights file.
struct WeightsPlan<'a> {
    items: Vec<Item<'a>>,
    /// Offset of every converted or copied tensor, by where it comes from and what it becomes.
    converted: BTreeMap<(Stored, DType), u64>,
    /// Offset of every folded or scaled tensor, by network and name.
    folded: BTreeMap<(&'a str, &'a str), u64>,
    total: u64,
}

struct Item<'a> {
    offset: u64,
    initializer: &'a Initializer,
}

impl<'a> WeightsPlan<'a> {
    /// A tensor that two networks convert alike is kept once. Stored tensors are copied if
    /// `copies_stored`, or if their place is not a multiple of their element size.
    fn of(networks: &'a [Network], copies_stored: bool) -> Self {
        let mut plan = Self {
            items: Vec::new(),
            converted: BTreeMap::new(),
            folded: BTreeMap::new(),
            total: 0,
        };
        for network in networks {
            for initializer in &network.initializers {
                let offset = plan.total.next_multiple_of(ALIGNMENT);
                match &initializer.source {
                    Source::Stored(stored)
                        if !copies_stored
                            && stored.offset.is_multiple_of(initializer.dtype.size() as u64) =>
                    {
                        continue;
                    }
                    Source::Stored(stored)
                    | Source::Converted(stored, _)
                    | Source::Rounded(stored, _) => {
                        let key = (*stored, initializer.dtype);
                        if plan.converted.contains_key(&key) {
                            continue;
                        }
                        plan.converted.insert(key, offset);
                    }
                    Source::Scaled(_) | Source::Folded(_) => {
                        plan.folded.insert((&network.name, &initializer.name), offset);
                    }
                    Source::Inline(_) => continue,
                }
                plan.total = offset + byte_length(initializer);
                plan.items.push(Item { offset, initializer });
            }
        }
        plan
    }

    fn write(
        &self,
        checkpoint: &Tensors,
        file: File,
        path: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), ExportError> {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let mut written = 0;
        for Item { offset, initializer } in &self.items {
            let gap = [0; ALIGNMENT as usize];
            let gap = &gap[..(offset - written) as usize];
            out.write_all(gap).map_err(writing(path))?;
            match &initializer.source {
                Source::Converted(stored, from) => {
                    let bytes = stored_bytes(checkpoint, stored, *from);
                    for chunk in bytes.chunks(CHUNK * from.size()) {
                        let values = decode(chunk, *from);
                        in_range(&values, initializer)?;
                        let chunk = encode(&values, initializer.dtype);
                        out.write_all(&chunk).map_err(writing(path))?;
                    }
                }
                Source::Rounded(stored, from) => {
                    let bytes = stored_bytes(checkpoint, stored, *from);
                    for chunk in bytes.chunks(CHUNK * from.size()) {
                        let values = decode(chunk, *from).into_iter().map(to_grid);
                        let chunk = encode(&values.collect::<Vec<_>>(), initializer.dtype);
                        out.write_all(&chunk).map_err(writing(path))?;
                    }
                }
                Source::Scaled(scaled) => {
                    let bytes = stored_bytes(checkpoint, &scaled.stored, scaled.from);
                    for (row, factor) in scaled.rows(bytes) {
                        let values = scaled.times(&decode(row, scaled.from), factor);
                        in_range(&values, initializer)?;
                        let row = encode(&values, initializer.dtype);
                        out.write_all(&row).map_err(writing(path))?;
                    }
                }
                Source::Stored(stored) => {
                    let bytes = stored_bytes(checkpoint, stored, initializer.dtype);
                    out.write_all(bytes).map_err(writing(path))?;
                }
                Source::Folded(bytes) => out.write_all(bytes).map_err(writing(path))?,
                Source::Inline(_) => {}
            }
            written = offset + byte_length(initializer);
            progress(Progress::Weights { written, total: self.total });
        }
        let file = out.into_inner().map_err(|error| writing(path)(error.into_error()))?;
        file.sync_all().map_err(writing(path))
    }
}

/// Refuses finite numbers that half precision, alone among the types, would make infinite.
fn in_range(values: &[f32], initializer: &Initializer) -> Result<(), ExportError> {
    let overflows = |value: &f32| value.is_finite() && f16::from_f32(*value).is_infinite();
    let found = (initializer.dtype == DType::F16).then(|| values.iter().copied().find(overflows));
    match found.flatten() {
        Some(value) => {
            let (name, dtype) = (initializer.name.clone(), initializer.dtype);
            Err(ExportError::Range { name, value, dtype })
        }
        None => Ok(()),
    }
}

fn byte_length(initializer: &Initializer) -> u64 {
    (initializer.dims.iter().product::<usize>() * initializer.dtype.size()) as u64
}

fn stored_bytes<'a>(checkpoint: &'a Tensors, stored: &Stored, dtype: DType) -> &'a [u8] {
    checkpoint.bytes(&TensorEntry {
        dtype,
        shape: vec![stored.length as usize / dtype.size()],
        file: stored.file,
        offset: stored.offset,
        length: stored.length,
    })
}

/// Floating-point numbers from little-endian bytes.
fn decode(bytes: &[u8], dtype: DType) -> Vec<f32> {
    let two = |b: &[u8]| [b[0], b[1]];
    match dtype {
        DType::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        DType::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes(two(b)).to_f32()).collect(),
        DType::Bf16 => {
            bytes.chunks_exact(2).map(|b| bf16::from_le_bytes(two(b)).to_f32()).collect()
        }
        DType::I64 | DType::U8 | DType::Bool => panic!("{dtype} is not a floating-point type"),
    }
}

/// The bytes of a graph file.
fn encode_graph(network: &Network, checkpoint: &Tensors, weights: &WeightsPlan<'_>) -> Vec<u8> {
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

/// Checkpoint files that some graph points into.
fn referenced_files(networks: &[Network]) -> BTreeSet<usize> {
    networks
        .iter()
        .flat_map(|network| &network.initializers)
        .filter_map(|initializer| match &initializer.source {
            Source::Stored(stored) => Some(stored.file),
            Source::Converted(..)
            | Source::Rounded(..)
            | Source::Scaled(_)
            | Source::Folded(_)
            | Source::Inline(_) => None,
        })
        .collect()
}

fn headers_hash(checkpoint: &Tensors) -> Result<String, ExportError> {
    let mut hash = Sha256::new();
    for path in checkpoint.files() {
        let header =
            read_header(path).map_err(|source| ExportError::Read { path: path.clone(), source })?;
        hash.update(file_name(path).as_bytes());
        hash.update(header);
    }
    Ok(hex(&hash.finalize()))
}

/// Length field and header of a safetensors file.
fn read_header(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let mut header = length.to_vec();
    file.take(u64::from_le_bytes(length)).read_to_end(&mut header)?;
    Ok(header)
}

/// An export, an empty folder or nothing may be replaced; anything else is somebody's.
fn refuse_foreign(out_dir: &Path, family: &dyn Family) -> Result<(), ExportError> {
    if !out_dir.exists() {
        return Ok(());
    }
    if !out_dir.is_dir() {
        return Err(ExportError::InTheWay { path: out_dir.into() });
    }
    let reading = |source| ExportError::Read { path: out_dir.into(), source };
    let earlier = fs::read(out_dir.join(SUMMARY_FILE)).ok();
    let earlier = earlier.and_then(|text| Summary::parse_of_any_family(&text).ok());
    let files = earlier.into_iter().flat_map(|summary| summary.weights);
    let cloned: Vec<String> =
        files.filter(|file| file.origin.is_none()).map(|file| file.name).collect();
    for entry in fs::read_dir(out_dir).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_link = entry.file_type().map_err(reading)?.is_symlink();
        let ours = name == SUMMARY_FILE
            || name == WEIGHTS_FILE
            || name == TOKENIZER_FILE
            || [ACCURACY_FILE, GOLDEN_FILE]
                .iter()
                .any(|ours| Path::new(ours).file_stem() == Path::new(&name).file_stem())
            || family.companions().contains(&name.as_str())
            || is_network_file(&name, family)
            || is_link && name.ends_with(".safetensors")
            || cloned.contains(&name);
        if !ours {
            return Err(ExportError::InTheWay { path: entry.path() });
        }
    }
    Ok(())
}

/// True for the graph or contract of a network that an export may have.
fn is_network_file(name: &str, family: &dyn Family) -> bool {
    let stem = name.strip_suffix(".onnx").or_else(|| name.strip_suffix(".json"));
    stem.is_some_and(|name| family.is_network(name) || FAMILIES.is_network(name))
}

/// File of a network's graph.
pub fn graph_file(network: &str) -> String {
    format!("{network}.onnx")
}

/// File of a network's contract.
pub fn contract_file(network: &str) -> String {
    format!("{network}.json")
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> ExportError + use<> {
    let path = path.to_owned();
    |source| ExportError::Write { path, source }
}

fn canonical(path: &Path) -> Result<PathBuf, ExportError> {
    path.canonicalize().map_err(|source| ExportError::Read { path: path.into(), source })
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text =
        serde_json::to_vec_pretty(value).expect("maps with string keys and finite numbers");
    text.push(b'\n');
    text
}
