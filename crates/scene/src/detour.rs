//! Route changes requested by a driver that is stuck.

use glam::DVec2;

/// Change of the model's route input for one tick.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Detour {
    /// Target points that replace those of the route, in the ego frame, meters.
    pub targets_m: Option<[DVec2; 2]>,
    pub skip: Option<RouteSkip>,
}

/// Points to drop from the front of the route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteSkip {
    /// Maximum number of points to drop.
    pub points: usize,
    /// Minimum number of points that must remain.
    pub keep: usize,
}
