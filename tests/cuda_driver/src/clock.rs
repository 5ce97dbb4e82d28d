//! Vector clocks: which operations are ordered before which.

use std::collections::BTreeMap;

/// For each timeline (a stream, or a branch of a launched graph) the number of its last operation
/// that is ordered before.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct VectorClock(BTreeMap<u64, u64>);

impl VectorClock {
    /// Orders everything that `other` is ordered after before this one as well.
    pub(crate) fn join(&mut self, other: &Self) {
        for (&timeline, &number) in &other.0 {
            self.advance(timeline, number);
        }
    }

    /// Orders operation `number` of `timeline` before.
    pub(crate) fn advance(&mut self, timeline: u64, number: u64) {
        let entry = self.0.entry(timeline).or_default();
        *entry = number.max(*entry);
    }

    /// True if operation `number` of `timeline` is ordered before.
    pub(crate) fn is_after(&self, timeline: u64, number: u64) -> bool {
        self.0.get(&timeline).is_some_and(|&last| last >= number)
    }
}
