//! ONNX Runtime, loaded at run time.

mod backend;
mod builder;
mod library;
mod parts;
mod profile;
mod rewrite;
mod session;
mod trace;
mod weights;

pub use backend::{CpuOptions, OnnxRuntime, OpenError};
pub use library::LIBRARY;
