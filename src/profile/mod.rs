//! Profiles: what every stage took in the real loop, kept with all that it depends on.
//!
//! The loop is not here: whoever runs it hands each tick's report to a [`PhaseRecorder`], whose
//! phases a [`LatencyFile`] holds. Percentiles are nearest-rank over the ticks behind the warm-up.

mod cost;
mod latency_file;
mod machine;
mod recorder;

pub use cost::ProfilerCost;
pub use latency_file::{
    EngineIdentity, FORMAT, FirstControl, LatencyFile, LatencyFileError, Phase, PhaseName,
    RefreshSamples, StageColumn, TickSamples,
};
pub use machine::MachineCard;
pub use recorder::{MAX_SAMPLES, PhaseRecorder, TickFacts};
