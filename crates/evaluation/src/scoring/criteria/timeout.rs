//! Route-timeout criterion: a time limit that grows with the distance driven.

use super::progress::RouteLine;
use tandem_scene::WorldState;

/// Number of route points searched ahead of the current one.
const WINDOW: usize = 3;
/// Time limit at the start, seconds.
const START_LIMIT_S: f64 = 300.0;
/// Lowest acceptable speed as a share of the speed limit.
const SLOWEST_SHARE: f64 = 0.10;

/// State of the criterion for one route.
pub(super) struct Timeout {
    index: usize,
    began_at_s: Option<f64>,
    limit_s: f64,
}

impl Timeout {
    pub(super) fn new() -> Self {
        Self { index: 0, began_at_s: None, limit_s: START_LIMIT_S }
    }

    /// Evaluates this tick. Returns true if the time limit is exceeded.
    pub(super) fn tick(&mut self, line: &RouteLine, state: &WorldState) -> bool {
        let began_at_s = *self.began_at_s.get_or_insert(state.time_s);
        if let Some(index) = line.passed(self.index, WINDOW, state.ego.location()).last() {
            let advanced_m = line.length_to_m(index) - line.length_to_m(self.index);
            let slowest_mps = state.speed_limit_kmh / 3.6 * SLOWEST_SHARE;
            // A road without a speed limit adds nothing rather than infinity.
            if advanced_m > 0.0 && slowest_mps > 0.0 {
                self.limit_s += advanced_m / slowest_mps;
            }
            self.index = index;
        }
        state.time_s - began_at_s > self.limit_s
    }

    /// Returns the current time limit, seconds.
    pub(super) fn limit_s(&self) -> f64 {
        self.limit_s
    }
}
