//! The slowest ticks of a phase, with possible causes.

use super::latency_file::Phase;
use super::samples::{Part, median};
use tandem::timing::Stage;

/// A slow tick with facts that may explain it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorstTick {
    /// Index among the sampled ticks, from 0.
    pub index: usize,
    /// Start, nanoseconds since the start of the phase.
    pub start_ns: u64,
    /// Duration of the stage [`Phase::main_stage`].
    pub took_ns: u64,
    /// Excess over the median tick.
    pub over_median_ns: u64,
    /// Time by which the deadline was missed; `None` if it was met.
    pub late_by_ns: Option<u64>,
    /// Part with the largest excess over its own median; `None` if no part exceeded it.
    pub slowest: Option<Excess>,
    /// Excess of the wake-up over its median, if at least a tenth of the excess of the tick.
    pub woke_late_by_ns: Option<u64>,
    /// True if a prefill was running when it ended.
    pub is_refreshing: bool,
    /// True if it is the first tick on its prefix.
    pub is_first_on_prefix: bool,
    pub page_faults: u64,
    /// Involuntary context switches of its thread.
    pub preemptions: u64,
}

/// Part of a tick that took longer than its median.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Excess {
    /// A stage without parts, or the remainder of a stage that its parts do not cover.
    pub part: Part,
    /// Duration in this tick, nanoseconds.
    pub took_ns: u64,
    /// Median over the ticks in which it ran, nanoseconds.
    pub median_ns: u64,
}

impl Excess {
    /// Returns the excess over the median, nanoseconds.
    pub fn over_ns(self) -> u64 {
        self.took_ns.saturating_sub(self.median_ns)
    }
}

/// Returns the `count` slowest sampled ticks of a phase, slowest first.
pub fn worst_ticks(phase: &Phase, count: usize) -> Vec<WorstTick> {
    let by_time = phase.ticks_by_time();
    let Some(median_ns) = median(by_time.iter().map(|&(_, took_ns)| took_ns).collect()) else {
        return Vec::new();
    };
    let ticks = &phase.ticks;
    let samples = ticks.start_ns.len();
    // Every nanosecond of a tick belongs to exactly one of these parts.
    let parts: Vec<(Part, u64)> = Stage::all()
        .iter()
        .copied()
        .map(|stage| Part { stage, is_rest: stage.parts().next().is_some() })
        .filter_map(|part| {
            let took = (0..samples).filter_map(|index| part.took_ns(&ticks.stages, index));
            Some((part, median(took.collect())?))
        })
        .collect();
    by_time
        .into_iter()
        .rev()
        .take(count)
        .map(|(index, took_ns)| {
            let excess = |&(part, median_ns): &(Part, u64)| {
                let took_ns = part.took_ns(&ticks.stages, index)?;
                Some(Excess { part, took_ns, median_ns })
            };
            let excesses = || parts.iter().filter_map(excess).filter(|e| e.over_ns() > 0);
            let over_median_ns = took_ns.saturating_sub(median_ns);
            let is_relevant = |over_ns: &u64| over_ns.saturating_mul(10) >= over_median_ns;
            WorstTick {
                index,
                start_ns: ticks.start_ns[index],
                took_ns,
                over_median_ns,
                late_by_ns: ticks.late_by_ns.get(index).copied().flatten(),
                slowest: excesses().max_by_key(|excess| excess.over_ns()),
                woke_late_by_ns: excesses()
                    .find(|excess| excess.part.stage == Stage::WAKE)
                    .map(Excess::over_ns)
                    .filter(is_relevant),
                is_refreshing: ticks.is_refreshing.get(index).copied().unwrap_or(false),
                is_first_on_prefix: is_first_on_prefix(phase, index),
                page_faults: ticks.page_faults.get(index).copied().unwrap_or(0),
                preemptions: ticks.preemptions.get(index).copied().unwrap_or(0),
            }
        })
        .collect()
}

/// Returns true if sampled tick `index` acts on another prefix than the previous tick.
pub(super) fn is_first_on_prefix(phase: &Phase, index: usize) -> bool {
    let version = |index: usize| phase.ticks.prefix_version.get(index).copied().flatten();
    match index.checked_sub(1) {
        Some(before) => version(index).is_some() && version(index) != version(before),
        None => phase.refreshes.published_at.contains(&0) && version(0).is_some(),
    }
}
