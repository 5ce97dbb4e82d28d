//! AutoMoT: its networks, and what surrounds them exactly as in the release.
//!
//! [`AutomotUnderstanding`] is the slow expert, [`AutomotAction`] the fast one; the other modules are
//! prompt and tokens, camera and LiDAR preparation, and the route planner that picks the target
//! points. Everything that runs at every tick writes into memory that its caller owns.

pub mod accuracy;
mod action;
mod family;
pub mod golden;
pub mod image;
mod image_jpeg;
mod lane;
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
pub mod tokenizer;
pub mod tokens;
mod understanding;
mod vision_tower;
mod whole;

pub use action::{AutomotAction, Positions};
pub use family::Automot;
pub use networks::{Networks, NetworksError};
pub use options::{AutomotOptions, Heuristics, Parity};
pub use perception::{AutomotInputs, AutomotPerception, AutomotReadings, PerceptionOptions};
pub use sensors::{CAMERA, LIDAR, sensors};
pub use understanding::{AutomotUnderstanding, SetupError, UnderstandingOptions};
