//! Clocks, stages, and what each stage took.
//!
//! The only module that reads a clock.

mod histogram;
mod stage;
mod stopwatch;
mod timestamp;

pub use histogram::{LONGEST, LatencyHistogram, LatencySummary, Percentile, StageStatistics};
pub use stage::{Stage, StageTimes};
pub use stopwatch::{Stopwatch, wall_time_unix_s};
pub use timestamp::Timestamp;
