//! Who reads and who writes a piece of memory right now.
//!
//! Work is put in order by events, and whoever forgets one would read half-written numbers. On the
//! host's memory that would be a data race, which safe code must not be able to write: each piece
//! of work, each copy and each reference of the host says here what it is about to do, and what
//! does not go together is refused.

use super::DeviceError;
use std::sync::atomic::{AtomicI32, Ordering};

/// The readers or the writer of one allocation, counted as `RefCell` does, but for threads.
///
/// All parts of an allocation count as one: what is read and written at the same time is allocated
/// apart.
#[derive(Default, Debug)]
pub(super) struct Accesses(AtomicI32);

/// Its value while somebody writes; otherwise it is the number of readers.
const WRITER: i32 = -1;

/// The right to read or to write memory of the host until it is dropped.
#[derive(Debug)]
pub struct HostAccess<'a> {
    accesses: &'a Accesses,
    writes: bool,
}

impl Accesses {
    /// Begins to read, or to write.
    pub(super) fn begin(&self, writes: bool) -> Result<HostAccess<'_>, DeviceError> {
        let next = |now: i32| match (writes, now) {
            (true, 0) => Some(WRITER),
            (false, 0..) => now.checked_add(1),
            _ => None,
        };
        // Acquire and, below, release: who comes next sees all that the one before has written.
        match self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, next) {
            Ok(_) => Ok(HostAccess { accesses: self, writes }),
            Err(_) => Err(DeviceError::Misuse(
                "memory is written while something else reads or writes it; an event has to order \
                 the two",
            )),
        }
    }
}

impl Drop for HostAccess<'_> {
    fn drop(&mut self) {
        let change = if self.writes { -WRITER } else { -1 };
        self.accesses.0.fetch_add(change, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_read_or_one_writes() {
        let accesses = Accesses::default();
        let readers = [accesses.begin(false).unwrap(), accesses.begin(false).unwrap()];
        assert!(matches!(accesses.begin(true), Err(DeviceError::Misuse(_))));
        drop(readers);
        let writer = accesses.begin(true).unwrap();
        assert!(accesses.begin(true).is_err());
        assert!(accesses.begin(false).is_err());
        drop(writer);
        assert!(accesses.begin(false).is_ok());
    }
}
