//! One drive along one route: the loop that lets a driver act in a world and a judge watch.

use super::criteria::{Ending, Judgment, RouteJudge, TICK_CAP, Verdict};
use super::statistics::{Failure, Infraction, InfractionKind, RouteResult};
use crate::scene::{
    Command, Control, DeadlineVerdict, Driver, Observation, PrefixInfo, RoutePlan, WorldState,
};
use crate::timing::{Stage, StageStatistics, StageTimes, Stopwatch};
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How a drive ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteEnd {
    /// By the rules.
    Judged(Ending),
    /// The driver gave up, or answered something that no vehicle can do; with its words.
    DriverFailed(String),
    /// Somebody asked to stop. Such a drive has no result.
    Cancelled,
}

/// What came of one drive.
#[derive(Clone, Debug)]
pub struct RouteOutcome {
    /// How it ended.
    pub end: RouteEnd,
    /// What the judge says.
    pub judgment: Judgment,
    /// Tick by tick.
    pub log: RouteLog,
    /// Simulation time driven, seconds.
    pub duration_game_s: f64,
    /// Wall time that took, seconds.
    pub duration_system_s: f64,
}

impl RouteOutcome {
    /// What a record is computed from; `None` if the drive was cancelled.
    pub fn result(&self) -> Option<RouteResult> {
        let failure = match self.end {
            RouteEnd::Judged(Ending::TickCap) => Some(Failure::TickCap),
            RouteEnd::Judged(_) => None,
            RouteEnd::DriverFailed(_) => Some(Failure::AgentCrashed),
            RouteEnd::Cancelled => return None,
        };
        Some(RouteResult {
            route_length_m: Some(self.judgment.route_length_m),
            completion: self.judgment.completion,
            infractions: self.judgment.infractions.clone(),
            timed_out: self.judgment.timed_out,
            failure,
            duration_game_s: self.duration_game_s,
            duration_system_s: self.duration_system_s,
        })
    }
}

/// Drives `driver` through `world` until the judge ends the route (after `tick_cap` ticks at the
/// latest; the benchmark's is [`TICK_CAP`]), the driver fails, or `cancel` is set. `watch` sees every
/// tick after the driver has answered.
///
/// Each tick: observe, drive, judge, step. The command takes effect in the step after it.
pub fn run_route(
    world: &mut dyn World,
    driver: &mut dyn Driver,
    tick_cap: u64,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(&Observation, &Control),
) -> RouteOutcome {
    let stopwatch = Stopwatch::start();
    let plan = Arc::clone(world.plan());
    let mut judge = RouteJudge::new(&plan).with_tick_cap(tick_cap);
    let mut log = RouteLog::of_plan(&plan);
    let end = loop {
        if cancel.load(Ordering::Relaxed) {
            break RouteEnd::Cancelled;
        }
        let observation = world.observe();
        let control = match driver.drive(&observation).map_err(|error| words_of(&error)) {
            Ok(control) => control,
            Err(words) => break RouteEnd::DriverFailed(words),
        };
        watch(&observation, &control);
        let Some(command) = possible(&control.command) else {
            let words = format!("the command is not finite: {:?}", control.command);
            break RouteEnd::DriverFailed(words);
        };
        log.ticks.push(TickLog::new(world.state(), command, &control));
        if let Verdict::Over(ending) = judge.tick(world.state(), world.lanes()) {
            break RouteEnd::Judged(ending);
        }
        world.step(&command);
    };
    let judgment = judge.close();
    log.note_infractions(&judgment.infractions);
    RouteOutcome {
        end,
        judgment,
        log,
        duration_game_s: world.state().time_s,
        duration_system_s: stopwatch.elapsed().as_secs_f64(),
    }
}

/// The nearest command that a vehicle can carry out; `None` for NaN and infinity.
fn possible(command: &Command) -> Option<Command> {
    let Command { steer, throttle, brake } = *command;
    [steer, throttle, brake].iter().all(|part| part.is_finite()).then(|| Command {
        steer: steer.clamp(-1.0, 1.0),
        throttle: throttle.clamp(0.0, 1.0),
        brake: brake.clamp(0.0, 1.0),
    })
}

/// An error and everything behind it, on one line.
pub(super) fn words_of(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words += &format!(": {cause}");
        source = cause.source();
    }
    words
}

/// What happened at one tick.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(into = "TickLine", from = "TickLine")]
pub struct TickLog {
    /// Simulation time, seconds.
    pub time_s: f64,
    /// Ego position in the world, meters.
    pub x_m: f64,
    /// Ego position in the world, meters.
    pub y_m: f64,
    /// Ego heading in the world, radians.
    pub yaw_rad: f64,
    /// Forward speed, m/s.
    pub speed_mps: f64,
    /// What the driver answered.
    pub command: Command,
    /// What that took.
    pub stages: StageTimes,
    /// The prefix it rests on.
    pub prefix: Option<PrefixInfo>,
    /// Whether it came in time.
    pub deadline: DeadlineVerdict,
}

impl TickLog {
    fn new(state: &WorldState, command: Command, control: &Control) -> Self {
        Self {
            time_s: state.time_s,
            x_m: state.ego.pose.position.x,
            y_m: state.ego.pose.position.y,
            yaw_rad: state.ego.pose.yaw_rad,
            speed_mps: state.ego.speed_mps,
            command,
            stages: control.report.times(),
            prefix: control.report.prefix,
            deadline: control.report.deadline,
        }
    }
}

/// A drive, tick by tick, with all that a report draws of it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RouteLog {
    /// The dense route in the plane, world meters.
    pub planned_m: Vec<[f64; 2]>,
    /// What went wrong and when; average speeds are left out, since every route has twenty.
    pub events: Vec<LoggedEvent>,
    /// One per tick that the driver answered, in order.
    pub ticks: Vec<TickLog>,
}

/// An infraction as a report marks it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoggedEvent {
    /// The tick it was recorded at, from 1, if one.
    pub tick: Option<u64>,
    /// The record's words.
    pub message: String,
}

impl RouteLog {
    /// A log of no tick, with room for the longest drive, so that logging does not allocate.
    fn of_plan(plan: &RoutePlan) -> Self {
        let ticks = usize::try_from(TICK_CAP + 1).expect("4001 fits any usize");
        Self {
            planned_m: plan.points.iter().map(|p| p.position.truncate().to_array()).collect(),
            events: Vec::new(),
            ticks: Vec::with_capacity(ticks),
        }
    }

    fn note_infractions(&mut self, infractions: &[Infraction]) {
        let events = infractions.iter().filter(|event| event.kind != InfractionKind::MinSpeed);
        self.events = events
            .map(|event| LoggedEvent { tick: event.tick, message: event.message.clone() })
            .collect();
    }

    /// What stages took from tick `warm_up` (counted from 0) on.
    pub fn statistics(&self, warm_up: usize) -> StageStatistics {
        let mut statistics = StageStatistics::new();
        for tick in self.ticks.iter().skip(warm_up) {
            let is_late = tick.deadline != DeadlineVerdict::Met;
            statistics.record(&tick.stages, tick.prefix.map(|prefix| prefix.age), is_late);
        }
        statistics
    }
}

/// A [`TickLog`] in a file.
#[derive(Serialize, Deserialize)]
struct TickLine {
    time_s: f64,
    x_m: f64,
    y_m: f64,
    yaw_rad: f64,
    speed_mps: f64,
    steer: f64,
    throttle: f64,
    brake: f64,
    /// By stage name; names that this version does not know are dropped when reading.
    stages_ns: BTreeMap<String, u64>,
    prefix_version: Option<u64>,
    prefix_age_ns: Option<u64>,
    late_by_ns: Option<u64>,
}

impl From<TickLog> for TickLine {
    fn from(tick: TickLog) -> Self {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let stages = tick.stages.iter();
        Self {
            time_s: tick.time_s,
            x_m: tick.x_m,
            y_m: tick.y_m,
            yaw_rad: tick.yaw_rad,
            speed_mps: tick.speed_mps,
            steer: tick.command.steer,
            throttle: tick.command.throttle,
            brake: tick.command.brake,
            stages_ns: stages.map(|(s, took)| (s.name().to_owned(), nanos(took))).collect(),
            prefix_version: tick.prefix.map(|prefix| prefix.version),
            prefix_age_ns: tick.prefix.map(|prefix| nanos(prefix.age)),
            late_by_ns: match tick.deadline {
                DeadlineVerdict::Met => None,
                DeadlineVerdict::Missed { by } => Some(nanos(by)),
            },
        }
    }
}

impl From<TickLine> for TickLog {
    fn from(line: TickLine) -> Self {
        let mut stages = StageTimes::default();
        for stage in Stage::ALL {
            if let Some(took_ns) = line.stages_ns.get(stage.name()) {
                stages.set(stage, Duration::from_nanos(*took_ns));
            }
        }
        let prefix = line.prefix_version.zip(line.prefix_age_ns);
        Self {
            time_s: line.time_s,
            x_m: line.x_m,
            y_m: line.y_m,
            yaw_rad: line.yaw_rad,
            speed_mps: line.speed_mps,
            command: Command { steer: line.steer, throttle: line.throttle, brake: line.brake },
            stages,
            prefix: prefix
                .map(|(version, age_ns)| PrefixInfo { version, age: Duration::from_nanos(age_ns) }),
            deadline: line.late_by_ns.map_or(DeadlineVerdict::Met, |by_ns| {
                DeadlineVerdict::Missed { by: Duration::from_nanos(by_ns) }
            }),
        }
    }
}
