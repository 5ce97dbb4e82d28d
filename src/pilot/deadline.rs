//! Checks a tick's command against its deadline.

use crate::scene::DeadlineVerdict;
use std::time::Duration;

/// Latency that is compared with the deadline of a tick.
#[derive(Clone, Copy)]
pub(super) enum CommandLatency {
    /// Duration of the tick on the host.
    Measured(Duration),
    /// Virtual time: latency of the action step released at this tick.
    Released(Duration),
    /// Virtual time: no action step was released, because the device is busy for this much
    /// longer (0 without a prefix).
    Busy(Duration),
}

impl CommandLatency {
    /// Compares the latency with `budget`. If the device is busy, no command is computed for the
    /// observation, and the deadline is missed by the remaining busy time.
    pub(super) fn verdict(self, budget: Duration) -> DeadlineVerdict {
        let by = match self {
            Self::Measured(took) | Self::Released(took) => took.saturating_sub(budget),
            Self::Busy(by) => by,
        };
        if by.is_zero() { DeadlineVerdict::Met } else { DeadlineVerdict::Missed { by } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_is_missed_by_excess_or_by_busy_time() {
        const MS: fn(u64) -> Duration = Duration::from_millis;
        let late = |ms| DeadlineVerdict::Missed { by: MS(ms) };
        let met = DeadlineVerdict::Met;
        let cases = [
            (CommandLatency::Measured(MS(50)), met),
            (CommandLatency::Measured(MS(70)), late(20)),
            (CommandLatency::Released(MS(50)), met),
            (CommandLatency::Released(MS(51)), late(1)),
            (CommandLatency::Busy(MS(0)), met),
            (CommandLatency::Busy(MS(7)), late(7)),
        ];
        for (latency, expected) in cases {
            assert_eq!(latency.verdict(MS(50)), expected);
        }
    }
}
