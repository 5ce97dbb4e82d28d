//! An expert's stream, with events that time its stages.
//!
//! Stages on a device are timed by events on the stream, which are read once they are complete;
//! host times would only measure when the work was enqueued.

use crate::device::{Device, DeviceError, Event, Graph, Stream};
use crate::model::ModelError;
use crate::timing::{Span, Stage, StageSpans};
use std::sync::Arc;

/// A stream and `MARKS` events for marking positions in it.
pub(super) struct TimedStream<const MARKS: usize> {
    stream: Arc<dyn Stream>,
    marks: [Arc<dyn Event>; MARKS],
}

impl<const MARKS: usize> TimedStream<MARKS> {
    pub(super) fn new(device: &dyn Device, stream: &Arc<dyn Stream>) -> Result<Self, DeviceError> {
        let marks = (0..MARKS).map(|_| device.event()).collect::<Result<Vec<_>, _>>()?;
        let marks = marks
            .try_into()
            .unwrap_or_else(|_| unreachable!("exactly `MARKS` events were created"));
        Ok(Self { stream: Arc::clone(stream), marks })
    }

    pub(super) fn stream(&self) -> &dyn Stream {
        &*self.stream
    }

    /// Captures the work that `work` enqueues into a graph, after running it `runs_before` times.
    pub(super) fn capture(
        &self,
        runs_before: usize,
        mut work: impl FnMut(&Self) -> Result<(), ModelError>,
    ) -> Result<Arc<dyn Graph>, ModelError> {
        for _ in 0..runs_before {
            work(self)?;
            self.stream.synchronize()?;
        }
        self.stream.begin_capture()?;
        let result = work(self);
        // Also ended after an error, because a capturing stream executes nothing.
        let graph = self.stream.end_capture();
        result?;
        Ok(graph?)
    }

    /// Records a mark at the current position.
    pub(super) fn mark(&self, index: usize) -> Result<(), DeviceError> {
        self.stream.record(&self.marks[index])
    }

    /// Blocks the host until the stream has reached a mark.
    pub(super) fn wait_for(&self, index: usize) -> Result<(), ModelError> {
        let Err(error) = self.marks[index].synchronize() else { return Ok(()) };
        // Clears the failure of the stream, which is that of the mark; otherwise it skips further
        // work.
        let _ = self.stream.synchronize();
        Err(error.into())
    }

    /// Adds the time between two consecutive marks, both reached, as a span of `stage`.
    pub(super) fn record_span(&self, stage: Stage, from: usize, spans: &mut StageSpans) {
        let at = |index: usize| self.marks[index].completed_ns();
        if let (Some(start_ns), Some(end_ns)) = (at(from), at(from + 1)) {
            spans.push(Span { stage, start_ns, took_ns: end_ns.saturating_sub(start_ns) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Emulation, HostDevice};
    use std::sync::Mutex;

    #[test]
    fn capture_follows_completed_plain_runs() {
        let done = Arc::new(Mutex::new(0));
        let before = {
            let done = Arc::clone(&done);
            Arc::new(move |_: &crate::device::Operation| {
                *done.lock().unwrap() += 1;
                Ok(())
            })
        };
        let device = HostDevice::emulating(Emulation { before, memory_bytes: None });
        let timed_stream: TimedStream<2> =
            TimedStream::new(&device, &device.streams(None).unwrap().fast).unwrap();
        let staged = device.stage(8).unwrap();
        let mut counts = Vec::new();
        let graph = timed_stream.capture(2, |timed_stream| {
            counts.push(*done.lock().unwrap());
            Ok(timed_stream.stream().upload(&staged)?)
        });
        let graph = graph.unwrap();
        assert_eq!(counts, [0, 1, 2], "each run starts after the previous one is complete");
        assert_eq!((graph.nodes(), *done.lock().unwrap()), (1, 2), "the last run is captured");
    }
}
