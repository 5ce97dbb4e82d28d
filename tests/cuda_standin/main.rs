//! Tests of tandem's CUDA device on a fake driver: the real `device/cuda` and the real `cudarc`,
//! without a GPU.
//!
//! Each test starts this binary as a child process with the library of the fake driver as `libcuda.so`.
//! The child runs the tests of all devices, or a program with a defined result. The fake driver has no
//! kernels, so ONNX Runtime and TensorRT are not tested here.

#![cfg(all(feature = "cuda", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod captures;
mod child;
mod coverage;
#[path = "../device_conformance.rs"]
mod device_conformance;
#[path = "../device_two_rates.rs"]
mod device_two_rates;
mod failures;
mod misuse;
mod pending;

use child::Ended;

/// Seeds of the random schedule.
const SEEDS: u64 = 8;

/// Runs tests in child processes with the late schedule and with each seed of the random schedule.
/// Checks that they pass and that the fake driver reports no violations.
fn under_all_schedules(filter: &str) {
    child::run(filter, &[("SCHEDULE", "late")]).check();
    for seed in 0..SEEDS {
        let ended: Ended =
            child::run(filter, &[("SCHEDULE", "random"), ("SEED", &seed.to_string())]);
        ended.check();
    }
}

#[test]
fn device_conformance_passes_with_all_schedules() {
    under_all_schedules("device_conformance::");
}

#[test]
fn two_rate_tests_pass_with_all_schedules() {
    under_all_schedules("device_two_rates::");
}
