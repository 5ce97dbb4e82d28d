//! The library itself, through the `trtx` crate; the only place that names it.

mod build;
mod builder;
mod heap;
mod inspect;
mod listing;
mod monitor;
mod open;

pub use build::{BuildError, BuildReport, BuildRequest};
pub use monitor::{Listener, Progress};
pub use open::{OpenError, TensorRt, Version};
