//! Computes the two target points of the model from the dense route.
//!
//! The route is downsampled once ([`thin_plan`]); a [`RoutePlanner`] then drops points that the
//! vehicle reaches and returns the next two in the ego frame.

use crate::scene::{Pose, RoadOption, RoutePoint};
use glam::{DVec2, DVec3};
use std::collections::VecDeque;

/// A point of the planned route.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PlanPoint {
    /// Position in the world frame, meters.
    pub position: DVec3,
    /// Maneuver at this point.
    pub command: RoadOption,
}

impl From<&RoutePoint> for PlanPoint {
    fn from(point: &RoutePoint) -> Self {
        Self { position: point.position, command: point.command }
    }
}

/// Distance after which the benchmark's harness keeps a point without a new command, meters.
pub const THINNING_M: f64 = 50.0;

/// Returns the indices of the points of `plan` that the benchmark's harness passes to an agent: the
/// first and last points, lane changes, new commands (except directly after a lane change), and
/// points after more than `spacing_m` of accumulated distance. Kept points add no distance, so a
/// straight route with one point per meter keeps every 52nd.
pub fn thin_plan(plan: &[PlanPoint], spacing_m: f64) -> Vec<usize> {
    let mut kept = Vec::new();
    let mut accumulated_m = 0.0;
    for (index, point) in plan.iter().enumerate() {
        let previous = index.checked_sub(1).map(|previous| &plan[previous]);
        let new_command = previous.is_none_or(|previous| {
            previous.command != point.command && !previous.command.is_lane_change()
        });
        let is_last = index + 1 == plan.len();
        if point.command.is_lane_change() || new_command || accumulated_m > spacing_m || is_last {
            kept.push(index);
            accumulated_m = 0.0;
        } else if let Some(previous) = previous {
            accumulated_m += previous.position.distance(point.position);
        }
    }
    kept
}

/// Parameters of a [`RoutePlanner`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RoutePlannerConfig {
    /// Distance below which a point is reached, meters.
    pub reached_within_m: f64,
    /// Same for a lane change that ends or that is close to the next point, meters.
    pub lane_change_reached_within_m: f64,
    /// Distance along the route up to which points are examined, meters.
    pub horizon_m: f64,
    /// Distance of the second target point beyond the last point of the route, meters.
    pub beyond_end_m: f64,
}

impl Default for RoutePlannerConfig {
    /// Returns the values of the AutoMoT release.
    fn default() -> Self {
        Self {
            reached_within_m: 7.5,
            lane_change_reached_within_m: 15.0,
            horizon_m: 50.0,
            beyond_end_m: 5.0,
        }
    }
}

/// The remaining part of the route.
pub struct RoutePlanner {
    config: RoutePlannerConfig,
    ahead: VecDeque<PlanPoint>,
    /// Target point of the previous tick, and the commands of it and of the target before it.
    target: Option<DVec2>,
    commands: [RoadOption; 2],
}

/// Route input of the model at a tick.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Targets {
    /// Target point in the ego frame, meters.
    pub target_m: DVec2,
    /// Following target point in the ego frame, meters.
    pub next_target_m: DVec2,
    /// Maneuver at the target point.
    pub command: RoadOption,
    /// Maneuver at the previous target point. The release logs it; no network uses it.
    pub delayed_command: RoadOption,
}

impl RoutePlanner {
    /// Creates a planner at the start of a downsampled `plan`.
    pub fn new(plan: impl IntoIterator<Item = PlanPoint>, config: RoutePlannerConfig) -> Self {
        let ahead = plan.into_iter().collect();
        Self { config, ahead, target: None, commands: [RoadOption::LaneFollow; 2] }
    }

    /// Returns the points that are not dropped.
    pub fn ahead(&self) -> &VecDeque<PlanPoint> {
        &self.ahead
    }

    /// Drops the points that the vehicle has reached, except the last
    /// two, and returns their number.
    pub fn advance(&mut self, position: DVec2) -> usize {
        if self.ahead.len() <= 2 {
            return 0;
        }
        let mut reached = 0;
        let mut farthest_m = f64::NEG_INFINITY;
        let mut along_m = 0.0;
        for index in 1..self.ahead.len() {
            if along_m > self.config.horizon_m {
                break;
            }
            along_m += self.segment_m(index - 1);
            let distance_m = position.distance(self.point(index));
            if distance_m <= self.reached_within_m(index) && distance_m > farthest_m {
                farthest_m = distance_m;
                reached = index;
            }
        }
        self.skip(reached, 2)
    }

    /// Drops up to `points` points such that at least `keep` remain, and returns their number.
    pub fn skip(&mut self, points: usize, keep: usize) -> usize {
        let dropped = points.min(self.ahead.len().saturating_sub(keep));
        self.ahead.drain(..dropped);
        dropped
    }

    /// Returns the next two target points at the pose `world_from_ego`.
    pub fn targets(&mut self, world_from_ego: &Pose) -> Targets {
        let ego = world_from_ego.position;
        let beyond = |point: DVec2| {
            let offset = point - ego;
            let direction =
                if offset.length() > 1e-3 { offset.normalize() } else { world_from_ego.forward() };
            point + self.config.beyond_end_m * direction
        };
        let (target, next_target) = match self.ahead.len() {
            0 => (ego, ego + self.config.horizon_m * world_from_ego.forward()),
            1 => (self.point(0), beyond(self.point(0))),
            2 => (self.point(1), beyond(self.point(1))),
            _ => (self.point(1), self.point(2)),
        };
        if let Some(point) = self.ahead.get(1).or(self.ahead.front())
            && self.target != Some(target)
        {
            self.target = Some(target);
            self.commands = [self.commands[1], point.command];
        }
        Targets {
            target_m: world_from_ego.inverse_apply(target),
            next_target_m: world_from_ego.inverse_apply(next_target),
            command: self.commands[1],
            delayed_command: self.commands[0],
        }
    }

    /// Returns the position of a point in the plane.
    fn point(&self, index: usize) -> DVec2 {
        self.ahead[index].position.truncate()
    }

    /// Returns the length of the segment from a point to the next in the plane.
    fn segment_m(&self, index: usize) -> f64 {
        self.point(index).distance(self.point(index + 1))
    }

    /// Returns the distance below which a point is reached. A lane change is left early where it
    /// ends or where the next point is close, because aiming at its end would cut it short.
    fn reached_within_m(&self, index: usize) -> f64 {
        let is_left_early = self.ahead[index].command.is_lane_change()
            && self.ahead.get(index + 1).is_some_and(|next| {
                next.command == RoadOption::LaneFollow
                    || self.segment_m(index) < self.config.reached_within_m
            });
        if is_left_early {
            self.config.lane_change_reached_within_m
        } else {
            self.config.reached_within_m
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(points: &[(f64, RoadOption)]) -> Vec<PlanPoint> {
        points
            .iter()
            .map(|&(x, command)| PlanPoint { position: DVec3::new(x, 0.0, 0.0), command })
            .collect()
    }

    #[track_caller]
    fn check(points: &[(f64, RoadOption)], target: [f64; 2], next_target: [f64; 2]) {
        let mut planner = RoutePlanner::new(plan(points), RoutePlannerConfig::default());
        let targets = planner.targets(&Pose::new(10.0, 0.0, 0.0));
        assert_eq!(targets.target_m.to_array(), target);
        assert_eq!(targets.next_target_m.to_array(), next_target);
    }

    #[test]
    fn short_route_is_extended_straight() {
        let follow = RoadOption::LaneFollow;
        check(&[(0.0, follow), (20.0, follow), (25.0, follow)], [10.0, 0.0], [15.0, 0.0]);
        check(&[(0.0, follow), (20.0, follow)], [10.0, 0.0], [15.0, 0.0]);
        check(&[(0.0, follow), (10.0, follow)], [0.0, 0.0], [5.0, 0.0]);
        check(&[(4.0, follow)], [-6.0, 0.0], [-11.0, 0.0]);
        check(&[], [0.0, 0.0], [50.0, 0.0]);
    }

    #[test]
    fn final_lane_change_is_reached_like_any_point() {
        let points = [0.0, 5.0, 14.0]
            .map(|x| (x, RoadOption::ChangeLaneLeft))
            .into_iter()
            .collect::<Vec<_>>();
        let mut planner = RoutePlanner::new(plan(&points), RoutePlannerConfig::default());
        assert_eq!(planner.advance(DVec2::ZERO), 1);
        assert_eq!(planner.advance(DVec2::new(5.0, 0.0)), 0, "two points remain");
    }
}
