//! Vehicle-blocked criterion: standing still for too long.

use super::location_text;
use tandem_scene::WorldState;

/// Speed below which the vehicle counts as standing, m/s.
const MOVING_MPS: f64 = 0.1;
/// Longest standstill; a longer one ends the route, seconds.
const LONGEST_STAND_S: f64 = 60.0;

/// State of the criterion for one route.
pub(super) struct Blocked {
    is_active: bool,
    is_restarted: bool,
    /// Simulation time of the last movement, seconds; `None` before the first tick.
    moved_at_s: Option<f64>,
}

impl Blocked {
    pub(super) fn new() -> Self {
        Self { is_active: true, is_restarted: false, moved_at_s: None }
    }

    /// Stops judging standstills, as while a scenario permits one. Restarts the clock.
    pub(super) fn suspend(&mut self) {
        self.is_active = false;
        self.is_restarted = true;
    }

    /// Judges standstills again. Restarts the clock.
    pub(super) fn resume(&mut self) {
        self.is_active = true;
        self.is_restarted = true;
    }

    /// Evaluates this tick. Returns a message if the vehicle has been standing for too long.
    pub(super) fn tick(&mut self, state: &WorldState) -> Option<String> {
        if std::mem::take(&mut self.is_restarted) {
            self.moved_at_s = Some(state.time_s);
        }
        if !self.is_active {
            return None;
        }
        match self.moved_at_s {
            Some(moved_at_s) if state.ego.speed_mps.abs() < MOVING_MPS => {
                let is_stuck = state.time_s - moved_at_s > LONGEST_STAND_S;
                let location = location_text(state.ego.location());
                is_stuck.then(|| format!("Agent got blocked at {location}"))
            }
            _ => {
                self.moved_at_s = Some(state.time_s);
                None
            }
        }
    }
}
