//! Releases of the ONNX Runtime library and their packages.

use crate::engine::library::{Library, Wheel};

/// ONNX Runtime that supports only the CPU.
pub const LIBRARY: &Library = &Library {
    name: "ONNX Runtime",
    version: "1.32.0",
    variable: "ORT_DYLIB_PATH",
    files: &["libonnxruntime.so.1.32.0"],
    package: "onnxruntime",
    folder: "onnxruntime/capi",
    wheel: WHEEL,
};

/// ONNX Runtime for NVIDIA GPUs, which also supports the CPU. Its CUDA provider needs cuBLAS, cuRAND and
/// the runtime of CUDA 13, and cuDNN 9 for convolutions. They are not in the package; the system's
/// loader must find them.
pub const GPU_LIBRARY: &Library = &Library {
    name: "ONNX Runtime GPU",
    version: "1.31.1",
    variable: "ORT_GPU_DYLIB_PATH",
    files: &[
        "libonnxruntime.so.1.31.1",
        "libonnxruntime_providers_shared.so",
        "libonnxruntime_providers_cuda.so",
    ],
    package: "onnxruntime-gpu",
    folder: "onnxruntime/capi",
    wheel: GPU_WHEEL,
};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const GPU_WHEEL: Option<Wheel> = Some(Wheel {
    platform: "manylinux_2_28_x86_64",
    sha256: "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
    megabytes: 256,
    files_sha256: &[
        "5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303",
        "086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d",
        "8387867e857499e045caff5d13ac6a5de29571c801562fa2dde0e45f1f31de52",
    ],
});
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
const GPU_WHEEL: Option<Wheel> = None;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const WHEEL: Option<Wheel> = Some(Wheel {
    platform: "manylinux_2_28_x86_64",
    sha256: "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
    megabytes: 28,
    files_sha256: &["6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f"],
});
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
const WHEEL: Option<Wheel> = Some(Wheel {
    platform: "manylinux_2_28_aarch64",
    sha256: "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
    megabytes: 23,
    files_sha256: &["49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a"],
});
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
const WHEEL: Option<Wheel> = None;
