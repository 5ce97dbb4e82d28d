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

mod encode;
mod placement;
mod staging;
mod weights_file;

pub use crate::summary::Summary;

use crate::checkpoint::{CheckpointError, Tensors};
use crate::contract::{Contract, FORMAT};
use crate::dtype::DType;
use crate::family::{NetworkError, OpenCheckpoint};
use crate::graph::Network;
use crate::options::Options;
use crate::summary::SUMMARY_FORMAT;
use crate::weights::{WeightFile, hex};
use encode::encode_graph;
use placement::{Placement, referenced_files};
use serde::Serialize;
use sha2::{Digest, Sha256};
use staging::Staging;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use weights_file::WeightsPlan;

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

    let staging = Staging::begin(out_dir, checkpoint, family)?;
    let placement = Placement::choose(options.weights, &networks, checkpoint, &staging)?;
    let weights = WeightsPlan::of(&networks, placement);
    if weights.total > 0 {
        weights.write(checkpoint, &staging, progress)?;
    }
    let graphs = write_networks(&networks, family.name(), checkpoint, &weights, &staging)?;
    let files = Files::list(checkpoint, &networks, placement, &weights, &staging)?;

    let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    for name in family.companions() {
        let path = checkpoint.dir().join(name);
        if !path.exists() {
            warnings.push(format!("the checkpoint has no {name}: its networks cannot drive"));
        } else if placement != Placement::InPlace {
            let text = fs::read(&path).map_err(|source| ExportError::Read { path, source })?;
            staging.write(name, &text)?;
        }
    }

    let summary = Summary {
        format: SUMMARY_FORMAT,
        exporter_version: env!("CARGO_PKG_VERSION").to_owned(),
        model: family.name().to_owned(),
        checkpoint: canonical(checkpoint.dir())?,
        headers_sha256: headers_hash(checkpoint)?,
        options: built.options,
        prefix_capacity: built.prefix_capacity,
        networks: graphs,
        warnings,
        weight_files: files.referenced,
        weights: files.read_from,
        sources: files.sources,
        converted_bytes: weights.total,
    };
    staging.write(SUMMARY_FILE, &json(&summary))?;
    progress(Progress::Syncing);
    staging.publish(family)?;
    Ok(summary)
}

/// Writes graphs and contracts; returns the SHA-256 of each graph, by network.
fn write_networks(
    networks: &[Network],
    model: &str,
    checkpoint: &Tensors,
    weights: &WeightsPlan<'_>,
    staging: &Staging<'_>,
) -> Result<BTreeMap<String, String>, ExportError> {
    let mut graphs = BTreeMap::new();
    for network in networks {
        let graph = encode_graph(network, checkpoint, weights);
        let hash = hex(&Sha256::digest(&graph));
        staging.write(&graph_file(&network.name), &graph)?;
        let contract = Contract {
            format: FORMAT,
            network: network.name.clone(),
            model: model.to_owned(),
            inputs: network.inputs.clone(),
            outputs: network.outputs.clone(),
            sizes: network.sizes.clone(),
            numbers: network.numbers.clone(),
            graph_sha256: hash.clone(),
        };
        staging.write(&contract_file(&network.name), &json(&contract))?;
        graphs.insert(network.name.clone(), hash);
    }
    Ok(graphs)
}

/// Files that hold weights.
struct Files {
    /// Checkpoint files that graphs point into.
    referenced: Vec<String>,
    /// Every file in the export that weights are read from.
    read_from: Vec<WeightFile>,
    /// The checkpoint's weight files.
    sources: Vec<WeightFile>,
}

impl Files {
    /// Lists the files, and links those that are to be links.
    fn list(
        checkpoint: &Tensors,
        networks: &[Network],
        placement: Placement,
        weights: &WeightsPlan<'_>,
        staging: &Staging<'_>,
    ) -> Result<Self, ExportError> {
        let reading = |path: &Path| {
            let path = path.to_owned();
            |source| ExportError::Read { path, source }
        };
        let mut sources = Vec::new();
        for path in checkpoint.files() {
            sources.push(WeightFile::of_checkpoint(path).map_err(reading(path))?);
        }
        let (mut referenced, mut read_from) = (Vec::new(), Vec::new());
        if weights.total > 0 {
            let written = WeightFile::written(staging.path(), WEIGHTS_FILE);
            read_from.push(written.map_err(reading(&staging.place_of(WEIGHTS_FILE)))?);
        }
        if placement == Placement::Copied {
            return Ok(Self { referenced, read_from, sources });
        }
        for file in referenced_files(networks) {
            let source: &WeightFile = &sources[file];
            match placement {
                Placement::Linked => {
                    let target = canonical(&checkpoint.files()[file])?;
                    staging.link(&target, &source.name)?;
                    read_from.push(source.clone());
                }
                Placement::Cloned => read_from.push(WeightFile { origin: None, ..source.clone() }),
                Placement::InPlace | Placement::Copied => read_from.push(source.clone()),
            }
            referenced.push(source.name.clone());
        }
        Ok(Self { referenced, read_from, sources })
    }
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
