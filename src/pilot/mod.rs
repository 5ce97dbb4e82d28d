//! The two-rate control loop: scheduling of the two experts, their threads, and late results.
//!
//! A tick runs on the caller's thread: observe, read the newest sealed prefix KV cache, run an
//! action step, compute a command. The understanding expert runs on its own thread; a prefill is
//! started when it is due and its prefix is published when it is done. A tick never waits for a
//! prefill, except in virtual time, where the wait makes a result visible at exactly its virtual
//! time. Virtual time is implemented by a trigger for prefills and a delay line for action steps,
//! which the pilot shares with [`Delayed`], its counterpart for privileged drivers.

mod deadline;
mod delay_line;
mod delayed;
mod flat_keys;
mod latency;
mod prefill;
mod prefill_trigger;
mod real_time;
mod run_file;
mod schedule;
mod statistics;
mod tick;
mod tick_guard;

pub use delayed::Delayed;
pub use latency::{
    Expert, FastReleases, LONGEST_LATENCY, Latencies, LatencyError, LatencySource, LatencySpec,
    OpenRecording, RecordedLatencies, split_latencies,
};
pub use real_time::{
    Outcome, RealTimeOptions, RealTimeReport, ThreadUsage, TickThread, usable_cores,
};
pub use run_file::{ClockName, DeviceName, Pace, Run, RunFile, RunFileError, Threads};
pub use schedule::{SCHEDULE_FORMAT, Schedule, ScheduleError};
pub use statistics::PilotStatistics;
pub use tick::{Pilot, PilotError};
