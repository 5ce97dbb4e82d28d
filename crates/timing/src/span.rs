//! When stages began and what they took, in fixed memory.

use super::nvtx::Range;
use super::{Stage, StageTimes};
use arrayvec::ArrayVec;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Spans that one tick or one refresh keeps: a refresh of eight frames, none of them cached, has 37,
/// and one more for each layer group of the understanding expert.
pub const MAX_SPANS: usize = 64;

/// Nanoseconds on the host's monotonic clock since this process first asked.
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn now_ns() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// One run of a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Which stage.
    pub stage: Stage,
    /// When it began, as [`now_ns`] counts.
    pub start_ns: u64,
    /// How long it took.
    pub took_ns: u64,
}

/// A stage that has begun and not ended.
#[must_use = "a stage that is not ended is not recorded"]
#[derive(Debug)]
pub struct Begun {
    stage: Stage,
    start_ns: u64,
    range: Range,
}

impl Stage {
    /// Begins this stage now, on this thread.
    pub fn begin(self) -> Begun {
        let range = Range::begin(self);
        Begun { stage: self, start_ns: now_ns(), range }
    }
}

/// The spans of one tick or one refresh, in the order in which they ended. Recording does not
/// allocate; what comes when [`MAX_SPANS`] are held is counted and dropped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StageSpans {
    spans: ArrayVec<Span, MAX_SPANS>,
    dropped: u32,
}

impl StageSpans {
    /// Ends a stage now.
    pub fn end(&mut self, begun: Begun) {
        let took_ns = now_ns() - begun.start_ns;
        let Begun { stage, start_ns, range } = begun;
        drop(range);
        self.push(Span { stage, start_ns, took_ns });
    }

    /// Runs `work` as `stage`.
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

    /// The spans, in the order in which they ended.
    pub fn iter(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter()
    }

    /// Number of spans that found no place.
    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    /// What `stage` took in all its runs; `None` if it did not run.
    pub fn took(&self, stage: Stage) -> Option<Duration> {
        self.times().took(stage)
    }

    /// What each stage took in all its runs.
    pub fn times(&self) -> StageTimes {
        let mut times = StageTimes::default();
        self.add_to(&mut times);
        times
    }

    /// Adds what each stage took to `times`.
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
    fn a_stage_that_ran_twice_took_the_sum() {
        let mut spans = StageSpans::default();
        for (start_ns, took_ns) in [(5, 10), (20, 30)] {
            spans.push(Span { stage: Stage::PUBLISH, start_ns, took_ns });
        }
        assert_eq!(spans.took(Stage::PUBLISH), Some(Duration::from_nanos(40)));
        assert_eq!(spans.took(Stage::SEAL), None);
    }

    #[test]
    fn a_span_covers_the_work_it_was_measured_around() {
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
    fn spans_beyond_the_bound_are_counted() {
        let mut spans = StageSpans::default();
        for start_ns in 0..MAX_SPANS as u64 + 3 {
            spans.push(Span { stage: Stage::SEAL, start_ns, took_ns: 1 });
        }
        assert_eq!((spans.iter().count(), spans.dropped()), (MAX_SPANS, 3));
    }
}
