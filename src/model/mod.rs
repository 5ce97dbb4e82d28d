//! Model families, each in a folder of its own, behind the three traits that the pilot drives and
//! [`Family`], by which the runtime loads them.
//!
//! A [`Perception`] sees every observation. An [`UnderstandingExpert`] turns a [`RefreshRequest`],
//! whose inputs come from perception, into a sealed prefix, on its own thread and at the low rate. An
//! [`ActionExpert`] turns the latest prefix and perception's readings into a trajectory at every tick,
//! and the family's [`Follower`] turns that into a command.

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

/// Everything a refresh reads, taken at one tick, so that the understanding expert needs nothing of
/// the loop while it works.
#[derive(Clone)]
pub struct RefreshRequest<I> {
    /// Counts refreshes, from 1; the version of the prefix to be.
    pub version: u64,
    /// When the newest reading was captured.
    pub captured_at: Timestamp,
    /// Random numbers of this refresh, a function of seed, route and frame.
    pub random: SplitMix64,
    /// The family's own inputs.
    pub inputs: I,
}

/// What observes for both experts: keeps the history of readings, plans the route's target points,
/// and prepares what either expert reads.
pub trait Perception {
    /// What a refresh reads.
    type Inputs: Send + 'static;
    /// What an action step reads of its tick.
    type Readings;

    /// Takes in the readings of one tick, the pose that the state filter estimates and what a stuck
    /// vehicle makes of its route; called at every tick. The detour's targets replace the route's for
    /// both experts. Records its stages in `spans`.
    ///
    /// # Errors
    /// If the observation lacks a sensor that the model needs.
    fn observe(
        &mut self,
        observation: &Observation,
        world_from_ego: &Pose,
        detour: &Detour,
        spans: &mut StageSpans,
    ) -> Result<(), ModelError>;

    /// Returns what a refresh that starts at this tick reads; `None` while the history is too short.
    fn inputs(&self) -> Option<Self::Inputs>;

    /// Returns what an action step of this tick reads.
    fn readings(&mut self) -> &mut Self::Readings;
}

/// The parts of a model that drive.
pub struct Experts<P: Perception> {
    /// Observes for both experts.
    pub perception: P,
    /// The slow expert.
    pub understanding: Box<dyn UnderstandingExpert<Inputs = P::Inputs>>,
    /// The fast expert.
    pub action: Box<dyn ActionExpert<Readings = P::Readings>>,
    /// Turns the plans of the fast expert into commands.
    pub follower: Box<dyn Follower>,
    /// What the latency of an action step delays.
    pub delays: Delays,
}

/// What the latency of an action step delays. Without latency there is no difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delays {
    /// The command: the follower is part of the action step. Its command rests on the pose at which
    /// the step began, and is applied until a newer one is visible.
    #[default]
    Command,
    /// The plan: at every tick, the follower computes a command from the newest visible plan and the
    /// pose of that tick.
    Plan,
}

/// Who says when the slow expert may begin its next piece of work: nothing that runs on a device can
/// be interrupted, so that a tick that is due goes first or waits.
pub trait Turns: Send + Sync {
    /// Returns when the next piece may begin.
    fn wait(&self);
}

/// Every piece may begin at once.
pub struct AtAnyTime;

impl Turns for AtAnyTime {
    fn wait(&self) {}
}

/// The slow expert.
pub trait UnderstandingExpert: Send {
    /// What a refresh reads.
    type Inputs;

    /// Pays for what refreshes into `slot` need, before the first tick.
    ///
    /// # Errors
    /// If the device or a network fails.
    fn prepare(&mut self, slot: &mut Slot) -> Result<(), ModelError> {
        let _ = slot;
        Ok(())
    }

    /// Keeps the device busy for one piece of work whose result nobody uses, so that its clocks stay
    /// up between refreshes.
    ///
    /// # Errors
    /// If the device or a network fails.
    fn keep_warm(&mut self, turns: &dyn Turns) -> Result<(), ModelError> {
        let _ = turns;
        Ok(())
    }

    /// Computes a prefix into `writer` and seals it once it is there, noting its stages in `spans`.
    /// Asks `turns` before each piece of work.
    ///
    /// # Errors
    /// If a network fails, the prompt does not fit, or the prefix is not finite; the writer's slot
    /// then returns to its pool.
    fn refresh(
        &mut self,
        request: &RefreshRequest<Self::Inputs>,
        writer: KvWriter,
        turns: &dyn Turns,
        spans: &mut StageSpans,
    ) -> Result<KvSnapshot, ModelError>;
}

/// The fast expert.
pub trait ActionExpert {
    /// What an action step reads of its tick.
    type Readings;

    /// Pays for what acting on a prefix in `slot` needs, before the first tick; steps will read
    /// `readings`, at the same place in memory.
    ///
    /// # Errors
    /// If the device or a network fails.
    fn prepare(&mut self, slot: &Slot, readings: &mut Self::Readings) -> Result<(), ModelError> {
        let _ = (slot, readings);
        Ok(())
    }

    /// Turns `prefix` and the readings of this tick into a trajectory, recording its stages in
    /// `spans`. `random` is a function of seed, route and frame. Returns `None` if this expert plans
    /// less often than at every tick and has no new trajectory: the newest one stays in use.
    ///
    /// # Errors
    /// If a network fails.
    fn act(
        &mut self,
        prefix: &KvSnapshot,
        readings: &mut Self::Readings,
        random: SplitMix64,
        spans: &mut StageSpans,
    ) -> Result<Option<Trajectory>, ModelError>;
}

/// A model could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A sensor that the model declared is missing from the observation.
    #[error("the observation has no {sensor}")]
    NoSensor {
        /// Which.
        sensor: String,
    },
    /// A sensor's data has another size than the networks were exported for.
    #[error("{what} is {found:?}, the engine was exported for {expected:?}")]
    Size {
        /// Which.
        what: &'static str,
        /// The engine's size.
        expected: Vec<usize>,
        /// The size given.
        found: Vec<usize>,
    },
    /// The prompt is longer than the prefix's capacity.
    #[error(
        "the prompt has {tokens} tokens, the engine's prefix holds {capacity}; export with a larger prefix capacity"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that fit.
        capacity: usize,
    },
    /// The text could not be turned into tokens.
    #[error("cannot tokenize the prompt: {0}")]
    Tokenize(String),
    /// A prefix holds a number that is none, or an infinite one.
    #[error(
        "the understanding expert gave {value} in the {tensor} of layer {layer}, token {token}; the \
         prefix is thrown away. If this goes on, the engine's precision does not fit the checkpoint: \
         run `tandem verify`"
    )]
    NotFinite {
        /// The value found.
        value: f32,
        /// "keys" or "values".
        tensor: &'static str,
        /// The transformer layer.
        layer: usize,
        /// The token.
        token: usize,
    },
    /// A network failed.
    #[error(transparent)]
    Run(#[from] crate::engine::RunError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
