//! Timed stages of AutoMoT.

use crate::timing::Stage;

crate::timing::stages! {
    /// Computes the LiDAR histogram of the BEV encoder.
    pub LIDAR_HISTOGRAM = "lidar histogram", Some(Stage::TICK), 10, Host;
    /// Computes target points from the pose.
    pub PLANNER = "planner", Some(Stage::TICK), 20, Host;
    /// Prepares the camera image of the BEV encoder: crop and, if enabled, JPEG round trip.
    pub PICTURE = "picture", Some(Stage::TICK), 50, Host;
    /// Runs the BEV encoder.
    pub BEV = "bev", Some(Stage::TICK), 70, FastNetwork;
    /// Runs the action network with its heads.
    pub ACTION = "action", Some(Stage::TICK), 80, FastNetwork;
    /// Converts outputs of the heads to a trajectory.
    pub TRAJECTORY = "trajectory", Some(Stage::TICK), 100, Host;
    /// Writes and tokenizes the prompt and lays out the sequence.
    pub PROMPT = "prompt", Some(Stage::PREFILL), 10, Host;
    /// Resizes frames to the vision tower's size.
    pub RESIZE = "resize", Some(Stage::PREFILL), 20, Host;
    /// Cuts resized frames into patches.
    pub PATCHIFY = "patchify", Some(Stage::PREFILL), 30, Host;
    /// Runs the vision tower on all frames of a prefill that are not cached.
    pub VISION = "vision", Some(Stage::PREFILL), 40, SlowNetwork;
    /// Copies features of all frames to the input of the understanding expert.
    pub GATHER = "gather", Some(Stage::PREFILL), 50, Host;
    /// Runs the understanding expert.
    pub UNDERSTANDING = "understanding", Some(Stage::PREFILL), 60, SlowNetwork;
    /// Runs one layer group of the understanding expert, if it has more than one.
    pub UNDERSTANDING_GROUP = "understanding group", Some(UNDERSTANDING), 0, SlowNetwork, each run;
}
