//! Minimum-speed criterion: average speed relative to the surrounding traffic,
//! about twenty times per route.
//!
//! Every value is recorded, high ones included, and none is penalized.
//! Efficiency is computed from them.

use super::progress::RouteLine;
use crate::scoring::python::{Number, round};
use tandem_scene::WorldState;

/// Number of route points searched ahead of the current one.
const WINDOW: usize = 2;
/// Number of values per route.
const CHECKPOINTS: f64 = 20.0;

/// State of the criterion for one route.
#[derive(Default)]
pub(super) struct MinimumSpeed {
    index: usize,
    checkpoint_index: usize,
    samples: u32,
    ego_sum_mps: f64,
    traffic_sum_mps: f64,
}

impl MinimumSpeed {
    /// Samples this tick. Returns a message at each checkpoint.
    pub(super) fn tick(&mut self, line: &RouteLine, state: &WorldState) -> Option<String> {
        if let Some(index) = line.passed(self.index, WINDOW, state.ego.location()).last() {
            self.index = index;
        }
        let since_m = line.length_to_m(self.index) - line.length_to_m(self.checkpoint_index);
        let message = (since_m > line.length_m() / CHECKPOINTS).then(|| self.message());
        if message.is_some() {
            *self = Self { index: self.index, checkpoint_index: self.index, ..Self::default() };
        }
        let speeds = &state.background_speeds_mps;
        if !speeds.is_empty() {
            self.traffic_sum_mps += speeds.iter().sum::<f64>() / speeds.len() as f64;
            self.ego_sum_mps += state.ego.speed_mps.abs();
            self.samples += 1;
        }
        message
    }

    /// Closes the criterion. Returns a message for the last section if at least 95 % of the route
    /// was passed. A second call returns the same message, as in the official criterion.
    pub(super) fn close(&self, line: &RouteLine) -> Option<String> {
        let is_nearly_done =
            line.length_to_m(self.index) / line.length_m() > 1.0 - 1.0 / CHECKPOINTS;
        is_nearly_done.then(|| self.message())
    }

    fn message(&self) -> String {
        let traffic_mps = self.traffic_sum_mps / f64::from(self.samples);
        // Without samples the mean is NaN, which is not a valid divisor, and neither is zero.
        let percentage = if traffic_mps > 0.0 {
            let ego_mps = self.ego_sum_mps / f64::from(self.samples);
            Number::Float(round(ego_mps / traffic_mps * 100.0, 2))
        } else {
            Number::Int(100)
        };
        format!("Average speed is {percentage}% of the surrounding traffic's one")
    }
}
