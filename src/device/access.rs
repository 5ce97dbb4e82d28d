//! Detects conflicting accesses to host memory at run time.
//!
//! Events order the work of streams; without one, work could read memory that is partially written.
//! On host memory that is a data race, which safe code must not be able to cause. Each operation,
//! copy and host reference therefore registers its access here, and conflicting accesses are
//! refused.

use super::DeviceError;
use std::sync::atomic::{AtomicI32, Ordering};

/// Readers or writer of one allocation: a thread-safe counterpart of the counter in `RefCell`.
///
/// Accesses are tracked per allocation, so memory that is read and written at the same time must
/// be in separate allocations.
#[derive(Default, Debug)]
pub(super) struct Accesses(AtomicI32);

/// Value during a write; other values are the number of readers.
const WRITER: i32 = -1;

/// Registered read or write access to host memory, which ends when this is dropped.
#[derive(Debug)]
pub struct HostAccess<'a> {
    accesses: &'a Accesses,
    kind: Access,
}

/// Kind of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Read,
    Write,
}

impl Accesses {
    /// Begins an access; fails if it conflicts with one in progress.
    pub(super) fn begin(&self, kind: Access) -> Result<HostAccess<'_>, DeviceError> {
        let next = |now: i32| match (kind, now) {
            (Access::Write, 0) => Some(WRITER),
            (Access::Read, 0..) => now.checked_add(1),
            _ => None,
        };
        // With the release in `drop`, an access sees everything written during earlier accesses.
        match self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, next) {
            Ok(_) => Ok(HostAccess { accesses: self, kind }),
            Err(_) => Err(DeviceError::Misuse(
                "memory is written while it is read or written elsewhere; order the two accesses by an \
                 event",
            )),
        }
    }
}

impl Drop for HostAccess<'_> {
    fn drop(&mut self) {
        let change = match self.kind {
            Access::Write => -WRITER,
            Access::Read => -1,
        };
        self.accesses.0.fetch_add(change, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_readers_or_one_writer() {
        let accesses = Accesses::default();
        let readers =
            [accesses.begin(Access::Read).unwrap(), accesses.begin(Access::Read).unwrap()];
        assert!(matches!(accesses.begin(Access::Write), Err(DeviceError::Misuse(_))));
        drop(readers);
        let writer = accesses.begin(Access::Write).unwrap();
        assert!(accesses.begin(Access::Write).is_err());
        assert!(accesses.begin(Access::Read).is_err());
        drop(writer);
        assert!(accesses.begin(Access::Read).is_ok());
    }
}
