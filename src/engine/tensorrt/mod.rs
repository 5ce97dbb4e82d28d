//! TensorRT-RTX and TensorRT 11: engines compiled for a GPU. TensorRT-RTX compiles without a GPU.
//!
//! **Not yet run on a GPU.** The library is loaded at run time. Its bindings need a feature:
//! `tensorrt` for TensorRT-RTX, `tensorrt-enterprise` for TensorRT 11; a build has at most one of them.
//! Without either, [`Target`]s can still be parsed and memory use can still be [predicted](predict).

#[cfg(all(feature = "tensorrt", feature = "tensorrt-enterprise"))]
compile_error!(
    "features `tensorrt` (TensorRT-RTX) and `tensorrt-enterprise` (TensorRT 11) exclude each other: \
     their APIs differ, and a build supports one of them; do not use --all-features"
);

mod findings;
mod layers;
mod library;
mod prediction;
#[cfg(any(
    test,
    all(feature = "cuda", feature = "tensorrt", not(feature = "tensorrt-enterprise"))
))]
mod runtime_cache;
mod target;

#[cfg(any(feature = "tensorrt", feature = "tensorrt-enterprise"))]
mod binding;

pub use findings::{
    AttentionFinding, ChangedWeight, GraphError, LayerFindings, OtherType, WeightBytes,
};
pub use library::{ENTERPRISE, RTX};
pub use prediction::{Prediction, PredictionError, predict};
pub use target::{Target, TargetError};

#[cfg(all(feature = "cuda", any(feature = "tensorrt", feature = "tensorrt-enterprise")))]
pub use binding::TensorRtOnGpu;
#[cfg(any(feature = "tensorrt", feature = "tensorrt-enterprise"))]
pub use binding::{
    BuildError, BuildReport, BuildRequest, Listener, OpenError, Progress, TensorRt, Version,
};
