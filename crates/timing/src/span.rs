//! Start and duration of single stages, in fixed memory.

use super::nvtx::Range;
use super::{Stage, StageTimes};
use arrayvec::ArrayVec;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Maximum number of spans per tick or prefill. A prefill of eight frames without cached ones has
/// 37, and one more for each layer group of the understanding expert.
pub const MAX_SPANS: usize = 64;

/// Returns nanoseconds on the host's monotonic clock since the first call in this process.
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn now_ns() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Start and duration of one run of a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub stage: Stage,
    /// Start on the clock of [`now_ns`].
    pub start_ns: u64,
    pub took_ns: u64,
}

/// A stage that has begun and has not ended.
#[must_use = "a stage that is not ended is not recorded"]
#[derive(Debug)]
pub struct Begun {
    stage: Stage,
    start_ns: u64,
    range: Range,
}

impl Stage {
    /// Begins this stage now, on the calling thread.
    pub fn begin(self) -> Begun {
        let range = Range::begin(self);
        Begun { stage: self, start_ns: now_ns(), range }
    }
}

/// Spans of one tick or prefill, in the order in which they ended. Recording does not allocate;
/// spans beyond [`MAX_SPANS`] are dropped and counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StageSpans {
    spans: ArrayVec<Span, MAX_SPANS>,
    dropped: u32,
}

impl StageSpans {
    /// Ends a stage now and records its span.
    pub fn end(&mut self, begun: Begun) {
        let took_ns = now_ns() - begun.start_ns;
        let Begun { stage, start_ns, range } = begun;
        drop(range);
        self.push(Span { stage, start_ns, took_ns });
    }

    /// Runs `work` and records it as `stage`.
    pub fn measure<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let begun = stage.begin();
        let result = work();
        self.end(begun);
        result
    }

    /// Adds a span that was measured elsewhere.
    pub fn push(&mut self, span: Span) {
        if self.spans.try_push(span).is_err() {
            self.dropped += 1;
        }
    }

    /// Returns the spans, in the order in which they ended.
    pub fn iter(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter()
    }

    /// Returns the number of spans that were dropped because the buffer was full.
    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Returns the sum over all runs of `stage`; `None` if it did not run.
    pub fn took(&self, stage: Stage) -> Option<Duration> {
        self.times().took(stage)
    }

    /// Returns the sum over all runs of each stage.
    pub fn times(&self) -> StageTimes {
        let mut times = StageTimes::default();
        self.add_to(&mut times);
        times
    }

    /// Adds the duration of every span to `times`.
    pub fn add_to(&self, times: &mut StageTimes) {
        for span in &self.spans {
            times.add(span.stage, Duration::from_nanos(span.took_ns));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_that_ran_twice_took_the_sum() {
        let mut spans = StageSpans::default();
        for (start_ns, took_ns) in [(5, 10), (20, 30)] {
            spans.push(Span { stage: Stage::PUBLISH, start_ns, took_ns });
        }
        assert_eq!(spans.took(Stage::PUBLISH), Some(Duration::from_nanos(40)));
        assert_eq!(spans.took(Stage::SEAL), None);
    }

    #[test]
    fn span_covers_the_measured_work() {
        let mut spans = StageSpans::default();
        let before = now_ns();
        let answer = spans.measure(Stage::STATE_FILTER, || {
            let began = now_ns();
            while now_ns() == began {}
            42
        });
        let after = now_ns();
        let span = *spans.iter().next().unwrap();
        assert_eq!((answer, span.stage), (42, Stage::STATE_FILTER));
        assert!(before <= span.start_ns && span.start_ns + span.took_ns <= after);
        assert!(span.took_ns > 0);
    }

    #[test]
    fn spans_beyond_capacity_are_counted() {
        let mut spans = StageSpans::default();
        for start_ns in 0..MAX_SPANS as u64 + 3 {
            spans.push(Span { stage: Stage::SEAL, start_ns, took_ns: 1 });
        }
        assert_eq!((spans.iter().count(), spans.dropped()), (MAX_SPANS, 3));
    }
}
