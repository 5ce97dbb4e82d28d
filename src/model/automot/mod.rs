//! AutoMoT: its networks, and the same pre- and postprocessing as in the AutoMoT release.
//!
//! [`AutomotUnderstanding`] is the slow expert, [`AutomotAction`] the fast one. The other modules
//! are prompt and tokens, camera and LiDAR preprocessing, and the route planner that selects target
//! points. Code that runs at every tick writes into memory owned by its caller.

pub mod accuracy;
mod action;
mod family;
mod finite;
pub mod golden;
pub mod image;
mod image_jpeg;
mod layer_groups;
pub mod lidar;
pub mod networks;
mod options;
mod perception;
pub mod planner;
pub mod prompt;
mod prompt_buffers;
pub mod recording;
mod sensors;
mod sizes;
pub mod stages;
mod timed_stream;
pub mod tokenizer;
pub mod tokens;
mod understanding;
mod vision_tower;

pub use action::{AutomotAction, Positions};
pub use family::Automot;
pub use networks::{Networks, NetworksError};
pub use options::{AutomotOptions, Heuristics, ReferenceBehavior};
pub use perception::{AutomotInputs, AutomotPerception, AutomotReadings, PerceptionOptions};
pub use sensors::{CAMERA, LIDAR, sensors};
pub use understanding::{AutomotUnderstanding, SetupError, UnderstandingOptions};
