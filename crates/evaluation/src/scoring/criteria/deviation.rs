//! Leaving the route: too far away at once, or somewhat too far away for too long.

use super::location_text;
use super::progress::RouteLine;
use glam::DVec3;

/// How many points ahead of the current one are looked at.
const WINDOW: usize = 5;
/// Farther than this is off the route, meters.
const OFF_ROUTE_M: f64 = 30.0;
/// Farther than this counts towards the allowed share, meters.
const SAFE_M: f64 = 15.0;
/// How much of the route may be driven outside the safe distance, percent.
const UNSAFE_SHARE_PERCENT: f64 = 30.0;

/// Route-deviation criterion.
#[derive(Default)]
pub(super) struct Deviation {
    index: usize,
    unsafe_m: f64,
}

impl Deviation {
    /// Judges this tick; gives a message if the route is lost.
    pub(super) fn tick(&mut self, line: &RouteLine, ego: DVec3) -> Option<String> {
        let end = (self.index + WINDOW + 1).min(line.len());
        let (mut nearest, mut distance_m) = (self.index, f64::INFINITY);
        for index in self.index..end {
            let candidate_m = line.point(index).truncate().distance(ego.truncate());
            if candidate_m <= distance_m {
                (nearest, distance_m) = (index, candidate_m);
            }
        }
        let mut is_lost = distance_m >= OFF_ROUTE_M;
        if nearest != self.index {
            if distance_m >= SAFE_M {
                self.unsafe_m += line.length_to_m(nearest) - line.length_to_m(self.index);
            }
            is_lost |= self.unsafe_m / line.length_m() * 100.0 > UNSAFE_SHARE_PERCENT;
            self.index = nearest;
        }
        is_lost.then(|| format!("Agent deviated from the route at {}", location_text(ego)))
    }
}
