//! Engines for the CPU: the graph as the library optimizes it, saved once.
//!
//! The optimized graph reads its weights where the exported one does, byte for byte the same; only
//! what the library folds or lays out anew goes into a file of its own. Weights therefore take no
//! disk twice, and two engines share their pages.

use super::backend::OnnxRuntime;
use super::error::SessionError;
use super::options::with_optimized_model;
use super::rewrite::{RewriteError, with_external_weights};
use super::weights::{Weights, set_external_data};
use super::widen;
use crate::engine::folder::{ExternalData, GraphWeights};
use crate::engine::target::cpu_features;
use crate::engine::{BackendKind, BuildError, BuildJob, Builder, NetworkFile, Prediction, Target};
use prost::Message;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tandem_export::onnx::{ModelProto, TensorProto};
use tandem_files::open_regular;

/// Weights below this stay in the graph, bytes.
const MIN_EXTERNAL_BYTES: u64 = 1024;

/// Every weight of our own starts at a multiple of this.
const ALIGNMENT: u64 = 64;

/// Bytes compared or copied at a time.
const CHUNK: usize = 1 << 20;

/// What the library itself takes, whatever it loads, bytes.
const LIBRARY_BYTES: u64 = 96 << 20;

/// Copies of a graph in memory at once: messages decoded and encoded, the library's own, its
/// optimizers'.
const GRAPH_COPIES: u64 = 16;

/// Copies of widened weights in memory at once: our messages, decoded and encoded, and the library's.
const WIDENED_COPIES: u64 = 4;

impl Builder for OnnxRuntime {
    fn kind(&self) -> BackendKind {
        BackendKind::OnnxRuntime
    }

    fn library_version(&self) -> String {
        self.described_library()
    }

    fn machine(&self, _: &[Target]) -> Option<String> {
        Some(cpu_features())
    }

    fn predict(&self, file: &NetworkFile, _: &[Target]) -> Result<Prediction, BuildError> {
        let weights = GraphWeights::of(file)?;
        let graph_bytes = file.graph.len() as u64;
        let widened = widened_bytes(file)?;
        // Convolutions are fused with what follows and laid out for the CPU, in memory, before the
        // result is written: at most one copy of each at a time beside the one to be written.
        let rewritten = convolution_bytes(file)? + widened;
        Ok(Prediction {
            memory_bytes: LIBRARY_BYTES
                + GRAPH_COPIES * graph_bytes
                + 2 * rewritten
                + WIDENED_COPIES * widened,
            mapped_bytes: weights.bytes(),
            // The library writes all weights beside its graph; those that are where they were are
            // left out of the result.
            scratch_bytes: weights.bytes() + rewritten + 2 * graph_bytes,
            result_bytes: rewritten + 2 * graph_bytes,
        })
    }

    fn build(&self, job: &BuildJob<'_>) -> Result<(), BuildError> {
        let folder = job.engine.parent().expect("a file in a folder");
        let saved = Saved {
            graph: folder.join("optimized.onnx"),
            weights: folder.join("optimized.weights"),
        };
        self.save_optimized(job.file, &saved)?;
        saved.settle(job, &self.described_library())
    }
}

impl OnnxRuntime {
    /// Lets the library write its optimized graph, with all weights.
    fn save_optimized(&self, file: &NetworkFile, saved: &Saved) -> Result<(), BuildError> {
        let (weights, graph) = Weights::map(file, &file.graph, widen::block())?;
        let save = || -> Result<(), SessionError> {
            let name = saved.weights.file_name().expect("a constant").to_string_lossy();
            let builder = with_optimized_model(self.builder(false)?, &saved.graph, &name)?
                .with_config_entry(
                    "session.optimized_model_external_initializers_min_size_in_bytes",
                    MIN_EXTERNAL_BYTES.to_string(),
                )?;
            weights.add_to(builder)?.commit_from_memory(&graph)?;
            Ok(())
        };
        save().map_err(|error| BuildError::Refused {
            library: self.described_library(),
            network: file.contract.network.clone(),
            reason: error.to_string(),
        })
    }
}

/// Bytes that widened convolutions add to the graph.
fn widened_bytes(file: &NetworkFile) -> Result<u64, BuildError> {
    let Some(block) = widen::block() else { return Ok(0) };
    let (_, graph) = Weights::map(file, &file.graph, Some(block))?;
    Ok((graph.len() as u64).saturating_sub(file.graph.len() as u64))
}

/// Bytes of the weights that convolutions read.
fn convolution_bytes(file: &NetworkFile) -> Result<u64, BuildError> {
    let exported = exported_weights(file)?;
    let model = decode(file)?;
    let nodes = model.graph.unwrap_or_default().node;
    let convolutions = nodes.iter().filter(|node| node.op_type.as_deref() == Some("Conv"));
    let read = convolutions.flat_map(|node| &node.input);
    Ok(read.filter_map(|name| Some(exported.get(name)?.1.length)).sum())
}

fn decode(file: &NetworkFile) -> Result<ModelProto, BuildError> {
    ModelProto::decode(file.graph.as_slice()).map_err(|error| BuildError::Refused {
        library: "tandem".into(),
        network: file.contract.network.clone(),
        reason: format!("not an ONNX file: {error}"),
    })
}

/// Weights of the exported graph that lie in files, by name.
fn exported_weights(
    file: &NetworkFile,
) -> Result<BTreeMap<String, (TensorProto, ExternalData)>, BuildError> {
    let tensors = decode(file)?.graph.unwrap_or_default().initializer.into_iter();
    let placed = tensors.filter_map(|tensor| {
        let place = ExternalData::of(&tensor)?;
        Some((tensor.name().to_owned(), (tensor, place)))
    });
    Ok(placed.collect())
}

/// What the library wrote.
struct Saved {
    graph: PathBuf,
    weights: PathBuf,
}

impl Saved {
    /// Writes the graph with each weight placed where the exported graph reads the same bytes, or in
    /// a file of its own.
    fn settle(&self, job: &BuildJob<'_>, library: &str) -> Result<(), BuildError> {
        let exported = exported_weights(job.file)?;
        let graph = fs::read(&self.graph).map_err(BuildError::file("read", &self.graph))?;
        let mut sources: BTreeMap<String, (PathBuf, File)> = BTreeMap::new();
        let mut own = OwnWeights { path: job.weights, file: None, length: 0 };
        // Without large weights the library leaves no file.
        let saved = match self.weights.exists() {
            true => Some(open(&self.weights)?),
            false => None,
        };
        let settled = with_external_weights(&graph, |tensor, place| {
            let saved = saved.as_ref().ok_or_else(|| BuildError::Refused {
                library: library.to_owned(),
                network: job.file.contract.network.clone(),
                reason: format!("it wrote no file for weight {:?}", tensor.name()),
            })?;
            let saved = Bytes { path: &self.weights, file: saved, from: place.offset };
            let same = exported.get(tensor.name()).filter(|(was, at)| {
                was.dims == tensor.dims
                    && was.data_type == tensor.data_type
                    && at.length == place.length
            });
            if let Some((_, at)) = same {
                if !sources.contains_key(&at.location) {
                    let path = job.file.folder.join(&at.location);
                    let file = open(&path)?;
                    sources.insert(at.location.clone(), (path, file));
                }
                let (path, file) = &sources[&at.location];
                let source = Bytes { path, file, from: at.offset };
                if saved.are(&source, place.length, job.cancel)? {
                    set_external_data(tensor, at);
                    return Ok(());
                }
            }
            let offset = own.take(&saved, place.length, job.cancel)?;
            let location = job.weights_name.to_owned();
            set_external_data(tensor, &ExternalData { location, offset, length: place.length });
            Ok(())
        });
        let settled = settled.map_err(|error| match error {
            RewriteError::Weight(error) => error,
            RewriteError::NotOnnx(error) => BuildError::Refused {
                library: library.to_owned(),
                network: job.file.contract.network.clone(),
                reason: format!("its optimized graph is not an ONNX file: {error}"),
            },
        })?;
        own.finish()?;
        fs::write(job.engine, settled).map_err(BuildError::file("write", job.engine))
    }
}

fn open(path: &Path) -> Result<File, BuildError> {
    open_regular(path).map_err(BuildError::file("open", path))
}

/// Part of a file.
struct Bytes<'a> {
    path: &'a Path,
    file: &'a File,
    from: u64,
}

impl Bytes<'_> {
    /// Reads `into.len()` bytes from `at` on.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), BuildError> {
        let read = self.file.read_exact_at(into, self.from + at);
        read.map_err(BuildError::file("read", self.path))
    }

    /// Whether `length` bytes are those of `other`.
    fn are(&self, other: &Self, length: u64, cancel: &AtomicBool) -> Result<bool, BuildError> {
        let mut chunks = [vec![0; CHUNK], vec![0; CHUNK]];
        let mut at = 0;
        while at < length {
            if cancel.load(Ordering::Relaxed) {
                return Err(BuildError::Canceled);
            }
            let part = (length - at).min(CHUNK as u64) as usize;
            let [a, b] = chunks.each_mut().map(|chunk| &mut chunk[..part]);
            self.read(at, a)?;
            other.read(at, b)?;
            if a != b {
                return Ok(false);
            }
            at += part as u64;
        }
        Ok(true)
    }
}

/// The file of weights that only this engine has, made when the first comes.
struct OwnWeights<'a> {
    path: &'a Path,
    file: Option<BufWriter<File>>,
    length: u64,
}

impl OwnWeights<'_> {
    /// Copies a weight and says where it is now.
    fn take(
        &mut self,
        weight: &Bytes<'_>,
        length: u64,
        cancel: &AtomicBool,
    ) -> Result<u64, BuildError> {
        let writing = || BuildError::file("write", self.path);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::new(File::create(self.path).map_err(writing())?)),
        };
        let offset = self.length.next_multiple_of(ALIGNMENT);
        let gap = [0; ALIGNMENT as usize];
        file.write_all(&gap[..(offset - self.length) as usize]).map_err(writing())?;
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        while at < length {
            if cancel.load(Ordering::Relaxed) {
                return Err(BuildError::Canceled);
            }
            let part = &mut chunk[..(length - at).min(CHUNK as u64) as usize];
            weight.read(at, part)?;
            file.write_all(part).map_err(writing())?;
            at += part.len() as u64;
        }
        self.length = offset + length;
        Ok(offset)
    }

    fn finish(self) -> Result<(), BuildError> {
        let Some(mut file) = self.file else { return Ok(()) };
        file.flush().map_err(BuildError::file("write", self.path))
    }
}
