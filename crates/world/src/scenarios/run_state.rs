//! How long a scenario runs.

use super::context::ScenarioContext;
use super::parameters::Parameters;
use tandem_scene::{Pose, ScenarioState};

/// A scenario with a time limit has run for too long after this, seconds.
pub(super) const LIMIT_S: f64 = 240.0;

/// From a scenario's first tick to its end.
#[derive(Debug)]
pub(super) struct RunState {
    scenario_id: u32,
    start: Moment,
    is_over: bool,
}

impl RunState {
    /// Of the scenario with these parameters, which has not begun.
    pub(crate) fn new(parameters: &Parameters<'_>) -> Self {
        Self { scenario_id: parameters.scenario_id(), start: Moment::default(), is_over: false }
    }

    /// Goes on for a tick, or ends for good if `is_done`. Seconds since it began; none once it is
    /// over.
    pub(crate) fn tick(&mut self, context: &ScenarioContext<'_>, is_done: bool) -> Option<f64> {
        self.is_over |= is_done;
        let elapsed_s = self.start.seconds_since(context.time_s, true);
        elapsed_s.filter(|_| !self.is_over)
    }

    /// The same for a scenario with a time limit: while it runs, our vehicle may stand.
    pub(super) fn tick_with_limit(
        &mut self,
        context: &mut ScenarioContext<'_>,
        is_done: bool,
    ) -> Option<f64> {
        let elapsed_s = self.tick(context, is_done)?;
        context.effects.allowances.standing = true;
        context.effects.running.push(ScenarioState {
            id: self.scenario_id,
            is_timed_out: elapsed_s > LIMIT_S,
            emergency_vehicle: None,
            judges_collisions: false,
        });
        Some(elapsed_s)
    }

    /// Has collisions judged by this scenario too, at this tick.
    pub(super) fn judge_collisions(&self, context: &mut ScenarioContext<'_>) {
        context.effects.running.push(ScenarioState {
            id: self.scenario_id,
            is_timed_out: false,
            emergency_vehicle: None,
            judges_collisions: true,
        });
    }

    /// Has it judged whether our vehicle gives way to the one at `pose`, at this tick.
    pub(super) fn judge_giving_way(&self, context: &mut ScenarioContext<'_>, pose: Pose) {
        context.effects.running.push(ScenarioState {
            id: self.scenario_id,
            is_timed_out: false,
            emergency_vehicle: Some(pose),
            judges_collisions: false,
        });
    }
}

/// When something first held.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment(Option<f64>);

impl Moment {
    /// Seconds since the first tick at which `holds` was true, at time `now_s`.
    pub(super) fn seconds_since(&mut self, now_s: f64, holds: bool) -> Option<f64> {
        if self.0.is_none() && holds {
            self.0 = Some(now_s);
        }
        self.0.map(|then_s| now_s - then_s)
    }

    /// True if it has held for `seconds`.
    pub(super) fn is_past(&mut self, now_s: f64, holds: bool, seconds: f64) -> bool {
        self.seconds_since(now_s, holds).is_some_and(|elapsed_s| elapsed_s >= seconds - 1e-9)
    }
}
