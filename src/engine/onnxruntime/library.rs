//! The ONNX Runtime library: which release, from which package.

use crate::engine::library::{Library, Wheel};

/// ONNX Runtime for the CPU.
pub const LIBRARY: &Library = &Library {
    name: "ONNX Runtime",
    version: "1.31.1",
    variable: "ORT_DYLIB_PATH",
    files: &["libonnxruntime.so.1.31.1"],
    package: "onnxruntime",
    folder: "onnxruntime/capi",
    wheel: WHEEL,
};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const WHEEL: Option<Wheel> = Some(Wheel {
    platform: "manylinux_2_28_x86_64",
    sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
    megabytes: 24,
});
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
const WHEEL: Option<Wheel> = Some(Wheel {
    platform: "manylinux_2_28_aarch64",
    sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
    megabytes: 24,
});
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
const WHEEL: Option<Wheel> = None;
