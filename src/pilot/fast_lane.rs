//! Inferences of the fast expert on their way to the vehicle.
//!
//! An inference that is released at a tick becomes visible when what it takes has passed, and what it
//! yields (a command, or a plan that is followed from then on) is applied at the first tick at or
//! after that. Instants are kept in nanoseconds; nothing is rounded to ticks.

use super::{FastReleases, LONGEST_LATENCY};
use crate::scene::{FrameId, PrefixInfo, TickReport};
use crate::timing::Timestamp;
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::time::Duration;

/// What an inference yields, with what it rests on.
#[derive(Clone)]
pub(super) struct Answer<T> {
    pub(super) yields: T,
    /// The observation that it answers.
    pub(super) acted_on: FrameId,
    /// The prefix, or the snapshot of the scene.
    pub(super) basis: Option<Basis>,
}

/// What the slow expert saw.
#[derive(Clone)]
pub(super) struct Basis {
    pub(super) version: u64,
    pub(super) captured_at: Timestamp,
    pub(super) frames: ArrayVec<FrameId, 8>,
}

struct InFlight<T> {
    visible_at: Timestamp,
    answer: Answer<T>,
}

/// What is applied at a tick.
pub(super) struct Applied<T> {
    /// `None` before the first answer.
    answer: Option<Answer<T>>,
    /// Whether it is what was applied at the tick before.
    pub(super) is_held: bool,
}

/// Holds answers back until they are visible.
pub(super) struct FastLane<T> {
    releases: FastReleases,
    /// In the order of their release.
    in_flight: VecDeque<InFlight<T>>,
    applied: Option<Answer<T>>,
    /// When the inference that was released last is done.
    busy_until: Timestamp,
}

impl<T: Clone> FastLane<T> {
    /// A lane without inferences. Its memory holds the most that can be in flight, so that no tick
    /// allocates; `takes_time` is false where inferences are visible at once.
    pub(super) fn new(releases: FastReleases, takes_time: bool, tick: Duration) -> Self {
        let ticks = LONGEST_LATENCY.as_nanos().div_ceil(tick.as_nanos().max(1));
        let most = if takes_time && releases == FastReleases::Overlap { ticks as usize } else { 0 };
        Self {
            releases,
            in_flight: VecDeque::with_capacity(most + 2),
            applied: None,
            busy_until: Timestamp::ZERO,
        }
    }

    /// Whether an inference may be released at `now`.
    pub(super) fn is_free(&self, now: Timestamp) -> bool {
        match self.releases {
            FastReleases::Overlap => true,
            FastReleases::Busy => self.busy_until <= now,
        }
    }

    /// Releases the inference whose answer, after what it `takes`, will be `answer`.
    pub(super) fn release(&mut self, now: Timestamp, takes: Duration, answer: Answer<T>) {
        let visible_at = now + takes;
        self.busy_until = visible_at;
        self.in_flight.push_back(InFlight { visible_at, answer });
    }

    /// What is applied at `now`: of what is visible, what was released last. What was released before
    /// it and is visible later is dropped: it is older news.
    pub(super) fn apply(&mut self, now: Timestamp) -> Applied<T> {
        let newest = self.in_flight.iter().rposition(|answer| answer.visible_at <= now);
        let is_held = newest.is_none() && self.applied.is_some();
        if let Some(newest) = newest {
            self.applied = self.in_flight.drain(..=newest).next_back().map(|new| new.answer);
        }
        Applied { answer: self.applied.clone(), is_held }
    }

    /// Returns for how long the device is busy from `now` on.
    pub(super) fn busy_for(&self, now: Timestamp) -> Duration {
        self.busy_until.since(now)
    }
}

impl<T> Applied<T> {
    /// Returns what the inference yielded; `None` before the first answer.
    pub(super) fn yields(&self) -> Option<&T> {
        self.answer.as_ref().map(|answer| &answer.yields)
    }

    /// Says in `report`, of the tick at `now`, what the command rests on.
    pub(super) fn describe(&self, now: Timestamp, report: &mut TickReport) {
        report.is_held = self.is_held;
        let Some(answer) = &self.answer else { return };
        report.acted_on = Some(answer.acted_on);
        let Some(basis) = &answer.basis else { return };
        report.prefix_frames.clone_from(&basis.frames);
        let age = now.since(basis.captured_at);
        report.prefix = Some(PrefixInfo { version: basis.version, age });
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

    /// Releases an inference at every tick at which the lane lets it, with the latencies (ms) given in
    /// turn, and returns the tick that each tick's answer is of (`-` for none, `'` for held).
    fn drive(releases: FastReleases, latencies_ms: &[f64], ticks: u64) -> String {
        let mut lane = FastLane::new(releases, true, TICK);
        let words: Vec<String> = (0..ticks)
            .map(|tick| {
                if lane.is_free(at(tick)) {
                    let takes = latencies_ms[tick as usize % latencies_ms.len()] / 1e3;
                    let acted_on = FrameId(tick);
                    let answer = Answer { yields: tick, acted_on, basis: None };
                    lane.release(at(tick), Duration::from_secs_f64(takes), answer);
                }
                let applied = lane.apply(at(tick));
                let Some(answer) = applied.answer else {
                    return "-".to_owned();
                };
                assert_eq!(answer.yields, answer.acted_on.0);
                format!("{}{}", answer.acted_on.0, if applied.is_held { "'" } else { "" })
            })
            .collect();
        words.join(" ")
    }

    #[test]
    fn what_takes_no_time_is_applied_at_once() {
        assert_eq!(drive(FastReleases::Overlap, &[0.0], 4), "0 1 2 3");
        assert_eq!(drive(FastReleases::Busy, &[0.0], 4), "0 1 2 3");
    }

    #[test]
    fn an_answer_waits_for_the_first_tick_at_or_after_its_visibility() {
        assert_eq!(drive(FastReleases::Overlap, &[49.0], 4), "- 0 1 2");
        assert_eq!(drive(FastReleases::Overlap, &[50.0], 4), "- 0 1 2");
        assert_eq!(drive(FastReleases::Overlap, &[51.0], 4), "- - 0 1");
    }

    #[test]
    fn one_in_flight_starts_when_the_device_is_free() {
        assert_eq!(drive(FastReleases::Busy, &[50.0], 5), "- 0 1 2 3");
        // Free after 70 ms, so every second tick.
        assert_eq!(drive(FastReleases::Busy, &[70.0], 8), "- - 0 0' 2 2' 4 4'");
    }

    #[test]
    fn news_that_comes_after_newer_news_is_dropped() {
        assert_eq!(drive(FastReleases::Overlap, &[120.0, 20.0, 20.0], 7), "- - 1 2 2' 4 5");
    }

    proptest! {
        /// Beside the definition, spelled out over all inferences.
        #[test]
        fn the_newest_visible_answer_is_applied(
            latencies_ms in prop::collection::vec(0.0..300.0_f64, 1..20),
        ) {
            let found = drive(FastReleases::Overlap, &latencies_ms, 60);
            for (tick, word) in (0..60_u64).zip(found.split(' ')) {
                let visible_ns = |release: &u64| {
                    let latency = latencies_ms[*release as usize % latencies_ms.len()] * 1e6;
                    release * 50_000_000 + latency.round() as u64
                };
                let newest = (0..=tick).rfind(|release| visible_ns(release) <= tick * 50_000_000);
                let expected = newest.map_or("-".to_owned(), |newest| newest.to_string());
                prop_assert_eq!(word.trim_end_matches('\''), expected, "at tick {}", tick);
            }
        }
    }
}
