//! The four networks of AutoMoT, one file each, as graphs over a checkpoint's tensors.

pub mod action;
pub mod bev;
pub mod understanding;
pub mod vision;

mod rotary;
mod sizes;

pub use names::NETWORKS as NAMES;
pub use rotary::{inverse_frequencies, mrope_axes};
pub use sizes::Sizes;

use crate::automot::names;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::dtype::DType;
use crate::graph::{Graph, GraphError, Network, Value, to_grid};
use half::f16;
use serde::{Deserialize, Serialize};

/// What the networks compute in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision, for CPUs.
    F32,
    /// bfloat16, for GPUs.
    Bf16,
    /// Half precision, for GPUs: as bfloat16, with three more bits of precision and a range that
    /// ends at 65504.
    F16,
    /// bfloat16 as the release computes it on a GPU, in single precision with every result rounded:
    /// slow, for CPUs, to know what bfloat16 alone changes.
    Bf16Emulated,
}

impl Precision {
    /// Element type of weights and activations; what emulates it carries it in f32.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 | Self::Bf16Emulated => DType::Bf16,
            Self::F16 => DType::F16,
        }
    }

    /// An empty graph over the checkpoint's tensors that computes in this precision.
    fn graph<'a>(self, name: &str, checkpoint: &'a Checkpoint) -> Graph<'a> {
        let graph = Graph::new(name, checkpoint.tensors(), self.dtype());
        if self == Self::Bf16Emulated { graph.emulating() } else { graph }
    }

    /// What constants that are computed at export round every step to.
    fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 | Self::Bf16Emulated => to_grid(value),
            Self::F16 => f16::from_f32(value).to_f32(),
        }
    }
}

/// Where a network folder has the weights that are used as the checkpoint stores them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightStorage {
    /// Copied up to a gigabyte; beyond that shared with the checkpoint by the file system where it
    /// can, else linked.
    #[default]
    Auto,
    /// Links to the checkpoint's files, which ONNX's checker and ONNX Runtime refuse to follow.
    Link,
    /// In the folder itself, which is then complete.
    Copy,
}

/// What the caller decides about the networks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportOptions {
    /// What they compute in.
    pub precision: Precision,
    /// Height and width of the frames that the vision tower sees, pixels.
    pub frame_size: [usize; 2],
    /// Frames in one prompt.
    pub frames: usize,
    /// Tokens that a prefix has room for; `None` for the multiple of 64 that holds every prompt.
    pub prefix_capacity: Option<usize>,
    /// Networks that the layers of the understanding expert are divided among: 1 for one run, more
    /// for runs between which something more urgent may have the device.
    pub understanding_groups: usize,
    /// Adds outputs for values in between, which golden tests compare.
    pub probes: bool,
    /// Where the weights are that need no conversion.
    pub weights: WeightStorage,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            precision: Precision::F32,
            frame_size: [256, 512],
            frames: 4,
            prefix_capacity: None,
            understanding_groups: 1,
            probes: false,
            weights: WeightStorage::Auto,
        }
    }
}

/// Why a network cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The checkpoint's tensors do not suit the network.
    #[error("the {network} network does not fit the checkpoint")]
    Graph {
        /// Which network.
        network: &'static str,
        /// The mismatch, as text.
        #[source]
        source: GraphError,
    },
    /// A tensor that is folded into a constant cannot be read.
    #[error("cannot fold a constant of the {network} network")]
    Fold {
        /// Which network.
        network: &'static str,
        /// What went wrong.
        #[source]
        source: Box<CheckpointError>,
    },
    /// Frames do not divide into merged patches.
    #[error("frame size {frame:?} is not a multiple of {multiple}, the side of a merged patch")]
    FrameSize {
        /// Height and width asked for, pixels.
        frame: [usize; 2],
        /// Side of a merged patch, pixels.
        multiple: usize,
    },
    /// The checkpoint's preprocessor would resize the frames.
    #[error(
        "frames of {} by {} pixels are outside the {} to {} pixels that the preprocessor leaves as \
         they are; give another frame size",
        frame[0], frame[1], bounds[0], bounds[1]
    )]
    FramePixels {
        /// Height and width asked for, pixels.
        frame: [usize; 2],
        /// Least and most pixels of a frame.
        bounds: [usize; 2],
    },
    /// No prompt has so many frames.
    #[error("{frames} frames in a prompt; ask for 1 to {limit}")]
    Frames {
        /// Frames asked for.
        frames: usize,
        /// The largest number.
        limit: usize,
    },
    /// The prefix would be too long.
    #[error("a prefix capacity of {capacity} tokens is above the limit of {limit}")]
    PrefixLimit {
        /// Capacity asked for or needed, tokens.
        capacity: usize,
        /// The largest capacity.
        limit: usize,
    },
    /// The images alone do not fit the prefix.
    #[error("prefix capacity {capacity} does not hold the prompt's {needed} tokens")]
    PrefixCapacity {
        /// Capacity asked for, tokens.
        capacity: usize,
        /// What images and fixed text need, tokens.
        needed: usize,
    },
    /// The understanding expert does not divide into so many groups.
    #[error(
        "{groups} layer groups of an understanding expert of {layers} layers; ask for 1 to {layers}"
    )]
    LayerGroups {
        /// Groups asked for.
        groups: usize,
        /// Layers of the understanding expert.
        layers: usize,
    },
    /// Two numbers of the configuration contradict each other.
    #[error("configuration does not add up: {0}")]
    Config(String),
}

/// Builds all networks, in the order in which they run.
///
/// # Errors
/// A network does not fit the checkpoint, or the options do not fit each other.
pub fn all(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    mut before: impl FnMut(&'static str),
) -> Result<Vec<Network>, NetworkError> {
    let sizes = Sizes::new(checkpoint, options)?;
    let mut networks = Vec::new();
    before(names::vision::NETWORK);
    networks.push(vision::build(checkpoint, options, &sizes)?);
    before(names::understanding::NETWORK);
    networks.extend(understanding::build(checkpoint, options, &sizes)?);
    before(names::bev::NETWORK);
    networks.push(bev::build(checkpoint, options, &sizes)?);
    before(names::action::NETWORK);
    networks.push(action::build(checkpoint, options, &sizes)?);
    Ok(networks)
}

/// `down(swish(gate(x)) · up(x))`.
fn swiglu(graph: &mut Graph<'_>, x: &Value, prefix: &str) -> Result<Value, GraphError> {
    let gate = graph.linear(x, &format!("{prefix}.gate_proj"))?;
    let gate = graph.swish(&gate);
    let up = graph.linear(x, &format!("{prefix}.up_proj"))?;
    let hidden = graph.mul(&gate, &up);
    graph.linear(&hidden, &format!("{prefix}.down_proj"))
}

/// Values in between that become outputs behind the real ones, if probes are wanted.
struct Probes {
    wanted: bool,
    values: Vec<(String, Value)>,
}

impl Probes {
    fn new(options: &ExportOptions) -> Self {
        Self { wanted: options.probes, values: Vec::new() }
    }

    fn add(&mut self, name: impl Into<String>, value: &Value) {
        if self.wanted {
            self.values.push((name.into(), value.clone()));
        }
    }

    fn emit(self, graph: &mut Graph<'_>) {
        for (name, value) in self.values {
            graph.output(&format!("{}{name}", names::PROBE), &value, "probe for golden tests");
        }
    }
}
