//! ONNX Runtime, loaded at run time.

mod backend;
pub mod library;
mod session;
mod weights;

pub use backend::{CpuOptions, OnnxRuntime, OpenError};
