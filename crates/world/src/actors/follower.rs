//! An actor that follows a track.

use super::blueprints::Blueprint;
use super::list::{Actors, EGO};
use crate::road::track::{Track, TrackPlace};
use std::sync::Arc;
use tandem_scene::{ActorState, Pose, TICK_S, wrap_angle};

/// Distance within which a follower reacts to actors ahead, meters.
const HORIZON_M: f64 = 70.0;

/// Lateral clearance on each side of a follower, meters.
const MARGIN_M: f64 = 0.25;

/// Gap that is assumed on a free road, meters.
const FREE_ROAD_M: f64 = 1e3;

/// The intelligent driver model (IDM) of traffic; the autopilot has its own.
pub(super) mod idm {
    const ACCELERATION_MPS2: f64 = 1.8;
    pub(crate) const DECELERATION_MPS2: f64 = 2.5;
    const HEADWAY_S: f64 = 1.3;
    const STANDSTILL_M: f64 = 4.0;
    const HARDEST_MPS2: f64 = 8.0;

    /// Returns the acceleration behind a vehicle at speed `lead_mps` with a gap of `gap_m`, m/s².
    pub(crate) fn acceleration_mps2(v: f64, desired: f64, gap_m: f64, lead_mps: f64) -> f64 {
        let brake = 2.0 * (ACCELERATION_MPS2 * DECELERATION_MPS2).sqrt();
        let wanted_m = STANDSTILL_M + (v * HEADWAY_S + v * (v - lead_mps) / brake).max(0.0);
        let free = 1.0 - (v / desired.max(0.1)).powi(4);
        let wanted = free - (wanted_m / gap_m.max(0.1)).powi(2);
        (ACCELERATION_MPS2 * wanted).max(-HARDEST_MPS2)
    }
}

/// The nearest actor in a follower's path.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Ahead {
    /// Id of the actor; [`EGO`] for the ego vehicle.
    pub(crate) id: u32,
    /// Bumper-to-bumper distance, meters.
    pub(crate) gap_m: f64,
    /// Speed along the follower's heading, m/s, not negative.
    pub(crate) speed_mps: f64,
}

/// An actor that moves along a track, with an optional lateral offset.
#[derive(Debug)]
pub(crate) struct Follower {
    id: u32,
    track: Arc<Track>,
    along_m: f64,
    aside_m: f64,
    speed_mps: f64,
    extent_m: [f64; 3],
}

impl Follower {
    /// Spawns an actor at `place` of `track`.
    pub(crate) fn spawn(
        actors: &mut Actors,
        blueprint: &Blueprint,
        track: &Arc<Track>,
        place: TrackPlace,
        speed_mps: f64,
    ) -> Self {
        let mut follower = Self {
            id: 0,
            track: Arc::clone(track),
            along_m: place.along_m,
            aside_m: place.aside_m,
            speed_mps,
            extent_m: blueprint.extent_m,
        };
        let (pose, z_m) = follower.pose(0.0);
        follower.id = actors.spawn(blueprint, pose, z_m, speed_mps);
        follower
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn track(&self) -> &Arc<Track> {
        &self.track
    }

    /// Meters from the start of the track.
    pub(crate) fn along_m(&self) -> f64 {
        self.along_m
    }

    /// Meters to the right of the track.
    pub(crate) fn aside_m(&self) -> f64 {
        self.aside_m
    }

    /// Speed along the track, m/s.
    pub(crate) fn speed_mps(&self) -> f64 {
        self.speed_mps
    }

    /// Advances one tick at `speed_mps`.
    pub(crate) fn advance(&mut self, actors: &mut Actors, speed_mps: f64) {
        self.advance_aside(actors, speed_mps, self.aside_m);
    }

    /// Like [`advance`](Self::advance), and ends the tick `aside_m` to the right of the track.
    pub(crate) fn advance_aside(&mut self, actors: &mut Actors, speed_mps: f64, aside_m: f64) {
        let step_m = speed_mps * TICK_S;
        let drift_m = aside_m - self.aside_m;
        self.along_m += step_m;
        self.aside_m = aside_m;
        self.speed_mps = speed_mps;
        let lean_rad = if step_m > 1e-6 { drift_m.atan2(step_m) } else { 0.0 };
        let (pose, z_m) = self.pose(lean_rad);
        actors.move_to(self.id, pose, z_m, speed_mps);
    }

    /// Advances one tick behind the actor ahead, or at `desired_mps` on a free road.
    pub(crate) fn follow(&mut self, actors: &mut Actors, desired_mps: f64) {
        let ahead = self.ahead(actors);
        let speed_mps = self.idm_speed(ahead, desired_mps);
        self.advance(actors, speed_mps);
    }

    /// Returns the IDM speed of the next tick behind `ahead`, m/s.
    pub(crate) fn idm_speed(&self, ahead: Option<Ahead>, desired_mps: f64) -> f64 {
        let (gap_m, lead_mps) =
            ahead.map_or((FREE_ROAD_M, self.speed_mps), |ahead| (ahead.gap_m, ahead.speed_mps));
        let v = self.speed_mps;
        let change_mps2 = idm::acceleration_mps2(v, desired_mps, gap_m, lead_mps);
        (v + change_mps2 * TICK_S).max(0.0)
    }

    /// Returns the nearest actor in this follower's path, moving or not.
    pub(crate) fn ahead(&self, actors: &Actors) -> Option<Ahead> {
        let (own, _) = self.track.pose_at(self.along_m, self.aside_m);
        let forward = own.forward();
        actors
            .all()
            .filter(|other| other.id != self.id && !is_flat(other))
            .filter_map(|other| {
                let offset = other.pose.position - own.position;
                if offset.length_squared() > HORIZON_M * HORIZON_M || offset.dot(forward) < -30.0 {
                    return None;
                }
                let (along_m, aside_m) = self.track.locate_within(
                    other.pose.position,
                    self.along_m,
                    self.along_m + HORIZON_M,
                );
                let (there, _) = self.track.pose_at(along_m, 0.0);
                let turned_rad = wrap_angle(other.pose.yaw_rad - there.yaw_rad);
                let (sin, cos) = (turned_rad.sin().abs(), turned_rad.cos().abs());
                let [half_length, half_width, _] = other.extent_m;
                let reach_aside_m = half_length * sin + half_width * cos;
                let reach_along_m = half_length * cos + half_width * sin;
                let is_in_way = (aside_m - self.aside_m).abs()
                    < self.extent_m[1] + reach_aside_m + MARGIN_M
                    && along_m > self.along_m + 0.1;
                is_in_way.then(|| Ahead {
                    id: other.id,
                    gap_m: along_m - self.along_m - self.extent_m[0] - reach_along_m,
                    speed_mps: (other.speed_mps * turned_rad.cos()).max(0.0),
                })
            })
            .min_by(|a, b| a.gap_m.total_cmp(&b.gap_m))
    }

    /// Returns true at the end of the track.
    pub(crate) fn has_arrived(&self) -> bool {
        self.along_m >= self.track.length_m() - 0.5
    }

    /// Returns the pose of a body whose axles follow the track, and the height there.
    fn pose(&self, lean_rad: f64) -> (Pose, f64) {
        let half_base_m = 0.6 * self.extent_m[0];
        let (back, low) = self.track.pose_at(self.along_m - half_base_m, self.aside_m);
        let (front, high) = self.track.pose_at(self.along_m + half_base_m, self.aside_m);
        let yaw_rad = (front.position - back.position).to_angle() + lean_rad;
        let position = (front.position + back.position) / 2.0;
        (Pose { position, yaw_rad: wrap_angle(yaw_rad) }, (low + high) / 2.0)
    }
}

/// Returns true for objects that lie flat on the road and are driven over.
pub(crate) fn is_flat(actor: &ActorState) -> bool {
    actor.id != EGO && actor.extent_m[2] < 0.05
}

#[cfg(test)]
mod tests {
    use super::super::blueprints::{DEBRIS, POLICE};
    use super::*;
    use glam::DVec3;
    use tandem_scene::EgoState;
    use tandem_scene::vehicle::EGO_EXTENT_M;

    fn actors_with_ego_at(x: f64, y: f64) -> Actors {
        Actors::new(&EgoState {
            pose: Pose::new(x, y, 0.0),
            z_m: 0.0,
            speed_mps: 0.0,
            yaw_rate_radps: 0.0,
            acceleration_mps2: 0.0,
            extent_m: EGO_EXTENT_M,
        })
    }

    fn straight() -> Arc<Track> {
        Arc::new(Track::new(&[DVec3::ZERO, DVec3::new(300.0, 0.0, 0.0)]))
    }

    #[test]
    fn follower_stops_behind_the_ego_and_drives_over_dirt() {
        let mut actors = actors_with_ego_at(120.0, 0.5);
        actors.spawn(&DEBRIS, Pose::new(60.0, 0.0, 0.0), 0.0, 0.0);
        let mut car =
            Follower::spawn(&mut actors, &POLICE, &straight(), TrackPlace::on_line(0.0), 10.0);
        for _ in 0..1000 {
            car.follow(&mut actors, 14.0);
            let gap_m = 120.0 - EGO_EXTENT_M[0] - POLICE.extent_m[0] - car.along_m();
            assert!(gap_m > 1.0, "{gap_m}");
        }
        assert!(car.along_m() > 105.0 && car.speed_mps() < 0.1, "{}", car.along_m());
    }

    #[test]
    fn vehicle_in_the_next_lane_is_passed() {
        let mut actors = actors_with_ego_at(120.0, 3.5);
        let mut car =
            Follower::spawn(&mut actors, &POLICE, &straight(), TrackPlace::on_line(0.0), 10.0);
        while !car.has_arrived() {
            car.follow(&mut actors, 14.0);
            assert!(car.speed_mps() > 5.0);
        }
    }

    #[test]
    fn lane_change_yaws_the_body() {
        let mut actors = actors_with_ego_at(0.0, 50.0);
        let mut car =
            Follower::spawn(&mut actors, &POLICE, &straight(), TrackPlace::on_line(20.0), 10.0);
        car.advance_aside(&mut actors, 10.0, -0.1);
        let actor = actors.get(car.id()).unwrap();
        assert!(actor.pose.yaw_rad < -0.1 && actor.pose.position.y < 0.0);
        assert!(actor.yaw_rate_radps < 0.0);
    }
}
