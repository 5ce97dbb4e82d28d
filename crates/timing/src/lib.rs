//! Clocks, stages, and what each stage took.
//!
//! The only module that reads a clock. A tick or a refresh notes its stages in [`StageSpans`], with
//! their beginnings; what only sums matter to reads [`StageTimes`]. On request stages are NVTX ranges
//! as well.

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
