//! Events: records, waits, queries and elapsed times.

use crate::access::Author;
use crate::clock::VectorClock;
use crate::code::{Code, Outcome};
use crate::driver::Driver;
use crate::work::{Action, Ticket};
use std::collections::BTreeSet;

/// Manual, `cuEventRecordWithFlags`, `cuStreamWaitEvent`: the flag for external event nodes.
const EXTERNAL: u32 = 1;

/// Flags of events. Manual, `cuEventCreate`.
const BLOCKING_SYNC: u32 = 1;
const DISABLE_TIMING: u32 = 2;

/// Number of consecutive queries of a pending event after which the device executes work, so that a
/// loop of queries terminates.
const QUERIES: u32 = 4;

pub(crate) struct Event {
    pub(crate) context: u64,
    has_timing: bool,
    /// The last record; `None` before the first.
    last: Option<Recorded>,
    /// If the last record was captured: the capture, and the nodes that precede the record.
    captured: Option<(u64, BTreeSet<usize>)>,
    queries: u32,
}

/// A record of an event on a stream or in a graph.
#[derive(Clone)]
pub(crate) struct Recorded {
    /// Number of the recording operation among all operations of the process.
    pub(crate) operation: u64,
    pub(crate) ticket: Ticket,
    pub(crate) clock: VectorClock,
    pub(crate) time_ns: Option<u64>,
}

impl Driver {
    /// Manual, `cuEventCreate`: for the current context.
    pub(crate) fn create_event(&mut self, flags: u32) -> Outcome<u64> {
        let context = self.current_context()?;
        if flags & !(BLOCKING_SYNC | DISABLE_TIMING) != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let has_timing = flags & DISABLE_TIMING == 0;
        let handle = self.new_handle();
        let event = Event { context, has_timing, last: None, captured: None, queries: 0 };
        self.events.insert(handle, event);
        Ok(handle)
    }

    fn event(&mut self, handle: u64) -> Outcome<&mut Event> {
        if !self.events.contains_key(&handle) {
            return Err(self.no_such("event", handle));
        }
        Ok(self.events.get_mut(&handle).expect("checked above"))
    }

    /// Manual, `cuEventDestroy`: a pending event may be destroyed.
    pub(crate) fn destroy_event(&mut self, handle: u64) -> Outcome {
        self.event(handle)?;
        self.events.remove(&handle);
        self.destroy(handle);
        Ok(())
    }

    /// `cuEventRecord`, `cuEventRecordWithFlags`.
    pub(crate) fn record_event(&mut self, handle: u64, stream: u64, flags: u32) -> Outcome {
        self.current_context()?;
        if flags & !EXTERNAL != 0 {
            return Err(Code::INVALID_VALUE);
        }
        // Manual, `cuEventRecord`: "hEvent and hStream must be from the same context otherwise
        // CUDA_ERROR_INVALID_HANDLE is returned". `cuStreamGetCtx`: the context of a green stream is
        // that of `cuCtxFromGreenCtx`. Assumed: it differs from the primary context.
        let (of_stream, of_event) = (self.stream(stream)?.context, self.event(handle)?.context);
        if of_stream != of_event {
            return Err(Code::INVALID_HANDLE);
        }
        let capture = self.stream(stream)?.capture.clone();
        match (capture, flags & EXTERNAL != 0) {
            // Manual, `CU_EVENT_RECORD_EXTERNAL`: invalid outside of stream capture.
            (None, true) => Err(Code::INVALID_VALUE),
            (Some(_), true) => self.submit(stream, Action::RecordNode { event: handle }),
            (Some((capture, nodes)), false) => {
                self.active(capture)?;
                self.event(handle)?.captured = Some((capture, nodes));
                Ok(())
            }
            (None, false) => {
                let author = self.author(stream);
                let ticket = self.enqueue_next(stream, Action::Record { event: handle }, author);
                let (operation, clock) = (self.operations, self.stream(stream)?.clock.clone());
                let event = self.event(handle)?;
                event.last = Some(Recorded { operation, ticket, clock, time_ns: None });
                event.captured = None;
                event.queries = 0;
                Ok(())
            }
        }
    }

    /// Called when the device reaches a record.
    pub(crate) fn reach(&mut self, event: u64, operation: u64) {
        let now_ns = self.now_ns();
        let last = self.events.get_mut(&event).and_then(|event| event.last.as_mut());
        if let Some(last) = last.filter(|last| last.operation == operation) {
            last.time_ns = Some(now_ns);
        }
    }

    /// Called when a node of a graph records an event.
    ///
    /// Manual, `cuGraphAddEventRecordNode`: "Each launch of the graph will record `event` to capture
    /// execution of the node's dependencies." The manual does not specify that the event is pending as
    /// soon as the launch returns. Assumed: it keeps its previous state until the node runs.
    pub(crate) fn record_from_graph(&mut self, handle: u64, recorded: Recorded, author: Author) {
        match self.events.get_mut(&handle) {
            Some(event) => {
                // A record that was enqueued later takes precedence.
                let earlier = event.last.as_ref().map_or(0, |last| last.operation);
                if earlier < recorded.operation {
                    event.last = Some(recorded);
                    event.captured = None;
                }
            }
            None => self.report.violation(format!(
                "used after free: a node captured by {author} records event {handle:#x}, which was \
                 destroyed"
            )),
        }
    }

    /// `cuStreamWaitEvent`. The event may be of another context.
    pub(crate) fn wait_event(&mut self, stream: u64, handle: u64, flags: u32) -> Outcome {
        self.current_context()?;
        if flags != 0 {
            self.violation("the fake driver has no external wait nodes".into());
            return Err(Code::NOT_SUPPORTED);
        }
        let waiting = self.stream(stream)?.capture.clone();
        let event = self.event(handle)?;
        match (waiting, event.captured.clone()) {
            (waiting, Some(captured)) => self.wait_captured(stream, waiting, captured),
            // Manual, `CUDA_ERROR_STREAM_CAPTURE_ISOLATION`: only in-stream order may cross the
            // boundary of a capture.
            (Some((capture, _)), None) => {
                self.active(capture)?;
                self.invalidate(capture);
                Err(Code::STREAM_CAPTURE_ISOLATION)
            }
            (None, None) => {
                // Manual, `cuEventRecord`: an event that was never recorded represents no work.
                if let Some(last) = event.last.clone() {
                    let waiting = self.stream(stream)?;
                    waiting.clock.join(&last.clock);
                    waiting.waits.push(last.ticket);
                }
                Ok(())
            }
        }
    }

    /// Returns the last record, for a wait or a query of the host. Manual,
    /// `cuThreadExchangeStreamCaptureMode`: an event last recorded inside a capture conflicts with it.
    fn last_record(&mut self, handle: u64) -> Outcome<Option<Recorded>> {
        self.current_context()?;
        let event = self.event(handle)?;
        if let Some((capture, _)) = event.captured.clone() {
            self.invalidate(capture);
            return Err(Code::CAPTURED_EVENT);
        }
        let last = event.last.clone();
        // Assumed: queries and waits are potentially unsafe calls, because a capture does not observe
        // them.
        self.unsafe_call()?;
        Ok(last)
    }

    pub(crate) fn query_event(&mut self, handle: u64) -> Outcome {
        let Some(last) = self.last_record(handle)? else { return Ok(()) };
        if !self.is_done(last.ticket) {
            let event = self.event(handle)?;
            event.queries += 1;
            if event.queries.is_multiple_of(QUERIES) {
                self.run_towards(last.ticket);
            }
        }
        if !self.is_done(last.ticket) {
            return Err(Code::NOT_READY);
        }
        self.host.join(&last.clock);
        Ok(())
    }

    pub(crate) fn synchronize_event(&mut self, handle: u64) -> Outcome {
        if let Some(last) = self.last_record(handle)? {
            self.run_until(last.ticket);
            self.host.join(&last.clock);
        }
        Ok(())
    }

    /// `cuEventElapsedTime`, in milliseconds. The manual does not specify events of two contexts.
    /// Assumed: returns an invalid handle, like `cuEventRecord`.
    pub(crate) fn elapsed_ms(&mut self, from: u64, to: u64) -> Outcome<f32> {
        if self.event(from)?.context != self.event(to)?.context {
            return Err(Code::INVALID_HANDLE);
        }
        let mut times = [0; 2];
        for (time, handle) in times.iter_mut().zip([from, to]) {
            let event = self.event(handle)?;
            if event.captured.is_some() {
                return Err(Code::CAPTURED_EVENT);
            }
            let last = event.last.as_ref().filter(|_| event.has_timing);
            let last = last.ok_or(Code::INVALID_HANDLE)?;
            *time = last.time_ns.ok_or(Code::NOT_READY)?;
        }
        Ok(((times[1] as f64 - times[0] as f64) / 1e6) as f32)
    }
}
