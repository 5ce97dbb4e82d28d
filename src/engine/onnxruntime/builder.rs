//! Builds engines for the CPU: graphs that the library optimized once and saved.
//!
//! The optimized graph reads unchanged weights from the files of the exported one; only weights that
//! the library folds or rearranges are written to a file of the engine. Weights are therefore stored on
//! disk once, and engines share their pages.

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

/// Smaller weights stay in the graph, bytes.
const MIN_EXTERNAL_BYTES: u64 = 1024;

/// Alignment of weights in the engine's weight file, bytes.
const ALIGNMENT: u64 = 64;

/// Size of one comparison or copy, bytes.
const CHUNK: usize = 1 << 20;

/// Memory of the library itself, independent of the network, bytes.
const LIBRARY_BYTES: u64 = 96 << 20;

/// Simultaneous copies of a graph in memory: messages, and those of the library and its optimizers.
const GRAPH_COPIES: u64 = 16;

/// Simultaneous copies of widened weights in memory: decoded and encoded messages, and the library's.
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
        // The library fuses convolutions and changes the layout of their weights in memory before it
        // writes the result: at most one extra copy of each weight exists at a time.
        let rewritten = convolution_bytes(file)? + widened;
        Ok(Prediction {
            memory_bytes: LIBRARY_BYTES
                + GRAPH_COPIES * graph_bytes
                + 2 * rewritten
                + WIDENED_COPIES * widened,
            mapped_bytes: weights.bytes(),
            // The library writes all weights to the scratch folder; unchanged ones are not kept.
            scratch_bytes: weights.bytes() + rewritten + 2 * graph_bytes,
            result_bytes: rewritten + 2 * graph_bytes,
        })
    }

    fn build(&self, job: &BuildJob<'_>) -> Result<(), BuildError> {
        let folder = job.engine.parent().expect("the engine's path has a folder");
        let saved = Saved {
            graph: folder.join("optimized.onnx"),
            weights: folder.join("optimized.weights"),
        };
        self.save_optimized(job.file, &saved)?;
        saved.write_engine(job, &self.described_library())
    }
}

impl OnnxRuntime {
    /// Makes the library write its optimized graph and all weights.
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

/// Returns the bytes that widened convolutions add to the graph.
fn widened_bytes(file: &NetworkFile) -> Result<u64, BuildError> {
    let Some(block) = widen::block() else { return Ok(0) };
    let (_, graph) = Weights::map(file, &file.graph, Some(block))?;
    Ok((graph.len() as u64).saturating_sub(file.graph.len() as u64))
}

/// Returns the size of the weights that convolutions read, bytes.
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

/// Returns the external weights of the exported graph, by name.
fn exported_weights(
    file: &NetworkFile,
) -> Result<BTreeMap<String, (TensorProto, ExternalData)>, BuildError> {
    let tensors = decode(file)?.graph.unwrap_or_default().initializer.into_iter();
    let external = tensors.filter_map(|tensor| {
        let data = ExternalData::of(&tensor)?;
        Some((tensor.name().to_owned(), (tensor, data)))
    });
    Ok(external.collect())
}

/// Optimized graph and weights written by the library.
struct Saved {
    graph: PathBuf,
    weights: PathBuf,
}

impl Saved {
    /// Writes the engine: the optimized graph, with each weight referring to the file from which the
    /// exported graph reads the same bytes, or else to the engine's weight file.
    fn write_engine(&self, job: &BuildJob<'_>, library: &str) -> Result<(), BuildError> {
        let exported = exported_weights(job.file)?;
        let graph = fs::read(&self.graph).map_err(BuildError::file("read", &self.graph))?;
        let mut sources: BTreeMap<String, (PathBuf, File)> = BTreeMap::new();
        let mut own = OwnWeights { path: job.weights, file: None, length: 0 };
        // Without large weights the library writes no file.
        let saved = match self.weights.exists() {
            true => Some(open(&self.weights)?),
            false => None,
        };
        let engine = with_external_weights(&graph, |tensor, place| {
            let saved = saved.as_ref().ok_or_else(|| BuildError::Refused {
                library: library.to_owned(),
                network: job.file.contract.network.clone(),
                reason: format!("it wrote no file for weight {:?}", tensor.name()),
            })?;
            let saved = FileRange { path: &self.weights, file: saved, from: place.offset };
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
                let source = FileRange { path, file, from: at.offset };
                if saved.equals(&source, place.length, job.cancel)? {
                    set_external_data(tensor, at);
                    return Ok(());
                }
            }
            let offset = own.append(&saved, place.length, job.cancel)?;
            let location = job.weights_name.to_owned();
            set_external_data(tensor, &ExternalData { location, offset, length: place.length });
            Ok(())
        });
        let engine = engine.map_err(|error| match error {
            RewriteError::Weight(error) => error,
            RewriteError::NotOnnx(error) => BuildError::Refused {
                library: library.to_owned(),
                network: job.file.contract.network.clone(),
                reason: format!("its optimized graph is not an ONNX file: {error}"),
            },
        })?;
        own.finish()?;
        fs::write(job.engine, engine).map_err(BuildError::file("write", job.engine))
    }
}

fn open(path: &Path) -> Result<File, BuildError> {
    open_regular(path).map_err(BuildError::file("open", path))
}

/// Range of a file that starts at `from`.
struct FileRange<'a> {
    path: &'a Path,
    file: &'a File,
    from: u64,
}

impl FileRange<'_> {
    /// Reads `into.len()` bytes, starting `at` bytes into the range.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), BuildError> {
        let read = self.file.read_exact_at(into, self.from + at);
        read.map_err(BuildError::file("read", self.path))
    }

    /// Returns whether the first `length` bytes equal those of `other`.
    fn equals(&self, other: &Self, length: u64, cancel: &AtomicBool) -> Result<bool, BuildError> {
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

/// The engine's weight file, which is created for the first weight.
struct OwnWeights<'a> {
    path: &'a Path,
    file: Option<BufWriter<File>>,
    length: u64,
}

impl OwnWeights<'_> {
    /// Appends a weight and returns its offset.
    fn append(
        &mut self,
        weight: &FileRange<'_>,
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
