//! What every device does, and what each may count on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use tandem::device::{
    Counter, Device, DeviceError, DeviceTensor, Emulation, Event, HostAccess, HostDevice, Kind,
    Lanes, Object, Sharing, Staged, StagedTensor, Stream,
};
use tandem::tensor::{DType, HostTensor};
use tandem::timing::now_ns;

/// A device's clock is related to the host's to within some microseconds.
const SLACK_NS: u64 = 100_000;

/// The devices of this machine.
fn devices() -> Vec<Box<dyn Device>> {
    let host: [Box<dyn Device>; 2] =
        [Box::new(HostDevice::new()), Box::new(HostDevice::emulating(Emulation::default()))];
    host.into_iter().chain(gpu()).collect()
}

/// The GPU of this machine, if it has one with a driver and tandem was built for it.
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

fn lanes(device: &dyn Device) -> Lanes {
    device.lanes(None).unwrap()
}

/// Memory whose every byte is `value`, on its way to the device.
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
fn what_is_uploaded_copied_and_downloaded_comes_back() {
    for device in devices() {
        let fast = lanes(&*device).fast;
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
fn a_stream_waits_for_another_streams_event() {
    for device in devices() {
        let Lanes { fast, slow, .. } = lanes(&*device);
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
fn a_graph_does_again_what_was_captured_with_what_stands_there_now() {
    for device in devices() {
        let fast = lanes(&*device).fast;
        let mut from = device.stage(64).unwrap();
        let (back, done) = (device.stage(64).unwrap(), device.event().unwrap());
        fast.begin_capture().unwrap();
        fast.upload(&from).unwrap();
        fast.copy(from.buffer(), back.buffer()).unwrap();
        fast.download(&back).unwrap();
        fast.record(&done).unwrap();
        let graph = fast.end_capture().unwrap();
        assert!(graph.pieces() >= 2);
        assert!(!done.is_complete().unwrap(), "captured work does not run");
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
fn dropped_memory_and_events_last_until_pending_work_is_done() {
    for device in devices() {
        let Lanes { fast, slow, .. } = device.lanes(Some(0.25)).unwrap();
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
        // Streams, and only then the memory.
        fast.download(&back).unwrap();
        drop((fast, slow));
        drop(back);
    }
}

#[test]
fn dropped_graphs_last_until_pending_launches_are_done() {
    for device in devices() {
        let Lanes { fast, slow, .. } = device.lanes(Some(0.25)).unwrap();
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
        // On another stream than it was captured on.
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
        // The stream that it was captured on and all else of it, and only then the graph.
        drop((fast, slow, event));
        drop(graph);
    }
}

#[test]
fn events_tell_when_they_were_reached() {
    for device in devices() {
        let fast = lanes(&*device).fast;
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
        let fast = lanes(&*device).fast;
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
fn what_belongs_to_another_device_is_refused() {
    for device in devices() {
        let fast = lanes(&*device).fast;
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
        let stream = other.lanes(None).unwrap().fast;
        stream.begin_capture().unwrap();
        let graph = stream.end_capture().unwrap();
        assert_eq!(fast.launch(&graph), foreign(Object::Graph));
    }
}

#[test]
fn a_capture_cannot_wait_begin_twice_or_end_before_it_began() {
    for device in devices() {
        let Lanes { fast, slow, .. } = lanes(&*device);
        let event = wait(&*device, &*slow);
        assert!(matches!(fast.end_capture(), Err(DeviceError::Misuse(_))));
        fast.begin_capture().unwrap();
        assert!(matches!(fast.begin_capture(), Err(DeviceError::Misuse(_))));
        assert!(matches!(fast.wait(&event), Err(DeviceError::Misuse(_))), "{}", device.name());
        assert_eq!(fast.end_capture().unwrap().pieces(), 0);
    }
}

#[test]
fn a_device_that_is_asked_to_split_does_or_says_why_not() {
    for device in devices() {
        let Lanes { fast, slow, sharing } = device.lanes(Some(0.25)).unwrap();
        match &sharing {
            Sharing::Partitions { fast, slow } => assert!(*fast > 0 && *slow > 0, "{sharing}"),
            Sharing::Priorities { instead } => assert!(instead.is_some(), "{}", device.name()),
            Sharing::Host => {}
        }
        // However they share: one waits for the other's event, and graphs run on both.
        let (there, ready) = (device.stage(1 << 16).unwrap(), device.event().unwrap());
        let from = filled(&*device, &*slow, 1 << 16, 5);
        slow.begin_capture().unwrap();
        slow.copy(from.buffer(), there.buffer()).unwrap();
        slow.record(&ready).unwrap();
        let graph = slow.end_capture().unwrap();
        slow.launch(&graph).unwrap();
        fast.wait(&ready).unwrap();
        fast.download(&there).unwrap();
        // The clocks of two streams with their own multiprocessors are each related to the host's.
        let end_ns = wait(&*device, &*fast).completed_ns().unwrap();
        assert!(ready.completed_ns().unwrap() <= end_ns + SLACK_NS, "{}", device.name());
        assert!(there.bytes().iter().all(|&byte| byte == 5), "{}: {sharing}", device.name());
        // A share that leaves a lane nothing is no reason to stop.
        let whole = device.lanes(Some(1.0)).unwrap().sharing;
        assert!(!matches!(whole, Sharing::Partitions { .. }), "{whole}");
    }
}

#[test]
fn tensors_know_their_type_shape_and_bytes() {
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

/// A gate that an emulated device's work waits at until a test opens it.
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
    before: impl Fn(&str, Kind) -> Result<(), DeviceError> + Send + Sync + 'static,
) -> HostDevice {
    let before = Arc::new(move |piece: &tandem::device::Piece| before(piece.lane, piece.kind));
    HostDevice::emulating(Emulation { before, memory_bytes: None })
}

#[test]
fn handing_work_over_does_not_wait_for_it() {
    let gate = Arc::new(Gate::default());
    let device = {
        let gate = Arc::clone(&gate);
        emulating(move |lane, _| {
            if lane == "slow" {
                gate.pass();
            }
            Ok(())
        })
    };
    let Lanes { fast, slow, .. } = lanes(&device);
    let (staged, event) = (filled(&device, &*slow, 64, 9), device.event().unwrap());
    slow.record(&event).unwrap();
    // The slow lane stands still; the fast one goes on.
    wait(&device, &*fast);
    assert!(!event.is_complete().unwrap());
    gate.open();
    event.synchronize().unwrap();
    let mut back = [0; 64];
    device.read(staged.buffer(), &mut back).unwrap();
    assert_eq!(back, [9; 64]);
}

/// Opens its gate when it goes, also if that is because of a panic.
struct OpensAtLast<'a>(&'a Gate);

impl Drop for OpensAtLast<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[test]
#[should_panic(expected = "while a copy from or to it was under way")]
fn staged_memory_under_way_is_not_to_be_touched() {
    let gate = Arc::new(Gate::default());
    let device = {
        let gate = Arc::clone(&gate);
        emulating(move |_, _| {
            gate.pass();
            Ok(())
        })
    };
    let fast = lanes(&device).fast;
    let mut staged = filled(&device, &*fast, 64, 9);
    // The stream's thread must end with the test, whatever comes of the assertion.
    let _opened = OpensAtLast(&gate);
    staged.bytes_mut().fill(1);
}

/// Copies between memory that something else holds are refused, each for what it would break.
#[test]
fn work_on_memory_that_is_in_use_fails_instead_of_racing() {
    let in_use = |result| assert!(matches!(result, Err(DeviceError::Misuse(_))), "{result:?}");
    for device in [HostDevice::new(), HostDevice::emulating(Emulation::default())] {
        let fast = lanes(&device).fast;
        // What the stream failed with: at once on the host, later where a thread does it.
        let done = |handed_over: Result<(), DeviceError>| handed_over.and(fast.synchronize());
        let (first, second) = (device.allocate(64).unwrap(), device.allocate(64).unwrap());
        let reading = HostAccess::read(&first).unwrap();
        assert_eq!(done(fast.copy(&first, &second)), Ok(()), "two may read");
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
        // A reference of the host counts as a reader or a writer of its side.
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

/// Two threads that use one buffer without an event between them: each number that is read was
/// written whole, whatever the moment, and what could not be had was refused.
#[test]
fn two_threads_without_an_event_never_see_half_a_write() {
    let device = HostDevice::new();
    let (shared, source) = (device.allocate(1 << 16).unwrap(), device.allocate(1 << 16).unwrap());
    let Lanes { slow, .. } = lanes(&device);
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
                Ok(()) => assert!(read.iter().all(|&byte| byte == read[0]), "half a write"),
                Err(error) => assert!(matches!(error, DeviceError::Misuse(_)), "{error}"),
            }
        }
    });
}

#[test]
fn work_that_fails_is_told_by_the_events_behind_it_and_once_by_the_stream() {
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
    let fast = lanes(&device).fast;
    let (first, second) = (device.event().unwrap(), device.event().unwrap());
    let staged = filled(&device, &*fast, 64, 9);
    fast.record(&first).unwrap();
    fast.download(&staged).unwrap();
    fast.record(&second).unwrap();
    assert_eq!(first.synchronize(), Err(lost()));
    assert_eq!(second.synchronize(), Err(lost()));
    assert_eq!(ran.load(Ordering::SeqCst), 1, "work behind a failure is left out");
    fails.store(false, Ordering::SeqCst);
    assert_eq!(fast.synchronize(), Err(lost()));
    assert_eq!(fast.synchronize(), Ok(()));
    wait(&device, &*fast);
}

#[test]
fn memory_that_is_used_up_is_said_with_its_numbers() {
    let device =
        HostDevice::emulating(Emulation { memory_bytes: Some(1000), ..Emulation::default() });
    let held = device.allocate(600).unwrap();
    let error = device.allocate(500).err().unwrap();
    assert!(error.to_string().contains("500 bytes of memory left (400 bytes free)"), "{error}");
    drop(held);
    device.allocate(500).unwrap();
}
