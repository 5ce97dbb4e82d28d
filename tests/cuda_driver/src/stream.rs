//! Streams: creation, synchronization and enqueueing.

use crate::access::Author;
use crate::clock::VectorClock;
use crate::code::{Code, Outcome};
use crate::driver::Driver;
use crate::memory::Place;
use crate::work::{Action, Queue, Ticket};
use std::collections::BTreeSet;

/// Greatest priority, which is the numerically smallest. The least priority is 0.
const GREATEST_PRIORITY: i32 = -5;

/// Manual, `cuStreamCreate`: `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

pub(crate) struct Stream {
    /// Context in which it was created; for streams of a green context the converted context.
    pub(crate) context: u64,
    pub(crate) queue: Queue,
    /// Operations that are ordered before the next one.
    pub(crate) clock: VectorClock,
    /// Operations of other streams for which the next one waits.
    pub(crate) waits: Vec<Ticket>,
    /// Capture to which the stream belongs, and the nodes on which its next node depends.
    pub(crate) capture: Option<(u64, BTreeSet<usize>)>,
    pub(crate) is_destroyed: bool,
}

impl Driver {
    /// Manual, `cuCtxGetStreamPriorityRange`: least and greatest; lower numbers are greater.
    pub(crate) fn priority_range(&mut self) -> Outcome<(i32, i32)> {
        self.current_context()?;
        Ok((0, GREATEST_PRIORITY))
    }

    /// `cuStreamCreate`, `cuStreamCreateWithPriority`; a priority out of range is clamped.
    pub(crate) fn create_stream(&mut self, flags: u32) -> Outcome<u64> {
        let context = self.current_context()?;
        if flags > NON_BLOCKING {
            return Err(Code::INVALID_VALUE);
        }
        if flags != NON_BLOCKING {
            self.violation(
                "the fake driver has no null stream, so it has no blocking streams".into(),
            );
            return Err(Code::NOT_SUPPORTED);
        }
        Ok(self.add_stream(context))
    }

    /// Manual, `cuGreenCtxStreamCreate`: `CU_STREAM_NON_BLOCKING` must be specified. The current context
    /// is ignored.
    pub(crate) fn create_green_stream(&mut self, green: u64, flags: u32) -> Outcome<u64> {
        let context = self.green_context(green)?;
        if flags != NON_BLOCKING {
            return Err(Code::INVALID_VALUE);
        }
        Ok(self.add_stream(context))
    }

    fn add_stream(&mut self, context: u64) -> u64 {
        let handle = self.new_handle();
        let stream = Stream {
            context,
            queue: Queue::default(),
            clock: VectorClock::default(),
            waits: Vec::new(),
            capture: None,
            is_destroyed: false,
        };
        self.streams.insert(handle, stream);
        handle
    }

    /// Finds the stream of a handle. The null stream is not implemented.
    pub(crate) fn stream(&mut self, handle: u64) -> Outcome<&mut Stream> {
        match self.streams.get(&handle) {
            Some(stream) if !stream.is_destroyed => {
                let context = stream.context;
                self.must_be_alive(context)?;
                Ok(self.streams.get_mut(&handle).expect("found above"))
            }
            None if handle <= 2 => {
                self.violation("the fake driver has no null stream".into());
                Err(Code::NOT_SUPPORTED)
            }
            _ => Err(self.no_such("stream", handle)),
        }
    }

    /// Manual, `cuStreamDestroy`: returns immediately; the stream is released when its work completes.
    pub(crate) fn destroy_stream(&mut self, handle: u64) -> Outcome {
        let capture = self.stream(handle)?.capture.clone();
        if let Some((capture, _)) = capture {
            // Assumed: a capturing stream must not be destroyed.
            self.violation(format!("stream {handle:#x} is destroyed while it is capturing"));
            self.invalidate(capture);
        }
        let stream = self.stream(handle)?;
        stream.is_destroyed = true;
        self.destroy(handle);
        Ok(())
    }

    /// Manual, `cuStreamSynchronize`: waits for all work of the stream. Not permitted while the stream
    /// is capturing (`CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED`). Assumed: a potentially unsafe call,
    /// because a capture does not observe it.
    pub(crate) fn synchronize_stream(&mut self, handle: u64) -> Outcome {
        self.current_context()?;
        if let Some((capture, _)) = self.stream(handle)?.capture.clone() {
            self.invalidate(capture);
            return Err(Code::STREAM_CAPTURE_UNSUPPORTED);
        }
        self.unsafe_call()?;
        let number = self.stream(handle)?.queue.enqueued();
        self.run_until(Ticket { stream: handle, number });
        let clock = self.stream(handle)?.clock.clone();
        self.host.join(&clock);
        Ok(())
    }

    /// Enqueues an action, or captures it if the stream is capturing.
    pub(crate) fn submit(&mut self, handle: u64, action: Action) -> Outcome {
        let author = self.author(handle);
        if self.stream(handle)?.capture.is_some() {
            return self.capture_node(handle, action, author);
        }
        self.enqueue_next(handle, action, author);
        Ok(())
    }

    /// Enqueues an action after all previous work of the stream.
    pub(crate) fn enqueue_next(&mut self, handle: u64, action: Action, author: Author) -> Ticket {
        let stream = self.streams.get_mut(&handle).expect("a stream that was found");
        let mut clock = std::mem::take(&mut stream.clock);
        let waits = std::mem::take(&mut stream.waits);
        // Work is ordered after the operations for which the host has waited.
        clock.join(&self.host);
        let ticket = self.enqueue((handle, handle), action, author, waits, &mut clock);
        self.streams.get_mut(&handle).expect("as above").clock = clock;
        ticket
    }

    /// An asynchronous copy.
    ///
    /// Manual, `cuMemcpyHtoDAsync` and others: an invalid address returns an invalid value. "API
    /// synchronization behavior": a copy from or to pageable memory *might* be synchronous, so callers
    /// must not rely on it, and it runs as late as other copies. Assumed: it cannot be captured.
    pub(crate) fn copy(&mut self, handle: u64, from: Side, into: Side, bytes: u64) -> Outcome {
        self.current_context()?;
        let mut is_pageable = false;
        for side in [from, into] {
            let place = self.memory.place(side.address(), bytes);
            is_pageable |= place == Place::Pageable;
            let is_valid = match side {
                Side::Device(_) => place == Place::Device,
                Side::Host(_) => matches!(place, Place::Pinned | Place::Pageable),
            };
            if place == Place::Freed {
                let address = side.address();
                self.violation(format!("used after free: {bytes} bytes at {address:#x}"));
            }
            if !is_valid {
                return Err(Code::INVALID_VALUE);
            }
        }
        if is_pageable && let Some((capture, _)) = self.stream(handle)?.capture.clone() {
            self.invalidate(capture);
            return Err(Code::STREAM_CAPTURE_UNSUPPORTED);
        }
        self.submit(handle, Action::Copy { from: from.address(), into: into.address(), bytes })
    }

    /// `cuMemsetD8Async`.
    pub(crate) fn set(&mut self, handle: u64, into: u64, value: u8, bytes: u64) -> Outcome {
        self.current_context()?;
        match self.memory.place(into, bytes) {
            Place::Device => self.submit(handle, Action::Set { into, value, bytes }),
            _ => Err(Code::INVALID_VALUE),
        }
    }
}

/// One side of a copy, with the kind of memory that the called function declares.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Device(u64),
    Host(u64),
}

impl Side {
    fn address(self) -> u64 {
        match self {
            Self::Device(address) | Self::Host(address) => address,
        }
    }
}
