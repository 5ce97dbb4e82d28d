//! Surrounding actors, classified relative to the path: ahead, behind, in the way, or other.

use super::car_following::Lead;
use super::path::{POINTS_PER_M, Path, SPACING_M};
use glam::DVec2;
use tandem_scene::footprint_distance_m;
use tandem_scene::{ActorKind, ActorState, Truth};

/// Actors farther away are ignored, meters: oncoming vehicles matter for as long as
/// passing an obstacle takes.
const HORIZON_M: f64 = 160.0;

/// Range along the path, behind and ahead of the ego vehicle, in which actors are located, meters.
const ALONG_M: (usize, usize) = (80, 140);

/// Range along the path in which actors are ahead or behind, meters.
const LANE_HORIZON_M: f64 = 80.0;

/// An actor whose center is this close to the path and that heads along it is ahead in the ego
/// lane.
const LEADING_ASIDE_M: f64 = 2.5;
/// Where lanes merge, an actor in the adjacent lane is ahead as well, unless it is so slow that it
/// may be waiting for the ego vehicle.
const MERGING_ASIDE_M: f64 = 6.0;
const MERGING_MPS: f64 = 5.0;
const LEADING_TURNED_RAD: f64 = 35.0 * std::f64::consts::PI / 180.0;

/// The same for actors behind; the range is wider just after a lane
/// change, within this many meters.
const TRAILING_ASIDE_M: f64 = 3.0;
const TRAILING_ASIDE_AFTER_LANE_CHANGE_M: f64 = 6.0;
const TRAILING_TURNED_RAD: f64 = 30.0 * std::f64::consts::PI / 180.0;
const AFTER_LANE_CHANGE_M: usize = 15;

/// An actor that is slower than this and reaches this close to the path is in the way.
const SLOW_MPS: f64 = 1.0;
const IN_THE_WAY_M: f64 = 1.3;

/// Bodies with a lower half height are driven over, meters.
const FLAT_M: f64 = 0.05;

/// Role of an actor relative to the ego vehicle.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Role {
    /// Drives ahead in the ego lane; to be followed.
    Leading(Lead),
    /// Is slow or stationary in the path.
    Blocking(Lead),
    /// Drives behind in the ego lane.
    Trailing,
    Other,
}

/// A surrounding actor with its role.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Neighbor {
    /// Index in the actors of the ground truth.
    pub(super) actor: usize,
    pub(super) role: Role,
    /// Position relative to the path; `None` if the actor is out of its range.
    pub(super) path_position: Option<PathPosition>,
}

/// A position relative to the path.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct PathPosition {
    /// Index of the nearest path point.
    pub(super) idx: usize,
    /// Meters to the right of the driven line.
    pub(super) aside_m: f64,
    /// Heading relative to the driven line, radians.
    pub(super) turned_rad: f64,
}

/// Classifies all actors except `passed_actors`.
pub(super) fn classify(
    truth: &Truth,
    path: &Path,
    passed_actors: &[u32],
    neighbors: &mut Vec<Neighbor>,
) {
    neighbors.clear();
    let ego_idx = path.idx();
    let after_lane_change =
        path.has_lane_change(ego_idx.saturating_sub(AFTER_LANE_CHANGE_M * POINTS_PER_M)..ego_idx);
    let trailing_aside_m = match after_lane_change {
        true => TRAILING_ASIDE_AFTER_LANE_CHANGE_M,
        false => TRAILING_ASIDE_M,
    };
    // No actor counts as behind before the ego vehicle is in the path's lane.
    let is_off = path.is_off(truth.ego.pose.position);
    for (actor_idx, actor) in truth.actors.iter().enumerate() {
        let far = actor.pose.position.distance(truth.ego.pose.position) > HORIZON_M;
        if far || actor.extent_m[2] < FLAT_M || passed_actors.contains(&actor.id) {
            continue;
        }
        let behind = ego_idx.saturating_sub(ALONG_M.0 * POINTS_PER_M);
        let around = behind..ego_idx + ALONG_M.1 * POINTS_PER_M;
        let path_position = path
            .locate(&actor.pose, around)
            .map(|(idx, aside_m, turned_rad)| PathPosition { idx, aside_m, turned_rad });
        let role = path_position.map_or(Role::Other, |path_position| {
            if path_position.idx > ego_idx {
                ahead(truth, path, actor, &path_position)
            } else if !is_off
                && path_position.aside_m.abs() <= trailing_aside_m
                && path_position.turned_rad.abs() < TRAILING_TURNED_RAD
            {
                Role::Trailing
            } else {
                Role::Other
            }
        });
        neighbors.push(Neighbor { actor: actor_idx, role, path_position });
    }
}

fn ahead(truth: &Truth, path: &Path, actor: &ActorState, path_position: &PathPosition) -> Role {
    let gap_m = (path_position.idx - path.idx()) as f64 * SPACING_M;
    if gap_m > LANE_HORIZON_M {
        return Role::Other;
    }
    let along_mps = (actor.speed_mps * path_position.turned_rad.cos()).max(0.0);
    let drives = matches!(actor.kind, ActorKind::Vehicle | ActorKind::Bicycle);
    let leading_aside_m = match path.is_merge(path_position.idx) && along_mps > MERGING_MPS {
        true => MERGING_ASIDE_M,
        false => LEADING_ASIDE_M,
    };
    let in_lane = path_position.aside_m.abs() <= leading_aside_m
        && path_position.turned_rad.abs() < LEADING_TURNED_RAD;
    if drives && in_lane {
        return Role::Leading(Lead {
            gap_m,
            length_m: 2.0 * actor.extent_m[0],
            speed_mps: along_mps,
            standstill_m: 4.0,
            headway_s: 0.25,
        });
    }
    if actor.speed_mps < SLOW_MPS
        && let Some(gap_m) = first_touch_m(path, actor, path_position.idx)
    {
        return Role::Blocking(Lead {
            gap_m,
            length_m: truth.ego.extent_m[0],
            speed_mps: along_mps,
            standstill_m: if actor.kind == ActorKind::Pedestrian { 4.0 } else { 2.0 },
            headway_s: 0.25,
        });
    }
    Role::Other
}

/// Returns how far along the path `actor`, located at `idx`, first comes too
/// close to the path, meters.
fn first_touch_m(path: &Path, actor: &ActorState, idx: usize) -> Option<f64> {
    let reach_m = DVec2::new(actor.extent_m[0], actor.extent_m[1]).length() + IN_THE_WAY_M;
    if path.driven()[idx].distance(actor.pose.position) > reach_m {
        return None;
    }
    let reach = (reach_m / SPACING_M) as usize;
    (idx.saturating_sub(reach).max(path.idx())..(idx + reach).min(path.last()))
        .step_by(POINTS_PER_M / 2)
        .find(|&idx| {
            footprint_distance_m(&actor.pose, actor.extent_m, path.driven()[idx]) < IN_THE_WAY_M
        })
        .map(|touch| (touch - path.idx()) as f64 * SPACING_M)
}
