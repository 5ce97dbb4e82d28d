//! Incorrect sequences of calls, which the fake driver must report. They show that the other tests of
//! this folder can fail.

use crate::child;
use std::sync::Arc;
use tandem::device::cuda::CudaDevice;
use tandem::device::{Device, Event, ExpertStreams, Staged, Stream};

/// Size of every copy, bytes.
const BYTES: usize = 256;

/// Value of the bytes of pinned memory that a pending copy will write.
const POISON: u8 = 0xDB;

struct Setup {
    fast: Arc<dyn Stream>,
    slow: Arc<dyn Stream>,
    from: Staged,
    into: Staged,
    event: Arc<dyn Event>,
}

fn setup() -> Setup {
    let device = CudaDevice::open(0).unwrap();
    let ExpertStreams { fast, slow, .. } = device.streams(None).unwrap();
    let (mut from, into) = (device.stage(BYTES).unwrap(), device.stage(BYTES).unwrap());
    from.bytes_mut().fill(1);
    let event = device.event().unwrap();
    Setup { fast, slow, from, into, event }
}

impl Setup {
    /// Waits for both streams, so that dropping the objects is not another violation.
    fn end(&self) {
        self.fast.synchronize().unwrap();
        self.slow.synchronize().unwrap();
    }
}

/// Defines programs for child processes and the reports that they must cause.
macro_rules! misuses {
    ($($(#[$doc:meta])* $name:ident($expected:literal) |$setup:ident| $body:block)*) => {
        mod program {
            use super::*;
            $(
                $(#[$doc])*
                #[test]
                #[ignore = "a program for a child process"]
                fn $name() {
                    let $setup = &mut setup();
                    $body
                    $setup.end();
                }
            )*
        }

        const MISUSES: &[(&str, &str)] = &[$((stringify!($name), $expected)),*];
    };
}

misuses! {
    no_wait("unordered") |setup| {
        setup.slow.upload(&setup.from).unwrap();
        setup.slow.record(&setup.event).unwrap();
        setup.fast.copy(setup.from.buffer(), setup.into.buffer()).unwrap();
    }
    no_record("unordered") |setup| {
        setup.slow.upload(&setup.from).unwrap();
        setup.fast.wait(&setup.event).unwrap();
        setup.fast.copy(setup.from.buffer(), setup.into.buffer()).unwrap();
    }
    record_before_the_work("unordered") |setup| {
        setup.slow.record(&setup.event).unwrap();
        setup.slow.upload(&setup.from).unwrap();
        setup.fast.wait(&setup.event).unwrap();
        setup.fast.copy(setup.from.buffer(), setup.into.buffer()).unwrap();
    }
    record_on_the_wrong_stream("unordered") |setup| {
        setup.slow.upload(&setup.from).unwrap();
        setup.fast.record(&setup.event).unwrap();
        setup.fast.wait(&setup.event).unwrap();
        setup.fast.copy(setup.from.buffer(), setup.into.buffer()).unwrap();
    }
    wait_for_the_record_before_last("unordered") |setup| {
        setup.slow.record(&setup.event).unwrap();
        setup.fast.wait(&setup.event).unwrap();
        setup.slow.upload(&setup.from).unwrap();
        setup.slow.record(&setup.event).unwrap();
        setup.fast.copy(setup.from.buffer(), setup.into.buffer()).unwrap();
    }
    slot_written_while_it_is_read("unordered") |setup| {
        setup.fast.upload(&setup.from).unwrap();
        setup.fast.record(&setup.event).unwrap();
        setup.slow.wait(&setup.event).unwrap();
        setup.fast.copy(setup.from.buffer(), setup.into.buffer()).unwrap();
        setup.slow.upload(&setup.from).unwrap();
    }
    two_writers_of_a_slot("unordered") |setup| {
        setup.fast.upload(&setup.from).unwrap();
        setup.fast.synchronize().unwrap();
        setup.fast.copy(setup.from.buffer(), setup.into.buffer()).unwrap();
        setup.slow.copy(setup.from.buffer(), setup.into.buffer()).unwrap();
    }
    host_waits_for_the_other_stream("unordered") |setup| {
        setup.slow.upload(&setup.from).unwrap();
        setup.fast.synchronize().unwrap();
        setup.fast.copy(setup.from.buffer(), setup.into.buffer()).unwrap();
    }
    two_graphs_write_one_slot("unordered") |setup| {
        for stream in [&setup.fast, &setup.slow] {
            stream.begin_capture().unwrap();
            stream.upload(&setup.from).unwrap();
            let graph = stream.end_capture().unwrap();
            stream.launch(&graph).unwrap();
            // Dropping a graph would wait for its launches.
            std::mem::forget(graph);
        }
    }
    graph_launched_before_the_wait("unordered") |setup| {
        setup.fast.begin_capture().unwrap();
        setup.fast.copy(setup.from.buffer(), setup.into.buffer()).unwrap();
        let graph = setup.fast.end_capture().unwrap();
        setup.slow.upload(&setup.from).unwrap();
        setup.slow.record(&setup.event).unwrap();
        setup.fast.launch(&graph).unwrap();
        setup.fast.wait(&setup.event).unwrap();
    }
    staging_written_again_too_early("changed while a copy was pending") |setup| {
        setup.slow.upload(&setup.from).unwrap();
        setup.from.bytes_mut().fill(2);
    }
    staging_of_a_graph_written_too_early("changed while a copy was pending") |setup| {
        setup.fast.begin_capture().unwrap();
        setup.fast.upload(&setup.from).unwrap();
        let graph = setup.fast.end_capture().unwrap();
        setup.fast.launch(&graph).unwrap();
        setup.from.bytes_mut().fill(2);
    }
    staging_written_while_it_is_downloaded("changed while a copy was pending") |setup| {
        setup.slow.download(&setup.into).unwrap();
        setup.into.bytes_mut().fill(2);
    }
    download_read_too_early("") |setup| {
        setup.slow.upload(&setup.from).unwrap();
        setup.slow.copy(setup.from.buffer(), setup.into.buffer()).unwrap();
        setup.slow.download(&setup.into).unwrap();
        // A read of the host cannot be reported, but it does not return the result of the copy.
        assert!(setup.into.bytes().iter().all(|&byte| byte == POISON));
    }
}

#[test]
fn every_misuse_is_reported() {
    let mut reported = 0;
    for (name, expected) in MISUSES {
        for (schedule, seed) in [("late", 0), ("random", 1), ("random", 2)] {
            let settings = [("SCHEDULE", schedule), ("SEED", &seed.to_string())];
            let filter = format!("misuse::program::{name}");
            let ended = child::run(&filter, &settings);
            assert!(ended.has_passed, "{name}: {}", ended.output);
            let is_reported = ended.violations.iter().any(|line| line.contains(expected));
            // A write of the host is only detected while the copy is pending, and the random schedule
            // may complete the copy before.
            let must_report =
                !expected.is_empty() && (schedule == "late" || *expected == "unordered");
            assert!(is_reported || !must_report, "{name}: {:?}", ended.violations);
        }
        reported += 1;
    }
    eprintln!("{reported} of {} misuses reported", MISUSES.len());
}
