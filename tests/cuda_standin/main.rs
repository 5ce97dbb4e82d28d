//! tandem's CUDA device on a stand-in for the driver: the real `device/cuda` and the real `cudarc`,
//! without a GPU.
//!
//! Each test starts this binary again with the stand-in's library as `libcuda.so`, and has the child
//! run the tests that hold for every device, or a program that a device must answer in one way. The
//! stand-in computes nothing; no test here says anything of ONNX Runtime or TensorRT.

#![cfg(all(feature = "cuda", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod breaks;
mod captures;
mod child;
mod coverage;
#[path = "../device_conformance.rs"]
mod device_conformance;
#[path = "../device_two_rates.rs"]
mod device_two_rates;
mod failures;
mod pending;

use child::Ended;

/// Seeds of the random schedule.
const SEEDS: u64 = 8;

/// Runs tests in children under the late schedule and under each seed of the random one; checks that
/// they pass and that the stand-in reports nothing.
fn under_all_schedules(filter: &str) {
    child::run(filter, &[("SCHEDULE", "late")]).check();
    for seed in 0..SEEDS {
        let ended: Ended =
            child::run(filter, &[("SCHEDULE", "random"), ("SEED", &seed.to_string())]);
        ended.check();
    }
}

#[test]
fn device_conformance_holds_under_all_schedules() {
    under_all_schedules("device_conformance::");
}

#[test]
fn ticks_and_prefills_hold_under_all_schedules() {
    under_all_schedules("device_two_rates::");
}
