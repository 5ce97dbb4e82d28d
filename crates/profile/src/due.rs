//! Ticks that were due, those that never began included: a skipped tick has no command in time, so
//! it counts as missed, and its response as longer than any other.

use super::latency_file::Phase;
use std::time::Duration;
use tandem::timing::{Percentile, Stage};

/// A percentile of the response over all ticks that were due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseOfDue {
    /// A tick that began has this rank.
    Took(Duration),
    /// A skipped tick has this rank.
    Skipped,
}

impl Phase {
    /// Ticks that were due: those that counted and those that were skipped.
    pub fn ticks_due(&self) -> u64 {
        self.statistics.ticks().saturating_add(self.ticks_skipped)
    }

    /// Ticks that were due and had no command by their deadline.
    pub fn due_ticks_missed(&self) -> u64 {
        self.statistics.deadline_misses().saturating_add(self.ticks_skipped)
    }

    /// A percentile of the response over all ticks that were due; `None` in phases that keep no
    /// real time.
    pub fn response_of_due(&self, percentile: Percentile) -> Option<ResponseOfDue> {
        let response = self.statistics.stage(Stage::RESPONSE);
        let count = response.count();
        if count == 0 {
            return None;
        }
        let rank = percentile.rank(count.saturating_add(self.ticks_skipped));
        Some(response.at_rank(rank).map_or(ResponseOfDue::Skipped, ResponseOfDue::Took))
    }
}
