//! When refreshes are due.

/// Refreshes on a beat: the first one comes when it can, the others at multiples of the period, as in
/// the release; one that is held up comes as soon as it can.
pub(super) struct RefreshBeat {
    period_ticks: u64,
    /// The first tick at which the next refresh is due.
    next: u64,
    is_first: bool,
}

impl RefreshBeat {
    /// A beat whose first refresh is due at tick `first`, counted from 0.
    pub(super) fn new(period_ticks: u64, first: u64) -> Self {
        Self { period_ticks, next: first, is_first: true }
    }

    pub(super) fn is_due(&self, tick: u64) -> bool {
        tick >= self.next
    }

    /// A refresh began at `tick`.
    pub(super) fn begun(&mut self, tick: u64) {
        let is_first = std::mem::replace(&mut self.is_first, false);
        let off_beat = if is_first { tick % self.period_ticks } else { 0 };
        self.next = tick - off_beat + self.period_ticks;
    }
}
