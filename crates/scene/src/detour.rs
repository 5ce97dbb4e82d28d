//! What a driver that is stuck makes of its route.

use glam::DVec2;

/// A change to what the model is told of the route, for one tick.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Detour {
    /// Target points in the ego frame to show the model instead of the route's, meters.
    pub targets_m: Option<[DVec2; 2]>,
    /// Points to drop from the front of the route.
    pub skip: Option<RouteSkip>,
}

/// Points of a route that are given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteSkip {
    /// How many, at most.
    pub points: usize,
    /// How many must remain.
    pub keep: usize,
}
