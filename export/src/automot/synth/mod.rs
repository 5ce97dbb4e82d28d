//! Checkpoint folders with random weights, in the format of the AutoMoT release and of any size.
//!
//! They replace the 12 GB of the release where only sizes and formats matter: in tests, in the demo
//! and in latency measurements. Weights are a function of the seed and the tensor's name.

mod files;
mod published;
mod values;

use crate::automot::checkpoint::expected::{self, Expected, Role};
use crate::automot::checkpoint::{
    BevConfig, Checkpoint, MotConfig, TextConfig, Trunk, VisionConfig,
};
use crate::checkpoint::{SPARSE_KEY, SPARSE_VALUE, Warning};
use crate::dtype::DType;
use crate::synth::{MARKER, SynthError, Synthesized};
use half::bf16;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use tandem_files::AtomicFolder;
use values::Values;

/// Name of the file with all weights.
const WEIGHTS_FILE: &str = "model.safetensors";

/// Values sampled between two writes.
const CHUNK: usize = 1 << 20;

/// Specification of a checkpoint to synthesize; the format of the files in `configs`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynthSpec {
    /// Type of all weights except the BEV encoder's, which are bf16 as in the release: f32 or bf16.
    pub dtype: DType,
    pub text: TextConfig,
    pub vision: VisionConfig,
    /// Action expert and its tokens.
    pub mot: MotConfig,
    pub bev: BevConfig,
}

/// Writes a checkpoint folder with random weights to `out`. `progress` receives the number of bytes
/// of the weight file that are written, and their total.
///
/// The folder is published atomically. Memory use is a few megabytes for any size. Fails if the
/// specification is not valid, if `out` exists and was not synthesized, or if writing fails.
pub fn synthesize(
    spec: &SynthSpec,
    seed: u64,
    out: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<Synthesized, SynthError> {
    let marker = serde_json::json!({ "seed": seed, "spec": spec });
    write_folder(spec, &marker, out, |file, tensors| {
        let layout = Layout::new(tensors, spec.dtype, serde_json::json!({ "format": "pt" }));
        file.write_all(&layout.header)?;
        write_weights(file, spec.dtype, seed, tensors, layout.data_bytes, &mut progress)?;
        Ok(layout.file_bytes())
    })
}

/// Writes a checkpoint folder with a hole in place of the weights: the sparse file has its full
/// length, takes almost no disk space, and every weight reads as zero. For measurements that do not
/// depend on values.
///
/// The metadata of the weight file mark it as sparse, and [`Checkpoint::check`] warns about it.
/// Fails like [`synthesize`].
pub fn synthesize_sparse(spec: &SynthSpec, out: &Path) -> Result<Synthesized, SynthError> {
    let marker = serde_json::json!({ "weights": SPARSE_VALUE, "spec": spec });
    write_folder(spec, &marker, out, |file, tensors| {
        let metadata = serde_json::json!({ "format": "pt", SPARSE_KEY: SPARSE_VALUE });
        let layout = Layout::new(tensors, spec.dtype, metadata);
        file.write_all(&layout.header)?;
        file.flush()?;
        file.get_ref().set_len(layout.file_bytes())?;
        Ok(layout.file_bytes())
    })
}

/// Writes the folder: small files, then the weight file with `fill`, which returns its length.
fn write_folder(
    spec: &SynthSpec,
    marker: &serde_json::Value,
    out: &Path,
    fill: impl FnOnce(&mut BufWriter<File>, &[Expected]) -> io::Result<u64>,
) -> Result<Synthesized, SynthError> {
    check_replaceable(out)?;
    if out.file_name().is_none() {
        return Err(SynthError::Unnamed(out.into()));
    }
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |source| SynthError::Write { path, source }
    };
    let partial = AtomicFolder::create(out).map_err(unwritable(out))?;
    let small = files::all(spec).into_iter().chain([(MARKER, format!("{marker:#}\n"))]);
    for (name, text) in small {
        partial.write(name, text.as_bytes()).map_err(unwritable(&out.join(name)))?;
    }
    // Applies the rules and bounds of the reader before tensors are counted and values sampled.
    Checkpoint::check_config(partial.path())?;
    let tensors = tensors(spec)?;
    check_total(&tensors)?;

    let write_weights = || {
        let mut file = BufWriter::new(partial.create_file(WEIGHTS_FILE)?);
        let bytes = fill(&mut file, &tensors)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(bytes)
    };
    let bytes = write_weights().map_err(unwritable(&out.join(WEIGHTS_FILE)))?;
    let warnings = Checkpoint::open(partial.path())?.check()?;
    let is_unexpected = |warning: &&Warning| !matches!(warning, Warning::Sparse { .. });
    if let Some(warning) = warnings.iter().find(is_unexpected) {
        return Err(SynthError::UnexpectedWarning(warning.to_string()));
    }
    check_replaceable(out)?;
    partial.publish().map_err(unwritable(out))?;
    let parameters = expected::parameters(&tensors);
    Ok(Synthesized { tensors: tensors.len(), parameters, bytes })
}

/// Checks that the size of the weights does not exceed the maximum size of a file.
fn check_total(tensors: &[Expected]) -> Result<(), SynthError> {
    let elements = |tensor: &Expected| {
        tensor.shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side))
    };
    let total = tensors
        .iter()
        .try_fold(0_usize, |total, tensor| total.checked_add(elements(tensor)?))
        .and_then(|elements| elements.checked_mul(DType::F32.size()));
    if total.is_none_or(|bytes| bytes > i64::MAX as usize) {
        return Err(SynthError::Spec {
            field: "sizes together",
            expected: "weights that fit a file".into(),
            found: "more than 2^63 bytes".into(),
        });
    }
    Ok(())
}

/// Lists the tensors of the checkpoint in file order: by decreasing element size, so that
/// each is aligned, then by name.
fn tensors(spec: &SynthSpec) -> Result<Vec<Expected>, SynthError> {
    if !matches!(spec.dtype, DType::F32 | DType::Bf16) {
        return Err(SynthError::Spec {
            field: "dtype",
            expected: "f32 or bf16".into(),
            found: spec.dtype.to_string(),
        });
    }
    if spec.text.vocab_size < files::TOKENIZER_IDS {
        return Err(SynthError::Spec {
            field: "text.vocab_size",
            expected: format!("at least {}, the tokenizer's ids", files::TOKENIZER_IDS),
            found: spec.text.vocab_size.to_string(),
        });
    }
    let trunk = |field, name: &str, channels| {
        Trunk::of_architecture(name, channels).ok_or_else(|| SynthError::Spec {
            field,
            expected: format!("one of {:?}", Trunk::architectures().collect::<Vec<_>>()),
            found: name.to_owned(),
        })
    };
    let bev = &spec.bev;
    let image = trunk("bev.image_architecture", &bev.image_architecture, 3)?;
    let lidar = trunk("bev.lidar_architecture", &bev.lidar_architecture, bev.lidar_channels)?;
    if let Some(stage) =
        image.stages.iter().find(|stage| bev.n_head == 0 || stage.width % bev.n_head != 0)
    {
        return Err(SynthError::Spec {
            field: "bev.n_head",
            expected: format!("a divisor of the image trunk's width {}", stage.width),
            found: bev.n_head.to_string(),
        });
    }
    if spec.text.num_attention_heads == 0 {
        return Err(SynthError::Spec {
            field: "text.num_attention_heads",
            expected: "a number above zero".into(),
            found: "0".into(),
        });
    }
    let mut tensors = expected::vision(&spec.vision);
    tensors.extend(expected::understanding(&spec.text));
    tensors.extend(expected::action_stack(&spec.text, &spec.mot));
    tensors.extend(expected::action_ends(spec.text.hidden_size, &spec.mot, lidar.width()));
    tensors.extend(expected::bev(bev, &image, &lidar));
    tensors.sort_by(|a, b| {
        let size = |tensor| std::cmp::Reverse(stored_dtype(tensor, spec.dtype).size());
        (size(a), &a.name).cmp(&(size(b), &b.name))
    });
    Ok(tensors)
}

/// Returns the type in which a tensor is stored.
fn stored_dtype(tensor: &Expected, dtype: DType) -> DType {
    match (tensor.role, tensor.network) {
        (Role::Counter, _) => DType::I64,
        (_, expected::Network::Bev) => DType::Bf16,
        _ => dtype,
    }
}

/// Header and size of a weight file.
struct Layout {
    /// Length field and JSON text of the header.
    header: Vec<u8>,
    data_bytes: u64,
}

impl Layout {
    fn new(tensors: &[Expected], dtype: DType, metadata: serde_json::Value) -> Self {
        let mut entries = serde_json::Map::new();
        entries.insert("__metadata__".into(), metadata);
        let mut data_bytes = 0;
        for tensor in tensors {
            let dtype = stored_dtype(tensor, dtype);
            let begin = data_bytes;
            data_bytes += (tensor.elements() * dtype.size()) as u64;
            entries.insert(
                tensor.name.clone(),
                serde_json::json!({
                    "dtype": dtype.to_string().to_uppercase(),
                    "shape": tensor.shape,
                    "data_offsets": [begin, data_bytes],
                }),
            );
        }
        let mut json = serde_json::Value::Object(entries).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let header = [&(json.len() as u64).to_le_bytes()[..], &json].concat();
        Self { header, data_bytes }
    }

    fn file_bytes(&self) -> u64 {
        self.header.len() as u64 + self.data_bytes
    }
}

/// Samples and writes the weights, `data_bytes` bytes.
fn write_weights(
    file: &mut impl Write,
    dtype: DType,
    seed: u64,
    tensors: &[Expected],
    data_bytes: u64,
    progress: &mut impl FnMut(u64, u64),
) -> io::Result<()> {
    let mut written = 0;
    let mut chunk = Vec::new();
    for tensor in tensors {
        let dtype = stored_dtype(tensor, dtype);
        let mut values = Values::new(seed, tensor);
        let mut left = tensor.elements();
        while left > 0 {
            let count = left.min(CHUNK);
            chunk.clear();
            match dtype {
                DType::I64 => chunk.extend_from_slice(&values::BATCHES_TRACKED.to_le_bytes()),
                DType::F32 => {
                    let mut sample = || values.sample().to_le_bytes();
                    (0..count).for_each(|_| chunk.extend_from_slice(&sample()));
                }
                _ => (0..count).for_each(|_| {
                    chunk.extend_from_slice(&bf16::from_f32(values.sample()).to_le_bytes());
                }),
            }
            file.write_all(&chunk)?;
            written += chunk.len() as u64;
            progress(written, data_bytes);
            left -= count;
        }
    }
    Ok(())
}

/// Refuses to replace a folder that was not synthesized, unless it is empty.
fn check_replaceable(out: &Path) -> Result<(), SynthError> {
    let is_empty = || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if out.symlink_metadata().is_err() || out.join(MARKER).is_file() || is_empty() {
        Ok(())
    } else {
        Err(SynthError::Occupied(out.into()))
    }
}
