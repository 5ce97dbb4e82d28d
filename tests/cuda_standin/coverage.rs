//! Checks that the fake driver has every function that `src/device/cuda` calls.

use crate::child;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Functions of `cudarc`'s module `result` that `src/device/cuda` uses, and the functions of the driver
/// that they call.
const RESULT: &[(&str, &str)] = &[
    ("ctx::set_current", "cuCtxSetCurrent"),
    ("device::get", "cuDeviceGet"),
    ("device::get_attribute", "cuDeviceGetAttribute"),
    ("device::get_count", "cuDeviceGetCount"),
    ("device::get_name", "cuDeviceGetName"),
    ("event::create", "cuEventCreate"),
    ("event::elapsed", "cuEventElapsedTime_v2"),
    ("event::query", "cuEventQuery"),
    ("event::record", "cuEventRecord"),
    ("event::synchronize", "cuEventSynchronize"),
    ("free_host", "cuMemFreeHost"),
    ("free_sync", "cuMemFree_v2"),
    ("init", "cuInit"),
    ("malloc_host", "cuMemHostAlloc"),
    ("malloc_sync", "cuMemAlloc_v2"),
    ("mem_get_info", "cuMemGetInfo_v2"),
    ("memcpy_dtod_async", "cuMemcpyDtoDAsync_v2"),
    ("memcpy_dtoh_async", "cuMemcpyDtoHAsync_v2"),
    ("memcpy_htod_async", "cuMemcpyHtoDAsync_v2"),
    ("memset_d8_async", "cuMemsetD8Async"),
    ("primary_ctx::retain", "cuDevicePrimaryCtxRetain"),
    ("stream::begin_capture", "cuStreamBeginCapture_v2"),
    ("stream::create", "cuStreamCreate"),
    ("stream::create_with_priority", "cuStreamCreateWithPriority"),
    ("stream::end_capture", "cuStreamEndCapture"),
    ("stream::get_priority_range", "cuCtxGetStreamPriorityRange"),
    ("stream::synchronize", "cuStreamSynchronize"),
    ("stream::wait_event", "cuStreamWaitEvent"),
];

/// Functions that `cudarc` calls to format an error.
const TEXTS: [&str; 2] = ["cuGetErrorName", "cuGetErrorString"];

/// Returns the names in `text` that follow `prefix`.
fn names<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let after = text.match_indices(prefix).map(|(at, _)| &text[at + prefix.len()..]);
    after.map(|rest| rest.split(|c| !is_name(c)).next().unwrap_or_default()).collect()
}

/// Returns the functions of the driver that the sources of `src/device/cuda` name.
fn used() -> BTreeSet<String> {
    let folder = Path::new(tandem_testkit::ROOT).join("src/device/cuda");
    let known: BTreeMap<_, _> = RESULT.iter().copied().collect();
    let mut used = BTreeSet::from(TEXTS.map(str::to_owned));
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        used.extend(names(&text, "sys::cu").iter().map(|name| format!("cu{name}")));
        for name in names(&text, "result::") {
            // Names of types begin with a capital letter.
            let last = name.rsplit("::").next().unwrap_or_default();
            if last.starts_with(|c: char| c.is_ascii_lowercase()) {
                let function = known.get(name);
                used.insert(
                    function.unwrap_or_else(|| panic!("{name} is not in RESULT")).to_string(),
                );
            }
        }
    }
    used
}

#[test]
fn every_used_function_is_exported_and_called() {
    let used = used();
    let exported: BTreeSet<String> =
        cuda_driver_standin::abi::FUNCTIONS.iter().map(|&name| name.to_owned()).collect();
    let mut called = child::run("device_conformance::", &[]).called;
    // One program without an error, and one that formats an error.
    for settings in [vec![], vec![("FAIL", "cuInit:1:999")]] {
        called.extend(child::run("failures::program_that_may_fail", &settings).called);
    }
    eprintln!(
        "functions of the driver: {} used, {} of them exported by the fake driver, {} called",
        used.len(),
        used.intersection(&exported).count(),
        used.intersection(&called).count(),
    );
    assert_eq!(used.difference(&exported).count(), 0, "{used:?}");
    assert_eq!(used.difference(&called).collect::<Vec<_>>(), Vec::<&String>::new(), "never called");
    assert_eq!(exported.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new(), "not used");
}
