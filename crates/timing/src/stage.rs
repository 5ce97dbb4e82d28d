//! The named parts of a tick and of a refresh.

use std::time::Duration;

/// A part of the loop that is timed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Stage {
    /// From the instant at which a tick was due until its command was handed over; only where a
    /// loop keeps real time.
    Response,
    /// How late the loop woke up for the tick.
    Wake,
    /// Sensor readings into the observation.
    Receive,
    /// The whole tick, from observation to control.
    Tick,
    /// Inertial, satellite and speed readings to a pose.
    StateFilter,
    /// LiDAR returns to the BEV encoder's histogram.
    LidarHistogram,
    /// Pose to target points.
    Planner,
    /// A finished refresh becomes the newest prefix.
    Publish,
    /// What a due refresh will read is gathered and handed to the understanding expert.
    Request,
    /// Camera picture to the BEV encoder's input: crop, and the JPEG round trip where it is on.
    Picture,
    /// Readings to the device (H2D); only where its memory is apart from the host's.
    Upload,
    /// BEV encoder.
    Bev,
    /// Action expert with its heads.
    Action,
    /// The heads' answers to the host (D2H); only where the device's memory is apart from it.
    Download,
    /// The heads' answers to a trajectory.
    Trajectory,
    /// Trajectory to steer, throttle, brake.
    Control,
    /// The command on its way to the vehicle.
    Send,
    /// The whole refresh, from its hand-over to the understanding expert to the sealed prefix.
    Refresh,
    /// The refresh waits for the understanding expert's thread to wake up.
    HandOff,
    /// Prompt text, its tokens, and the layout of the sequence.
    Prompt,
    /// Frames to the vision tower's size.
    Resize,
    /// Resized frames to patches.
    Patchify,
    /// Vision tower, all frames of the refresh that were not cached.
    Vision,
    /// Features of all frames to their places in the understanding expert's input.
    Gather,
    /// Understanding expert's prefill.
    Understanding,
    /// One layer group of the understanding expert; only where it has more than one.
    UnderstandingGroup,
    /// The written slot becomes a snapshot.
    Seal,
}

impl Stage {
    /// All stages, in reading order: a stage stands behind its parent.
    pub const ALL: [Self; 27] = [
        Self::Response,
        Self::Wake,
        Self::Receive,
        Self::Tick,
        Self::StateFilter,
        Self::LidarHistogram,
        Self::Planner,
        Self::Publish,
        Self::Request,
        Self::Picture,
        Self::Upload,
        Self::Bev,
        Self::Action,
        Self::Download,
        Self::Trajectory,
        Self::Control,
        Self::Send,
        Self::Refresh,
        Self::HandOff,
        Self::Prompt,
        Self::Resize,
        Self::Patchify,
        Self::Vision,
        Self::Gather,
        Self::Understanding,
        Self::UnderstandingGroup,
        Self::Seal,
    ];

    /// The name that tables and files print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Wake => "wake-up",
            Self::Receive => "sensor receive",
            Self::Tick => "tick",
            Self::StateFilter => "state filter",
            Self::LidarHistogram => "lidar histogram",
            Self::Planner => "planner",
            Self::Publish => "publish",
            Self::Request => "refresh request",
            Self::Picture => "picture",
            Self::Upload => "upload",
            Self::Bev => "bev",
            Self::Action => "action",
            Self::Download => "download",
            Self::Trajectory => "trajectory",
            Self::Control => "control",
            Self::Send => "send",
            Self::Refresh => "refresh",
            Self::HandOff => "hand-off",
            Self::Prompt => "prompt",
            Self::Resize => "resize",
            Self::Patchify => "patchify",
            Self::Vision => "vision",
            Self::Gather => "gather",
            Self::Understanding => "understanding",
            Self::UnderstandingGroup => "understanding group",
            Self::Seal => "seal",
        }
    }

    /// The stage of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// The stage that this one is a part of.
    pub fn parent(self) -> Option<Self> {
        match self {
            Self::Response | Self::Refresh => None,
            Self::Wake | Self::Receive | Self::Tick | Self::Send => Some(Self::Response),
            Self::StateFilter
            | Self::LidarHistogram
            | Self::Planner
            | Self::Publish
            | Self::Request
            | Self::Picture
            | Self::Upload
            | Self::Bev
            | Self::Action
            | Self::Download
            | Self::Trajectory
            | Self::Control => Some(Self::Tick),
            Self::HandOff
            | Self::Prompt
            | Self::Resize
            | Self::Patchify
            | Self::Vision
            | Self::Gather
            | Self::Understanding
            | Self::Seal => Some(Self::Refresh),
            Self::UnderstandingGroup => Some(Self::Understanding),
        }
    }

    /// The stages that this one is made of, in reading order.
    pub fn parts(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |stage| stage.parent() == Some(self))
    }

    /// Whether it begins on one thread and ends on another. All others end where they began, the
    /// last begun first.
    pub fn crosses_threads(self) -> bool {
        matches!(self, Self::Refresh | Self::HandOff)
    }

    /// Whether statistics count its runs one by one, rather than what all runs of a tick or refresh
    /// took together: a layer group is as long as others may have to wait for the device.
    pub fn counts_runs(self) -> bool {
        self == Self::UnderstandingGroup
    }

    /// How deep it is nested, from 0.
    pub fn depth(self) -> usize {
        self.parent().map_or(0, |parent| parent.depth() + 1)
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

    /// Adds `took` to what was noted for `stage`.
    pub fn add(&mut self, stage: Stage, took: Duration) {
        let sum = &mut self.0[stage as usize];
        *sum = Some(sum.unwrap_or_default() + took);
    }

    /// What `stage` took, if it ran.
    pub fn took(&self, stage: Stage) -> Option<Duration> {
        self.0[stage as usize]
    }

    /// The part of `stage` that none of its own parts accounts for; `None` if it did not run or none
    /// of its parts did. Below zero where parts overlap.
    pub fn rest_ns(&self, stage: Stage) -> Option<i64> {
        let ns = |took: Duration| took.as_nanos() as i64;
        let parts = stage.parts().filter_map(|part| self.took(part)).map(ns);
        let parts = parts.reduce(|sum, part| sum + part)?;
        Some(ns(self.took(stage)?) - parts)
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
    fn every_stage_has_its_own_place_and_name() {
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, place, "{}", stage.name());
            assert_eq!(Stage::named(stage.name()), Some(stage));
        }
    }

    #[test]
    fn a_stage_stands_behind_its_parent() {
        for stage in Stage::ALL {
            assert!(stage.parent().is_none_or(|parent| parent < stage), "{}", stage.name());
        }
        assert_eq!(Stage::Bev.depth(), 2);
        assert_eq!(Stage::Refresh.parts().count(), 8);
    }

    #[test]
    fn the_rest_is_what_no_part_accounts_for() {
        let mut times = StageTimes::default();
        assert_eq!(times.rest_ns(Stage::Tick), None);
        times.set(Stage::Tick, Duration::from_nanos(100));
        times.set(Stage::Bev, Duration::from_nanos(60));
        times.add(Stage::Action, Duration::from_nanos(10));
        times.add(Stage::Action, Duration::from_nanos(15));
        assert_eq!(times.rest_ns(Stage::Tick), Some(15));
        assert_eq!(times.rest_ns(Stage::Bev), None);
        times.set(Stage::Understanding, Duration::from_nanos(50));
        assert_eq!(times.rest_ns(Stage::Understanding), None, "one network has no groups");
        times.add(Stage::UnderstandingGroup, Duration::from_nanos(20));
        times.add(Stage::UnderstandingGroup, Duration::from_nanos(25));
        assert_eq!(times.rest_ns(Stage::Understanding), Some(5));
    }
}
