//! Loading and running networks: a [`Backend`] loads a [`NetworkFile`] into an [`Engine`], which
//! creates [`Session`]s.
//!
//! A network file is a graph on disk with its contract. An engine is loaded and immutable; a session
//! has one user. Sessions bind to the caller's memory by address: the first run with a tensor creates
//! the binding, and later runs with the same memory neither copy it nor allocate host memory here.
//!
//! A [`Builder`] optimizes networks ahead of time for a given [`Target`], work that a back end would
//! otherwise repeat at every load. [`build::build`] uses it to write an [`EngineFolder`].

pub mod build;
mod builder;
mod contract_check;
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

pub use builder::{BuildError, BuildJob, BuildStep, Builder, FreeResources, StepListener};
pub use folder::{
    BuildRecord, BuiltNetwork, ENGINE_FILE, EngineFolder, EngineFolderError, EngineRecord,
    FileError, FileRecord, GraphError, Key, LATENCY_FILE, LAYER_FORMAT, Layer, LayerReport,
    LayerTensor, NetworkFile, NetworkFileError, NetworkRecord, Prediction, Rebuild, Reexport,
    WeightFile, WeightHashError, WeightHasher, hash_cache, hashes_file, read_network,
};
pub use operators::{OperatorProfile, OperatorProfileError, OperatorTime, PartTime};
pub use session::{Backend, Engine, LoadError, MAX_TENSORS, Session, SessionRunError};
pub use target::{
    BackendKind, TENSORRT_RTX_CAPABILITIES, Target, TargetError, UnknownTarget, comma_separated,
};
pub use warm_up::warm_up;
