//! Streams.

use crate::access::Author;
use crate::clock::VectorClock;
use crate::code::{Code, Outcome};
use crate::driver::Driver;
use crate::memory::Place;
use crate::work::{Action, Queue, Ticket};
use std::collections::BTreeSet;

/// Greatest (numerically least) priority; the least one is 0.
const GREATEST_PRIORITY: i32 = -5;

/// Manual, `cuStreamCreate`: `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

pub(crate) struct Stream {
    /// Context that it was created in; that of a green context for its streams.
    pub(crate) context: u64,
    pub(crate) queue: Queue,
    /// What its next operation runs after.
    pub(crate) clock: VectorClock,
    /// Operations of other streams that its next one waits for.
    pub(crate) waits: Vec<Ticket>,
    /// Capture that it is part of, and the nodes that its next node depends on.
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
                "the stand-in has no null stream for a blocking stream to wait for".into(),
            );
            return Err(Code::NOT_SUPPORTED);
        }
        Ok(self.add_stream(context))
    }

    /// Manual, `cuGreenCtxStreamCreate`: `CU_STREAM_NON_BLOCKING` must be specified; the context that
    /// is current is ignored.
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

    /// The stream of a handle. The null stream is not modeled.
    pub(crate) fn stream(&mut self, handle: u64) -> Outcome<&mut Stream> {
        match self.streams.get(&handle) {
            Some(stream) if !stream.is_destroyed => {
                let context = stream.context;
                self.must_be_alive(context)?;
                Ok(self.streams.get_mut(&handle).expect("found above"))
            }
            None if handle <= 2 => {
                self.violation("the stand-in has no null stream".into());
                Err(Code::NOT_SUPPORTED)
            }
            _ => Err(self.no_such("stream", handle)),
        }
    }

    /// Manual, `cuStreamDestroy`: returns at once; the stream goes when its work is done.
    pub(crate) fn destroy_stream(&mut self, handle: u64) -> Outcome {
        let capture = self.stream(handle)?.capture.clone();
        if let Some((capture, _)) = capture {
            // Assumed: the manual says nothing of a stream that is capturing.
            self.violation(format!("stream {handle:#x} is destroyed while it is capturing"));
            self.invalidate(capture);
        }
        let stream = self.stream(handle)?;
        stream.is_destroyed = true;
        self.destroy(handle);
        Ok(())
    }

    /// Manual, `cuStreamSynchronize`: waits for all work of the stream. While it is capturing that is
    /// not permitted (`CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED`). Assumed to be a potentially unsafe
    /// call, as it is not observed by a capture.
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

    /// Enqueues an action, or captures it.
    pub(crate) fn submit(&mut self, handle: u64, action: Action) -> Outcome {
        let author = self.author(handle);
        if self.stream(handle)?.capture.is_some() {
            return self.capture_node(handle, action, author);
        }
        self.enqueue_next(handle, action, author);
        Ok(())
    }

    /// Enqueues an action behind what the stream was given so far.
    pub(crate) fn enqueue_next(&mut self, handle: u64, action: Action, author: Author) -> Ticket {
        let stream = self.streams.get_mut(&handle).expect("a stream that was found");
        let mut clock = std::mem::take(&mut stream.clock);
        let waits = std::mem::take(&mut stream.waits);
        // The host enqueues after what it has waited for.
        clock.join(&self.host);
        let ticket = self.enqueue((handle, handle), action, author, waits, &mut clock);
        self.streams.get_mut(&handle).expect("as above").clock = clock;
        ticket
    }

    /// An asynchronous copy.
    ///
    /// Manual, `cuMemcpyHtoDAsync` and the like: an address that is not valid is an invalid value.
    /// "API synchronization behavior": a copy from or to pageable memory *might* be synchronous, so
    /// nothing may rely on it: it runs as late as another. Assumed: it cannot be captured.
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

/// One side of a copy, as the function that was called declares it.
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
