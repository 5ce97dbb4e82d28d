//! A second model family that exists only in tests: registered, recognized, exported and read back.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../../tests/it/second_family/export.rs"]
mod export;

use export::{CAMERAS, NAME, NETWORK, PlannerNumbers, PlannerSizes, SCRIPTED};
use prost::Message;
use serde_json::{Value, json};
use std::fs;
use tandem_export::automot::AUTOMOT;
use tandem_export::checkpoint::CheckpointError;
use tandem_export::contract::Contract;
use tandem_export::family::{Candidate, NetworkError};
use tandem_export::folder::{
    ExportError, SUMMARY_FILE, TOKENIZER_FILE, contract_file, export_networks, graph_file,
};
use tandem_export::inspection::inspect;
use tandem_export::onnx::ModelProto;
use tandem_export::options::Options;
use tandem_export::registry::Families;
use tandem_export::spec::{SpecError, SpecFile};
use tandem_export::summary::{Summary, SummaryError};
use tandem_export::synth::SynthWeights;
use tempfile::TempDir;

const TINY: &str = include_str!("../../configs/tiny.json");

/// The released families and the scripted one.
const KNOWN: Families = Families(&[&AUTOMOT, &SCRIPTED]);

/// A folder with a checkpoint of the scripted family.
fn checkpoint() -> TempDir {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("checkpoint");
    let spec = json!({ "picture": 6, "points": 4 });
    let family = KNOWN.named(NAME).unwrap();
    family.synthesize(&spec, SynthWeights::Sparse, &out, &mut |_, _| {}).unwrap();
    folder
}

fn with_own(name: &str, value: Value) -> Options {
    let own = [(name.to_owned(), value)].into_iter().collect();
    Options { own, ..Options::default() }
}

#[test]
fn second_family_is_exported_and_read_back() {
    let folder = checkpoint();
    let opened = KNOWN.open(&folder.path().join("checkpoint")).unwrap();
    assert_eq!(opened.family().name(), NAME);
    let out = folder.path().join("networks");
    let options = with_own("scale", json!(0.5));
    // The second export replaces the first.
    for _ in 0..2 {
        export_networks(&*opened, &options, &out, &mut |_| {}).unwrap();
    }

    let text = fs::read(out.join(SUMMARY_FILE)).unwrap();
    let summary = KNOWN.parse_summary(&text).unwrap();
    assert_eq!((summary.model.as_str(), summary.prefix_capacity), (NAME, None));
    assert_eq!(summary.options, options);
    assert_eq!(summary.network_names(), [NETWORK]);
    assert_eq!(summary.warnings, Vec::<String>::new());
    assert!(!out.join(TOKENIZER_FILE).exists());

    let contract = Contract::parse(&fs::read(out.join(contract_file(NETWORK))).unwrap()).unwrap();
    assert_eq!((contract.model.as_str(), contract.network.as_str()), (NAME, NETWORK));
    let inputs: Vec<&str> = contract.inputs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(inputs, CAMERAS);
    assert_eq!(contract.outputs[0].shape, [4, 3]);
    let sizes: PlannerSizes = contract.read_sizes().unwrap();
    assert_eq!(sizes, PlannerSizes { cameras: 2, picture: 6, points: 4 });
    let numbers: PlannerNumbers = contract.read_numbers().unwrap();
    assert_eq!(numbers, PlannerNumbers { step_s: 0.5 });
    let graph = fs::read(out.join(graph_file(NETWORK))).unwrap();
    assert_eq!(ModelProto::decode(&graph[..]).unwrap().graph.unwrap().input.len(), 2);
}

#[test]
fn specification_file_names_its_family() {
    let parse = |text: &str| SpecFile::parse("spec.yaml".into(), text.to_owned()).unwrap();
    let scripted = parse("family: scripted\npicture: 6\npoints: 4\n");
    let family = Families::known().of_spec(&scripted).unwrap();
    let spec = family.read_spec(&scripted).unwrap();
    assert_eq!(family.name(), NAME);
    assert_eq!(spec.value, json!({ "picture": 6, "points": 4 }));
    let config = parse("{\"model_type\": \"scripted\"}");
    assert_eq!(Families::known().of_spec(&config).unwrap().name(), NAME);

    // A file without a family name is AutoMoT's; with the name it has the same content.
    let unnamed = parse(TINY);
    let named = parse(&TINY.replacen('{', "{ \"family\": \"automot\",", 1));
    for file in [&unnamed, &named] {
        let family = Families::known().of_spec(file).unwrap();
        assert_eq!(family.name(), "automot");
        let read: Value = serde_json::from_str(TINY).unwrap();
        assert_eq!(family.read_spec(file).unwrap().value, read);
    }

    let error = KNOWN.of_spec(&parse("family: other")).map(|_| ()).unwrap_err();
    let SpecError::UnknownFamily { found, known, .. } = &error else { panic!("{error}") };
    assert_eq!((found.as_str(), known.as_str()), ("other", "\"automot\", \"scripted\""));
}

#[test]
fn checkpoint_of_another_family_is_inspected() {
    let folder = checkpoint();
    let found = inspect(&folder.path().join("checkpoint")).unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
    assert_eq!((found.tensors, found.parameters), (2, 12 * 12 + 12));
    assert_eq!(found.config.unwrap(), json!({ "picture": 6, "points": 4 }));
    assert_eq!(found.networks.len(), 1);
}

#[test]
fn defaults_of_options_are_recorded() {
    let folder = checkpoint();
    let opened = KNOWN.open(&folder.path().join("checkpoint")).unwrap();
    let out = folder.path().join("networks");
    let summary = export_networks(&*opened, Options::default(), &out, &mut |_| {}).unwrap();
    assert_eq!(summary.options, with_own("scale", json!(1.0)));
}

#[test]
fn option_of_another_family_is_refused_by_name() {
    let folder = checkpoint();
    let opened = KNOWN.open(&folder.path().join("checkpoint")).unwrap();
    let out = folder.path().join("networks");
    let options = with_own("frames", json!(4));
    let error = export_networks(&*opened, &options, &out, &mut |_| {}).unwrap_err();
    let ExportError::Network(NetworkError::Options { family, source }) = error else {
        panic!("{error}")
    };
    assert_eq!(family, NAME);
    assert!(source.to_string().contains("`frames`"), "{source}");
    assert!(!out.exists());
}

#[test]
fn registered_families_are_sorted_by_name() {
    const REVERSED: Families = Families(&[&SCRIPTED, &AUTOMOT]);
    let names: Vec<&str> = Families::known().0.iter().map(|family| family.name()).collect();
    assert_eq!(names, ["automot", NAME]);
    assert_eq!(REVERSED.names(), Families::known().names());
    assert!(Families::known().is_network(NETWORK));
}

#[test]
fn each_family_recognizes_its_own_folders() {
    let folder = checkpoint();
    assert_eq!(KNOWN.of_folder(&folder.path().join("checkpoint")).unwrap().name(), NAME);
    let other = folder.path().join("other");
    let spec = serde_json::from_str(TINY).unwrap();
    let automot = KNOWN.named("automot").unwrap();
    automot.synthesize(&spec, SynthWeights::Sparse, &other, &mut |_, _| {}).unwrap();
    assert_eq!(KNOWN.of_folder(&other).unwrap().name(), "automot");
    for (folder, name) in [(folder.path().join("checkpoint"), NAME), (other, "automot")] {
        let candidate = Candidate::read(&folder).unwrap();
        let recognizing = KNOWN.0.iter().filter(|family| family.recognizes(&candidate));
        assert_eq!(recognizing.map(|family| family.name()).collect::<Vec<_>>(), [name]);
    }
}

#[test]
fn folder_of_no_family_names_the_known_families() {
    let folder = TempDir::new().unwrap();
    for (config, fragment) in [
        (None, "no config.json"),
        (Some(json!({})), "without a model_type"),
        (Some(json!({ "model_type": "llama" })), "\"llama\""),
    ] {
        if let Some(config) = config {
            fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        }
        let error = KNOWN.open(folder.path()).map(|_| ()).unwrap_err();
        let CheckpointError::UnknownFamily { found, known, .. } = &error else { panic!("{error}") };
        assert!(found.contains(fragment), "{found}");
        let names: Vec<&str> = known.iter().filter_map(|known| known.split(' ').next()).collect();
        assert_eq!(names, ["automot", "scripted"]);
    }
}

#[test]
fn summary_of_an_unknown_family_is_refused_with_both_names() {
    const RELEASED: Families = Families(&[&AUTOMOT]);
    let folder = checkpoint();
    let opened = KNOWN.open(&folder.path().join("checkpoint")).unwrap();
    let out = folder.path().join("networks");
    export_networks(&*opened, Options::default(), &out, &mut |_| {}).unwrap();
    let text = fs::read(out.join(SUMMARY_FILE)).unwrap();
    let error = RELEASED.parse_summary(&text).unwrap_err();
    let SummaryError::Model { found, known } = &error else { panic!("{error}") };
    assert_eq!((found.as_str(), known.as_str()), (NAME, "\"automot\""));
    assert_eq!(Summary::parse(&text).unwrap().model, NAME, "registered in this program");
}
