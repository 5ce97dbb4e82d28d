//! Collision criterion, with the filters that prevent one contact from counting twice.

use super::location_text;
use crate::scoring::statistics::InfractionKind;
use glam::DVec3;
use tandem_scene::{Collision, WorldState};

/// Another contact at most this far from the last one does not count, meters.
const SAME_LOCATION_M: f64 = 5.0;
/// Another contact with the same actor within this time does not count, seconds.
const SAME_ACTOR_S: f64 = 5.0;
/// Contacts below this speed do not count, m/s.
const MOVING_MPS: f64 = 0.1;

/// State of the criterion for one route or one scenario.
#[derive(Default)]
pub(super) struct Collisions {
    last_location: Option<DVec3>,
    last_actor: Option<u32>,
    last_time_s: f64,
}

impl Collisions {
    /// Evaluates the contacts of this tick. Calls `report` for each one that counts.
    pub(super) fn tick(
        &mut self,
        state: &WorldState,
        mut report: impl FnMut(InfractionKind, String),
    ) {
        let ego = state.ego.location();
        for collision in &state.collisions {
            if let Some(kind) = self.judge(collision, state) {
                let Collision { type_id, other_id } = collision;
                let location = location_text(ego);
                report(
                    kind,
                    format!(
                        "Agent collided against object with type={type_id} and id={other_id} \
                         at {location}"
                    ),
                );
            }
        }
        if self.last_location.is_some_and(|location| location.distance(ego) > SAME_LOCATION_M) {
            self.last_location = None;
        }
        if state.time_s - self.last_time_s > SAME_ACTOR_S {
            self.last_actor = None;
        }
    }

    fn judge(&mut self, collision: &Collision, state: &WorldState) -> Option<InfractionKind> {
        let ego = state.ego.location();
        let is_same_actor = self.last_actor == Some(collision.other_id);
        let is_same_location =
            self.last_location.is_some_and(|location| location.distance(ego) <= SAME_LOCATION_M);
        if is_same_actor || is_same_location || state.ego.speed_mps.abs() < MOVING_MPS {
            return None;
        }
        self.last_location = Some(ego);
        self.last_time_s = state.time_s;
        if collision.other_id != 0 {
            self.last_actor = Some(collision.other_id);
        }
        classify(collision.type_id)
    }
}

/// Returns the kind of collision by blueprint name; `None` for objects that do not count.
fn classify(type_id: &str) -> Option<InfractionKind> {
    let has = |part| type_id.contains(part);
    if (has("static") || has("traffic")) && !has("sidewalk") {
        Some(InfractionKind::CollisionLayout)
    } else if has("vehicle") {
        Some(InfractionKind::CollisionVehicle)
    } else if has("walker") {
        Some(InfractionKind::CollisionPedestrian)
    } else {
        None
    }
}
