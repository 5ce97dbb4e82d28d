//! What a model family gives the runtime.

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

/// A device, its two streams, and the back end of each.
pub struct Placement {
    /// Where the networks run.
    pub device: Arc<dyn Device>,
    /// The two streams.
    pub streams: ExpertStreams,
    /// Back end of the networks that run at every tick.
    pub fast: Box<dyn Backend>,
    /// Back end of the networks that run at every refresh.
    pub slow: Box<dyn Backend>,
}

/// A model family: how its folders are read, loaded, driven with and verified. The value is a loaded
/// model.
///
/// A family is known to the runtime once it is listed in `runtime::FAMILIES`; its checkpoints are
/// exported by the family of the same name in `tandem-export`.
pub trait Family: Sized + 'static {
    /// Name of the family: the `model` of its exports' summaries and contracts.
    const NAME: &'static str;

    /// What the `model:` block of a run file may say; the default drives.
    type Options: Serialize + DeserializeOwned + Default;

    /// What observes for both experts.
    type Perception: Perception;

    /// What a loaded model answered to the drive of a verification.
    type Recording;

    /// Checks ranges.
    ///
    /// # Errors
    /// The first option that is out of its range.
    fn check(options: &Self::Options) -> Result<(), OptionsError>;

    /// The sensors that a model with these options reads.
    fn sensors(options: &Self::Options) -> SensorSuite;

    /// Reads which networks a network or engine folder has, and how often a model with these options
    /// runs them. Loads none.
    ///
    /// # Errors
    /// A file cannot be read, or the networks are not the family's or do not fit each other.
    fn outline(folder: &Path, options: &Self::Options) -> Result<ModelOutline, FamilyError>;

    /// Loads a network or engine folder.
    ///
    /// # Errors
    /// As [`outline`](Self::outline); a network cannot be loaded, or the device has no memory left.
    fn load(
        folder: &Path,
        placement: Placement,
        options: Self::Options,
    ) -> Result<Self, FamilyError>;

    /// Every engine, in the order in which they run.
    fn engines(&self) -> Vec<&Arc<dyn Engine>>;

    /// Slots for the prefixes of one driver.
    ///
    /// # Errors
    /// The device has no memory left.
    fn slots(&self, count: usize) -> Result<SlotPool, DeviceError>;

    /// The parts that drive, at the start of a route.
    ///
    /// # Errors
    /// A part cannot be set up, or the device has no memory left.
    fn experts(&self, plan: &RoutePlan) -> Result<Experts<Self::Perception>, FamilyError>;

    /// Checks from files alone that the models of two folders can be compared.
    ///
    /// # Errors
    /// Names the first difference.
    fn comparable(engine: &Path, reference: &Path) -> Result<(), FamilyError>;

    /// Drives as `inputs` say and keeps what the networks answer; calls `done` after each prompt.
    ///
    /// # Errors
    /// An expert cannot be set up, or a network fails.
    fn record(
        &self,
        inputs: RecordingInputs,
        done: &mut dyn FnMut(),
    ) -> Result<Self::Recording, FamilyError>;

    /// Compares what two models answered to the same drive.
    ///
    /// # Errors
    /// They were not driven alike.
    fn compare(
        engine: &Self::Recording,
        reference: &Self::Recording,
    ) -> Result<Box<dyn Comparison>, FamilyError>;

    /// The golden run that an engine folder keeps of `reference`: the text of a file. `graphs_sha256`
    /// are the networks that were within `limits` of it, by name.
    fn golden_run(
        reference: &Self::Recording,
        inputs: RecordingInputs,
        limits: Limits,
        graphs_sha256: BTreeMap<String, String>,
    ) -> Vec<u8>;

    /// Drives the golden run of `folder` where the networks were loaded. Returns false if the folder
    /// has none.
    ///
    /// # Errors
    /// The file is damaged or of other networks, or an answer is past its limit.
    fn pass_golden_run(&self, folder: &Path) -> Result<bool, FamilyError>;
}

/// An error of one model family; displayed as the family's own.
#[derive(Debug)]
pub struct FamilyError {
    source: Box<dyn Error + Send + Sync>,
    rebuild: Option<Box<Rebuild>>,
}

impl FamilyError {
    /// An error that names its own remedy.
    pub fn new(source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Box::new(source), rebuild: None }
    }

    /// The same, where a build makes the folder's engines usable.
    #[must_use]
    pub fn with_rebuild(self, rebuild: Option<&Rebuild>) -> Self {
        Self { rebuild: rebuild.cloned().map(Box::new), ..self }
    }

    /// Build that makes the folder's engines usable, if that is what they need.
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
