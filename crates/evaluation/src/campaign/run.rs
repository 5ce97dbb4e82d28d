//! One drive along one route: the loop of world, driver and judge.

use super::log::{LogRecorder, RouteLog};
use crate::scoring::{
    Ending, Failure, Judgment, MotionLog, MotionSample, RouteJudge, RouteResult, Safety, TICK_CAP,
    TickVerdict,
};
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tandem_scene::{Command, Control, Driver, Observation, World};
use tandem_timing::Stopwatch;

/// Reason why a drive ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteEnd {
    /// The judge ended the route.
    Judged(Ending),
    /// The driver returned an error, with its message, or a command that is not finite.
    DriverFailed(String),
    /// The drive was cancelled and has no result.
    Cancelled,
}

/// Outcome and logs of one drive.
#[derive(Clone, Debug)]
pub struct RouteOutcome {
    pub end: RouteEnd,
    pub judgment: Judgment,
    pub log: RouteLog,
    /// Motion of the vehicle at each tick.
    pub motion: MotionLog,
    pub safety: Safety,
    /// Simulation time driven, seconds.
    pub duration_game_s: f64,
    /// Wall time of the drive, seconds.
    pub duration_system_s: f64,
}

impl RouteOutcome {
    /// Returns the input for the record; `None` if the drive was cancelled.
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

/// Runs `driver` in `world` until the judge ends the route (at the latest after `tick_cap` ticks;
/// the benchmark's limit is [`TICK_CAP`]), the driver fails, or `cancel` is set. Calls `watch` at
/// every tick after the driver has answered.
///
/// Each tick: observe, drive, judge, step. A command takes effect in the step that follows it.
/// However the drive ends, even by a panic, the world's last command is a full brake.
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
    // Capacity for the longest drive, so that the loop does not allocate.
    let ticks = usize::try_from(TICK_CAP + 1).expect("4001 fits any usize");
    let mut motion: Vec<MotionSample> = Vec::with_capacity(ticks);
    let mut safety = Safety::default();
    let drive = || loop {
        if cancel.load(Ordering::Relaxed) {
            break RouteEnd::Cancelled;
        }
        let observation = world.observe();
        safety.count_observation(&observation);
        let control = match driver.drive(&observation).map_err(|error| error_chain_text(&error)) {
            Ok(control) => control,
            Err(message) => break RouteEnd::DriverFailed(message),
        };
        safety.count_report(&control.report);
        watch(&observation, &control);
        let Some(command) = valid_command(&control.command) else {
            safety.answers_not_finite += 1;
            let message = format!("the command is not finite: {:?}", control.command);
            break RouteEnd::DriverFailed(message);
        };
        log.tick(world.state(), command, &control);
        motion.push(MotionSample::of(&world.state().ego));
        if let TickVerdict::Ended(ending) = judge.tick(world.state(), world.lanes()) {
            break RouteEnd::Judged(ending);
        }
        world.step(&command);
    };
    // After a panic only the world is used again, and only to brake.
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

/// Clamps a command to the valid ranges; `None` if it contains NaN or infinity.
fn valid_command(command: &Command) -> Option<Command> {
    let Command { steer, throttle, brake } = *command;
    [steer, throttle, brake].iter().all(|part| part.is_finite()).then(|| Command {
        steer: steer.clamp(-1.0, 1.0),
        throttle: throttle.clamp(0.0, 1.0),
        brake: brake.clamp(0.0, 1.0),
    })
}

/// Formats an error and its causes on one line.
pub(crate) fn error_chain_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
