//! Failures of any call of the driver are returned as errors and leak no objects.

use crate::child::{self, Ended};
use tandem::device::cuda::CudaDevice;
use tandem::device::{Device, DeviceError, ExpertStreams};

/// Uses all functions of a device.
fn use_device() -> Result<String, DeviceError> {
    let device = CudaDevice::open(0)?;
    let ExpertStreams { fast, slow, sharing } = device.streams(Some(0.25))?;
    let memory = device.memory()?.map(|memory| memory.total);
    let buffer = device.allocate(1 << 10)?;
    device.write(&[3; 1 << 10], &buffer)?;
    let (mut from, back) = (device.stage(1 << 10)?, device.stage(1 << 10)?);
    from.bytes_mut().fill(7);
    let (ready, done) = (device.event()?, device.event()?);
    slow.upload(&from)?;
    slow.record(&ready)?;
    fast.wait(&ready)?;
    fast.copy(from.buffer(), &buffer)?;
    fast.begin_capture()?;
    let captured = fast
        .copy(&buffer, back.buffer())
        .and_then(|()| fast.download(&back))
        .and_then(|()| fast.record(&done));
    let graph = fast.end_capture();
    captured?;
    fast.launch(&graph?)?;
    let _ = done.is_complete()?;
    done.synchronize()?;
    assert!(back.bytes().iter().all(|&byte| byte == 7));
    let _ = done.completed_ns();
    slow.synchronize()?;
    let mut read = [0; 1 << 10];
    device.read(&buffer, &mut read)?;
    assert_eq!(read, [7; 1 << 10]);
    Ok(format!("{sharing:?}, memory {memory:?}"))
}

#[test]
#[ignore = "a program for a child process"]
fn program_that_may_fail() {
    let answer = use_device();
    eprintln!("answer: {answer:?}");
    if let Err(error) = answer {
        eprintln!("message: {error}");
    }
}

fn ended(settings: &[(&str, &str)]) -> Ended {
    let ended = child::run("failures::program_that_may_fail", settings);
    assert!(
        ended.has_passed && ended.output.contains("answer: "),
        "{settings:?}: {}",
        ended.output
    );
    ended
}

/// Runs the program with settings and checks its result.
#[track_caller]
fn check(settings: &[(&str, &str)], expected: &str) {
    let ended = ended(settings);
    assert!(ended.output.contains(expected), "{settings:?}: {}", ended.output);
    assert!(ended.violations.is_empty(), "{settings:?}: {:?}", ended.violations);
}

#[test]
fn failure_of_any_call_is_an_error_or_has_no_effect() {
    let (mut failed, mut count) = (0, 0);
    for function in cuda_driver_standin::abi::FUNCTIONS {
        for number in 1..=3 {
            let ended = ended(&[("FAIL", &format!("{function}:{number}:999"))]);
            // A failure of these functions leaks objects.
            let leaking = ["EndCapture", "Destroy", "Free", "Release", "Synchronize", "SetCurrent"];
            if !leaking.iter().any(|part| function.contains(part)) {
                let violations = &ended.violations;
                assert!(violations.is_empty(), "{function}, call {number}: {violations:?}");
            }
            failed += usize::from(ended.output.contains("answer: Err("));
            count += 1;
        }
    }
    eprintln!("{count} failing calls, {failed} of them an error of the program");
    assert!(failed > 0);
}

#[test]
fn fault_of_the_device_is_reported_as_lost() {
    let mut faults = 0;
    loop {
        let at = format!("{}:700", faults + 1);
        if ended(&[("FAULT", &at)]).output.contains("answer: Ok(") {
            break;
        }
        check(&[("FAULT", &at)], "Lost {");
        faults += 1;
    }
    assert!(faults >= 5, "{faults} copies and memsets");
}

#[test]
fn loss_at_any_call_is_reported_as_lost_or_not_opened() {
    for at in (4..=100).step_by(4) {
        let ended = ended(&[("LOST", &format!("{at}:46"))]);
        let errors = ["Lost {", "NoDriver {", "opening CUDA device"];
        assert!(errors.iter().any(|error| ended.output.contains(error)), "{at}: {}", ended.output);
    }
}

#[test]
fn out_of_memory_error_has_requested_and_free_bytes() {
    check(&[("MEMORY", "1500")], "does not have 1024 bytes of memory left (476 bytes free)");
}

#[test]
fn error_names_why_no_device_is_usable() {
    check(&[("DEVICES", "0")], "NoDevice { ordinal: 0, found: 0 }");
    check(&[("DRIVER", "12060")], "DriverTooOld { found: \"12.6\", needed: \"12.8\" }");
}

#[test]
fn split_keeps_the_granularity_of_the_architecture() {
    check(&[], "Partitions { fast: 40, slow: 92 }");
    let ampere = ("COMPUTE_CAPABILITY", "8.6");
    check(&[ampere, ("MULTIPROCESSORS", "82")], "Partitions { fast: 22, slow: 60 }");
    check(&[ampere, ("MULTIPROCESSORS", "8")], "Partitions { fast: 4, slow: 4 }");
    check(&[("MULTIPROCESSORS", "8")], "leaves the slow stream without");
}
