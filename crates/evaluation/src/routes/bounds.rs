//! Bounds of the numbers in route files.
//!
//! Worlds sample distances into points, so a mistyped digit would cost memory and time, and its
//! drive would be recorded as a failure of the driver. The bounds are a few times what the longest
//! public route files need: those of CARLA's leaderboard 2, with routes of 11.4 km.

use glam::{DVec2, DVec3, Vec3Swizzles};
use std::ops::RangeInclusive;

/// Horizontal coordinates, meters. UTM northings, the largest coordinates of
/// maps, are at most 10,000 km.
pub(super) const COORDINATE_M: RangeInclusive<f64> = -2e7..=2e7;

/// Heights, meters. Roads exist between -430 and 5,800 m.
pub(super) const HEIGHT_M: RangeInclusive<f64> = -1e4..=1e4;

/// Headings, degrees: ten turns. Files of the leaderboard slightly exceed one turn.
pub(super) const YAW_DEG: RangeInclusive<f64> = -3600.0..=3600.0;

/// Fields of weather, in percent, degrees or CARLA's own scales, none of which exceeds 360.
pub(super) const WEATHER: RangeInclusive<f64> = -1e4..=1e4;

/// Numbers of scenarios, in meters, degrees or km/h. The largest of the leaderboard is 3,255 m.
pub(super) const SCENARIO: RangeInclusive<f64> = -1e5..=1e5;

/// Largest distance between two consecutive key points, meters. The largest of the leaderboard is
/// 2,579 m, that of Bench2Drive 195 m. Also the largest distance of a scenario's locations from the
/// route, which is 1,365 m in the leaderboard.
pub(super) const LONGEST_GAP_M: f64 = 6_000.0;

/// Largest length of a route, meters.
pub(super) const LONGEST_ROUTE_M: f64 = 50_000.0;

/// Key points at most this far apart belong to a dense file, meters.
const DENSE_M: f64 = 8.0;

/// Error in the key points of a route.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum LineProblem {
    /// A key point is too far from the previous one.
    #[error(
        "key point {number} ({}) is {gap_m:.0} m from the previous one, expected at most \
         {LONGEST_GAP_M} m",
        position_text(*position)
    )]
    Gap {
        /// Number of the key point, from 1.
        number: usize,
        position: DVec3,
        /// Distance from the previous key point, meters.
        gap_m: f64,
    },
    #[error(
        "the route is longer than {LONGEST_ROUTE_M} m at key point {number} ({}) of {total}",
        position_text(*position)
    )]
    TooLong {
        /// Number of the first key point beyond the limit, from 1.
        number: usize,
        position: DVec3,
        /// Number of key points of the route.
        total: usize,
    },
    /// A key point is far from its neighbors, which are close to each other.
    #[error(
        "key point {number} ({}) is {away_m:.0} m away from its neighbors, which are {apart_m:.1} \
         m apart: this is not a drivable route",
        position_text(*position)
    )]
    Stray {
        /// Number of the key point, from 1.
        number: usize,
        position: DVec3,
        /// Distance from the nearer neighbor, meters.
        away_m: f64,
        /// Distance between its neighbors, meters.
        apart_m: f64,
    },
}

fn position_text(position: DVec3) -> String {
    format!("x={} y={} z={}", position.x, position.y, position.z)
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
            let position = key_points[stray];
            return Err(LineProblem::Stray { number: stray + 1, position, away_m, apart_m });
        }
    }
    let mut length_m = 0.0;
    for to in 1..key_points.len() {
        let (position, gap_m) = (key_points[to], gap_m(to));
        length_m += gap_m;
        if gap_m > LONGEST_GAP_M {
            return Err(LineProblem::Gap { number: to + 1, position, gap_m });
        }
        if length_m > LONGEST_ROUTE_M {
            let total = key_points.len();
            return Err(LineProblem::TooLong { number: to + 1, position, total });
        }
    }
    Ok(())
}

/// Returns the distance from `position` to the nearest key point, meters, if it
/// exceeds [`LONGEST_GAP_M`].
pub(super) fn out_of_reach_m(position: DVec2, key_points: &[DVec3]) -> Option<f64> {
    let away = |point: &DVec3| point.xy().distance(position);
    let away_m = key_points.iter().map(away).fold(f64::INFINITY, f64::min);
    (away_m > LONGEST_GAP_M).then_some(away_m)
}
