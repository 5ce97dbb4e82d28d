//! Stretches of road that others may use, too: junctions, lane changes, ways around obstacles.

use super::passages::Detour;
use super::path::{POINTS_PER_M, Path, SPACING_M};
use tandem_scene::{EgoState, PassageReason};

/// A stretch is looked at from this far on, and from farther away where we need longer to stop.
const VIEW_M: f64 = 25.0;
const VIEW_BRAKING_MPS2: f64 = 3.0;

/// Where a junction and a lane change are behind us, points beyond their ends.
const BEYOND_JUNCTION: usize = 5 * POINTS_PER_M;
const BEYOND_LANE_CHANGE: usize = 3 * POINTS_PER_M;

/// How much of the path somebody looks at who has to come onto it first, points.
const ONTO_PATH: usize = 10 * POINTS_PER_M;

/// The oncoming lane is watched from so far before an obstacle on, points.
const WATCH_FROM: usize = 27 * POINTS_PER_M;

/// What a stretch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Others cross, or merge.
    Junction,
    /// The route goes to the next lane.
    LaneChange,
    /// Around an obstacle by a lane of our direction.
    IntoFreeLane,
    /// Around an obstacle by the oncoming lane.
    OncomingLane,
    /// From beside the path onto it, as when we were parked.
    OntoPath,
}

/// A stretch that others may use.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Zone {
    /// What it is.
    pub(super) kind: Kind,
    /// Tells it from others of its kind, even while it moves.
    pub(super) key: usize,
    /// Our front waits before this point.
    pub(super) from: usize,
    /// It is behind us when our center is here.
    pub(super) to: usize,
    /// It has to be watched for a while, from this point on.
    pub(super) watch_from: Option<usize>,
}

/// The stretches that are near enough to be looked at, in the order of the path.
pub(super) fn find(path: &Path, detours: &[Detour], ego: &EgoState, zones: &mut Vec<Zone>) {
    let ours = path.idx();
    let view_m = VIEW_M.max(10.0 + ego.speed_mps.powi(2) / (2.0 * VIEW_BRAKING_MPS2));
    let view = ours + (view_m / SPACING_M) as usize;
    let maneuver = |kind, from, to| Zone { kind, key: from, from, to, watch_from: None };
    let junctions = path
        .junctions()
        .iter()
        .map(|range| maneuver(Kind::Junction, range.start, range.end + BEYOND_JUNCTION));
    let lane_changes = path
        .lane_changes()
        .iter()
        .map(|range| maneuver(Kind::LaneChange, range.start, range.end + BEYOND_LANE_CHANGE));
    let is_off = path.is_off(ego.pose.position);
    let onto_path =
        is_off.then_some(Zone { key: 0, ..maneuver(Kind::OntoPath, ours, ours + ONTO_PATH) });
    zones.clear();
    zones.extend(
        junctions
            .chain(lane_changes)
            .chain(detours.iter().filter_map(around))
            .chain(onto_path)
            .filter(|zone| zone.from < view && zone.to > ours),
    );
    zones.sort_unstable_by_key(|zone| zone.from);
}

fn around(detour: &Detour) -> Option<Zone> {
    let shift = &detour.shift;
    let (kind, to, watch_from) = match detour.reason {
        PassageReason::ObstacleBesideFreeLane => (Kind::IntoFreeLane, shift.full.start, None),
        PassageReason::ObstacleBesideOncomingLane => {
            let watch_from = shift.full.start.saturating_sub(WATCH_FROM);
            (Kind::OncomingLane, shift.reach().end, Some(watch_from))
        }
        PassageReason::OncomingInvades | PassageReason::GiveWay => return None,
    };
    Some(Zone { kind, key: detour.key as usize, from: shift.reach().start, to, watch_from })
}
