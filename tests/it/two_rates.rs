//! Two rates on one device, with timings that are as bad as the test wants: ticks never wait for a
//! refresh, never read a prefix that is not whole, and what fails leaves the old prefix in use.
//!
//! Real networks of a tiny checkpoint drive the embedded world on an emulated device, whose streams
//! are threads, whose memory is apart from the host's, and whose every piece of work a test may hold,
//! delay or fail.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;
use tandem::control::{Localizer, PathFollower, PathFollowerConfig, StateFilterConfig};
use tandem::device::{Counter, Device, DeviceError, Emulation, HostDevice, Kind, Piece};
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::kv_cache::{KvSnapshot, Slot, SlotPool};
use tandem::model::automot::planner::{PlanPoint, RoutePlanner, RoutePlannerConfig};
use tandem::model::automot::stages;
use tandem::model::automot::tokenizer::Tokenizer;
use tandem::model::automot::{
    AutomotAction, AutomotPerception, AutomotReadings, AutomotUnderstanding, Networks,
    PerceptionOptions, Positions, sensors,
};
use tandem::model::{ActionExpert, ModelError};
use tandem::model::{Delays, Experts};
use tandem::pilot::{ClockName, LatencySpec, Pilot, Run, RunFile};
use tandem::scene::random::SplitMix64;
use tandem::scene::{Control, Driver, Trajectory, World};
use tandem::timing::{Stage, StageSpans};
use tandem_evaluation::routes::parse_routes;
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::automot::synth::{SynthSpec, synthesize};
use tandem_export::folder::export_networks;
use tandem_world::EmbeddedWorld;

/// Ticks before the first refresh: the history of frames that a prompt looks back over.
const HISTORY_TICKS: usize = 16;

fn file(path: &str) -> std::path::PathBuf {
    Path::new(tandem_testkit::ROOT).join(path)
}

/// The networks, in two layer groups, exported once; and the tokenizer's folder.
fn engine() -> (&'static Path, Networks) {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let spec: SynthSpec =
            serde_json::from_slice(&std::fs::read(file("configs/soak.json")).unwrap()).unwrap();
        let checkpoint = folder.path().join("checkpoint");
        synthesize(&spec, 1, &checkpoint, &mut |_, _| {}).unwrap();
        let checkpoint = Checkpoint::open(&checkpoint).unwrap();
        let options = ExportOptions { understanding_groups: 2, ..ExportOptions::default() };
        let engine = folder.path().join("engine");
        export_networks(&checkpoint, &options, &engine, &mut |_| {}).unwrap();
        folder
    });
    let backend = OnnxRuntime::open(CpuOptions::default(), &mut |_| {}).unwrap();
    let folder = folder.path().join("engine").leak();
    (folder, Networks::load(folder, &backend, &backend).unwrap())
}

fn world() -> EmbeddedWorld {
    let routes = std::fs::read_to_string(file("routes/demo.xml")).unwrap();
    let routes = parse_routes(&routes, "routes/demo.xml").unwrap();
    EmbeddedWorld::new(&routes[0], sensors(), 1).unwrap()
}

/// The action expert, with a copy of what it answered: commands hide most of it.
struct Heard {
    expert: AutomotAction,
    /// Whether it works from captured graphs, or hands its work over anew at every tick.
    is_prepared: bool,
    trajectories: Arc<Mutex<Vec<String>>>,
}

impl ActionExpert for Heard {
    type Readings = AutomotReadings;

    fn prepare(&mut self, slot: &Slot, readings: &mut AutomotReadings) -> Result<(), ModelError> {
        if self.is_prepared { self.expert.prepare(slot, readings) } else { Ok(()) }
    }

    fn act(
        &mut self,
        prefix: &KvSnapshot,
        readings: &mut AutomotReadings,
        random: SplitMix64,
        spans: &mut StageSpans,
    ) -> Result<Option<Trajectory>, ModelError> {
        let trajectory = self.expert.act(prefix, readings, random, spans)?.unwrap();
        let heard = format!("{} {:?}", prefix.meta().version, trajectory.waypoints);
        self.trajectories.lock().unwrap().push(heard);
        Ok(Some(trajectory))
    }
}

/// A vehicle in the embedded world with the pilot in it.
struct Drive {
    world: EmbeddedWorld,
    pilot: Pilot<AutomotPerception>,
    device: Arc<dyn Device>,
    trajectories: Arc<Mutex<Vec<String>>>,
}

impl Drive {
    fn on(device: HostDevice, run: RunFile, slots: usize) -> Self {
        Self::with(device, run, slots, true)
    }

    fn with(device: HostDevice, run: RunFile, slots: usize, is_prepared: bool) -> Self {
        let (folder, networks) = engine();
        let device: Arc<dyn Device> = Arc::new(device);
        let lanes = device.lanes(None).unwrap();
        let networks = networks.on(Arc::clone(&device), lanes);
        let world = world();
        let tokenizer = Tokenizer::read(&folder.join("tokenizer.json")).unwrap();
        let understanding = AutomotUnderstanding::new(&networks, tokenizer).unwrap();
        let points = world.plan().points.iter().map(PlanPoint::from);
        let planner = RoutePlanner::new(points, RoutePlannerConfig::default());
        let frames = understanding.frames_per_prompt();
        let options = PerceptionOptions::default();
        let perception = AutomotPerception::new(&networks, planner, frames, options).unwrap();
        let action = AutomotAction::new(&networks, Positions::default()).unwrap();
        let trajectories = Arc::default();
        let action = Heard { expert: action, is_prepared, trajectories: Arc::clone(&trajectories) };
        let pilot = Pilot::new(
            &Run::try_from(&run).unwrap(),
            Experts {
                perception,
                understanding: Box::new(understanding),
                action: Box::new(action),
                follower: Box::new(PathFollower::new(PathFollowerConfig::default())),
                delays: Delays::Command,
            },
            Localizer::new(StateFilterConfig::default(), world.plan().reference),
            SlotPool::new(&device, networks.prefix, slots).unwrap(),
        );
        Self { world, pilot: pilot.unwrap(), device, trajectories }
    }

    fn tick(&mut self) -> Control {
        let observation = self.world.observe();
        let control = self.pilot.drive(&observation).unwrap();
        self.world.step(&control.command);
        control
    }

    /// Ticks until the newest prefix has this version; gives the tick that first saw it.
    fn until_version(&mut self, version: u64) -> Control {
        tandem_testkit::patience::until(&format!("version {version}"), || {
            let control = self.tick();
            let found = Self::version(&control);
            assert!(found <= version, "version {found} came before {version}");
            (found == version).then_some(control)
        })
    }

    fn version(control: &Control) -> u64 {
        control.report.prefix.as_ref().map_or(0, |prefix| prefix.version)
    }
}

/// Real time, a refresh whenever the last one is over.
fn at_once() -> RunFile {
    RunFile {
        clock: ClockName::Wall,
        warm_up_ticks: 0,
        refresh_period_ticks: 1,
        ..RunFile::default()
    }
}

/// Holds pieces of the slow lane, and says when one has come.
#[derive(Default)]
struct Hold {
    state: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    /// The kind of piece that is held, if any.
    at: Option<fn(Kind) -> bool>,
    has_come: bool,
}

impl Hold {
    fn device(self: &Arc<Self>) -> HostDevice {
        let hold = Arc::clone(self);
        emulating(move |piece| {
            let mut held = hold.state.lock().unwrap();
            while piece.lane == "slow" && held.at.is_some_and(|is_held| is_held(piece.kind)) {
                held.has_come = true;
                hold.changed.notify_all();
                held = hold.changed.wait(held).unwrap();
            }
            Ok(())
        })
    }

    fn close(&self, at: fn(Kind) -> bool) {
        *self.state.lock().unwrap() = Held { at: Some(at), has_come: false };
    }

    fn open(&self) {
        self.state.lock().unwrap().at = None;
        self.changed.notify_all();
    }

    fn has_come(&self) -> bool {
        self.state.lock().unwrap().has_come
    }
}

fn emulating(
    before: impl Fn(&Piece) -> Result<(), DeviceError> + Send + Sync + 'static,
) -> HostDevice {
    HostDevice::emulating(Emulation { before: Arc::new(before), memory_bytes: None })
}

/// Drives until a refresh stands still at a piece of some kind, then 40 ticks, then lets it go on.
fn ticks_go_on_while_a_refresh_stands_still_at(kind: fn(Kind) -> bool) {
    let hold = Arc::new(Hold::default());
    let mut drive = Drive::on(hold.device(), at_once(), 3);
    drive.until_version(1);
    hold.close(kind);
    let mut newest = 0;
    while !hold.has_come() {
        newest = Drive::version(&drive.tick());
    }
    // The one before it may have been ready and not yet published.
    newest = newest.max(Drive::version(&drive.tick()));
    let ticks: Vec<Control> = (0..40).map(|_| drive.tick()).collect();
    for control in &ticks {
        assert_eq!(Drive::version(control), newest, "an unsealed prefix was read");
        assert!(control.report.is_refreshing);
    }
    let delayed = drive.pilot.statistics().refreshes_delayed;
    assert!(delayed >= 40, "{delayed} refreshes that were due waited");
    hold.open();
    let control = drive.until_version(newest + 1);
    // The refresh began before the first of these ticks and ended behind the last: they overlapped.
    let refresh = control.report.refresh.as_ref().unwrap();
    let span = |spans: &StageSpans, stage| *spans.iter().find(|span| span.stage == stage).unwrap();
    let refresh = span(&refresh.spans, Stage::REFRESH);
    for control in &ticks {
        for stage in [Stage::TICK, Stage::UPLOAD, stages::BEV, stages::ACTION, Stage::DOWNLOAD] {
            let tick = span(&control.report.spans, stage);
            assert!(refresh.start_ns < tick.start_ns, "{stage:?}");
            assert!(tick.start_ns + tick.took_ns < refresh.start_ns + refresh.took_ns);
        }
    }
}

#[test]
fn ticks_go_on_while_a_frame_or_layer_group_stands_still() {
    ticks_go_on_while_a_refresh_stands_still_at(|kind| kind == Kind::Run);
}

#[test]
fn ticks_go_on_while_a_prefix_is_being_sealed() {
    // The only downloads of a refresh are of its last layer, which are looked at before the seal.
    ticks_go_on_while_a_refresh_stands_still_at(|kind| matches!(kind, Kind::Download(_)));
}

#[test]
fn a_tick_copies_its_readings_and_its_answers_and_allocates_nothing() {
    let hold = Arc::new(Hold::default());
    let mut drive = Drive::on(hold.device(), at_once(), 3);
    drive.until_version(4);
    hold.close(|kind| kind == Kind::Run);
    while !hold.has_come() {
        drive.tick();
    }
    drive.tick();
    let before = drive.device.counts();
    const TICKS: u64 = 10;
    for _ in 0..TICKS {
        drive.tick();
    }
    let counts = drive.device.counts() - before;
    let (_, networks) = engine();
    let bytes = |specs: &[tandem_export::contract::TensorSpec]| -> u64 {
        specs
            .iter()
            .map(|spec| (spec.shape.iter().product::<usize>() * spec.dtype.size()) as u64)
            .sum()
    };
    // The readings: picture and histogram; speed and target points, first position, prefix length.
    let (bev, action) = (networks.bev.contract(), networks.action.contract());
    let readings = bytes(&bev.inputs) + bytes(&action.inputs[1..4]);
    assert_eq!(counts[Counter::UploadedBytes], TICKS * readings);
    // The answers: 20 route points and 6 waypoints, 52 numbers, and the decision ids.
    assert_eq!(
        action.outputs[..2].iter().map(|o| o.shape.iter().product::<usize>()).sum::<usize>(),
        52
    );
    assert_eq!(counts[Counter::DownloadedBytes], TICKS * bytes(&action.outputs));
    assert_eq!((counts[Counter::Allocations], counts[Counter::Frees]), (0, 0));
    assert_eq!(
        (counts[Counter::Launches], counts[Counter::HostWaits]),
        (TICKS, TICKS),
        "one graph, one wait"
    );
    hold.open();
}

/// Trajectories of a drive in virtual time with the versions of their prefixes, as text that holds
/// every bit.
fn trajectories(device: HostDevice, guard: Option<f64>, is_prepared: bool) -> Vec<String> {
    let run = RunFile {
        warm_up_ticks: 0,
        clock: ClockName::Virtual,
        slow_latency: LatencySpec::Fixed(100.0),
        tick_guard_millis: guard,
        ..RunFile::default()
    };
    let mut drive = Drive::with(device, run, 3, is_prepared);
    for _ in 0..HISTORY_TICKS + 24 {
        drive.tick();
    }
    std::mem::take(&mut *drive.trajectories.lock().unwrap())
}

/// Any number read before it was written, from the wrong slot or half overwritten, would give another
/// trajectory.
#[test]
fn whatever_the_timing_the_same_prefixes_give_the_same_trajectories() {
    let expected = trajectories(HostDevice::new(), None, false);
    let versions: BTreeSet<_> =
        expected.iter().map(|heard| heard.split_once(' ').unwrap().0).collect();
    assert!(versions.len() > 6, "every slot is used twice: {versions:?}");
    let different: BTreeSet<_> =
        expected.iter().map(|heard| heard.split_once(' ').unwrap().1).collect();
    assert_eq!(different.len(), expected.len(), "every tick answers something else");
    assert_eq!(trajectories(HostDevice::new(), None, true), expected, "graphs");
    for (seed, guard) in [(1, None), (2, None), (3, Some(5.0))] {
        let pieces = AtomicU64::new(seed << 32);
        let device = emulating(move |_| {
            // SplitMix64's last step: a different delay for each piece, up to 2 ms.
            let piece = pieces.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mixed = (piece ^ (piece >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            std::thread::sleep(Duration::from_micros((mixed >> 40) % 2000));
            Ok(())
        });
        assert_eq!(trajectories(device, guard, true), expected, "seed {seed}");
    }
}

#[test]
fn between_refreshes_the_device_is_kept_busy_if_that_is_asked_for() {
    let runs = Arc::new(AtomicU64::new(0));
    let device = {
        let runs = Arc::clone(&runs);
        emulating(move |piece| {
            let is_slow_run = piece.lane == "slow" && piece.kind == Kind::Run;
            runs.fetch_add(u64::from(is_slow_run), Ordering::SeqCst);
            Ok(())
        })
    };
    let run = RunFile {
        refresh_period_ticks: 10_000,
        keep_warm_millis: Some(1.0),
        tick_guard_millis: Some(1.0),
        ..at_once()
    };
    let mut drive = Drive::on(device, run, 3);
    drive.until_version(1);
    let before = runs.load(Ordering::SeqCst);
    tandem_testkit::patience::until("five runs between refreshes", || {
        assert_eq!(Drive::version(&drive.tick()), 1, "nothing of it becomes a prefix");
        (runs.load(Ordering::SeqCst) >= before + 5).then_some(())
    });
}

#[test]
fn with_one_slot_too_few_refreshes_are_left_out_and_ticks_go_on() {
    let mut drive = Drive::on(emulating(|_| Ok(())), at_once(), 1);
    drive.until_version(1);
    for _ in 0..30 {
        assert_eq!(Drive::version(&drive.tick()), 1);
    }
    assert!(drive.pilot.statistics().slots_exhausted >= 29);
}

#[test]
fn a_refresh_that_fails_midway_leaves_the_old_prefix_and_its_slot_is_used_again() {
    let runs = Arc::new(AtomicU64::new(0));
    let fail_at = Arc::new(AtomicU64::new(u64::MAX));
    let device = {
        let (runs, fail_at) = (Arc::clone(&runs), Arc::clone(&fail_at));
        emulating(move |piece| {
            let is_slow_run = piece.lane == "slow" && piece.kind == Kind::Run;
            if is_slow_run && runs.fetch_add(1, Ordering::SeqCst) == fail_at.load(Ordering::SeqCst)
            {
                let (what, reason) = ("the second group".into(), "as the test asked".into());
                return Err(DeviceError::Failed { what, reason });
            }
            Ok(())
        })
    };
    // Two slots: one that was never given back would be missed at once.
    let mut drive = Drive::on(device, at_once(), 2);
    drive.until_version(1);
    for round in 1..=3 {
        let before = drive.pilot.statistics();
        let version = Drive::version(&drive.tick());
        // Of the runs to come, the third is a layer group: at most one frame is new per tick.
        fail_at.store(runs.load(Ordering::SeqCst) + 2, Ordering::SeqCst);
        let mut newest = version;
        while drive.pilot.statistics().refreshes_failed == before.refreshes_failed {
            newest = newest.max(Drive::version(&drive.tick()));
        }
        assert_eq!(drive.pilot.statistics().refreshes_failed, before.refreshes_failed + 1);
        fail_at.store(u64::MAX, Ordering::SeqCst);
        let failed = drive.pilot.statistics().refreshes_started;
        tandem_testkit::patience::until(
            &format!("round {round}: a refresh after the failed one"),
            || (Drive::version(&drive.tick()) > failed).then_some(()),
        );
    }
    assert_eq!(drive.pilot.statistics().slots_exhausted, 0);
}

#[test]
fn a_device_that_is_lost_ends_the_drive_with_one_error() {
    let is_lost = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let device = {
        let is_lost = Arc::clone(&is_lost);
        emulating(move |_| match is_lost.load(Ordering::SeqCst) {
            false => Ok(()),
            true => {
                Err(DeviceError::Lost { device: "GPU 0".into(), reason: "fell off the bus".into() })
            }
        })
    };
    let mut drive = Drive::on(device, at_once(), 3);
    drive.until_version(1);
    is_lost.store(true, Ordering::SeqCst);
    let error = drive.pilot.drive(&drive.world.observe()).unwrap_err();
    let text = format!("{error} {}", std::error::Error::source(&error).unwrap());
    assert!(text.contains("GPU 0 was lost: fell off the bus"), "{text}");
}

#[test]
fn memory_that_does_not_suffice_is_said_at_the_start() {
    let (_, networks) = engine();
    let device: Arc<dyn Device> = Arc::new(HostDevice::emulating(Emulation {
        memory_bytes: Some(1 << 12),
        ..Emulation::default()
    }));
    let error = SlotPool::new(&device, networks.prefix, 3).err().unwrap();
    assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
}
