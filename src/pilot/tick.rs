//! One tick.

use super::deadline::Answered;
use super::fast_lane::{Answer, Basis, FastLane};
use super::refresh::{Collected, RefreshLane, Visible};
use super::refresh_beat::RefreshBeat;
use super::turns::TickGuard;
use super::{Expert, FastReleases, LatencyError, Pace, PilotStatistics, RealTimeReport, Run};
use crate::control::{FilterError, Follower, Localizer};
use crate::kv_cache::{KvSnapshot, SlotPool};
use crate::model::{ActionExpert, Delays, Experts, ModelError, Perception, RefreshRequest};
use crate::scene::random::SplitMix64;
use crate::scene::{
    Command, Control, DeadlineVerdict, Detour, DriveError, Driver, FrameId, Inference, Latency,
    Observation, Plan, Pose, RefreshBegun, TickReport, Trajectory,
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

/// A tick cannot be answered.
#[derive(Debug, thiserror::Error)]
enum TickError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Latency(#[from] LatencyError),
    #[error("the state filter cannot begin at this tick's reading")]
    Filter(#[from] FilterError),
}

/// Drives with two experts at two rates.
pub struct Pilot<P: Perception> {
    perception: P,
    action_expert: Box<dyn ActionExpert<Readings = P::Readings>>,
    refreshes: RefreshLane<P::Inputs>,
    localizer: Localizer,
    follower: Box<dyn Follower>,
    delays: Delays,
    lane: FastLane<Yield>,
    /// What the vehicle was last told.
    last_command: Command,
    pace: Pace,
    act_budget: Duration,
    warm_up_ticks: u64,
    beat: RefreshBeat,
    /// Seed of both experts' random numbers on this drive.
    drive_seed: u64,
    /// Ticks since the route began; the first one is 0.
    ticks: u64,
    turns: Arc<TickGuard>,
    /// From tick to tick, where real time is kept.
    period_ns: Option<u64>,
    statistics: PilotStatistics,
}

impl<P: Perception> Pilot<P> {
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
        experts: Experts<P>,
        localizer: Localizer,
        pool: SlotPool,
    ) -> Result<Self, PilotError> {
        let Experts { mut perception, mut understanding, mut action, follower, delays } = experts;
        let slots = (0..pool.free()).map(|_| pool.writer().expect("nobody else has the pool"));
        for mut writer in slots.collect::<Vec<_>>() {
            understanding.prepare(writer.slot_mut())?;
            action.prepare(writer.slot(), perception.readings())?;
        }
        let turns = Arc::new(TickGuard::new(run.tick_guard));
        let (releases, takes_time) = match &run.pace {
            Pace::Virtual(latencies) => (latencies.fast_releases, !latencies.fast.is_zero()),
            Pace::Lockstep | Pace::Wall => (FastReleases::Overlap, false),
        };
        Ok(Self {
            perception,
            action_expert: action,
            refreshes: RefreshLane::start(
                understanding,
                pool,
                Arc::clone(&turns),
                run.keep_warm,
                run.real_time.clone(),
            )?,
            turns,
            period_ns: matches!(run.pace, Pace::Wall).then_some(run.tick.as_nanos() as u64),
            localizer,
            follower,
            delays,
            lane: FastLane::new(releases, takes_time, run.tick),
            last_command: Command::FULL_BRAKE,
            pace: run.pace.clone(),
            act_budget: run.act_budget,
            warm_up_ticks: run.warm_up_ticks,
            beat: RefreshBeat::new(run.refresh_period_ticks, run.warm_up_ticks),
            drive_seed: run.drive_seed,
            ticks: 0,
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

    fn tick(&mut self, observation: &Observation) -> Result<Control, TickError> {
        let start_ns = now_ns();
        let now = observation.time;
        let mut spans = StageSpans::default();
        let before = self.statistics;
        let world_from_ego = spans.measure(Stage::STATE_FILTER, || self.localize(observation))?;
        let detour = if self.ticks < self.warm_up_ticks {
            Detour::default()
        } else {
            self.follower.begin_tick(self.ticks, &world_from_ego)
        };
        self.perception.observe(observation, &world_from_ego, &detour, &mut spans)?;

        let ended = self.collect(now, &mut spans);
        let refresh_begun = self.begin_refresh_if_due(observation, &mut spans)?;
        // A refresh without latency (lockstep) is visible at the tick that started it.
        let ended = ended.then(self.collect(now, &mut spans));

        let mut trajectory = None;
        let inference = match self.refreshes.latest() {
            Some(prefix) if self.lane.is_free(now) => {
                self.turns.begin();
                let yields = self.act(&prefix, observation, &world_from_ego, &mut spans);
                self.turns.end(self.period_ns.map(|period_ns| start_ns + period_ns));
                match yields? {
                    Some((yields, planned)) => {
                        trajectory = planned;
                        Some(self.release(yields, &prefix, observation)?)
                    }
                    None => None,
                }
            }
            Some(_) => None,
            None => {
                self.statistics.ticks_without_prefix += 1;
                None
            }
        };
        let applied = self.lane.apply(now);
        let command = match applied.yields() {
            None => Command::FULL_BRAKE,
            Some(Yield::Command(command)) => *command,
            Some(Yield::Plan(plan)) => {
                self.follow(plan.as_ref(), observation, &world_from_ego, &mut spans)
            }
        };

        self.last_command = command;
        self.ticks += 1;

        let took = Duration::from_nanos(now_ns() - start_ns).saturating_sub(ended.waited);
        spans.push(Span { stage: Stage::TICK, start_ns, took_ns: took.as_nanos() as u64 });
        let answered = match (&self.pace, inference) {
            (Pace::Lockstep | Pace::Wall, _) => Answered::After(took),
            (Pace::Virtual(_), Some(Inference { takes: Latency::Emulated(takes) })) => {
                Answered::Released(takes)
            }
            (Pace::Virtual(_), _) => Answered::Busy(self.lane.busy_for(now)),
        };
        let deadline = answered.verdict(self.act_budget);
        self.statistics.ticks += 1;
        self.statistics.ticks_held += u64::from(applied.is_held);
        self.statistics.deadline_misses += u64::from(deadline != DeadlineVerdict::Met);
        let mut report = TickReport {
            frame: observation.frame,
            trajectory,
            inference,
            refresh_begun,
            spans,
            refresh: ended.refresh,
            is_refreshing: self.refreshes.is_busy(),
            deadline,
            is_answer_rejected: self.statistics.trajectories_not_finite
                > before.trajectories_not_finite,
            is_filter_restarted: self.statistics.filter_restarts > before.filter_restarts,
            ..TickReport::default()
        };
        applied.describe(now, &mut report);
        Ok(Control { command, report })
    }

    /// How long a step of `expert` takes that begins at `frame`.
    fn latency(&self, expert: Expert, frame: FrameId) -> Result<Latency, LatencyError> {
        match &self.pace {
            Pace::Virtual(latencies) => latencies.draw(expert, frame.0).map(Latency::Emulated),
            Pace::Lockstep | Pace::Wall => Ok(Latency::Measured),
        }
    }

    /// Random numbers of a step that `expert` begins at `frame`.
    fn random(&self, expert: Expert, frame: FrameId) -> SplitMix64 {
        let expert = match expert {
            Expert::Fast => 1,
            Expert::Slow => 2,
        };
        SplitMix64::new([expert, frame.0].into_iter().fold(self.drive_seed, SplitMix64::hash))
    }

    /// Where the vehicle is. A filter that broke down starts anew at this tick's reading.
    fn localize(&mut self, observation: &Observation) -> Result<Pose, FilterError> {
        self.localizer.update(observation, &self.last_command).or_else(|_| {
            self.statistics.filter_restarts += 1;
            self.localizer.restart();
            self.localizer.update(observation, &self.last_command)
        })
    }

    /// Returns what an action step on `prefix` yields, with its trajectory if that is finite; `None`
    /// if the expert has no new trajectory.
    fn act(
        &mut self,
        prefix: &KvSnapshot,
        observation: &Observation,
        world_from_ego: &Pose,
        spans: &mut StageSpans,
    ) -> Result<Option<(Yield, Option<Trajectory>)>, ModelError> {
        let random = self.random(Expert::Fast, observation.frame);
        let readings = self.perception.readings();
        let Some(trajectory) = self.action_expert.act(prefix, readings, random, spans)? else {
            return Ok(None);
        };
        let planned = trajectory.is_finite().then_some(trajectory);
        self.statistics.trajectories_not_finite += u64::from(planned.is_none());
        let (world_from_ego, made_at) = (*world_from_ego, observation.time);
        let plan = planned.clone().map(|trajectory| Plan { trajectory, world_from_ego, made_at });
        let yields = match self.delays {
            Delays::Command => {
                Yield::Command(self.follow(plan.as_ref(), observation, &world_from_ego, spans))
            }
            Delays::Plan => Yield::Plan(plan),
        };
        Ok(Some((yields, planned)))
    }

    /// Returns the follower's command at this tick; full brake without a plan.
    fn follow(
        &mut self,
        plan: Option<&Plan>,
        observation: &Observation,
        world_from_ego: &Pose,
        spans: &mut StageSpans,
    ) -> Command {
        let Observation { time, speed_mps, .. } = *observation;
        spans.measure(Stage::CONTROL, || match plan {
            Some(plan) => self.follower.command(plan, time, world_from_ego, speed_mps),
            None => Command::FULL_BRAKE,
        })
    }

    /// Releases the inference of this tick, which yields `yields`.
    fn release(
        &mut self,
        yields: Yield,
        prefix: &KvSnapshot,
        observation: &Observation,
    ) -> Result<Inference, LatencyError> {
        let takes = self.latency(Expert::Fast, observation.frame)?;
        let delay = match takes {
            Latency::Emulated(delay) => delay,
            Latency::Measured => Duration::ZERO,
        };
        let answer = Answer { yields, acted_on: observation.frame, basis: Some(basis(prefix)) };
        self.lane.release(observation.time, delay, answer);
        Ok(Inference { takes })
    }

    /// Publishes a refresh that became visible, and counts it.
    fn collect(&mut self, now: Timestamp, spans: &mut StageSpans) -> Collected {
        let collected = self.refreshes.collect(now, spans);
        match &collected.refresh {
            Some(refresh) if refresh.is_published => self.statistics.refreshes_published += 1,
            Some(_) => self.statistics.refreshes_failed += 1,
            None => {}
        }
        collected
    }

    fn begin_refresh_if_due(
        &mut self,
        observation: &Observation,
        spans: &mut StageSpans,
    ) -> Result<Option<RefreshBegun>, TickError> {
        if !self.beat.is_due(self.ticks) {
            return Ok(None);
        }
        if self.refreshes.is_busy() {
            self.statistics.refreshes_delayed += 1;
            return Ok(None);
        }
        let begun = Stage::REQUEST.begin();
        let version = self.refreshes.next_version();
        let Some(inputs) = self.perception.inputs() else {
            return Ok(None);
        };
        let random = self.random(Expert::Slow, observation.frame);
        let request = RefreshRequest { version, captured_at: observation.time, random, inputs };
        let takes = self.latency(Expert::Slow, observation.frame)?;
        let visible = match (&self.pace, takes) {
            (Pace::Lockstep, _) => Visible::At(observation.time),
            (_, Latency::Emulated(takes)) => Visible::At(observation.time + takes),
            (_, Latency::Measured) => Visible::WhenDone,
        };
        let is_begun = self.refreshes.begin(request, visible);
        if is_begun {
            self.statistics.refreshes_started += 1;
            self.beat.begun(self.ticks);
        } else {
            self.statistics.slots_exhausted += 1;
        }
        spans.end(begun);
        Ok(is_begun.then_some(RefreshBegun { version, takes }))
    }
}

/// What an action step yields, to be applied once it is visible.
#[derive(Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "in memory taken at the start; ticks do not allocate"
)]
enum Yield {
    /// [`Delays::Command`]: the command.
    Command(Command),
    /// [`Delays::Plan`]: the plan to follow, or `None` to brake, because it was not finite.
    Plan(Option<Plan>),
}

/// What `prefix` was computed from.
fn basis(prefix: &KvSnapshot) -> Basis {
    let meta = prefix.meta();
    let frames = meta.frames.iter().map(|&frame| FrameId(frame)).collect();
    Basis { version: meta.version, captured_at: meta.captured_at, frames }
}

impl<P: Perception> Driver for Pilot<P> {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        self.tick(observation)
            .map_err(|error| DriveError { frame: observation.frame.0, source: Box::new(error) })
    }
}
