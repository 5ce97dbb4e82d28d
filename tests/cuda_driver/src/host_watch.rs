//! Detects writes of the host to pinned memory while copies from or to it are pending.
//!
//! The driver cannot observe accesses of the host. It therefore keeps a second copy of the bytes that
//! pending copies read or write: a difference is a write of the host. Memory that a pending copy will
//! write is filled with [`POISON`], so that a premature read of the host does not return the result of
//! an earlier copy.
//!
//! CUDA Programming Guide, "Asynchronous Concurrent Execution": an asynchronous copy returns before
//! it is complete. It is not specified when the copy reads page-locked memory until then, so this
//! driver reads as late as possible.

use std::ops::Range;

/// Value of the bytes of freed memory, and of pinned memory that a pending copy will write.
pub(crate) const POISON: u8 = 0xDB;

/// Pending copies of one pinned block; offsets count from its start.
#[derive(Default)]
pub(crate) struct HostWatch {
    pending: Vec<(u64, Range<usize>)>,
    expected: Vec<u8>,
}

impl HostWatch {
    /// Starts watching `range` for operation `id`. Returns true if the host has changed a byte of it
    /// that another pending copy reads or writes.
    pub(crate) fn begin(
        &mut self,
        id: u64,
        range: Range<usize>,
        is_write: bool,
        actual: &mut [u8],
    ) -> bool {
        self.expected.resize(actual.len(), 0);
        let mut is_changed = false;
        let mut is_shared = false;
        for offset in range.clone() {
            if self.pending.iter().any(|(_, pending)| pending.contains(&offset)) {
                is_shared = true;
                is_changed |= self.expected[offset] != actual[offset];
            }
            self.expected[offset] = actual[offset];
        }
        if is_write && !is_shared {
            actual[range.clone()].fill(POISON);
            self.expected[range.clone()].fill(POISON);
        }
        self.pending.push((id, range));
        is_changed
    }

    /// Stops watching for operation `id`, which is about to run. Returns true if the host has changed a
    /// byte that it reads or writes.
    pub(crate) fn end(&mut self, id: u64, actual: &[u8]) -> bool {
        let mut is_changed = false;
        let expected = &mut self.expected;
        self.pending.retain(|(pending, range)| {
            if *pending == id {
                is_changed |= expected[range.clone()] != actual[range.clone()];
                expected[range.clone()].copy_from_slice(&actual[range.clone()]);
            }
            *pending != id
        });
        is_changed
    }

    /// True if no copy is pending.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Updates the copy with the bytes that an operation wrote.
    pub(crate) fn written(&mut self, range: Range<usize>, bytes: &[u8]) {
        if let Some(expected) = self.expected.get_mut(range) {
            expected.copy_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_write_while_a_copy_is_pending_is_detected() {
        let (mut watch, mut memory) = (HostWatch::default(), vec![1; 8]);
        assert!(!watch.begin(1, 0..8, false, &mut memory));
        assert!(!watch.end(1, &memory));
        memory.fill(2);
        assert!(!watch.begin(2, 0..4, false, &mut memory));
        memory[7] = 3;
        memory[3] = 3;
        assert!(watch.end(2, &memory));
    }

    #[test]
    fn memory_that_is_about_to_be_written_is_poisoned() {
        let (mut watch, mut memory) = (HostWatch::default(), vec![1; 8]);
        watch.begin(1, 2..4, true, &mut memory);
        assert_eq!(memory, [1, 1, POISON, POISON, 1, 1, 1, 1]);
        assert!(!watch.end(1, &memory));
    }

    #[test]
    fn source_of_a_pending_copy_is_not_poisoned() {
        let (mut watch, mut memory) = (HostWatch::default(), vec![1; 8]);
        watch.begin(1, 0..8, false, &mut memory);
        assert!(!watch.begin(2, 0..8, true, &mut memory));
        assert_eq!(memory, [1; 8]);
        assert!(!watch.end(1, &memory));
    }
}
