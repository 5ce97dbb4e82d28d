//! Clocks, timed stages and latency statistics.
//!
//! This is the only crate that reads a clock. A tick or a prefill records its stages in
//! [`StageSpans`] with start and duration; [`StageTimes`] holds the sums. On request,
//! stages are also NVTX ranges.

#[doc(hidden)]
pub use linkme;

mod histogram;
pub mod nvtx;
mod span;
mod stage;
mod stopwatch;
mod timestamp;

pub use histogram::{LONGEST, LatencyHistogram, LatencySummary, Percentile, StageStatistics};
pub use span::{Begun, MAX_SPANS, Span, StageSpans, now_ns};
pub use stage::{MAX_STAGES, Role, STAGES, Stage, StageSpec, StageTimes};
pub use stopwatch::{Stopwatch, sleep_until_ns, wall_time_unix_s};
pub use timestamp::Timestamp;
