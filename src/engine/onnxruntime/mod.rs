//! ONNX Runtime, loaded at run time.
//!
//! `raw` calls the C interface; `bindings` and `weights` own what it describes; `session` and
//! `cuda` run networks with it, and `backend` and `builder` load and build them.

mod backend;
mod bindings;
mod builder;
#[cfg(feature = "cuda")]
mod cuda;
mod error;
mod library;
mod options;
mod packing;
mod parts;
mod profile;
mod raw;
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
