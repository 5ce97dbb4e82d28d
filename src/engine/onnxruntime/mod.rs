//! ONNX Runtime, loaded at run time.

mod backend;
mod builder;
#[cfg(feature = "cuda")]
mod cuda;
mod library;
mod packing;
mod parts;
mod profile;
mod rewrite;
mod session;
pub mod telemetry;
mod trace;
mod weights;
mod widen;

pub use backend::{CpuOptions, OnnxRuntime, OpenError};
#[cfg(feature = "cuda")]
pub use cuda::{CudaOptions, OnnxRuntimeCuda};
pub use library::{GPU_LIBRARY, LIBRARY};
