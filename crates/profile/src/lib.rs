//! Latency profiles of the control loop, with everything that they depend on.
//!
//! [`run_loop`] runs a driver on a [`Replay`] and passes the report of each tick to a
//! [`PhaseRecorder`]. A [`LatencyFile`] stores the phases, [`page::render`] shows them, and a
//! [`TraceRecorder`] writes them as a timeline. Percentiles are nearest-rank over the ticks after
//! the warm-up.

mod bootstrap;
mod budget;
mod compare;
mod cost;
mod differences;
mod due_ticks;
mod emulation;
mod latency_file;
mod machine;
pub mod page;
mod prefills;
mod processor_time;
mod recorder;
mod repeated;
mod replay;
pub mod roofline;
mod sample_size;
mod samples;
mod ticks;
mod trace;
mod worst;

pub use budget::{Budget, BudgetError, Deadline, Limits, Quantity, RefreshPeriod, Verdict};
pub use compare::{
    BUSY_SHARE, Change, Check, CompareError, Comparison, MIN_SAMPLES, Method, ResampledSeries, Row,
    compare,
};
pub use cost::ProfilerCost;
pub use differences::Difference;
pub use due_ticks::DueResponse;
pub use latency_file::{
    EngineIdentity, FORMAT, FirstControl, LatencyFile, LatencyFileError, Phase, PhaseName,
    PrefillSamples, StageColumn, TickSamples,
};
pub use machine::MachineCard;
pub use prefills::{PrefillOptions, run_prefills};
pub use recorder::{MAX_SAMPLES, PhaseRecorder, TickFacts};
pub use repeated::MIN_PROFILES;
pub use replay::Replay;
pub use sample_size::{VALUES_BEYOND, values_needed};
pub use samples::{Part, nearest_rank};
pub use ticks::{LoopError, LoopOptions, LoopRun, run_loop};
pub use trace::{TraceCounts, TraceError, TraceRecorder};
pub use worst::{Excess, WorstTick, worst_ticks};
