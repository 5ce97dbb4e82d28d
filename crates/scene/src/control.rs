//! Output of a driver: the command and a report of how it was computed.

use super::{FrameId, Trajectory};
use arrayvec::ArrayVec;
use std::time::Duration;
use tandem_timing::{StageSpans, StageTimes};

/// Vehicle command: steering, throttle and brake.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Command {
    /// From −1 (left) to 1 (right).
    pub steer: f64,
    /// From 0 to 1.
    pub throttle: f64,
    /// From 0 to 1.
    pub brake: f64,
}

impl Command {
    /// Brakes fully, to stop or to remain stopped.
    pub const FULL_BRAKE: Self = Self { steer: 0.0, throttle: 0.0, brake: 1.0 };
}

/// The prefix KV cache of a command; for privileged drivers in virtual time, the scene snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefixInfo {
    /// Number of the prefill, from 1.
    pub version: u64,
    /// Time of the tick minus capture time of the newest frame in the prefix.
    pub age: Duration,
}

/// Result of comparing the latency of a control with its deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeadlineVerdict {
    #[default]
    Met,
    Missed {
        by: Duration,
    },
}

/// Report of a prefill that ended.
#[derive(Clone, Debug)]
pub struct PrefillReport {
    /// Version that its prefix has, or would have had.
    pub version: u64,
    pub is_published: bool,
    pub spans: StageSpans,
}

/// Latency of one run of an expert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latency {
    /// Given duration in virtual time.
    Emulated(Duration),
    /// Duration on the host's clock.
    Measured,
}

/// An action step that was released at a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActionStep {
    pub takes: Latency,
}

/// A prefill that was started at a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefillStarted {
    /// Version that its prefix will have.
    pub version: u64,
    pub takes: Latency,
}

/// Report of how a control was computed.
///
/// If action steps take virtual time, the command of a tick is the newest visible one, or follows
/// the newest visible plan; its prefix is the one that was read when its action step was released.
#[derive(Clone, Debug, Default)]
pub struct TickReport {
    pub frame: FrameId,
    /// Tick of the observation that the command is based on; `None` before the first one, and for
    /// drivers that answer every tick immediately.
    pub acted_on: Option<FrameId>,
    /// True if the command or plan of the previous tick is reused, because no newer one was visible.
    pub is_held: bool,
    /// Action step that was released at this tick.
    pub action_step: Option<ActionStep>,
    /// Prefill that was started at this tick.
    pub prefill_started: Option<PrefillStarted>,
    /// Frames in the prefix, oldest first; empty without a prefix.
    pub prefix_frames: ArrayVec<FrameId, 8>,
    /// Prefix with its age at this tick; `None` before the first prefix.
    pub prefix: Option<PrefixInfo>,
    /// Trajectory that the driver follows from the pose of this tick on, if it reports one.
    pub trajectory: Option<Trajectory>,
    pub spans: StageSpans,
    /// Prefill that ended before the action step of this tick, if any.
    pub prefill: Option<PrefillReport>,
    /// True if a prefill was running when the tick ended.
    pub is_refreshing: bool,
    pub deadline: DeadlineVerdict,
    /// True if the model's output contained a NaN or an infinity and was replaced by full brake.
    pub is_answer_rejected: bool,
    /// True if the state filter failed at this tick and was reset.
    pub is_filter_restarted: bool,
}

impl TickReport {
    /// Returns the duration of each stage, including those of a prefill that ended at this tick.
    pub fn times(&self) -> StageTimes {
        let mut times = self.spans.times();
        if let Some(prefill) = &self.prefill {
            prefill.spans.add_to(&mut times);
        }
        times
    }
}

/// A command and the report of its computation.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// Applied until the next tick.
    pub command: Command,
    pub report: TickReport,
}
