//! A vehicle that crosses the junction although the ego vehicle has priority.

use super::context::{Arrival, Scenario, ScenarioContext};
use super::flow::touches_another;
use super::parameters::Parameters;
use super::run_state::{LatchedTimer, RunState};
use super::scenario_type::{ScenarioType, Start, from_scenario_runner, from_tandem, if_possible};
use crate::actors::blueprints::{AMBULANCE, POLICE};
use crate::actors::follower::Follower;
use crate::actors::list::EGO;
use crate::road::junction::{Arm, Junction};
use crate::road::layout::Layout;
use crate::road::signals::LightOverride;
use crate::road::track::{Track, TrackPlace};
use glam::DVec3;
use std::sync::Arc;
use tandem_scene::{LightColor, wrap_angle};

pub(super) const TYPES: &[ScenarioType] = &[
    ScenarioType {
        name: "OppositeVehicleTakingPriority",
        layout: |_| Layout::JUNCTION,
        set_up: |parameters, _, context| {
            if_possible(PriorityTaker::new(parameters, Lights::Ordinary, context))
        },
        ..TEMPLATE
    },
    ScenarioType {
        name: "OppositeVehicleRunningRedLight",
        layout: |_| Layout::LIGHTS,
        set_up: |parameters, _, context| {
            if_possible(PriorityTaker::new(parameters, Lights::Frozen, context))
        },
        modeled: "as above with frozen lights: green for the ego vehicle, red for all others",
        ..TEMPLATE
    },
];

/// Values that both types share.
const TEMPLATE: ScenarioType = ScenarioType {
    name: "",
    layout: |_| Layout::JUNCTION,
    set_up: |_, _, _| Ok(None),
    start: Start::AtTrigger,
    modeled: "police car or ambulance that crosses at 60 km/h",
    not_modeled: "start 30 m before the junction: it starts 2.2 s from the conflict point; it \
                  brakes only behind the ego vehicle in its own lane",
    constants: &[
        from_scenario_runner(
            "opposite_vehicle_taking_priority.py",
            &[
                ("_adversary_speed", &[SPEED_KMH]),
                ("_sync_time", &[ARRIVAL.within_s]),
                ("_min_trigger_dist", &[ARRIVAL.within_m]),
            ],
        ),
        from_tandem(&[
            ("deceleration behind the ego vehicle", &[BRAKING_MPS2]),
            ("gap behind the ego vehicle", &[KEPT_M]),
            ("same direction within, radians", &[SAME_DIRECTION_RAD]),
            ("tracks intersect within", &[CONFLICT_M]),
        ]),
    ],
};

/// Control of the junction's lights by the scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lights {
    /// The ordinary cycle, if there are lights.
    Ordinary,
    /// Green for the ego vehicle and red for all others until it has passed.
    Frozen,
}

/// Speed across the junction, in km/h and m/s.
const SPEED_KMH: f64 = 60.0;
const SPEED_MPS: f64 = SPEED_KMH / 3.6;

/// Arrival of the ego vehicle that starts the other.
const ARRIVAL: Arrival = Arrival { within_s: 2.2, within_m: 12.0 };

/// Headings closer than this are the same direction, radians.
const SAME_DIRECTION_RAD: f64 = 0.6;

/// Deceleration behind the ego vehicle, m/s², and the gap that is kept then, meters.
const BRAKING_MPS2: f64 = 6.0;
const KEPT_M: f64 = 2.0;

/// Tracks closer than this intersect, meters.
const CONFLICT_M: f64 = 1.0;

/// A vehicle that takes priority.
#[derive(Debug)]
struct PriorityTaker {
    car: Follower,
    conflict: DVec3,
    start: LatchedTimer,
    lights: Lights,
    exit_m: f64,
    has_left: bool,
    run_state: RunState,
}

impl PriorityTaker {
    /// Spawns the vehicle so far from the conflict point that it arrives there together with the
    /// ego vehicle; returns `None` without a junction or without a road on its side.
    fn new(
        parameters: &Parameters<'_>,
        lights: Lights,
        context: &mut ScenarioContext<'_>,
    ) -> Option<Self> {
        let junction = context.road.junction()?;
        let (from, to) = match parameters.text("direction") {
            Some("left") => (Arm::Left, Arm::Right),
            Some("opposite") => (Arm::Ahead, Arm::Behind),
            _ => (Arm::Right, Arm::Left),
        };
        let track = Arc::new(junction.through(from, to)?);
        let (conflict, conflict_m) = conflict(context, junction, &track);
        let exit_m = junction.exit as f64;
        let blueprint = if context.noise.below(2) == 0 { POLICE } else { AMBULANCE };
        let place = TrackPlace::on_line(conflict_m - SPEED_MPS * ARRIVAL.within_s);
        let car = Follower::spawn(context.actors, &blueprint, &track, place, 0.0);
        Some(Self {
            car,
            conflict,
            start: LatchedTimer::default(),
            lights,
            exit_m,
            has_left: false,
            run_state: RunState::new(parameters),
        })
    }
}

impl PriorityTaker {
    /// Returns full speed, unless the ego vehicle has turned into the same road and drives ahead.
    fn speed_mps(&self, context: &ScenarioContext<'_>) -> f64 {
        let own = self.car.track().pose_at(self.car.along_m(), 0.0).0;
        let turned_rad = wrap_angle(context.ego.pose.yaw_rad - own.yaw_rad).abs();
        let ahead = self.car.ahead(context.actors).filter(|ahead| ahead.id == EGO);
        let Some(ahead) = ahead.filter(|_| turned_rad < SAME_DIRECTION_RAD) else {
            return SPEED_MPS;
        };
        let room_m = (ahead.gap_m - KEPT_M).max(0.0);
        SPEED_MPS.min((ahead.speed_mps.powi(2) + 2.0 * BRAKING_MPS2 * room_m).sqrt())
    }
}

/// Returns where `track` first intersects the route, or comes nearest to it, and how
/// far along the track that is.
fn conflict(context: &ScenarioContext<'_>, junction: &Junction, track: &Track) -> (DVec3, f64) {
    let (mut best, mut best_aside_m) = ((DVec3::ZERO, 0.0), f64::INFINITY);
    for station in junction.entry..=junction.exit {
        let along_m = station as f64;
        let (pose, z_m) = context.road.pose_at(along_m, context.road.route_aside_m(along_m));
        let (track_m, aside_m) = track.locate(pose.position);
        if aside_m.abs() < best_aside_m {
            (best, best_aside_m) = ((pose.position.extend(z_m), track_m), aside_m.abs());
        } else if best_aside_m < CONFLICT_M {
            break;
        }
    }
    best
}

impl Scenario for PriorityTaker {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        let is_near = context.is_arriving(self.conflict, &ARRIVAL);
        if self.start.seconds_since(context.time_s, is_near).is_some() && !self.has_left {
            let has_hit = touches_another(context.actors, self.car.id());
            let speed_mps = if has_hit { 0.0 } else { self.speed_mps(context) };
            self.car.advance(context.actors, speed_mps);
            self.has_left = self.car.has_arrived();
            if self.has_left {
                context.actors.remove(self.car.id());
            }
        }
        let is_done = context.ego_along_m > self.exit_m;
        if self.run_state.tick(context, is_done).is_some() && self.lights == Lights::Frozen {
            context.effects.lights =
                Some(LightOverride { ego: LightColor::Green, others: LightColor::Red });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route, through_junction};
    use super::*;

    fn bench(kind: &str, direction: &str, turn: f64) -> TestBench {
        let parameters: &[(&str, &[(&str, &str)])] = &[("direction", &[("value", direction)])];
        TestBench::on(&scenario_route(through_junction(turn), kind, 4.0, parameters), 1)
    }

    /// Checks from which direction the vehicle comes, and that it meets the ego vehicle.
    #[track_caller]
    fn check(direction: &str, turn: f64, heading: (f64, f64)) {
        let mut bench = bench("OppositeVehicleTakingPriority", direction, turn);
        let forward = bench.actors.others()[0].pose.forward();
        assert!(forward.dot(heading.into()) > 0.99, "{forward}");
        let hit = bench.drive_without_braking(8.0, 140.0);
        assert!(hit.is_some(), "{direction} {turn}");
    }

    #[test]
    fn vehicle_comes_from_its_side_and_meets_the_ego() {
        check("right", 0.0, (0.0, -1.0));
        check("left", 0.0, (0.0, 1.0));
        check("opposite", -1.0, (-1.0, 0.0));
        check("left", -1.0, (0.0, 1.0));
    }

    #[test]
    fn vehicle_waits_for_the_ego_and_then_does_not_brake() {
        let mut bench = bench("OppositeVehicleTakingPriority", "right", 0.0);
        let mut speeds = Vec::new();
        while let Some(car) = bench.actors.others().first() {
            speeds.push(car.speed_mps);
            let v = if bench.ego.pose.position.x < 24.0 { 8.0 } else { 0.0 };
            bench.drive(v, 0.0);
        }
        let start = speeds.iter().position(|&v| v > 0.0).unwrap();
        assert!(start > 20 && speeds[start..].iter().all(|&v| (v - SPEED_MPS).abs() < 1e-9));
        assert_eq!(bench.touching(), None);
    }

    #[test]
    fn lights_are_frozen_until_the_ego_has_passed() {
        let mut bench = bench("OppositeVehicleRunningRedLight", "left", 0.0);
        while bench.ego.pose.position.x < 90.0 {
            bench.drive(7.0, 0.0);
            let x = bench.ego.pose.position.x;
            if (x - 2.0).abs() > 0.5 && (x - 48.0).abs() > 1.5 {
                let expected = LightOverride { ego: LightColor::Green, others: LightColor::Red };
                let is_frozen = (2.0..48.0).contains(&x);
                assert_eq!(bench.effects.lights, is_frozen.then_some(expected), "{x}");
            }
        }
    }
}
