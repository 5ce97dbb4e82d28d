//! Conformance of every device of this machine to the `Device` traits.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails here")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use tandem::device::{
    Counter, Device, DeviceError, DeviceTensor, Emulation, Event, ExpertStreams, HostAccess,
    HostDevice, Object, OperationKind, Sharing, Staged, StagedTensor, Stream,
};
use tandem::tensor::{DType, HostTensor};
use tandem::timing::now_ns;

/// Tolerance of conversions from a device's clock to
/// the host's, which are exact to some microseconds.
const SLACK_NS: u64 = 100_000;

/// The devices of this machine.
fn devices() -> Vec<Box<dyn Device>> {
    let host: [Box<dyn Device>; 2] =
        [Box::new(HostDevice::new()), Box::new(HostDevice::emulating(Emulation::default()))];
    host.into_iter().chain(gpu()).collect()
}

/// The first GPU, if this machine has one with a driver and tandem was built for it.
#[cfg(feature = "cuda")]
fn gpu() -> Option<Box<dyn Device>> {
    match tandem::device::cuda::CudaDevice::open(0) {
        Ok(device) => Some(Box::new(device)),
        Err(DeviceError::NoDriver { .. } | DeviceError::NoDevice { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

#[cfg(not(feature = "cuda"))]
fn gpu() -> Option<Box<dyn Device>> {
    None
}

fn streams(device: &dyn Device) -> ExpertStreams {
    device.streams(None).unwrap()
}

/// Staged memory filled with `value`, whose upload is enqueued.
fn filled(device: &dyn Device, stream: &dyn Stream, bytes: usize, value: u8) -> Staged {
    let mut staged = device.stage(bytes).unwrap();
    staged.bytes_mut().fill(value);
    stream.upload(&staged).unwrap();
    staged
}

fn wait(device: &dyn Device, stream: &dyn Stream) -> Arc<dyn Event> {
    let event = device.event().unwrap();
    stream.record(&event).unwrap();
    event.synchronize().unwrap();
    event
}

#[test]
fn memory_begins_as_zeros_and_keeps_what_is_written() {
    for device in devices() {
        let buffer = device.allocate(100).unwrap();
        let mut back = [1; 100];
        device.read(&buffer, &mut back).unwrap();
        assert_eq!(back, [0; 100], "{}", device.name());
        device.write(&[7; 40], &buffer.part(30, 40)).unwrap();
        device.read(&buffer, &mut back).unwrap();
        assert_eq!((back[29], back[30], back[69], back[70]), (0, 7, 7, 0));
        assert_eq!(buffer.address() % 64, 0, "engines want aligned memory");
    }
}

#[test]
fn bytes_survive_upload_copy_and_download() {
    for device in devices() {
        let fast = streams(&*device).fast;
        let from = filled(&*device, &*fast, 1 << 16, 3);
        let (middle, back) = (device.allocate(1 << 16).unwrap(), device.stage(1 << 16).unwrap());
        fast.copy(from.buffer(), &middle).unwrap();
        fast.copy(&middle, back.buffer()).unwrap();
        fast.download(&back).unwrap();
        fast.synchronize().unwrap();
        assert!(back.bytes().iter().all(|&byte| byte == 3), "{}", device.name());
    }
}

#[test]
fn stream_waits_for_event_of_another_stream() {
    for device in devices() {
        let ExpertStreams { fast, slow, .. } = streams(&*device);
        let (there, ready) = (device.stage(1 << 20).unwrap(), device.event().unwrap());
        for value in 1..50 {
            let from = filled(&*device, &*slow, 1 << 20, value);
            slow.copy(from.buffer(), there.buffer()).unwrap();
            slow.record(&ready).unwrap();
            fast.wait(&ready).unwrap();
            fast.download(&there).unwrap();
            fast.synchronize().unwrap();
            let bytes = there.bytes();
            assert!(bytes.iter().all(|&byte| byte == value), "{}: round {value}", device.name());
        }
    }
}

#[test]
fn graph_replays_captured_work_on_current_memory() {
    for device in devices() {
        let fast = streams(&*device).fast;
        let mut from = device.stage(64).unwrap();
        let (back, done) = (device.stage(64).unwrap(), device.event().unwrap());
        fast.begin_capture().unwrap();
        fast.upload(&from).unwrap();
        fast.copy(from.buffer(), back.buffer()).unwrap();
        fast.download(&back).unwrap();
        fast.record(&done).unwrap();
        let graph = fast.end_capture().unwrap();
        assert!(graph.nodes() >= 2);
        assert!(!done.is_complete().unwrap(), "captured work ran");
        for value in 1..5 {
            from.bytes_mut().fill(value);
            fast.launch(&graph).unwrap();
            done.synchronize().unwrap();
            assert!(back.bytes().iter().all(|&byte| byte == value), "{}", device.name());
        }
        assert_eq!(device.counts()[Counter::Launches], 4);
    }
}

#[test]
fn dropped_memory_lives_until_pending_work_completes() {
    for device in devices() {
        let ExpertStreams { fast, slow, .. } = device.streams(Some(0.25)).unwrap();
        let (back, event) = (device.stage(1 << 12).unwrap(), device.event().unwrap());
        let from = filled(&*device, &*fast, 1 << 12, 1);
        let middle = device.allocate(1 << 12).unwrap();
        fast.copy(from.buffer(), &middle).unwrap();
        drop(from);
        fast.copy(&middle, back.buffer()).unwrap();
        drop(middle);
        fast.record(&event).unwrap();
        slow.wait(&event).unwrap();
        drop(event);
        slow.download(&back).unwrap();
        slow.synchronize().unwrap();
        assert!(back.bytes().iter().all(|&byte| byte == 1), "{}", device.name());
        // The streams are dropped before the memory.
        fast.download(&back).unwrap();
        drop((fast, slow));
        drop(back);
    }
}

#[test]
fn dropped_graphs_live_until_pending_launches_complete() {
    for device in devices() {
        let ExpertStreams { fast, slow, .. } = device.streams(Some(0.25)).unwrap();
        let (back, event) = (device.stage(1 << 12).unwrap(), device.event().unwrap());
        let captured = || {
            let mut from = device.stage(1 << 12).unwrap();
            from.bytes_mut().fill(2);
            fast.begin_capture().unwrap();
            fast.upload(&from).unwrap();
            fast.copy(from.buffer(), back.buffer()).unwrap();
            fast.record(&event).unwrap();
            fast.end_capture().unwrap()
        };
        let graph = captured();
        fast.launch(&graph).unwrap();
        drop(graph);
        // Launched on another stream than the one that it was captured on.
        let graph = captured();
        slow.wait(&event).unwrap();
        slow.launch(&graph).unwrap();
        drop(graph);
        slow.begin_capture().unwrap();
        slow.download(&back).unwrap();
        let graph = slow.end_capture().unwrap();
        slow.launch(&graph).unwrap();
        slow.synchronize().unwrap();
        assert!(back.bytes().iter().all(|&byte| byte == 2), "{}", device.name());
        // The streams and the event are dropped before the graph.
        drop((fast, slow, event));
        drop(graph);
    }
}

#[test]
fn events_report_their_completion_time() {
    for device in devices() {
        let fast = streams(&*device).fast;
        let never = device.event().unwrap();
        assert!(!never.is_complete().unwrap());
        assert_eq!(never.completed_ns(), None);
        assert!(matches!(never.synchronize(), Err(DeviceError::Misuse(_))));
        let before = now_ns();
        let first = wait(&*device, &*fast);
        let second = wait(&*device, &*fast);
        let after = now_ns();
        let (first, second) = (first.completed_ns().unwrap(), second.completed_ns().unwrap());
        assert!(first <= second, "{}", device.name());
        assert!(before <= first + SLACK_NS && second <= after + SLACK_NS, "{}", device.name());
    }
}

#[test]
fn copies_waits_and_allocations_are_counted() {
    for device in devices() {
        let fast = streams(&*device).fast;
        let start = device.counts();
        let staged = filled(&*device, &*fast, 256, 1);
        fast.download(&staged).unwrap();
        wait(&*device, &*fast);
        let counts = device.counts() - start;
        let copied = if staged.is_unified() { 0 } else { 256 };
        assert_eq!(
            (counts[Counter::UploadedBytes], counts[Counter::DownloadedBytes]),
            (copied, copied)
        );
        assert_eq!((counts[Counter::HostWaits], counts[Counter::Frees]), (1, 0));
        assert!(counts[Counter::Allocations] >= 1);
        drop(staged);
        let counts = device.counts() - start;
        assert_eq!(counts[Counter::Frees], counts[Counter::Allocations]);
    }
}

#[test]
fn objects_of_another_device_are_refused() {
    for device in devices() {
        let fast = streams(&*device).fast;
        let other = HostDevice::emulating(Emulation::default());
        let (mine, theirs) = (device.allocate(8).unwrap(), other.allocate(8).unwrap());
        let foreign = |object| Err(DeviceError::Foreign(object));
        assert_eq!(fast.copy(&theirs, &mine), foreign(Object::Buffer));
        assert_eq!(fast.copy(&mine, &theirs), foreign(Object::Buffer));
        assert_eq!(fast.upload(&other.stage(8).unwrap()), foreign(Object::Buffer));
        assert_eq!(device.read(&theirs, &mut [0; 8]), foreign(Object::Buffer));
        let event = other.event().unwrap();
        assert_eq!(fast.record(&event), foreign(Object::Event));
        assert_eq!(fast.wait(&event), foreign(Object::Event));
        let stream = other.streams(None).unwrap().fast;
        stream.begin_capture().unwrap();
        let graph = stream.end_capture().unwrap();
        assert_eq!(fast.launch(&graph), foreign(Object::Graph));
    }
}

#[test]
fn misused_captures_are_refused() {
    for device in devices() {
        let ExpertStreams { fast, slow, .. } = streams(&*device);
        let event = wait(&*device, &*slow);
        assert!(matches!(fast.end_capture(), Err(DeviceError::Misuse(_))));
        fast.begin_capture().unwrap();
        assert!(matches!(fast.begin_capture(), Err(DeviceError::Misuse(_))));
        assert!(matches!(fast.wait(&event), Err(DeviceError::Misuse(_))), "{}", device.name());
        assert_eq!(fast.end_capture().unwrap().nodes(), 0);
    }
}

#[test]
fn device_splits_or_reports_why_not() {
    for device in devices() {
        let ExpertStreams { fast, slow, sharing } = device.streams(Some(0.25)).unwrap();
        match &sharing {
            Sharing::Partitions { fast, slow } => assert!(*fast > 0 && *slow > 0, "{sharing}"),
            Sharing::Priorities { instead } => assert!(instead.is_some(), "{}", device.name()),
            Sharing::Host => {}
        }
        // Whatever the sharing: one stream waits for an event of the other, and graphs run on both.
        let (there, ready) = (device.stage(1 << 16).unwrap(), device.event().unwrap());
        let from = filled(&*device, &*slow, 1 << 16, 5);
        slow.begin_capture().unwrap();
        slow.copy(from.buffer(), there.buffer()).unwrap();
        slow.record(&ready).unwrap();
        let graph = slow.end_capture().unwrap();
        slow.launch(&graph).unwrap();
        fast.wait(&ready).unwrap();
        fast.download(&there).unwrap();
        // Streams with their own multiprocessors have clocks of their own, each converted to the
        // host's.
        let end_ns = wait(&*device, &*fast).completed_ns().unwrap();
        assert!(ready.completed_ns().unwrap() <= end_ns + SLACK_NS, "{}", device.name());
        assert!(there.bytes().iter().all(|&byte| byte == 5), "{}: {sharing}", device.name());
        // A share that leaves a stream no multiprocessor is not an error.
        let all = device.streams(Some(1.0)).unwrap().sharing;
        assert!(!matches!(all, Sharing::Partitions { .. }), "{all}");
    }
}

#[test]
fn tensors_have_type_shape_and_bytes() {
    for device in devices() {
        let mut tensor = DeviceTensor::zeros(&*device, DType::F32, &[2, 3]).unwrap();
        let values = HostTensor::from_slice(&[2, 3], &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        tensor.set(&*device, &values).unwrap();
        assert_eq!(tensor.to_host(&*device).unwrap().as_slice::<f32>(), values.as_slice::<f32>());
        let mut staged = StagedTensor::zeros(&*device, DType::I64, &[2]).unwrap();
        staged.as_mut_slice().copy_from_slice(&[5_i64, 6]);
        assert_eq!(*staged.as_slice::<i64>(), [5, 6]);
        assert_eq!(staged.view().buffer.bytes(), 16);
    }
}

/// Blocks the work of an emulated device until a test opens it.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

fn emulating(
    before: impl Fn(&str, OperationKind) -> Result<(), DeviceError> + Send + Sync + 'static,
) -> HostDevice {
    let before = Arc::new(move |operation: &tandem::device::Operation| {
        before(operation.stream, operation.kind)
    });
    HostDevice::emulating(Emulation { before, memory_bytes: None })
}

#[test]
fn enqueuing_work_does_not_block() {
    let gate = Arc::new(Gate::default());
    let device = {
        let gate = Arc::clone(&gate);
        emulating(move |stream, _| {
            if stream == "slow" {
                gate.pass();
            }
            Ok(())
        })
    };
    let ExpertStreams { fast, slow, .. } = streams(&device);
    let (staged, event) = (filled(&device, &*slow, 64, 9), device.event().unwrap());
    slow.record(&event).unwrap();
    // The slow stream is blocked; the fast one continues.
    wait(&device, &*fast);
    assert!(!event.is_complete().unwrap());
    gate.open();
    event.synchronize().unwrap();
    let mut back = [0; 64];
    device.read(staged.buffer(), &mut back).unwrap();
    assert_eq!(back, [9; 64]);
}

/// Opens its gate when dropped, also by a panic.
struct OpenOnDrop<'a>(&'a Gate);

impl Drop for OpenOnDrop<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[test]
#[should_panic(expected = "accessed during a copy")]
fn access_to_staged_memory_during_a_copy_panics() {
    let gate = Arc::new(Gate::default());
    let device = {
        let gate = Arc::clone(&gate);
        emulating(move |_, _| {
            gate.pass();
            Ok(())
        })
    };
    let fast = streams(&device).fast;
    let mut staged = filled(&device, &*fast, 64, 9);
    // Lets the stream's thread end with the test, also if the access panics.
    let _opened = OpenOnDrop(&gate);
    staged.bytes_mut().fill(1);
}

/// Copies from or to memory that the host borrows are refused.
#[test]
fn operations_on_memory_in_use_are_refused() {
    let in_use = |result| assert!(matches!(result, Err(DeviceError::Misuse(_))), "{result:?}");
    for device in [HostDevice::new(), HostDevice::emulating(Emulation::default())] {
        let fast = streams(&device).fast;
        // Result of the copy: immediate on the host, deferred where a worker thread runs it.
        let done = |enqueued: Result<(), DeviceError>| enqueued.and(fast.synchronize());
        let (first, second) = (device.allocate(64).unwrap(), device.allocate(64).unwrap());
        let reading = HostAccess::read(&first).unwrap();
        assert_eq!(done(fast.copy(&first, &second)), Ok(()), "two readers are allowed");
        in_use(done(fast.copy(&second, &first)));
        in_use(device.write(&[1; 64], &first));
        in_use(device.write(&[1; 10], &first.part(50, 10)));
        assert_eq!(device.read(&first, &mut [0; 64]), Ok(()));
        drop(reading);
        let writing = HostAccess::write(&first).unwrap();
        in_use(done(fast.copy(&first, &second)));
        in_use(device.read(&first, &mut [0; 64]));
        drop(writing);
        assert_eq!(done(fast.copy(&second, &first)), Ok(()));
        assert_eq!(done(fast.copy(&first.part(0, 32), &first.part(32, 32))), Ok(()));
        // A host reference to staged memory counts as a reader or writer of the host's side.
        let mut staged = device.stage(64).unwrap();
        let bytes = staged.bytes();
        assert_eq!(done(fast.upload(&staged)), Ok(()));
        if staged.is_unified() {
            in_use(done(fast.copy(&first, staged.buffer())));
        } else {
            in_use(done(fast.download(&staged)));
        }
        drop(bytes);
        let (buffer, bytes) = (staged.buffer().clone(), staged.bytes_mut());
        if device.name() == "the host" {
            in_use(done(fast.copy(&buffer, &second)));
        }
        drop(bytes);
        assert_eq!(done(fast.copy(&buffer, &second)), Ok(()));
    }
}

/// Two threads use one buffer without an event: each read returns one complete write or is refused.
#[test]
fn unsynchronized_threads_never_read_a_partial_write() {
    let device = HostDevice::new();
    let (shared, source) = (device.allocate(1 << 16).unwrap(), device.allocate(1 << 16).unwrap());
    let ExpertStreams { slow, .. } = streams(&device);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 0..200_u8 {
                device.write(&vec![value; 1 << 16], &source).unwrap();
                let _ = slow.copy(&source, &shared);
            }
        });
        let mut read = vec![0; 1 << 16];
        for _ in 0..200 {
            match device.read(&shared, &mut read) {
                Ok(()) => assert!(read.iter().all(|&byte| byte == read[0]), "a partial write"),
                Err(error) => assert!(matches!(error, DeviceError::Misuse(_)), "{error}"),
            }
        }
    });
}

#[test]
fn failed_work_poisons_later_events_and_is_reported_once() {
    let fails = Arc::new(AtomicBool::new(true));
    let ran = Arc::new(AtomicUsize::new(0));
    let lost = || DeviceError::Lost { device: "the test's".into(), reason: "unplugged".into() };
    let device = {
        let (fails, ran) = (Arc::clone(&fails), Arc::clone(&ran));
        emulating(move |_, _| {
            ran.fetch_add(1, Ordering::SeqCst);
            if fails.load(Ordering::SeqCst) { Err(lost()) } else { Ok(()) }
        })
    };
    let fast = streams(&device).fast;
    let (first, second) = (device.event().unwrap(), device.event().unwrap());
    let staged = filled(&device, &*fast, 64, 9);
    fast.record(&first).unwrap();
    fast.download(&staged).unwrap();
    fast.record(&second).unwrap();
    assert_eq!(first.synchronize(), Err(lost()));
    assert_eq!(second.synchronize(), Err(lost()));
    assert_eq!(ran.load(Ordering::SeqCst), 1, "work after a failure ran");
    fails.store(false, Ordering::SeqCst);
    assert_eq!(fast.synchronize(), Err(lost()));
    assert_eq!(fast.synchronize(), Ok(()));
    wait(&device, &*fast);
}

#[test]
fn out_of_memory_error_has_requested_and_free_bytes() {
    let device =
        HostDevice::emulating(Emulation { memory_bytes: Some(1000), ..Emulation::default() });
    let held = device.allocate(600).unwrap();
    let error = device.allocate(500).err().unwrap();
    let DeviceError::OutOfMemory { requested: 500, free, .. } = &error else { panic!("{error}") };
    assert!(free.contains("400"), "{error}");
    drop(held);
    device.allocate(500).unwrap();
}
