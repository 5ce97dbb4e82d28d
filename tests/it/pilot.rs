//! The two-rate loop under experts whose timing the test decides.

use arrayvec::ArrayVec;
use glam::DVec2;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tandem::control::{Localizer, PathFollower, StateFilterConfig};
use tandem::device::HostDevice;
use tandem::kv_cache::{KvSnapshot, KvWriter, Layout, PrefixMeta, SlotPool};
use tandem::model::automot::Heuristics;
use tandem::model::{
    ActionExpert, Delays, Experts, ModelError, Perception, RefreshRequest, Turns,
    UnderstandingExpert,
};
use tandem::pilot::{ClockName, FastReleases, LatencySpec, Pilot, Run, RunFile};
use tandem::scene::random::SplitMix64;
use tandem::scene::{
    Cameras, Command, Detour, Driver, FrameId, GeoReference, Gnss, Imu, Observation, Pose,
    RouteSkip, Trajectory,
};
use tandem::tensor::{DType, HostTensor};
use tandem::timing::{StageSpans, Timestamp};

const TICK: Duration = Duration::from_millis(50);

/// How a test's understanding expert behaves.
enum Slow {
    /// Answers at once.
    Prompt,
    /// Answers when told to.
    WhenTold(Receiver<()>),
    /// Fails at these versions, answers at once otherwise.
    FailsAt(&'static [u64]),
}

impl UnderstandingExpert for Slow {
    type Inputs = ();

    fn refresh(
        &mut self,
        request: &RefreshRequest<()>,
        mut writer: KvWriter,
        _: &dyn Turns,
        _: &mut StageSpans,
    ) -> Result<KvSnapshot, ModelError> {
        match self {
            Self::Prompt => {}
            // A test that failed drops its end: the thread must end then, too.
            Self::WhenTold(told) => drop(told.recv()),
            Self::FailsAt(versions) if versions.contains(&request.version) => {
                return Err(ModelError::Tokenize("as the test asked".into()));
            }
            Self::FailsAt(_) => {}
        }
        let device = HostDevice::new();
        for tensor in writer.slot_mut().tensors_mut() {
            let values = vec![request.version as f32; tensor.shape().iter().product()];
            tensor.set(&device, &HostTensor::from_slice(tensor.shape(), &values))?;
        }
        Ok(writer.seal(PrefixMeta {
            version: request.version,
            frames: ArrayVec::from_iter([request.version]),
            captured_at: request.captured_at,
            valid_length: 1,
            next_position: 1,
        }))
    }
}

/// Perception that remembers the detours that it was given.
struct Eyes {
    /// The first tick at which the history suffices for a refresh.
    ready_at: u64,
    frame: u64,
    detours: Rc<RefCell<Vec<Detour>>>,
    /// Meters between waypoints.
    step_m: f32,
    /// The tick whose waypoints are not finite.
    not_finite_at: u64,
    /// Meters between waypoints at this tick.
    step_now_m: f32,
}

impl Perception for Eyes {
    type Inputs = ();
    type Readings = f32;

    fn observe(
        &mut self,
        observation: &Observation,
        _: &Pose,
        detour: &Detour,
        _: &mut StageSpans,
    ) -> Result<(), ModelError> {
        self.frame = observation.frame.0;
        let is_finite = self.frame != self.not_finite_at;
        self.step_now_m = if is_finite { self.step_m } else { f32::NAN };
        self.detours.borrow_mut().push(*detour);
        Ok(())
    }

    fn inputs(&self) -> Option<()> {
        (self.frame >= self.ready_at).then_some(())
    }

    fn readings(&mut self) -> &mut f32 {
        &mut self.step_now_m
    }
}

/// An action expert that checks its prefix, and drives straight on.
struct Fast;

impl ActionExpert for Fast {
    type Readings = f32;

    fn act(
        &mut self,
        prefix: &KvSnapshot,
        step_m: &mut f32,
        _: SplitMix64,
        _: &mut StageSpans,
    ) -> Result<Option<Trajectory>, ModelError> {
        for tensor in prefix.slot().tensors() {
            let version = prefix.meta().version as f32;
            let tensor = tensor.to_host(prefix.slot().device())?;
            assert!(tensor.as_slice::<f32>().iter().all(|&value| value == version), "torn prefix");
        }
        Ok(Some(Trajectory {
            path: (1..=20).map(|i| [i as f32, 0.0]).collect(),
            waypoints: (1..=6).map(|i| [i as f32 * *step_m, 0.0]).collect(),
            spacing: Duration::from_millis(500),
        }))
    }
}

/// Without warm-up: most tests watch the first ticks.
fn run() -> RunFile {
    RunFile { warm_up_ticks: 0, ..RunFile::default() }
}

struct Setup {
    run: RunFile,
    slow: Slow,
    ready_at: u64,
    step_m: f32,
    detours: Rc<RefCell<Vec<Detour>>>,
    slots: usize,
    delays: Delays,
    not_finite_at: u64,
    heuristics: Heuristics,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            run: run(),
            slow: Slow::Prompt,
            ready_at: 1,
            step_m: 2.0,
            detours: Rc::default(),
            slots: 3,
            delays: Delays::Command,
            not_finite_at: u64::MAX,
            heuristics: Heuristics::default(),
        }
    }
}

impl Setup {
    fn pilot(self) -> Pilot<Eyes> {
        let layout = Layout {
            layers: 2,
            heads: 1,
            capacity: 4,
            key_dim: 8,
            value_dim: 4,
            dtype: DType::F32,
        };
        let Self { ready_at, detours, step_m, not_finite_at, .. } = self;
        let perception =
            Eyes { ready_at, frame: 0, detours, step_m, not_finite_at, step_now_m: step_m };
        let run = Run::try_from(&self.run).unwrap();
        let experts = Experts {
            perception,
            understanding: Box::new(self.slow),
            action: Box::new(Fast),
            follower: Box::new(PathFollower::new(self.heuristics.into())),
            delays: self.delays,
        };
        Pilot::new(
            &run,
            experts,
            Localizer::new(StateFilterConfig::default(), GeoReference::default()),
            SlotPool::new(&(Arc::new(HostDevice::new()) as _), layout, self.slots).unwrap(),
        )
        .unwrap()
    }
}

fn observation(frame: u64) -> Observation {
    let GeoReference { latitude_deg, longitude_deg } = GeoReference::default();
    Observation {
        frame: FrameId(frame),
        time: Timestamp::after(TICK * frame as u32),
        cameras: Cameras::NONE,
        lidar: None,
        imu: Imu { compass_rad: std::f64::consts::FRAC_PI_2, ..Imu::default() },
        gnss: Gnss { latitude_deg, longitude_deg, altitude_m: 0.0 },
        speed_mps: 0.0,
        truth: None,
    }
}

/// Drives `ticks` ticks and writes which prefix each acted on and how old it was in ticks, as
/// `version@age`, or `-` without a prefix.
fn drive(pilot: &mut Pilot<Eyes>, ticks: std::ops::RangeInclusive<u64>) -> String {
    let words: Vec<String> = ticks
        .map(|frame| {
            let control = pilot.drive(&observation(frame)).unwrap();
            assert_eq!(control.report.frame, FrameId(frame));
            match control.report.prefix {
                None => {
                    assert_eq!(control.command, Command::FULL_BRAKE, "no prefix, so brake");
                    "-".to_owned()
                }
                Some(prefix) => {
                    let age = prefix.age.as_millis() / TICK.as_millis();
                    format!("{}@{age}", prefix.version)
                }
            }
        })
        .collect();
    words.join(" ")
}

fn virtual_run(refresh_latency_millis: f64, refresh_period_ticks: u32) -> RunFile {
    let slow_latency = LatencySpec::Fixed(refresh_latency_millis);
    RunFile { clock: ClockName::Virtual, slow_latency, refresh_period_ticks, ..run() }
}

#[test]
fn without_latency_virtual_time_is_lockstep() {
    let mut pilot = Setup { run: virtual_run(0.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=6), "1@0 1@1 2@0 2@1 3@0 3@1");
}

#[test]
fn a_prefix_is_seen_exactly_when_its_virtual_latency_has_passed() {
    let mut pilot = Setup { run: virtual_run(100.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=8), "- - 1@2 1@3 2@2 2@3 3@2 3@3");
    // One millisecond more is one tick more; a refresh that outlasts its period delays the next.
    let mut pilot = Setup { run: virtual_run(101.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=8), "- - - 1@3 1@4 1@5 2@3 2@4");
    assert!(pilot.statistics().refreshes_delayed > 0);
}

/// Drives in virtual time and writes which tick each tick's command rests on, with the version of its
/// prefix, `tick:version`, `'` where it was held, or `-` before the first. What rests on what is the
/// same whether commands or plans are delayed.
fn acted_on(
    slow: f64,
    fast: f64,
    fast_releases: FastReleases,
    ticks: u64,
) -> (String, Pilot<Eyes>) {
    let [command, plan] = [Delays::Command, Delays::Plan]
        .map(|delays| acted_on_where(delays, slow, fast, fast_releases, ticks));
    assert_eq!((&plan.0, plan.1.statistics()), (&command.0, command.1.statistics()));
    plan
}

fn acted_on_where(
    delays: Delays,
    slow: f64,
    fast: f64,
    fast_releases: FastReleases,
    ticks: u64,
) -> (String, Pilot<Eyes>) {
    let run =
        RunFile { fast_latency: LatencySpec::Fixed(fast), fast_releases, ..virtual_run(slow, 2) };
    let mut pilot = Setup { run, delays, ..Setup::default() }.pilot();
    let words: Vec<String> = (1..=ticks)
        .map(|frame| {
            let control = pilot.drive(&observation(frame)).unwrap();
            let Some(acted_on) = control.report.acted_on else {
                assert_eq!(control.command, Command::FULL_BRAKE);
                return "-".to_owned();
            };
            let held = if control.report.is_held { "'" } else { "" };
            format!("{}:{}{held}", acted_on.0, control.report.prefix.unwrap().version)
        })
        .collect();
    (words.join(" "), pilot)
}

#[test]
fn a_fast_latency_of_n_ticks_is_a_queue_of_n_commands() {
    let (found, _) = acted_on(0.0, 0.0, FastReleases::Overlap, 5);
    assert_eq!(found, "1:1 2:1 3:2 4:2 5:3");
    let (found, pilot) = acted_on(0.0, 100.0, FastReleases::Overlap, 7);
    assert_eq!(found, "- - 1:1 2:1 3:2 4:2 5:3");
    let statistics = pilot.statistics();
    assert_eq!((statistics.ticks_held, statistics.deadline_misses), (0, 7), "a miss at every tick");
}

#[test]
fn a_busy_device_starts_with_the_newest_observation_when_it_is_free() {
    let (found, pilot) = acted_on(0.0, 70.0, FastReleases::Busy, 8);
    assert_eq!(found, "- - 1:1 1:1' 3:2 3:2' 5:3 5:3'");
    assert_eq!(pilot.statistics().ticks_held, 3);
}

#[test]
fn an_inference_rests_on_the_prefix_that_was_there_when_it_was_released() {
    // The prefix of tick 1 is seen at tick 2, whose command is there at tick 3.
    let (found, _) = acted_on(30.0, 30.0, FastReleases::Overlap, 6);
    assert_eq!(found, "- - 2:1 3:1 4:2 5:2");
}

#[test]
fn a_refresh_waits_until_the_history_suffices() {
    let mut pilot = Setup { ready_at: 4, run: virtual_run(0.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=6), "- - - 1@0 2@0 2@1");
    assert_eq!(pilot.statistics().ticks_without_prefix, 3);
}

#[test]
fn the_first_inference_is_at_the_32nd_tick_and_refreshes_fall_on_even_ones() {
    let mut pilot = Setup { run: RunFile::default(), ..Setup::default() }.pilot();
    let braked = drive(&mut pilot, 1..=31);
    assert!(braked.split(' ').all(|word| word == "-"), "{braked}");
    assert_eq!(pilot.statistics().refreshes_started, 0);
    // Ticks 31 to 36, counted from 0 as the release does.
    assert_eq!(drive(&mut pilot, 32..=37), "1@0 2@0 2@1 3@0 3@1 4@0");
    let mut pilot =
        Setup { run: RunFile { warm_up_ticks: 3, ..RunFile::default() }, ..Setup::default() }
            .pilot();
    assert_eq!(drive(&mut pilot, 1..=6), "- - - 1@0 2@0 2@1");
}

/// Drives `ticks` ticks at a stand with an expert that wants to stand; returns the ticks, from 0,
/// at which the command was not a full brake, with it.
fn stand(
    heuristics: Heuristics,
    warm_up_ticks: u32,
    ticks: u64,
) -> (Vec<(u64, Command)>, Vec<Detour>) {
    let run = RunFile { warm_up_ticks, ..RunFile::default() };
    let setup = Setup { run, heuristics, step_m: 0.0, ..Setup::default() };
    let detours = Rc::clone(&setup.detours);
    let mut pilot = setup.pilot();
    let moved = (0..ticks)
        .map(|tick| (tick, pilot.drive(&observation(tick + 1)).unwrap().command))
        .filter(|(_, command)| *command != Command::FULL_BRAKE)
        .collect();
    (moved, detours.take())
}

const NO_HEURISTICS: Heuristics =
    Heuristics { force_move: false, parking_start: false, escape: false, speed_cap: false };

#[test]
fn a_stuck_vehicle_is_moved_after_301_ticks_of_standing() {
    let only = Heuristics { force_move: true, ..NO_HEURISTICS };
    for warm_up_ticks in [0, 31] {
        let (moved, _) = stand(only, warm_up_ticks, 360);
        let (first, command) = moved[0];
        assert_eq!(first, u64::from(warm_up_ticks) + 300, "the 301st tick that the model drives");
        assert_eq!((command.throttle, command.brake), (0.4, 0.0));
    }
    // It never left its parking place, so it is boxed in.
    let (moved, _) = stand(Heuristics { parking_start: true, ..only }, 0, 360);
    assert_eq!(moved, []);
}

#[test]
fn an_escape_overrules_the_command_and_reaches_the_expert() {
    let (moved, detours) = stand(Heuristics { escape: true, ..NO_HEURISTICS }, 31, 1760);
    let ticks: Vec<u64> = moved.iter().map(|(tick, _)| *tick).collect();
    assert_eq!(ticks, (1700..1740).collect::<Vec<_>>());
    assert!(moved.iter().all(|(_, command)| (command.steer, command.throttle) == (-0.65, 0.45)));
    let targets_m = Some([DVec2::new(3.0, 6.5), DVec2::new(6.0, 6.5)]);
    let skip = Some(RouteSkip { points: 5, keep: 3 });
    assert_eq!(detours[1699], Detour::default());
    assert_eq!(detours[1700], Detour { targets_m, skip });
    assert!(detours[1701..1740].iter().all(|detour| *detour == Detour { targets_m, skip: None }));
    assert_eq!(detours[1740], Detour::default());
}

#[test]
fn heuristics_that_are_off_do_nothing() {
    let (moved, detours) = stand(NO_HEURISTICS, 0, 1760);
    assert_eq!(moved, []);
    assert!(detours.iter().all(|detour| *detour == Detour::default()));
}

#[test]
fn a_fast_vehicle_is_braked_unless_the_cap_is_off() {
    for (speed_cap, brake) in [(true, 1.0), (false, 0.0)] {
        let heuristics = Heuristics { speed_cap, ..NO_HEURISTICS };
        let mut pilot = Setup { run: run(), heuristics, step_m: 10.0, ..Setup::default() }.pilot();
        let control = pilot.drive(&Observation { speed_mps: 9.8, ..observation(1) }).unwrap();
        assert_eq!(control.command.brake, brake);
    }
}

#[test]
fn a_refresh_that_fails_leaves_the_old_prefix_in_use_and_its_slot_free() {
    let slow = Slow::FailsAt(&[2, 3, 4, 5]);
    let mut pilot = Setup { slow, run: virtual_run(0.0, 1), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=6), "1@0 1@1 1@2 1@3 1@4 6@0");
    let statistics = pilot.statistics();
    assert_eq!((statistics.refreshes_failed, statistics.slots_exhausted), (4, 0));
}

#[test]
fn a_trajectory_that_is_not_finite_is_braked_for() {
    for delays in [Delays::Command, Delays::Plan] {
        let mut pilot = Setup { step_m: f32::NAN, delays, ..Setup::default() }.pilot();
        let control = pilot.drive(&observation(1)).unwrap();
        assert_eq!(control.command, Command::FULL_BRAKE);
        assert!(control.report.is_answer_rejected && control.report.trajectory.is_none());
        assert_eq!(pilot.statistics().trajectories_not_finite, 1);
    }
}

#[test]
fn rejected_plan_brakes_from_when_it_is_visible_until_the_next_plan() {
    let run = RunFile { fast_latency: LatencySpec::Fixed(100.0), ..virtual_run(0.0, 2) };
    let setup = Setup { run, delays: Delays::Plan, not_finite_at: 3, ..Setup::default() };
    let mut pilot = setup.pilot();
    let brakes = (1..=7).map(|frame| {
        let control = pilot.drive(&observation(frame)).unwrap();
        assert_eq!(control.report.is_answer_rejected, frame == 3);
        control.command == Command::FULL_BRAKE
    });
    let expected = [true, true, false, false, true, false, false];
    assert_eq!(brakes.collect::<Vec<_>>(), expected, "tick 3's is visible at tick 5");
}

#[test]
fn a_finite_trajectory_is_followed() {
    let mut pilot = Setup::default().pilot();
    let control = pilot.drive(&observation(1)).unwrap();
    assert!(control.command.throttle > 0.0 && control.command.brake == 0.0);
}

#[test]
fn with_one_slot_a_refresh_finds_none_free_and_the_tick_goes_on() {
    let mut pilot = Setup { slots: 1, run: virtual_run(0.0, 1), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=3), "1@0 1@1 1@2");
    assert_eq!(pilot.statistics().slots_exhausted, 2);
}

#[test]
fn on_the_wall_clock_ticks_never_wait_for_a_refresh() {
    let (tell, told) = sync_channel(8);
    let run = RunFile { clock: ClockName::Wall, refresh_period_ticks: 2, ..run() };
    let mut pilot = Setup { slow: Slow::WhenTold(told), run, ..Setup::default() }.pilot();
    let tell = tell; // Dropped before the pilot, which waits for its thread.
    // The expert answers nothing: if a tick waited, this would hang.
    assert_eq!(drive(&mut pilot, 1..=5), "- - - - -");
    assert_eq!(pilot.statistics().refreshes_delayed, 3);
    let frame = drive_until_prefix(&mut pilot, &tell, 6);
    // Now the next refresh hangs, and the prefix grows old in use.
    let words = drive(&mut pilot, frame + 1..=frame + 3);
    assert!(words.split(' ').all(|word| word.starts_with("1@")), "{words}");
    tell.send(()).unwrap(); // Let the thread end.
}

/// Lets one refresh finish and ticks until its prefix is seen; returns that tick.
fn drive_until_prefix(pilot: &mut Pilot<Eyes>, tell: &SyncSender<()>, mut frame: u64) -> u64 {
    tell.send(()).unwrap();
    loop {
        if pilot.drive(&observation(frame)).unwrap().report.prefix.is_some() {
            return frame;
        }
        frame += 1;
        std::thread::yield_now();
    }
}

#[test]
fn a_pilot_that_is_dropped_ends_its_thread() {
    let (tell, told) = sync_channel(8);
    let mut pilot = Setup { slow: Slow::WhenTold(told), ..Setup::default() }.pilot();
    let tell = tell;
    tell.send(()).unwrap();
    drive(&mut pilot, 1..=1);
    drop(pilot);
    // The expert, and with it the receiver, went with its thread.
    assert!(tell.send(()).is_err());
}
