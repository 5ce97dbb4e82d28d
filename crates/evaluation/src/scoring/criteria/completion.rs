//! Route completion: how much of the route has been driven, and whether the end was reached.

use super::progress::RouteLine;
use crate::scoring::python::{Number, round};
use glam::DVec3;

/// How many points ahead of the current one are looked at.
const WINDOW: usize = 2;
/// More than this of the route must have been driven, percent.
const COMPLETE_ABOVE_PERCENT: f64 = 99.0;
/// And the end must be nearer than this, meters.
const END_WITHIN_M: f64 = 10.0;

/// Route completion criterion.
pub(super) struct Completion {
    index: usize,
    percent: Number,
    is_reached: bool,
}

impl Completion {
    pub(super) fn new() -> Self {
        Self { index: 0, percent: Number::Int(0), is_reached: false }
    }

    /// True when the target had been reached before this tick: the route ends one tick later.
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

    /// Percent of the route driven; the integer 100 once the end is reached.
    pub(super) fn percent(&self) -> Number {
        self.percent
    }
}
