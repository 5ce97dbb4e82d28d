//! Wrong sequences of calls, which the stand-in must report: the proof that the tests beside this
//! file could fail.

use crate::child;
use std::sync::Arc;
use tandem::device::cuda::CudaDevice;
use tandem::device::{Device, Event, Lanes, Staged, Stream};

/// Bytes of every copy.
const BYTES: usize = 256;

/// The value of pinned memory that a pending copy will write.
const POISON: u8 = 0xDB;

struct Scene {
    fast: Arc<dyn Stream>,
    slow: Arc<dyn Stream>,
    from: Staged,
    into: Staged,
    event: Arc<dyn Event>,
}

fn scene() -> Scene {
    let device = CudaDevice::open(0).unwrap();
    let Lanes { fast, slow, .. } = device.lanes(None).unwrap();
    let (mut from, into) = (device.stage(BYTES).unwrap(), device.stage(BYTES).unwrap());
    from.bytes_mut().fill(1);
    let event = device.event().unwrap();
    Scene { fast, slow, from, into, event }
}

impl Scene {
    /// Waits for both streams, so that nothing but the break is at fault.
    fn end(&self) {
        self.fast.synchronize().unwrap();
        self.slow.synchronize().unwrap();
    }
}

/// Defines programs for child processes, and a test that runs each and expects a report.
macro_rules! breaks {
    ($($(#[$doc:meta])* $name:ident($expected:literal) |$scene:ident| $body:block)*) => {
        mod program {
            use super::*;
            $(
                $(#[$doc])*
                #[test]
                #[ignore = "a program for a child process"]
                fn $name() {
                    let $scene = &mut scene();
                    $body
                    $scene.end();
                }
            )*
        }

        const BREAKS: &[(&str, &str)] = &[$((stringify!($name), $expected)),*];
    };
}

breaks! {
    no_wait("unordered") |scene| {
        scene.slow.upload(&scene.from).unwrap();
        scene.slow.record(&scene.event).unwrap();
        scene.fast.copy(scene.from.buffer(), scene.into.buffer()).unwrap();
    }
    no_record("unordered") |scene| {
        scene.slow.upload(&scene.from).unwrap();
        scene.fast.wait(&scene.event).unwrap();
        scene.fast.copy(scene.from.buffer(), scene.into.buffer()).unwrap();
    }
    record_before_the_work("unordered") |scene| {
        scene.slow.record(&scene.event).unwrap();
        scene.slow.upload(&scene.from).unwrap();
        scene.fast.wait(&scene.event).unwrap();
        scene.fast.copy(scene.from.buffer(), scene.into.buffer()).unwrap();
    }
    record_on_the_wrong_stream("unordered") |scene| {
        scene.slow.upload(&scene.from).unwrap();
        scene.fast.record(&scene.event).unwrap();
        scene.fast.wait(&scene.event).unwrap();
        scene.fast.copy(scene.from.buffer(), scene.into.buffer()).unwrap();
    }
    wait_for_the_record_before_last("unordered") |scene| {
        scene.slow.record(&scene.event).unwrap();
        scene.fast.wait(&scene.event).unwrap();
        scene.slow.upload(&scene.from).unwrap();
        scene.slow.record(&scene.event).unwrap();
        scene.fast.copy(scene.from.buffer(), scene.into.buffer()).unwrap();
    }
    slot_written_while_it_is_read("unordered") |scene| {
        scene.fast.upload(&scene.from).unwrap();
        scene.fast.record(&scene.event).unwrap();
        scene.slow.wait(&scene.event).unwrap();
        scene.fast.copy(scene.from.buffer(), scene.into.buffer()).unwrap();
        scene.slow.upload(&scene.from).unwrap();
    }
    two_writers_of_a_slot("unordered") |scene| {
        scene.fast.upload(&scene.from).unwrap();
        scene.fast.synchronize().unwrap();
        scene.fast.copy(scene.from.buffer(), scene.into.buffer()).unwrap();
        scene.slow.copy(scene.from.buffer(), scene.into.buffer()).unwrap();
    }
    host_waits_for_the_other_stream("unordered") |scene| {
        scene.slow.upload(&scene.from).unwrap();
        scene.fast.synchronize().unwrap();
        scene.fast.copy(scene.from.buffer(), scene.into.buffer()).unwrap();
    }
    two_graphs_write_one_slot("unordered") |scene| {
        for stream in [&scene.fast, &scene.slow] {
            stream.begin_capture().unwrap();
            stream.upload(&scene.from).unwrap();
            let graph = stream.end_capture().unwrap();
            stream.launch(&graph).unwrap();
            // Graphs wait when they are dropped.
            std::mem::forget(graph);
        }
    }
    graph_launched_before_the_wait("unordered") |scene| {
        scene.fast.begin_capture().unwrap();
        scene.fast.copy(scene.from.buffer(), scene.into.buffer()).unwrap();
        let graph = scene.fast.end_capture().unwrap();
        scene.slow.upload(&scene.from).unwrap();
        scene.slow.record(&scene.event).unwrap();
        scene.fast.launch(&graph).unwrap();
        scene.fast.wait(&scene.event).unwrap();
    }
    staging_written_again_too_early("changed while a copy was pending") |scene| {
        scene.slow.upload(&scene.from).unwrap();
        scene.from.bytes_mut().fill(2);
    }
    staging_of_a_graph_written_too_early("changed while a copy was pending") |scene| {
        scene.fast.begin_capture().unwrap();
        scene.fast.upload(&scene.from).unwrap();
        let graph = scene.fast.end_capture().unwrap();
        scene.fast.launch(&graph).unwrap();
        scene.from.bytes_mut().fill(2);
    }
    staging_written_while_it_is_downloaded("changed while a copy was pending") |scene| {
        scene.slow.download(&scene.into).unwrap();
        scene.into.bytes_mut().fill(2);
    }
    download_read_too_early("") |scene| {
        scene.slow.upload(&scene.from).unwrap();
        scene.slow.copy(scene.from.buffer(), scene.into.buffer()).unwrap();
        scene.slow.download(&scene.into).unwrap();
        // Nothing can report a read of the host; but it does not read what it hopes for.
        assert!(scene.into.bytes().iter().all(|&byte| byte == POISON));
    }
}

#[test]
fn every_break_is_reported() {
    let mut caught = 0;
    for (name, expected) in BREAKS {
        for (schedule, seed) in [("late", 0), ("random", 1), ("random", 2)] {
            let settings = [("SCHEDULE", schedule), ("SEED", &seed.to_string())];
            let filter = format!("breaks::program::{name}");
            let ended = child::run(&filter, &settings);
            assert!(ended.has_passed, "{name}: {}", ended.output);
            let is_told = ended.violations.iter().any(|line| line.contains(expected));
            // A change of the host is seen while the copy is pending, which a schedule may end at once.
            let is_sure = schedule == "late" || *expected == "unordered";
            assert!(is_told || !is_sure || expected.is_empty(), "{name}: {:?}", ended.violations);
        }
        caught += 1;
    }
    eprintln!("{caught} of {} breaks caught", BREAKS.len());
}
