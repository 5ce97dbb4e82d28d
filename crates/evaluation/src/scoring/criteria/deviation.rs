//! Route-deviation criterion: far from the route at one tick, or moderately far for too long.

use super::location_text;
use super::progress::RouteLine;
use glam::DVec3;

/// Number of route points searched ahead of the current one.
const WINDOW: usize = 5;
/// Distance from which the vehicle is off the route, meters.
const OFF_ROUTE_M: f64 = 30.0;
/// Distance from which driving counts towards [`UNSAFE_SHARE_PERCENT`], meters.
const SAFE_M: f64 = 15.0;
/// Largest share of the route driven at [`SAFE_M`] or more, percent.
const UNSAFE_SHARE_PERCENT: f64 = 30.0;

/// State of the criterion for one route.
#[derive(Default)]
pub(super) struct Deviation {
    index: usize,
    unsafe_m: f64,
}

impl Deviation {
    /// Evaluates this tick. Returns a message if the vehicle has left the route.
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
