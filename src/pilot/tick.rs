//! The control tick.

use super::deadline::CommandLatency;
use super::delay_line::{DelayLine, PrefixSource, StepResult};
use super::prefill::{Collected, PrefillThread, Visibility};
use super::prefill_trigger::PrefillTrigger;
use super::tick_guard::TickGuard;
use super::{Expert, LatencyError, Pace, PilotStatistics, RealTimeReport, Run};
use crate::control::{FilterError, Follower, Localizer};
use crate::kv_cache::{KvSnapshot, SlotPool};
use crate::model::{ActionExpert, DelayedOutput, Experts, ModelError, Perception, PrefillRequest};
use crate::scene::random::SplitMix64;
use crate::scene::{
    ActionStep, Command, Control, DeadlineVerdict, Detour, DriveError, Driver, FrameId, Latency,
    Observation, Plan, Pose, PrefillStarted, TickReport, Trajectory,
};
use crate::timing::{Span, Stage, StageSpans, Timestamp, now_ns};
use std::sync::Arc;
use std::time::Duration;

/// Error returned when a pilot cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PilotError {
    #[error(transparent)]
    Prepare(#[from] ModelError),
    #[error("the thread of the understanding expert could not be spawned: {0}")]
    Thread(#[from] std::io::Error),
}

/// Error returned when a tick fails.
#[derive(Debug, thiserror::Error)]
enum TickError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Latency(#[from] LatencyError),
    #[error("the state filter cannot restart from this tick's reading")]
    Filter(#[from] FilterError),
}

/// Drives with two experts at two rates.
pub struct Pilot<P: Perception> {
    perception: P,
    action_expert: Box<dyn ActionExpert<Readings = P::Readings>>,
    prefills: PrefillThread<P::Inputs>,
    localizer: Localizer,
    follower: Box<dyn Follower>,
    delays: DelayedOutput,
    delay_line: DelayLine<StepOutput>,
    last_command: Command,
    pace: Pace,
    act_budget: Duration,
    warm_up_ticks: u64,
    trigger: PrefillTrigger,
    /// Seed of both experts on this drive.
    drive_seed: u64,
    /// Ticks since the route began; the first one is 0.
    ticks: u64,
    gate: Arc<TickGuard>,
    /// Tick period in real time; `None` in the other time modes.
    period_ns: Option<u64>,
    statistics: PilotStatistics,
}

impl<P: Perception> Pilot<P> {
    /// Creates a pilot at the start of a route. `pool` holds the slots of the prefixes;
    /// both experts prepare each of them. Fails if an expert cannot prepare or the slow
    /// expert's thread cannot be spawned.
    pub fn new(
        run: &Run,
        experts: Experts<P>,
        localizer: Localizer,
        pool: SlotPool,
    ) -> Result<Self, PilotError> {
        let Experts { mut perception, mut understanding, mut action, follower, delays } = experts;
        pool.prepare_slots(|slot| {
            understanding.prepare(slot)?;
            action.prepare(slot, perception.readings())
        })?;
        let gate = Arc::new(TickGuard::new(run.tick_guard));
        let delay_line = match &run.pace {
            Pace::Virtual(latencies) => DelayLine::new(latencies, run.tick),
            Pace::Lockstep | Pace::Wall => DelayLine::immediate(),
        };
        Ok(Self {
            perception,
            action_expert: action,
            prefills: PrefillThread::start(
                understanding,
                pool,
                Arc::clone(&gate),
                run.keep_warm,
                run.real_time.clone(),
            )?,
            gate,
            period_ns: matches!(run.pace, Pace::Wall).then_some(run.tick.as_nanos() as u64),
            localizer,
            follower,
            delays,
            delay_line,
            last_command: Command::FULL_BRAKE,
            pace: run.pace.clone(),
            act_budget: run.act_budget,
            warm_up_ticks: run.warm_up_ticks,
            trigger: PrefillTrigger::new(run.refresh_period_ticks, run.warm_up_ticks),
            drive_seed: run.drive_seed,
            ticks: 0,
            statistics: PilotStatistics::default(),
        })
    }

    /// Returns the counters of this route.
    pub fn statistics(&self) -> PilotStatistics {
        self.statistics
    }

    /// Returns the outcome of the real-time options of the understanding expert's thread.
    pub fn real_time(&self) -> &RealTimeReport {
        self.prefills.real_time()
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
        let prefill_started = self.start_prefill_if_due(observation, &mut spans)?;
        // A prefill without latency (lockstep) is visible at the tick that started it.
        let ended = ended.then(self.collect(now, &mut spans));

        let mut trajectory = None;
        let action_step = match self.prefills.latest() {
            Some(prefix) if self.delay_line.is_free(now) => {
                self.gate.begin();
                let result = self.act(&prefix, observation, &world_from_ego, &mut spans);
                self.gate.end(self.period_ns.map(|period_ns| start_ns + period_ns));
                match result? {
                    Some((output, planned)) => {
                        trajectory = planned;
                        Some(self.release(output, &prefix, observation)?)
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
        let applied = self.delay_line.apply(now);
        let command = match applied.output() {
            None => Command::FULL_BRAKE,
            Some(StepOutput::Command(command)) => *command,
            Some(StepOutput::Plan(plan)) => {
                self.follow(plan.as_ref(), observation, &world_from_ego, &mut spans)
            }
        };

        self.last_command = command;
        self.ticks += 1;

        let took = Duration::from_nanos(now_ns() - start_ns).saturating_sub(ended.waited);
        spans.push(Span { stage: Stage::TICK, start_ns, took_ns: took.as_nanos() as u64 });
        let latency = match (&self.pace, action_step) {
            (Pace::Lockstep | Pace::Wall, _) => CommandLatency::Measured(took),
            (Pace::Virtual(_), Some(ActionStep { takes: Latency::Emulated(takes) })) => {
                CommandLatency::Released(takes)
            }
            (Pace::Virtual(_), _) => CommandLatency::Busy(self.delay_line.busy_for(now)),
        };
        let deadline = latency.verdict(self.act_budget);
        self.statistics.ticks += 1;
        self.statistics.ticks_held += u64::from(applied.is_held);
        self.statistics.deadline_misses += u64::from(deadline != DeadlineVerdict::Met);
        let mut report = TickReport {
            frame: observation.frame,
            trajectory,
            action_step,
            prefill_started,
            spans,
            prefill: ended.prefill,
            is_refreshing: self.prefills.is_busy(),
            deadline,
            is_answer_rejected: self.statistics.trajectories_not_finite
                > before.trajectories_not_finite,
            is_filter_restarted: self.statistics.filter_restarts > before.filter_restarts,
            ..TickReport::default()
        };
        applied.describe(now, &mut report);
        Ok(Control { command, report })
    }

    /// Returns the latency of the run of `expert` that starts at `frame`.
    fn latency(&self, expert: Expert, frame: FrameId) -> Result<Latency, LatencyError> {
        match &self.pace {
            Pace::Virtual(latencies) => latencies.sample(expert, frame.0).map(Latency::Emulated),
            Pace::Lockstep | Pace::Wall => Ok(Latency::Measured),
        }
    }

    /// Returns the random numbers of the run of `expert` that starts at `frame`.
    fn random(&self, expert: Expert, frame: FrameId) -> SplitMix64 {
        let expert = match expert {
            Expert::Fast => 1,
            Expert::Slow => 2,
        };
        SplitMix64::new([expert, frame.0].into_iter().fold(self.drive_seed, SplitMix64::hash))
    }

    /// Estimates the pose of the vehicle. If the filter fails, it is
    /// restarted from this tick's reading.
    fn localize(&mut self, observation: &Observation) -> Result<Pose, FilterError> {
        self.localizer.update(observation, &self.last_command).or_else(|_| {
            self.statistics.filter_restarts += 1;
            self.localizer.restart();
            self.localizer.update(observation, &self.last_command)
        })
    }

    /// Runs an action step on `prefix` and returns its output, with its trajectory if that is
    /// finite; `None` if the expert has no new trajectory.
    fn act(
        &mut self,
        prefix: &KvSnapshot,
        observation: &Observation,
        world_from_ego: &Pose,
        spans: &mut StageSpans,
    ) -> Result<Option<(StepOutput, Option<Trajectory>)>, ModelError> {
        let random = self.random(Expert::Fast, observation.frame);
        let readings = self.perception.readings();
        let Some(trajectory) = self.action_expert.act(prefix, readings, random, spans)? else {
            return Ok(None);
        };
        let planned = trajectory.is_finite().then_some(trajectory);
        self.statistics.trajectories_not_finite += u64::from(planned.is_none());
        let (world_from_ego, made_at) = (*world_from_ego, observation.time);
        let plan = planned.clone().map(|trajectory| Plan { trajectory, world_from_ego, made_at });
        let output = match self.delays {
            DelayedOutput::Command => {
                StepOutput::Command(self.follow(plan.as_ref(), observation, &world_from_ego, spans))
            }
            DelayedOutput::Plan => StepOutput::Plan(plan),
        };
        Ok(Some((output, planned)))
    }

    /// Returns the follower's command at this tick, or full brake without a plan.
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

    /// Releases the action step of this tick with its output.
    fn release(
        &mut self,
        output: StepOutput,
        prefix: &KvSnapshot,
        observation: &Observation,
    ) -> Result<ActionStep, LatencyError> {
        let takes = self.latency(Expert::Fast, observation.frame)?;
        let delay = match takes {
            Latency::Emulated(delay) => delay,
            Latency::Measured => Duration::ZERO,
        };
        let result =
            StepResult { output, acted_on: observation.frame, prefix: Some(source(prefix)) };
        self.delay_line.release(observation.time, delay, result);
        Ok(ActionStep { takes })
    }

    /// Publishes a prefill that became visible, and counts it.
    fn collect(&mut self, now: Timestamp, spans: &mut StageSpans) -> Collected {
        let collected = self.prefills.collect(now, spans);
        match &collected.prefill {
            Some(prefill) if prefill.is_published => self.statistics.refreshes_published += 1,
            Some(_) => self.statistics.refreshes_failed += 1,
            None => {}
        }
        collected
    }

    fn start_prefill_if_due(
        &mut self,
        observation: &Observation,
        spans: &mut StageSpans,
    ) -> Result<Option<PrefillStarted>, TickError> {
        if !self.trigger.is_due(self.ticks) {
            return Ok(None);
        }
        if self.prefills.is_busy() {
            self.statistics.refreshes_delayed += 1;
            return Ok(None);
        }
        let stage = Stage::REQUEST.begin();
        let version = self.prefills.next_version();
        let Some(inputs) = self.perception.inputs() else {
            return Ok(None);
        };
        let random = self.random(Expert::Slow, observation.frame);
        let request = PrefillRequest { version, captured_at: observation.time, random, inputs };
        let takes = self.latency(Expert::Slow, observation.frame)?;
        let visibility = match (&self.pace, takes) {
            (Pace::Lockstep, _) => Visibility::At(observation.time),
            (_, Latency::Emulated(takes)) => Visibility::At(observation.time + takes),
            (_, Latency::Measured) => Visibility::WhenDone,
        };
        let is_started = self.prefills.start_prefill(request, visibility);
        if is_started {
            self.statistics.refreshes_started += 1;
            self.trigger.started(self.ticks);
        } else {
            self.statistics.slots_exhausted += 1;
        }
        spans.end(stage);
        Ok(is_started.then_some(PrefillStarted { version, takes }))
    }
}

/// Output of an action step, applied once it is visible.
#[derive(Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "allocated at the start; boxing would allocate at every tick"
)]
enum StepOutput {
    /// For [`DelayedOutput::Command`].
    Command(Command),
    /// For [`DelayedOutput::Plan`]: the plan to follow, or `None` to brake
    /// because it was not finite.
    Plan(Option<Plan>),
}

/// Returns the source of `prefix`.
fn source(prefix: &KvSnapshot) -> PrefixSource {
    let meta = prefix.meta();
    let frames = meta.frames.iter().map(|&frame| FrameId(frame)).collect();
    PrefixSource { version: meta.version, captured_at: meta.captured_at, frames }
}

impl<P: Perception> Driver for Pilot<P> {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        self.tick(observation)
            .map_err(|error| DriveError { frame: observation.frame.0, source: Box::new(error) })
    }
}
