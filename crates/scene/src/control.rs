//! What a driver answers, and what it says about how the answer came to be.

use super::{FrameId, Trajectory};
use arrayvec::ArrayVec;
use std::time::Duration;
use tandem_timing::{StageSpans, StageTimes};

/// The three pedals' worth of a command.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Command {
    /// −1 (left) to 1 (right).
    pub steer: f64,
    /// 0 to 1.
    pub throttle: f64,
    /// 0 to 1.
    pub brake: f64,
}

impl Command {
    /// Stand still, or come to a stand.
    pub const FULL_BRAKE: Self = Self { steer: 0.0, throttle: 0.0, brake: 1.0 };
}

/// The prefix that a command rests on; for privileged drivers in virtual time, the snapshot of the
/// scene.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefixInfo {
    /// Counts refreshes, from 1.
    pub version: u64,
    /// Tick time minus capture time of the newest frame in the prefix.
    pub age: Duration,
}

/// Whether the control came in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeadlineVerdict {
    /// Within its budget.
    #[default]
    Met,
    /// After its deadline, by this much.
    Missed {
        /// How late.
        by: Duration,
    },
}

/// A refresh that ended.
#[derive(Clone, Debug)]
pub struct RefreshReport {
    /// The version that its prefix has, or would have had.
    pub version: u64,
    /// Whether its prefix was published.
    pub is_published: bool,
    /// Its stages.
    pub spans: StageSpans,
}

/// How long a step of an expert takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latency {
    /// This long, in virtual time.
    Emulated(Duration),
    /// As long as the host takes.
    Measured,
}

/// An inference of the fast expert that was released at a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inference {
    /// How long it takes.
    pub takes: Latency,
}

/// A refresh that began at a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefreshBegun {
    /// The version that its prefix will have.
    pub version: u64,
    /// How long it takes.
    pub takes: Latency,
}

/// How a control came to be.
///
/// Where inferences take virtual time, a tick's command is the newest that is visible, or follows the
/// newest plan that is visible: its prefix is the one that was read when its inference was released.
#[derive(Clone, Debug, Default)]
pub struct TickReport {
    /// The tick it answers.
    pub frame: FrameId,
    /// The tick whose observation the command rests on; `None` before the first command, and for
    /// drivers that answer every tick at once.
    pub acted_on: Option<FrameId>,
    /// Whether the command, or the plan that it follows, is that of the tick before, because no newer
    /// one was visible.
    pub is_held: bool,
    /// The inference that was released at this tick.
    pub inference: Option<Inference>,
    /// The refresh that began at this tick.
    pub refresh_begun: Option<RefreshBegun>,
    /// Frames inside the prefix, oldest first; empty without a prefix.
    pub prefix_frames: ArrayVec<FrameId, 8>,
    /// The prefix, or `None` if there was none yet. Its age is that at this tick.
    pub prefix: Option<PrefixInfo>,
    /// What the driver meant to follow from this tick's pose on, if it plans and says so.
    pub trajectory: Option<Trajectory>,
    /// The stages of this tick.
    pub spans: StageSpans,
    /// The refresh that ended before this tick's act, if one did.
    pub refresh: Option<RefreshReport>,
    /// Whether a refresh was running when the tick ended.
    pub is_refreshing: bool,
    /// Whether it came in time.
    pub deadline: DeadlineVerdict,
    /// Whether the model's answer of this tick held a NaN or an infinity, so that full brake took its
    /// place.
    pub is_answer_rejected: bool,
    /// Whether the state filter broke down at this tick and began anew.
    pub is_filter_restarted: bool,
}

impl TickReport {
    /// What each stage took, those of a refresh that ended here included.
    pub fn times(&self) -> StageTimes {
        let mut times = self.spans.times();
        if let Some(refresh) = &self.refresh {
            refresh.spans.add_to(&mut times);
        }
        times
    }
}

/// A command with its report.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// What the vehicle shall do until the next tick.
    pub command: Command,
    /// How it came to be.
    pub report: TickReport,
}
