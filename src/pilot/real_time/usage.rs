//! What the kernel counts of a thread.

use super::system;
use std::ops::Sub;

/// Counts of one thread since it began; two of them subtract to what happened in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ThreadUsage {
    /// Page faults served from memory.
    pub minor_faults: u64,
    /// Page faults that had to read a disk.
    pub major_faults: u64,
    /// Times that the thread gave up its core to wait.
    pub voluntary_switches: u64,
    /// Times that another thread took its core.
    pub involuntary_switches: u64,
}

impl ThreadUsage {
    /// Counts of the calling thread so far, by one system call and no allocation; `None` where the
    /// system does not count threads.
    pub fn now() -> Option<Self> {
        system::thread_usage()
    }

    /// Page faults of both kinds.
    pub fn faults(&self) -> u64 {
        self.minor_faults + self.major_faults
    }
}

impl Sub for ThreadUsage {
    type Output = Self;

    /// What happened between `earlier` and `self`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            minor_faults: self.minor_faults - earlier.minor_faults,
            major_faults: self.major_faults - earlier.major_faults,
            voluntary_switches: self.voluntary_switches - earlier.voluntary_switches,
            involuntary_switches: self.involuntary_switches - earlier.involuntary_switches,
        }
    }
}
