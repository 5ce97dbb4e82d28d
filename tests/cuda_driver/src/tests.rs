//! Tests of the rules, with calls that follow and calls that violate them.

use crate::capture::Mode;
use crate::code::{Code, Outcome};
use crate::config::{Config, Schedule};
use crate::driver::Driver;
use crate::stream::Side;

/// A driver with the primary context current in thread 1.
fn driver(schedule: Schedule) -> Driver {
    let mut driver = Driver::new(Config { schedule, ..Config::default() });
    driver.act(1, |driver| {
        driver.initialize(0)?;
        let context = driver.retain_primary(0)?;
        driver.set_current(context)
    });
    driver
}

fn late() -> Driver {
    driver(Schedule::Late)
}

impl Driver {
    /// Makes one successful call on a thread.
    #[track_caller]
    fn act<T: Default>(&mut self, thread: u64, body: impl FnOnce(&mut Self) -> Outcome<T>) -> T {
        self.answer(thread, body).expect("a call that the driver allows")
    }

    /// Makes one call on a thread.
    fn answer<T: Default>(
        &mut self,
        thread: u64,
        body: impl FnOnce(&mut Self) -> Outcome<T>,
    ) -> Outcome<T> {
        let mut result = T::default();
        // Uses the name of a function that may be called before the driver is initialized.
        let code = self.call("cuInit", thread, |driver| body(driver).map(|value| result = value));
        if code == Code::SUCCESS { Ok(result) } else { Err(code) }
    }

    fn a_stream(&mut self) -> u64 {
        self.act(1, |driver| driver.create_stream(1))
    }

    fn an_event(&mut self) -> u64 {
        self.act(1, |driver| driver.create_event(0))
    }

    fn memory(&mut self, bytes: u64) -> u64 {
        self.act(1, |driver| driver.allocate(bytes))
    }

    fn fill(&mut self, stream: u64, address: u64, value: u8) {
        self.act(1, |driver| driver.set(stream, address, value, 16));
    }

    fn copy_on(&mut self, stream: u64, from: u64, into: u64) {
        self.act(1, |driver| driver.copy(stream, Side::Device(from), Side::Device(into), 16));
    }

    fn record(&mut self, event: u64, stream: u64) {
        self.act(1, |driver| driver.record_event(event, stream, 0));
    }

    fn wait(&mut self, stream: u64, event: u64) {
        self.act(1, |driver| driver.wait_event(stream, event, 0));
    }

    fn begin(&mut self, stream: u64, mode: Mode) {
        self.act(1, |driver| driver.begin_capture(stream, mode));
    }

    fn end(&mut self, stream: u64) -> Outcome<u64> {
        self.answer(1, |driver| driver.end_capture(stream))
    }

    #[track_caller]
    fn expect_one(&self, fragment: &str) {
        let [violation] = self.report.violations() else {
            panic!("{:?}", self.report.violations())
        };
        assert!(violation.contains(fragment), "{violation}");
    }

    #[track_caller]
    fn expect_none(&self) {
        assert_eq!(self.report.violations(), Vec::<String>::new());
    }
}

#[test]
fn work_runs_only_when_something_waits() {
    let mut driver = late();
    let (stream, address) = (driver.a_stream(), driver.memory(16));
    driver.fill(stream, address, 7);
    let event = driver.an_event();
    driver.record(event, stream);
    assert_ne!(driver.memory.read(address, 1), [7]);
    assert_eq!(driver.answer(1, |driver| driver.query_event(event)), Err(Code::NOT_READY));
    assert_ne!(driver.memory.read(address, 1), [7]);
    driver.act(1, |driver| driver.synchronize_event(event));
    assert_eq!(driver.memory.read(address, 1), [7]);
}

#[test]
fn loop_of_queries_terminates() {
    let mut driver = late();
    let (stream, address, event) = (driver.a_stream(), driver.memory(16), driver.an_event());
    driver.fill(stream, address, 7);
    driver.record(event, stream);
    let queries = (0..100).take_while(|_| driver.answer(1, |d| d.query_event(event)).is_err());
    assert!(queries.count() < 100);
}

#[test]
fn random_schedule_runs_work_and_depends_on_the_seed_only() {
    let run = |seed| {
        let mut driver = driver(Schedule::Random(seed));
        let (stream, address) = (driver.a_stream(), driver.memory(16));
        driver.fill(stream, address, 7);
        (0..100)
            .take_while(|_| {
                driver.act(1, Driver::memory_info);
                driver.memory.read(address, 1) != [7]
            })
            .count()
    };
    assert!((0..20).all(|seed| run(seed) < 100 && run(seed) == run(seed)));
    assert!((1..20).any(|seed| run(seed) != run(0)));
}

/// Enqueues work on a stream at an address.
type Access = fn(&mut Driver, u64, u64);

#[test]
fn unordered_conflicting_accesses_are_reported() {
    let accesses: [(Access, Access, bool); 3] = [
        (|d, s, a| d.fill(s, a, 1), |d, s, a| d.fill(s, a, 2), true),
        (|d, s, a| d.fill(s, a, 1), |d, s, a| d.copy_on(s, a, a + 32), true),
        (|d, s, a| d.copy_on(s, a, a + 32), |d, s, a| d.copy_on(s, a, a + 64), false),
    ];
    for (first, second, conflicts) in accesses {
        for is_ordered in [false, true] {
            let mut driver = late();
            let (one, other) = (driver.a_stream(), driver.a_stream());
            let (address, event) = (driver.memory(96), driver.an_event());
            first(&mut driver, one, address);
            if is_ordered {
                driver.record(event, one);
                driver.wait(other, event);
            }
            second(&mut driver, other, address);
            if conflicts && !is_ordered {
                driver.expect_one("unordered")
            } else {
                driver.expect_none()
            }
        }
    }
}

#[test]
fn use_of_freed_memory_is_reported() {
    let mut driver = late();
    let (stream, address) = (driver.a_stream(), driver.memory(16));
    driver.fill(stream, address, 7);
    driver.act(1, |driver| driver.free(address, false));
    driver.expect_one("freed while in use");
    assert_eq!(driver.memory.read(address, 1), [0xDB]);
    driver.act(1, |driver| driver.synchronize_stream(stream));
    assert_eq!(driver.report.violations().len(), 2, "the fill runs on freed memory");
    let again = driver.answer(1, |driver| driver.free(address, false));
    assert_eq!(again, Err(Code::INVALID_VALUE));
}

#[test]
fn pinned_memory_is_read_when_the_copy_runs() {
    let mut driver = late();
    let (stream, address) = (driver.a_stream(), driver.memory(16));
    let pinned = driver.act(1, |driver| driver.allocate_host(16));
    driver.memory.write(pinned, &[1; 16]);
    let (from, into) = (Side::Host(pinned), Side::Device(address));
    driver.act(1, |driver| driver.copy(stream, from, into, 16));
    // SAFETY: `pinned` is valid for 16 bytes, because the block is not freed.
    unsafe { std::ptr::write_bytes(pinned as *mut u8, 2, 16) };
    driver.act(1, |driver| driver.synchronize_stream(stream));
    assert_eq!(driver.memory.read(address, 16), [2; 16]);
    driver.expect_one("changed while a copy was pending");
}

#[test]
fn synchronizing_a_capturing_stream_invalidates_the_capture() {
    let mut driver = late();
    let stream = driver.a_stream();
    driver.begin(stream, Mode::Relaxed);
    let answer = driver.answer(1, |driver| driver.synchronize_stream(stream));
    assert_eq!(answer, Err(Code::STREAM_CAPTURE_UNSUPPORTED));
    let address = 0xD0 << 56;
    driver.memory(16);
    let answer = driver.answer(1, |driver| driver.set(stream, address, 1, 16));
    assert_eq!(answer, Err(Code::STREAM_CAPTURE_INVALIDATED));
    assert_eq!(driver.end(stream), Err(Code::STREAM_CAPTURE_INVALIDATED));
    assert_eq!(driver.end(stream), Err(Code::ILLEGAL_STATE), "the capture is over");
}

#[test]
fn capture_mode_decides_about_potentially_unsafe_calls() {
    // Mode of the capture on thread 1; thread and mode of the call; true if it is allowed.
    let cases = [
        (Mode::Global, 1, Mode::Global, false),
        (Mode::Global, 2, Mode::Global, false),
        (Mode::Global, 1, Mode::ThreadLocal, false),
        (Mode::Global, 2, Mode::ThreadLocal, true),
        (Mode::Global, 2, Mode::Relaxed, true),
        (Mode::ThreadLocal, 1, Mode::Global, false),
        (Mode::ThreadLocal, 2, Mode::Global, true),
        (Mode::ThreadLocal, 1, Mode::Relaxed, true),
        (Mode::Relaxed, 1, Mode::Global, true),
        (Mode::Relaxed, 2, Mode::Global, true),
    ];
    for (captured, thread, mode, is_allowed) in cases {
        let mut driver = late();
        let stream = driver.a_stream();
        let context = driver.act(1, |driver| driver.current_context());
        driver.act(thread, |driver| driver.set_current(context));
        driver.begin(stream, captured);
        driver.act(thread, |driver| {
            driver.exchange_mode(mode);
            Ok(())
        });
        let allocated = driver.answer(thread, |driver| driver.allocate(16));
        let case = (captured, thread, mode);
        assert_eq!(allocated.is_ok(), is_allowed, "{case:?}");
        assert_eq!(driver.end(stream).is_ok(), is_allowed, "{case:?}");
    }
}

#[test]
fn capture_ends_on_its_stream_and_thread() {
    let mut driver = late();
    let (stream, other, event) = (driver.a_stream(), driver.a_stream(), driver.an_event());
    let context = driver.act(1, |driver| driver.current_context());
    driver.act(2, |driver| driver.set_current(context));
    driver.begin(stream, Mode::ThreadLocal);
    assert_eq!(
        driver.answer(1, |driver| driver.begin_capture(stream, Mode::Global)),
        Err(Code::ILLEGAL_STATE)
    );
    let answer = driver.answer(2, |driver| driver.end_capture(stream));
    assert_eq!(answer, Err(Code::STREAM_CAPTURE_WRONG_THREAD));
    driver.record(event, stream);
    driver.wait(other, event);
    assert_eq!(driver.end(other), Err(Code::STREAM_CAPTURE_UNMATCHED));
    assert!(driver.end(stream).is_ok());
    assert_eq!(driver.end(stream), Err(Code::ILLEGAL_STATE));
}

#[test]
fn fork_has_to_be_joined() {
    for is_joined in [false, true] {
        let mut driver = late();
        let (stream, other, address) = (driver.a_stream(), driver.a_stream(), driver.memory(16));
        let (forked, joined) = (driver.an_event(), driver.an_event());
        driver.begin(stream, Mode::ThreadLocal);
        driver.record(forked, stream);
        driver.wait(other, forked);
        driver.fill(other, address, 1);
        driver.record(joined, other);
        if is_joined {
            driver.wait(stream, joined);
        }
        let expected = if is_joined { None } else { Some(Code::STREAM_CAPTURE_UNJOINED) };
        assert_eq!(driver.end(stream).err(), expected);
    }
}

#[test]
fn captures_are_isolated() {
    let mut driver = late();
    let (stream, other, event) = (driver.a_stream(), driver.a_stream(), driver.an_event());
    driver.record(event, other);
    driver.begin(stream, Mode::ThreadLocal);
    let answer = driver.answer(1, |driver| driver.wait_event(stream, event, 0));
    assert_eq!(answer, Err(Code::STREAM_CAPTURE_ISOLATION));
    assert_eq!(driver.end(stream), Err(Code::STREAM_CAPTURE_INVALIDATED));

    driver.begin(stream, Mode::ThreadLocal);
    driver.begin(other, Mode::ThreadLocal);
    driver.record(event, other);
    let answer = driver.answer(1, |driver| driver.wait_event(stream, event, 0));
    assert_eq!(answer, Err(Code::STREAM_CAPTURE_MERGE));
    assert_eq!(driver.end(stream), Err(Code::STREAM_CAPTURE_INVALIDATED));
    assert_eq!(driver.end(other), Err(Code::STREAM_CAPTURE_INVALIDATED));
}

#[test]
fn captured_event_cannot_be_queried_unless_external() {
    let mut driver = late();
    let (stream, event) = (driver.a_stream(), driver.an_event());
    let external = |driver: &mut Driver| driver.record_event(event, stream, 1);
    assert_eq!(driver.answer(1, external), Err(Code::INVALID_VALUE), "only while capturing");
    driver.begin(stream, Mode::Relaxed);
    driver.act(1, external);
    driver.act(1, |driver| driver.query_event(event));
    driver.record(event, stream);
    let answer = driver.answer(1, |driver| driver.query_event(event));
    assert_eq!(answer, Err(Code::CAPTURED_EVENT));
    assert_eq!(driver.end(stream), Err(Code::STREAM_CAPTURE_INVALIDATED));
}

/// Returns a driver with a graph that fills 16 bytes and then records an event, and the handles of
/// stream, executable graph, memory and event.
fn with_graph() -> (Driver, u64, u64, u64, u64) {
    let mut driver = late();
    let (stream, address, event) = (driver.a_stream(), driver.memory(16), driver.an_event());
    driver.begin(stream, Mode::ThreadLocal);
    driver.fill(stream, address, 7);
    driver.act(1, |driver| driver.record_event(event, stream, 1));
    let graph = driver.end(stream).expect("a valid capture");
    assert_eq!(driver.act(1, |driver| driver.count_nodes(graph)), 2);
    let exec = driver.act(1, |driver| driver.instantiate(graph, 0));
    (driver, stream, exec, address, event)
}

#[test]
fn event_of_a_node_is_pending_only_once_the_node_runs() {
    let (mut driver, stream, exec, address, event) = with_graph();
    driver.act(1, |driver| driver.launch(exec, stream));
    driver.act(1, |driver| driver.synchronize_event(event));
    assert_ne!(driver.memory.read(address, 1), [7], "the event was never recorded");
    driver.act(1, |driver| driver.synchronize_stream(stream));
    assert_eq!(driver.memory.read(address, 1), [7]);
    driver.act(1, |driver| driver.elapsed_ms(event, event));
}

#[test]
fn launches_of_a_graph_on_two_streams_are_ordered() {
    let (mut driver, stream, exec, address, _event) = with_graph();
    let other = driver.a_stream();
    driver.act(1, |driver| driver.launch(exec, stream));
    driver.act(1, |driver| driver.launch(exec, other));
    driver.act(1, |driver| driver.synchronize_stream(other));
    assert_eq!(driver.memory.read(address, 1), [7]);
    driver.expect_none();
}

#[test]
fn unordered_nodes_of_a_graph_are_reported() {
    let mut driver = late();
    let (stream, other, address) = (driver.a_stream(), driver.a_stream(), driver.memory(16));
    let (forked, joined) = (driver.an_event(), driver.an_event());
    driver.begin(stream, Mode::ThreadLocal);
    driver.record(forked, stream);
    driver.wait(other, forked);
    driver.fill(other, address, 1);
    driver.fill(stream, address, 2);
    driver.record(joined, other);
    driver.wait(stream, joined);
    let graph = driver.end(stream).expect("a joined capture");
    let exec = driver.act(1, |driver| driver.instantiate(graph, 0));
    driver.expect_one("unordered within a graph");
    driver.act(1, |driver| driver.launch(exec, stream));
    assert_eq!(driver.report.violations().len(), 2, "its nodes are unordered in each launch");
}

#[test]
fn record_of_an_event_of_another_context_is_refused() {
    let mut driver = late();
    let green = driver.act(1, a_green_context);
    let stream = driver.act(1, |driver| driver.create_green_stream(green, 1));
    let (event, primary) = (driver.an_event(), driver.act(1, |driver| driver.current_context()));
    let answer = driver.answer(1, |driver| driver.record_event(event, stream, 0));
    assert_eq!(answer, Err(Code::INVALID_HANDLE));
    let context = driver.act(1, |driver| driver.convert_green(green));
    driver.act(1, |driver| driver.set_current(context));
    let answer = driver.answer(2, |driver| driver.set_current(context));
    assert_eq!(answer, Err(Code::INVALID_CONTEXT), "it is current in thread 1");
    driver.expect_one("current in another thread");
    let own = driver.an_event();
    driver.act(1, |driver| driver.set_current(primary));
    driver.record(own, stream);
    driver.act(1, |driver| driver.destroy_green(green));
    assert_eq!(driver.report.violations().len(), 3, "a stream and an event are left");
    let answer = driver.answer(1, |driver| driver.destroy_stream(stream));
    assert_eq!(answer, Err(Code::CONTEXT_IS_DESTROYED));
}

fn a_green_context(driver: &mut Driver) -> Outcome<u64> {
    let all = driver.multiprocessors(0, 1)?;
    let (part, _, rest) = driver.split(all, 1, 33)?;
    assert_eq!((part.count, rest.count), (40, 92));
    assert_eq!(driver.split(rest, 1, 8), Err(Code::INVALID_RESOURCE_CONFIGURATION));
    let described = driver.describe(&[part])?;
    assert_eq!(driver.create_green(described, 0, 0), Err(Code::INVALID_VALUE));
    driver.create_green(described, 0, 1)
}

#[test]
fn granularity_of_parts_depends_on_the_architecture() {
    for (capability, least, expected) in
        [((8, 6), 1, 4), ((8, 6), 5, 6), ((9, 0), 9, 16), ((7, 5), 1, 2)]
    {
        let mut driver =
            Driver::new(Config { compute_capability: capability, ..Config::default() });
        let all = driver.multiprocessors(0, 1).expect("a device resource");
        let (part, parts, _) = driver.split(all, 1, least).expect("enough multiprocessors");
        assert_eq!((part.count, parts), (expected, 1), "{capability:?}");
    }
}

#[test]
fn error_after_a_fault_is_permanent() {
    let mut driver = late();
    driver.config.fault = Some((1, Code::ILLEGAL_ADDRESS));
    let (stream, address) = (driver.a_stream(), driver.memory(16));
    driver.fill(stream, address, 1);
    for _ in 0..2 {
        let answer = driver.answer(1, |driver| driver.synchronize_stream(stream));
        assert_eq!(answer, Err(Code::ILLEGAL_ADDRESS));
    }
    assert_eq!(driver.answer(1, |driver| driver.allocate(16)), Err(Code::ILLEGAL_ADDRESS));
}

#[test]
fn numbered_call_fails_and_memory_can_be_exhausted() {
    let mut driver = Driver::new(Config { memory_bytes: 100, ..Config::default() });
    let failing = crate::config::FailingCall {
        function: "cuCtxSetCurrent".to_owned(),
        number: 2,
        code: Code::UNKNOWN,
    };
    driver.config.failing_calls.push(failing);
    assert_eq!(driver.call("cuCtxSetCurrent", 1, |_| Ok(())), Code::NOT_INITIALIZED);
    driver.act(1, |driver| driver.initialize(0));
    assert_eq!(driver.call("cuCtxSetCurrent", 1, |_| Ok(())), Code::UNKNOWN);
    assert_eq!(driver.call("cuCtxSetCurrent", 1, |_| Ok(())), Code::SUCCESS);
    assert_eq!(driver.answer(1, |driver| driver.allocate(1)), Err(Code::INVALID_CONTEXT));
    driver
        .act(1, |driver| driver.retain_primary(0).and_then(|context| driver.set_current(context)));
    driver.memory(60);
    assert_eq!(driver.answer(1, |driver| driver.allocate(60)), Err(Code::OUT_OF_MEMORY));
    assert_eq!(driver.act(1, Driver::memory_info), (40, 100));
}

#[test]
fn release_of_a_context_in_use_is_reported() {
    let mut driver = late();
    driver.memory(16);
    driver.act(1, |driver| driver.release_primary(0));
    driver.expect_one("1 blocks of memory");
    assert_eq!(driver.answer(1, |driver| driver.allocate(1)), Err(Code::CONTEXT_IS_DESTROYED));
}
