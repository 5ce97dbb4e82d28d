//! What a tick of the real pilot allocates on its thread, once warm: nothing.
//!
//! A tiny checkpoint drives the embedded world in virtual time. Only `Pilot::drive` is counted, and
//! only on its thread: what the world allocates to make an observation does not count, nor does what
//! the understanding expert's thread or ONNX Runtime (which has its own allocator) does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use tandem::control::{Localizer, PathFollower, PathFollowerConfig, StateFilterConfig};
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::evaluation::routes::parse_routes;
use tandem::kv_cache::SlotPool;
use tandem::model::automot::planner::{
    PlanPoint, RoutePlanner, RoutePlannerConfig, THINNING_M, thin_plan,
};
use tandem::model::automot::tokenizer::Tokenizer;
use tandem::model::automot::{
    ActionOptions, AutomotAction, AutomotUnderstanding, Networks, SENSORS,
};
use tandem::pilot::{Pilot, Run, RunFile};
use tandem::scene::{Driver, RoutePlan};
use tandem::world::{EmbeddedWorld, World};
use tandem_export::checkpoint::Checkpoint;
use tandem_export::folder::export_networks;
use tandem_export::networks::ExportOptions;
use tandem_export::synth::{SynthSpec, synthesize};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the allocations of each thread.
struct Counting;

// SAFETY: forwards to the system's allocator unchanged; the counter is a thread-local integer that
// needs no allocation itself.
#[expect(unsafe_code, reason = "counting allocations takes a global allocator")]
unsafe impl GlobalAlloc for Counting {
    // SAFETY: as the trait demands of callers.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as the trait demands of callers.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Ticks until every buffer is in use: the history of frames is 16 ticks long, and each of the
/// prefix's slots is bound to at its first turn.
const WARM_UP_TICKS: u64 = 40;

/// Ticks counted after that.
const COUNTED_TICKS: u64 = 50;

/// Allocations of one tick, and refreshes published at it.
#[derive(Clone, Copy, Debug)]
struct Tick {
    allocations: u64,
    published: u64,
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Synthesizes and exports the tiny checkpoint.
fn export_tiny(folder: &Path) -> PathBuf {
    let spec: SynthSpec =
        serde_json::from_slice(&std::fs::read(file("configs/tiny.json")).unwrap()).unwrap();
    let checkpoint = folder.join("checkpoint");
    synthesize(&spec, 1, &checkpoint, &mut |_, _| {}).unwrap();
    let engine = folder.join("engine");
    let checkpoint = Checkpoint::open(&checkpoint).unwrap();
    export_networks(&checkpoint, &ExportOptions::default(), &engine, &mut |_| {}).unwrap();
    engine
}

fn pilot(networks: &Networks, engine: &Path, run: &Run, plan: &RoutePlan) -> Pilot {
    let tokenizer = Tokenizer::read(&engine.join("tokenizer.json")).unwrap();
    let understanding = AutomotUnderstanding::new(networks, tokenizer).unwrap();
    let points: Vec<PlanPoint> = plan.points.iter().map(PlanPoint::from).collect();
    let thinned = thin_plan(&points, THINNING_M).into_iter().map(|index| points[index]);
    let action = AutomotAction::new(
        networks,
        RoutePlanner::new(thinned, RoutePlannerConfig::default()),
        understanding.frames_per_prompt(),
        ActionOptions { jpeg_quality: run.jpeg_quality, ..ActionOptions::default() },
    )
    .unwrap();
    Pilot::new(
        run,
        Box::new(understanding),
        Box::new(action),
        Localizer::new(StateFilterConfig::default(), plan.reference),
        PathFollower::new(PathFollowerConfig::default()),
        SlotPool::new(networks.prefix, 3),
    )
    .unwrap()
}

/// Drives and counts; the first ticks warm up and are not in the result.
fn drive(networks: &Networks, engine: &Path, run_file: &RunFile) -> Vec<Tick> {
    let run = Run::try_from(run_file).unwrap();
    let routes = std::fs::read_to_string(file("routes/demo.xml")).unwrap();
    let routes = parse_routes(&routes, "routes/demo.xml").unwrap();
    let mut world = EmbeddedWorld::new(&routes[0], SENSORS, 1).unwrap();
    let mut pilot = pilot(networks, engine, &run, world.plan());
    let mut ticks = Vec::with_capacity(COUNTED_TICKS as usize);
    for tick in 0..WARM_UP_TICKS + COUNTED_TICKS {
        let observation = world.observe();
        let published = pilot.statistics().refreshes_published;
        let before = ALLOCATIONS.with(Cell::get);
        let control = pilot.drive(&observation).unwrap();
        let allocations = ALLOCATIONS.with(Cell::get) - before;
        if tick >= WARM_UP_TICKS {
            let published = pilot.statistics().refreshes_published - published;
            ticks.push(Tick { allocations, published });
        }
        world.step(&control.command);
    }
    let statistics = pilot.statistics();
    assert_eq!(statistics.slots_exhausted + statistics.refreshes_failed, 0, "{statistics:?}");
    assert_eq!(statistics.filter_restarts + statistics.trajectories_not_finite, 0);
    ticks
}

#[test]
fn a_warm_tick_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = export_tiny(folder.path());
    let backend = OnnxRuntime::open(CpuOptions::default(), &mut |_| {}).unwrap();
    let networks = Networks::load(&engine, &backend, &backend).unwrap();
    let runs = [
        // A refresh every second tick, visible at once; the model runs from the first tick it can, so
        // that it has seen every camera buffer when counting begins.
        RunFile { warm_up_ticks: 0, ..RunFile::default() },
        RunFile {
            refresh_period_ticks: 5,
            refresh_latency_millis: 100.0,
            jpeg_quality: Some(95),
            warm_up_ticks: 0,
            ..RunFile::default()
        },
    ];
    for run in runs {
        let ticks = drive(&networks, &engine, &run);
        let published: u64 = ticks.iter().map(|tick| tick.published).sum();
        let expected = COUNTED_TICKS / u64::from(run.refresh_period_ticks);
        assert!(published.abs_diff(expected) <= 1, "{published} refreshes in {run:?}");
        for (index, tick) in ticks.iter().enumerate() {
            assert_eq!(tick.allocations, 0, "tick {index} after the warm-up: {tick:?}, in {run:?}");
        }
    }
}
