//! Cost of measuring, measured in the same process.

use super::TraceRecorder;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::time::Duration;
use tandem::scene::{PrefillReport, TickReport};
use tandem::timing::{MAX_SPANS, Span, Stage, StageSpans, StageStatistics, now_ns};

/// Cost of the profiler, nanoseconds. Medians over rounds exclude rounds that were preempted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfilerCost {
    /// Starting and ending one stage.
    pub stage_ns: u64,
    /// All stages of a tick, and recording them in the histograms.
    pub tick_ns: u64,
    /// Storing a tick and the longest prefill for the timeline; only if a timeline is requested.
    pub trace_ns: u64,
    /// Number of rounds over which the medians are taken.
    pub rounds: u64,
}

/// Number of measured rounds.
const ROUNDS: usize = 101;

/// Number of ticks per round.
const TICKS: u64 = 200;

impl ProfilerCost {
    /// Measures the cost; takes some tens of milliseconds.
    pub fn measure() -> Self {
        let on_tick: Vec<Stage> = Stage::TICK.parts().collect();
        let mut statistics = StageStatistics::new();
        let mut stage_ns = Vec::with_capacity(ROUNDS);
        let mut tick_ns = Vec::with_capacity(ROUNDS);
        let mut trace_ns = Vec::with_capacity(ROUNDS);
        let report = longest_report(&on_tick);
        for _ in 0..ROUNDS {
            let start = now_ns();
            for _ in 0..TICKS {
                let mut spans = StageSpans::default();
                for &stage in &on_tick {
                    spans.end(stage.begin());
                }
                black_box(&spans);
            }
            stage_ns.push((now_ns() - start) / (TICKS * on_tick.len() as u64));

            let start = now_ns();
            for _ in 0..TICKS {
                let mut spans = StageSpans::default();
                let start_ns = now_ns();
                for &stage in &on_tick {
                    spans.end(stage.begin());
                }
                let took_ns = now_ns() - start_ns;
                spans.push(Span { stage: Stage::TICK, start_ns, took_ns });
                let age = Some(Duration::from_millis(100));
                statistics.record(black_box(&spans.times()), age, false);
            }
            tick_ns.push((now_ns() - start) / TICKS);

            // Twice the ticks, because a report with a prefill uses the capacity of two.
            let mut trace = TraceRecorder::new(2 * TICKS as usize);
            let start = now_ns();
            for _ in 0..TICKS {
                trace.tick(black_box(&report));
            }
            trace_ns.push((now_ns() - start) / TICKS);
            black_box(&trace);
        }
        let median = |samples: &mut Vec<u64>| {
            samples.sort_unstable();
            samples[samples.len() / 2]
        };
        Self {
            stage_ns: median(&mut stage_ns),
            tick_ns: median(&mut tick_ns),
            trace_ns: median(&mut trace_ns),
            rounds: ROUNDS as u64,
        }
    }
}

/// Returns the report of a tick with all stages, at which a prefill with the
/// maximum number of spans ends.
fn longest_report(on_tick: &[Stage]) -> TickReport {
    let mut report = TickReport::default();
    for &stage in on_tick.iter().chain(&[Stage::TICK]) {
        report.spans.push(Span { stage, start_ns: 1, took_ns: 1 });
    }
    let mut spans = StageSpans::default();
    for start_ns in 0..MAX_SPANS as u64 {
        spans.push(Span { stage: Stage::SEAL, start_ns, took_ns: 1 });
    }
    report.prefill = Some(PrefillReport { version: 1, is_published: true, spans });
    report
}
