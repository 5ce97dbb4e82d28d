//! Bindings to TensorRT through the crate `trtx`, which is used only here.

#[cfg(feature = "cuda")]
mod backend;
mod build;
mod builder;
mod heap;
mod inspect;
mod listing;
#[cfg(feature = "cuda")]
mod loaded;
mod monitor;
mod open;
#[cfg(feature = "cuda")]
mod session;

#[cfg(feature = "cuda")]
pub use backend::TensorRtOnGpu;
pub use build::{BuildError, BuildReport, BuildRequest};
pub use monitor::{Listener, Progress};
pub use open::{OpenError, TensorRt, Version};
