//! State of the driver, and the common part of every call.

use crate::access::Author;
use crate::capture::{Capture, Mode};
use crate::clock::VectorClock;
use crate::code::{Code, Outcome};
use crate::config::{Config, Schedule};
use crate::context::Contexts;
use crate::event::Event;
use crate::graph::{Exec, Node};
use crate::green::Resources;
use crate::memory::Memory;
use crate::random::Random;
use crate::report::Report;
use crate::stream::Stream;
use std::collections::{BTreeMap, BTreeSet};

/// The driver of one process.
pub(crate) struct Driver {
    pub(crate) config: Config,
    pub(crate) report: Report,
    pub(crate) random: Random,
    is_initialized: bool,
    /// Error that every further call returns.
    pub(crate) sticky: Option<Code>,
    /// Number of calls, in total and by function.
    calls: u64,
    calls_of: BTreeMap<&'static str, u64>,
    /// Function of the call in progress.
    function: &'static str,
    /// Thread of the call in progress.
    pub(crate) thread: u64,
    pub(crate) threads: BTreeMap<u64, Thread>,
    pub(crate) contexts: Contexts,
    pub(crate) resources: Resources,
    pub(crate) memory: Memory,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) events: BTreeMap<u64, Event>,
    pub(crate) captures: BTreeMap<u64, Capture>,
    pub(crate) graphs: BTreeMap<u64, (u64, Vec<Node>)>,
    pub(crate) execs: BTreeMap<u64, Exec>,
    pub(crate) destroyed: BTreeSet<u64>,
    /// Operations for which the host has waited. All threads of the host share one clock, because the
    /// driver cannot observe how they synchronize with each other.
    pub(crate) host: VectorClock,
    pub(crate) operations: u64,
    pub(crate) executed: u64,
    next_handle: u64,
    start: std::time::Instant,
}

/// State of a thread of the host.
#[derive(Default)]
pub(crate) struct Thread {
    /// Handle of the current context; 0 without one.
    pub(crate) current: u64,
    pub(crate) mode: Mode,
}

impl Driver {
    pub(crate) fn new(config: Config) -> Self {
        let seed = if let Schedule::Random(seed) = config.schedule { seed } else { 0 };
        Self {
            report: Report::to(config.report.clone()),
            random: Random::new(seed),
            is_initialized: false,
            sticky: None,
            calls: 0,
            calls_of: BTreeMap::new(),
            function: "",
            thread: 0,
            threads: BTreeMap::new(),
            contexts: Contexts::default(),
            resources: Resources::default(),
            memory: Memory::new(config.memory_bytes),
            streams: BTreeMap::new(),
            events: BTreeMap::new(),
            captures: BTreeMap::new(),
            graphs: BTreeMap::new(),
            execs: BTreeMap::new(),
            destroyed: BTreeSet::new(),
            host: VectorClock::default(),
            operations: 0,
            executed: 0,
            next_handle: 0x1000,
            #[expect(clippy::disallowed_methods, reason = "the clock of the fake device")]
            start: std::time::Instant::now(),
            config,
        }
    }

    /// Runs one call of `function` on `thread`.
    pub(crate) fn call(
        &mut self,
        function: &'static str,
        thread: u64,
        body: impl FnOnce(&mut Self) -> Outcome,
    ) -> Code {
        self.calls += 1;
        let count = self.calls_of.entry(function).or_default();
        *count += 1;
        let count = *count;
        if count == 1 {
            self.report.called(function);
        }
        (self.function, self.thread) = (function, thread);
        self.threads.entry(thread).or_default();
        if let Err(code) = self.may_run(function, count) {
            return code;
        }
        self.advance();
        body(self).err().or(self.sticky_error(function)).unwrap_or(Code::SUCCESS)
    }

    fn may_run(&mut self, function: &'static str, count: u64) -> Outcome {
        if let Some((at, code)) = self.config.lost
            && at <= self.calls
        {
            self.fail_permanently(code);
        }
        if let Some(code) = self.sticky_error(function) {
            return Err(code);
        }
        let failing = self.config.failing_calls.iter();
        let mut failing = failing.filter(|call| call.function == function && call.number == count);
        if let Some(call) = failing.next() {
            return Err(call.code);
        }
        // Manual, `cuInit`: until it is called, any function returns NOT_INITIALIZED. The version and
        // error texts do not depend on a device.
        let needs_none = matches!(
            function,
            "cuInit" | "cuDriverGetVersion" | "cuGetErrorName" | "cuGetErrorString"
        );
        if self.is_initialized || needs_none { Ok(()) } else { Err(Code::NOT_INITIALIZED) }
    }

    fn sticky_error(&self, function: &str) -> Option<Code> {
        let needs_no_device =
            matches!(function, "cuDriverGetVersion" | "cuGetErrorName" | "cuGetErrorString");
        self.sticky.filter(|_| !needs_no_device)
    }

    /// Manual, `cuInit`: the flags must be 0.
    pub(crate) fn initialize(&mut self, flags: u32) -> Outcome {
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        if self.config.devices == 0 {
            return Err(Code::NO_DEVICE);
        }
        self.is_initialized = true;
        Ok(())
    }

    /// Describes the call in progress on `stream`; 0 for a call without a stream.
    pub(crate) fn author(&self, stream: u64) -> Author {
        Author { function: self.function, call: self.calls, stream }
    }

    pub(crate) fn violation(&mut self, text: String) {
        let (function, call) = (self.function, self.calls);
        self.report.violation(format!("{function} (call {call}): {text}"));
    }

    pub(crate) fn new_handle(&mut self) -> u64 {
        self.next_handle += 0x10;
        self.next_handle
    }

    /// Marks a handle as destroyed.
    pub(crate) fn destroy(&mut self, handle: u64) {
        self.destroyed.insert(handle);
    }

    /// Returns the error for an invalid handle. Reports a violation if the handle was destroyed.
    pub(crate) fn no_such(&mut self, what: &str, handle: u64) -> Code {
        if self.destroyed.contains(&handle) {
            self.violation(format!("{what} {handle:#x} was destroyed before"));
        }
        Code::INVALID_HANDLE
    }

    /// Time of the device, ns. Manual, `cuEventElapsedTime`: a resolution of around 0.5 microseconds.
    pub(crate) fn now_ns(&self) -> u64 {
        const RESOLUTION_NS: u64 = 500;
        self.start.elapsed().as_nanos() as u64 / RESOLUTION_NS * RESOLUTION_NS
    }
}
