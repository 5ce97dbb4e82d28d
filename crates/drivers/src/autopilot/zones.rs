//! Stretches of road that others may use: junctions, lane changes, and passages of obstacles.

use super::passages::Detour;
use super::path::{POINTS_PER_M, Path, SPACING_M};
use tandem_scene::{EgoState, PassageReason};

/// A stretch is checked from this distance on, or from farther away if stopping takes longer.
const VIEW_M: f64 = 25.0;
const VIEW_BRAKING_MPS2: f64 = 3.0;

/// Distances beyond the ends of a junction and of a lane change at which they are
/// behind the ego vehicle, points.
const BEYOND_JUNCTION: usize = 5 * POINTS_PER_M;
const BEYOND_LANE_CHANGE: usize = 3 * POINTS_PER_M;

/// Length of path that is checked when the ego vehicle first has to enter it, points.
const ONTO_PATH: usize = 10 * POINTS_PER_M;

/// Distance before an obstacle from which the oncoming lane is watched, points.
const WATCH_FROM: usize = 27 * POINTS_PER_M;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Other vehicles cross or merge.
    Junction,
    /// The route changes to another lane.
    LaneChange,
    /// Passing an obstacle in a lane of the same direction.
    IntoFreeLane,
    /// Passing an obstacle in the oncoming lane.
    OncomingLane,
    /// From beside the path onto it, for example from a parking space.
    OntoPath,
}

/// A stretch that others may use.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Zone {
    pub(super) kind: Kind,
    /// Identifies the stretch among those of its kind, even while it moves.
    pub(super) key: usize,
    /// Point before which the front waits.
    pub(super) from: usize,
    /// The ego vehicle is through when its center is here.
    pub(super) to: usize,
    /// Point from which the stretch has to be watched for a while.
    pub(super) watch_from: Option<usize>,
}

/// Finds the stretches that are near enough to check, in the order of the path.
pub(super) fn find(path: &Path, detours: &[Detour], ego: &EgoState, zones: &mut Vec<Zone>) {
    let ego_idx = path.idx();
    let view_m = VIEW_M.max(10.0 + ego.speed_mps.powi(2) / (2.0 * VIEW_BRAKING_MPS2));
    let view = ego_idx + (view_m / SPACING_M) as usize;
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
        is_off.then_some(Zone { key: 0, ..maneuver(Kind::OntoPath, ego_idx, ego_idx + ONTO_PATH) });
    zones.clear();
    zones.extend(
        junctions
            .chain(lane_changes)
            .chain(detours.iter().filter_map(around))
            .chain(onto_path)
            .filter(|zone| zone.from < view && zone.to > ego_idx),
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
