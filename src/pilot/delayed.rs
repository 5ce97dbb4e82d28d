//! A driver without experts, in the virtual time of a model with two.

use super::deadline::Answered;
use super::fast_lane::{Answer, Applied, Basis, FastLane};
use super::refresh_beat::RefreshBeat;
use super::{Expert, Latencies, LatencyError, LatencySource, PilotStatistics, Run};
use crate::scene::{
    Command, Control, DeadlineVerdict, DriveError, Driver, FrameId, Inference, Latency,
    Observation, RefreshBegun, TickReport, Truth,
};
use crate::timing::Timestamp;
use arrayvec::ArrayVec;
use std::sync::Arc;
use std::time::Duration;

/// Delays another driver as a model's two experts would be: its command by the fast latency, and, of
/// a privileged one, what it knows of the scene by the slow one.
///
/// The scene (everything in [`Truth`] but the ego vehicle, which is always the present one) is that of
/// the newest snapshot whose refresh is visible. Snapshots are taken on the beat of refreshes, one at
/// a time; where a refresh takes no time, ever, the scene is that of the tick. The driver sees every
/// observation, so that what it remembers keeps its rate, whether or not its answer can be released.
pub struct Delayed {
    driver: Box<dyn Driver>,
    latencies: Latencies,
    lane: FastLane<Command>,
    act_budget: Duration,
    beat: RefreshBeat,
    visible: Option<Snapshot>,
    /// The refresh under way, and when it becomes visible.
    under_way: Option<(Timestamp, Snapshot)>,
    next_version: u64,
    /// Ticks since the route began; the first one is 0.
    ticks: u64,
    statistics: PilotStatistics,
}

/// The scene of a tick.
struct Snapshot {
    version: u64,
    frame: FrameId,
    captured_at: Timestamp,
    truth: Arc<Truth>,
}

impl Delayed {
    /// `driver` with these latencies, and period of refreshes and budget of `run`.
    pub fn new(driver: Box<dyn Driver>, latencies: Latencies, run: &Run) -> Self {
        let takes_time = !latencies.fast.is_zero();
        Self {
            driver,
            lane: FastLane::new(latencies.fast_releases, takes_time, run.tick),
            latencies,
            act_budget: run.act_budget,
            beat: RefreshBeat::new(run.refresh_period_ticks, 0),
            visible: None,
            under_way: None,
            next_version: 1,
            ticks: 0,
            statistics: PilotStatistics::default(),
        }
    }

    /// What was counted so far; refreshes are snapshots of the scene.
    pub fn statistics(&self) -> PilotStatistics {
        self.statistics
    }

    fn publish_if_visible(&mut self, now: Timestamp) {
        if let Some((_, snapshot)) = self.under_way.take_if(|(visible_at, _)| *visible_at <= now) {
            self.visible = Some(snapshot);
            self.statistics.refreshes_published += 1;
        }
    }

    fn begin_refresh_if_due(
        &mut self,
        observation: &Observation,
        truth: &Arc<Truth>,
    ) -> Result<Option<RefreshBegun>, LatencyError> {
        let frame = observation.frame.0;
        let is_due = match &self.latencies.slow {
            LatencySource::Replayed(Some(schedule)) => {
                schedule.latency(Expert::Slow, frame).is_some()
            }
            source => source.is_zero() || self.beat.is_due(self.ticks),
        };
        if !is_due {
            return Ok(None);
        }
        if self.under_way.is_some() {
            self.statistics.refreshes_delayed += 1;
            return Ok(None);
        }
        let version = self.next_version;
        let takes = self.latencies.draw(Expert::Slow, frame)?;
        let snapshot = Snapshot {
            version,
            frame: observation.frame,
            captured_at: observation.time,
            truth: Arc::clone(truth),
        };
        self.under_way = Some((observation.time + takes, snapshot));
        self.next_version += 1;
        self.statistics.refreshes_started += 1;
        self.beat.begun(self.ticks);
        Ok(Some(RefreshBegun { version, takes: Latency::Emulated(takes) }))
    }

    /// What the driver sees, with what it rests on; `None` as long as there is no scene.
    fn seen(&self, observation: &Observation) -> Option<(Observation, Option<Basis>)> {
        let Some(present) = &observation.truth else { return Some((observation.clone(), None)) };
        let scene = self.visible.as_ref()?;
        let truth = if Arc::ptr_eq(present, &scene.truth) {
            Arc::clone(present)
        } else {
            Arc::new(Truth { ego: present.ego, ..Truth::clone(&scene.truth) })
        };
        let basis = Basis {
            version: scene.version,
            captured_at: scene.captured_at,
            frames: ArrayVec::from_iter([scene.frame]),
        };
        Some((Observation { truth: Some(truth), ..observation.clone() }, Some(basis)))
    }

    fn tick(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        let now = observation.time;
        let refused = |error: LatencyError| DriveError {
            frame: observation.frame.0,
            source: Box::new(error),
        };
        let mut refresh_begun = None;
        if let Some(truth) = &observation.truth {
            self.publish_if_visible(now);
            refresh_begun = self.begin_refresh_if_due(observation, truth).map_err(refused)?;
            self.publish_if_visible(now);
        }
        let mut report = TickReport::default();
        let mut released = None;
        if let Some((seen, basis)) = self.seen(observation) {
            let control = self.driver.drive(&seen)?;
            report = control.report;
            if self.lane.is_free(now) {
                let frame = observation.frame;
                let takes = self.latencies.draw(Expert::Fast, frame.0).map_err(refused)?;
                let answer = Answer { yields: control.command, acted_on: frame, basis };
                self.lane.release(now, takes, answer);
                released = Some(takes);
            }
        } else {
            self.statistics.ticks_without_prefix += 1;
        }
        let applied = self.lane.apply(now);
        report.frame = observation.frame;
        report.inference = released.map(|takes| Inference { takes: Latency::Emulated(takes) });
        report.refresh_begun = refresh_begun;
        report.is_refreshing = self.under_way.is_some();
        let answered = match released {
            Some(takes) => Answered::Released(takes),
            None => Answered::Busy(self.lane.busy_for(now)),
        };
        report.deadline = answered.verdict(self.act_budget);
        applied.describe(now, &mut report);
        self.count(&applied, report.deadline);
        let command = applied.yields().copied().unwrap_or(Command::FULL_BRAKE);
        Ok(Control { command, report })
    }

    fn count(&mut self, applied: &Applied<Command>, deadline: DeadlineVerdict) {
        self.ticks += 1;
        self.statistics.ticks += 1;
        self.statistics.ticks_held += u64::from(applied.is_held);
        self.statistics.deadline_misses += u64::from(deadline != DeadlineVerdict::Met);
    }
}

impl Driver for Delayed {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        self.tick(observation)
    }
}
