//! The slow expert without the control loop, for isolated measurements.

use crate::kv_cache::SlotPool;
use crate::model::{
    Experts, ModelError, OpenGate, Perception, PrefillRequest, UnderstandingExpert,
};
use crate::scene::random::SplitMix64;
use crate::scene::{Detour, Observation, Pose};
use crate::timing::{Stage, StageSpans, Timestamp};

/// The slow expert with its perception.
pub trait SlowExpert {
    /// Processes the observation of one tick. Fails if it lacks a sensor that the model needs.
    fn observe(&mut self, observation: &Observation) -> Result<(), ModelError>;

    /// Runs one prefill on the calling thread and drops its prefix. Returns its stages, or `None`
    /// while the history is too short. Fails if a network fails.
    fn prefill(&mut self, version: u64) -> Result<Option<StageSpans>, ModelError>;
}

/// Parts of a model that a prefill needs.
pub(super) struct StandaloneExpert<P: Perception> {
    perception: P,
    expert: Box<dyn UnderstandingExpert<Inputs = P::Inputs>>,
    pool: SlotPool,
    captured_at: Timestamp,
}

impl<P: Perception> StandaloneExpert<P> {
    /// Creates an expert that prefills slots of `pool`, which it must not share.
    pub(super) fn new(experts: Experts<P>, pool: SlotPool) -> Self {
        let Experts { perception, understanding: expert, .. } = experts;
        Self { perception, expert, pool, captured_at: Timestamp::ZERO }
    }
}

impl<P: Perception> SlowExpert for StandaloneExpert<P> {
    fn observe(&mut self, observation: &Observation) -> Result<(), ModelError> {
        self.captured_at = observation.time;
        let mut untimed = StageSpans::default();
        self.perception.observe(observation, &Pose::default(), &Detour::default(), &mut untimed)
    }

    fn prefill(&mut self, version: u64) -> Result<Option<StageSpans>, ModelError> {
        let Some(inputs) = self.perception.inputs() else { return Ok(None) };
        let random = SplitMix64::new(version);
        let request = PrefillRequest { version, captured_at: self.captured_at, random, inputs };
        let writer = self.pool.writer().expect("no prefix outlives its prefill");
        let mut spans = StageSpans::default();
        let prefill = Stage::PREFILL.begin();
        self.expert.prefill(&request, writer, &OpenGate, &mut spans)?;
        spans.end(prefill);
        Ok(Some(spans))
    }
}
