//! Vector clocks, which determine the order of operations.

use std::collections::BTreeMap;

/// For each timeline (a stream, or a branch of a launched graph), the number of the last operation
/// that is ordered before this clock.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct VectorClock(BTreeMap<u64, u64>);

impl VectorClock {
    /// Adds the operations that are ordered before `other`.
    pub(crate) fn join(&mut self, other: &Self) {
        for (&timeline, &number) in &other.0 {
            self.advance(timeline, number);
        }
    }

    /// Adds operation `number` of `timeline`, and the earlier ones of that timeline.
    pub(crate) fn advance(&mut self, timeline: u64, number: u64) {
        let entry = self.0.entry(timeline).or_default();
        *entry = number.max(*entry);
    }

    /// True if operation `number` of `timeline` is ordered before this clock.
    pub(crate) fn is_after(&self, timeline: u64, number: u64) -> bool {
        self.0.get(&timeline).is_some_and(|&last| last >= number)
    }
}
