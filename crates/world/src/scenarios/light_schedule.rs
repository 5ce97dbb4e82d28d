//! Lights that change at times counted from the start of a scenario.

use super::context::{Scenario, ScenarioContext};
use super::scenario_type::{ScenarioType, Start, from_scenario_runner, ready};
use crate::road::layout::Layout;
use crate::road::signals::LightOverride;
use tandem_scene::LightColor;

pub(super) const TYPES: &[ScenarioType] = &[
    ScenarioType {
        name: "VanillaSignalizedTurnEncounterGreenLight",
        set_up: |_, _, _| ready(LightSchedule::new(GREEN_THEN_RED)),
        modeled: "five seconds of green, five of red, then the ordinary cycle, from the route's \
                  start: the trigger is after the stop line",
        ..TEMPLATE
    },
    ScenarioType {
        name: "VanillaSignalizedTurnEncounterRedLight",
        set_up: |_, _, _| ready(LightSchedule::new(RED_THEN_GREEN)),
        modeled: "five seconds of red, then green, from the route's start: the trigger is after \
                  the stop line",
        ..TEMPLATE
    },
];

/// Values that both types share.
const TEMPLATE: ScenarioType = ScenarioType {
    name: "",
    layout: |_| Layout::LIGHTS,
    set_up: |_, _, _| Ok(None),
    start: Start::AtRouteStart,
    modeled: "",
    not_modeled: "cross traffic",
    constants: &[from_scenario_runner("vanilla_turn.py", &[("_green_light_delay", &[DELAY_S])])],
};

/// Time after which the lights change, seconds.
pub(super) const DELAY_S: f64 = 5.0;

/// Colors for the ego vehicle, each with its duration in seconds.
pub(super) type Phases = &'static [(LightColor, f64)];

/// Five seconds of red, then green until the end.
pub(super) const RED_THEN_GREEN: Phases =
    &[(LightColor::Red, DELAY_S), (LightColor::Green, f64::INFINITY)];

/// Five seconds of green, five of red, then the ordinary cycle.
pub(super) const GREEN_THEN_RED: Phases =
    &[(LightColor::Green, DELAY_S), (LightColor::Red, DELAY_S)];

/// Sets the lights of the junction; all other roads have red.
pub(super) struct LightSchedule {
    phases: Phases,
    begun_at_s: Option<f64>,
}

impl LightSchedule {
    /// Creates a schedule of `phases`, followed by the ordinary cycle.
    pub(crate) fn new(phases: Phases) -> Self {
        Self { phases, begun_at_s: None }
    }
}

impl Scenario for LightSchedule {
    fn tick(&mut self, context: &mut ScenarioContext<'_>) {
        let begun_at_s = *self.begun_at_s.get_or_insert(context.time_s);
        let mut left_s = context.time_s - begun_at_s;
        for &(ego, lasts_s) in self.phases {
            if left_s < lasts_s {
                context.effects.lights = Some(LightOverride { ego, others: LightColor::Red });
                return;
            }
            left_s -= lasts_s;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bench::TestBench;
    use super::*;

    fn shown(phases: Phases) -> Vec<Option<LightColor>> {
        let mut schedule = LightSchedule::new(phases);
        let mut bench = TestBench::on_a_straight_road();
        (0..22)
            .map(|half_second| {
                bench.time_s = 3.0 + 0.5 * f64::from(half_second);
                bench.effects.lights = None;
                bench.with_context(|context| schedule.tick(context));
                bench.effects.lights.map(|order| order.ego)
            })
            .collect()
    }

    #[test]
    fn red_for_five_seconds_then_green() {
        let shown = shown(RED_THEN_GREEN);
        assert!(shown[..10].iter().all(|&color| color == Some(LightColor::Red)));
        assert!(shown[10..].iter().all(|&color| color == Some(LightColor::Green)));
    }

    #[test]
    fn green_then_red_then_the_ordinary_cycle() {
        let shown = shown(GREEN_THEN_RED);
        assert_eq!(shown[9], Some(LightColor::Green));
        assert_eq!(shown[10], Some(LightColor::Red));
        assert_eq!(shown[20], None);
    }
}
