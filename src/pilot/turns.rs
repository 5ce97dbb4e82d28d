//! Whose turn it is on a device that both experts share.
//!
//! Work on a device cannot be interrupted. Where the experts have no multiprocessors of their own, the
//! slow one therefore asks before each piece (a frame of the vision tower, a layer group): while a
//! tick acts, or is due within the guard, it waits until the tick has acted.

use crate::model::Turns;
use crate::timing::now_ns;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// How long the slow expert waits at most for a tick that was due and did not come: the loop may have
/// ended.
const PATIENCE: Duration = Duration::from_millis(50);

/// The ticks, as the slow expert sees them.
pub(super) struct TickGuard {
    /// Time before a tick is due in which no piece begins; `None`: pieces begin at any time.
    guard: Option<Duration>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_acting: bool,
    /// When the next tick is due; `None` where no real time is kept.
    due_ns: Option<u64>,
}

impl TickGuard {
    pub(super) fn new(guard: Option<Duration>) -> Self {
        Self { guard, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// The tick's part on the device begins.
    pub(super) fn begin(&self) {
        if self.guard.is_some() {
            self.state().is_acting = true;
        }
    }

    /// It is over; the next one is due at `due_ns`, if that is known.
    pub(super) fn end(&self, due_ns: Option<u64>) {
        if self.guard.is_some() {
            *self.state() = State { is_acting: false, due_ns };
            self.changed.notify_all();
        }
    }
}

impl State {
    /// How long to wait at most; `None` if a piece may begin now.
    fn blocks(&self, guard: Duration, now_ns: u64) -> Option<Duration> {
        let until_due = |due_ns: u64| Duration::from_nanos(due_ns.saturating_sub(now_ns));
        let late = |due_ns: u64| Duration::from_nanos(now_ns.saturating_sub(due_ns));
        match self.due_ns {
            _ if self.is_acting => Some(PATIENCE),
            Some(due_ns) if late(due_ns) >= PATIENCE => None,
            Some(due_ns) if until_due(due_ns) <= guard => {
                Some(until_due(due_ns) + PATIENCE - late(due_ns))
            }
            _ => None,
        }
    }
}

impl Turns for TickGuard {
    fn wait(&self) {
        let Some(guard) = self.guard else { return };
        let mut state = self.state();
        while let Some(at_most) = state.blocks(guard, now_ns()) {
            let waited = self.changed.wait_timeout(state, at_most);
            state = waited.expect("no code panics while it holds this lock").0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn blocks(is_acting: bool, due_ms: Option<u64>, now_ms: u64) -> Option<u64> {
        let state = State { is_acting, due_ns: due_ms.map(|ms| ms * MS) };
        let at_most = state.blocks(Duration::from_millis(3), now_ms * MS)?;
        Some(at_most.as_millis() as u64)
    }

    #[test]
    fn a_piece_waits_for_a_tick_that_acts_or_is_due() {
        assert_eq!(blocks(true, None, 0), Some(50));
        assert_eq!(blocks(false, None, 0), None);
        assert_eq!(blocks(false, Some(100), 96), None, "there is time before the guard");
        assert_eq!(blocks(false, Some(100), 97), Some(53));
        assert_eq!(blocks(false, Some(100), 110), Some(40), "the tick is late");
        assert_eq!(blocks(false, Some(100), 150), None, "no tick comes any more");
    }

    #[test]
    fn a_waiting_piece_begins_when_the_tick_has_acted() {
        let turns = TickGuard::new(Some(Duration::from_millis(3)));
        turns.begin();
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| turns.wait());
            turns.end(None);
            slow.join().unwrap();
        });
    }

    #[test]
    fn without_a_guard_nobody_waits() {
        let turns = TickGuard::new(None);
        turns.begin();
        turns.wait();
    }
}
