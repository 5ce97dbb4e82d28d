//! Driving models: how observations become the inputs of networks, and what their outputs mean.
//!
//! One folder per family. No model knows a simulator, and none follows its own trajectory.

pub mod automot;
