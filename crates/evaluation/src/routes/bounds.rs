//! Bounds of the numbers of route files.
//!
//! Worlds make points of distances, so a slip of a digit would cost memory, time, and a drive that is
//! recorded as a failure of its driver. Bounds are a few times what the longest public route files
//! need: those of CARLA's leaderboard 2, whose routes are 11.4 km long.

use glam::{DVec2, DVec3, Vec3Swizzles};
use std::ops::RangeInclusive;

/// Coordinates in the plane, meters. Northings of UTM, the largest coordinates of maps, end at
/// 10,000 km.
pub(super) const COORDINATE_M: RangeInclusive<f64> = -2e7..=2e7;

/// Heights, meters. Roads lie between -430 and 5,800 m.
pub(super) const HEIGHT_M: RangeInclusive<f64> = -1e4..=1e4;

/// Headings, degrees: ten turns. Files of the leaderboard go a little beyond one.
pub(super) const YAW_DEG: RangeInclusive<f64> = -3600.0..=3600.0;

/// Fields of weather, in percent, degrees or CARLA's own scales, none of which exceeds 360.
pub(super) const WEATHER: RangeInclusive<f64> = -1e4..=1e4;

/// Numbers of scenarios, in meters, degrees, or kilometers per hour; the largest of the leaderboard
/// is 3,255 m.
pub(super) const SCENARIO: RangeInclusive<f64> = -1e5..=1e5;

/// Distance between two consecutive key points at most, meters; the longest of the leaderboard is
/// 2,579 m, of Bench2Drive 195 m. Places of a scenario may be as far from the route: 1,365 m there.
pub(super) const LONGEST_GAP_M: f64 = 6_000.0;

/// Length of a route at most, meters.
pub(super) const LONGEST_ROUTE_M: f64 = 50_000.0;

/// Key points that are no farther apart than this belong to a dense file, meters.
const DENSE_M: f64 = 8.0;

/// What is wrong with the key points of a route.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum LineProblem {
    /// A key point is out of reach of the one before it.
    #[error(
        "key point {number} ({}) is {gap_m:.0} m from the one before it, expected at most \
         {LONGEST_GAP_M} m",
        place_text(*place)
    )]
    Gap {
        /// Number of the key point, from 1.
        number: usize,
        /// Where it is.
        place: DVec3,
        /// Distance from the one before it, meters.
        gap_m: f64,
    },
    /// The route is too long.
    #[error(
        "the route is longer than {LONGEST_ROUTE_M} m at key point {number} ({}) of {total}",
        place_text(*place)
    )]
    TooLong {
        /// Number of the key point at which it becomes too long, from 1.
        number: usize,
        /// Where it is.
        place: DVec3,
        /// Key points of the route.
        total: usize,
    },
    /// One key point lies beside a route that goes on without it.
    #[error(
        "key point {number} ({}) is {away_m:.0} m away from its neighbors, which are {apart_m:.1} m \
         apart: no vehicle drives there and back",
        place_text(*place)
    )]
    Stray {
        /// Number of the key point, from 1.
        number: usize,
        /// Where it is.
        place: DVec3,
        /// Distance from the nearer neighbor, meters.
        away_m: f64,
        /// Distance between its neighbors, meters.
        apart_m: f64,
    },
}

fn place_text(place: DVec3) -> String {
    format!("x={} y={} z={}", place.x, place.y, place.z)
}

/// Checks the distances between the key points of a route.
pub(super) fn check_line(key_points: &[DVec3]) -> Result<(), LineProblem> {
    let gap_m = |to: usize| key_points[to - 1].xy().distance(key_points[to].xy());
    let is_dense = |to: usize| to > 0 && to < key_points.len() && gap_m(to) <= DENSE_M;
    for stray in 1..key_points.len().saturating_sub(1) {
        let apart_m = key_points[stray - 1].xy().distance(key_points[stray + 1].xy());
        let away_m = gap_m(stray).min(gap_m(stray + 1));
        let is_between_roads = is_dense(stray - 1) && is_dense(stray + 2);
        if away_m > 2.0 * DENSE_M && apart_m <= 2.0 * DENSE_M && is_between_roads {
            let place = key_points[stray];
            return Err(LineProblem::Stray { number: stray + 1, place, away_m, apart_m });
        }
    }
    let mut length_m = 0.0;
    for to in 1..key_points.len() {
        let (place, gap_m) = (key_points[to], gap_m(to));
        length_m += gap_m;
        if gap_m > LONGEST_GAP_M {
            return Err(LineProblem::Gap { number: to + 1, place, gap_m });
        }
        if length_m > LONGEST_ROUTE_M {
            let total = key_points.len();
            return Err(LineProblem::TooLong { number: to + 1, place, total });
        }
    }
    Ok(())
}

/// Distance from `place` to the nearest key point, meters, if it is out of the route's reach.
pub(super) fn out_of_reach_m(place: DVec2, key_points: &[DVec3]) -> Option<f64> {
    let away = |point: &DVec3| point.xy().distance(place);
    let away_m = key_points.iter().map(away).fold(f64::INFINITY, f64::min);
    (away_m > LONGEST_GAP_M).then_some(away_m)
}
