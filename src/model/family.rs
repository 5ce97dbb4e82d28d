//! Interface between a model family and the runtime.

use super::block::OptionsError;
use super::verification::{Comparison, Limits, RecordingInputs};
use super::{Experts, ModelOutline, Perception};
use crate::device::{Device, DeviceError, ExpertStreams};
use crate::engine::{Backend, Engine, Rebuild};
use crate::kv_cache::SlotPool;
use crate::scene::{RoutePlan, SensorSuite};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A device, its streams, and the back end of each stream.
pub struct Placement {
    pub device: Arc<dyn Device>,
    pub streams: ExpertStreams,
    /// Back end of the networks that run at every tick.
    pub fast: Box<dyn Backend>,
    /// Back end of the networks that run at every prefill.
    pub slow: Box<dyn Backend>,
}

/// A model family: reading, loading, running and verifying its folders. A value is a loaded model.
///
/// The runtime supports the families in `runtime::FAMILIES`. Checkpoints are exported by the family
/// of the same name in `tandem-export`.
pub trait Family: Sized + 'static {
    /// Name of the family: the `model` of its exports' summaries and contracts.
    const NAME: &'static str;

    /// Options of the `model:` block of a run file.
    type Options: Serialize + DeserializeOwned + Default;

    /// Perception shared by both experts.
    type Perception: Perception;

    /// Captured outputs of a loaded model, for verification.
    type Recording;

    /// Checks the ranges of options and returns the first violation.
    fn check(options: &Self::Options) -> Result<(), OptionsError>;

    /// Returns the sensors that a model with these options reads.
    fn sensors(options: &Self::Options) -> SensorSuite;

    /// Checks that the runtime can read `file`, a companion file of a checkpoint named `name`, such
    /// as its tokenizer.
    fn check_companion(_name: &str, _file: &Path) -> Result<(), FamilyError> {
        Ok(())
    }

    /// Reads the contracts of a network or engine folder and returns how often a model with these
    /// options runs each network. Loads no network. Fails if a file cannot be read, or the networks
    /// are not of this family or do not match each other.
    fn outline(folder: &Path, options: &Self::Options) -> Result<ModelOutline, FamilyError>;

    /// Loads a network or engine folder.
    fn load(
        folder: &Path,
        placement: Placement,
        options: Self::Options,
    ) -> Result<Self, FamilyError>;

    /// Returns every engine in the order in which they run.
    fn engines(&self) -> Vec<&Arc<dyn Engine>>;

    /// Allocates slots for the prefixes of one driver.
    fn slots(&self, count: usize) -> Result<SlotPool, DeviceError>;

    /// Creates perception, experts and follower at the start of a route.
    fn experts(&self, plan: &RoutePlan) -> Result<Experts<Self::Perception>, FamilyError>;

    /// Checks, without loading networks, that the models of two folders can be compared. The error
    /// names the first difference.
    fn comparable(engine: &Path, reference: &Path) -> Result<(), FamilyError>;

    /// Runs the experts on generated inputs and captures the outputs of the networks;
    /// calls `done` after each prompt.
    fn record(
        &self,
        inputs: RecordingInputs,
        done: &mut dyn FnMut(),
    ) -> Result<Self::Recording, FamilyError>;

    /// Compares the captured outputs of two models. Fails if their inputs differ.
    fn compare(
        engine: &Self::Recording,
        reference: &Self::Recording,
    ) -> Result<Box<dyn Comparison>, FamilyError>;

    /// Returns the contents of a golden run file with the outputs of `reference`. `graphs_sha256`
    /// are the networks, by name, that were within `limits` of it.
    fn golden_run(
        reference: &Self::Recording,
        inputs: RecordingInputs,
        limits: Limits,
        graphs_sha256: BTreeMap<String, String>,
    ) -> Vec<u8>;

    /// Repeats the golden run of `folder` with the loaded networks; returns false if it has none.
    /// Fails if the file is damaged or of other networks, or an output exceeds its limit.
    fn pass_golden_run(&self, folder: &Path) -> Result<bool, FamilyError>;
}

/// Error of a model family, displayed as its source.
#[derive(Debug)]
pub struct FamilyError {
    source: Box<dyn Error + Send + Sync>,
    rebuild: Option<Box<Rebuild>>,
}

impl FamilyError {
    /// Wraps an error whose message names the remedy.
    pub fn new(source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Box::new(source), rebuild: None }
    }

    /// Adds the build that would make the folder's engines usable.
    #[must_use]
    pub fn with_rebuild(self, rebuild: Option<&Rebuild>) -> Self {
        Self { rebuild: rebuild.cloned().map(Box::new), ..self }
    }

    /// Returns the build that would make the folder's engines usable, if a build is the remedy.
    pub fn rebuild(&self) -> Option<&Rebuild> {
        self.rebuild.as_deref()
    }
}

impl fmt::Display for FamilyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Error for FamilyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}
