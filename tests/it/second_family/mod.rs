//! A second, complete model family: recognized, exported, loaded, driven, profiled and verified
//! with code only in its two modules [`export`] and [`model`], which register it.

pub(crate) mod export;
mod model;

use export::{NAME, SCRIPTED};
pub(crate) use model::PLANNER;
use model::{PLAN_PERIOD_TICKS, Scripted, ScriptedOptions};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tandem::model::verification::{Limits, RecordingInputs};
use tandem::model::{Family, ModelBlock, OptionsError, Runs};
use tandem::pilot::{Run, RunFile};
use tandem::runtime::{self, Loaded, OpenError, VerifyOptions, verify};
use tandem::scene::{CameraId, Command, World};
use tandem_export::family::Family as _;
use tandem_export::folder::export_networks;
use tandem_export::options::Options;
use tandem_export::synth::SynthWeights;
use tandem_profile::{LoopOptions, PhaseName, PrefillOptions, Replay, run_loop, run_prefills};
use tandem_testkit::world::routes;
use tandem_world::EmbeddedWorld;
use tempfile::TempDir;

/// Exports a network folder of the family.
fn networks(root: &Path) -> PathBuf {
    let [checkpoint, networks] = ["checkpoint", "networks"].map(|name| root.join(name));
    let spec = json!({ "picture": 6, "points": 4 });
    SCRIPTED.synthesize(&spec, SynthWeights::Sparse, &checkpoint, &mut |_, _| {}).unwrap();
    let checkpoint = tandem_export::registry::Families::known().open(&checkpoint).unwrap();
    assert_eq!(checkpoint.family().name(), NAME);
    export_networks(&*checkpoint, Options::default(), &networks, &mut |_| {}).unwrap();
    networks
}

fn run(noise_m: f64) -> Run {
    let model = Some(ModelBlock::of(NAME, &ScriptedOptions { noise_m }));
    Run::try_from(&RunFile { model, warm_up_ticks: 0, ..RunFile::default() }).unwrap()
}

/// Drives `ticks` ticks in the same world and returns the commands; `seed` is that of the experts.
fn drive(model: &Loaded, run: &Run, seed: u64, ticks: u64) -> Vec<Command> {
    let routes = routes("short.xml");
    let route = &routes[0];
    let mut world = EmbeddedWorld::new(route, model.sensors(), 1).unwrap();
    let run = run.clone().for_drive(seed, &route.id);
    let mut pilot = model.pilot(world.plan(), &run).unwrap();
    let mut commands = Vec::new();
    for _ in 0..ticks {
        let observation = world.observe();
        assert_eq!(observation.cameras.len(), 2);
        let control = pilot.drive(&observation).unwrap();
        let is_planned = control.report.spans.took(PLANNER).is_some();
        assert_eq!(is_planned, observation.frame.0.is_multiple_of(PLAN_PERIOD_TICKS));
        commands.push(control.command);
        world.step(&control.command);
    }
    assert!(pilot.statistics().refreshes_published > 0);
    commands
}

#[test]
fn family_with_plans_at_2_hz_is_driven_at_every_tick() {
    let root = TempDir::new().unwrap();
    let folder = networks(root.path());
    let (noisy, still) = (run(0.25), run(0.0));
    let model = Loaded::open(&folder, &noisy, &mut |_| {}).unwrap();
    assert_eq!(model.options(), noisy.model.as_ref().unwrap());
    let names: Vec<CameraId> = model.sensors().cameras.iter().map(|(name, _)| name).collect();
    assert_eq!(names, export::CAMERAS.map(CameraId::named));

    let commands = drive(&model, &noisy, 1, 60);
    let full_brake = |command: &Command| *command == Command::FULL_BRAKE;
    let waits = commands.iter().take_while(|command| full_brake(command)).count() as u64;
    assert!(waits < 2 * PLAN_PERIOD_TICKS, "{waits}");
    // If commands were held between plans, they would change only at every tenth tick.
    let changes = commands.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes > 30, "{changes}");

    // Randomness is a function of seed, route and frame.
    assert_eq!(drive(&model, &noisy, 1, 60), commands);
    assert_ne!(drive(&model, &noisy, 2, 60), commands);
    let without = Loaded::open(&folder, &still, &mut |_| {}).unwrap();
    assert_ne!(drive(&without, &still, 1, 60), commands);
}

#[test]
fn family_has_its_own_options() {
    let root = TempDir::new().unwrap();
    let folder = networks(root.path());
    let open = |block: ModelBlock| {
        let run = Run::try_from(&RunFile { model: Some(block), ..RunFile::default() }).unwrap();
        Loaded::open(&folder, &run, &mut |_| {}).err().unwrap()
    };
    let automot = runtime::family("automot").unwrap().complete(None).unwrap();
    let error = open(automot);
    assert!(matches!(error, OpenError::Options(OptionsError::Family { family: NAME, .. })));
    let error = open(ModelBlock::of(NAME, &json!({"jpeg_quality": 95})));
    assert!(matches!(error, OpenError::Options(OptionsError::Option { .. })), "{error}");
    let error = open(ModelBlock::of(NAME, &ScriptedOptions { noise_m: 2.0 }));
    assert!(matches!(error, OpenError::Options(OptionsError::Range { .. })), "{error}");
    assert!(runtime::families().contains(&NAME));
}

#[test]
fn family_is_outlined_profiled_and_verified() {
    let root = TempDir::new().unwrap();
    let folder = networks(root.path());
    let family = runtime::family_of(&folder).unwrap();
    let outline = family.outline(&folder, None).unwrap();
    let [stage] = &outline.stages[..] else { panic!("{outline:?}") };
    assert_eq!((stage.stage, stage.runs, stage.networks.len()), (PLANNER, Runs::EachTick, 1));

    let run = run(0.25);
    let model = Loaded::open(&folder, &run, &mut |_| {}).unwrap();
    let routes = routes("short.xml");
    let mut world = EmbeddedWorld::new(&routes[0], model.sensors(), 1).unwrap();
    let plan = world.plan().clone();
    let observations: Vec<_> = (0..5)
        .map(|_| {
            let observation = world.observe();
            world.step(&Command::FULL_BRAKE);
            observation
        })
        .collect();
    let cancel = AtomicBool::new(false);
    let options = LoopOptions {
        name: PhaseName::BackToBack,
        period: run.tick,
        budget: Duration::from_secs(1),
        warm_up: 2,
        ticks: 20,
    };
    let mut pilot = model.pilot(&plan, &run).unwrap();
    let mut replay = Replay::new(observations);
    let ran = run_loop(&mut *pilot, &mut replay, &options, &cancel, &mut |_| {}).unwrap();
    assert_eq!(ran.phase.statistics.stage(PLANNER).count(), 2);
    let options = PrefillOptions { frames: 1, warm_up: 1, refreshes: 3 };
    let mut expert = model.slow_expert(&plan).unwrap();
    let mut refreshed = 0;
    run_prefills(&mut *expert, &mut replay, &options, &cancel, &mut |_, _| refreshed += 1).unwrap();
    assert_eq!(refreshed, 3);

    let options = VerifyOptions {
        run,
        inputs: RecordingInputs { seed: 3, prompts: 2 },
        limits: Limits::default(),
    };
    let mut done = 0;
    let verified = verify(&folder, &folder, &options, &mut |_| {}, &mut || done += 1).unwrap();
    assert_eq!((done, verified.golden_run), (4, b"seed 3".to_vec()));
    assert_eq!(verified.comparison.excesses(&options.limits), []);
    assert_eq!(Scripted::NAME, NAME);
}
