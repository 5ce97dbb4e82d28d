//! Standing still for too long.

use super::location_text;
use tandem_scene::WorldState;

/// Slower than this is standing, m/s.
const MOVING_MPS: f64 = 0.1;
/// Standing longer than this ends the route, seconds.
const LONGEST_STAND_S: f64 = 60.0;

/// Blocked criterion.
pub(super) struct Blocked {
    is_active: bool,
    is_restarted: bool,
    /// When the vehicle last moved, seconds.
    moved_at_s: Option<f64>,
}

impl Blocked {
    pub(super) fn new() -> Self {
        Self { is_active: true, is_restarted: false, moved_at_s: None }
    }

    /// Switches the criterion on or off; either restarts its clock.
    pub(super) fn activate(&mut self, is_active: bool) {
        self.is_active = is_active;
        self.is_restarted = true;
    }

    /// Judges this tick; gives a message if the vehicle has stood too long.
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
                let place = location_text(state.ego.location());
                is_stuck.then(|| format!("Agent got blocked at {place}"))
            }
            _ => {
                self.moved_at_s = Some(state.time_s);
                None
            }
        }
    }
}
