//! Latencies that delay the command or the plan, closed loop with a scripted planner.

use std::time::Duration;
use tandem::control::{Follower, Localizer, PathFollower, PathFollowerConfig, StateFilterConfig};
use tandem::model::DelayedOutput;
use tandem::pilot::{ClockName, FastReleases, Pace, PilotStatistics, Run, RunFile};
use tandem::scene::{Command, Control, Driver, Observation, Plan, World};
use tandem_testkit::planner::{PLANNER_SENSORS, planner};
use tandem_testkit::world::demo_world;
use tandem_world::EmbeddedWorld;

const TICKS: usize = 400;

const BOTH: [DelayedOutput; 2] = [DelayedOutput::Command, DelayedOutput::Plan];

fn lockstep() -> RunFile {
    RunFile { warm_up_ticks: 0, ..RunFile::default() }
}

fn virtual_time(slow: &str, fast: &str, fast_releases: FastReleases) -> RunFile {
    RunFile {
        clock: ClockName::Virtual,
        slow_latency: slow.parse().unwrap(),
        fast_latency: fast.parse().unwrap(),
        fast_releases,
        ..lockstep()
    }
}

/// Input and output of a tick.
struct Tick {
    observation: Observation,
    control: Control,
    off_center_m: f64,
}

/// A drive of the demo route.
struct Drive {
    ticks: Vec<Tick>,
    statistics: PilotStatistics,
}

impl Drive {
    fn of(file: &RunFile, delays: DelayedOutput, period_ticks: u64) -> Self {
        let run = Run::try_from(file).unwrap();
        let pace = match &run.pace {
            Pace::Virtual(latencies) => Pace::Virtual(latencies.for_drive(1, &1.into(), None)),
            pace => pace.clone(),
        };
        let run = Run { pace, ..run };
        let mut world = world();
        let reference = world.plan().reference;
        let follower = PathFollower::new(PathFollowerConfig::default());
        let mut pilot = planner(&run, reference, Box::new(follower), delays, period_ticks).unwrap();
        let ticks = (0..TICKS).map(|_| {
            let observation = world.observe();
            let control = pilot.drive(&observation).unwrap();
            let ego = world.state().ego.pose.position;
            let points = world.plan().points.iter();
            let distance =
                |point: &tandem::scene::RoutePoint| point.position.truncate().distance(ego);
            let off_center_m = points.map(distance).fold(f64::INFINITY, f64::min);
            world.step(&control.command);
            Tick { observation, control, off_center_m }
        });
        Self { ticks: ticks.collect(), statistics: pilot.statistics() }
    }

    fn bits(&self) -> Vec<[u64; 3]> {
        self.ticks.iter().map(|tick| bits(tick.control.command)).collect()
    }

    fn length_m(&self) -> f64 {
        self.ticks.iter().map(|tick| tick.observation.speed_mps * 0.05).sum()
    }
}

fn bits(Command { steer, throttle, brake }: Command) -> [u64; 3] {
    [steer, throttle, brake].map(f64::to_bits)
}

fn world() -> EmbeddedWorld {
    demo_world(PLANNER_SENSORS, 1)
}

#[test]
fn without_latency_both_modes_give_the_same_commands() {
    let expected = Drive::of(&lockstep(), DelayedOutput::Command, 1);
    assert!(expected.length_m() > 50.0, "{} m driven", expected.length_m());
    let steers: Vec<_> = expected.ticks.iter().map(|tick| tick.control.command.steer).collect();
    assert!(steers.iter().any(|steer| *steer != steers[0]), "the steering angle is constant");
    let runs = [
        lockstep(),
        virtual_time("0", "0", FastReleases::Overlap),
        virtual_time("0", "0", FastReleases::Busy),
    ];
    for run in &runs {
        for delays in BOTH {
            let drive = Drive::of(run, delays, 1);
            assert!(drive.bits() == expected.bits(), "{delays:?} in {run:?}");
            assert_eq!(drive.statistics.ticks_held, 0);
        }
    }
    // Only prefills are late.
    let run = virtual_time("130", "0", FastReleases::Overlap);
    let [command, plan] = BOTH.map(|delays| Drive::of(&run, delays, 1).bits());
    assert!(command == plan && command != expected.bits());
}

/// Recomputes the commands of a drive with delayed plans from its reports: each tick follows the
/// plan of the reported tick from its own pose.
fn followed(drive: &Drive) -> Vec<[u64; 3]> {
    let mut localizer = Localizer::new(StateFilterConfig::default(), world().plan().reference);
    let mut follower = PathFollower::new(PathFollowerConfig::default());
    let mut last = Command::FULL_BRAKE;
    let mut poses = Vec::new();
    let first = drive.ticks[0].observation.frame.0;
    let mut commands = Vec::new();
    for (tick, Tick { observation, control, .. }) in drive.ticks.iter().enumerate() {
        let pose = localizer.update(observation, &last).unwrap();
        poses.push(pose);
        follower.begin_tick(tick as u64, &pose);
        last = control.report.acted_on.map_or(Command::FULL_BRAKE, |acted_on| {
            let made = (acted_on.0 - first) as usize;
            let Tick { observation: then, control, .. } = &drive.ticks[made];
            let plan = Plan {
                trajectory: control.report.trajectory.clone().unwrap(),
                world_from_ego: poses[made],
                made_at: then.time,
            };
            let trajectory = plan.at(observation.time, &pose);
            assert_eq!(
                trajectory == plan.trajectory,
                made == tick,
                "only an older plan is transformed"
            );
            follower.follow(&trajectory, observation.speed_mps)
        });
        commands.push(bits(last));
    }
    commands
}

#[test]
fn delayed_plan_is_followed_from_the_pose_of_each_tick() {
    for (fast, releases) in [
        ("100", FastReleases::Overlap),
        ("130", FastReleases::Busy),
        ("500", FastReleases::Busy),
        ("uniform:min=10,max=300", FastReleases::Overlap),
    ] {
        let run = virtual_time("0", fast, releases);
        let plan = Drive::of(&run, DelayedOutput::Plan, 1);
        assert!(plan.length_m() > 50.0, "{} m driven", plan.length_m());
        assert!(plan.bits() == followed(&plan), "{fast} ms");
        // Both modes act on the same plans at the same ticks, but give other commands.
        let command = Drive::of(&run, DelayedOutput::Command, 1);
        let acted_on = |drive: &Drive| -> Vec<_> {
            let reports = drive.ticks.iter().map(|tick| &tick.control.report);
            reports.map(|report| (report.acted_on, report.is_held)).collect()
        };
        assert_eq!(acted_on(&plan), acted_on(&command));
        assert_ne!(plan.bits(), command.bits());
    }
}

#[test]
fn plans_at_2_hz_are_driven_at_20_hz() {
    let busy = virtual_time("0", "500", FastReleases::Busy);
    for (run, period_ticks) in [(lockstep(), 10), (busy, 1)] {
        let drive = Drive::of(&run, DelayedOutput::Plan, period_ticks);
        let held: Vec<_> = drive.ticks.windows(2).filter(|t| t[1].control.report.is_held).collect();
        assert!(held.len() > TICKS * 8 / 10, "{} ticks follow an older plan", held.len());
        assert_eq!(held.len() as u64, drive.statistics.ticks_held);
        let changed = held.iter().filter(|t| t[0].control.command != t[1].control.command).count();
        assert!(changed > held.len() / 2, "only {changed} commands of {} change", held.len());
        assert!(drive.bits() == followed(&drive));
        assert!(drive.length_m() > 50.0, "{} m", drive.length_m());
        let farthest_m = drive.ticks.iter().map(|tick| tick.off_center_m).fold(0.0, f64::max);
        assert!(farthest_m < 2.0, "{farthest_m} m from the route");

        // Held commands do not change.
        let drive = Drive::of(&run, DelayedOutput::Command, period_ticks);
        let held = drive.ticks.windows(2).filter(|t| t[1].control.report.is_held);
        assert!(held.into_iter().all(|t| t[0].control.command == t[1].control.command));
    }
}

#[test]
fn vehicle_brakes_until_first_plan_is_visible() {
    let run = virtual_time("0", "100", FastReleases::Overlap);
    let drive = Drive::of(&run, DelayedOutput::Plan, 1);
    for (index, tick) in drive.ticks.iter().enumerate() {
        let report = &tick.control.report;
        let Some(acted_on) = report.acted_on else {
            assert!(index < 2, "tick {index} has no plan");
            assert_eq!(tick.control.command, Command::FULL_BRAKE);
            continue;
        };
        assert_eq!(report.frame.0 - acted_on.0, 2);
        assert!(report.prefix.unwrap().age >= Duration::from_millis(100));
    }
}
