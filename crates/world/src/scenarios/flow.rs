//! A continuous flow of vehicles along a track.

use super::context::ScenarioContext;
use crate::actors::blueprints::{Blueprint, any_car};
use crate::actors::follower::{Follower, is_flat};
use crate::actors::list::Actors;
use crate::noise::Interval;
use crate::road::track::{Track, TrackPlace};
use std::sync::Arc;
use tandem_scene::ActorState;
use tandem_scene::{UprightBox, footprints_overlap};

/// Vehicles leave this far before the sink, meters.
pub(super) const LEAVE_M: f64 = 2.0;

/// Minimum room between a vehicle that enters and any other actor, meters.
const LEAST_ROOM_M: f64 = 4.0;

/// Deceleration that is assumed for a vehicle that enters, m/s².
const BRAKING_MPS2: f64 = 4.0;

/// Speed control of the vehicles of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SpeedControl {
    /// Constant speed regardless of obstacles, until one vehicle touches something. From then on
    /// all vehicles keep their distance.
    Constant,
    /// Intelligent driver model: each vehicle follows the one ahead.
    Idm,
}

/// Vehicles that enter at a source one after another and leave at a sink.
#[derive(Debug)]
pub(super) struct Flow {
    track: Arc<Track>,
    source_m: f64,
    sink_m: f64,
    speed_mps: f64,
    gap_m: Interval,
    speed_control: SpeedControl,
    blueprint: Option<Blueprint>,
    /// The vehicle farthest along the track first.
    cars: Vec<Follower>,
    next_gap_m: f64,
}

impl Flow {
    /// Creates a flow at `speed_mps` from `source_m` to `sink_m` along `track`. The next
    /// vehicle enters when the last one is a gap away from the source; each gap is
    /// sampled from `gap_m`, meters.
    pub(crate) fn new(
        track: Arc<Track>,
        source_m: f64,
        sink_m: f64,
        speed_mps: f64,
        gap_m: Interval,
        speed_control: SpeedControl,
    ) -> Self {
        Self {
            source_m: source_m.clamp(0.0, track.length_m()),
            sink_m: sink_m.clamp(0.0, track.length_m()),
            track,
            speed_mps,
            gap_m,
            speed_control,
            blueprint: None,
            cars: Vec::new(),
            next_gap_m: 0.0,
        }
    }

    /// Uses only `blueprint` instead of ordinary cars.
    pub(super) fn with_blueprint(self, blueprint: Blueprint) -> Self {
        Self { blueprint: Some(blueprint), ..self }
    }

    /// Returns the ids of the vehicles on the track.
    #[cfg(test)]
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.cars.iter().map(Follower::id)
    }

    /// Fills the track from the source to the sink, except where another actor is.
    pub(super) fn fill(&mut self, context: &mut ScenarioContext<'_>) {
        let mut places = Vec::new();
        let mut at_m = self.source_m;
        while at_m < self.sink_m - LEAVE_M {
            places.push(at_m);
            at_m += self.sample_gap(context).max(2.0 * LEAST_ROOM_M);
        }
        for at_m in places.into_iter().rev() {
            self.spawn(context, at_m);
        }
        self.next_gap_m = self.sample_gap(context);
    }

    /// Advances all vehicles by one tick, removes those that arrived, and spawns the next.
    pub(crate) fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        self.drain(context);
        let last_m = self.cars.last().map_or(f64::INFINITY, Follower::along_m);
        if last_m - self.source_m > self.next_gap_m && self.spawn(context, self.source_m) {
            self.next_gap_m = self.sample_gap(context);
        }
    }

    /// Like [`tick`](Self::tick), without spawning.
    pub(super) fn drain(&mut self, context: &mut ScenarioContext<'_>) {
        for car in &mut self.cars {
            // Bodies do not push each other: a vehicle that has hit something stops.
            if touches_another(context.actors, car.id()) {
                self.speed_control = SpeedControl::Idm;
                car.advance(context.actors, 0.0);
                continue;
            }
            match self.speed_control {
                SpeedControl::Constant => car.advance(context.actors, self.speed_mps),
                SpeedControl::Idm => car.follow(context.actors, self.speed_mps),
            }
        }
        self.cars.retain(|car| {
            let has_left = car.along_m() > self.sink_m - LEAVE_M;
            if has_left {
                context.actors.remove(car.id());
            }
            !has_left
        });
    }

    fn sample_gap(&self, context: &mut ScenarioContext<'_>) -> f64 {
        context.noise.within(self.gap_m)
    }

    /// Spawns a car at `along_m` if there is room; returns true if it did.
    fn spawn(&mut self, context: &mut ScenarioContext<'_>, along_m: f64) -> bool {
        let blueprint = self.blueprint.unwrap_or_else(|| any_car(context.noise));
        let has_room =
            !context.actors.all().any(|other| self.is_in_way(other, &blueprint, along_m));
        if has_room {
            let place = TrackPlace::on_line(along_m);
            self.cars.push(Follower::spawn(
                context.actors,
                &blueprint,
                &self.track,
                place,
                self.speed_mps,
            ));
        }
        has_room
    }

    /// Returns true if a vehicle at `along_m` could not stop for `other`, or `other` for it.
    fn is_in_way(&self, other: &ActorState, blueprint: &Blueprint, along_m: f64) -> bool {
        let (pose, _) = self.track.pose_at(along_m, 0.0);
        let v = self.speed_mps;
        if is_flat(other) || pose.position.distance(other.pose.position) > 20.0 + v * v {
            return false;
        }
        let (other_m, aside_m) = self.track.locate(other.pose.position);
        let (there, _) = self.track.pose_at(other_m, 0.0);
        let across = there.inverse_apply(there.position + other.pose.forward());
        let [half_length, half_width, _] = other.extent_m;
        let reach_aside_m = half_length * across.y.abs() + half_width * across.x.abs();
        if aside_m.abs() > blueprint.extent_m[1] + reach_aside_m + 0.25 {
            return false;
        }
        let other_v = (other.speed_mps * across.x).max(0.0);
        let braking = |fast: f64, slow: f64| {
            LEAST_ROOM_M + (fast * fast - slow * slow).max(0.0) / (2.0 * BRAKING_MPS2)
        };
        let gap_m = (other_m - along_m).abs() - blueprint.extent_m[0] - half_length;
        gap_m < if other_m > along_m { braking(v, other_v) } else { braking(other_v, v) }
    }
}

/// Returns true if the body of actor `id` overlaps any other actor's.
pub(super) fn touches_another(actors: &Actors, id: u32) -> bool {
    let Some(own) = actors.get(id).map(UprightBox::of) else { return false };
    actors.all().any(|other| {
        other.id != id && !is_flat(other) && footprints_overlap(&own, &UprightBox::of(other))
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::TestBench;
    use super::*;
    use crate::actors::blueprints::BICYCLE;
    use glam::DVec3;

    fn lane() -> Arc<Track> {
        Arc::new(Track::new(&[DVec3::new(200.0, -3.5, 0.0), DVec3::new(-50.0, -3.5, 0.0)]))
    }

    fn places(flow: &Flow, bench: &TestBench) -> Vec<f64> {
        flow.ids().map(|id| bench.actors.get(id).unwrap().pose.position.x).collect()
    }

    #[test]
    fn vehicles_enter_at_the_given_gaps_and_leave_at_the_sink() {
        let mut bench = TestBench::on_a_straight_road();
        let mut flow = Flow::new(
            lane(),
            20.0,
            180.0,
            10.0,
            Interval { low: 25.0, high: 40.0 },
            SpeedControl::Constant,
        );
        for _ in 0..600 {
            bench.with_context(|context| flow.tick(context));
            let places = places(&flow, &bench);
            assert!(places.iter().all(|&x| x < 181.0 && x > 20.0), "{places:?}");
            for pair in places.windows(2) {
                let gap_m = pair[1] - pair[0];
                assert!((25.0..41.0).contains(&gap_m), "{gap_m}");
            }
        }
        assert!(places(&flow, &bench).len() >= 4);
        assert_eq!(bench.actors.others().len(), places(&flow, &bench).len());
        for _ in 0..400 {
            bench.with_context(|context| flow.drain(context));
        }
        assert!(bench.actors.others().is_empty());
    }

    #[test]
    fn filled_flow_is_complete_and_avoids_other_actors() {
        let mut bench = TestBench::on_a_straight_road();
        bench.ego.pose.position.y = -3.5;
        bench.ego.pose.position.x = 100.0;
        bench.actors.set_ego(&bench.ego);
        let flow = Flow::new(
            lane(),
            0.0,
            250.0,
            8.0,
            Interval { low: 12.0, high: 20.0 },
            SpeedControl::Idm,
        );
        let mut flow = flow.with_blueprint(BICYCLE);
        bench.with_context(|context| flow.fill(context));
        let places = places(&flow, &bench);
        assert!(places.len() >= 10);
        assert!(places.iter().all(|x| !(96.0..108.0).contains(x)), "{places:?}");
        for _ in 0..400 {
            bench.with_context(|context| flow.tick(context));
            assert!(flow.ids().all(|id| !touches_another(&bench.actors, id)));
        }
        assert!(flow.ids().all(|id| bench.actors.get(id).unwrap().kind == BICYCLE.kind));
    }

    #[test]
    fn constant_flow_stops_after_a_contact() {
        let mut bench = TestBench::on_a_straight_road();
        bench.ego.pose.position = glam::DVec2::new(0.0, -3.5);
        bench.actors.set_ego(&bench.ego);
        let mut flow = Flow::new(
            lane(),
            0.0,
            250.0,
            10.0,
            Interval { low: 20.0, high: 30.0 },
            SpeedControl::Constant,
        );
        let mut has_touched = false;
        for _ in 0..1000 {
            bench.with_context(|context| flow.tick(context));
            has_touched |= flow.ids().any(|id| touches_another(&bench.actors, id));
        }
        assert!(has_touched);
        let waiting = flow.ids().filter(|&id| bench.actors.get(id).unwrap().speed_mps < 0.1);
        assert!(waiting.count() >= 5);
        assert_eq!(flow.ids().filter(|&id| touches_another(&bench.actors, id)).count(), 1);
    }
}
