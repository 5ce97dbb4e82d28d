//! Time modes and latencies in the embedded world, closed loop: equivalences that hold bit for bit.

use proptest::prelude::*;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tandem::model::automot::AutomotOptions;
use tandem::model::{DelayedOutput, ModelBlock};
use tandem::pilot::{ClockName, Delayed, FastReleases, LatencySpec, Pace, Run, RunFile, Schedule};
use tandem::runtime::Loaded;
use tandem::scene::{
    Command, Control, DeadlineVerdict, DriveError, Driver, Observation, SensorSuite, TickReport,
    Truth, World,
};
use tandem::timing::Timestamp;
use tandem_drivers::Autopilot;
use tandem_testkit::automot::{TINY, networks};
use tandem_testkit::world::demo_world;

const TICKS: u64 = 300;

const ROUTE: u32 = 1;

/// Bit patterns of a tick's command and of the vehicle's position and speed.
type Bits = [u64; 6];

/// Drives; returns the bits and controls of the ticks, and the schedule.
fn drive(
    world: &mut dyn World,
    driver: &mut dyn Driver,
    ticks: u64,
) -> Result<(Vec<Bits>, Vec<Control>, Schedule), DriveError> {
    let (mut bits, mut controls, mut schedule) = (Vec::new(), Vec::new(), Schedule::default());
    for _ in 0..ticks {
        let control = driver.drive(&world.observe())?;
        schedule.add(&control.report);
        let Command { steer, throttle, brake } = control.command;
        let ego = &world.state().ego;
        let pose = [ego.pose.position.x, ego.pose.position.y, ego.speed_mps];
        bits.push([steer, throttle, brake, pose[0], pose[1], pose[2]].map(f64::to_bits));
        world.step(&control.command);
        controls.push(control);
    }
    Ok((bits, controls, schedule))
}

/// Drives the demo route with a privileged driver.
fn privileged(driver: &mut dyn Driver) -> (Vec<Bits>, Vec<Control>, Schedule) {
    let suite = SensorSuite { truth: true, ..SensorSuite::default() };
    drive(&mut demo_world(suite, 1), driver, TICKS).unwrap()
}

fn run_file(slow: &str, fast: &str) -> RunFile {
    RunFile {
        clock: ClockName::Virtual,
        slow_latency: slow.parse().unwrap(),
        fast_latency: fast.parse().unwrap(),
        ..RunFile::default()
    }
}

/// Run of route [`ROUTE`]; `schedule` is replayed if the file asks for it.
fn run(file: &RunFile, schedule: Option<Schedule>) -> Run {
    let run = Run::try_from(file).unwrap();
    let Pace::Virtual(latencies) = &run.pace else { return run };
    let latencies = latencies.for_drive(file.seed, &ROUTE.into(), schedule.map(Arc::new));
    Run { pace: Pace::Virtual(latencies), ..run }
}

fn delayed_by(file: &RunFile, schedule: Option<Schedule>) -> Delayed {
    let run = run(file, schedule);
    let Pace::Virtual(latencies) = run.pace.clone() else { panic!("not in virtual time") };
    Delayed::new(Box::new(Autopilot::new()), latencies, &run)
}

fn delayed(slow: &str, fast: &str) -> Delayed {
    delayed_by(&run_file(slow, fast), None)
}

/// A driver whose commands are delayed by a queue of `n` commands.
struct Queue {
    driver: Autopilot,
    commands: VecDeque<Command>,
}

impl Queue {
    fn of(n: usize) -> Self {
        Self { driver: Autopilot::new(), commands: vec![Command::FULL_BRAKE; n].into() }
    }
}

impl Driver for Queue {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        self.commands.push_back(self.driver.drive(observation)?.command);
        let command = self.commands.pop_front().unwrap();
        Ok(Control { command, report: TickReport::default() })
    }
}

#[test]
fn zero_delay_is_lockstep() {
    let (lockstep, ..) = privileged(&mut Autopilot::new());
    assert_ne!(lockstep[0], lockstep[TICKS as usize - 1], "it drives");
    let mut driver = delayed("0", "0");
    let (zero, controls, _) = privileged(&mut driver);
    assert_eq!(zero, lockstep);
    let busy = RunFile { fast_releases: FastReleases::Busy, ..run_file("0", "0") };
    assert_eq!(privileged(&mut delayed_by(&busy, None)).0, lockstep);
    for control in &controls {
        assert_eq!(control.report.prefix.unwrap().age, Duration::ZERO);
        assert_eq!(control.report.acted_on, Some(control.report.frame));
        assert_eq!(control.report.deadline, DeadlineVerdict::Met);
    }
    let statistics = driver.statistics();
    assert_eq!((statistics.ticks_held, statistics.deadline_misses), (0, 0));
}

#[test]
fn delay_of_n_ticks_is_a_queue_of_n() {
    let lockstep = privileged(&mut Autopilot::new()).0;
    for n in [1, 2, 7, 40] {
        let queued = privileged(&mut Queue::of(n)).0;
        let late = privileged(&mut delayed("0", &format!("{}", 50 * n))).0;
        assert_eq!(late, queued, "{n} ticks");
        assert_ne!(late, lockstep);
    }
}

#[test]
fn latency_just_above_a_tick_costs_one_more() {
    let one = privileged(&mut Queue::of(1)).0;
    let two = privileged(&mut Queue::of(2)).0;
    assert_ne!(one, two);
    for (fast, expected) in [("49", &one), ("50", &one), ("50.000001", &two), ("51", &two)] {
        assert_eq!(privileged(&mut delayed("0", fast)).0, *expected, "{fast} ms");
    }
    let missed = |fast| {
        let mut driver = delayed("0", fast);
        privileged(&mut driver);
        driver.statistics().deadline_misses
    };
    assert_eq!((missed("49"), missed("50"), missed("51")), (0, 0, TICKS));
}

/// A driver that sees the scene of `lag` ticks ago at
/// even ticks, and that of one tick earlier at odd ones.
struct Memory {
    driver: Autopilot,
    lag: usize,
    seen: Vec<Arc<Truth>>,
}

impl Driver for Memory {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        let present = observation.truth.clone().unwrap();
        self.seen.push(Arc::clone(&present));
        let tick = self.seen.len() - 1;
        let Some(visible) = tick.checked_sub(self.lag) else {
            return Ok(Control { command: Command::FULL_BRAKE, ..Control::default() });
        };
        let scene = &self.seen[visible - visible % 2];
        let truth = Truth { ego: present.ego, ..Truth::clone(scene) };
        let observation = Observation { truth: Some(Arc::new(truth)), ..observation.clone() };
        self.driver.drive(&observation)
    }
}

#[test]
fn slow_latency_delays_the_scene_but_not_the_ego_state() {
    let memory = |lag| Memory { driver: Autopilot::new(), lag, seen: Vec::new() };
    let (two, ..) = privileged(&mut memory(2));
    for slow in ["51", "99.5", "100"] {
        assert_eq!(privileged(&mut delayed(slow, "0")).0, two, "{slow} ms");
    }
    assert_eq!(privileged(&mut delayed("50", "0")).0, privileged(&mut memory(1)).0);
}

/// Driver within a [`Delayed`] that answers at once.
struct Constant;

impl Driver for Constant {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        let report = TickReport { frame: observation.frame, ..TickReport::default() };
        Ok(Control { command: Command::default(), report })
    }
}

/// For each tick, the tick of the observation and that of the scene that its command is based on.
fn basis(slow: &str, fast: &str, period: u32, releases: FastReleases) -> Vec<Option<(u64, u64)>> {
    let file =
        RunFile { refresh_period_ticks: period, fast_releases: releases, ..run_file(slow, fast) };
    let run = run(&file, None);
    let Pace::Virtual(latencies) = run.pace.clone() else { panic!("not in virtual time") };
    let mut driver = Delayed::new(Box::new(Constant), latencies, &run);
    let truth = demo_world(SensorSuite { truth: true, ..SensorSuite::default() }, 1).observe();
    (1..=60_u64)
        .map(|frame| {
            let time = Timestamp::after(Duration::from_millis(50 * frame));
            let frame = tandem::scene::FrameId(frame);
            let report =
                driver.drive(&Observation { frame, time, ..truth.clone() }).unwrap().report;
            let acted_on = report.acted_on?;
            let prefix = report.prefix.unwrap();
            let scene = (time.since(Timestamp::ZERO) - prefix.age).as_millis() as u64 / 50;
            assert_eq!(report.prefix_frames[0].0, scene);
            Some((acted_on.0, scene))
        })
        .collect()
}

/// First tick, counted from 1, with a command based on a scene.
fn first(slow: &str, fast: &str) -> u64 {
    let found = basis(slow, fast, 2, FastReleases::Overlap);
    found.iter().position(Option::is_some).unwrap() as u64 + 1
}

#[test]
fn slow_and_fast_latencies_add_up() {
    // The scene of tick 1 is visible 30 ms later, so the action step of tick 2 reads it; its
    // command, 30 ms later, is applied at tick 3.
    assert_eq!(first("30", "30"), 3);
    assert_eq!(first("30", "0"), 2);
    assert_eq!(first("0", "30"), 2);
    assert_eq!(first("50", "50"), 3, "latencies of complete ticks");
    assert_eq!(first("50.000001", "50"), 4);
    assert_eq!(first("149", "149"), 7);
}

/// The same ages computed in nanoseconds over all scenes and action steps.
fn expected(slow_ns: u64, fast_ns: u64, period: u64, is_busy: bool) -> Vec<Option<(u64, u64)>> {
    let at = |tick: u64| tick * 50_000_000;
    let mut scenes: Vec<(u64, u64)> = Vec::new();
    let mut inferences: Vec<(u64, u64, u64)> = Vec::new();
    (1..=60_u64)
        .map(|tick| {
            // Prefills begin at multiples of the period since the first tick, or when the previous
            // one ends if it is still running then.
            let is_free = scenes.last().is_none_or(|(_, visible)| *visible <= at(tick));
            let due = scenes.last().map_or(1, |(begun, _)| begun + period);
            if is_free && tick >= due {
                scenes.push((tick, at(tick) + slow_ns));
            }
            let seen = scenes.iter().rfind(|(_, visible)| *visible <= at(tick));
            let is_idle = inferences.last().is_none_or(|(_, _, done)| *done <= at(tick));
            if let Some((scene, _)) = seen
                && (!is_busy || is_idle)
            {
                inferences.push((tick, *scene, at(tick) + fast_ns));
            }
            let visible = inferences.iter().rfind(|(_, _, done)| *done <= at(tick));
            visible.map(|(tick, scene, _)| (*tick, *scene))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn ages_match_plain_arithmetic(
        slow_ns in prop_oneof![1..400_000_000_u64, (1..9_u64).prop_map(|n| n * 50_000_000)],
        fast_ns in prop_oneof![0..300_000_000_u64, (0..7_u64).prop_map(|n| n * 50_000_000)],
        period in 1..6_u32,
        is_busy: bool,
    ) {
        let millis = |ns: u64| format!("{}", ns as f64 / 1e6);
        let releases = if is_busy { FastReleases::Busy } else { FastReleases::Overlap };
        let found = basis(&millis(slow_ns), &millis(fast_ns), period, releases);
        prop_assert_eq!(found, expected(slow_ns, fast_ns, u64::from(period), is_busy));
    }
}

#[test]
fn recorded_schedule_reproduces_the_drive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schedules/drive.json");
    let sampled = RunFile {
        fast_releases: FastReleases::Busy,
        ..run_file("lognormal:p50=120,p99=400", "normal:mean=60,sd=30")
    };
    let (bits, controls, schedule) = privileged(&mut delayed_by(&sampled, None));
    assert!(controls.iter().any(|control| control.report.is_held));
    schedule.write(&path).unwrap();
    let read = Schedule::read(&path).unwrap();
    let replayed = RunFile {
        slow_latency: LatencySpec::Replayed(folder.path().into()),
        fast_latency: LatencySpec::Replayed(folder.path().into()),
        seed: 99,
        ..sampled.clone()
    };
    let (again, _, schedule_again) = privileged(&mut delayed_by(&replayed, Some(read)));
    assert_eq!(again, bits);
    assert_eq!(schedule_again, schedule);
    let other = RunFile { seed: 99, ..sampled };
    assert_ne!(
        privileged(&mut delayed_by(&other, None)).0,
        bits,
        "another seed gives the same drive"
    );
}

#[test]
fn schedule_of_another_drive_is_an_error() {
    let file = run_file("100", "replayed:somewhere");
    let suite = SensorSuite { truth: true, ..SensorSuite::default() };
    let mut driver = delayed_by(&file, Some(Schedule::default()));
    let error = drive(&mut demo_world(suite, 1), &mut driver, TICKS).unwrap_err();
    let message = format!("{error}: {}", error.source);
    for part in ["frame 3", "no run of the fast expert", "(route, seed, driver"] {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
}

#[test]
fn concurrent_drives_do_not_change_a_drive() {
    let drive = || privileged(&mut delayed("lognormal:p50=120,p99=400", "uniform:min=10,max=90"));
    let (alone, _, schedule) = drive();
    std::thread::scope(|scope| {
        let together: Vec<_> = (0..4).map(|_| scope.spawn(drive)).collect();
        for other in together {
            let (bits, _, other) = other.join().unwrap();
            assert_eq!((bits, other), (alone.clone(), schedule.clone()));
        }
    });
}

/// Drives with the tiny model.
fn model(
    networks: &Path,
    run: &Run,
    latency_delays: DelayedOutput,
    ticks: u64,
) -> (Vec<Bits>, Vec<Control>, Schedule) {
    let options = AutomotOptions { latency_delays, ..AutomotOptions::default() };
    let run = Run { model: Some(ModelBlock::of("automot", &options)), ..run.clone() };
    let model = Loaded::open(networks, &run, &mut |_| {}).unwrap();
    let mut world = demo_world(model.sensors(), 1);
    let mut pilot = model.pilot(world.plan(), &run).unwrap();
    drive(&mut world, &mut *pilot, ticks).unwrap()
}

/// Trajectories of the ticks with an action step, as text with every bit. Commands would not do:
/// random weights may brake whatever they plan.
fn trajectories(controls: &[Control]) -> Vec<String> {
    let planned = controls.iter().filter_map(|control| control.report.trajectory.as_ref());
    planned.map(|trajectory| format!("{trajectory:?}")).collect()
}

#[test]
fn model_keeps_virtual_time() {
    let folder = tempfile::tempdir().unwrap();
    let networks = networks(TINY, folder.path());
    let ticks = 40;
    let from_start = |file: RunFile| RunFile { warm_up_ticks: 0, ..file };
    let lockstep = from_start(RunFile::default());
    let command = DelayedOutput::Command;
    let (bits, controls, _) = model(&networks, &run(&lockstep, None), command, ticks);
    let planned = trajectories(&controls);
    assert!(planned.len() > 20 && planned[0] != planned[20], "trajectories do not change");
    let zero = from_start(run_file("0", "0"));
    for delays in [DelayedOutput::Command, DelayedOutput::Plan] {
        let (zero, controls, _) = model(&networks, &run(&zero, None), delays, ticks);
        assert_eq!((&zero, &trajectories(&controls)), (&bits, &planned), "zero delay is lockstep");
    }

    let sampled = from_start(run_file("lognormal:p50=120,p99=300", "uniform:min=20,max=90"));
    let (bits, controls, schedule) = model(&networks, &run(&sampled, None), command, ticks);
    let rests_on = |control: &Control| control.report.acted_on.is_some();
    assert!(controls.iter().any(rests_on) && controls.iter().any(|c| c.report.is_held));
    let replayed = RunFile {
        slow_latency: LatencySpec::Replayed("here".into()),
        fast_latency: LatencySpec::Replayed("here".into()),
        ..sampled.clone()
    };
    let (again, controls_again, schedule_again) =
        model(&networks, &run(&replayed, Some(schedule.clone())), command, ticks);
    assert_eq!((again, &schedule_again), (bits, &schedule));
    assert_eq!(trajectories(&controls_again), trajectories(&controls));
    // With delayed plans the same action steps are released.
    let (_, plans, schedule_of_plans) =
        model(&networks, &run(&sampled, None), DelayedOutput::Plan, ticks);
    assert_eq!(schedule_of_plans, schedule);
    let acted_on = |controls: &[Control]| -> Vec<_> {
        controls.iter().map(|control| control.report.acted_on).collect()
    };
    assert_eq!(acted_on(&plans), acted_on(&controls));
}
