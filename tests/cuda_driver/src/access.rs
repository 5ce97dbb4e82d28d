//! Memory accesses of operations, and the check that conflicting accesses are ordered.

use crate::clock::VectorClock;
use std::fmt;
use std::ops::Range;

/// The call that enqueued an operation, for reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Author {
    pub(crate) function: &'static str,
    /// Number of the call in this process.
    pub(crate) call: u64,
    pub(crate) stream: u64,
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (call {}, stream {:#x})", self.function, self.call, self.stream)
    }
}

/// Bytes that an operation reads or writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    pub(crate) range: Range<u64>,
    pub(crate) is_write: bool,
}

impl Access {
    pub(crate) fn read(address: u64, bytes: u64) -> Self {
        Self { range: address..address + bytes, is_write: false }
    }

    pub(crate) fn write(address: u64, bytes: u64) -> Self {
        Self { range: address..address + bytes, is_write: true }
    }

    fn conflicts(&self, other: &Self) -> bool {
        (self.is_write || other.is_write)
            && self.range.start < other.range.end
            && other.range.start < self.range.end
    }

    /// True if the two touch the same byte and one of them writes it.
    pub(crate) fn any_conflict(these: &[Self], those: &[Self]) -> bool {
        these.iter().any(|this| those.iter().any(|that| this.conflicts(that)))
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.is_write { "writes" } else { "reads" };
        write!(f, "{verb} {:#x}..{:#x}", self.range.start, self.range.end)
    }
}

/// Position of an operation in its timeline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) timeline: u64,
    pub(crate) number: u64,
}

/// Accesses to one block of memory with which a later access may conflict.
#[derive(Default)]
pub(crate) struct History(Vec<(Access, Moment, Author)>);

impl History {
    /// Adds an access of an operation that is ordered after `clock`; returns the earlier accesses that
    /// conflict with it and are not ordered before it.
    ///
    /// CUDA Programming Guide, "Streams": commands of different streams may execute out of order or
    /// concurrently, unless events or synchronization of the host order them.
    pub(crate) fn add(
        &mut self,
        access: &Access,
        moment: Moment,
        author: Author,
        clock: &VectorClock,
    ) -> Vec<(Access, Author)> {
        let mut unordered = Vec::new();
        self.0.retain(|(earlier, at, by)| {
            let is_ordered = clock.is_after(at.timeline, at.number);
            if !is_ordered && earlier.conflicts(access) {
                unordered.push((earlier.clone(), *by));
            }
            // An access that conflicts with an ordered access inside the new one also conflicts with
            // the new one, which therefore replaces it.
            let is_within =
                access.range.start <= earlier.range.start && earlier.range.end <= access.range.end;
            let is_replaced = is_ordered && is_within && (access.is_write || !earlier.is_write);
            !is_replaced
        });
        self.0.push((access.clone(), moment, author));
        unordered
    }

    /// Accesses that are not ordered before `clock`.
    pub(crate) fn not_before(&self, clock: &VectorClock) -> Vec<(Access, Author)> {
        let open = self.0.iter().filter(|(_, at, _)| !clock.is_after(at.timeline, at.number));
        open.map(|(access, _, by)| (access.clone(), *by)).collect()
    }
}
