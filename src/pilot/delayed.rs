//! A driver without experts, delayed like a model with two experts in virtual time.

use super::deadline::CommandLatency;
use super::delay_line::{Applied, DelayLine, PrefixSource, StepResult};
use super::prefill_trigger::PrefillTrigger;
use super::{Expert, Latencies, LatencyError, LatencySource, PilotStatistics, Run};
use crate::scene::{
    ActionStep, Command, Control, DeadlineVerdict, DriveError, Driver, FrameId, Latency,
    Observation, PrefillStarted, TickReport, Truth,
};
use crate::timing::Timestamp;
use arrayvec::ArrayVec;
use std::sync::Arc;
use std::time::Duration;

/// Delays another driver as a model's two experts would be delayed: its command by the fast
/// latency, and the scene that a privileged driver observes by the slow latency.
///
/// The scene (everything in [`Truth`] except the ego vehicle, which is always current) is that of
/// the newest visible snapshot. Snapshots are taken when a prefill is due, one at a time; if the
/// slow latency is always 0, the scene is that of the tick. The driver receives every observation,
/// even if its command cannot be released, so that its internal state is updated at every tick.
pub struct Delayed {
    driver: Box<dyn Driver>,
    latencies: Latencies,
    delay_line: DelayLine<Command>,
    act_budget: Duration,
    trigger: PrefillTrigger,
    visible: Option<Snapshot>,
    /// The snapshot that is not yet visible, with the time at which it becomes visible.
    pending: Option<(Timestamp, Snapshot)>,
    next_version: u64,
    /// Ticks since the route began; the first one is 0.
    ticks: u64,
    statistics: PilotStatistics,
}

/// Scene of a tick.
struct Snapshot {
    version: u64,
    frame: FrameId,
    captured_at: Timestamp,
    truth: Arc<Truth>,
}

impl Delayed {
    /// Creates a delayed `driver` with these latencies, and with the prefill period
    /// and the deadline of `run`.
    pub fn new(driver: Box<dyn Driver>, latencies: Latencies, run: &Run) -> Self {
        Self {
            driver,
            delay_line: DelayLine::new(&latencies, run.tick),
            latencies,
            act_budget: run.act_budget,
            trigger: PrefillTrigger::new(run.refresh_period_ticks, 0),
            visible: None,
            pending: None,
            next_version: 1,
            ticks: 0,
            statistics: PilotStatistics::default(),
        }
    }

    /// Returns the counters; prefills are snapshots of the scene.
    pub fn statistics(&self) -> PilotStatistics {
        self.statistics
    }

    fn publish_if_visible(&mut self, now: Timestamp) {
        if let Some((_, snapshot)) = self.pending.take_if(|(visible_at, _)| *visible_at <= now) {
            self.visible = Some(snapshot);
            self.statistics.refreshes_published += 1;
        }
    }

    fn start_prefill_if_due(
        &mut self,
        observation: &Observation,
        truth: &Arc<Truth>,
    ) -> Result<Option<PrefillStarted>, LatencyError> {
        let frame = observation.frame.0;
        let is_due = match &self.latencies.slow {
            LatencySource::Replayed(Some(schedule)) => {
                schedule.latency(Expert::Slow, frame).is_some()
            }
            source => source.is_zero() || self.trigger.is_due(self.ticks),
        };
        if !is_due {
            return Ok(None);
        }
        if self.pending.is_some() {
            self.statistics.refreshes_delayed += 1;
            return Ok(None);
        }
        let version = self.next_version;
        let takes = self.latencies.sample(Expert::Slow, frame)?;
        let snapshot = Snapshot {
            version,
            frame: observation.frame,
            captured_at: observation.time,
            truth: Arc::clone(truth),
        };
        self.pending = Some((observation.time + takes, snapshot));
        self.next_version += 1;
        self.statistics.refreshes_started += 1;
        self.trigger.started(self.ticks);
        Ok(Some(PrefillStarted { version, takes: Latency::Emulated(takes) }))
    }

    /// Returns the observation for the driver and the source of its scene, or `None` before the
    /// first snapshot is visible.
    fn visible_observation(
        &self,
        observation: &Observation,
    ) -> Option<(Observation, Option<PrefixSource>)> {
        let Some(present) = &observation.truth else { return Some((observation.clone(), None)) };
        let scene = self.visible.as_ref()?;
        let truth = if Arc::ptr_eq(present, &scene.truth) {
            Arc::clone(present)
        } else {
            Arc::new(Truth { ego: present.ego, ..Truth::clone(&scene.truth) })
        };
        let source = PrefixSource {
            version: scene.version,
            captured_at: scene.captured_at,
            frames: ArrayVec::from_iter([scene.frame]),
        };
        Some((Observation { truth: Some(truth), ..observation.clone() }, Some(source)))
    }

    fn tick(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        let now = observation.time;
        let drive_error = |error: LatencyError| DriveError {
            frame: observation.frame.0,
            source: Box::new(error),
        };
        let mut prefill_started = None;
        if let Some(truth) = &observation.truth {
            self.publish_if_visible(now);
            prefill_started = self.start_prefill_if_due(observation, truth).map_err(drive_error)?;
            self.publish_if_visible(now);
        }
        let mut report = TickReport::default();
        let mut released = None;
        if let Some((visible, prefix)) = self.visible_observation(observation) {
            let control = self.driver.drive(&visible)?;
            report = control.report;
            if self.delay_line.is_free(now) {
                let frame = observation.frame;
                let takes = self.latencies.sample(Expert::Fast, frame.0).map_err(drive_error)?;
                let result = StepResult { output: control.command, acted_on: frame, prefix };
                self.delay_line.release(now, takes, result);
                released = Some(takes);
            }
        } else {
            self.statistics.ticks_without_prefix += 1;
        }
        let applied = self.delay_line.apply(now);
        report.frame = observation.frame;
        report.action_step = released.map(|takes| ActionStep { takes: Latency::Emulated(takes) });
        report.prefill_started = prefill_started;
        report.is_refreshing = self.pending.is_some();
        let latency = match released {
            Some(takes) => CommandLatency::Released(takes),
            None => CommandLatency::Busy(self.delay_line.busy_for(now)),
        };
        report.deadline = latency.verdict(self.act_budget);
        applied.describe(now, &mut report);
        self.count(&applied, report.deadline);
        let command = applied.output().copied().unwrap_or(Command::FULL_BRAKE);
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
