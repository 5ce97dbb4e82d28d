//! Writes the networks of a checkpoint to a folder: graphs, contracts, converted weights, links.
//!
//! | file | content |
//! |---|---|
//! | `vision.onnx`, `understanding.onnx`, `bev.onnx`, `action.onnx` | graphs |
//! | `vision.json`, … | their contracts |
//! | `understanding.0.onnx`, `understanding.0.json`, … | with layer groups: graphs and contracts of the groups |
//! | `weights.bin` | converted weights, folded constants and copied weights |
//! | `tokenizer.json` | copy of the checkpoint's tokenizer, so that the folder is complete for driving |
//! | `model.safetensors` or its shards | links to or clones of the checkpoint files that graphs reference, unless the weights are copied |
//! | `export.json` | the [`Summary`]; written last |
//!
//! The folder is replaced atomically: it is written to a temporary folder, synced and renamed. In the
//! checkpoint's own folder, which cannot be replaced, files are replaced one by one: `export.json` is
//! removed first and written last, so a folder without it is not a complete export.

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

/// File of converted, folded and copied weights.
pub const WEIGHTS_FILE: &str = "weights.bin";

/// File of the [`Summary`]. A folder with this file is a complete export.
pub const SUMMARY_FILE: &str = "export.json";

/// File of the tokenizer, in a checkpoint and in its export.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Result of comparing this export with another. Written later; removed when the export is replaced.
pub const ACCURACY_FILE: &str = "accuracy.json";

/// A short drive with the outputs of a reference, which is replayed where this export is loaded.
/// Written by the same comparison; removed when the export is replaced.
pub const GOLDEN_FILE: &str = "golden.json";

/// Progress of an export, for the callback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The graph of a network is about to be built.
    Network(&'static str),
    /// Written and total bytes of the weights file.
    Weights { written: u64, total: u64 },
    /// All files are written and are being synced to disk.
    Syncing,
}

/// Error of exporting networks.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A tensor that a network needs is missing or wrong.
    #[error("checkpoint {} cannot be exported", dir.display())]
    Checkpoint {
        dir: PathBuf,
        #[source]
        source: Box<CheckpointError>,
    },
    /// A network cannot be built.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A finite weight is infinite in the type of the networks.
    #[error("weight {name:?} has the value {value}, beyond the range of {dtype}; export as bf16")]
    Range {
        name: String,
        /// First value of the weight that is out of range.
        value: f32,
        dtype: DType,
    },
    /// A checkpoint file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file cannot be written, e.g. because the disk is full.
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The output folder contains a file that is not part of an export.
    #[error("{} is not part of an export; give an empty or a new folder", path.display())]
    ForeignFile { path: PathBuf },
    /// The output path has no last component.
    #[error("{} does not name a folder", path.display())]
    NoName { path: PathBuf },
}

/// Writes the networks of `checkpoint` to the folder `out_dir`.
///
/// Replaces an existing export, which stays unchanged if this one fails. Fails if the networks do
/// not fit the checkpoint, or a file cannot be read or written. `out_dir` is then unchanged.
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

/// Files of the export and the checkpoint that hold weights.
struct Files {
    /// Checkpoint files that graphs reference.
    referenced: Vec<String>,
    /// Files of the export from which weights are read.
    read_from: Vec<WeightFile>,
    /// Weight files of the checkpoint.
    sources: Vec<WeightFile>,
}

impl Files {
    /// Lists the files and creates the links.
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

/// Name of the file of a network's graph.
pub fn graph_file(network: &str) -> String {
    format!("{network}.onnx")
}

/// Name of the file of a network's contract.
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
