//! An expert's stream, with the marks that its stages are timed by.
//!
//! A stage of a device is timed by events on its stream, read once the work behind them is done: what
//! the host sees of it is when it was handed over.

use crate::device::{Device, DeviceError, Event, Graph, Stream};
use crate::model::ModelError;
use crate::timing::{Span, Stage, StageSpans};
use std::sync::Arc;

/// A stream and `MARKS` places in it.
pub(super) struct Lane<const MARKS: usize> {
    stream: Arc<dyn Stream>,
    marks: [Arc<dyn Event>; MARKS],
}

impl<const MARKS: usize> Lane<MARKS> {
    pub(super) fn new(device: &dyn Device, stream: &Arc<dyn Stream>) -> Result<Self, DeviceError> {
        let marks = (0..MARKS).map(|_| device.event()).collect::<Result<Vec<_>, _>>()?;
        let marks = marks.try_into().unwrap_or_else(|_| unreachable!("as many as were made"));
        Ok(Self { stream: Arc::clone(stream), marks })
    }

    pub(super) fn stream(&self) -> &dyn Stream {
        &*self.stream
    }

    /// What `work` hands over, as a graph, after so many times that it was done plainly.
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
        // Ended in any case: a stream that captures does nothing else.
        let graph = self.stream.end_capture();
        result?;
        Ok(graph?)
    }

    /// Marks this place.
    pub(super) fn mark(&self, index: usize) -> Result<(), DeviceError> {
        self.stream.record(&self.marks[index])
    }

    /// Waits on the host until the stream has reached a mark.
    pub(super) fn reach(&self, index: usize) -> Result<(), ModelError> {
        let Err(error) = self.marks[index].synchronize() else { return Ok(()) };
        // The stream leaves work out until its failure was taken; the same as the mark's.
        let _ = self.stream.synchronize();
        Err(error.into())
    }

    /// Notes `stage` as what lies between a mark and the next, both reached.
    pub(super) fn note(&self, stage: Stage, from: usize, spans: &mut StageSpans) {
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
    fn capture_comes_behind_plain_runs_that_are_over() {
        let done = Arc::new(Mutex::new(0));
        let before = {
            let done = Arc::clone(&done);
            Arc::new(move |_: &crate::device::Operation| {
                *done.lock().unwrap() += 1;
                Ok(())
            })
        };
        let device = HostDevice::emulating(Emulation { before, memory_bytes: None });
        let lane: Lane<2> = Lane::new(&device, &device.streams(None).unwrap().fast).unwrap();
        let staged = device.stage(8).unwrap();
        let mut seen = Vec::new();
        let graph = lane.capture(2, |lane| {
            seen.push(*done.lock().unwrap());
            Ok(lane.stream().upload(&staged)?)
        });
        let graph = graph.unwrap();
        assert_eq!(seen, [0, 1, 2], "each run began when the one before was over");
        assert_eq!((graph.nodes(), *done.lock().unwrap()), (1, 2), "the last one was captured");
    }
}
