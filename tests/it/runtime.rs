//! From an engine folder to a driver through `runtime`, as in `examples/`.

use std::fs;
use std::path::Path;
use tandem::model::automot::{AutomotOptions, ReferenceBehavior};
use tandem::model::{ModelBlock, OptionsError};
use tandem::pilot::{DeviceName, Run, RunFile};
use tandem::runtime::{self, Loaded, OpenError};
use tandem::scene::World;
use tandem_testkit::automot::{SOAK, networks};
use tandem_testkit::world::routes;
use tandem_world::EmbeddedWorld;
use tempfile::TempDir;

/// Ticks to drive: the first prefill needs four frames, ten ticks apart.
const TICKS: u64 = 35;

#[test]
fn loaded_networks_drive_several_routes() {
    let root = TempDir::new().unwrap();
    let folder = networks(SOAK, root.path());
    let run = Run::try_from(&RunFile::default()).unwrap();
    let run = Run { device: DeviceName::Emulated, ..run };
    let mut notes = Vec::new();
    let model = Loaded::open(&folder, &run, &mut |note| notes.push(note.to_owned())).unwrap();
    assert!(notes.iter().any(|note| note.starts_with("the device is emulated")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("has no golden run")), "{notes:?}");
    assert!(model.backend().contains("ONNX Runtime"), "{}", model.backend());

    let routes = routes("short.xml");
    assert!(routes.len() > 1);
    for route in &routes[..2] {
        let mut world = EmbeddedWorld::new(route, model.sensors(), run.seed).unwrap();
        let mut pilot = model.pilot(world.plan(), &run).unwrap();
        for _ in 0..TICKS {
            let control = pilot.drive(&world.observe()).unwrap();
            world.step(&control.command);
        }
        let statistics = pilot.statistics();
        assert_eq!(statistics.ticks, TICKS);
        assert!(statistics.refreshes_published > 0, "{statistics:?}");
    }
}

#[test]
fn folder_without_networks_is_named() {
    let root = TempDir::new().unwrap();
    let run = Run::try_from(&RunFile::default()).unwrap();
    let error = Loaded::open(root.path(), &run, &mut |_| {}).err().unwrap();
    let OpenError::Networks { folder, .. } = &error else { panic!("{error:?}") };
    assert_eq!(folder, root.path());
}

#[test]
fn run_files_in_configs_name_every_option() {
    let read = |name: &str| {
        let path = Path::new(tandem_testkit::ROOT).join("configs").join(name);
        let file = RunFile::read(&path, &mut |note| panic!("{note}")).unwrap();
        (fs::read_to_string(&path).unwrap(), file)
    };
    let family = runtime::family("automot").unwrap();
    let (text, file) = read("run.yaml");
    let keys = serde_json::to_value(RunFile::default()).unwrap();
    for key in keys.as_object().unwrap().keys() {
        assert!(text.lines().any(|line| line.starts_with(&format!("{key}:"))), "no {key}");
    }
    let block = file.model.clone().unwrap();
    assert_eq!(block, family.complete(None).unwrap(), "every option, at its default");
    assert_eq!(RunFile { model: None, ..file }, RunFile::default());

    let (_, release) = read("release.yaml");
    let options: AutomotOptions = release.model.as_ref().unwrap().options("automot").unwrap();
    let expected = AutomotOptions {
        positions: ReferenceBehavior::Release,
        jpeg_quality: Some(95),
        ..AutomotOptions::default()
    };
    assert_eq!(options, expected);
    assert_eq!(RunFile { model: None, ..release }, RunFile::default());
}

#[test]
fn options_of_another_family_are_refused() {
    let root = TempDir::new().unwrap();
    let folder = networks(SOAK, root.path());
    let model = Some(ModelBlock { family: "someone".to_owned(), options: Default::default() });
    let run = Run::try_from(&RunFile { model, ..RunFile::default() }).unwrap();
    let error = Loaded::open(&folder, &run, &mut |_| {}).err().unwrap();
    let OpenError::Options(OptionsError::Family { family, given }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!((*family, &given[..]), ("automot", "someone"));
    assert!(matches!(
        runtime::check(run.model.as_ref().unwrap()),
        Err(runtime::BlockError::Family(_))
    ));
}
