//! A model without networks that drives: scripted experts that plan as the autopilot does, followed
//! by a `PathFollower`. `benchmarks` includes this file, too.

use arrayvec::ArrayVec;
use std::sync::Arc;
use tandem::control::{Follower, Localizer, StateFilterConfig};
use tandem::device::HostDevice;
use tandem::kv_cache::{KvSnapshot, KvWriter, Layout, PrefixMeta, SlotPool};
use tandem::model::{
    ActionExpert, Delays, Experts, ModelError, Perception, RefreshRequest, Turns,
    UnderstandingExpert,
};
use tandem::pilot::{Pilot, PilotError, Run};
use tandem::scene::random::SplitMix64;
use tandem::scene::{
    Cameras, Detour, GeoReference, Observation, Pose, SensorSuite, Trajectory, Truth,
};
use tandem::tensor::DType;
use tandem::timing::StageSpans;
use tandem_drivers::Autopilot;

/// The sensors that the planner needs.
pub(crate) const PLANNER_SENSORS: SensorSuite =
    SensorSuite { cameras: Cameras::NONE, lidar: None, truth: true };

/// Passes the truth of the tick on.
#[derive(Default)]
pub(crate) struct Seen {
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

/// Seals prefixes that nobody reads.
struct EmptyPrefix;

impl UnderstandingExpert for EmptyPrefix {
    type Inputs = ();

    fn refresh(
        &mut self,
        request: &RefreshRequest<()>,
        writer: KvWriter,
        _: &dyn Turns,
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

/// Plans as the autopilot does.
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

/// Returns a pilot with these experts, which plans at every `period_ticks`-th tick.
pub(crate) fn planner(
    run: &Run,
    reference: GeoReference,
    follower: Box<dyn Follower>,
    delays: Delays,
    period_ticks: u64,
) -> Result<Pilot<Seen>, PilotError> {
    let layout =
        Layout { layers: 1, heads: 1, capacity: 1, key_dim: 1, value_dim: 1, dtype: DType::F32 };
    let device = Arc::new(HostDevice::new()) as _;
    let experts = Experts {
        perception: Seen::default(),
        understanding: Box::new(EmptyPrefix),
        action: Box::new(Planner { autopilot: Autopilot::new(), period_ticks }),
        follower,
        delays,
    };
    let localizer = Localizer::new(StateFilterConfig::default(), reference);
    let slots = SlotPool::new(&device, layout, 3).expect("three floats fit into memory");
    Pilot::new(run, experts, localizer, slots)
}
