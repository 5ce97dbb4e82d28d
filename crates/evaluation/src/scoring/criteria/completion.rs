//! Route-completion criterion: the share of the route driven, and whether the end was reached.

use super::progress::RouteLine;
use crate::scoring::python::{Number, round};
use glam::DVec3;

/// Number of route points searched ahead of the current one.
const WINDOW: usize = 2;
/// The route is complete above this percentage, if the end is also near.
const COMPLETE_ABOVE_PERCENT: f64 = 99.0;
/// Largest distance to the end of a complete route, meters.
const END_WITHIN_M: f64 = 10.0;

/// State of the criterion for one route.
pub(super) struct Completion {
    index: usize,
    percent: Number,
    is_reached: bool,
}

impl Completion {
    pub(super) fn new() -> Self {
        Self { index: 0, percent: Number::Int(0), is_reached: false }
    }

    /// Evaluates this tick. Returns true if the end was reached at an earlier tick: the route ends
    /// one tick after reaching it.
    pub(super) fn tick(&mut self, line: &RouteLine, ego: DVec3) -> bool {
        if self.is_reached {
            return true;
        }
        for index in line.passed(self.index, WINDOW, ego) {
            self.index = index;
            let percent = 100.0 * line.length_to_m(index) / line.length_m();
            self.percent = Number::Float(round(percent, 2));
        }
        if self.percent.value() > COMPLETE_ABOVE_PERCENT && ego.distance(line.end()) < END_WITHIN_M
        {
            self.is_reached = true;
            self.percent = Number::Int(100);
        }
        false
    }

    /// Returns the percentage of the route driven; the integer 100 once the end is reached.
    pub(super) fn percent(&self) -> Number {
        self.percent
    }
}
