//! Network folders whose weights moved, are missing or changed, and folders of other programs:
//! every verb refuses them with one error that names the file.

use super::command::{assert_contains_all, run};
use prost::Message;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, NetworkFile};
use tandem::model::automot::networks::Contracts;
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::onnx::{ModelProto, StringStringEntryProto};
use tandem_export::options::WeightStorage;
use tandem_testkit::automot::{SOAK, export, small_frames, synthesize};
use tempfile::TempDir;

/// A folder with a checkpoint and its networks.
struct Folders {
    root: TempDir,
}

impl Folders {
    fn new(weights: WeightStorage) -> Self {
        let folders = Self { root: tempfile::tempdir().unwrap() };
        folders.train(1);
        folders.export(weights);
        folders
    }

    /// Overwrites the checkpoint's weights in place, as continued training does.
    fn train(&self, seed: u64) {
        let new = self.path("new");
        synthesize(SOAK, seed, &new);
        fs::create_dir_all(self.path("checkpoint")).unwrap();
        for entry in fs::read_dir(&new).unwrap() {
            let name = entry.unwrap().file_name();
            fs::copy(new.join(&name), self.path("checkpoint").join(&name)).unwrap();
        }
    }

    fn export(&self, weights: WeightStorage) {
        let options = ExportOptions { weights, ..small_frames() };
        let checkpoint = Checkpoint::open(&self.path("checkpoint")).unwrap();
        export(&checkpoint, &options, &self.networks());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn networks(&self) -> PathBuf {
        self.path("networks")
    }

    /// Checks that every verb that reads a network
    /// folder fails with one error with all `fragments`.
    #[track_caller]
    fn refused_by_every_verb(&self, fragments: &[&str]) {
        self.refused_by_inspect(fragments);
        let networks = self.networks();
        let networks = networks.to_str().unwrap();
        let [engines, results, profile] =
            ["engines", "results", "profile.json"].map(|name| self.path(name));
        let [engines, results, profile] =
            [&engines, &results, &profile].map(|path| path.to_str().unwrap());
        let verbs: [&[&str]; 4] = [
            &["build", "--network", networks, "--out", engines],
            &["verify", "--engine", networks, "--reference", networks, "--prompts", "1"],
            &["profile", "--engine", networks, "--ticks", "3", "--out", profile],
            &drive(networks, results),
        ];
        for arguments in verbs {
            let output = run(arguments);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
            assert_contains_all(&error, fragments);
        }
        assert!(!self.path("results").join("routes").exists(), "a route was driven");
    }

    #[track_caller]
    fn refused_by_inspect(&self, fragments: &[&str]) {
        let output = run(&["inspect", self.networks().to_str().unwrap()]);
        let text = [output.stdout, output.stderr].concat();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{}", String::from_utf8_lossy(&text));
        assert_contains_all(&String::from_utf8_lossy(&text), fragments);
    }

    fn change_json(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.networks().join(file);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }

    /// Changes the graph of `network` and its hashes.
    fn change_graph(&self, network: &str, change: impl FnOnce(&mut ModelProto)) {
        let path = self.networks().join(format!("{network}.onnx"));
        let mut model = ModelProto::decode(fs::read(&path).unwrap().as_slice()).unwrap();
        change(&mut model);
        self.write_graph(network, &model.encode_to_vec());
    }

    fn write_graph(&self, network: &str, graph: &[u8]) {
        fs::write(self.networks().join(format!("{network}.onnx")), graph).unwrap();
        let hash: String = Sha256::digest(graph).iter().map(|byte| format!("{byte:02x}")).collect();
        self.change_json(&format!("{network}.json"), |contract| {
            contract["graph_sha256"] = hash.as_str().into();
        });
        self.change_json("export.json", |summary| {
            summary["networks"][network] = hash.as_str().into();
        });
    }
}

/// Arguments of a short drive with the networks.
fn drive<'a>(networks: &'a str, results: &'a str) -> [&'a str; 13] {
    let routes = concat!(env!("CARGO_MANIFEST_DIR"), "/../../routes/short.xml");
    let engine = ["--driver", "automot", "--engine", networks];
    let [driver, automot, engine, networks] = engine;
    [
        "eval",
        "--routes",
        routes,
        "--only",
        "11",
        "--tick-cap",
        "2",
        driver,
        automot,
        engine,
        networks,
        "--out",
        results,
    ]
}

#[test]
fn retrained_checkpoint_is_refused_by_every_verb() {
    let folders = Folders::new(WeightStorage::Link);
    folders.train(2);
    let fragments = ["model.safetensors", "changed since the export", "tandem export --checkpoint"];
    folders.refused_by_every_verb(&fragments);
    // Restoring the previous modification time does not hide the change.
    let known = fs::metadata(folders.path("new").join("model.safetensors")).unwrap();
    let weights = folders.path("checkpoint").join("model.safetensors");
    let file = fs::File::options().write(true).open(&weights).unwrap();
    file.set_modified(known.modified().unwrap()).unwrap();
    folders.refused_by_inspect(&fragments);
    folders.export(WeightStorage::Link);
    assert!(run(&["inspect", folders.networks().to_str().unwrap()]).status.success());
}

#[test]
fn copied_weights_are_used_after_their_checkpoint_is_gone() {
    let folders = Folders::new(WeightStorage::Auto);
    let networks = folders.networks();
    let networks = networks.to_str().unwrap();
    let inspect = || String::from_utf8(run(&["inspect", networks]).stdout).unwrap();
    let before = inspect();
    folders.train(2);
    assert_eq!(inspect().lines().count(), before.lines().count() + 1);
    assert_contains_all(
        &inspect(),
        &["model.safetensors has changed since", "still holds the old weights"],
    );
    fs::remove_dir_all(folders.path("checkpoint")).unwrap();
    assert_eq!(inspect(), before);
    let results = folders.path("results");
    let output = run(&drive(networks, results.to_str().unwrap()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn missing_and_moved_weights_are_named_by_every_verb() {
    let folders = Folders::new(WeightStorage::Link);
    fs::rename(folders.path("checkpoint"), folders.path("elsewhere")).unwrap();
    let target_path = folders.path("checkpoint").join("model.safetensors");
    let link = format!(
        "model.safetensors, a link to {}",
        target_path
            .canonicalize()
            .map_or(
                folders.root.path().canonicalize().unwrap().join("checkpoint/model.safetensors"),
                |path| path,
            )
            .display()
    );
    folders.refused_by_every_verb(&[&link, "tandem export --checkpoint"]);
    // A link to the new place of the weights is accepted.
    let link = folders.networks().join("model.safetensors");
    fs::remove_file(&link).unwrap();
    symlink(folders.path("elsewhere").join("model.safetensors"), &link).unwrap();
    let inspect = || run(&["inspect", folders.networks().to_str().unwrap()]).status.success();
    assert!(inspect());
    // A link to the weights of another checkpoint is refused.
    folders.train(2);
    fs::remove_file(&link).unwrap();
    symlink(folders.path("checkpoint").join("model.safetensors"), &link).unwrap();
    folders.refused_by_inspect(&["changed since the export"]);
    fs::remove_file(&link).unwrap();
    folders.refused_by_inspect(&["cannot read weights", "model.safetensors"]);
}

#[test]
fn copied_folder_is_accepted_and_damage_is_refused() {
    let folders = Folders::new(WeightStorage::Link);
    let copy = folders.path("copy");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(folders.networks()).unwrap() {
        let name = entry.unwrap().file_name();
        fs::copy(folders.networks().join(&name), copy.join(&name)).unwrap();
    }
    fs::remove_dir_all(folders.path("checkpoint")).unwrap();
    fs::remove_dir_all(folders.networks()).unwrap();
    fs::rename(&copy, folders.networks()).unwrap();
    assert!(run(&["inspect", folders.networks().to_str().unwrap()]).status.success());
    for name in ["weights.bin", "model.safetensors"] {
        let path = folders.networks().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        folders.refused_by_inspect(&[name, "changed since the export"]);
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn campaign_is_not_resumed_with_other_weights() {
    let folders = Folders::new(WeightStorage::Auto);
    let (networks, results) = (folders.networks(), folders.path("results"));
    let eval = || run(&drive(networks.to_str().unwrap(), results.to_str().unwrap()));
    assert!(eval().status.success());
    assert!(eval().status.success(), "the same weights");
    folders.train(2);
    folders.export(WeightStorage::Auto);
    let output = eval();
    assert_eq!(output.status.code(), Some(2));
    assert_contains_all(&String::from_utf8_lossy(&output.stderr), &["weights (SHA-256) is"]);
}

#[test]
fn special_files_as_weights_are_refused_unopened() {
    let folders = Folders::new(WeightStorage::Link);
    let link = folders.networks().join("model.safetensors");
    let pipe = folders.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for target in [pipe.as_path(), Path::new("/dev/zero"), Path::new("/")] {
        fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
        let link_text = format!("a link to {}", target.display());
        folders.refused_by_every_verb(&["model.safetensors", &link_text, "not a regular file"]);
    }
    for name in ["export.json", "vision.json", "vision.onnx"] {
        let path = folders.networks().join(name);
        let away = folders.path("away");
        fs::rename(&path, &away).unwrap();
        symlink("/dev/zero", &path).unwrap();
        folders.refused_by_every_verb(&[name, "not a regular file"]);
        fs::rename(&away, &path).unwrap();
    }
}

#[test]
fn graphs_read_only_files_that_their_export_lists() {
    let folders = Folders::new(WeightStorage::Link);
    let graph = fs::read(folders.networks().join("vision.onnx")).unwrap();
    let read_from = |location: &str| {
        folders.write_graph("vision", &graph);
        folders.change_graph("vision", |model| {
            let weights = &mut model.graph.as_mut().unwrap().initializer;
            let weight = weights.iter_mut().find(|weight| !weight.external_data.is_empty());
            let places = &mut weight.unwrap().external_data;
            places.retain(|entry| entry.key.as_deref() != Some("location"));
            places.push(StringStringEntryProto::new("location", location));
        });
    };
    for location in ["../../../../etc/passwd", "/etc/passwd", "/dev/zero", "sub/weights.bin"] {
        read_from(location);
        folders.refused_by_inspect(&["vision.onnx", location, "not the name of a file"]);
    }
    folders.refused_by_every_verb(&["vision.onnx", "sub/weights.bin"]);
    symlink("/etc/passwd", folders.networks().join("passwd")).unwrap();
    read_from("passwd");
    folders.refused_by_every_verb(&["\"passwd\"", "export.json does not list"]);
}

#[test]
fn damaged_graphs_with_valid_hashes_are_errors() {
    let folders = Folders::new(WeightStorage::Link);
    let graph = fs::read(folders.networks().join("bev.onnx")).unwrap();
    let backend = OnnxRuntime::open(CpuOptions::default(), &mut |_| {}).unwrap();
    let load = |bytes: &[u8]| -> bool {
        folders.write_graph("bev", bytes);
        let file = NetworkFile::read(&folders.networks(), "bev");
        file.is_ok_and(|file| backend.load(&file).is_ok())
    };
    assert!(load(&graph));
    for part in 0..40 {
        assert!(!load(&graph[..graph.len() * part / 40]), "{part}/40 of the graph were loaded");
        // Some changes give other valid names or numbers.
        let mut changed = graph.clone();
        let at = graph.len() * part / 40;
        changed[at] ^= 1 << (part % 8);
        load(&changed);
    }
    for (dims, fragments) in [(vec![i64::MAX, 2], "shape"), (vec![-1], "shape"), (vec![3], "bytes")]
    {
        folders.write_graph("bev", &graph);
        folders.change_graph("bev", |model| {
            model.graph.as_mut().unwrap().initializer[0].dims = dims;
        });
        folders.refused_by_inspect(&["bev.onnx", fragments]);
    }
}

/// Sizes that no tensor and no other size depends on.
const FREE: [&str; 6] = [
    "hist_max_per_pixel",
    "hidden",
    "lidar_split_height_m",
    "max_height_lidar_m",
    "rope_theta",
    "vocab_size",
];

/// Table (`sizes` or `numbers`) and name of each number of a contract.
fn sizes_and_numbers(contract: &Value) -> Vec<(&'static str, String)> {
    let keys =
        |part| contract[part].as_object().unwrap().keys().map(move |key| (part, key.clone()));
    ["sizes", "numbers"].into_iter().flat_map(keys).collect()
}

/// A JSON number, an integer if it has no fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { (value as i64).into() } else { value.into() }
}

#[test]
fn contract_of_an_earlier_format_is_refused() {
    let folders = Folders::new(WeightStorage::Link);
    folders.change_json("bev.json", |contract| {
        contract["format"] = 1.into();
        contract["sizes"]["cells"] = 64.0.into();
    });
    folders.refused_by_inspect(&["bev.json", "format 1", "export the checkpoint again"]);
}

#[test]
fn sizes_that_contradict_tensors_or_each_other_are_refused() {
    let folders = Folders::new(WeightStorage::Link);
    let mut refused = 0;
    for network in ["vision", "understanding", "bev", "action"] {
        let path = folders.networks().join(format!("{network}.json"));
        let text = fs::read(&path).unwrap();
        let contract: Value = serde_json::from_slice(&text).unwrap();
        for (part, key) in sizes_and_numbers(&contract) {
            let value = contract[part][&key].as_f64().unwrap();
            let others = [0.0, -1.0, 1e300, -1e300, 0.5, 4294967296.0, value + 1.0, 1000.0 * value];
            for other in others.into_iter().filter(|other| *other != value) {
                folders.change_json(&format!("{network}.json"), |contract| {
                    contract[part][&key] = number(other);
                });
                match Contracts::read(&folders.networks()).err() {
                    None => assert!(FREE.contains(&key.as_str()), "{network}: {key} = {other}"),
                    Some(error) => {
                        let error = error.to_string();
                        assert!(error.contains("export the checkpoint again"), "{error}");
                        refused += 1;
                    }
                }
            }
            folders.change_json(&format!("{network}.json"), |contract| {
                contract[part].as_object_mut().unwrap().remove(&key);
            });
            let error = Contracts::read(&folders.networks()).err();
            assert!(error.is_some(), "{network} without {key}");
            fs::write(&path, &text).unwrap();
        }
    }
    assert!(refused > 100, "{refused}");
    assert!(Contracts::read(&folders.networks()).is_ok());
}

#[test]
fn contradicting_contract_is_one_error_of_every_verb() {
    let folders = Folders::new(WeightStorage::Link);
    let networks = folders.networks();
    let networks = networks.to_str().unwrap();
    let results = folders.path("results");
    for (network, part, key, value) in [
        ("vision", "sizes", "spatial_merge_size", 0.0),
        ("vision", "sizes", "temporal_patch_size", 2000.0),
        ("bev", "numbers", "min_x_m", 384.0),
    ] {
        let file = format!("{network}.json");
        let text = fs::read(folders.networks().join(&file)).unwrap();
        folders.change_json(&file, |contract| contract[part][key] = number(value));
        let fragments = [&format!("the contract of network {network:?} contradicts"), "export"];
        folders.refused_by_inspect(&fragments.map(|fragment| fragment as &str));
        let output = run(&drive(networks, results.to_str().unwrap()));
        assert_eq!(output.status.code(), Some(2));
        assert_contains_all(
            &String::from_utf8_lossy(&output.stderr),
            &fragments.map(|fragment| fragment as &str),
        );
        fs::write(folders.networks().join(&file), text).unwrap();
    }
    folders.change_json("action.json", |contract| contract["model"] = "gpt".into());
    folders.refused_by_inspect(&["of model \"gpt\"", "export the checkpoint again"]);
}

#[test]
fn tensors_that_contradict_the_sizes_are_refused() {
    let folders = Folders::new(WeightStorage::Link);
    for (network, side, index) in [
        ("vision", "inputs", 0),
        ("vision", "outputs", 1),
        ("understanding", "inputs", 2),
        ("understanding", "outputs", 0),
        ("bev", "inputs", 0),
        ("bev", "inputs", 1),
        ("action", "inputs", 1),
        ("action", "outputs", 2),
    ] {
        let file = format!("{network}.json");
        let text = fs::read(folders.networks().join(&file)).unwrap();
        let shapes: [Value; 5] = [
            serde_json::json!([]),
            serde_json::json!([0]),
            serde_json::json!([4294967296_u64, 4294967296_u64, 16]),
            serde_json::json!([1, 1, 1, 1]),
            serde_json::json!([7]),
        ];
        for shape in shapes {
            folders.change_json(&file, |contract| contract[side][index]["shape"] = shape.clone());
            let read = Contracts::read(&folders.networks());
            assert!(read.is_err(), "{network} {side} {index} {shape}");
        }
        fs::write(folders.networks().join(&file), text).unwrap();
    }
}

#[test]
fn summaries_of_other_formats_or_with_paths_are_refused() {
    let folders = Folders::new(WeightStorage::Link);
    let text = fs::read(folders.networks().join("export.json")).unwrap();
    let check = |change: &dyn Fn(&mut Value), fragments: &[&str]| {
        folders.change_json("export.json", |summary| change(summary));
        folders.refused_by_every_verb(
            &[&["export.json", "export the checkpoint again"], fragments].concat(),
        );
        fs::write(folders.networks().join("export.json"), &text).unwrap();
    };
    check(&|summary| summary["format"] = 1.into(), &["has format 1, this tandem reads format 2"]);
    check(&|summary| drop(summary.as_object_mut().unwrap().remove("format")), &["has no format"]);
    check(&|summary| summary["weights"][0]["name"] = "../w".into(), &["\"../w\""]);
    check(&|summary| summary["networks"]["../x"] = "".into(), &["\"../x\""]);
    check(
        &|summary| summary["model"] = "other".into(),
        &["of model \"other\"", "this tandem has \"automot\""],
    );
}
