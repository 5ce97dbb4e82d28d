//! Lights that change at times counted from a scenario's beginning.

use super::context::{Scenario, ScenarioContext};
use crate::road::signals::LightOrder;
use tandem_scene::LightColor;

/// What our vehicle is shown, and for how many seconds.
pub(super) type Phases = &'static [(LightColor, f64)];

/// Five seconds of red, then green for ever.
pub(super) const RED_THEN_GREEN: Phases =
    &[(LightColor::Red, 5.0), (LightColor::Green, f64::INFINITY)];

/// Five seconds of green, five of red, then the ordinary cycle.
pub(super) const GREEN_THEN_RED: Phases = &[(LightColor::Green, 5.0), (LightColor::Red, 5.0)];

/// Orders the lights of the junction; all other roads have red.
pub(super) struct LightSchedule {
    phases: Phases,
    begun_at_s: Option<f64>,
}

impl LightSchedule {
    /// `phases` one after the other, and the ordinary cycle behind them.
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
                context.effects.lights = Some(LightOrder { ego, others: LightColor::Red });
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
