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

/// ONNX Runtime for NVIDIA GPUs, which serves the CPU as well. Its CUDA provider needs cuBLAS, cuRAND
/// and the runtime of CUDA 13, and cuDNN 9 for convolutions, where the system's loader finds them: they
/// are not among its files.
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
    sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
    megabytes: 24,
    files_sha256: &["fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3"],
});
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
const WHEEL: Option<Wheel> = Some(Wheel {
    platform: "manylinux_2_28_aarch64",
    sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
    megabytes: 24,
    files_sha256: &["8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467"],
});
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
const WHEEL: Option<Wheel> = None;
