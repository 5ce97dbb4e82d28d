//! Peak memory of this process over a stretch of its life.

use std::fs;

/// Watches how much memory the process holds at most.
pub(super) struct Peak {
    /// Held at the start, bytes; `None` where the system does not keep a peak that can be reset.
    start_bytes: Option<u64>,
}

impl Peak {
    /// Forgets the peak so far.
    pub(super) fn start() -> Self {
        // Writing 5 resets the peak resident set of the process, which nothing else here reads.
        let reset = fs::write("/proc/self/clear_refs", "5").is_ok();
        Self { start_bytes: if reset { status_bytes("VmRSS:") } else { None } }
    }

    /// Most bytes held since the start beyond what was held then, memory-mapped files included.
    pub(super) fn bytes(&self) -> Option<u64> {
        Some(status_bytes("VmHWM:")?.saturating_sub(self.start_bytes?))
    }
}

fn status_bytes(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_given_back_still_counts() {
        const BYTES: usize = 64 << 20;
        let peak = Peak::start();
        drop(std::hint::black_box(vec![1_u8; BYTES]));
        let found = peak.bytes().unwrap();
        // Other tests of this process may allocate at the same time, or free what was held.
        assert!(found > BYTES as u64 / 2, "{found} bytes");
    }
}
