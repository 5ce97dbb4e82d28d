//! One tick.

use super::refresh::RefreshLane;
use super::turns::TickGuard;
use super::{Pace, PilotStatistics, RealTimeReport, Run};
use crate::control::{Localizer, PathFollower};
use crate::kv_cache::{KvSnapshot, SlotPool};
use crate::model::{ActionExpert, ModelError, UnderstandingExpert};
use crate::scene::{
    Command, Control, DeadlineVerdict, Detour, DriveError, Driver, FrameId, Observation, Pose,
    PrefixInfo, RefreshReport, TickReport, Trajectory,
};
use crate::timing::{Span, Stage, StageSpans, Timestamp, now_ns};
use std::sync::Arc;
use std::time::Duration;

/// A pilot cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PilotError {
    /// An expert cannot prepare.
    #[error(transparent)]
    Prepare(#[from] ModelError),
    /// There is no thread.
    #[error("the operating system gives no thread for the understanding expert: {0}")]
    Thread(#[from] std::io::Error),
}

/// Drives with two experts at two rates.
pub struct Pilot {
    action_expert: Box<dyn ActionExpert>,
    refreshes: RefreshLane,
    localizer: Localizer,
    controller: PathFollower,
    last_command: Command,
    act_budget: Duration,
    warm_up_ticks: u64,
    refresh_period_ticks: u64,
    /// Ticks since the route began; the first one is 0.
    ticks: u64,
    /// The first tick at which the next refresh is due.
    next_refresh: u64,
    turns: Arc<TickGuard>,
    /// From tick to tick, where real time is kept.
    period_ns: Option<u64>,
    statistics: PilotStatistics,
}

impl Pilot {
    /// A pilot at the start of a route. `pool` holds the slots that prefixes are written to; both
    /// experts prepare for each of them.
    ///
    /// # Errors
    /// If an expert cannot prepare, or the operating system gives no thread for the slow one.
    ///
    /// # Panics
    /// If a slot is taken.
    pub fn new(
        run: &Run,
        mut understanding_expert: Box<dyn UnderstandingExpert>,
        mut action_expert: Box<dyn ActionExpert>,
        localizer: Localizer,
        controller: PathFollower,
        pool: SlotPool,
    ) -> Result<Self, PilotError> {
        let slots = (0..pool.free()).map(|_| pool.writer().expect("nobody else has the pool"));
        for mut writer in slots.collect::<Vec<_>>() {
            understanding_expert.prepare(writer.slot_mut())?;
            action_expert.prepare(writer.slot())?;
        }
        let turns = Arc::new(TickGuard::new(run.tick_guard));
        Ok(Self {
            action_expert,
            refreshes: RefreshLane::start(
                understanding_expert,
                pool,
                run.pace,
                Arc::clone(&turns),
                run.keep_warm,
                run.real_time.clone(),
            )?,
            turns,
            period_ns: matches!(run.pace, Pace::Wall).then_some(run.tick.as_nanos() as u64),
            localizer,
            controller,
            last_command: Command::FULL_BRAKE,
            act_budget: run.act_budget,
            warm_up_ticks: run.warm_up_ticks,
            refresh_period_ticks: run.refresh_period_ticks,
            ticks: 0,
            next_refresh: run.warm_up_ticks,
            statistics: PilotStatistics::default(),
        })
    }

    /// What was counted so far.
    pub fn statistics(&self) -> PilotStatistics {
        self.statistics
    }

    /// What came of the real-time options of the understanding expert's thread.
    pub fn real_time(&self) -> &RealTimeReport {
        self.refreshes.real_time()
    }

    fn tick(&mut self, observation: &Observation) -> Result<Control, ModelError> {
        let start_ns = now_ns();
        let mut spans = StageSpans::default();
        let world_from_ego = spans.measure(Stage::StateFilter, || self.localize(observation));
        let detour = if self.ticks < self.warm_up_ticks {
            Detour::default()
        } else {
            self.controller.begin_tick(self.ticks, &world_from_ego)
        };
        self.action_expert.observe(observation, &world_from_ego, &detour, &mut spans)?;

        let mut refresh = None;
        let mut waited = self.collect(observation.time, &mut refresh, &mut spans);
        self.begin_refresh_if_due(observation, &mut spans);
        // A refresh without latency (lockstep) is visible at the tick that started it.
        waited += self.collect(observation.time, &mut refresh, &mut spans);

        let prefix = self.refreshes.latest();
        let mut followed = None;
        let command = match &prefix {
            Some(prefix) => {
                self.turns.begin();
                let command = self.act(prefix, observation, &mut followed, &mut spans);
                self.turns.end(self.period_ns.map(|period_ns| start_ns + period_ns));
                command?
            }
            None => {
                self.statistics.ticks_without_prefix += 1;
                Command::FULL_BRAKE
            }
        };

        self.last_command = command;
        self.ticks += 1;

        let took = Duration::from_nanos(now_ns() - start_ns).saturating_sub(waited);
        spans.push(Span { stage: Stage::Tick, start_ns, took_ns: took.as_nanos() as u64 });
        self.statistics.ticks += 1;
        let deadline = match took.checked_sub(self.act_budget) {
            Some(by) if !by.is_zero() => {
                self.statistics.deadline_misses += 1;
                DeadlineVerdict::Missed { by }
            }
            _ => DeadlineVerdict::Met,
        };
        let mut report = TickReport {
            frame: observation.frame,
            trajectory: followed,
            spans,
            refresh,
            is_refreshing: self.refreshes.is_busy(),
            deadline,
            ..TickReport::default()
        };
        if let Some(prefix) = &prefix {
            let meta = prefix.meta();
            report.prefix_frames = meta.frames.iter().map(|&frame| FrameId(frame)).collect();
            let age = observation.time.since(meta.captured_at);
            report.prefix = Some(PrefixInfo { version: meta.version, age });
        }
        Ok(Control { command, report })
    }

    /// Where the vehicle is. A filter that broke down starts anew at this tick's reading.
    fn localize(&mut self, observation: &Observation) -> Pose {
        self.localizer.update(observation, &self.last_command).unwrap_or_else(|_| {
            self.statistics.filter_restarts += 1;
            self.localizer.restart();
            self.localizer
                .update(observation, &self.last_command)
                .expect("the configured initial covariance is positive definite")
        })
    }

    fn act(
        &mut self,
        prefix: &KvSnapshot,
        observation: &Observation,
        followed: &mut Option<Trajectory>,
        spans: &mut StageSpans,
    ) -> Result<Command, ModelError> {
        let trajectory = self.action_expert.act(prefix, spans)?;
        let begun = Stage::Control.begin();
        let command = if trajectory.is_finite() {
            self.controller.follow(followed.insert(trajectory), observation.speed_mps)
        } else {
            self.statistics.trajectories_not_finite += 1;
            Command::FULL_BRAKE
        };
        spans.end(begun);
        Ok(command)
    }

    /// Publishes a refresh that became visible and leaves its report in `refresh`; returns the host
    /// time spent waiting for it.
    fn collect(
        &mut self,
        now: Timestamp,
        refresh: &mut Option<RefreshReport>,
        spans: &mut StageSpans,
    ) -> Duration {
        let collected = self.refreshes.collect(now, &mut self.statistics, spans);
        // Two at one tick would take a refresh that is done before this tick goes on; the newer one
        // is then the one that the tick acts on.
        if collected.refresh.is_some() {
            *refresh = collected.refresh;
        }
        collected.waited
    }

    fn begin_refresh_if_due(&mut self, observation: &Observation, spans: &mut StageSpans) {
        if self.ticks < self.next_refresh {
            return;
        }
        if self.refreshes.is_busy() {
            self.statistics.refreshes_delayed += 1;
            return;
        }
        let begun = Stage::Request.begin();
        let version = self.refreshes.next_version();
        let Some(request) = self.action_expert.refresh_request(version) else {
            return;
        };
        let is_first = version == 1;
        if self.refreshes.begin(request, observation.time, &mut self.statistics) {
            let period = self.refresh_period_ticks;
            // The first refresh comes when it can, the others on the beat, as in the release.
            let off_beat = if is_first { self.ticks % period } else { 0 };
            self.next_refresh = self.ticks - off_beat + period;
        }
        spans.end(begun);
    }
}

impl Driver for Pilot {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        self.tick(observation)
            .map_err(|error| DriveError { frame: observation.frame.0, source: Box::new(error) })
    }
}
