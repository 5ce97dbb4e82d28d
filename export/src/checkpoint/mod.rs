//! A checkpoint folder in AutoMoT's own format: configuration and tensors.

mod config;

pub use config::{AutomotConfig, BevConfig, MotConfig, SpecialTokens, TextConfig, VisionConfig};
