//! Networks that run: a [`NetworkFile`] is read, a [`Backend`] loads it into an [`Engine`], an engine
//! gives [`Session`]s.
//!
//! A file is bytes on disk with a contract, an engine is loaded and immutable, a session has one
//! user. Sessions bind to the caller's memory by address: the first run with a tensor pays for the
//! binding, later runs with the same memory copy and allocate nothing of ours.

pub mod library;
mod network_file;
pub mod onnxruntime;
mod operators;
mod session;
pub mod tensorrt;
mod warm_up;

pub use network_file::{NetworkFile, NetworkFileError};
pub use operators::{OperatorProfile, OperatorProfileError, OperatorTime, PartTime};
pub use session::{Backend, Engine, LoadError, RunError, Session};
pub use warm_up::warm_up;
