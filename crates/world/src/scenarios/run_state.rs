//! Lifetime of a scenario, and timers.

use super::context::ScenarioContext;
use super::parameters::Parameters;
use tandem_scene::{Pose, ScenarioState};

/// Time limit of the scenarios that have one, seconds.
pub(super) const LIMIT_S: f64 = 240.0;

/// State from a scenario's first tick to its end.
#[derive(Debug)]
pub(super) struct RunState {
    scenario_id: u32,
    start: LatchedTimer,
    is_over: bool,
}

impl RunState {
    /// Creates the state of a scenario that has not begun.
    pub(crate) fn new(parameters: &Parameters<'_>) -> Self {
        Self {
            scenario_id: parameters.scenario_id(),
            start: LatchedTimer::default(),
            is_over: false,
        }
    }

    /// Advances one tick, or ends the scenario if `is_done`. Returns the seconds since it
    /// began; `None` once it has ended.
    pub(crate) fn tick(&mut self, context: &ScenarioContext<'_>, is_done: bool) -> Option<f64> {
        self.is_over |= is_done;
        let elapsed_s = self.start.seconds_since(context.time_s, true);
        elapsed_s.filter(|_| !self.is_over)
    }

    /// Like [`tick`](Self::tick), for a scenario with a time limit: while it runs, the
    /// ego vehicle may stand still.
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

    /// Requests that collisions are also judged by this scenario at this tick.
    pub(super) fn judge_collisions(&self, context: &mut ScenarioContext<'_>) {
        context.effects.running.push(ScenarioState {
            id: self.scenario_id,
            is_timed_out: false,
            emergency_vehicle: None,
            judges_collisions: true,
        });
    }

    /// Requests that giving way to the vehicle at `pose` is judged at this tick.
    pub(super) fn judge_giving_way(&self, context: &mut ScenarioContext<'_>, pose: Pose) {
        context.effects.running.push(ScenarioState {
            id: self.scenario_id,
            is_timed_out: false,
            emergency_vehicle: Some(pose),
            judges_collisions: false,
        });
    }
}

/// Timer that starts when a condition first holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LatchedTimer(Option<f64>);

impl LatchedTimer {
    /// Returns the seconds since the first tick at which `holds` was true, at time `now_s`.
    pub(super) fn seconds_since(&mut self, now_s: f64, holds: bool) -> Option<f64> {
        if self.0.is_none() && holds {
            self.0 = Some(now_s);
        }
        self.0.map(|then_s| now_s - then_s)
    }

    /// Returns true if the condition first held at least `seconds` ago.
    pub(super) fn is_past(&mut self, now_s: f64, holds: bool, seconds: f64) -> bool {
        self.seconds_since(now_s, holds).is_some_and(|elapsed_s| elapsed_s >= seconds - 1e-9)
    }
}
