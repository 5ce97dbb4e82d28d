//! Gives ticks priority on a device that both experts share.
//!
//! Work on a device cannot be preempted. If the experts share all multiprocessors, the slow expert
//! therefore waits before each launch (a frame of the vision tower, a layer group) while an action
//! step is running or due within the guard time.

use crate::model::LaunchGate;
use crate::sync::{lock, unpoisoned};
use crate::timing::now_ns;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Maximum time that the slow expert waits for an overdue tick, because the loop may have ended.
const MAX_WAIT: Duration = Duration::from_millis(50);

/// State of the ticks that gates launches of the slow expert.
pub(super) struct TickGuard {
    /// Time before a due tick in which nothing is launched; `None` disables the guard.
    guard: Option<Duration>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_acting: bool,
    /// Due time of the next tick; `None` outside real time.
    due_ns: Option<u64>,
}

impl TickGuard {
    pub(super) fn new(guard: Option<Duration>) -> Self {
        Self { guard, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Marks the start of an action step.
    pub(super) fn begin(&self) {
        if self.guard.is_some() {
            self.state().is_acting = true;
        }
    }

    /// Marks the end of an action step; the next tick is due at `due_ns`, if known.
    pub(super) fn end(&self, due_ns: Option<u64>) {
        if self.guard.is_some() {
            *self.state() = State { is_acting: false, due_ns };
            self.changed.notify_all();
        }
    }
}

impl State {
    /// Returns the maximum time to wait before the next check, or `None`
    /// if a launch is allowed now.
    fn wait_time(&self, guard: Duration, now_ns: u64) -> Option<Duration> {
        let until_due = |due_ns: u64| Duration::from_nanos(due_ns.saturating_sub(now_ns));
        let late = |due_ns: u64| Duration::from_nanos(now_ns.saturating_sub(due_ns));
        match self.due_ns {
            _ if self.is_acting => Some(MAX_WAIT),
            Some(due_ns) if late(due_ns) >= MAX_WAIT => None,
            Some(due_ns) if until_due(due_ns) <= guard => {
                Some(until_due(due_ns) + MAX_WAIT - late(due_ns))
            }
            _ => None,
        }
    }
}

impl LaunchGate for TickGuard {
    fn wait(&self) {
        let Some(guard) = self.guard else { return };
        let mut state = self.state();
        while let Some(at_most) = state.wait_time(guard, now_ns()) {
            state = unpoisoned(self.changed.wait_timeout(state, at_most)).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn wait_ms(is_acting: bool, due_ms: Option<u64>, now_ms: u64) -> Option<u64> {
        let state = State { is_acting, due_ns: due_ms.map(|ms| ms * MS) };
        let at_most = state.wait_time(Duration::from_millis(3), now_ms * MS)?;
        Some(at_most.as_millis() as u64)
    }

    #[test]
    fn launch_waits_for_acting_or_due_tick() {
        assert_eq!(wait_ms(true, None, 0), Some(50));
        assert_eq!(wait_ms(false, None, 0), None);
        assert_eq!(wait_ms(false, Some(100), 96), None, "before the guard time");
        assert_eq!(wait_ms(false, Some(100), 97), Some(53));
        assert_eq!(wait_ms(false, Some(100), 110), Some(40), "the tick is late");
        assert_eq!(wait_ms(false, Some(100), 150), None, "overdue for too long");
    }

    #[test]
    fn waiting_launch_proceeds_after_action_step() {
        let gate = TickGuard::new(Some(Duration::from_millis(3)));
        gate.begin();
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| gate.wait());
            gate.end(None);
            slow.join().unwrap();
        });
    }

    #[test]
    fn disabled_guard_never_waits() {
        let gate = TickGuard::new(None);
        gate.begin();
        gate.wait();
    }
}
