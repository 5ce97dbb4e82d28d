//! Who is around, as seen from the path: ahead of us, behind us, in the way, or beside it.

use super::car_following::Lead;
use super::path::{POINTS_PER_M, Path, SPACING_M};
use glam::DVec2;
use tandem_scene::footprint_distance_m;
use tandem_scene::{ActorKind, ActorState, Truth};

/// Nobody farther away matters, meters: oncoming vehicles do for as long as going around an
/// obstacle takes.
const HORIZON_M: f64 = 160.0;

/// How far along the path, behind us and ahead of us, places are told, meters.
const ALONG_M: (usize, usize) = (80, 140);

/// How far along the path somebody is ahead or behind, meters.
const LANE_HORIZON_M: f64 = 80.0;

/// Whose center is this close to the path and who heads along it is ahead in our lane.
const LEADING_ASIDE_M: f64 = 2.5;
/// Where lanes merge, who is in the next one is ahead, too, unless he is so slow that he may be
/// waiting for us.
const MERGING_ASIDE_M: f64 = 6.0;
const MERGING_MPS: f64 = 5.0;
const LEADING_TURNED_RAD: f64 = 35.0 * std::f64::consts::PI / 180.0;

/// The same behind us; more where we have just changed lanes, so many meters back.
const TRAILING_ASIDE_M: f64 = 3.0;
const TRAILING_ASIDE_AFTER_LANE_CHANGE_M: f64 = 6.0;
const TRAILING_TURNED_RAD: f64 = 30.0 * std::f64::consts::PI / 180.0;
const AFTER_LANE_CHANGE_M: usize = 15;

/// What is slower than this and reaches this close to the path is in the way.
const SLOW_MPS: f64 = 1.0;
const IN_THE_WAY_M: f64 = 1.3;

/// Bodies lower than this are driven over, half height in meters.
const FLAT_M: f64 = 0.05;

/// What somebody is to us.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Role {
    /// Drives ahead of us, to be followed.
    Leading(Lead),
    /// Stands in the way.
    Blocking(Lead),
    /// Drives behind us in our lane.
    Trailing,
    /// None of these.
    Beside,
}

/// Somebody around.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Neighbor {
    /// Index among the truth's actors.
    pub(super) actor: usize,
    /// What it is to us.
    pub(super) role: Role,
    /// Where it is beside the path, if it is.
    pub(super) beside: Option<Beside>,
}

/// A place beside the path.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Beside {
    /// The nearest point.
    pub(super) idx: usize,
    /// Meters to the right of the driven line.
    pub(super) aside_m: f64,
    /// Heading compared to the driven line, radians.
    pub(super) turned_rad: f64,
}

/// Looks at everybody but `hindrances` and writes down who they are to us.
pub(super) fn look_around(
    truth: &Truth,
    path: &Path,
    hindrances: &[u32],
    neighbors: &mut Vec<Neighbor>,
) {
    neighbors.clear();
    let ours = path.idx();
    let after_lane_change =
        path.has_lane_change(ours.saturating_sub(AFTER_LANE_CHANGE_M * POINTS_PER_M)..ours);
    let trailing_aside_m = match after_lane_change {
        true => TRAILING_ASIDE_AFTER_LANE_CHANGE_M,
        false => TRAILING_ASIDE_M,
    };
    // Nobody trails us before we are in the path's lane.
    let is_off = path.is_off(truth.ego.pose.position);
    for (actor_idx, actor) in truth.actors.iter().enumerate() {
        let far = actor.pose.position.distance(truth.ego.pose.position) > HORIZON_M;
        if far || actor.extent_m[2] < FLAT_M || hindrances.contains(&actor.id) {
            continue;
        }
        let behind = ours.saturating_sub(ALONG_M.0 * POINTS_PER_M);
        let around = behind..ours + ALONG_M.1 * POINTS_PER_M;
        let beside = path.locate(&actor.pose, around).map(|(idx, aside_m, turned_rad)| Beside {
            idx,
            aside_m,
            turned_rad,
        });
        let role = beside.map_or(Role::Beside, |beside| {
            if beside.idx > ours {
                ahead(truth, path, actor, &beside)
            } else if !is_off
                && beside.aside_m.abs() <= trailing_aside_m
                && beside.turned_rad.abs() < TRAILING_TURNED_RAD
            {
                Role::Trailing
            } else {
                Role::Beside
            }
        });
        neighbors.push(Neighbor { actor: actor_idx, role, beside });
    }
}

fn ahead(truth: &Truth, path: &Path, actor: &ActorState, beside: &Beside) -> Role {
    let gap_m = (beside.idx - path.idx()) as f64 * SPACING_M;
    if gap_m > LANE_HORIZON_M {
        return Role::Beside;
    }
    let along_mps = (actor.speed_mps * beside.turned_rad.cos()).max(0.0);
    let drives = matches!(actor.kind, ActorKind::Vehicle | ActorKind::Bicycle);
    let leading_aside_m = match path.is_merge(beside.idx) && along_mps > MERGING_MPS {
        true => MERGING_ASIDE_M,
        false => LEADING_ASIDE_M,
    };
    let in_lane =
        beside.aside_m.abs() <= leading_aside_m && beside.turned_rad.abs() < LEADING_TURNED_RAD;
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
        && let Some(gap_m) = first_touch_m(path, actor, beside.idx)
    {
        return Role::Blocking(Lead {
            gap_m,
            length_m: truth.ego.extent_m[0],
            speed_mps: along_mps,
            standstill_m: if actor.kind == ActorKind::Pedestrian { 4.0 } else { 2.0 },
            headway_s: 0.25,
        });
    }
    Role::Beside
}

/// How far along the path from us `actor`, which is beside `idx`, first reaches too close to it,
/// meters.
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
