//! Share of the processor time used by other processes, from the kernel's counters.

use std::fs;

/// Processor time since the start of the system and of this process, in kernel ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessorTime {
    /// Time of all cores, including idle time.
    all: u64,
    /// Time of all cores without idle time, including time that the
    /// hypervisor gave to other machines.
    busy: u64,
    own: u64,
}

impl ProcessorTime {
    /// Returns the current counters; `None` if the system does not report them.
    pub(super) fn now() -> Option<Self> {
        Self::parse(
            &fs::read_to_string("/proc/stat").ok()?,
            &fs::read_to_string("/proc/self/stat").ok()?,
        )
    }

    fn parse(system: &str, process: &str) -> Option<Self> {
        // user nice system idle iowait irq softirq steal; later fields are part of user and nice.
        let line = system.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let counts: Vec<u64> =
            line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let all: u64 = counts.iter().sum();
        let idle = counts.get(3)? + counts.get(4)?;
        // The name in parentheses may contain spaces; utime and stime are fields 14 and 15.
        let (_, fields) = process.rsplit_once(") ")?;
        let field = |number: usize| fields.split(' ').nth(number - 3)?.parse::<u64>().ok();
        Some(Self { all, busy: all - idle, own: field(14)? + field(15)? })
    }

    /// Returns the share of all processor time since `earlier` that was used by others, 0 to 1;
    /// `None` if no time has passed.
    pub(super) fn others_share_since(&self, earlier: &Self) -> Option<f64> {
        let all = self.all.checked_sub(earlier.all).filter(|&all| all > 0)?;
        let busy = self.busy.saturating_sub(earlier.busy);
        let own = self.own.saturating_sub(earlier.own);
        Some((busy.saturating_sub(own) as f64 / all as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(system: &str, own: [u64; 2]) -> ProcessorTime {
        let process = format!("7 (a b) c) R{} {} {} 0", " 1".repeat(10), own[0], own[1]);
        ProcessorTime::parse(&format!("{system}\ncpu0 1 2\n"), &process).unwrap()
    }

    #[test]
    fn time_neither_idle_nor_own_belongs_to_others() {
        let before = at("cpu  100 0 50 800 50 0 0 0 9 9", [10, 5]);
        let after = at("cpu  160 10 60 870 60 0 0 40 9 9", [40, 15]);
        // 200 ticks: 80 idle and 120 busy, of which 40 are own.
        assert_eq!(after.others_share_since(&before), Some(0.4));
        assert_eq!(after.others_share_since(&after), None);
    }

    #[test]
    fn malformed_counters_give_none() {
        assert!(ProcessorTime::parse("cpu  1 2 x 4 5 6 7 8", "1 (a) R").is_none());
        assert!(ProcessorTime::parse("cpu  1 2 3 4 5 6 7 8", "1 (a) R 1").is_none());
        assert!(ProcessorTime::parse("", "").is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn counters_of_this_machine_are_readable() {
        let now = ProcessorTime::now().unwrap();
        assert!(now.all >= now.busy && now.busy >= now.own, "{now:?}");
    }
}
