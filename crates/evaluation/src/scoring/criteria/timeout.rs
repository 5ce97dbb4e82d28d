//! Route timeout: a limit that grows with the distance driven.

use super::progress::RouteLine;
use tandem_scene::WorldState;

/// How many points ahead of the current one are looked at.
const WINDOW: usize = 3;
/// The limit at the start, seconds.
const START_LIMIT_S: f64 = 300.0;
/// The slowest acceptable speed as a share of the speed limit.
const SLOWEST_SHARE: f64 = 0.10;

/// Route-timeout criterion.
pub(super) struct Timeout {
    index: usize,
    began_at_s: Option<f64>,
    limit_s: f64,
}

impl Timeout {
    pub(super) fn new() -> Self {
        Self { index: 0, began_at_s: None, limit_s: START_LIMIT_S }
    }

    /// True if the route has taken too long at this tick.
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

    /// The limit as it stands, seconds.
    pub(super) fn limit_s(&self) -> f64 {
        self.limit_s
    }
}
