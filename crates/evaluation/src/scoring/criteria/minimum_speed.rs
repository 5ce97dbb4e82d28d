//! Average speed against the surrounding traffic's, twenty times along the route.
//!
//! Every value is recorded, high ones too; efficiency is computed from them.

use super::progress::RouteLine;
use crate::scoring::python::{Number, round};
use tandem_scene::WorldState;

/// How many points ahead of the current one are looked at.
const WINDOW: usize = 2;
/// How many values a whole route gives.
const CHECKPOINTS: f64 = 20.0;

/// Minimum-speed criterion.
#[derive(Default)]
pub(super) struct MinimumSpeed {
    index: usize,
    checkpoint_index: usize,
    samples: u32,
    ego_sum_mps: f64,
    traffic_sum_mps: f64,
}

impl MinimumSpeed {
    /// Samples this tick; gives a message at each checkpoint.
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

    /// Closes the criterion: the last stretch counts if nearly the whole route was passed. Closing
    /// again says the same again, as the official one does.
    pub(super) fn close(&self, line: &RouteLine) -> Option<String> {
        let is_nearly_done =
            line.length_to_m(self.index) / line.length_m() > 1.0 - 1.0 / CHECKPOINTS;
        is_nearly_done.then(|| self.message())
    }

    fn message(&self) -> String {
        let traffic_mps = self.traffic_sum_mps / f64::from(self.samples);
        // Without samples the mean is NaN; neither that nor zero can be divided by.
        let percentage = if traffic_mps > 0.0 {
            let ego_mps = self.ego_sum_mps / f64::from(self.samples);
            Number::Float(round(ego_mps / traffic_mps * 100.0, 2))
        } else {
            Number::Int(100)
        };
        format!("Average speed is {percentage}% of the surrounding traffic's one")
    }
}
