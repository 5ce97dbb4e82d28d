//! Events of the host device.

use crate::device::{Counter, DeviceError, Event, Traffic};
use crate::sync::{lock, unpoisoned};
use crate::timing::now_ns;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// A place in a host stream.
pub(super) struct HostEvent {
    pub(super) device: u64,
    state: Mutex<State>,
    changed: Condvar,
    traffic: Arc<Traffic>,
}

#[derive(Default)]
struct State {
    /// How often it was handed over to a stream.
    recorded: u64,
    /// How often a stream has reached it.
    reached: u64,
    /// When it did last.
    at_ns: u64,
    /// What the work before it failed with.
    failure: Option<DeviceError>,
}

impl HostEvent {
    pub(super) fn new(device: u64, traffic: Arc<Traffic>) -> Self {
        Self { device, state: Mutex::default(), changed: Condvar::new(), traffic }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// It was handed over once more.
    pub(super) fn hand_over(&self) {
        self.state().recorded += 1;
    }

    /// How often it was handed over so far: what [`wait_for`](Self::wait_for) waits for.
    pub(super) fn recorded(&self) -> u64 {
        self.state().recorded
    }

    /// A stream has reached it; `failure` is what the work before it failed with.
    pub(super) fn reach(&self, failure: Option<DeviceError>) {
        let mut state = self.state();
        state.reached += 1;
        state.at_ns = now_ns();
        state.failure = failure;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until it was reached so often.
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
        self.traffic.count(Counter::HostWaits);
        let times = self.recorded();
        if times == 0 {
            return Err(DeviceError::Misuse("waited for an event that no stream was given"));
        }
        self.wait_for(times);
        self.state().failure.clone().map_or(Ok(()), Err)
    }

    fn completed_ns(&self) -> Option<u64> {
        let state = self.state();
        (state.recorded > 0 && state.reached == state.recorded).then_some(state.at_ns)
    }
}
