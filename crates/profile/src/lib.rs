//! Profiles: what every stage took in the real loop, kept with all that it depends on.
//!
//! [`run_loop`] drives on a [`Replay`] and hands each tick's report to a [`PhaseRecorder`], whose
//! phases a [`LatencyFile`] holds, [`page::render`] shows and a [`TraceRecorder`] draws on a
//! timeline. Percentiles are nearest-rank over the ticks behind the warm-up.

mod bootstrap;
mod budget;
mod compare;
mod cost;
mod differences;
mod due;
mod emulation;
mod latency_file;
mod machine;
mod others;
pub mod page;
mod recorder;
mod refreshes;
mod repeated;
mod replay;
pub mod roofline;
mod samples;
mod support;
mod ticks;
mod trace;
mod worst;

pub use budget::{Budget, BudgetError, Deadline, Limits, Quantity, RefreshPeriod, Verdict};
pub use compare::{
    BUSY_SHARE, Change, Check, CompareError, Comparison, Drawn, LEAST_SAMPLES, Method, Row, compare,
};
pub use cost::ProfilerCost;
pub use differences::Difference;
pub use due::ResponseOfDue;
pub use latency_file::{
    EngineIdentity, FORMAT, FirstControl, LatencyFile, LatencyFileError, Phase, PhaseName,
    RefreshSamples, StageColumn, TickSamples,
};
pub use machine::MachineCard;
pub use recorder::{MAX_SAMPLES, PhaseRecorder, TickFacts};
pub use refreshes::{RefreshOptions, run_refreshes};
pub use repeated::LEAST_PROFILES;
pub use replay::Replay;
pub use samples::{Part, nearest_rank};
pub use support::{VALUES_BEYOND, values_needed};
pub use ticks::{LoopError, LoopOptions, LoopRun, run_loop};
pub use trace::{TraceCounts, TraceError, TraceRecorder};
pub use worst::{Excess, WorstTick, worst_ticks};
