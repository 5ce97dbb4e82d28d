//! The two-rate loop: what runs when, on which thread, and what happens when one expert is late.
//!
//! The tick runs on the caller's thread: observe, take the newest sealed prefix, act, control. The
//! understanding expert runs on a thread of its own; a refresh is started when due and published when
//! done. A tick never waits for a refresh, except in virtual time, where the wait is what makes a
//! result visible at exactly its virtual instant. Virtual time is kept by a beat of refreshes and a
//! lane of inferences, which the pilot shares with [`Delayed`], its counterpart around privileged drivers.

mod deadline;
mod delayed;
mod fast_lane;
mod flat_keys;
mod latency;
mod real_time;
mod refresh;
mod refresh_beat;
mod run_file;
mod schedule;
mod statistics;
mod tick;
mod turns;

pub use delayed::Delayed;
pub use latency::{
    Expert, FastReleases, LONGEST_LATENCY, Latencies, LatencyError, LatencySource, LatencySpec,
    OpenRecording, RecordedLatencies, split_latencies,
};
pub use real_time::{
    Outcome, RealTimeOptions, RealTimeReport, ThreadUsage, TickThread, usable_cores,
};
pub use run_file::{ClockName, DeviceName, Pace, Run, RunError, RunFile, Threads};
pub use schedule::{SCHEDULE_FORMAT, Schedule, ScheduleError};
pub use statistics::PilotStatistics;
pub use tick::{Pilot, PilotError};
