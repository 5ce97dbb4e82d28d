//! One drive along one route: the loop that lets a driver act in a world and a judge watch.

use super::log::{LogRecorder, RouteLog};
use crate::scoring::{
    Ending, Failure, Judgment, MotionLog, MotionSample, RouteJudge, RouteResult, Safety, TICK_CAP,
    Verdict,
};
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tandem_scene::{Command, Control, Driver, Observation, World};
use tandem_timing::Stopwatch;

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
    /// How the vehicle moved, tick by tick.
    pub motion: MotionLog,
    /// What neither of them shows.
    pub safety: Safety,
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
/// Each tick: observe, drive, judge, step. The command takes effect in the step after it. However the
/// drive ends, by a panic too, the last command that the world gets is a full brake.
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
    let mut log = LogRecorder::new(&plan, &world.lane_strips());
    // With room for the longest drive, so that the loop does not allocate.
    let ticks = usize::try_from(TICK_CAP + 1).expect("4001 fits any usize");
    let mut motion: Vec<MotionSample> = Vec::with_capacity(ticks);
    let mut safety = Safety::default();
    let drive = || loop {
        if cancel.load(Ordering::Relaxed) {
            break RouteEnd::Cancelled;
        }
        let observation = world.observe();
        safety.see(&observation);
        let control = match driver.drive(&observation).map_err(|error| words_of(&error)) {
            Ok(control) => control,
            Err(words) => break RouteEnd::DriverFailed(words),
        };
        safety.count(&control.report);
        watch(&observation, &control);
        let Some(command) = possible(&control.command) else {
            safety.answers_not_finite += 1;
            let words = format!("the command is not finite: {:?}", control.command);
            break RouteEnd::DriverFailed(words);
        };
        log.tick(world.state(), command, &control);
        motion.push(MotionSample::of(&world.state().ego));
        if let Verdict::Over(ending) = judge.tick(world.state(), world.lanes()) {
            break RouteEnd::Judged(ending);
        }
        world.step(&command);
    };
    // What a panic left half done is not looked at again, the world aside, which only gets to stop.
    let end = catch_unwind(AssertUnwindSafe(drive));
    let duration_game_s = world.state().time_s;
    let stopped = catch_unwind(AssertUnwindSafe(|| world.step(&Command::FULL_BRAKE)));
    let end = end.unwrap_or_else(|panic| resume_unwind(panic));
    stopped.unwrap_or_else(|panic| resume_unwind(panic));
    let judgment = judge.close();
    RouteOutcome {
        end,
        log: log.finish(&judgment.infractions),
        motion: MotionLog::of_ticks(&motion),
        judgment,
        safety,
        duration_game_s,
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
pub(crate) fn words_of(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words += &format!(": {cause}");
        source = cause.source();
    }
    words
}
