//! Releases of the two TensorRT libraries and their packages.

use crate::engine::library::{Library, Wheel};

/// TensorRT-RTX: compiles for RTX cards ahead of time, on any machine.
pub const RTX: &Library = &Library {
    name: "TensorRT-RTX",
    version: "1.7.1.116",
    variable: "TENSORRT_RTX_DYLIB_PATH",
    files: &["libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"],
    package: "tensorrt-rtx-cu13-libs",
    folder: "tensorrt_rtx_libs",
    wheel: RTX_WHEEL,
};

/// TensorRT 11: compiles for the GPU of its machine. Its builder is not in any package on PyPI.
pub const ENTERPRISE: &Library = &Library {
    name: "TensorRT",
    version: "11.4.0.106",
    variable: "TENSORRT_DYLIB_PATH",
    files: &["libnvinfer.so.11", "libnvonnxparser.so.11"],
    package: "tensorrt-cu13-libs",
    folder: "tensorrt_libs",
    wheel: None,
};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const RTX_WHEEL: Option<Wheel> = Some(Wheel {
    platform: "manylinux_2_28_x86_64",
    sha256: "e3fd45fed001240d63304e77a2d4006319b839994237cb294b6e7ad72acaabcd",
    megabytes: 95,
    files_sha256: &[
        "a74fa3974f1892b65a53b06a14ffcb15758ac51c12135ada84490f53f67e1051",
        "27be1f67ef28683b54390b6cbc7ec3efc75b39c8ebc4c683cb8603bcfd0b8896",
    ],
});
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
const RTX_WHEEL: Option<Wheel> = Some(Wheel {
    platform: "manylinux_2_35_aarch64",
    sha256: "ec8b6cb95a8ea61e31d544dbc5039d35219b311999f92c518a3889aaae74359c",
    megabytes: 91,
    files_sha256: &[
        "a7180e0a15a5387d60767ef7133a4fa42fe9f347fbf3c6d613099a609952df0a",
        "1c8ff39f9d1a2112165b8e2b59708785c9f5de218b60a55df1b8e9139b9d63bf",
    ],
});
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
const RTX_WHEEL: Option<Wheel> = None;
