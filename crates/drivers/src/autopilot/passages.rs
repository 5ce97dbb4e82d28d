//! Shifts the path to pass obstacles.

use super::path::{Blend, POINTS_PER_M, Path, Shift};
use tandem_scene::{Passage, PassageReason, Truth};

/// Half the ego vehicle's length and some room: next to an obstacle the vehicle must be shifted
/// over its full length, points.
const HALF_LENGTH: usize = 3 * POINTS_PER_M;

/// Points over which the path shifts, by the reason of the passage.
const BLEND_TO_FREE_LANE: usize = 12 * POINTS_PER_M;
const BLEND_TO_ONCOMING_LANE: usize = 9 * POINTS_PER_M;
const BLEND_TO_GIVE_WAY: usize = 6 * POINTS_PER_M;

/// Assumed speed when passing a moving actor where the limit allows it, speed of the fastest actor
/// that is passed, and minimum difference to it, m/s.
const PASSING_MPS: f64 = 9.0;
const FASTEST_PASSED_MPS: f64 = 5.0;
const LEAST_FASTER_MPS: f64 = 1.0;

/// Room for oncoming vehicles begins this long before the place, and ends this long after it.
const INVADED: (usize, usize) = (15 * POINTS_PER_M, 10 * POINTS_PER_M);

/// A passage as a shift of the path.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Detour {
    pub(super) reason: PassageReason,
    /// Identifies the detour while it moves: the id of its first actor.
    pub(super) key: u32,
    pub(super) shift: Shift,
}

/// The passages by which the path is shifted.
#[derive(Debug, Default)]
pub(super) struct Passages {
    detours: Vec<Detour>,
    passed_actors: Vec<u32>,
    shifts: Vec<Shift>,
}

impl Passages {
    /// Adopts the passages of the ground truth, keeps those that the ego vehicle is still
    /// passing, and shifts the path.
    pub(super) fn update(&mut self, truth: &Truth, path: &mut Path) {
        let ego_idx = path.idx();
        self.detours.retain(|detour| {
            let all = detour.shift.reach();
            let is_obstacle = matches!(
                detour.reason,
                PassageReason::ObstacleBesideFreeLane | PassageReason::ObstacleBesideOncomingLane
            );
            is_obstacle && (all.start..all.end).contains(&ego_idx)
        });
        for passage in &truth.passages {
            let detour = on_path(passage, truth, path);
            match self.detours.iter_mut().find(|known| known.is_same(&detour)) {
                Some(known) => *known = detour,
                None => self.detours.push(detour),
            }
        }
        self.passed_actors.clear();
        self.passed_actors.extend(truth.passages.iter().flat_map(|passage| &passage.actors));
        self.shifts.clear();
        self.shifts.extend(self.detours.iter().map(|detour| detour.shift.clone()));
        path.set_shifts(&self.shifts);
    }

    pub(super) fn detours(&self) -> &[Detour] {
        &self.detours
    }

    /// Returns the actors that are passed, so that the ego vehicle does not queue behind them.
    pub(super) fn passed_actors(&self) -> &[u32] {
        &self.passed_actors
    }
}

impl Detour {
    fn is_same(&self, other: &Self) -> bool {
        self.reason == other.reason && self.key == other.key
    }
}

fn on_path(passage: &Passage, truth: &Truth, path: &Path) -> Detour {
    let start = path.of_plan(passage.plan_range.start);
    let end = path.of_plan(passage.plan_range.end);
    // A moving actor is passed farther along the path.
    let along_mps = truth
        .actors
        .iter()
        .filter(|actor| passage.actors.contains(&actor.id))
        .map(|actor| actor.speed_mps * actor.pose.forward().dot(path.center(end).1))
        .fold(0.0, f64::max)
        .min(FASTEST_PASSED_MPS);
    let passing_mps = PASSING_MPS.min(truth.speed_limit_mps).max(along_mps + LEAST_FASTER_MPS);
    let until_passed = end.saturating_sub(path.idx()) as f64;
    let end = match passage.reason {
        PassageReason::ObstacleBesideFreeLane | PassageReason::ObstacleBesideOncomingLane => {
            end + (until_passed * along_mps / (passing_mps - along_mps)) as usize
        }
        PassageReason::OncomingInvades | PassageReason::GiveWay => end,
    };
    let aside = |room: usize| start.saturating_sub(room)..end + room;
    let (full, blend) = match passage.reason {
        PassageReason::ObstacleBesideFreeLane => {
            (aside(HALF_LENGTH), Blend::both(BLEND_TO_FREE_LANE))
        }
        PassageReason::ObstacleBesideOncomingLane => {
            (aside(HALF_LENGTH), Blend::both(BLEND_TO_ONCOMING_LANE))
        }
        PassageReason::GiveWay => (aside(0), Blend::both(BLEND_TO_GIVE_WAY)),
        PassageReason::OncomingInvades => {
            let near = INVADED.1 / 2;
            (aside(near), Blend { before: INVADED.0 - near, after: INVADED.1 - near })
        }
    };
    let key = passage.actors.first().copied().unwrap_or(passage.plan_range.start as u32);
    Detour { reason: passage.reason, key, shift: Shift { full, blend, aside_m: passage.aside_m } }
}
