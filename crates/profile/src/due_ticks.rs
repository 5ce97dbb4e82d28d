//! Statistics over all due ticks, including skipped ones. A skipped tick counts as a deadline miss,
//! and its response as longer than any other.

use super::latency_file::Phase;
use std::time::Duration;
use tandem::timing::{Percentile, Stage};

/// Percentile of the response over all due ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DueResponse {
    /// Response of the tick with this rank.
    Took(Duration),
    /// The tick with this rank was skipped.
    Skipped,
}

impl Phase {
    /// Returns the number of due ticks: counted and skipped ones.
    pub fn ticks_due(&self) -> u64 {
        self.statistics.ticks().saturating_add(self.ticks_skipped)
    }

    /// Returns the number of due ticks that missed their deadline or were skipped.
    pub fn due_ticks_missed(&self) -> u64 {
        self.statistics.deadline_misses().saturating_add(self.ticks_skipped)
    }

    /// Returns a percentile of the response over all due ticks; `None` in phases
    /// that do not keep real time.
    pub fn due_response(&self, percentile: Percentile) -> Option<DueResponse> {
        let response = self.statistics.stage(Stage::RESPONSE);
        let count = response.count();
        if count == 0 {
            return None;
        }
        let rank = percentile.rank(count.saturating_add(self.ticks_skipped));
        Some(response.at_rank(rank).map_or(DueResponse::Skipped, DueResponse::Took))
    }
}
