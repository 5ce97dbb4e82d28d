//! Networks that run: a [`NetworkFile`] is read, a [`Backend`] loads it into an [`Engine`], an engine
//! gives [`Session`]s.
//!
//! A file is bytes on disk with a contract, an engine is loaded and immutable, a session has one
//! user. Sessions bind to the caller's memory by address: the first run with a tensor pays for the
//! binding, later runs with the same memory copy and allocate nothing of ours.
//!
//! A [`Builder`] does ahead of time, and for a named [`Target`], what a back end would do at every
//! load; [`build::build`] writes an [`EngineFolder`] with it, whose network files hold the result.

mod agreement;
pub mod build;
mod builder;
mod elf;
mod folder;
pub mod library;
pub mod onnxruntime;
mod operators;
mod session;
#[cfg(any(feature = "cuda", test))]
mod staging;
mod target;
pub mod tensorrt;
mod warm_up;

pub use builder::{Available, BuildError, BuildJob, BuildStep, Builder, StepListener};
pub use folder::{
    BuildRecord, BuiltNetwork, ENGINE_FILE, EngineFolder, EngineFolderError, EngineRecord,
    FileError, FileRecord, GraphError, Key, LATENCY_FILE, LAYER_FORMAT, Layer, LayerReport,
    LayerTensor, NetworkFile, NetworkFileError, NetworkRecord, Prediction, Rebuild, Reexport,
    WeightFile, WeightHashError, WeightHasher, hash_cache, hashes_file, read_network,
};
pub use operators::{OperatorProfile, OperatorProfileError, OperatorTime, PartTime};
pub use session::{Backend, Engine, LoadError, MAX_TENSORS, RunError, Session};
pub use target::{
    BackendKind, TENSORRT_RTX_CAPABILITIES, Target, TargetError, UnknownTarget, comma_separated,
};
pub use warm_up::warm_up;
