//! Events of the host device.

use crate::device::{Counter, DeviceCounters, DeviceError, Event};
use crate::sync::{lock, unpoisoned};
use crate::timing::now_ns;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// A position in a host stream.
pub(super) struct HostEvent {
    pub(super) device: u64,
    state: Mutex<State>,
    changed: Condvar,
    counters: Arc<DeviceCounters>,
}

#[derive(Default)]
struct State {
    /// Number of times the event was enqueued.
    recorded: u64,
    /// Number of times a stream reached it.
    reached: u64,
    /// Time at which it was last reached.
    at_ns: u64,
    /// Failure of earlier work of the stream.
    failure: Option<DeviceError>,
}

impl HostEvent {
    pub(super) fn new(device: u64, counters: Arc<DeviceCounters>) -> Self {
        Self { device, state: Mutex::default(), changed: Condvar::new(), counters }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Counts one more recording.
    pub(super) fn enqueue(&self) {
        self.state().recorded += 1;
    }

    /// Returns the number of recordings, the argument of [`wait_for`](Self::wait_for).
    pub(super) fn recorded(&self) -> u64 {
        self.state().recorded
    }

    /// Marks the event as reached; `failure` is that of earlier work of the stream.
    pub(super) fn reach(&self, failure: Option<DeviceError>) {
        let mut state = self.state();
        state.reached += 1;
        state.at_ns = now_ns();
        state.failure = failure;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the event was reached `times` times.
    pub(super) fn wait_for(&self, times: u64) {
        let state = self.state();
        let _reached = unpoisoned(self.changed.wait_while(state, |state| state.reached < times));
    }
}

impl Event for HostEvent {
    fn is_complete(&self) -> Result<bool, DeviceError> {
        let state = self.state();
        Ok(state.recorded > 0 && state.reached == state.recorded)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.counters.count(Counter::HostWaits);
        let times = self.recorded();
        if times == 0 {
            return Err(DeviceError::Misuse("waited for an event that was never recorded"));
        }
        self.wait_for(times);
        self.state().failure.clone().map_or(Ok(()), Err)
    }

    fn completed_ns(&self) -> Option<u64> {
        let state = self.state();
        (state.recorded > 0 && state.reached == state.recorded).then_some(state.at_ns)
    }
}
