//! Captures, and calls of the capturing thread and of other threads during a capture.

#![expect(unsafe_code, reason = "captures like a library, with functions of the driver")]

use crate::child;
use cudarc::driver::result::stream::{begin_capture, end_capture};
use cudarc::driver::sys::{CUstream, CUstreamCaptureMode};
use tandem::device::cuda::CudaDevice;
use tandem::device::{Device, ExpertStreams};

#[test]
#[ignore = "a program for a child process"]
fn library_captures_in_global_mode() {
    let device = CudaDevice::open(0).unwrap();
    let ExpertStreams { fast, slow, .. } = device.streams(None).unwrap();
    let event = device.event().unwrap();
    fast.record(&event).unwrap();
    let slow = device.own_stream(&*slow).unwrap();
    let raw: CUstream = slow.raw().cast();
    slow.make_current().unwrap();
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;
    // SAFETY: the stream is alive.
    unsafe { begin_capture(raw, mode) }.unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            event.is_complete().unwrap();
            event.synchronize().unwrap();
            device.allocate(8).unwrap();
        });
    });
    // SAFETY: the stream is alive and capturing.
    let graph = unsafe { end_capture(raw) }.unwrap();
    // SAFETY: the graph came from the driver just now.
    unsafe { cudarc::driver::sys::cuGraphDestroy(graph) }.result().unwrap();
}

#[test]
fn global_capture_of_a_library_does_not_affect_other_threads() {
    child::run("captures::library_captures_in_global_mode", &[]).check();
}

#[test]
#[ignore = "a program for a child process"]
fn allocation_within_a_capture() {
    let device = CudaDevice::open(0).unwrap();
    let fast = device.streams(None).unwrap().fast;
    fast.begin_capture().unwrap();
    let allocated = device.allocate(8).err().unwrap().to_string();
    assert!(allocated.contains("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"), "{allocated}");
    let ended = fast.end_capture().err().unwrap().to_string();
    assert!(ended.contains("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"), "{ended}");
    // The next capture is not affected.
    fast.begin_capture().unwrap();
    fast.end_capture().unwrap();
}

#[test]
fn call_that_a_graph_cannot_repeat_invalidates_the_capture() {
    child::run("captures::allocation_within_a_capture", &[]).check();
}
