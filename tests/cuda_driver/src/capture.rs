//! Capture of streams into graphs.

use crate::access::Author;
use crate::code::{Code, Outcome};
use crate::driver::Driver;
use crate::graph::Node;
use crate::work::Action;
use std::collections::BTreeSet;

/// Capture mode of a stream or a thread, `CUstreamCaptureMode`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Mode {
    #[default]
    Global,
    ThreadLocal,
    Relaxed,
}

impl Mode {
    pub(crate) fn from_number(number: u32) -> Outcome<Self> {
        match number {
            0 => Ok(Self::Global),
            1 => Ok(Self::ThreadLocal),
            2 => Ok(Self::Relaxed),
            _ => Err(Code::INVALID_VALUE),
        }
    }
}

/// A capture sequence, until it is ended.
pub(crate) struct Capture {
    origin: u64,
    context: u64,
    thread: u64,
    mode: Mode,
    is_invalidated: bool,
    nodes: Vec<Node>,
}

impl Driver {
    /// Manual, `cuStreamBeginCapture`: "may only be initiated if the stream is not already in capture
    /// mode". Assumed: otherwise returns an illegal state, and the first capture continues.
    pub(crate) fn begin_capture(&mut self, stream: u64, mode: Mode) -> Outcome {
        self.current_context()?;
        let found = self.stream(stream)?;
        if found.capture.is_some() {
            return Err(Code::ILLEGAL_STATE);
        }
        let context = found.context;
        let capture = self.new_handle();
        self.stream(stream)?.capture = Some((capture, BTreeSet::new()));
        let (thread, nodes) = (self.thread, Vec::new());
        let begun = Capture { origin: stream, context, thread, mode, is_invalidated: false, nodes };
        self.captures.insert(capture, begun);
        Ok(())
    }

    /// `cuStreamEndCapture`; returns the graph.
    ///
    /// Manual, codes `CUDA_ERROR_STREAM_CAPTURE_*`, and `cuStreamEndCapture`: an invalidated capture
    /// returns a null graph. Assumed: for a stream that is not capturing it returns an illegal state,
    /// and an end on the wrong thread or stream does not change the capture.
    pub(crate) fn end_capture(&mut self, stream: u64) -> Outcome<u64> {
        self.current_context()?;
        let (id, tail) = self.stream(stream)?.capture.clone().ok_or(Code::ILLEGAL_STATE)?;
        let capture = &self.captures[&id];
        if capture.origin != stream {
            return Err(Code::STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != Mode::Relaxed && capture.thread != self.thread {
            return Err(Code::STREAM_CAPTURE_WRONG_THREAD);
        }
        let capture = self.captures.remove(&id).expect("found above");
        let mut forks = Vec::new();
        for other in self.streams.values_mut() {
            if let Some((_, nodes)) = other.capture.take_if(|(of, _)| *of == id) {
                forks.push(nodes);
            }
        }
        if capture.is_invalidated {
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        // A node is joined if the next node of the origin would depend on it, directly or indirectly.
        let mut joined = tail;
        for at in (0..capture.nodes.len()).rev() {
            if joined.contains(&at) {
                joined.extend(&capture.nodes[at].dependencies);
            }
        }
        if forks.iter().any(|nodes| !nodes.is_subset(&joined)) {
            return Err(Code::STREAM_CAPTURE_UNJOINED);
        }
        let graph = self.new_handle();
        self.graphs.insert(graph, (capture.context, capture.nodes));
        Ok(graph)
    }

    /// Refuses work in an invalidated capture.
    pub(crate) fn active(&self, capture: u64) -> Outcome {
        match self.captures.get(&capture) {
            Some(capture) if capture.is_invalidated => Err(Code::STREAM_CAPTURE_INVALIDATED),
            _ => Ok(()),
        }
    }

    pub(crate) fn invalidate(&mut self, capture: u64) {
        if let Some(capture) = self.captures.get_mut(&capture) {
            capture.is_invalidated = true;
        }
    }

    /// Captures an action as a node that depends on the last nodes of its stream.
    pub(crate) fn capture_node(&mut self, stream: u64, action: Action, author: Author) -> Outcome {
        let (id, dependencies) = self.stream(stream)?.capture.clone().expect("it is capturing");
        self.active(id)?;
        let capture = self.captures.get_mut(&id).expect("its stream is still capturing");
        let node = capture.nodes.len();
        capture.nodes.push(Node { action, author, dependencies });
        self.stream(stream)?.capture = Some((id, BTreeSet::from([node])));
        Ok(())
    }

    /// Adds a stream that waits for an event recorded in a capture to that capture.
    ///
    /// CUDA Programming Guide, "Cross-stream Dependencies and Events": the waiting stream is placed in
    /// capture mode. "Prohibited and Unhandled Operations": two captures cannot be merged.
    pub(crate) fn wait_captured(
        &mut self,
        stream: u64,
        waiting: Option<(u64, BTreeSet<usize>)>,
        (capture, nodes): (u64, BTreeSet<usize>),
    ) -> Outcome {
        if !self.captures.contains_key(&capture) {
            // The capture has ended, so the event does not refer to any nodes.
            if let Some((waiting, _)) = waiting {
                self.invalidate(waiting);
            }
            return Err(Code::CAPTURED_EVENT);
        }
        self.active(capture)?;
        let mut dependencies = nodes;
        if let Some((own, last)) = waiting {
            self.active(own)?;
            if own != capture {
                self.invalidate(own);
                self.invalidate(capture);
                return Err(Code::STREAM_CAPTURE_MERGE);
            }
            dependencies.extend(last);
        }
        self.stream(stream)?.capture = Some((capture, dependencies));
        Ok(())
    }

    /// Handles a call that is potentially unsafe during a capture, such as an allocation.
    ///
    /// Manual, `cuThreadExchangeStreamCaptureMode`. CUDA Programming Guide, "Invalidation": an invalid
    /// operation invalidates the associated captures. Assumed: all captures that prohibit it.
    pub(crate) fn unsafe_call(&mut self) -> Outcome {
        let (thread, mode) = (self.thread, self.threads[&self.thread].mode);
        let mut is_prohibited = false;
        for capture in self.captures.values_mut() {
            let is_own = capture.thread == thread;
            let prohibits = match mode {
                Mode::Relaxed => false,
                Mode::ThreadLocal => is_own && capture.mode != Mode::Relaxed,
                Mode::Global => match capture.mode {
                    Mode::Relaxed => false,
                    Mode::ThreadLocal => is_own,
                    Mode::Global => true,
                },
            };
            capture.is_invalidated |= prohibits;
            is_prohibited |= prohibits;
        }
        if is_prohibited { Err(Code::STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    }

    /// `cuThreadExchangeStreamCaptureMode`; returns the previous mode.
    pub(crate) fn exchange_mode(&mut self, mode: Mode) -> Mode {
        let thread = self.threads.get_mut(&self.thread).expect("entered at each call");
        std::mem::replace(&mut thread.mode, mode)
    }
}
