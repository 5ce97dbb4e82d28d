//! The named parts of a tick and of a refresh.

use std::time::Duration;

/// A part of the loop that is timed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Stage {
    /// The whole tick, from observation to control.
    Tick,
    /// Sensor readings to network inputs (pose, target points, image, LiDAR histogram).
    Preprocess,
    /// BEV encoder.
    Bev,
    /// Action expert with its heads.
    Action,
    /// Trajectory to steer, throttle, brake.
    Control,
    /// The whole refresh, on the understanding expert's thread.
    Refresh,
    /// Frames and prompt to network inputs.
    RefreshPreprocess,
    /// Vision tower, all frames of the refresh that were not cached.
    Vision,
    /// Understanding expert's prefill.
    Understanding,
}

impl Stage {
    /// All stages, in reading order.
    pub const ALL: [Self; 9] = [
        Self::Tick,
        Self::Preprocess,
        Self::Bev,
        Self::Action,
        Self::Control,
        Self::Refresh,
        Self::RefreshPreprocess,
        Self::Vision,
        Self::Understanding,
    ];

    /// The name that tables and files print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Preprocess => "preprocess",
            Self::Bev => "bev",
            Self::Action => "action",
            Self::Control => "control",
            Self::Refresh => "refresh",
            Self::RefreshPreprocess => "refresh preprocess",
            Self::Vision => "vision",
            Self::Understanding => "understanding",
        }
    }
}

/// What each stage took, in one fixed array; a stage that did not run is absent.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct StageTimes([Option<Duration>; Stage::ALL.len()]);

impl StageTimes {
    /// Notes what `stage` took, over what was noted before.
    pub fn set(&mut self, stage: Stage, took: Duration) {
        self.0[stage as usize] = Some(took);
    }

    /// What `stage` took, if it ran.
    pub fn took(&self, stage: Stage) -> Option<Duration> {
        self.0[stage as usize]
    }

    /// The stages that ran, in reading order.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::ALL.into_iter().filter_map(|stage| Some((stage, self.took(stage)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_own_place() {
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, place, "{}", stage.name());
        }
    }
}
