//! Systems other than Linux: nothing can be had, and every answer says so.

use super::ThreadUsage;

const WHY: &str = "only Linux has it here";

/// Class and priority of a thread: none are told apart.
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
    Err(WHY.into())
}

pub(super) fn keep_freed_heap() -> Result<(), String> {
    Err(WHY.into())
}

pub(super) fn available_mib() -> Result<u64, String> {
    Err(WHY.into())
}

pub(super) fn is_main_thread() -> bool {
    false
}

pub(super) fn cores() -> Result<Vec<usize>, String> {
    Err(WHY.into())
}

pub(super) fn set_cores(_: &[usize]) -> Result<Vec<usize>, String> {
    Err(WHY.into())
}

pub(super) fn scheduling() -> Result<Scheduling, String> {
    Err(WHY.into())
}

pub(super) fn set_scheduling(_: Scheduling) -> Result<(), String> {
    Err(WHY.into())
}

pub(super) fn thread_usage() -> Option<ThreadUsage> {
    None
}
