//! The slow expert without the loop, to measure it alone.

use crate::kv_cache::SlotPool;
use crate::model::{
    AtAnyTime, Experts, ModelError, Perception, RefreshRequest, UnderstandingExpert,
};
use crate::scene::random::SplitMix64;
use crate::scene::{Detour, Observation, Pose};
use crate::timing::{Stage, StageSpans, Timestamp};

/// A slow expert with its perception.
pub trait SlowExpert {
    /// Takes in the readings of one tick.
    ///
    /// # Errors
    /// If the observation lacks a sensor that the model needs.
    fn observe(&mut self, observation: &Observation) -> Result<(), ModelError>;

    /// Makes one refresh on this thread and drops its prefix. Returns its stages, or `None` while the
    /// history is too short.
    ///
    /// # Errors
    /// If a network fails.
    fn refresh(&mut self, version: u64) -> Result<Option<StageSpans>, ModelError>;
}

/// The parts of a model that refreshes need.
pub(super) struct SlowAlone<P: Perception> {
    perception: P,
    expert: Box<dyn UnderstandingExpert<Inputs = P::Inputs>>,
    pool: SlotPool,
    captured_at: Timestamp,
}

impl<P: Perception> SlowAlone<P> {
    /// Refreshes into slots of `pool`, which nobody else uses.
    pub(super) fn new(experts: Experts<P>, pool: SlotPool) -> Self {
        let Experts { perception, understanding: expert, .. } = experts;
        Self { perception, expert, pool, captured_at: Timestamp::ZERO }
    }
}

impl<P: Perception> SlowExpert for SlowAlone<P> {
    fn observe(&mut self, observation: &Observation) -> Result<(), ModelError> {
        self.captured_at = observation.time;
        let mut untimed = StageSpans::default();
        self.perception.observe(observation, &Pose::default(), &Detour::default(), &mut untimed)
    }

    fn refresh(&mut self, version: u64) -> Result<Option<StageSpans>, ModelError> {
        let Some(inputs) = self.perception.inputs() else { return Ok(None) };
        let random = SplitMix64::new(version);
        let request = RefreshRequest { version, captured_at: self.captured_at, random, inputs };
        let writer = self.pool.writer().expect("no prefix outlives its refresh");
        let mut spans = StageSpans::default();
        let refresh = Stage::REFRESH.begin();
        self.expert.refresh(&request, writer, &AtAnyTime, &mut spans)?;
        spans.end(refresh);
        Ok(Some(spans))
    }
}
