//! Oncoming vehicles that cones push into the route's lane.

use super::context::{Scenario, ScenarioContext};
use super::flow::{Flow, SpeedControl};
use super::parameters::Parameters;
use super::run_state::{LIMIT_S, RunState};
use super::scenario_type::{ScenarioType, Start, from_scenario_runner, from_tandem, if_possible};
use crate::actors::blueprints::CONE;
use crate::noise::Interval;
use crate::road::Road;
use crate::road::error::RoadError;
use crate::road::layout::{LANE_WIDTH_M, Layout, Stretch};
use crate::road::track::Track;
use glam::DVec3;
use std::f64::consts::PI;
use std::sync::Arc;
use tandem_scene::{Passage, PassageReason};

pub(super) const TYPES: &[ScenarioType] = &[ScenarioType {
    name: "InvadingTurn",
    layout: |_| Layout::JUNCTION,
    set_up: |parameters, trigger_m, context| {
        if_possible(Invasion::new(parameters, trigger_m, context)?)
    },
    start: Start::AtTrigger,
    modeled: "cones, oncoming flow that they push over the center line",
    not_modeled: "",
    constants: &[
        from_scenario_runner(
            "invading_turn.py",
            &[
                ("_flow_frequency", &[GAP_M]),
                ("_offset", &[OFFSET_M]),
                ("_offset_constant", &[HALF_VEHICLE_M]),
                ("next", &[CONE_GAP_M]),
                ("_source_dist", &[END_M]),
                ("_scenario_timeout", &[LIMIT_S]),
            ],
        ),
        from_tandem(&[
            ("first cone after the trigger", &[FIRST_CONE_M]),
            ("vehicles move over within", &[MOVING_OVER_M]),
            ("source ahead of the last cone", &[SOURCE_M]),
            ("default distance", &[DISTANCE_M]),
        ]),
    ],
}];

/// Defaults: how far oncoming vehicles reach into the route's lane, and
/// distance of the last cone, meters.
const OFFSET_M: f64 = 0.25;
const DISTANCE_M: f64 = 55.0;

/// Half the width of a vehicle, for the shift that it needs, meters.
const HALF_VEHICLE_M: f64 = 0.7;

/// Distance from one oncoming vehicle to the next, meters.
const GAP_M: f64 = 40.0;

/// Distance from one cone to the next, meters.
const CONE_GAP_M: f64 = 5.0;

/// Distance of the first cone after the trigger, meters.
const FIRST_CONE_M: f64 = 20.0;

/// Distance over which oncoming vehicles move over, meters.
const MOVING_OVER_M: f64 = 15.0;

/// Distance of their source ahead of the last cone, meters.
const SOURCE_M: f64 = 60.0;

/// Distance past the cones at which the scenario ends, meters.
const END_M: f64 = 30.0;

/// Cones, and the oncoming flow that they shift.
#[derive(Debug)]
struct Invasion {
    stretch: Stretch,
    cones: Vec<u32>,
    offset_m: f64,
    flow: Flow,
    run_state: RunState,
}

impl Invasion {
    /// Spawns the cones; returns `None` without an oncoming lane.
    fn new(
        parameters: &Parameters<'_>,
        trigger_m: f64,
        context: &mut ScenarioContext<'_>,
    ) -> Result<Option<Self>, RoadError> {
        let offset_m = parameters.number("offset", OFFSET_M)?;
        let stretch = Stretch {
            from_m: trigger_m + FIRST_CONE_M,
            to_m: trigger_m + parameters.number("distance", DISTANCE_M)?,
        };
        let Some(oncoming) = context.road.oncoming_track() else { return Ok(None) };
        let lane_m = context.road.route_aside_m(trigger_m) - LANE_WIDTH_M;
        let mut cones = Vec::new();
        let mut at_m = stretch.from_m;
        while at_m <= stretch.to_m {
            cones.push(context.spawn_standing(
                &CONE,
                at_m,
                lane_m - LANE_WIDTH_M / 2.0 + CONE.extent_m[1],
            ));
            at_m += CONE_GAP_M;
        }
        let shift_m = offset_m + LANE_WIDTH_M / 2.0 - HALF_VEHICLE_M;
        let track = Arc::new(shifted(context.road, &oncoming, stretch, shift_m));
        let beside =
            |along_m: f64| track.locate(context.road.pose_at(along_m, lane_m).0.position).0;
        let (source_m, sink_m) = (beside(stretch.to_m + SOURCE_M), track.length_m());
        let gap_m = Interval { low: GAP_M, high: GAP_M };
        let speed_mps = context.road.layout().speed_limit_kmh / 3.6;
        let flow =
            Flow::new(Arc::clone(&track), source_m, sink_m, speed_mps, gap_m, SpeedControl::Idm);
        let run_state = RunState::new(parameters);
        Ok(Some(Self { stretch, cones, offset_m, flow, run_state }))
    }
}

/// Returns the track of vehicles that pass cones at `cones` of the road, shifted there
/// by `shift_m` to their left.
fn shifted(road: &Road, oncoming: &Track, cones: Stretch, shift_m: f64) -> Track {
    let length_m = oncoming.length_m();
    let places: Vec<DVec3> = (0..=length_m as usize)
        .map(|at| {
            let (pose, z_m) = oncoming.pose_at(at as f64, 0.0);
            let along_m = road.along(pose.position);
            let off_m = (cones.from_m - along_m).max(along_m - cones.to_m).max(0.0);
            let part = (off_m / MOVING_OVER_M).min(1.0);
            let aside_m = -shift_m * (1.0 + (PI * part).cos()) / 2.0;
            (pose.position + pose.right() * aside_m).extend(z_m)
        })
        .collect();
    Track::new(&places)
}

impl Scenario for Invasion {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        let is_done = context.ego_along_m > self.stretch.to_m + END_M;
        if self.run_state.tick_with_limit(context, is_done).is_none() {
            self.flow.drain(context);
            return;
        }
        self.flow.tick(context);
        context.effects.passages.push(Passage {
            plan_range: context.plan_range(self.stretch),
            aside_m: self.offset_m,
            reason: PassageReason::OncomingInvades,
            actors: self.cones.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route};
    use super::*;
    use glam::DVec2;
    use tandem_scene::ActorKind;

    /// Key points of a left bend with a radius of 80 m.
    fn bend() -> Vec<DVec3> {
        (0..60)
            .map(|i| {
                let at_m = 2.0 * f64::from(i);
                let turned_rad = ((at_m - 20.0) / 80.0).max(0.0);
                let start_m = at_m.min(20.0);
                let place = DVec2::new(turned_rad.sin(), turned_rad.cos() - 1.0) * 80.0;
                (place + DVec2::new(start_m, 0.0)).extend(0.0)
            })
            .collect()
    }

    fn bench() -> TestBench {
        let parameters: &[(&str, &[(&str, &str)])] =
            &[("distance", &[("value", "50")]), ("offset", &[("value", "0.3")])];
        TestBench::on(&scenario_route(bend(), "InvadingTurn", 10.0, parameters), 1)
    }

    #[test]
    fn oncoming_vehicles_invade_the_lane_only_at_the_cones() {
        let mut bench = bench();
        bench.drive(8.0, 0.3);
        let (mut beside, mut before) = (0, 0);
        for _ in 0..400 {
            bench.tick(bench.road.pose_at(70.0, 0.3).0, 0.0);
            assert_eq!(bench.effects.passages[0].aside_m, 0.3);
            let road = &bench.road;
            let start_m = road.route_stations().0 as f64;
            for car in bench.actors.others().iter().filter(|a| a.kind == ActorKind::Vehicle) {
                let along_m = road.along(car.pose.position);
                let center = road.pose_at(along_m, 0.0).0;
                let aside_m = center.inverse_apply(car.pose.position).y;
                if (start_m + 30.0..start_m + 60.0).contains(&along_m) {
                    assert!((aside_m + 3.5 - 1.35).abs() < 0.1, "{aside_m}");
                    beside += 1;
                } else if along_m > start_m + 80.0 || along_m < start_m + 12.0 {
                    assert!((aside_m + 3.5).abs() < 0.1, "{aside_m}");
                    before += 1;
                }
            }
        }
        assert!(beside > 50 && before > 50, "{beside} {before}");
    }

    #[test]
    fn keeping_right_avoids_contact_until_past_the_cones() {
        let mut bench = bench();
        let start_m = bench.ego_along_m();
        while bench.ego_along_m() < start_m + 110.0 {
            bench.drive(6.0, 0.3);
            assert_eq!(bench.touching(), None);
            let own_m = bench.ego_along_m() - start_m;
            let is_running = (8.1..=90.0).contains(&own_m);
            if (own_m - 90.0).abs() > 0.5 && (own_m - 8.1).abs() > 0.5 {
                assert_eq!(bench.effects.allowances.standing, is_running, "{own_m}");
            }
        }
    }
}
