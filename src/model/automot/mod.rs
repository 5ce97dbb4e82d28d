//! AutoMoT: what surrounds its networks, exactly as in the release.
//!
//! The prompt and its tokens, camera and LiDAR preparation, and the route planner that picks the
//! target points. Everything that runs at every tick writes into memory that its caller owns.

pub mod gnss;
pub mod image;
pub mod image_jpeg;
pub mod lidar;
pub mod planner;
pub mod prompt;
pub mod tokenizer;
pub mod tokens;
