//! Decides when a prefill is due.

/// Triggers prefills: the first one as soon as possible, later ones at multiples of the period as
/// in the AutoMoT release, and a delayed one as soon as possible.
pub(super) struct PrefillTrigger {
    period_ticks: u64,
    /// First tick at which the next prefill is due.
    next: u64,
    is_first: bool,
}

impl PrefillTrigger {
    /// Creates a trigger whose first prefill is due at tick `first`, counted from 0.
    pub(super) fn new(period_ticks: u64, first: u64) -> Self {
        Self { period_ticks, next: first, is_first: true }
    }

    pub(super) fn is_due(&self, tick: u64) -> bool {
        tick >= self.next
    }

    /// Records that a prefill was started at `tick`.
    pub(super) fn started(&mut self, tick: u64) {
        let is_first = std::mem::replace(&mut self.is_first, false);
        let offset = if is_first { tick % self.period_ticks } else { 0 };
        self.next = tick - offset + self.period_ticks;
    }
}
