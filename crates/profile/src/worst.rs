//! The slowest ticks of a phase, each with what was different about it.

use super::latency_file::Phase;
use super::samples::{Part, median};
use tandem::timing::Stage;

/// A slow tick.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorstTick {
    /// Which sampled tick, from 0.
    pub index: usize,
    /// When it began, nanoseconds since the phase did.
    pub start_ns: u64,
    /// What it took, of the stage that [`Phase::judged_by`] names.
    pub took_ns: u64,
    /// By how much that exceeds the median tick.
    pub over_median_ns: u64,
    /// By how much it missed its deadline.
    pub late_by_ns: Option<u64>,
    /// The part that exceeded its own median the most; `None` if none did.
    pub slowest: Option<Excess>,
    /// By how much its wake-up exceeded the median one, if that is a tenth or more of what the whole
    /// tick has over the median tick.
    pub woke_late_by_ns: Option<u64>,
    /// Whether a refresh was running when it ended.
    pub is_refreshing: bool,
    /// Whether it is the first to act on its prefix.
    pub is_first_on_prefix: bool,
    /// Page faults of its thread.
    pub page_faults: u64,
    /// Times that the system took the core from its thread.
    pub preemptions: u64,
}

/// A part of a tick that took longer than it mostly does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Excess {
    /// The part: a stage without parts of its own, or what the parts of a stage leave over.
    pub part: Part,
    /// What it took here.
    pub took_ns: u64,
    /// Its median over the ticks at which it ran.
    pub median_ns: u64,
}

impl Excess {
    /// What it took beyond its median.
    pub fn over_ns(self) -> u64 {
        self.took_ns.saturating_sub(self.median_ns)
    }
}

/// The `count` slowest sampled ticks of a phase, the slowest first.
pub fn worst_ticks(phase: &Phase, count: usize) -> Vec<WorstTick> {
    let by_time = phase.ticks_by_time();
    let Some(median_ns) = median(by_time.iter().map(|&(_, took_ns)| took_ns).collect()) else {
        return Vec::new();
    };
    let ticks = &phase.ticks;
    let samples = ticks.start_ns.len();
    // Every nanosecond of a tick belongs to exactly one of these.
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
            let is_of_weight = |over_ns: &u64| over_ns.saturating_mul(10) >= over_median_ns;
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
                    .filter(is_of_weight),
                is_refreshing: ticks.is_refreshing.get(index).copied().unwrap_or(false),
                is_first_on_prefix: is_first_on_prefix(phase, index),
                page_faults: ticks.page_faults.get(index).copied().unwrap_or(0),
                preemptions: ticks.preemptions.get(index).copied().unwrap_or(0),
            }
        })
        .collect()
}

/// Whether the prefix of sampled tick `index` is another one than that of the tick before it.
pub(super) fn is_first_on_prefix(phase: &Phase, index: usize) -> bool {
    let version = |index: usize| phase.ticks.prefix_version.get(index).copied().flatten();
    match index.checked_sub(1) {
        Some(before) => version(index).is_some() && version(index) != version(before),
        None => phase.refreshes.published_at.contains(&0) && version(0).is_some(),
    }
}
