//! ONNX Runtime back end; the library is loaded at run time.
//!
//! `raw` calls the C API; `bindings` and `weights` own the memory that its descriptors refer to;
//! `session` and `cuda` run networks; `backend` loads and `builder` builds them.

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
