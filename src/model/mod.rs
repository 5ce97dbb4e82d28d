//! Model families, one folder each. The pilot uses three traits of a family, the runtime loads it
//! by [`Family`].
//!
//! A [`Perception`] processes every observation. An [`UnderstandingExpert`] computes a sealed
//! prefix KV cache from a [`PrefillRequest`], whose inputs come from perception, on its own thread
//! and at the low rate. An [`ActionExpert`] computes a trajectory from the latest prefix and the
//! readings of perception at every tick, and the family's [`Follower`] converts it to a command.

pub mod automot;
mod block;
mod family;
mod outline;
pub mod verification;

pub use block::{ModelBlock, OptionsError};
pub use family::{Family, FamilyError, Placement};
pub use outline::{ModelOutline, Runs, StageNetworks};

use crate::control::Follower;
use crate::device::DeviceError;
use crate::kv_cache::{KvSnapshot, KvWriter, Slot};
use crate::scene::random::SplitMix64;
use crate::scene::{Detour, Observation, Pose, Trajectory};
use crate::timing::{StageSpans, Timestamp};
use serde::{Deserialize, Serialize};

/// Inputs of a prefill, collected at one tick, so that the understanding expert runs
/// independently of the control loop.
#[derive(Clone)]
pub struct PrefillRequest<I> {
    /// Number of the prefill, from 1, which becomes the version of its prefix.
    pub version: u64,
    /// Capture time of the newest reading.
    pub captured_at: Timestamp,
    /// Random numbers of this prefill, a function of seed, route and frame.
    pub random: SplitMix64,
    /// Inputs defined by the family.
    pub inputs: I,
}

/// Perception shared by both experts: keeps the history of readings, plans the target points of the
/// route and prepares the inputs of both experts.
pub trait Perception {
    /// Inputs of a prefill.
    type Inputs: Send + 'static;
    /// Inputs of an action step.
    type Readings;

    /// Processes the observation of one tick with the estimated pose and the detour of a
    /// stuck vehicle, whose target points replace those of the route for both experts.
    /// Called at every tick; adds its stages to `spans`. Fails if the observation lacks a
    /// sensor that the model needs.
    fn observe(
        &mut self,
        observation: &Observation,
        world_from_ego: &Pose,
        detour: &Detour,
        spans: &mut StageSpans,
    ) -> Result<(), ModelError>;

    /// Returns the inputs of a prefill that starts at this tick; `None`
    /// while the history is too short.
    fn inputs(&self) -> Option<Self::Inputs>;

    /// Returns the inputs of an action step at this tick.
    fn readings(&mut self) -> &mut Self::Readings;
}

/// The parts of a model that a pilot runs.
pub struct Experts<P: Perception> {
    pub perception: P,
    pub understanding: Box<dyn UnderstandingExpert<Inputs = P::Inputs>>,
    pub action: Box<dyn ActionExpert<Readings = P::Readings>>,
    /// Converts the trajectories of the action expert to commands.
    pub follower: Box<dyn Follower>,
    pub delays: DelayedOutput,
}

/// Output that the latency of an action step delays. Without latency both behave the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DelayedOutput {
    /// The command: the follower is part of the action step. The command is computed from the pose
    /// at the start of the step and applied until a newer one is visible.
    #[default]
    Command,
    /// The plan: at every tick the follower computes a command from the newest visible plan
    /// and the pose of that tick.
    Plan,
}

/// Gate for launches of the slow expert. Work on a device cannot be preempted, so a launch may have
/// to wait for a tick that is due.
pub trait LaunchGate: Send + Sync {
    /// Blocks until the next launch is allowed.
    fn wait(&self);
}

/// Allows every launch immediately.
pub struct OpenGate;

impl LaunchGate for OpenGate {
    fn wait(&self) {}
}

/// The slow expert.
pub trait UnderstandingExpert: Send {
    /// Inputs of a prefill.
    type Inputs;

    /// Prepares prefills into `slot` before the first tick (allocations, captured graphs).
    fn prepare(&mut self, slot: &mut Slot) -> Result<(), ModelError> {
        let _ = slot;
        Ok(())
    }

    /// Runs one launch without using its result, which keeps the device's
    /// clocks up between prefills.
    fn keep_warm(&mut self, gate: &dyn LaunchGate) -> Result<(), ModelError> {
        let _ = gate;
        Ok(())
    }

    /// Computes a prefix into `writer` and seals it. Adds its stages to `spans` and waits for
    /// `gate` before each launch. Fails if a network fails, the prompt does not fit or the prefix
    /// is not finite; the slot then returns to the pool.
    fn prefill(
        &mut self,
        request: &PrefillRequest<Self::Inputs>,
        writer: KvWriter,
        gate: &dyn LaunchGate,
        spans: &mut StageSpans,
    ) -> Result<KvSnapshot, ModelError>;
}

/// The fast expert.
pub trait ActionExpert {
    /// Inputs of an action step.
    type Readings;

    /// Prepares action steps on a prefix in `slot` before the first tick. Later steps read
    /// `readings` at the same addresses.
    fn prepare(&mut self, slot: &Slot, readings: &mut Self::Readings) -> Result<(), ModelError> {
        let _ = (slot, readings);
        Ok(())
    }

    /// Computes a trajectory from `prefix` and the readings of this tick and adds its stages to
    /// `spans`. `random` is a function of seed, route and frame. Returns `None` if this expert does
    /// not plan at every tick and has no new trajectory; the previous one then stays in use.
    fn act(
        &mut self,
        prefix: &KvSnapshot,
        readings: &mut Self::Readings,
        random: SplitMix64,
        spans: &mut StageSpans,
    ) -> Result<Option<Trajectory>, ModelError>;
}

/// Error returned by an expert or perception.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("the observation has no {sensor}")]
    NoSensor { sensor: String },
    /// The size of an input differs from that of the exported networks.
    #[error("{what} is {found:?}, the engine was exported for {expected:?}")]
    Size { what: &'static str, expected: Vec<usize>, found: Vec<usize> },
    #[error(
        "the prompt has {tokens} tokens, the engine's prefix has a capacity of {capacity}; export with a larger prefix capacity"
    )]
    PromptTooLong { tokens: usize, capacity: usize },
    #[error("cannot tokenize the prompt: {0}")]
    Tokenize(String),
    /// A prefix contains a NaN or an infinity.
    #[error(
        "the understanding expert computed {value} in the {tensor} of layer {layer}, token {token}; the \
         prefix is dropped. If this repeats, the engine's precision does not suit the checkpoint: run \
         `tandem verify`"
    )]
    NotFinite {
        value: f32,
        /// "keys" or "values".
        tensor: &'static str,
        layer: usize,
        token: usize,
    },
    #[error(transparent)]
    Run(#[from] crate::engine::SessionRunError),
    #[error(transparent)]
    Device(#[from] DeviceError),
}
