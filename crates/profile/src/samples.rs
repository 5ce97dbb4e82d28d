//! Access to the samples of a phase: durations per tick, and ticks by rank.

use super::latency_file::{Phase, StageColumn};
use std::collections::BTreeMap;
use tandem::timing::{Percentile, Stage};

/// A stage, or the remainder of a stage that its parts do not cover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub stage: Stage,
    /// True for the remainder that the parts of the stage do not cover.
    pub is_rest: bool,
}

impl Part {
    /// Returns the part that is the complete stage.
    pub fn whole(stage: Stage) -> Self {
        Self { stage, is_rest: false }
    }

    /// Returns the remainder that the parts of `stage` do not cover.
    pub fn rest(stage: Stage) -> Self {
        Self { stage, is_rest: true }
    }

    /// Returns the name for tables.
    pub fn title(self) -> String {
        let rest = if self.is_rest { " (rest)" } else { "" };
        format!("{}{rest}", self.stage.name())
    }

    /// Returns its duration in sample `index` of `stages`, nanoseconds; `None` if it did not run.
    /// The remainder is zero if parts overlap, and `None` if no part ran.
    pub fn took_ns(self, stages: &BTreeMap<String, StageColumn>, index: usize) -> Option<u64> {
        let took = |stage: Stage| Some(stages.get(stage.name())?.span(index)?.1);
        let total = took(self.stage)?;
        if !self.is_rest {
            return Some(total);
        }
        let parts = self.stage.parts().filter_map(took).reduce(u64::saturating_add)?;
        Some(total.saturating_sub(parts))
    }
}

impl StageColumn {
    /// Returns first start and duration in sample `index`, nanoseconds; `None` if it did not run.
    pub fn span(&self, index: usize) -> Option<(u64, u64)> {
        Some(((*self.start_ns.get(index)?)?, (*self.took_ns.get(index)?)?))
    }
}

impl Phase {
    /// Returns the stage that is the main latency of a tick: the response if the loop keeps real
    /// time, otherwise the tick. `None` in a phase without either.
    pub fn main_stage(&self) -> Option<Stage> {
        [Stage::RESPONSE, Stage::TICK]
            .into_iter()
            .find(|&stage| self.statistics.stage(stage).count() > 0)
    }

    /// Returns index and duration (nanoseconds) of the timed sampled ticks, fastest first.
    pub fn ticks_by_time(&self) -> Vec<(usize, u64)> {
        let Some(stage) = self.main_stage() else { return Vec::new() };
        let took = |index| Some((index, Part::whole(stage).took_ns(&self.ticks.stages, index)?));
        let mut ticks: Vec<_> = (0..self.ticks.start_ns.len()).filter_map(took).collect();
        ticks.sort_by_key(|&(index, took_ns)| (took_ns, index));
        ticks
    }
}

/// Returns the nearest-rank percentile of a sorted slice; `None` if it is empty.
pub fn nearest_rank<T: Copy>(sorted: &[T], percentile: Percentile) -> Option<T> {
    let exact = sorted.len() as u128 * u128::from(percentile.numerator);
    let rank = exact.div_ceil(u128::from(percentile.denominator)).max(1);
    sorted.get(usize::try_from(rank - 1).ok()?).copied()
}

/// Returns the nearest-rank median; `None` without values.
pub(super) fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    nearest_rank(&values, Percentile::P50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let values: Vec<u32> = (1..=200).collect();
        let at = |percentile| nearest_rank(&values, percentile);
        assert_eq!((at(Percentile::P50), at(Percentile::P99)), (Some(100), Some(198)));
        assert_eq!(at(Percentile::P999), Some(200));
        assert_eq!(nearest_rank::<u32>(&[], Percentile::P50), None);
        assert_eq!(nearest_rank(&[7], Percentile::P50), Some(7));
    }
}
