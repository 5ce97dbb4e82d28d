//! Trajectories that are followed for more than one tick.

use super::{Pose, Trajectory};
use arrayvec::ArrayVec;
use glam::DVec2;
use std::time::Duration;
use tandem_timing::Timestamp;

/// A trajectory with the time and the pose at which it was planned.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Planned trajectory in the ego frame of `world_from_ego`.
    pub trajectory: Trajectory,
    /// Estimated pose of the vehicle at the tick for which it was planned.
    pub world_from_ego: Pose,
    pub made_at: Timestamp,
}

/// Minimum length of the remaining path of an older plan, meters. It prevents a small lateral
/// offset from becoming a turn on the spot.
const MIN_PATH_M: f64 = 3.0;

impl Plan {
    /// Returns the trajectory as seen at `now` from `world_from_ego`; at `made_at` bit for bit
    /// unchanged. Does not allocate.
    ///
    /// Later, positions keep their place in the world and are transformed to the new ego frame:
    ///
    /// - Waypoint `i` is the planned position `i + 1` spacings after `now`, interpolated linearly
    ///   between the plan's waypoints. After its last waypoint the plan stays there, so a vehicle
    ///   whose plan has ended brakes to a stop.
    /// - Path points that the vehicle has passed are dropped, and the path is extended straight by
    ///   the same length, so that there is always a point ahead. Progress along the path is that of
    ///   the path point nearest to the vehicle.
    pub fn at(&self, now: Timestamp, world_from_ego: &Pose) -> Trajectory {
        let elapsed = now.since(self.made_at);
        if elapsed.is_zero() {
            return self.trajectory.clone();
        }
        let in_new_frame = |point: DVec2| {
            let point_in_world = self.world_from_ego.apply(point);
            world_from_ego.inverse_apply(point_in_world).as_vec2().to_array()
        };
        let ego = self.world_from_ego.inverse_apply(world_from_ego.position);
        let Trajectory { path, waypoints, spacing } = &self.trajectory;
        Trajectory {
            path: remaining_path(path, ego).into_iter().map(in_new_frame).collect(),
            waypoints: (0..waypoints.len())
                .map(|index| in_new_frame(waypoint(waypoints, *spacing, elapsed, index)))
                .collect(),
            spacing: *spacing,
        }
    }
}

/// Returns the planned position `index + 1` spacings after `elapsed`.
fn waypoint(waypoints: &[[f32; 2]], spacing: Duration, elapsed: Duration, index: usize) -> DVec2 {
    let spacing_ns = spacing.as_nanos().max(1);
    let passed = usize::try_from(elapsed.as_nanos() / spacing_ns).unwrap_or(usize::MAX);
    let part = (elapsed.as_nanos() % spacing_ns) as f64 / spacing_ns as f64;
    let last = waypoints.len() - 1;
    let before = passed.saturating_add(index).min(last);
    let after = (before + 1).min(last);
    double(waypoints[before]).lerp(double(waypoints[after]), part)
}

/// Returns the part of `path` ahead of `ego`; the path starts at the origin.
fn remaining_path(path: &[[f32; 2]], ego: DVec2) -> ArrayVec<DVec2, 32> {
    let Some(last) = path.last().copied().map(double) else { return ArrayVec::new() };
    // Squared distance of the nearest point so far, and its length along the path.
    let (mut nearest, mut passed_m) = (f64::INFINITY, 0.0);
    let mut consider = |point: DVec2, along_m: f64| {
        let distance = point.distance_squared(ego);
        if distance < nearest {
            (nearest, passed_m) = (distance, along_m);
        }
    };
    let (mut from, mut length_m, mut direction) = (DVec2::ZERO, 0.0, DVec2::X);
    let mut lengths_m: ArrayVec<f64, 32> = ArrayVec::new();
    for to in path.iter().copied().map(double) {
        let step_m = from.distance(to);
        if step_m > 0.0 {
            direction = (to - from) / step_m;
        }
        let along_m = (ego - from).dot(direction).clamp(0.0, step_m);
        consider(from + direction * along_m, length_m + along_m);
        length_m += step_m;
        lengths_m.push(length_m);
        from = to;
    }
    let beyond_m = (ego - last).dot(direction).max(0.0);
    consider(last + direction * beyond_m, length_m + beyond_m);

    let passed = lengths_m.partition_point(|&along_m| along_m <= passed_m);
    let mut ahead: ArrayVec<DVec2, 32> = path[passed..].iter().copied().map(double).collect();
    if passed > 0 {
        let end_m = passed_m + length_m.max(MIN_PATH_M);
        ahead.push(last + direction * (end_m - length_m));
    }
    ahead
}

fn double([x, y]: [f32; 2]) -> DVec2 {
    DVec2::new(f64::from(x), f64::from(y))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::f64::consts::PI;

    const SPACING: Duration = Duration::from_millis(500);

    fn at(millis: u64) -> Timestamp {
        Timestamp::after(Duration::from_millis(millis))
    }

    fn plan(path: &[[f32; 2]], waypoints: &[[f32; 2]], world_from_ego: Pose) -> Plan {
        let trajectory = Trajectory {
            path: path.iter().copied().collect(),
            waypoints: waypoints.iter().copied().collect(),
            spacing: SPACING,
        };
        Plan { trajectory, world_from_ego, made_at: at(1000) }
    }

    /// A straight plan at 4 m/s: waypoints 2 m apart, path points 1 m apart.
    fn straight(world_from_ego: Pose) -> Plan {
        let path: Vec<_> = (1..=20).map(|index| [index as f32, 0.0]).collect();
        let waypoints: Vec<_> = (1..=6).map(|index| [2.0 * index as f32, 0.0]).collect();
        plan(&path, &waypoints, world_from_ego)
    }

    fn close(found: &[[f32; 2]], expected: &[[f32; 2]]) -> bool {
        found.len() == expected.len()
            && found.iter().flatten().zip(expected.iter().flatten()).all(|(a, b)| {
                // Tolerates a few roundings to single precision.
                (a - b).abs() < 1e-6 * (1.0 + a.abs().max(b.abs()))
            })
    }

    #[test]
    fn plan_of_this_tick_is_unchanged_for_any_pose() {
        let plan = plan(&[[0.1, -0.0]], &[[0.3, 0.7], [1.0e-30, 3.0]], Pose::new(1.0, 2.0, 3.0));
        assert_eq!(plan.at(plan.made_at, &plan.world_from_ego), plan.trajectory);
        assert_eq!(plan.at(plan.made_at, &Pose::default()), plan.trajectory);
    }

    #[test]
    fn vehicle_on_plan_gets_the_remaining_plan() {
        let start = Pose::new(100.0, -50.0, 0.7);
        let plan = straight(start);
        // 300 ms at 4 m/s.
        let pose = Pose { position: start.apply(DVec2::new(1.2, 0.0)), ..start };
        let seen = plan.at(at(1300), &pose);
        let waypoints = [2.0, 4.0, 6.0, 8.0, 10.0, 10.8].map(|x| [x, 0.0]);
        assert!(close(&seen.waypoints, &waypoints), "{seen:?}");
        let ahead = (0..19).map(|index| [0.8 + index as f32, 0.0]);
        let expected: Vec<_> = ahead.chain([[20.0, 0.0]]).collect();
        assert!(close(&seen.path, &expected), "{seen:?}");
    }

    #[test]
    fn expired_plan_stays_at_its_last_waypoint() {
        let start = Pose::default();
        let plan = straight(start);
        let seen = plan.at(at(1000 + 2750), &start);
        assert!(close(&seen.waypoints, &[[12.0, 0.0]; 6]), "the next is after the end: {seen:?}");
        let seen = plan.at(at(1000 + 2250), &start);
        let [first, second, ..] = seen.waypoints[..] else { panic!("{seen:?}") };
        assert!(close(&[first, second], &[[11.0, 0.0], [12.0, 0.0]]), "it slows down: {seen:?}");
        assert!(close(&plan.at(at(1_000_000), &start).waypoints, &[[12.0, 0.0]; 6]));
    }

    #[test]
    fn passed_path_is_extended_straight() {
        let start = Pose::default();
        let seen = straight(start).at(at(2000), &Pose::new(30.0, 1.0, 0.0));
        assert!(close(&seen.path, &[[20.0, -1.0]]), "{seen:?}");
        let standing = plan(&[[0.0; 2]; 3], &[[0.0; 2]; 2], start);
        let seen = standing.at(at(1050), &Pose::new(0.5, 0.02, 0.0));
        assert!(close(&seen.path, &[[3.0, -0.02]]), "no turn on the spot: {seen:?}");
        assert_eq!(plan(&[], &[], start).at(at(1050), &start).path.len(), 0);
    }

    #[test]
    fn path_point_is_dropped_when_vehicle_reaches_it() {
        let bend = [[5.0, 0.0], [5.0, 5.0], [0.0, 5.0]];
        let plan = plan(&bend, &[], Pose::default());
        let points = |x, y| plan.at(at(1050), &Pose::new(x, y, 0.0)).path.len();
        assert_eq!((points(4.9, 0.1), points(5.1, 0.2), points(4.9, 4.7)), (3, 3, 3));
        let first = |x, y| plan.at(at(1050), &Pose::new(x, y, 0.0)).path[0];
        assert_eq!((first(4.0, 0.0), first(5.0, 1.0)), ([1.0, 0.0], [0.0, 4.0]));
        assert_eq!(first(-3.0, 0.0), [8.0, 0.0], "the path starts ahead of the vehicle");
        let seen = plan.at(at(1050), &Pose::new(7.0, 1.5, 0.0)).path;
        assert_eq!(seen[2], [-13.5, 3.5], "after the bend, not beyond the end of its first part");
    }

    fn pose() -> impl Strategy<Value = Pose> {
        (-1000.0..1000.0, -1000.0..1000.0, -PI..PI).prop_map(|(x, y, yaw)| Pose::new(x, y, yaw))
    }

    fn points(most: usize) -> impl Strategy<Value = Vec<[f32; 2]>> {
        prop::collection::vec([-20.0_f32..20.0, -20.0_f32..20.0], 1..=most)
    }

    proptest! {
        /// The result depends on the motion since planning, not on the place in the world.
        #[test]
        fn seen_plan_is_independent_of_world_frame(
            path in points(32), waypoints in points(16), start in pose(), moved in pose(),
            world in pose(), elapsed_ms in 1..4000_u64,
        ) {
            let then = |outer: &Pose, inner: &Pose| Pose {
                position: outer.apply(inner.position),
                yaw_rad: outer.yaw_rad + inner.yaw_rad,
            };
            // Motions are scaled to within 10 m. Which points are dropped depends on distances
            // only, on which the two worlds agree far below the spacing of points.
            let moved = Pose { position: moved.position / 100.0, ..moved };
            let end = then(&start, &moved);
            let here = plan(&path, &waypoints, start).at(at(1000 + elapsed_ms), &end);
            let there = plan(&path, &waypoints, then(&world, &start))
                .at(at(1000 + elapsed_ms), &then(&world, &end));
            prop_assert!(close(&here.path, &there.path), "{here:?} {there:?}");
            prop_assert!(close(&here.waypoints, &there.waypoints), "{here:?} {there:?}");
        }

        /// Remaining path points keep their place in the world and their order.
        #[test]
        fn path_stays_where_it_is_in_the_world(
            path in points(32), start in pose(), moved in pose(), elapsed_ms in 1..4000_u64,
        ) {
            let end = Pose {
                position: start.apply(moved.position / 100.0),
                yaw_rad: moved.yaw_rad,
            };
            let seen = plan(&path, &[], start).at(at(1000 + elapsed_ms), &end).path;
            let dropped = (path.len() + 1).saturating_sub(seen.len());
            let (kept, added) = if seen.len() == path.len() && dropped == 1 {
                // Either no point was dropped, or one was dropped and one added.
                let is_first = (start.apply(double(path[0])) - end.apply(double(seen[0]))).length();
                if is_first < 1e-4 { (0, 0) } else { (1, 1) }
            } else {
                (dropped, 1)
            };
            prop_assert_eq!(seen.len(), path.len() - kept + added);
            for (seen, was) in seen.iter().zip(&path[kept..]) {
                let apart = end.apply(double(*seen)).distance(start.apply(double(*was)));
                prop_assert!(apart < 1e-4, "{apart} m");
            }
        }

        // At constant velocity, shifted waypoints are at the planned positions for their times.
        #[test]
        fn waypoints_keep_their_place_at_their_time(
            start in pose(), end in pose(), velocity in [-15.0_f64..15.0, -15.0_f64..15.0],
            elapsed_ms in 1..5000_u64,
        ) {
            let velocity = DVec2::from_array(velocity);
            let place = |seconds: f64| velocity * seconds.min(3.0);
            let waypoints: Vec<[f32; 2]> =
                (1..=6).map(|n| place(0.5 * f64::from(n)).as_vec2().to_array()).collect();
            let seen = plan(&[[1.0, 0.0]], &waypoints, start).at(at(1000 + elapsed_ms), &end);
            for (index, seen) in (1..).zip(&seen.waypoints) {
                let seconds = elapsed_ms as f64 / 1e3 + 0.5 * f64::from(index);
                let expected = start.apply(place(seconds));
                let apart = end.apply(double(*seen)).distance(expected);
                // Coordinates are single precision, up to 3 km from the vehicle.
                prop_assert!(apart < 1e-3, "{apart} m");
            }
        }
    }
}
