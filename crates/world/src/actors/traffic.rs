//! Ordinary traffic: parked vehicles, vehicles in our lane and beside it, vehicles that come toward
//! us. Who drives keeps its distance with the intelligent driver model, and slows down in bends.

use super::catalogue::{Model, any_car};
use super::follower::{Follower, idm};
use super::list::{Actors, EGO};
use crate::noise::Noise;
use crate::road::Road;
use crate::road::lane::Lane;
use crate::road::track::{Track, TrackPlace};
use std::sync::Arc;
use tandem_scene::UprightBox;
use tandem_scene::{ActorKind, ActorState, EgoState, Pose, TICK_S, wrap_angle};

/// Nothing is placed this far along the route before and after the ego's spawn, meters.
const FREE_AROUND_SPAWN_M: f64 = 14.0;

/// Parked vehicles leave this much room beside the line of the route, meters.
const ROUTE_CLEARANCE_M: f64 = 1.9;

/// Room that oncoming traffic must have everywhere, from center to center, meters.
const ONCOMING_CLEARANCE_M: f64 = 3.2;

/// Lateral acceleration that traffic drives bends with, m/s².
const COMFORTABLE_LATERAL_MPS2: f64 = 1.8;

/// What a driver with a comfortable foot brakes with for a bend, m/s².
const BEND_BRAKING_MPS2: f64 = 0.6 * idm::DECELERATION_MPS2;

/// How vehicles ahead brake when a scenario tells them to, m/s².
const HARD_BRAKING_MPS2: f64 = 6.0;

/// How a driver chooses its speed on a free road.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Always this one, m/s.
    Steady(f64),
    /// Stays ahead of our vehicle: waits where it is far behind, goes on where it is close.
    Leading,
}

/// Restrictions on ordinary traffic for one tick.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct TrafficOrder {
    /// Upper limit of the speed, m/s.
    pub(crate) limit_mps: Option<f64>,
    /// True if the vehicles ahead of ours in its lane are to brake to a stop.
    pub(crate) brakes: bool,
}

/// Somebody who drives.
#[derive(Debug)]
struct Mover {
    follower: Follower,
    manner: Manner,
    /// The speed that the bends allow at each place of the track, m/s.
    bend_mps: Arc<Vec<f64>>,
}

/// A track that vehicles drive along.
struct Way {
    track: Arc<Track>,
    /// The speed that the bends allow at each place of the track, m/s.
    bend_mps: Arc<Vec<f64>>,
}

impl Way {
    fn new(track: Arc<Track>) -> Self {
        Self { bend_mps: Arc::new(bend_speeds(&track)), track }
    }
}

/// How a vehicle starts and goes on.
struct Pace {
    speed_mps: f64,
    manner: Manner,
}

/// All ordinary traffic.
#[derive(Debug)]
pub(crate) struct Traffic {
    movers: Vec<Mover>,
    limit_mps: f64,
}

impl Traffic {
    /// Places traffic where the road's layout has some; `seed` decides on all of it.
    pub(crate) fn new(road: &Road, actors: &mut Actors, seed: u64) -> Self {
        let layout = road.layout();
        let limit_mps = layout.speed_limit_kmh / 3.6;
        let mut traffic = Self { movers: Vec::new(), limit_mps };
        park(road, actors, &mut Noise::new(seed, 1, 0));
        if layout.traffic_ahead {
            traffic.send_ahead(road, actors, &mut Noise::new(seed, 2, 0));
        }
        if layout.traffic_oncoming {
            traffic.send_toward(road, actors, &mut Noise::new(seed, 3, 0));
        }
        if layout.traffic_beside {
            traffic.send_beside(road, actors, &mut Noise::new(seed, 4, 0));
        }
        traffic
    }

    /// Speeds of the vehicles that drive, m/s.
    pub(crate) fn speeds_mps(&self) -> impl Iterator<Item = f64> + '_ {
        self.movers.iter().map(|mover| mover.follower.speed_mps())
    }

    /// Moves everybody on by one tick.
    pub(crate) fn advance(&mut self, actors: &mut Actors, ego: &EgoState, order: TrafficOrder) {
        let limit_mps = order.limit_mps.unwrap_or(f64::INFINITY).min(self.limit_mps);
        for mover in &mut self.movers {
            let desired_mps = match mover.manner {
                Manner::Steady(speed_mps) => speed_mps.min(limit_mps),
                Manner::Leading if order.brakes => {
                    let braked_mps = mover.follower.speed_mps() - HARD_BRAKING_MPS2 * TICK_S;
                    mover.follower.advance(actors, braked_mps.max(0.0));
                    continue;
                }
                Manner::Leading => limit_mps * lead_share(&mover.follower, ego),
            };
            let here = (mover.follower.along_m().max(0.0) as usize).min(mover.bend_mps.len() - 1);
            mover.follower.follow(actors, desired_mps.min(mover.bend_mps[here]));
        }
        self.movers.retain(|mover| {
            let has_arrived = mover.follower.has_arrived();
            if has_arrived {
                actors.remove(mover.follower.id());
            }
            !has_arrived
        });
    }

    /// Spawns a vehicle unless another actor is too close to its place.
    fn send(&mut self, actors: &mut Actors, model: &Model, way: &Way, along_m: f64, pace: Pace) {
        let Way { track, bend_mps } = way;
        let Pace { speed_mps, manner } = pace;
        let (pose, _) = track.pose_at(along_m, 0.0);
        let near = |other: &ActorState| other.pose.position.distance(pose.position);
        let is_taken = actors.all().any(|other| {
            near(other) < model.extent_m[0] + other.extent_m[0] + 3.0
                && (other.id == EGO || other.kind != ActorKind::Static)
                && (track.locate(other.pose.position).1).abs() < 2.2
        });
        if !is_taken {
            let speed_mps = speed_mps.min(bend_mps[along_m.max(0.0) as usize]);
            let follower =
                Follower::spawn(actors, model, track, TrackPlace::on_line(along_m), speed_mps);
            self.movers.push(Mover { follower, manner, bend_mps: Arc::clone(bend_mps) });
        }
    }

    fn send_ahead(&mut self, road: &Road, actors: &mut Actors, noise: &mut Noise) {
        let (spawn, end) = road.route_stations();
        // Nobody else changes lanes: they would wait beside each other for ever.
        let track = road.lane_track(0.0);
        let way = Way::new(track);
        let mut along_m = spawn as f64 + noise.between(20.0, 30.0);
        for _ in 0..2 + noise.below(2) {
            if along_m > end as f64 {
                break;
            }
            let speed_mps = 0.4 * self.limit_mps;
            let pace = Pace { speed_mps, manner: Manner::Leading };
            self.send(actors, &any_car(noise), &way, along_m, pace);
            along_m += noise.between(15.0, 22.0);
        }
    }

    fn send_toward(&mut self, road: &Road, actors: &mut Actors, noise: &mut Noise) {
        let Some(track) = road.oncoming_track() else { return };
        let has_room = |place: &glam::DVec3| {
            road.distance_to_route_m(place.truncate()) >= ONCOMING_CLEARANCE_M
        };
        if !track.places().iter().all(has_room) {
            return;
        }
        let way = Way::new(track);
        let first_m = way.track.length_m() - road.route_stations().0 as f64;
        let mut along_m = first_m - noise.between(25.0, 60.0);
        while along_m > 2.0 {
            let speed_mps = noise.between(0.55, 0.85) * self.limit_mps;
            let pace = Pace { speed_mps, manner: Manner::Steady(speed_mps) };
            self.send(actors, &any_car(noise), &way, along_m, pace);
            along_m -= noise.between(25.0, 70.0);
        }
    }

    /// Vehicles in the lanes of our direction beside the one that we start in.
    fn send_beside(&mut self, road: &Road, actors: &mut Actors, noise: &mut Noise) {
        let spawn_m = road.route_stations().0 as f64;
        let own = |lane: &&Lane| lane.with_route() && lane.aside_m.abs() > 1.0;
        for lane in road.driving_lanes().iter().filter(own) {
            let track = road.lane_track(lane.aside_m);
            let way = Way::new(track);
            let mut along_m = noise.between(4.0, 16.0);
            while along_m < spawn_m + 110.0 {
                let speed_mps = noise.between(0.55, 0.75) * self.limit_mps;
                let pace = Pace { speed_mps, manner: Manner::Steady(speed_mps) };
                self.send(actors, &any_car(noise), &way, along_m, pace);
                along_m += noise.between(22.0, 45.0);
            }
        }
    }
}

/// Share of the speed limit that a vehicle ahead drives at, so that it stays near ours: the rule
/// of the benchmark's background traffic.
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
        let model = any_car(noise);
        let shape = UprightBox { pose, bottom_m: z_m, extent_m: model.extent_m };
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
            actors.spawn(&model, pose, z_m, 0.0);
        }
        along_m += noise.between(6.5, 28.0);
    }
}

/// The speed for the bends ahead, at each meter of a track, m/s.
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

/// True if `shape` leaves the route free.
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
    fn the_same_seed_places_the_same_traffic_and_another_seed_does_not() {
        let road = straight_road();
        let place = |seed| traffic(&road, seed).0.others().to_vec();
        assert_eq!(place(5), place(5));
        assert_ne!(place(5), place(6));
    }

    #[test]
    fn the_route_is_free_of_parked_vehicles() {
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
    fn traffic_keeps_its_distance_and_oncoming_vehicles_leave_in_the_end() {
        let road = straight_road();
        let (mut actors, mut traffic) = traffic(&road, 3);
        let ego = standing_ego();
        for _ in 0..2000 {
            traffic.advance(&mut actors, &ego, TrafficOrder::default());
            let boxes: Vec<_> = actors.others().iter().map(UprightBox::of).collect();
            for (idx, a) in boxes.iter().enumerate() {
                for b in &boxes[idx + 1..] {
                    assert!(!footprints_overlap(a, b), "{a:?} {b:?}");
                }
            }
        }
        let toward = |mover: &Mover| matches!(mover.manner, Manner::Steady(_));
        assert!(!traffic.movers.iter().any(toward));
    }

    #[test]
    fn a_vehicle_ahead_waits_for_ours_and_brakes_when_told_to() {
        let road = straight_road();
        let (mut actors, mut traffic) = traffic(&road, 3);
        let ego = standing_ego();
        for _ in 0..1000 {
            traffic.advance(&mut actors, &ego, TrafficOrder::default());
        }
        let leaders = || traffic.movers.iter().filter(|m| matches!(m.manner, Manner::Leading));
        let farthest = |mover: &Mover| {
            let place = actors.get(mover.follower.id()).unwrap().pose.position;
            place.length()
        };
        assert!(leaders().count() > 0);
        assert!(leaders().all(|mover| farthest(mover) < 80.0 && mover.follower.speed_mps() < 0.5));
        let (mut actors, mut traffic) = (actors, traffic);
        let moving = EgoState { pose: Pose::new(20.0, 0.0, 0.0), speed_mps: 8.0, ..ego };
        actors.set_ego(&moving);
        for _ in 0..60 {
            traffic.advance(&mut actors, &moving, TrafficOrder::default());
        }
        assert!(traffic.speeds_mps().any(|speed_mps| speed_mps > 2.0));
        for _ in 0..200 {
            let order = TrafficOrder { brakes: true, ..TrafficOrder::default() };
            traffic.advance(&mut actors, &moving, order);
        }
        assert!(traffic.speeds_mps().all(|speed_mps| speed_mps < 0.1));
    }
}
