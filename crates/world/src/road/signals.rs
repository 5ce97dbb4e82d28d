//! Traffic lights and stop signs of the route's junction.

use super::junction::{Arm, Junction};
use super::layout::{Control, LANE_WIDTH_M};
use glam::{DVec2, DVec3};
use std::f64::consts::{FRAC_PI_2, PI};
use tandem_scene::{
    LightColor, Pose, StopCause, StopLine, StopSign, TrafficLight, TriggerVolume, wrap_angle,
};

/// Durations of green, yellow and red in the light cycle, seconds.
const CYCLE_S: (f64, f64, f64) = (10.0, 3.0, 12.0);

/// Distance from the junction back to the center of a signal's trigger volume, meters.
const TRIGGER_BEFORE_M: f64 = 1.5;

/// Height of a traffic light above the road, meters.
const HEIGHT_M: f64 = 4.2;

/// Colors that a scenario sets on the lights of the junction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LightOverride {
    /// Color for the ego vehicle's road.
    pub(crate) ego: LightColor,
    /// Color for all other roads.
    pub(crate) others: LightColor,
}

/// The lights and signs of one route.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    lights: Vec<Light>,
    signs: Vec<StopSign>,
    /// Stop line of the ego vehicle: index of the plan point, and id of its signal.
    ego_line: Option<(usize, u32)>,
}

#[derive(Debug)]
struct Light {
    light: TrafficLight,
    is_for_ego: bool,
    is_on_route: bool,
    /// True for lights on the crossing road.
    is_across: bool,
}

impl Signals {
    /// Creates the signals of `junction` under `control`; `plan_idx` returns the index of the plan
    /// point at a distance along the road, meters.
    pub(super) fn new(
        control: Control,
        junction: Option<&Junction>,
        plan_idx: impl FnOnce(f64) -> usize,
    ) -> Self {
        let Some(junction) = junction.filter(|_| control != Control::Uncontrolled) else {
            return Self::default();
        };
        let ego_line = Some((plan_idx(junction.entry as f64), 1));
        let stop = |arm: Arm| post(junction, arm);
        match control {
            Control::Uncontrolled => Self::default(),
            Control::StopSign => Self {
                signs: stop(Arm::Behind)
                    .map(|(position, trigger)| StopSign { id: 1, position, trigger })
                    .into_iter()
                    .collect(),
                ego_line,
                ..Self::default()
            },
            Control::Lights => {
                let arms = [Arm::Behind, Arm::Left, Arm::Ahead, Arm::Right];
                let posts = arms.into_iter().filter_map(|arm| Some((arm, stop(arm)?)));
                let lights = posts.zip(1..).map(|((arm, (position, trigger)), id)| Light {
                    light: TrafficLight { id, position, color: LightColor::Red, trigger },
                    is_for_ego: arm == Arm::Behind,
                    is_on_route: arm == Arm::Behind || arm == junction.exit_arm(),
                    is_across: matches!(arm, Arm::Left | Arm::Right),
                });
                Self { lights: lights.collect(), ego_line, ..Self::default() }
            }
        }
    }

    /// Sets the lights to `light_override`, or else to their cycle, which is green for the
    /// ego vehicle at `time_s` 0.
    pub(crate) fn show(&mut self, time_s: f64, light_override: Option<LightOverride>) {
        for Light { light, is_for_ego, is_across, .. } in &mut self.lights {
            light.color = match light_override {
                Some(light_override) if *is_for_ego => light_override.ego,
                Some(light_override) => light_override.others,
                None if *is_across => cycle(time_s + CYCLE_S.2 + 0.5),
                None => cycle(time_s),
            };
        }
    }

    /// Returns the lights that control lanes of the route's road. Lights of crossing roads are
    /// rendered and obeyed, but their lanes are not in the lane map that the criteria query.
    pub(crate) fn judged_lights(&self) -> impl Iterator<Item = TrafficLight> + '_ {
        self.lights.iter().filter(|light| light.is_on_route).map(|light| light.light)
    }

    pub(crate) fn signs(&self) -> &[StopSign] {
        &self.signs
    }

    /// Returns where the ego vehicle may have to stop, and why.
    pub(crate) fn stop_lines(&self) -> impl Iterator<Item = StopLine> + '_ {
        let light = self.lights.iter().find(|light| light.is_for_ego);
        let cause = light.map_or(StopCause::Sign, |light| StopCause::Light(light.light.color));
        self.ego_line.map(|(plan_idx, id)| StopLine { id, plan_idx, cause }).into_iter()
    }

    /// Returns place, heading (radians) and color of each light and sign; a sign has no color.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (DVec3, f64, Option<LightColor>)> + '_ {
        let facing = |trigger: &TriggerVolume| trigger.yaw_rad + FRAC_PI_2;
        let lights = self.lights.iter().map(move |Light { light, .. }| {
            (light.position + DVec3::Z * HEIGHT_M, facing(&light.trigger), Some(light.color))
        });
        let signs = self
            .signs
            .iter()
            .map(move |sign| (sign.position + DVec3::Z * 2.0, facing(&sign.trigger), None));
        lights.chain(signs)
    }
}

fn cycle(time_s: f64) -> LightColor {
    let (green_s, yellow_s, red_s) = CYCLE_S;
    let phase_s = time_s.rem_euclid(green_s + yellow_s + red_s);
    if phase_s < green_s {
        LightColor::Green
    } else if phase_s < green_s + yellow_s {
        LightColor::Yellow
    } else {
        LightColor::Red
    }
}

/// Returns the post next to the road `arm` at the junction, and the trigger volume on
/// the lane next to the divider.
fn post(junction: &Junction, arm: Arm) -> Option<(DVec3, TriggerVolume)> {
    let (outward, z_m) = junction.mouth(arm)?;
    let inbound = Pose { position: outward.position, yaw_rad: outward.yaw_rad + PI };
    let lane = inbound.apply(DVec2::new(-TRIGGER_BEFORE_M, LANE_WIDTH_M / 2.0));
    let beside = inbound.apply(DVec2::new(0.5, LANE_WIDTH_M + 1.5));
    let trigger = TriggerVolume {
        center: lane.extend(z_m),
        yaw_rad: wrap_angle(inbound.yaw_rad + FRAC_PI_2),
        extent_m: [1.5, 1.0, 1.0],
    };
    Some((beside.extend(z_m), trigger))
}
