//! The stages of AutoMoT's parts.

use crate::timing::Stage;

crate::timing::stages! {
    /// LiDAR returns to the BEV encoder's histogram.
    pub LIDAR_HISTOGRAM = "lidar histogram", Some(Stage::TICK), 10, Host;
    /// Pose to target points.
    pub PLANNER = "planner", Some(Stage::TICK), 20, Host;
    /// Camera picture to the BEV encoder's input: crop, and the JPEG round trip where it is on.
    pub PICTURE = "picture", Some(Stage::TICK), 50, Host;
    /// BEV encoder.
    pub BEV = "bev", Some(Stage::TICK), 70, FastNetwork;
    /// Action expert with its heads.
    pub ACTION = "action", Some(Stage::TICK), 80, FastNetwork;
    /// The heads' outputs to a trajectory.
    pub TRAJECTORY = "trajectory", Some(Stage::TICK), 100, Host;
    /// Prompt text, its tokens, and the layout of the sequence.
    pub PROMPT = "prompt", Some(Stage::REFRESH), 10, Host;
    /// Frames to the vision tower's size.
    pub RESIZE = "resize", Some(Stage::REFRESH), 20, Host;
    /// Resized frames to patches.
    pub PATCHIFY = "patchify", Some(Stage::REFRESH), 30, Host;
    /// Vision tower, all frames of the refresh that were not cached.
    pub VISION = "vision", Some(Stage::REFRESH), 40, SlowNetwork;
    /// Features of all frames to their places in the understanding expert's input.
    pub GATHER = "gather", Some(Stage::REFRESH), 50, Host;
    /// Understanding expert's prefill.
    pub UNDERSTANDING = "understanding", Some(Stage::REFRESH), 60, SlowNetwork;
    /// One layer group of the understanding expert; only where it has more than one.
    pub UNDERSTANDING_GROUP = "understanding group", Some(UNDERSTANDING), 0, SlowNetwork, each run;
}
