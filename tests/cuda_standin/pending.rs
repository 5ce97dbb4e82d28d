//! State of events while their work is pending.

use crate::child;
use tandem::device::Device;
use tandem::device::cuda::CudaDevice;

#[test]
#[ignore = "a program for a child process"]
fn event_of_a_copy() {
    let device = CudaDevice::open(0).unwrap();
    let fast = device.streams(None).unwrap().fast;
    let (from, event) = (device.stage(8).unwrap(), device.event().unwrap());
    fast.upload(&from).unwrap();
    fast.record(&event).unwrap();
    assert!(!event.is_complete().unwrap());
    assert_eq!(event.completed_ns(), None);
    while !event.is_complete().unwrap() {}
    assert!(event.completed_ns().is_some());
}

#[test]
fn event_is_complete_only_after_its_work() {
    child::run("pending::event_of_a_copy", &[("SCHEDULE", "late")]).check();
}
