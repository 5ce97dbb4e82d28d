//! Ordinary traffic: parked vehicles, vehicles in the ego lane and in adjacent lanes, and oncoming
//! vehicles. Moving vehicles use the intelligent driver model and slow down in bends.

use super::blueprints::{Blueprint, any_car};
use super::follower::{Follower, idm};
use super::list::{Actors, EGO};
use crate::noise::Noise;
use crate::road::Road;
use crate::road::lane::Lane;
use crate::road::track::{Track, TrackPlace};
use std::sync::Arc;
use tandem_scene::UprightBox;
use tandem_scene::{ActorKind, ActorState, EgoState, Pose, TICK_S, wrap_angle};

/// No vehicle is placed within this distance along the route from the ego
/// vehicle's spawn point, meters.
const FREE_AROUND_SPAWN_M: f64 = 14.0;

/// Minimum distance of parked vehicles from the route line, meters.
const ROUTE_CLEARANCE_M: f64 = 1.9;

/// Minimum distance between the route and an oncoming lane, center to center, meters.
const ONCOMING_CLEARANCE_M: f64 = 3.2;

/// Lateral acceleration of traffic in bends, m/s².
const COMFORTABLE_LATERAL_MPS2: f64 = 1.8;

/// Comfortable deceleration before a bend, m/s².
const BEND_BRAKING_MPS2: f64 = 0.6 * idm::DECELERATION_MPS2;

/// Deceleration of the vehicles ahead when a scenario makes them brake, m/s².
const HARD_BRAKING_MPS2: f64 = 6.0;

/// How a vehicle chooses its speed on a free road.
#[derive(Clone, Copy, Debug)]
enum SpeedPolicy {
    /// Drives at a constant speed, m/s.
    Steady(f64),
    /// Stays ahead of the ego vehicle: waits when the ego vehicle is far away,
    /// drives on when it is close.
    Leading,
}

/// Restrictions that scenarios put on ordinary traffic for one tick.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct TrafficOverride {
    /// Upper limit of the speed, m/s.
    pub(crate) limit_mps: Option<f64>,
    /// True if the vehicles ahead of the ego vehicle in its lane brake to a stop.
    pub(crate) brakes: bool,
}

/// A moving vehicle of ordinary traffic.
#[derive(Debug)]
struct TrafficVehicle {
    follower: Follower,
    speed_policy: SpeedPolicy,
    /// Speed that the bends allow at each meter of the track, m/s.
    bend_mps: Arc<Vec<f64>>,
}

/// A track for traffic, with the speeds that its bends allow.
struct TrafficTrack {
    track: Arc<Track>,
    /// Speed that the bends allow at each meter of the track, m/s.
    bend_mps: Arc<Vec<f64>>,
}

impl TrafficTrack {
    fn new(track: Arc<Track>) -> Self {
        Self { bend_mps: Arc::new(bend_speeds(&track)), track }
    }
}

/// Initial speed and speed policy of a vehicle.
struct Pace {
    speed_mps: f64,
    speed_policy: SpeedPolicy,
}

/// The moving vehicles of ordinary traffic.
#[derive(Debug)]
pub(crate) struct Traffic {
    vehicles: Vec<TrafficVehicle>,
    limit_mps: f64,
}

impl Traffic {
    /// Spawns the traffic that the road's layout specifies; `seed` determines all of it.
    pub(crate) fn new(road: &Road, actors: &mut Actors, seed: u64) -> Self {
        let layout = road.layout();
        let limit_mps = layout.speed_limit_kmh / 3.6;
        let mut traffic = Self { vehicles: Vec::new(), limit_mps };
        park(road, actors, &mut Noise::new(seed, 1, 0));
        if layout.traffic_ahead {
            traffic.spawn_ahead(road, actors, &mut Noise::new(seed, 2, 0));
        }
        if layout.traffic_oncoming {
            traffic.spawn_oncoming(road, actors, &mut Noise::new(seed, 3, 0));
        }
        if layout.traffic_beside {
            traffic.spawn_adjacent(road, actors, &mut Noise::new(seed, 4, 0));
        }
        traffic
    }

    /// Returns the speeds of the moving vehicles, m/s.
    pub(crate) fn speeds_mps(&self) -> impl Iterator<Item = f64> + '_ {
        self.vehicles.iter().map(|vehicle| vehicle.follower.speed_mps())
    }

    /// Advances all vehicles by one tick.
    pub(crate) fn advance(
        &mut self,
        actors: &mut Actors,
        ego: &EgoState,
        overrides: TrafficOverride,
    ) {
        let limit_mps = overrides.limit_mps.unwrap_or(f64::INFINITY).min(self.limit_mps);
        for vehicle in &mut self.vehicles {
            let desired_mps = match vehicle.speed_policy {
                SpeedPolicy::Steady(speed_mps) => speed_mps.min(limit_mps),
                SpeedPolicy::Leading if overrides.brakes => {
                    let braked_mps = vehicle.follower.speed_mps() - HARD_BRAKING_MPS2 * TICK_S;
                    vehicle.follower.advance(actors, braked_mps.max(0.0));
                    continue;
                }
                SpeedPolicy::Leading => limit_mps * lead_share(&vehicle.follower, ego),
            };
            let here =
                (vehicle.follower.along_m().max(0.0) as usize).min(vehicle.bend_mps.len() - 1);
            vehicle.follower.follow(actors, desired_mps.min(vehicle.bend_mps[here]));
        }
        self.vehicles.retain(|vehicle| {
            let has_arrived = vehicle.follower.has_arrived();
            if has_arrived {
                actors.remove(vehicle.follower.id());
            }
            !has_arrived
        });
    }

    /// Spawns a vehicle unless another actor is too close.
    fn spawn(
        &mut self,
        actors: &mut Actors,
        blueprint: &Blueprint,
        traffic_track: &TrafficTrack,
        along_m: f64,
        pace: Pace,
    ) {
        let TrafficTrack { track, bend_mps } = traffic_track;
        let Pace { speed_mps, speed_policy } = pace;
        let (pose, _) = track.pose_at(along_m, 0.0);
        let near = |other: &ActorState| other.pose.position.distance(pose.position);
        let is_taken = actors.all().any(|other| {
            near(other) < blueprint.extent_m[0] + other.extent_m[0] + 3.0
                && (other.id == EGO || other.kind != ActorKind::Static)
                && (track.locate(other.pose.position).1).abs() < 2.2
        });
        if !is_taken {
            let speed_mps = speed_mps.min(bend_mps[along_m.max(0.0) as usize]);
            let follower =
                Follower::spawn(actors, blueprint, track, TrackPlace::on_line(along_m), speed_mps);
            self.vehicles.push(TrafficVehicle {
                follower,
                speed_policy,
                bend_mps: Arc::clone(bend_mps),
            });
        }
    }

    fn spawn_ahead(&mut self, road: &Road, actors: &mut Actors, noise: &mut Noise) {
        let (spawn, end) = road.route_stations();
        // These vehicles do not follow the lane changes of the route: side by side,
        // they would block each other.
        let track = road.lane_track(0.0);
        let traffic_track = TrafficTrack::new(track);
        let mut along_m = spawn as f64 + noise.between(20.0, 30.0);
        for _ in 0..2 + noise.below(2) {
            if along_m > end as f64 {
                break;
            }
            let speed_mps = 0.4 * self.limit_mps;
            let pace = Pace { speed_mps, speed_policy: SpeedPolicy::Leading };
            self.spawn(actors, &any_car(noise), &traffic_track, along_m, pace);
            along_m += noise.between(15.0, 22.0);
        }
    }

    fn spawn_oncoming(&mut self, road: &Road, actors: &mut Actors, noise: &mut Noise) {
        let Some(track) = road.oncoming_track() else { return };
        let has_room = |place: &glam::DVec3| {
            road.distance_to_route_m(place.truncate()) >= ONCOMING_CLEARANCE_M
        };
        if !track.places().iter().all(has_room) {
            return;
        }
        let traffic_track = TrafficTrack::new(track);
        let first_m = traffic_track.track.length_m() - road.route_stations().0 as f64;
        let mut along_m = first_m - noise.between(25.0, 60.0);
        while along_m > 2.0 {
            let speed_mps = noise.between(0.55, 0.85) * self.limit_mps;
            let pace = Pace { speed_mps, speed_policy: SpeedPolicy::Steady(speed_mps) };
            self.spawn(actors, &any_car(noise), &traffic_track, along_m, pace);
            along_m -= noise.between(25.0, 70.0);
        }
    }

    /// Spawns vehicles in the other lanes of the route's direction.
    fn spawn_adjacent(&mut self, road: &Road, actors: &mut Actors, noise: &mut Noise) {
        let spawn_m = road.route_stations().0 as f64;
        let own = |lane: &&Lane| lane.with_route() && lane.aside_m.abs() > 1.0;
        for lane in road.driving_lanes().iter().filter(own) {
            let track = road.lane_track(lane.aside_m);
            let traffic_track = TrafficTrack::new(track);
            let mut along_m = noise.between(4.0, 16.0);
            while along_m < spawn_m + 110.0 {
                let speed_mps = noise.between(0.55, 0.75) * self.limit_mps;
                let pace = Pace { speed_mps, speed_policy: SpeedPolicy::Steady(speed_mps) };
                self.spawn(actors, &any_car(noise), &traffic_track, along_m, pace);
                along_m += noise.between(22.0, 45.0);
            }
        }
    }
}

/// Returns the fraction of the speed limit at which a vehicle ahead drives so that it stays near
/// the ego vehicle: the rule of the benchmark's background traffic.
fn lead_share(follower: &Follower, ego: &EgoState) -> f64 {
    let (place, _) = follower.track().pose_at(follower.along_m(), follower.aside_m());
    let offset = place.position - ego.pose.position;
    if offset.dot(ego.pose.forward()) < 0.0 && offset.length() < 60.0 {
        return 1.0;
    }
    let (near_m, far_m) = (30.0 + 1.7 * ego.speed_mps, 45.0 + 1.7 * ego.speed_mps);
    ((far_m - offset.length()) / (far_m - near_m)).clamp(0.0, 1.0)
}

fn park(road: &Road, actors: &mut Actors, noise: &mut Noise) {
    let Some(parking) = road.parking() else { return };
    let turned_rad = if parking.aside_m < 0.0 { std::f64::consts::PI } else { 0.0 };
    let turned_rad = if road.layout().opposite == 0 { 0.0 } else { turned_rad };
    let spawn_m = road.route_stations().0 as f64;
    let end_m = (road.stations().len() - 1) as f64;
    let mut along_m = noise.between(4.0, 14.0);
    while along_m < end_m - 4.0 {
        let jitter_m = noise.between(-0.1, 0.25);
        let (mut pose, z_m) = road.pose_at(along_m, parking.aside_m + jitter_m);
        pose.yaw_rad = wrap_angle(pose.yaw_rad + turned_rad + noise.normal(0.02));
        let blueprint = any_car(noise);
        let shape = UprightBox { pose, bottom_m: z_m, extent_m: blueprint.extent_m };
        let at_spawn = (along_m - spawn_m).abs() < FREE_AROUND_SPAWN_M;
        let in_junction = |offset_m: f64| {
            road.stations()[(along_m + offset_m).clamp(0.0, end_m) as usize].is_junction
        };
        let is_kept_free = road.layout().keeps_free(along_m - spawn_m);
        if is_clear(road, &shape)
            && !at_spawn
            && !is_kept_free
            && !in_junction(-6.0)
            && !in_junction(6.0)
        {
            actors.spawn(&blueprint, pose, z_m, 0.0);
        }
        along_m += noise.between(6.5, 28.0);
    }
}

/// Returns the speed that the bends ahead allow, at each meter of a track, m/s.
fn bend_speeds(track: &Track) -> Vec<f64> {
    let length_m = track.length_m();
    let heading = |along_m: f64| track.pose_at(along_m.clamp(0.0, length_m), 0.0).0;
    let n = length_m as usize + 2;
    let mut speeds: Vec<f64> = (0..n)
        .map(|idx| {
            let (a, b): (Pose, Pose) = (heading(idx as f64 - 3.0), heading(idx as f64 + 3.0));
            let turned_rad = wrap_angle(b.yaw_rad - a.yaw_rad).abs();
            let length_m = a.position.distance(b.position);
            (COMFORTABLE_LATERAL_MPS2 * length_m / turned_rad.max(1e-6)).sqrt().min(60.0)
        })
        .collect();
    for idx in (0..n - 1).rev() {
        speeds[idx] = speeds[idx].min((speeds[idx + 1].powi(2) + 2.0 * BEND_BRAKING_MPS2).sqrt());
    }
    speeds
}

/// Returns true if `shape` keeps clear of the route.
fn is_clear(road: &Road, shape: &UprightBox) -> bool {
    road.plan()
        .points
        .iter()
        .all(|point| shape.distance_m(point.position.truncate()) >= ROUTE_CLEARANCE_M)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::road::fixtures::bare_route;
    use glam::DVec3;
    use tandem_scene::footprints_overlap;
    use tandem_scene::vehicle::EGO_EXTENT_M;

    fn straight_road() -> Road {
        let key_points = (0..101).map(|i| DVec3::new(2.0 * f64::from(i), 0.0, 0.0)).collect();
        Road::new(&bare_route(1, key_points)).unwrap()
    }

    fn standing_ego() -> EgoState {
        EgoState {
            pose: Pose::default(),
            z_m: 0.0,
            speed_mps: 0.0,
            yaw_rate_radps: 0.0,
            acceleration_mps2: 0.0,
            extent_m: EGO_EXTENT_M,
        }
    }

    fn traffic(road: &Road, seed: u64) -> (Actors, Traffic) {
        let mut actors = Actors::new(&standing_ego());
        let traffic = Traffic::new(road, &mut actors, seed);
        (actors, traffic)
    }

    #[test]
    fn traffic_placement_depends_on_the_seed() {
        let road = straight_road();
        let place = |seed| traffic(&road, seed).0.others().to_vec();
        assert_eq!(place(5), place(5));
        assert_ne!(place(5), place(6));
    }

    #[test]
    fn route_is_free_of_parked_vehicles() {
        let road = straight_road();
        for seed in 0..30 {
            let (actors, _) = traffic(&road, seed);
            let parked = actors.others().iter().filter(|actor| actor.speed_mps == 0.0);
            assert!(parked.clone().count() > 3);
            for shape in parked.map(UprightBox::of) {
                assert!(is_clear(&road, &shape), "{shape:?}");
            }
        }
    }

    #[test]
    fn traffic_never_overlaps_and_oncoming_vehicles_leave() {
        let road = straight_road();
        let (mut actors, mut traffic) = traffic(&road, 3);
        let ego = standing_ego();
        for _ in 0..2000 {
            traffic.advance(&mut actors, &ego, TrafficOverride::default());
            let boxes: Vec<_> = actors.others().iter().map(UprightBox::of).collect();
            for (idx, a) in boxes.iter().enumerate() {
                for b in &boxes[idx + 1..] {
                    assert!(!footprints_overlap(a, b), "{a:?} {b:?}");
                }
            }
        }
        let toward =
            |vehicle: &TrafficVehicle| matches!(vehicle.speed_policy, SpeedPolicy::Steady(_));
        assert!(!traffic.vehicles.iter().any(toward));
    }

    #[test]
    fn vehicle_ahead_waits_for_the_ego_and_brakes_on_request() {
        let road = straight_road();
        let (mut actors, mut traffic) = traffic(&road, 3);
        let ego = standing_ego();
        for _ in 0..1000 {
            traffic.advance(&mut actors, &ego, TrafficOverride::default());
        }
        let leaders =
            || traffic.vehicles.iter().filter(|m| matches!(m.speed_policy, SpeedPolicy::Leading));
        let farthest = |vehicle: &TrafficVehicle| {
            let place = actors.get(vehicle.follower.id()).unwrap().pose.position;
            place.length()
        };
        assert!(leaders().count() > 0);
        assert!(
            leaders().all(|vehicle| farthest(vehicle) < 80.0 && vehicle.follower.speed_mps() < 0.5)
        );
        let (mut actors, mut traffic) = (actors, traffic);
        let moving = EgoState { pose: Pose::new(20.0, 0.0, 0.0), speed_mps: 8.0, ..ego };
        actors.set_ego(&moving);
        for _ in 0..60 {
            traffic.advance(&mut actors, &moving, TrafficOverride::default());
        }
        assert!(traffic.speeds_mps().any(|speed_mps| speed_mps > 2.0));
        for _ in 0..200 {
            let overrides = TrafficOverride { brakes: true, ..TrafficOverride::default() };
            traffic.advance(&mut actors, &moving, overrides);
        }
        assert!(traffic.speeds_mps().all(|speed_mps| speed_mps < 0.1));
    }
}
