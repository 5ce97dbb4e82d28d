//! A model without networks that drives: scripted experts that plan as the autopilot does.

use crate::scripted;
use arrayvec::ArrayVec;
use std::sync::Arc;
use tandem::control::Follower;
use tandem::kv_cache::{KvSnapshot, KvWriter, PrefixMeta};
use tandem::model::{
    ActionExpert, DelayedOutput, Experts, LaunchGate, ModelError, Perception, PrefillRequest,
    UnderstandingExpert,
};
use tandem::pilot::{Pilot, PilotError, Run};
use tandem::scene::random::SplitMix64;
use tandem::scene::{
    Cameras, Detour, GeoReference, Observation, Pose, SensorSuite, Trajectory, Truth,
};
use tandem::timing::StageSpans;
use tandem_drivers::Autopilot;

/// Sensors that [`planner`] needs.
pub const PLANNER_SENSORS: SensorSuite =
    SensorSuite { cameras: Cameras::NONE, lidar: None, truth: true };

/// Perception that passes the truth of the tick to the action expert.
#[derive(Default)]
pub struct Seen {
    truth: Option<Arc<Truth>>,
    ticks: u64,
}

impl Perception for Seen {
    type Inputs = ();
    type Readings = Self;

    fn observe(
        &mut self,
        observation: &Observation,
        _: &Pose,
        _: &Detour,
        _: &mut StageSpans,
    ) -> Result<(), ModelError> {
        self.truth.clone_from(&observation.truth);
        self.ticks += 1;
        Ok(())
    }

    fn inputs(&self) -> Option<()> {
        Some(())
    }

    fn readings(&mut self) -> &mut Self {
        self
    }
}

/// Seals prefixes without content: the planner does not read them.
struct EmptyPrefix;

impl UnderstandingExpert for EmptyPrefix {
    type Inputs = ();

    fn prefill(
        &mut self,
        request: &PrefillRequest<()>,
        writer: KvWriter,
        _: &dyn LaunchGate,
        _: &mut StageSpans,
    ) -> Result<KvSnapshot, ModelError> {
        Ok(writer.seal(PrefixMeta {
            version: request.version,
            frames: ArrayVec::new(),
            captured_at: request.captured_at,
            valid_length: 1,
            next_position: 1,
        }))
    }
}

/// Action expert that plans as the autopilot does.
struct Planner {
    autopilot: Autopilot,
    period_ticks: u64,
}

impl ActionExpert for Planner {
    type Readings = Seen;

    fn act(
        &mut self,
        _: &KvSnapshot,
        seen: &mut Seen,
        _: SplitMix64,
        _: &mut StageSpans,
    ) -> Result<Option<Trajectory>, ModelError> {
        let truth = seen
            .truth
            .as_ref()
            .ok_or_else(|| ModelError::NoSensor { sensor: "truth".to_owned() })?;
        let is_due = (seen.ticks - 1).is_multiple_of(self.period_ticks);
        Ok(is_due.then(|| self.autopilot.plan(truth)))
    }
}

/// Returns a pilot that follows the autopilot's plans with
/// `follower` and plans at every `period_ticks`-th tick.
pub fn planner(
    run: &Run,
    reference: GeoReference,
    follower: Box<dyn Follower>,
    delays: DelayedOutput,
    period_ticks: u64,
) -> Result<Pilot<Seen>, PilotError> {
    let experts = Experts {
        perception: Seen::default(),
        understanding: Box::new(EmptyPrefix),
        action: Box::new(Planner { autopilot: Autopilot::new(), period_ticks }),
        follower,
        delays,
    };
    scripted::pilot(run, experts, reference, 3)
}
