//! Usage counters of a thread.

use super::system;
use std::ops::Sub;

/// Usage counters of one thread since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ThreadUsage {
    /// Page faults served from memory.
    pub minor_faults: u64,
    /// Page faults that read from a disk.
    pub major_faults: u64,
    /// Context switches because the thread waited.
    pub voluntary_switches: u64,
    /// Context switches because the thread was preempted.
    pub involuntary_switches: u64,
}

impl ThreadUsage {
    /// Reads the counters of the calling thread with one system call and no allocation; returns
    /// `None` on systems without them.
    pub fn now() -> Option<Self> {
        system::thread_usage()
    }

    /// Returns the number of page faults of both kinds.
    pub fn faults(&self) -> u64 {
        self.minor_faults + self.major_faults
    }
}

impl Sub for ThreadUsage {
    type Output = Self;

    /// Returns the counts between `earlier` and `self`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            minor_faults: self.minor_faults - earlier.minor_faults,
            major_faults: self.major_faults - earlier.major_faults,
            voluntary_switches: self.voluntary_switches - earlier.voluntary_switches,
            involuntary_switches: self.involuntary_switches - earlier.involuntary_switches,
        }
    }
}
