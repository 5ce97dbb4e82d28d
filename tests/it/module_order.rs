//! Allowed dependencies between crates and between modules, and the files that may contain
//! `unsafe`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Library crates in order, each with the workspace crates that
/// its manifest must list. `cli` may depend on every crate.
const CRATES: &[(&str, &[&str])] = &[
    ("crates/files", &[]),
    ("crates/timing", &[]),
    ("crates/scene", &["timing"]),
    ("export", &["files"]),
    (".", &["files", "timing", "scene", "export"]),
    ("crates/xml", &[]),
    ("crates/recording", &["files", "timing", "scene"]),
    ("crates/world", &["timing", "scene", "xml"]),
    ("crates/drivers", &["scene"]),
    ("crates/page", &[]),
    ("crates/evaluation", &["files", "timing", "scene", "xml", "recording", "page"]),
    ("crates/profile", &["files", "export", "page", "tandem"]),
];

/// Crates that a program that embeds the runtime must not compile.
const NOT_IN_THE_RUNTIME: &[&str] =
    &["anyhow", "clap", "indicatif", "mcap", "plotly", "png", "roxmltree", "signal-hook", "xodr"];

/// Modules in order, each with the modules that it may use.
type Order = &'static [(&'static str, &'static [&'static str])];

/// Order of the modules of `src/`.
const MODULES: Order = &[
    ("tensor", &[]),
    ("process", &[]),
    ("device", &["tensor"]),
    ("engine", &["tensor", "process", "device"]),
    ("kv_cache", &["tensor", "device"]),
    ("control", &[]),
    ("model", &["tensor", "device", "engine", "kv_cache", "control"]),
    ("pilot", &["kv_cache", "model", "control"]),
    ("runtime", &["device", "engine", "kv_cache", "model", "control", "pilot"]),
];

/// Order of the modules of the evaluation.
const EVALUATION: Order = &[
    ("scoring", &[]),
    ("routes", &["scoring"]),
    ("campaign", &["scoring", "routes"]),
    ("results", &["scoring", "routes", "campaign"]),
    ("report", &["scoring", "routes", "campaign", "results"]),
];

/// Source folders with an order of modules.
const ORDERED: &[(&str, Order)] = &[("src", MODULES), ("crates/evaluation/src", EVALUATION)];

/// Files and folders that may contain `unsafe`.
const MAY_BE_UNSAFE: &[&str] = &[
    "src/device",
    "src/engine/onnxruntime",
    "src/engine/tensorrt",
    "src/pilot/real_time/linux.rs",
    "src/tensor/host.rs",
    "crates/timing/src/nvtx.rs",
    "crates/files/src/mapped.rs",
    "crates/testkit/src/allocations.rs",
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn source_root(folder: &str) -> PathBuf {
    Path::new(tandem_testkit::ROOT).join(folder)
}

/// Removes line comments, because doc links may name any module.
fn code(text: &str) -> String {
    let strip = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(strip).collect::<Vec<_>>().join("\n")
}

/// Modules that `text` names as `crate::module`, including grouped imports.
fn named(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let group = rest.strip_prefix('{').map(|group| group.split('}').next().unwrap_or_default());
        for part in group.unwrap_or(rest).split(if group.is_some() { ',' } else { '\n' }) {
            let is_part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let name: String =
                part.trim_start().chars().take_while(|&c| is_part_of_name(c)).collect();
            names.insert(name);
            if group.is_none() {
                break;
            }
        }
    }
    names
}

#[test]
fn order_lists_every_module_once() {
    for (folder, modules) in ORDERED {
        let listed: Vec<&str> = modules.iter().map(|(module, _)| *module).collect();
        let mut on_disk: Vec<String> = fs::read_dir(source_root(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        on_disk.sort();
        let mut sorted = listed.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, on_disk, "{folder}");
        for (place, (module, uses)) in modules.iter().enumerate() {
            for used in *uses {
                let above = listed.iter().position(|listed| listed == used).unwrap();
                assert!(above < place, "{folder}: {module} may not use {used}: it comes later");
            }
        }
    }
}

#[test]
fn modules_use_only_what_the_order_allows() {
    let mut wrong = Vec::new();
    for (folder, modules) in ORDERED {
        for (module, allowed) in *modules {
            let mut files = Vec::new();
            sources(&source_root(folder).join(module), &mut files);
            assert!(!files.is_empty(), "{module} is empty");
            for file in files {
                for name in named(&code(&fs::read_to_string(&file).unwrap())) {
                    let is_module = modules.iter().any(|(listed, _)| *listed == name);
                    if is_module && name != *module && !allowed.contains(&name.as_str()) {
                        wrong.push(format!("{} uses crate::{name}", file.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "the module order is broken:\n{}", wrong.join("\n"));
}

/// Keys of the table `[name]` of a manifest and of its tables for single targets.
fn keys_of_table(manifest: &str, name: &str) -> BTreeSet<String> {
    let mut is_inside = false;
    let mut keys = BTreeSet::new();
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            is_inside = table == name || table.ends_with(&format!(".{name}"));
        } else if is_inside && line.contains('=') && !line.starts_with('#') {
            let end = line.find(['.', ' ', '=']).unwrap();
            keys.insert(line[..end].to_owned());
        }
    }
    keys
}

fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest = Path::new(tandem_testkit::ROOT).join(folder).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    // The root manifest begins with the tables of the workspace.
    let package = &manifest[manifest.find("[package]").unwrap()..];
    keys_of_table(package, "dependencies")
}

#[test]
fn crates_depend_only_on_listed_crates() {
    for (place, (folder, allowed)) in CRATES.iter().enumerate() {
        let above: BTreeSet<String> = CRATES[..place]
            .iter()
            .map(|(folder, _)| match *folder {
                "." => "tandem".to_owned(),
                folder => format!("tandem-{}", folder.trim_start_matches("crates/")),
            })
            .collect();
        let allowed: BTreeSet<String> = allowed
            .iter()
            .map(|name| match *name {
                "tandem" => "tandem".to_owned(),
                name => format!("tandem-{name}"),
            })
            .collect();
        assert!(allowed.is_subset(&above), "{folder}: {allowed:?} are not all above it");
        let found: BTreeSet<String> =
            dependencies(folder).into_iter().filter(|name| name.starts_with("tandem")).collect();
        assert_eq!(found, allowed, "{folder}");
    }
}

#[test]
fn every_library_crate_is_listed() {
    let listed: BTreeSet<&str> = CRATES.iter().map(|(folder, _)| *folder).collect();
    for entry in fs::read_dir(Path::new(tandem_testkit::ROOT).join("crates")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let is_listed = listed.contains(format!("crates/{name}").as_str());
        assert!(is_listed || matches!(name.as_str(), "cli" | "testkit"), "crates/{name}");
    }
}

#[test]
fn runtime_has_no_dependency_of_the_command() {
    for folder in [".", "export", "crates/files", "crates/timing", "crates/scene"] {
        let found = dependencies(folder);
        for name in NOT_IN_THE_RUNTIME {
            assert!(!found.contains(*name), "{folder} depends on {name}");
        }
    }
}

#[test]
fn unsafe_code_is_only_in_listed_files() {
    let root = Path::new(tandem_testkit::ROOT);
    let mut files = Vec::new();
    for folder in ["src", "export/src", "crates"] {
        sources(&root.join(folder), &mut files);
    }
    for file in files {
        let place = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let allowed = MAY_BE_UNSAFE.iter().any(|prefix| place.starts_with(prefix));
        let text = code(&fs::read_to_string(&file).unwrap());
        let is_unsafe =
            text.contains("unsafe {") || text.contains("unsafe impl") || text.contains("unsafe fn");
        assert!(allowed || !is_unsafe, "{place} contains unsafe code");
    }
}

#[test]
fn check_sees_single_and_grouped_imports() {
    let text =
        "use crate::world::Road;\nuse crate::{model, pilot::Run};\nlet x = crate::engine::y();";
    let expected = ["engine", "model", "pilot", "world"].map(String::from);
    assert_eq!(named(text), BTreeSet::from(expected));
}
