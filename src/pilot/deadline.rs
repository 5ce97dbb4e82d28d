//! Whether a tick's control came within its budget.

use crate::scene::DeadlineVerdict;
use std::time::Duration;

/// What the lateness of a tick is counted by.
#[derive(Clone, Copy)]
pub(super) enum Answered {
    /// The host took this long for the tick.
    After(Duration),
    /// Virtual time: the action step that was released takes this long.
    Released(Duration),
    /// Virtual time: no step was released, because the device is busy for this long (not at all, where
    /// there is no prefix).
    Busy(Duration),
}

impl Answered {
    /// Compares with `budget`. Where the device is busy there is no control for the observation, which
    /// is late by what still holds the device up.
    pub(super) fn verdict(self, budget: Duration) -> DeadlineVerdict {
        let by = match self {
            Self::After(took) | Self::Released(took) => took.saturating_sub(budget),
            Self::Busy(by) => by,
        };
        if by.is_zero() { DeadlineVerdict::Met } else { DeadlineVerdict::Missed { by } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_exceeds_the_budget_is_late_and_all_that_a_busy_device_takes() {
        const MS: fn(u64) -> Duration = Duration::from_millis;
        let late = |ms| DeadlineVerdict::Missed { by: MS(ms) };
        let met = DeadlineVerdict::Met;
        let cases = [
            (Answered::After(MS(50)), met),
            (Answered::After(MS(70)), late(20)),
            (Answered::Released(MS(50)), met),
            (Answered::Released(MS(51)), late(1)),
            (Answered::Busy(MS(0)), met),
            (Answered::Busy(MS(7)), late(7)),
        ];
        for (answered, expected) in cases {
            assert_eq!(answered.verdict(MS(50)), expected);
        }
    }
}
