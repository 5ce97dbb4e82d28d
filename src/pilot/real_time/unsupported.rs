//! Systems other than Linux, on which no option is available.

use super::ThreadUsage;

const UNSUPPORTED: &str = "only supported on Linux";

/// Class and priority of a thread, which are not read on this system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scheduling;

impl Scheduling {
    pub(super) fn fifo(_: u8) -> Self {
        Self
    }

    pub(super) fn fifo_priority(self) -> Option<u8> {
        None
    }
}

pub(super) fn lock_memory() -> Result<(), String> {
    Err(UNSUPPORTED.into())
}

pub(super) fn keep_freed_heap() -> Result<(), String> {
    Err(UNSUPPORTED.into())
}

pub(super) fn available_mib() -> Result<u64, String> {
    Err(UNSUPPORTED.into())
}

pub(super) fn is_main_thread() -> bool {
    false
}

pub(super) fn cores() -> Result<Vec<usize>, String> {
    Err(UNSUPPORTED.into())
}

pub(super) fn set_cores(_: &[usize]) -> Result<Vec<usize>, String> {
    Err(UNSUPPORTED.into())
}

pub(super) fn scheduling() -> Result<Scheduling, String> {
    Err(UNSUPPORTED.into())
}

pub(super) fn set_scheduling(_: Scheduling) -> Result<(), String> {
    Err(UNSUPPORTED.into())
}

pub(super) fn thread_usage() -> Option<ThreadUsage> {
    None
}
