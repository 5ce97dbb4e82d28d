//! The two-rate loop with scripted experts whose timing the test controls.

use glam::DVec2;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tandem::control::PathFollower;
use tandem::device::HostDevice;
use tandem::kv_cache::{KvSnapshot, KvWriter};
use tandem::model::automot::Heuristics;
use tandem::model::{
    ActionExpert, DelayedOutput, Experts, LaunchGate, ModelError, Perception, PrefillRequest,
    UnderstandingExpert,
};
use tandem::pilot::{ClockName, FastReleases, LatencySpec, Pilot, Run, RunFile};
use tandem::scene::random::SplitMix64;
use tandem::scene::{
    Cameras, Command, Detour, Driver, FrameId, GeoReference, Gnss, Imu, Observation, Pose, RouteId,
    RouteSkip, Trajectory,
};
use tandem::timing::{StageSpans, Timestamp};
use tandem_testkit::scripted::{pilot, seal};

const TICK: Duration = Duration::from_millis(50);

/// A scripted understanding expert.
enum Slow {
    /// Completes every prefill at once.
    Prompt,
    /// Completes a prefill at each message.
    OnMessage(Receiver<()>),
    /// Fails at these versions, completes the others at once.
    FailsAt(&'static [u64]),
}

impl UnderstandingExpert for Slow {
    type Inputs = ();

    fn prefill(
        &mut self,
        request: &PrefillRequest<()>,
        writer: KvWriter,
        _: &dyn LaunchGate,
        _: &mut StageSpans,
    ) -> Result<KvSnapshot, ModelError> {
        match self {
            Self::Prompt => {}
            // If the test failed, the sender is dropped, and the thread must end, too.
            Self::OnMessage(receiver) => drop(receiver.recv()),
            Self::FailsAt(versions) if versions.contains(&request.version) => {
                return Err(ModelError::Tokenize("scripted failure".into()));
            }
            Self::FailsAt(_) => {}
        }
        seal(writer, &HostDevice::new(), request, request.version, || request.version as f32)
    }
}

/// Perception that records the detours that it receives.
struct ScriptedPerception {
    /// First tick at which the history is complete.
    ready_at: u64,
    frame: u64,
    detours: Rc<RefCell<Vec<Detour>>>,
    /// Distance of waypoints, meters.
    step_m: f32,
    /// Tick whose waypoints are not finite.
    not_finite_at: u64,
    /// Distance of waypoints at the current tick, meters.
    step_now_m: f32,
}

impl Perception for ScriptedPerception {
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

/// Action expert that checks its prefix and plans straight on.
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

/// Expert that sends the first random number of each of its runs.
struct Sampled<E>(E, SyncSender<u64>);

impl<E> Sampled<E> {
    fn sample(&self, random: &SplitMix64) {
        self.1.send(random.clone().unit().to_bits()).unwrap();
    }
}

impl UnderstandingExpert for Sampled<Slow> {
    type Inputs = ();

    fn prefill(
        &mut self,
        request: &PrefillRequest<()>,
        writer: KvWriter,
        gate: &dyn LaunchGate,
        spans: &mut StageSpans,
    ) -> Result<KvSnapshot, ModelError> {
        self.sample(&request.random);
        self.0.prefill(request, writer, gate, spans)
    }
}

impl ActionExpert for Sampled<Fast> {
    type Readings = f32;

    fn act(
        &mut self,
        prefix: &KvSnapshot,
        step_m: &mut f32,
        random: SplitMix64,
        spans: &mut StageSpans,
    ) -> Result<Option<Trajectory>, ModelError> {
        self.sample(&random);
        self.0.act(prefix, step_m, random, spans)
    }
}

/// Returns the first random number of each run of both experts in a drive of six ticks.
fn samples(seed: u64, route: &RouteId) -> Vec<u64> {
    let setup = Setup { run: virtual_run(0.0, 1), ..Setup::default() };
    let run = Run::try_from(&setup.run).unwrap().for_drive(seed, route);
    let (sender, receiver) = sync_channel(100);
    let experts = Experts {
        understanding: Box::new(Sampled(Slow::Prompt, sender.clone())),
        action: Box::new(Sampled(Fast, sender)),
        ..setup.experts()
    };
    let mut pilot = pilot(&run, experts, GeoReference::default(), 3).unwrap();
    drive(&mut pilot, 1..=6);
    drop(pilot);
    receiver.iter().collect()
}

/// A run without warm-up, because most tests check the first ticks.
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
    delays: DelayedOutput,
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
            delays: DelayedOutput::Command,
            not_finite_at: u64::MAX,
            heuristics: Heuristics::default(),
        }
    }
}

impl Setup {
    fn experts(self) -> Experts<ScriptedPerception> {
        let Self { ready_at, detours, step_m, not_finite_at, .. } = self;
        let perception = ScriptedPerception {
            ready_at,
            frame: 0,
            detours,
            step_m,
            not_finite_at,
            step_now_m: step_m,
        };
        Experts {
            perception,
            understanding: Box::new(self.slow),
            action: Box::new(Fast),
            follower: Box::new(PathFollower::new(self.heuristics.into())),
            delays: self.delays,
        }
    }

    fn pilot(self) -> Pilot<ScriptedPerception> {
        let (run, slots) = (Run::try_from(&self.run).unwrap(), self.slots);
        pilot(&run, self.experts(), GeoReference::default(), slots).unwrap()
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

/// Drives `ticks` and returns, for each, the prefix that it acted on and its age in ticks as
/// `version@age`, or `-` without a prefix.
fn drive(pilot: &mut Pilot<ScriptedPerception>, ticks: std::ops::RangeInclusive<u64>) -> String {
    let entries: Vec<String> = ticks
        .map(|frame| {
            let control = pilot.drive(&observation(frame)).unwrap();
            assert_eq!(control.report.frame, FrameId(frame));
            match control.report.prefix {
                None => {
                    assert_eq!(control.command, Command::FULL_BRAKE, "without a prefix");
                    "-".to_owned()
                }
                Some(prefix) => {
                    let age = prefix.age.as_millis() / TICK.as_millis();
                    format!("{}@{age}", prefix.version)
                }
            }
        })
        .collect();
    entries.join(" ")
}

fn virtual_run(prefill_latency_millis: f64, refresh_period_ticks: u32) -> RunFile {
    let slow_latency = LatencySpec::Fixed(prefill_latency_millis);
    RunFile { clock: ClockName::Virtual, slow_latency, refresh_period_ticks, ..run() }
}

#[test]
fn random_numbers_depend_on_seed_route_expert_and_frame() {
    let [first, second] = [1, 2].map(RouteId::from);
    let of_drive = samples(7, &first);
    assert_eq!(of_drive.len(), 12, "six prefills and six action steps");
    assert_eq!(samples(7, &first), of_drive);
    let all = [of_drive, samples(8, &first), samples(7, &second)].concat();
    assert_eq!(BTreeSet::from_iter(&all).len(), all.len(), "{all:?}");
}

#[test]
fn without_latency_virtual_time_is_lockstep() {
    let mut pilot = Setup { run: virtual_run(0.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=6), "1@0 1@1 2@0 2@1 3@0 3@1");
}

#[test]
fn prefix_is_visible_after_its_virtual_latency() {
    let mut pilot = Setup { run: virtual_run(100.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=8), "- - 1@2 1@3 2@2 2@3 3@2 3@3");
    // One more millisecond costs one more tick; a prefill longer than its period delays the next.
    let mut pilot = Setup { run: virtual_run(101.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=8), "- - - 1@3 1@4 1@5 2@3 2@4");
    assert!(pilot.statistics().refreshes_delayed > 0);
}

/// Drives in virtual time and returns, for each tick, the tick of the observation that its command
/// is based on and the version of the prefix as `tick:version`, with `'` if the command is held, or
/// `-` before the first command. The result is the same whether commands or plans are delayed.
fn acted_on(
    slow: f64,
    fast: f64,
    fast_releases: FastReleases,
    ticks: u64,
) -> (String, Pilot<ScriptedPerception>) {
    let [command, plan] = [DelayedOutput::Command, DelayedOutput::Plan]
        .map(|delays| acted_on_where(delays, slow, fast, fast_releases, ticks));
    assert_eq!((&plan.0, plan.1.statistics()), (&command.0, command.1.statistics()));
    plan
}

fn acted_on_where(
    delays: DelayedOutput,
    slow: f64,
    fast: f64,
    fast_releases: FastReleases,
    ticks: u64,
) -> (String, Pilot<ScriptedPerception>) {
    let run =
        RunFile { fast_latency: LatencySpec::Fixed(fast), fast_releases, ..virtual_run(slow, 2) };
    let mut pilot = Setup { run, delays, ..Setup::default() }.pilot();
    let entries: Vec<String> = (1..=ticks)
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
    (entries.join(" "), pilot)
}

#[test]
fn fast_latency_of_n_ticks_is_a_queue_of_n_commands() {
    let (found, _) = acted_on(0.0, 0.0, FastReleases::Overlap, 5);
    assert_eq!(found, "1:1 2:1 3:2 4:2 5:3");
    let (found, pilot) = acted_on(0.0, 100.0, FastReleases::Overlap, 7);
    assert_eq!(found, "- - 1:1 2:1 3:2 4:2 5:3");
    let statistics = pilot.statistics();
    assert_eq!((statistics.ticks_held, statistics.deadline_misses), (0, 7), "a miss at every tick");
}

#[test]
fn busy_device_next_takes_the_newest_observation() {
    let (found, pilot) = acted_on(0.0, 70.0, FastReleases::Busy, 8);
    assert_eq!(found, "- - 1:1 1:1' 3:2 3:2' 5:3 5:3'");
    assert_eq!(pilot.statistics().ticks_held, 3);
}

#[test]
fn action_step_uses_prefix_visible_at_release() {
    // The prefix of tick 1 is visible at tick 2, whose command is applied at tick 3.
    let (found, _) = acted_on(30.0, 30.0, FastReleases::Overlap, 6);
    assert_eq!(found, "- - 2:1 3:1 4:2 5:2");
}

#[test]
fn prefill_waits_for_a_complete_history() {
    let mut pilot = Setup { ready_at: 4, run: virtual_run(0.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=6), "- - - 1@0 2@0 2@1");
    assert_eq!(pilot.statistics().ticks_without_prefix, 3);
}

#[test]
fn first_action_step_is_at_tick_32_and_prefills_at_even_ticks() {
    let mut pilot = Setup { run: RunFile::default(), ..Setup::default() }.pilot();
    let braked = drive(&mut pilot, 1..=31);
    assert!(braked.split(' ').all(|entry| entry == "-"), "{braked}");
    assert_eq!(pilot.statistics().refreshes_started, 0);
    // Ticks 31 to 36 in the AutoMoT release, which counts from 0.
    assert_eq!(drive(&mut pilot, 32..=37), "1@0 2@0 2@1 3@0 3@1 4@0");
    let mut pilot =
        Setup { run: RunFile { warm_up_ticks: 3, ..RunFile::default() }, ..Setup::default() }
            .pilot();
    assert_eq!(drive(&mut pilot, 1..=6), "- - - 1@0 2@0 2@1");
}

/// Drives `ticks` ticks of a standing vehicle whose plans are standing still. Returns the ticks,
/// counted from 0, whose command is not a full brake, with the command, and the detours.
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
fn stuck_vehicle_is_moved_after_301_ticks() {
    let only = Heuristics { force_move: true, ..NO_HEURISTICS };
    for warm_up_ticks in [0, 31] {
        let (moved, _) = stand(only, warm_up_ticks, 360);
        let (first, command) = moved[0];
        assert_eq!(first, u64::from(warm_up_ticks) + 300, "the 301st tick that the model drives");
        assert_eq!((command.throttle, command.brake), (0.4, 0.0));
    }
    // The vehicle never left its parking place, so it is not moved.
    let (moved, _) = stand(Heuristics { parking_start: true, ..only }, 0, 360);
    assert_eq!(moved, []);
}

#[test]
fn escape_overrides_the_command_and_reaches_the_expert() {
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
fn disabled_heuristics_do_nothing() {
    let (moved, detours) = stand(NO_HEURISTICS, 0, 1760);
    assert_eq!(moved, []);
    assert!(detours.iter().all(|detour| *detour == Detour::default()));
}

#[test]
fn speed_cap_brakes_a_fast_vehicle() {
    for (speed_cap, brake) in [(true, 1.0), (false, 0.0)] {
        let heuristics = Heuristics { speed_cap, ..NO_HEURISTICS };
        let mut pilot = Setup { run: run(), heuristics, step_m: 10.0, ..Setup::default() }.pilot();
        let control = pilot.drive(&Observation { speed_mps: 9.8, ..observation(1) }).unwrap();
        assert_eq!(control.command.brake, brake);
    }
}

#[test]
fn failed_prefill_keeps_old_prefix_and_frees_its_slot() {
    let slow = Slow::FailsAt(&[2, 3, 4, 5]);
    let mut pilot = Setup { slow, run: virtual_run(0.0, 1), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=6), "1@0 1@1 1@2 1@3 1@4 6@0");
    let statistics = pilot.statistics();
    assert_eq!((statistics.refreshes_failed, statistics.slots_exhausted), (4, 0));
}

#[test]
fn trajectory_that_is_not_finite_causes_a_brake() {
    for delays in [DelayedOutput::Command, DelayedOutput::Plan] {
        let mut pilot = Setup { step_m: f32::NAN, delays, ..Setup::default() }.pilot();
        let control = pilot.drive(&observation(1)).unwrap();
        assert_eq!(control.command, Command::FULL_BRAKE);
        assert!(control.report.is_answer_rejected && control.report.trajectory.is_none());
        assert_eq!(pilot.statistics().trajectories_not_finite, 1);
    }
}

#[test]
fn rejected_plan_brakes_until_the_next_plan() {
    let run = RunFile { fast_latency: LatencySpec::Fixed(100.0), ..virtual_run(0.0, 2) };
    let setup = Setup { run, delays: DelayedOutput::Plan, not_finite_at: 3, ..Setup::default() };
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
fn finite_trajectory_is_followed() {
    let mut pilot = Setup::default().pilot();
    let control = pilot.drive(&observation(1)).unwrap();
    assert!(control.command.throttle > 0.0 && control.command.brake == 0.0);
}

#[test]
fn with_one_slot_prefills_are_skipped_and_ticks_continue() {
    let mut pilot = Setup { slots: 1, run: virtual_run(0.0, 1), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=3), "1@0 1@1 1@2");
    assert_eq!(pilot.statistics().slots_exhausted, 2);
}

#[test]
fn wall_clock_ticks_never_wait_for_a_prefill() {
    let (sender, receiver) = sync_channel(8);
    let run = RunFile { clock: ClockName::Wall, refresh_period_ticks: 2, ..run() };
    let mut pilot = Setup { slow: Slow::OnMessage(receiver), run, ..Setup::default() }.pilot();
    let sender = sender; // Dropped before the pilot, which waits for its thread.
    // No prefill completes: a tick that waits for one would hang.
    assert_eq!(drive(&mut pilot, 1..=5), "- - - - -");
    assert_eq!(pilot.statistics().refreshes_delayed, 3);
    let frame = drive_until_prefix(&mut pilot, &sender, 6);
    // The next prefill blocks, and ticks keep using the prefix.
    let entries = drive(&mut pilot, frame + 1..=frame + 3);
    assert!(entries.split(' ').all(|entry| entry.starts_with("1@")), "{entries}");
    sender.send(()).unwrap(); // Lets the thread end.
}

/// Lets one prefill complete and ticks until its prefix is visible; returns that tick.
fn drive_until_prefix(
    pilot: &mut Pilot<ScriptedPerception>,
    sender: &SyncSender<()>,
    mut frame: u64,
) -> u64 {
    sender.send(()).unwrap();
    loop {
        if pilot.drive(&observation(frame)).unwrap().report.prefix.is_some() {
            return frame;
        }
        frame += 1;
        std::thread::yield_now();
    }
}

#[test]
fn dropped_pilot_ends_its_thread() {
    let (sender, receiver) = sync_channel(8);
    let mut pilot = Setup { slow: Slow::OnMessage(receiver), ..Setup::default() }.pilot();
    let sender = sender;
    sender.send(()).unwrap();
    drive(&mut pilot, 1..=1);
    drop(pilot);
    // The expert and its receiver were dropped with the thread.
    assert!(sender.send(()).is_err());
}
