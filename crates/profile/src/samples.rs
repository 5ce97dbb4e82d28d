//! Readings of a phase's columns: what one tick's stages took, and which tick has a rank.

use super::latency_file::{Phase, StageColumn};
use std::collections::BTreeMap;
use tandem::timing::{Percentile, Stage};

/// A stage, or what its own parts leave over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The stage.
    pub stage: Stage,
    /// True for what the parts of the stage do not account for.
    pub is_rest: bool,
}

impl Part {
    /// The whole of a stage.
    pub fn whole(stage: Stage) -> Self {
        Self { stage, is_rest: false }
    }

    /// What the parts of `stage` leave over.
    pub fn rest(stage: Stage) -> Self {
        Self { stage, is_rest: true }
    }

    /// For tables.
    pub fn title(self) -> String {
        let rest = if self.is_rest { " (rest)" } else { "" };
        format!("{}{rest}", self.stage.name())
    }

    /// Nanoseconds that it took in sample `index` of these columns; `None` where it did not run.
    /// Parts that overlap leave over nothing; where none of them ran there is no rest.
    pub fn took_ns(self, stages: &BTreeMap<String, StageColumn>, index: usize) -> Option<u64> {
        let took = |stage: Stage| Some(stages.get(stage.name())?.span(index)?.1);
        let whole = took(self.stage)?;
        if !self.is_rest {
            return Some(whole);
        }
        let parts = self.stage.parts().filter_map(took).reduce(u64::saturating_add)?;
        Some(whole.saturating_sub(parts))
    }
}

impl StageColumn {
    /// First beginning and duration in sample `index`, nanoseconds; `None` where it did not run.
    pub fn span(&self, index: usize) -> Option<(u64, u64)> {
        Some(((*self.start_ns.get(index)?)?, (*self.took_ns.get(index)?)?))
    }
}

impl Phase {
    /// The stage that a tick's time is: the response where the loop keeps real time, otherwise the
    /// tick. `None` in a phase without either.
    pub fn judged_by(&self) -> Option<Stage> {
        [Stage::RESPONSE, Stage::TICK]
            .into_iter()
            .find(|&stage| self.statistics.stage(stage).count() > 0)
    }

    /// Sampled ticks that have a time, each with it in nanoseconds, the fastest first.
    pub fn ticks_by_time(&self) -> Vec<(usize, u64)> {
        let Some(stage) = self.judged_by() else { return Vec::new() };
        let took = |index| Some((index, Part::whole(stage).took_ns(&self.ticks.stages, index)?));
        let mut ticks: Vec<_> = (0..self.ticks.start_ns.len()).filter_map(took).collect();
        ticks.sort_by_key(|&(index, took_ns)| (took_ns, index));
        ticks
    }
}

/// The entry of nearest rank in a sorted slice; `None` if it is empty.
pub fn nearest_rank<T: Copy>(sorted: &[T], percentile: Percentile) -> Option<T> {
    let exact = sorted.len() as u128 * u128::from(percentile.numerator);
    let rank = exact.div_ceil(u128::from(percentile.denominator)).max(1);
    sorted.get(usize::try_from(rank - 1).ok()?).copied()
}

/// Nearest-rank median; `None` of nothing.
pub(super) fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    nearest_rank(&values, Percentile::P50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_nearest() {
        let values: Vec<u32> = (1..=200).collect();
        let at = |percentile| nearest_rank(&values, percentile);
        assert_eq!((at(Percentile::P50), at(Percentile::P99)), (Some(100), Some(198)));
        assert_eq!(at(Percentile::P999), Some(200));
        assert_eq!(nearest_rank::<u32>(&[], Percentile::P50), None);
        assert_eq!(nearest_rank(&[7], Percentile::P50), Some(7));
    }
}
