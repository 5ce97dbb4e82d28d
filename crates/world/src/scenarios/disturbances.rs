//! Disturbances without an obstacle: dirt that makes the wheels slip, and
//! vehicles ahead that brake hard.

use super::context::{ControlNoise, Scenario, ScenarioContext};
use super::parameters::Parameters;
use super::run_state::RunState;
use super::scenario_type::{ScenarioType, Start, from_scenario_runner, ready};
use crate::actors::blueprints::DEBRIS;
use crate::road::layout::Layout;
use glam::DVec2;

pub(super) const TYPES: &[ScenarioType] = &[
    ScenarioType {
        name: "HardBreakRoute",
        layout: |_| Layout::BARE,
        set_up: |parameters, _, _| ready(HardBrake::new(parameters)),
        start: Start::AtTrigger,
        modeled: "vehicles ahead brake for 10 s",
        not_modeled: "",
        constants: &[from_scenario_runner("hard_break.py", &[("_stop_duration", &[BRAKING_S])])],
    },
    ScenarioType {
        name: "ControlLoss",
        layout: |_| Layout::BARE,
        set_up: |_, trigger_m, context| ready(ControlLoss::new(trigger_m, context)),
        start: Start::AtTrigger,
        modeled: "three patches of dirt that disturb throttle and steering",
        not_modeled: "",
        constants: &[from_scenario_runner(
            "control_loss.py",
            &[
                ("_distance", &PATCHES_M),
                ("_trigger_dist", &[REACH_M]),
                ("_throttle_mean", &[THROTTLE.mean]),
                ("_throttle_std", &[THROTTLE.deviation]),
                ("_steer_mean", &[STEER.mean]),
                ("_steer_std", &[STEER.deviation]),
            ],
        )],
    },
];

/// Positions of the dirt after the trigger, meters.
const PATCHES_M: [f64; 3] = [14.0, 48.0, 74.0];

/// Radius around its center within which dirt acts, meters.
const REACH_M: f64 = 2.0;

/// A normal distribution; the sign of its mean is sampled for each patch.
struct Normal {
    mean: f64,
    deviation: f64,
}

/// Noise added to throttle and steering.
const THROTTLE: Normal = Normal { mean: 0.03, deviation: 0.01 };
const STEER: Normal = Normal { mean: 0.055, deviation: 0.015 };

/// Time for which vehicles ahead brake and stand, seconds.
const BRAKING_S: f64 = 10.0;

/// Patches of dirt with the noise that they add.
#[derive(Debug)]
struct ControlLoss {
    patches: [(DVec2, ControlNoise); 3],
}

impl ControlLoss {
    /// Spawns the dirt and samples the direction in which each patch pushes.
    fn new(trigger_m: f64, context: &mut ScenarioContext<'_>) -> Self {
        let patches = PATCHES_M.map(|after_m| {
            let along_m = trigger_m + after_m;
            let aside_m = context.road.route_aside_m(along_m);
            context.spawn_standing(&DEBRIS, along_m, aside_m);
            let mut signed = |mean: f64| if context.noise.below(2) == 0 { mean } else { -mean };
            let noise = ControlNoise {
                throttle: signed(THROTTLE.mean),
                throttle_deviation: THROTTLE.deviation,
                steer: signed(STEER.mean),
                steer_deviation: STEER.deviation,
            };
            (context.road.pose_at(along_m, aside_m).0.position, noise)
        });
        Self { patches }
    }
}

impl Scenario for ControlLoss {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        let own = context.ego.pose.position;
        let patch = self.patches.iter().find(|(place, _)| place.distance(own) < REACH_M);
        context.effects.control_noise = patch.map(|&(_, noise)| noise);
    }
}

/// Vehicles ahead that brake hard.
#[derive(Debug)]
struct HardBrake {
    run_state: RunState,
}

impl HardBrake {
    fn new(parameters: &Parameters<'_>) -> Self {
        Self { run_state: RunState::new(parameters) }
    }
}

impl Scenario for HardBrake {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        let elapsed_s = self.run_state.tick(context, false);
        context.effects.traffic.brakes |= elapsed_s.is_some_and(|elapsed_s| elapsed_s < BRAKING_S);
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::{TestBench, scenario_route, straight};

    #[test]
    fn dirt_disturbs_within_two_meters_in_a_fixed_direction() {
        let mut bench = TestBench::on(&scenario_route(straight(), "ControlLoss", 10.0, &[]), 3);
        assert_eq!(bench.drive_without_braking(0.5, 5.0), None);
        let mut drawn = [None; 3];
        while bench.ego.pose.position.x < 150.0 {
            bench.drive(1.9, 0.0);
            let x = bench.ego.pose.position.x;
            let near = [24.0, 58.0, 84.0].iter().position(|at| (x - at).abs() < 2.0 - 1e-6);
            let noise = bench.effects.control_noise;
            assert_eq!(noise.is_some(), near.is_some(), "{x}");
            if let (Some(nth), Some(noise)) = (near, noise) {
                assert_eq!((noise.throttle.abs(), noise.steer.abs()), (0.03, 0.055));
                assert_eq!((noise.throttle_deviation, noise.steer_deviation), (0.01, 0.015));
                assert!(drawn[nth].is_none_or(|before| before == noise));
                drawn[nth] = Some(noise);
            }
        }
        assert!(drawn.iter().all(Option::is_some));
    }

    #[test]
    fn vehicles_ahead_brake_for_ten_seconds() {
        let mut bench = TestBench::on(&scenario_route(straight(), "HardBreakRoute", 10.0, &[]), 1);
        let mut ticks = 0;
        while bench.time_s < 25.0 {
            bench.drive(4.0, 0.0);
            assert!(!bench.effects.traffic.brakes || bench.ego.pose.position.x > 8.0);
            ticks += u32::from(bench.effects.traffic.brakes);
        }
        assert_eq!(ticks, 200);
    }
}
