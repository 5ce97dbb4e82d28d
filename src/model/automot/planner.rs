//! From the dense route to the two target points that the model is told.
//!
//! The route is thinned once ([`thin_plan`]); a [`RoutePlanner`] then drops points as the vehicle
//! comes near and names the next two in the ego frame.

use crate::scene::{Pose, RoadOption, RoutePoint};
use glam::{DVec2, DVec3};
use std::collections::VecDeque;

/// A point of a plan.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PlanPoint {
    /// In the world, meters.
    pub position: DVec3,
    /// The maneuver here.
    pub command: RoadOption,
}

impl From<&RoutePoint> for PlanPoint {
    fn from(point: &RoutePoint) -> Self {
        Self { position: point.position, command: point.command }
    }
}

/// Distance after which the benchmark's harness keeps a point without a new command, meters.
pub const THINNING_M: f64 = 50.0;

/// Indices of the points of `plan` that the benchmark's harness hands to an agent: the first, the
/// last, lane changes, new commands (except right behind a lane change), and whenever more than
/// `spacing_m` has been collected. A point that is kept adds no distance, so a straight route of
/// one point a meter keeps every 52nd.
pub fn thin_plan(plan: &[PlanPoint], spacing_m: f64) -> Vec<usize> {
    let mut kept = Vec::new();
    let mut collected_m = 0.0;
    for (index, point) in plan.iter().enumerate() {
        let previous = index.checked_sub(1).map(|previous| &plan[previous]);
        let new_command = previous.is_none_or(|previous| {
            previous.command != point.command && !previous.command.is_lane_change()
        });
        let is_last = index + 1 == plan.len();
        if point.command.is_lane_change() || new_command || collected_m > spacing_m || is_last {
            kept.push(index);
            collected_m = 0.0;
        } else if let Some(previous) = previous {
            collected_m += previous.position.distance(point.position);
        }
    }
    kept
}

/// How far a [`RoutePlanner`] looks.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RoutePlannerConfig {
    /// A point nearer than this counts as reached, meters.
    pub reached_within_m: f64,
    /// The same for lane changes that end or are close to the next point, meters.
    pub lane_change_reached_within_m: f64,
    /// Points farther along the route than this are not looked at, meters.
    pub horizon_m: f64,
    /// How far the second target point lies behind the last point of the route, meters.
    pub beyond_end_m: f64,
}

impl Default for RoutePlannerConfig {
    /// The release's numbers.
    fn default() -> Self {
        Self {
            reached_within_m: 7.5,
            lane_change_reached_within_m: 15.0,
            horizon_m: 50.0,
            beyond_end_m: 5.0,
        }
    }
}

/// The part of the plan that is still ahead.
pub struct RoutePlanner {
    config: RoutePlannerConfig,
    ahead: VecDeque<PlanPoint>,
    /// The point that was the target at the last tick, and its command and that of the one before.
    target: Option<DVec2>,
    commands: [RoadOption; 2],
}

/// What the model is told of the route at a tick.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Targets {
    /// Target point in the ego frame, meters.
    pub target_m: DVec2,
    /// The one after it.
    pub next_target_m: DVec2,
    /// The maneuver at the target point.
    pub command: RoadOption,
    /// The maneuver at the target point before it; the release logs it, no network sees it.
    pub delayed_command: RoadOption,
}

impl RoutePlanner {
    /// A planner at the start of `plan`, which is thinned.
    pub fn new(plan: impl IntoIterator<Item = PlanPoint>, config: RoutePlannerConfig) -> Self {
        let ahead = plan.into_iter().collect();
        Self { config, ahead, target: None, commands: [RoadOption::LaneFollow; 2] }
    }

    /// The points that are not yet dropped.
    pub fn ahead(&self) -> &VecDeque<PlanPoint> {
        &self.ahead
    }

    /// Drops the points that the vehicle has reached, up to the last two, and says how many.
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
            let distance_m = position.distance(self.place(index));
            if distance_m <= self.reached_within_m(index) && distance_m > farthest_m {
                farthest_m = distance_m;
                reached = index;
            }
        }
        self.skip(reached, 2)
    }

    /// Drops `points` points as long as at least `keep` remain, and says how many were dropped.
    pub fn skip(&mut self, points: usize, keep: usize) -> usize {
        let dropped = points.min(self.ahead.len().saturating_sub(keep));
        self.ahead.drain(..dropped);
        dropped
    }

    /// The next two target points as seen from `world_from_ego`.
    pub fn targets(&mut self, world_from_ego: &Pose) -> Targets {
        let ego = world_from_ego.position;
        let beyond = |place: DVec2| {
            let offset = place - ego;
            let direction =
                if offset.length() > 1e-3 { offset.normalize() } else { world_from_ego.forward() };
            place + self.config.beyond_end_m * direction
        };
        let (target, next_target) = match self.ahead.len() {
            0 => (ego, ego + self.config.horizon_m * world_from_ego.forward()),
            1 => (self.place(0), beyond(self.place(0))),
            2 => (self.place(1), beyond(self.place(1))),
            _ => (self.place(1), self.place(2)),
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

    /// Where the point is in the plane.
    fn place(&self, index: usize) -> DVec2 {
        self.ahead[index].position.truncate()
    }

    /// Length of the segment from the point to the next, in the plane.
    fn segment_m(&self, index: usize) -> f64 {
        self.place(index).distance(self.place(index + 1))
    }

    /// How near the point has to be to count as reached. A lane change is left early where it ends
    /// or where the next point is close: aiming at its end would cut it short.
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
    fn a_short_route_is_continued_straight() {
        let follow = RoadOption::LaneFollow;
        check(&[(0.0, follow), (20.0, follow), (25.0, follow)], [10.0, 0.0], [15.0, 0.0]);
        check(&[(0.0, follow), (20.0, follow)], [10.0, 0.0], [15.0, 0.0]);
        check(&[(0.0, follow), (10.0, follow)], [0.0, 0.0], [5.0, 0.0]);
        check(&[(4.0, follow)], [-6.0, 0.0], [-11.0, 0.0]);
        check(&[], [0.0, 0.0], [50.0, 0.0]);
    }

    #[test]
    fn a_lane_change_at_the_very_end_is_reached_like_any_point() {
        let points = [0.0, 5.0, 14.0]
            .map(|x| (x, RoadOption::ChangeLaneLeft))
            .into_iter()
            .collect::<Vec<_>>();
        let mut planner = RoutePlanner::new(plan(&points), RoutePlannerConfig::default());
        assert_eq!(planner.advance(DVec2::ZERO), 1);
        assert_eq!(planner.advance(DVec2::new(5.0, 0.0)), 0, "two points always remain");
    }
}
