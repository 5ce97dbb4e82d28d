//! Two rates on one device under adverse timing: ticks never wait for a prefill and never read an
//! incomplete prefix, and after a failure the previous prefix stays in use.
//!
//! Networks of a tiny checkpoint drive the embedded world on an emulated device, whose streams are
//! threads and whose memory is separate from the host's. A test can block, delay or fail each of
//! its operations.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::Duration;
use tandem::control::{Localizer, StateFilterConfig};
use tandem::device::{
    Counter, Device, DeviceError, Emulation, HostDevice, Operation, OperationKind,
};
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::kv_cache::{KvSnapshot, Slot};
use tandem::model::automot::{
    Automot, AutomotOptions, AutomotPerception, AutomotReadings, sensors, stages,
};
use tandem::model::{ActionExpert, Family, ModelError, Placement};
use tandem::pilot::{ClockName, LatencySpec, Pilot, Run, RunFile};
use tandem::scene::random::SplitMix64;
use tandem::scene::{Control, Driver, Trajectory, World};
use tandem::timing::{Stage, StageSpans};
use tandem_export::automot::ExportOptions;
use tandem_testkit::automot::{SOAK, export, synthesize};
use tandem_testkit::world::demo_world;
use tandem_world::EmbeddedWorld;
use tempfile::TempDir;

/// Ticks before the first prefill, which the history of frames in a prompt spans.
const HISTORY_TICKS: usize = 16;

/// Folder with the networks in two layer groups, exported once.
static NETWORKS: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = synthesize(SOAK, 1, &folder.path().join("checkpoint"));
    let options = ExportOptions { understanding_groups: 2, ..ExportOptions::default() };
    let networks = folder.path().join("networks");
    export(&checkpoint, &options, &networks);
    (folder, networks)
});

fn load(device: &Arc<dyn Device>) -> Automot {
    let backend = || Box::new(OnnxRuntime::open(CpuOptions::default(), &mut |_| {}).unwrap());
    let placement = Placement {
        streams: device.streams(None).unwrap(),
        device: Arc::clone(device),
        fast: backend(),
        slow: backend(),
    };
    Automot::load(&NETWORKS.1, placement, AutomotOptions::default()).unwrap()
}

/// The action expert with a log of its trajectories, of which commands show little.
struct Logging {
    expert: Box<dyn ActionExpert<Readings = AutomotReadings>>,
    /// Whether it launches captured graphs. If false, it enqueues single operations at every tick.
    is_prepared: bool,
    trajectories: Arc<Mutex<Vec<String>>>,
}

impl ActionExpert for Logging {
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
        let logged = format!("{} {:?}", prefix.meta().version, trajectory.waypoints);
        self.trajectories.lock().unwrap().push(logged);
        Ok(Some(trajectory))
    }
}

/// The embedded world and the pilot that drives in it.
struct Drive {
    world: EmbeddedWorld,
    pilot: Pilot<AutomotPerception>,
    device: Arc<dyn Device>,
    model: Automot,
    trajectories: Arc<Mutex<Vec<String>>>,
}

impl Drive {
    fn on(device: HostDevice, run: RunFile, slots: usize) -> Self {
        Self::with(device, run, slots, true)
    }

    fn with(device: HostDevice, run: RunFile, slots: usize, is_prepared: bool) -> Self {
        let device: Arc<dyn Device> = Arc::new(device);
        let model = load(&device);
        let world = demo_world(sensors(), 1);
        let mut experts = model.experts(world.plan()).unwrap();
        let trajectories = Arc::default();
        experts.action = Box::new(Logging {
            expert: experts.action,
            is_prepared,
            trajectories: Arc::clone(&trajectories),
        });
        let localizer = Localizer::new(StateFilterConfig::default(), world.plan().reference);
        let run = Run::try_from(&run).unwrap();
        let pilot = Pilot::new(&run, experts, localizer, model.slots(slots).unwrap()).unwrap();
        Self { world, pilot, device, model, trajectories }
    }

    fn tick(&mut self) -> Control {
        let observation = self.world.observe();
        let control = self.pilot.drive(&observation).unwrap();
        self.world.step(&control.command);
        control
    }

    /// Ticks until the newest prefix has this version; returns the first tick with it.
    fn until_version(&mut self, version: u64) -> Control {
        tandem_testkit::poll::until(&format!("version {version}"), || {
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

/// Real time, with a prefill whenever the previous one is complete.
fn continuous() -> RunFile {
    RunFile {
        clock: ClockName::Wall,
        warm_up_ticks: 0,
        refresh_period_ticks: 1,
        ..RunFile::default()
    }
}

/// Blocks operations of the slow stream.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    /// Selects the operations that are blocked.
    at: Option<fn(OperationKind) -> bool>,
    is_blocking: bool,
}

impl Gate {
    fn device(self: &Arc<Self>) -> HostDevice {
        let gate = Arc::clone(self);
        emulating(move |operation| {
            let mut state = gate.state.lock().unwrap();
            while operation.stream == "slow"
                && state.at.is_some_and(|is_blocked| is_blocked(operation.kind))
            {
                state.is_blocking = true;
                gate.changed.notify_all();
                state = gate.changed.wait(state).unwrap();
            }
            Ok(())
        })
    }

    fn close(&self, at: fn(OperationKind) -> bool) {
        *self.state.lock().unwrap() = GateState { at: Some(at), is_blocking: false };
    }

    fn open(&self) {
        self.state.lock().unwrap().at = None;
        self.changed.notify_all();
    }

    fn is_blocking(&self) -> bool {
        self.state.lock().unwrap().is_blocking
    }
}

fn emulating(
    before: impl Fn(&Operation) -> Result<(), DeviceError> + Send + Sync + 'static,
) -> HostDevice {
    HostDevice::emulating(Emulation { before: Arc::new(before), memory_bytes: None })
}

/// Drives until a prefill is blocked at an operation
/// of some kind, drives 40 ticks, and unblocks it.
fn ticks_continue_while_blocked_at(kind: fn(OperationKind) -> bool) {
    let gate = Arc::new(Gate::default());
    let mut drive = Drive::on(gate.device(), continuous(), 3);
    drive.until_version(1);
    gate.close(kind);
    let mut newest = 0;
    while !gate.is_blocking() {
        newest = Drive::version(&drive.tick());
    }
    // The previous prefix may have been complete and not yet published.
    newest = newest.max(Drive::version(&drive.tick()));
    let ticks: Vec<Control> = (0..40).map(|_| drive.tick()).collect();
    for control in &ticks {
        assert_eq!(Drive::version(control), newest, "an unsealed prefix was read");
        assert!(control.report.is_refreshing);
    }
    let delayed = drive.pilot.statistics().refreshes_delayed;
    assert!(delayed >= 40, "only {delayed} due prefills were delayed");
    gate.open();
    let control = drive.until_version(newest + 1);
    // The prefill began before the first of these ticks and ended after the last, so they
    // overlapped.
    let prefill = control.report.prefill.as_ref().unwrap();
    let span = |spans: &StageSpans, stage| *spans.iter().find(|span| span.stage == stage).unwrap();
    let prefill = span(&prefill.spans, Stage::PREFILL);
    for control in &ticks {
        for stage in [Stage::TICK, Stage::UPLOAD, stages::BEV, stages::ACTION, Stage::DOWNLOAD] {
            let tick = span(&control.report.spans, stage);
            assert!(prefill.start_ns < tick.start_ns, "{stage:?}");
            assert!(tick.start_ns + tick.took_ns < prefill.start_ns + prefill.took_ns);
        }
    }
}

#[test]
fn ticks_continue_while_a_network_run_is_blocked() {
    ticks_continue_while_blocked_at(|kind| kind == OperationKind::Run);
}

#[test]
fn ticks_continue_while_a_prefix_is_being_sealed() {
    // The only downloads of a prefill are of its last layer, which is checked before the seal.
    ticks_continue_while_blocked_at(|kind| matches!(kind, OperationKind::Download(_)));
}

#[test]
fn tick_copies_inputs_and_outputs_and_allocates_nothing() {
    let gate = Arc::new(Gate::default());
    let mut drive = Drive::on(gate.device(), continuous(), 3);
    drive.until_version(4);
    gate.close(|kind| kind == OperationKind::Run);
    while !gate.is_blocking() {
        drive.tick();
    }
    drive.tick();
    let before = drive.device.counts();
    const TICKS: u64 = 10;
    for _ in 0..TICKS {
        drive.tick();
    }
    let counts = drive.device.counts() - before;
    let networks = drive.model.networks();
    let bytes = |specs: &[tandem_export::contract::TensorSpec]| -> u64 {
        specs
            .iter()
            .map(|spec| (spec.shape.iter().product::<usize>() * spec.dtype.size()) as u64)
            .sum()
    };
    // Inputs: BEV image and histogram; speed and target points, first position, prefix length.
    let (bev, action) = (networks.bev.contract(), networks.action.contract());
    let readings = bytes(&bev.inputs) + bytes(&action.inputs[1..4]);
    assert_eq!(counts[Counter::UploadedBytes], TICKS * readings);
    // Outputs: 20 route points and 6 waypoints, 52 numbers, and the decision ids.
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
    gate.open();
}

/// Trajectories of a drive in virtual time with the
/// versions of their prefixes, as text with every bit.
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

/// A value that is read too early, from another slot
/// or partly overwritten would change a trajectory.
#[test]
fn trajectories_do_not_depend_on_device_timing() {
    let expected = trajectories(HostDevice::new(), None, false);
    let versions: BTreeSet<_> =
        expected.iter().map(|logged| logged.split_once(' ').unwrap().0).collect();
    assert!(versions.len() > 6, "every slot is used twice: {versions:?}");
    let different: BTreeSet<_> =
        expected.iter().map(|logged| logged.split_once(' ').unwrap().1).collect();
    assert_eq!(different.len(), expected.len(), "two ticks have the same trajectory");
    assert_eq!(trajectories(HostDevice::new(), None, true), expected, "graphs");
    for (seed, guard) in [(1, None), (2, None), (3, Some(5.0))] {
        let operations = AtomicU64::new(seed << 32);
        let device = emulating(move |_| {
            // The last step of SplitMix64 gives each operation another delay, up to 2 ms.
            let operation = operations.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mixed = (operation ^ (operation >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            std::thread::sleep(Duration::from_micros((mixed >> 40) % 2000));
            Ok(())
        });
        assert_eq!(trajectories(device, guard, true), expected, "seed {seed}");
    }
}

#[test]
fn keep_warm_runs_networks_between_prefills() {
    let runs = Arc::new(AtomicU64::new(0));
    let device = {
        let runs = Arc::clone(&runs);
        emulating(move |operation| {
            let is_slow_run = operation.stream == "slow" && operation.kind == OperationKind::Run;
            runs.fetch_add(u64::from(is_slow_run), Ordering::SeqCst);
            Ok(())
        })
    };
    let run = RunFile {
        refresh_period_ticks: 10_000,
        keep_warm_millis: Some(1.0),
        tick_guard_millis: Some(1.0),
        ..continuous()
    };
    let mut drive = Drive::on(device, run, 3);
    drive.until_version(1);
    let before = runs.load(Ordering::SeqCst);
    tandem_testkit::poll::until("five runs between prefills", || {
        assert_eq!(Drive::version(&drive.tick()), 1, "a warm-up run was published");
        (runs.load(Ordering::SeqCst) >= before + 5).then_some(())
    });
}

#[test]
fn prefills_without_a_free_slot_are_skipped() {
    let mut drive = Drive::on(emulating(|_| Ok(())), continuous(), 1);
    drive.until_version(1);
    for _ in 0..30 {
        assert_eq!(Drive::version(&drive.tick()), 1);
    }
    assert!(drive.pilot.statistics().slots_exhausted >= 29);
}

#[test]
fn failed_prefill_keeps_old_prefix_and_returns_its_slot() {
    let runs = Arc::new(AtomicU64::new(0));
    let fail_at = Arc::new(AtomicU64::new(u64::MAX));
    let device = {
        let (runs, fail_at) = (Arc::clone(&runs), Arc::clone(&fail_at));
        emulating(move |operation| {
            let is_slow_run = operation.stream == "slow" && operation.kind == OperationKind::Run;
            if is_slow_run && runs.fetch_add(1, Ordering::SeqCst) == fail_at.load(Ordering::SeqCst)
            {
                let (what, reason) = ("the second group".into(), "scripted failure".into());
                return Err(DeviceError::Failed { what, reason });
            }
            Ok(())
        })
    };
    // Two slots: one that is not returned would be missing at once.
    let mut drive = Drive::on(device, continuous(), 2);
    drive.until_version(1);
    for round in 1..=3 {
        let before = drive.pilot.statistics();
        let version = Drive::version(&drive.tick());
        // The third run from now is a layer group, because at most one frame is new per tick.
        fail_at.store(runs.load(Ordering::SeqCst) + 2, Ordering::SeqCst);
        let mut newest = version;
        while drive.pilot.statistics().refreshes_failed == before.refreshes_failed {
            newest = newest.max(Drive::version(&drive.tick()));
        }
        assert_eq!(drive.pilot.statistics().refreshes_failed, before.refreshes_failed + 1);
        fail_at.store(u64::MAX, Ordering::SeqCst);
        let failed = drive.pilot.statistics().refreshes_started;
        tandem_testkit::poll::until(
            &format!("round {round}: a prefill after the failed one"),
            || (Drive::version(&drive.tick()) > failed).then_some(()),
        );
    }
    assert_eq!(drive.pilot.statistics().slots_exhausted, 0);
}

#[test]
fn lost_device_ends_the_drive_with_one_error() {
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
    let mut drive = Drive::on(device, continuous(), 3);
    drive.until_version(1);
    is_lost.store(true, Ordering::SeqCst);
    let error = drive.pilot.drive(&drive.world.observe()).unwrap_err();
    let text = format!("{error} {}", std::error::Error::source(&error).unwrap());
    assert!(text.contains("GPU 0 was lost: fell off the bus"), "{text}");
}

#[test]
fn too_little_device_memory_is_an_error_at_the_start() {
    let device: Arc<dyn Device> = Arc::new(HostDevice::emulating(Emulation {
        memory_bytes: Some(1 << 12),
        ..Emulation::default()
    }));
    let error = load(&device).slots(3).err().unwrap();
    assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
}
