//! Other vehicles.
//!
//! Parked vehicles stand on the strip at the right. Some vehicles drive ahead of us along the
//! route, some come toward us on the opposite lane. They keep their distance with the intelligent
//! driver model, slow down in bends, and are not affected by what the ego vehicle does unless it is
//! ahead of them in their lane.

use super::boxes::UprightBox;
use super::noise::Noise;
use super::road::{LANE_WIDTH_M, Road};
use super::vehicle::EGO_EXTENT_M;
use crate::scene::{ActorKind, ActorState, Pose, wrap_angle};
use crate::world::TICK_S;

/// Blueprint names with half sizes in meters, as in CARLA's catalogue.
const CATALOGUE: [(&str, [f64; 3]); 9] = [
    ("vehicle.tesla.model3", [2.396, 1.082, 0.744]),
    ("vehicle.audi.tt", [2.091, 0.997, 0.693]),
    ("vehicle.audi.etron", [2.428, 1.016, 0.825]),
    ("vehicle.toyota.prius", [2.257, 1.003, 0.762]),
    ("vehicle.ford.mustang", [2.359, 0.947, 0.650]),
    ("vehicle.chevrolet.impala", [2.679, 1.017, 0.706]),
    ("vehicle.mini.cooper_s", [1.903, 0.985, 0.738]),
    ("vehicle.nissan.patrol", [2.302, 0.966, 0.928]),
    ("vehicle.volkswagen.t2", [2.240, 1.035, 1.019]),
];

/// Nothing is placed this far along the route before and after the ego's spawn, meters.
const FREE_AROUND_SPAWN_M: f64 = 14.0;

/// Parked vehicles leave this much room beside the line of the route, meters.
const ROUTE_CLEARANCE_M: f64 = 1.9;

/// Room that oncoming traffic must have everywhere, from center to center, meters.
const ONCOMING_CLEARANCE_M: f64 = 3.2;

/// The gap that a vehicle with nobody ahead reckons with, meters.
const FREE_ROAD_M: f64 = 1e3;

/// Lateral acceleration that traffic drives bends with, m/s².
const COMFORTABLE_LATERAL_MPS2: f64 = 1.8;

/// The intelligent driver model of the traffic (not of the autopilot).
mod idm {
    pub(super) const ACCELERATION_MPS2: f64 = 1.8;
    pub(super) const DECELERATION_MPS2: f64 = 2.5;
    pub(super) const HEADWAY_S: f64 = 1.3;
    pub(super) const STANDSTILL_M: f64 = 4.0;

    /// Acceleration behind something that drives `lead_mps` with `gap_m` in between, m/s².
    pub(super) fn acceleration_mps2(v: f64, desired: f64, gap_m: f64, lead_mps: f64) -> f64 {
        let brake = 2.0 * (ACCELERATION_MPS2 * DECELERATION_MPS2).sqrt();
        let wanted_m = STANDSTILL_M + (v * HEADWAY_S + v * (v - lead_mps) / brake).max(0.0);
        let free = 1.0 - (v / desired).powi(4);
        (ACCELERATION_MPS2 * (free - (wanted_m / gap_m.max(0.1)).powi(2))).max(-8.0)
    }
}

/// Which way a vehicle drives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Course {
    /// Along the route, with its lane changes.
    WithRoute,
    /// Toward us, on the opposite lane.
    Oncoming,
}

impl Course {
    /// 1 along the road's stations, −1 against them.
    fn sign(self) -> f64 {
        match self {
            Self::WithRoute => 1.0,
            Self::Oncoming => -1.0,
        }
    }
}

/// Where on its course something is.
#[derive(Clone, Copy)]
struct OnLane {
    course: Course,
    /// Meters from the road's first station.
    along_m: f64,
    /// Along its course, m/s.
    speed_mps: f64,
    /// Half length, meters.
    half_m: f64,
}

impl OnLane {
    /// Gap in meters to `other`, if it is ahead in the same lane, and its speed in m/s.
    fn gap_to(&self, other: &Self) -> Option<(f64, f64)> {
        let ahead_m = (other.along_m - self.along_m) * self.course.sign();
        (other.course == self.course && ahead_m > 0.0)
            .then_some((ahead_m - self.half_m - other.half_m, other.speed_mps))
    }
}

/// A vehicle that drives.
#[derive(Clone, Debug)]
struct Mover {
    /// Its place among the actors.
    actor: usize,
    course: Course,
    /// Meters from the road's first station.
    along_m: f64,
    desired_mps: f64,
}

/// Every vehicle but ours.
#[derive(Debug)]
pub(super) struct Traffic {
    actors: Vec<ActorState>,
    movers: Vec<Mover>,
    /// Bends: the speed that traffic drives at each station, m/s.
    bend_mps: Vec<f64>,
}

impl Traffic {
    /// Places traffic; `seed` decides on all of it.
    pub(super) fn new(road: &Road, speed_limit_mps: f64, seed: u64) -> Self {
        let mut traffic =
            Self { actors: Vec::new(), movers: Vec::new(), bend_mps: bend_speeds(road) };
        traffic.park(road, &mut Noise::new(seed, 1, 0));
        traffic.send_ahead(road, speed_limit_mps, &mut Noise::new(seed, 2, 0));
        traffic.send_toward(road, speed_limit_mps, &mut Noise::new(seed, 3, 0));
        traffic
    }

    /// All vehicles, parked ones first.
    pub(super) fn actors(&self) -> &[ActorState] {
        &self.actors
    }

    /// Speeds of the vehicles that drive, m/s.
    pub(super) fn speeds_mps(&self) -> impl Iterator<Item = f64> + '_ {
        self.movers.iter().map(|mover| self.actors[mover.actor].speed_mps)
    }

    /// Moves everybody on by one tick.
    pub(super) fn advance(&mut self, road: &Road, ego: &Pose, ego_mps: f64) {
        let mut before: Vec<OnLane> = self
            .movers
            .iter()
            .map(|mover| {
                let ActorState { speed_mps, extent_m, .. } = self.actors[mover.actor];
                let &Mover { course, along_m, .. } = mover;
                OnLane { course, along_m, speed_mps, half_m: extent_m[0] }
            })
            .collect();
        before.extend(ego_on_lane(road, ego, ego_mps));
        for (mover, own) in self.movers.iter_mut().zip(&before) {
            let (gap_m, lead_mps) = before
                .iter()
                .filter_map(|other| own.gap_to(other))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .unwrap_or((FREE_ROAD_M, own.speed_mps));
            let desired_mps = mover.desired_mps.min(self.bend_mps[own.along_m as usize]);
            let change_mps2 = idm::acceleration_mps2(own.speed_mps, desired_mps, gap_m, lead_mps);
            let speed_mps = (own.speed_mps + change_mps2 * TICK_S).max(0.0);
            mover.along_m += own.course.sign() * speed_mps * TICK_S;
            let actor = &mut self.actors[mover.actor];
            actor.speed_mps = speed_mps;
            (actor.pose, actor.z_m) = pose_on(road, mover.course, mover.along_m);
        }
        self.remove_who_left((road.stations().len() - 1) as f64);
    }

    /// Who reaches an end of the road is gone.
    fn remove_who_left(&mut self, end_m: f64) {
        let left = |mover: &Mover| mover.along_m <= 0.5 || mover.along_m >= end_m - 0.5;
        while let Some(idx) = self.movers.iter().position(left) {
            let actor = self.movers.remove(idx).actor;
            self.actors.remove(actor);
            for mover in self.movers.iter_mut().filter(|mover| mover.actor > actor) {
                mover.actor -= 1;
            }
        }
    }

    /// A vehicle of a model chosen by `noise`, not yet placed among the others.
    fn vehicle(&self, noise: &mut Noise, (pose, z_m): (Pose, f64), speed_mps: f64) -> ActorState {
        let (type_id, extent_m) = CATALOGUE[noise.below(CATALOGUE.len())];
        let id = self.actors.len() as u32 + 1;
        ActorState {
            id,
            kind: ActorKind::Vehicle,
            type_id,
            pose,
            z_m,
            speed_mps,
            acceleration_mps2: 0.0,
            yaw_rate_radps: 0.0,
            extent_m,
        }
    }

    fn send(&mut self, road: &Road, noise: &mut Noise, mover: Mover, speed_mps: f64) {
        let place = pose_on(road, mover.course, mover.along_m);
        let actor = self.vehicle(noise, place, speed_mps);
        self.movers.push(Mover { actor: self.actors.len(), ..mover });
        self.actors.push(actor);
    }

    fn park(&mut self, road: &Road, noise: &mut Noise) {
        let spawn_m = road.route_stations().0 as f64;
        let end_m = (road.stations().len() - 1) as f64;
        let mut along_m = noise.between(4.0, 14.0);
        while along_m < end_m - 4.0 {
            let jitter_m = noise.between(-0.1, 0.25);
            let (mut pose, z_m) = road.pose_at(along_m, road.parking().aside_m + jitter_m);
            pose.yaw_rad += noise.normal(0.02);
            let vehicle = self.vehicle(noise, (pose, z_m), 0.0);
            let at_spawn = (along_m - spawn_m).abs() < FREE_AROUND_SPAWN_M;
            let in_junction = |offset_m: f64| {
                road.stations()[(along_m + offset_m).clamp(0.0, end_m) as usize].is_junction
            };
            let free = is_clear(road, &UprightBox::of(&vehicle));
            if free && !at_spawn && !in_junction(-6.0) && !in_junction(6.0) {
                self.actors.push(vehicle);
            }
            along_m += noise.between(6.5, 28.0);
        }
    }

    fn send_ahead(&mut self, road: &Road, speed_limit_mps: f64, noise: &mut Noise) {
        let (spawn, end) = road.route_stations();
        let mut along_m = spawn as f64 + noise.between(24.0, 40.0);
        let n = 1 + noise.below(3);
        for _ in 0..n {
            if along_m > end as f64 {
                break;
            }
            let desired_mps = noise.between(0.5, 0.8) * speed_limit_mps;
            let speed_mps = desired_mps.min(self.bend_mps[along_m as usize]) * 0.7;
            let mover = Mover { actor: 0, course: Course::WithRoute, along_m, desired_mps };
            self.send(road, noise, mover, speed_mps);
            along_m += noise.between(18.0, 35.0);
        }
    }

    fn send_toward(&mut self, road: &Road, speed_limit_mps: f64, noise: &mut Noise) {
        let lane = road.driving_lanes()[0];
        let has_room = road.stations().iter().all(|station| {
            road.distance_to_route_m(station.aside(lane.aside_m)) >= ONCOMING_CLEARANCE_M
        });
        if !has_room {
            return;
        }
        let end_m = (road.stations().len() - 2) as f64;
        let mut along_m = road.route_stations().0 as f64 + noise.between(25.0, 60.0);
        while along_m < end_m {
            let desired_mps = noise.between(0.55, 0.85) * speed_limit_mps;
            let speed_mps = desired_mps.min(self.bend_mps[along_m as usize]);
            let mover = Mover { actor: 0, course: Course::Oncoming, along_m, desired_mps };
            self.send(road, noise, mover, speed_mps);
            along_m += noise.between(25.0, 70.0);
        }
    }
}

/// Where a vehicle on `course` is, and the height there.
fn pose_on(road: &Road, course: Course, along_m: f64) -> (Pose, f64) {
    let half_base_m = 1.5;
    let place = |along_m: f64| match course {
        Course::WithRoute => road.pose_at(along_m, road.route_aside_m(along_m)),
        Course::Oncoming => road.pose_at(along_m, road.driving_lanes()[0].aside_m),
    };
    // The axles follow the lane.
    let (back, low) = place(along_m - half_base_m);
    let (front, high) = place(along_m + half_base_m);
    let ahead = match course {
        Course::WithRoute => front.position - back.position,
        Course::Oncoming => back.position - front.position,
    };
    let position = (front.position + back.position) / 2.0;
    (Pose { position, yaw_rad: ahead.to_angle() }, (low + high) / 2.0)
}

/// The ego vehicle as traffic sees it, if it is in a lane that traffic drives in.
fn ego_on_lane(road: &Road, ego: &Pose, ego_mps: f64) -> Option<OnLane> {
    let idx = road.nearest_station(ego.position);
    let station = &road.stations()[idx];
    let offset = station.pose.inverse_apply(ego.position);
    let near = |aside_m: f64| (offset.y - aside_m).abs() < LANE_WIDTH_M / 2.0 + 0.5;
    let course = if near(station.route_aside_m) {
        Course::WithRoute
    } else if near(road.driving_lanes()[0].aside_m) {
        Course::Oncoming
    } else {
        return None;
    };
    let along = wrap_angle(ego.yaw_rad - station.pose.yaw_rad).cos();
    Some(OnLane {
        course,
        along_m: idx as f64 + offset.x,
        speed_mps: ego_mps * along * course.sign(),
        half_m: EGO_EXTENT_M[0],
    })
}

/// The speed for the bends in the next meters, at each station, m/s.
fn bend_speeds(road: &Road) -> Vec<f64> {
    let stations = road.stations();
    let last = stations.len() - 1;
    let here: Vec<f64> = (0..=last)
        .map(|idx| {
            let (a, b) = (&stations[idx.saturating_sub(3)], &stations[(idx + 3).min(last)]);
            let turned = wrap_angle(b.pose.yaw_rad - a.pose.yaw_rad).abs();
            let length = a.pose.position.distance(b.pose.position);
            (COMFORTABLE_LATERAL_MPS2 * length / turned.max(1e-6)).sqrt().min(60.0)
        })
        .collect();
    // Both courses brake for a bend before they are in it.
    let braking = |from: usize, to: usize| {
        (here[to].powi(2) + 2.0 * idm::DECELERATION_MPS2 * 0.6 * from.abs_diff(to) as f64).sqrt()
    };
    (0..=last)
        .map(|idx| {
            (idx.saturating_sub(40)..=(idx + 40).min(last))
                .map(|to| braking(idx, to))
                .fold(f64::INFINITY, f64::min)
        })
        .collect()
}

/// True if `shape` leaves the route free.
fn is_clear(road: &Road, shape: &UprightBox) -> bool {
    road.plan()
        .points
        .iter()
        .all(|point| shape.distance_m(point.position.truncate()) >= ROUTE_CLEARANCE_M)
}

#[cfg(test)]
mod tests {
    use super::super::road::bare_route;
    use super::*;
    use glam::DVec3;

    fn straight_road() -> Road {
        let key_points = (0..101).map(|i| DVec3::new(2.0 * f64::from(i), 0.0, 0.0)).collect();
        Road::new(&bare_route(1, key_points)).unwrap()
    }

    #[test]
    fn the_same_seed_places_the_same_traffic_and_another_seed_does_not() {
        let road = straight_road();
        let place = |seed| Traffic::new(&road, 13.9, seed).actors;
        assert_eq!(place(5), place(5));
        assert_ne!(place(5), place(6));
    }

    #[test]
    fn the_route_is_free_of_parked_vehicles() {
        let road = straight_road();
        for seed in 0..30 {
            let traffic = Traffic::new(&road, 13.9, seed);
            let parked = traffic.actors.iter().filter(|actor| actor.speed_mps == 0.0);
            assert!(parked.clone().count() > 3);
            for shape in parked.map(UprightBox::of) {
                assert!(is_clear(&road, &shape), "{shape:?}");
            }
        }
    }

    #[test]
    fn traffic_keeps_its_distance_and_leaves_in_the_end() {
        let road = straight_road();
        let mut traffic = Traffic::new(&road, 13.9, 3);
        let ego = Pose::new(0.0, 0.0, 0.0);
        for _ in 0..4000 {
            traffic.advance(&road, &ego, 0.0);
            let boxes: Vec<_> = traffic.actors.iter().map(UprightBox::of).collect();
            for (idx, a) in boxes.iter().enumerate() {
                for b in &boxes[idx + 1..] {
                    assert!(!super::super::boxes::footprints_overlap(a, b), "{a:?} {b:?}");
                }
            }
        }
        assert_eq!(traffic.movers.len(), 0);
    }
}
