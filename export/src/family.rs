//! Model families: what recognizes, reads and exports the checkpoints of one kind of model.
//!
//! A family is a folder of this crate and one line in [`registry`](crate::registry).

use crate::checkpoint::{CheckpointError, Tensors, Warning, read_small_file};
use crate::graph::{GraphError, Network};
use crate::options::Options;
use crate::spec::{Spec, SpecError, SpecFile};
use crate::synth::{SynthError, SynthWeights, Synthesized};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tandem_files::shortened;

/// One kind of model.
pub trait Family: Sync {
    /// Name of the family: the `model` of its exports' summaries and contracts.
    fn name(&self) -> &'static str;

    /// What [`recognizes`](Self::recognizes) looks for, as text.
    fn mark(&self) -> &'static str;

    /// True if a folder holds a checkpoint of this family. Reads no weights.
    ///
    /// No two families recognize the same folder: which one is asked first must not matter.
    fn recognizes(&self, folder: &Candidate) -> bool;

    /// Opens a checkpoint.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the configuration describes no possible model.
    fn open(&self, folder: &Path) -> Result<Box<dyn OpenCheckpoint>, CheckpointError>;

    /// True if an export may have a network of this name.
    fn is_network(&self, name: &str) -> bool;

    /// Sorts names of networks into the order in which they run; unknown names come last.
    fn sort_networks(&self, names: &mut [String]);

    /// Files of the checkpoint, other than weights, that an export needs to drive.
    fn companions(&self) -> &'static [&'static str] {
        &[]
    }

    /// Arguments of `tandem export` that repeat the family's own options, with a space before each.
    fn arguments(&self, options: &Options) -> String {
        options.own.iter().map(|(name, value)| format!(" --option '{name}={value}'")).collect()
    }

    /// Reads a specification of a checkpoint, or the published configuration of a model of this
    /// family. Without an implementation the content is returned as it is: only
    /// [`synthesize`](Self::synthesize) validates it.
    ///
    /// # Errors
    /// If the content is not a specification of this family.
    fn read_spec(&self, file: &SpecFile) -> Result<Spec, SpecError> {
        Ok(Spec { value: file.specification()?, notes: Vec::new() })
    }

    /// Writes a checkpoint folder whose weights are not trained.
    ///
    /// # Errors
    /// If the spec is not one of the family's, or the folder cannot be written.
    fn synthesize(
        &self,
        spec: &Value,
        weights: SynthWeights,
        out: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Synthesized, SynthError>;
}

/// An opened checkpoint of some family.
pub trait OpenCheckpoint {
    /// The family.
    fn family(&self) -> &'static dyn Family;

    /// The stored tensors.
    fn tensors(&self) -> &Tensors;

    /// Checks that every tensor that a network reads is there. Reads next to no weights.
    ///
    /// # Errors
    /// The tensors that are missing or wrong.
    fn check(&self) -> Result<Vec<Warning>, CheckpointError>;

    /// Describes the networks.
    fn describe(&self) -> Description;

    /// Builds all networks, in the order in which they run; `before` receives the name of each before
    /// it is built.
    ///
    /// # Errors
    /// If a network does not fit the checkpoint, or the options are not the family's.
    fn build(
        &self,
        options: &Options,
        before: &mut dyn FnMut(&'static str),
    ) -> Result<Built, NetworkError>;
}

/// Sizes of a checkpoint's networks.
pub struct Description {
    /// For programs.
    pub config: Value,
    /// For people: one line per network.
    pub networks: Vec<String>,
}

/// The networks of a checkpoint.
pub struct Built {
    /// The options that they were built with, defaults included.
    pub options: Options,
    /// The networks, in the order in which they run.
    pub networks: Vec<Network>,
    /// Capacity of the prefix KV cache, tokens; `None` for a family without one.
    pub prefix_capacity: Option<usize>,
}

/// A folder that may hold a checkpoint.
pub struct Candidate {
    dir: PathBuf,
    config: Option<Value>,
}

impl Candidate {
    /// Reads the `config.json` of a folder, if there is one.
    ///
    /// # Errors
    /// If there is no such folder, or the file is not readable as JSON.
    pub fn read(dir: &Path) -> Result<Self, CheckpointError> {
        if !dir.is_dir() {
            return Err(CheckpointError::NoFolder { dir: dir.into() });
        }
        let path = dir.join(CONFIG_FILE);
        let config = read_small_file(&path)?.map(|text| serde_json::from_slice(&text)).transpose();
        let config = config.map_err(|source| CheckpointError::NotJson { path, source })?;
        Ok(Self { dir: dir.into(), config })
    }

    /// A folder with this content of its `config.json`.
    pub(crate) fn of_config(dir: &Path, config: Value) -> Self {
        Self { dir: dir.into(), config: Some(config) }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its `config.json`.
    pub fn config(&self) -> Option<&Value> {
        self.config.as_ref()
    }

    /// The `model_type` of its `config.json`.
    pub fn model_type(&self) -> Option<&str> {
        self.config.as_ref()?.get("model_type")?.as_str()
    }

    /// What the folder has of what families are recognized by, as text.
    pub(crate) fn found(&self) -> String {
        match (&self.config, self.model_type()) {
            (None, _) => format!("no {CONFIG_FILE}"),
            (Some(_), None) => format!("a {CONFIG_FILE} without a model_type"),
            (Some(_), Some(model_type)) => {
                format!("a {CONFIG_FILE} with the model_type {:?}", shortened(model_type))
            }
        }
    }
}

/// Where most checkpoints name their kind of model.
const CONFIG_FILE: &str = "config.json";

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
    /// An option is not one of the family's, or its value is not usable.
    #[error("the export options are not those of model family {family:?}: {source}")]
    Options {
        /// The family.
        family: &'static str,
        /// What is wrong with them.
        #[source]
        source: serde_json::Error,
    },
}
