//! Delays the results of action steps by their latency in virtual time.
//!
//! The result of an action step that is released at a tick becomes visible after the step's
//! latency, and is applied (a command, or a plan that is followed from then on) at the first tick
//! at or after that time. Times are kept in nanoseconds and are not rounded to ticks.

use super::{FastReleases, LONGEST_LATENCY, Latencies};
use crate::scene::{FrameId, PrefixInfo, TickReport};
use crate::timing::Timestamp;
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::time::Duration;

/// Result of an action step, with the inputs that it was computed from.
#[derive(Clone)]
pub(super) struct StepResult<T> {
    pub(super) output: T,
    /// Frame of the observation.
    pub(super) acted_on: FrameId,
    /// The prefix, or the snapshot of the scene.
    pub(super) prefix: Option<PrefixSource>,
}

/// Frames and version of a prefix, or of a snapshot of the scene.
#[derive(Clone)]
pub(super) struct PrefixSource {
    pub(super) version: u64,
    pub(super) captured_at: Timestamp,
    pub(super) frames: ArrayVec<FrameId, 8>,
}

struct InFlight<T> {
    visible_at: Timestamp,
    result: StepResult<T>,
}

/// Result that is applied at a tick.
pub(super) struct Applied<T> {
    /// `None` before the first visible result.
    result: Option<StepResult<T>>,
    /// True if the same result was applied at the previous tick.
    pub(super) is_held: bool,
}

/// Holds results back until they are visible.
pub(super) struct DelayLine<T> {
    releases: FastReleases,
    /// In order of release.
    in_flight: VecDeque<InFlight<T>>,
    applied: Option<StepResult<T>>,
    /// End of the action step that was released last.
    busy_until: Timestamp,
}

impl<T: Clone> DelayLine<T> {
    /// Returns an empty delay line for the fast expert's latencies.
    pub(super) fn new(latencies: &Latencies, tick: Duration) -> Self {
        if latencies.fast.is_zero() {
            Self::immediate()
        } else {
            Self::delaying(latencies.fast_releases, tick)
        }
    }

    /// Returns an empty delay line for action steps whose results are visible at once.
    pub(super) fn immediate() -> Self {
        Self::with_room_for(0, FastReleases::Overlap)
    }

    /// Returns an empty delay line with room for the most steps that can be in flight,
    /// so that no tick allocates.
    fn delaying(releases: FastReleases, tick: Duration) -> Self {
        let most = match releases {
            FastReleases::Overlap => LONGEST_LATENCY.as_nanos().div_ceil(tick.as_nanos().max(1)),
            FastReleases::Busy => 0,
        };
        Self::with_room_for(most as usize, releases)
    }

    fn with_room_for(steps: usize, releases: FastReleases) -> Self {
        Self {
            releases,
            in_flight: VecDeque::with_capacity(steps + 2),
            applied: None,
            busy_until: Timestamp::ZERO,
        }
    }

    /// Returns true if an action step may be released at `now`.
    pub(super) fn is_free(&self, now: Timestamp) -> bool {
        match self.releases {
            FastReleases::Overlap => true,
            FastReleases::Busy => self.busy_until <= now,
        }
    }

    /// Releases an action step whose `result` becomes visible after `latency`.
    pub(super) fn release(&mut self, now: Timestamp, latency: Duration, result: StepResult<T>) {
        let visible_at = now + latency;
        self.busy_until = visible_at;
        self.in_flight.push_back(InFlight { visible_at, result });
    }

    /// Returns the result to apply at `now`: the visible one that was released last. Results
    /// released before it that are not yet visible are dropped as outdated.
    pub(super) fn apply(&mut self, now: Timestamp) -> Applied<T> {
        let newest = self.in_flight.iter().rposition(|step| step.visible_at <= now);
        let is_held = newest.is_none() && self.applied.is_some();
        if let Some(newest) = newest {
            self.applied = self.in_flight.drain(..=newest).next_back().map(|step| step.result);
        }
        Applied { result: self.applied.clone(), is_held }
    }

    /// Returns the remaining busy time of the device at `now`.
    pub(super) fn busy_for(&self, now: Timestamp) -> Duration {
        self.busy_until.since(now)
    }
}

impl<T> Applied<T> {
    /// Returns the output of the action step; `None` before the first visible result.
    pub(super) fn output(&self) -> Option<&T> {
        self.result.as_ref().map(|result| &result.output)
    }

    /// Writes to `report`, of the tick at `now`, the inputs that the command was computed from.
    pub(super) fn describe(&self, now: Timestamp, report: &mut TickReport) {
        report.is_held = self.is_held;
        let Some(result) = &self.result else { return };
        report.acted_on = Some(result.acted_on);
        let Some(prefix) = &result.prefix else { return };
        report.prefix_frames.clone_from(&prefix.frames);
        let age = now.since(prefix.captured_at);
        report.prefix = Some(PrefixInfo { version: prefix.version, age });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK: Duration = Duration::from_millis(50);

    fn at(tick: u64) -> Timestamp {
        Timestamp::after(TICK * tick as u32)
    }

    /// Releases an action step at every tick at which the delay line is free, cycling through the
    /// given latencies (ms). Returns the release tick of the result applied at each tick (`-` for
    /// none, `'` for a held result).
    fn drive(releases: FastReleases, latencies_ms: &[f64], ticks: u64) -> String {
        let mut delay_line = DelayLine::delaying(releases, TICK);
        let applied: Vec<String> = (0..ticks)
            .map(|tick| {
                if delay_line.is_free(at(tick)) {
                    let latency = latencies_ms[tick as usize % latencies_ms.len()] / 1e3;
                    let acted_on = FrameId(tick);
                    let result = StepResult { output: tick, acted_on, prefix: None };
                    delay_line.release(at(tick), Duration::from_secs_f64(latency), result);
                }
                let applied = delay_line.apply(at(tick));
                let Some(result) = applied.result else {
                    return "-".to_owned();
                };
                assert_eq!(result.output, result.acted_on.0);
                format!("{}{}", result.acted_on.0, if applied.is_held { "'" } else { "" })
            })
            .collect();
        applied.join(" ")
    }

    #[test]
    fn result_without_latency_is_applied_at_once() {
        assert_eq!(drive(FastReleases::Overlap, &[0.0], 4), "0 1 2 3");
        assert_eq!(drive(FastReleases::Busy, &[0.0], 4), "0 1 2 3");
    }

    #[test]
    fn result_is_applied_at_first_tick_after_latency() {
        assert_eq!(drive(FastReleases::Overlap, &[49.0], 4), "- 0 1 2");
        assert_eq!(drive(FastReleases::Overlap, &[50.0], 4), "- 0 1 2");
        assert_eq!(drive(FastReleases::Overlap, &[51.0], 4), "- - 0 1");
    }

    #[test]
    fn busy_device_delays_next_release() {
        assert_eq!(drive(FastReleases::Busy, &[50.0], 5), "- 0 1 2 3");
        // Free after 70 ms, so every second tick.
        assert_eq!(drive(FastReleases::Busy, &[70.0], 8), "- - 0 0' 2 2' 4 4'");
    }

    #[test]
    fn late_result_is_dropped() {
        assert_eq!(drive(FastReleases::Overlap, &[120.0, 20.0, 20.0], 7), "- - 1 2 2' 4 5");
    }

    proptest! {
        /// Compares with the definition, evaluated over all action steps.
        #[test]
        fn newest_visible_result_is_applied(
            latencies_ms in prop::collection::vec(0.0..300.0_f64, 1..20),
        ) {
            let found = drive(FastReleases::Overlap, &latencies_ms, 60);
            for (tick, applied) in (0..60_u64).zip(found.split(' ')) {
                let visible_ns = |release: &u64| {
                    let latency = latencies_ms[*release as usize % latencies_ms.len()] * 1e6;
                    release * 50_000_000 + latency.round() as u64
                };
                let newest = (0..=tick).rfind(|release| visible_ns(release) <= tick * 50_000_000);
                let expected = newest.map_or("-".to_owned(), |newest| newest.to_string());
                prop_assert_eq!(applied.trim_end_matches('\''), expected, "at tick {}", tick);
            }
        }
    }
}
