//! Who may import whom: the module order of `src/`, as data, held against the code.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with the modules it may name. `cli` sees everything.
const MAY_USE: &[(&str, &[&str])] = &[
    ("tensor", &[]),
    ("timing", &[]),
    ("process", &["timing"]),
    ("device", &["tensor", "timing"]),
    ("engine", &["tensor", "timing", "process", "device"]),
    ("kv_cache", &["tensor", "timing", "device"]),
    ("roofline", &["tensor", "timing", "device", "engine"]),
    ("scene", &["timing"]),
    ("model", &["tensor", "timing", "device", "engine", "kv_cache", "scene"]),
    ("control", &["timing", "scene"]),
    ("pilot", &["tensor", "timing", "device", "engine", "kv_cache", "scene", "model", "control"]),
    ("runtime", &["device", "engine", "kv_cache", "scene", "model", "control", "pilot"]),
    ("page", &[]),
    ("profile", &["timing", "engine", "kv_cache", "scene", "model", "pilot", "page"]),
    ("world", &["timing", "scene"]),
    ("evaluation", &["timing", "scene", "page", "world"]),
    (
        "cli",
        &[
            "tensor",
            "timing",
            "process",
            "device",
            "engine",
            "kv_cache",
            "roofline",
            "scene",
            "model",
            "control",
            "pilot",
            "runtime",
            "page",
            "profile",
            "world",
            "evaluation",
        ],
    ),
];

/// Modules in which `unsafe` may stand.
const MAY_BE_UNSAFE: &[&str] = &[
    "device",
    "engine/onnxruntime",
    "engine/tensorrt",
    "pilot/real_time/linux.rs",
    "tensor/host.rs",
    "timing/nvtx.rs",
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

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Lines of code without line comments: doc links may name any module.
fn code(text: &str) -> String {
    let strip = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(strip).collect::<Vec<_>>().join("\n")
}

/// Modules that `text` names as `crate::module`, grouped imports included.
fn named(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let group = rest.strip_prefix('{').map(|group| group.split('}').next().unwrap_or_default());
        for part in group.unwrap_or(rest).split(if group.is_some() { ',' } else { '\n' }) {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let name: String = part.trim_start().chars().take_while(|&c| word(c)).collect();
            names.insert(name);
            if group.is_none() {
                break;
            }
        }
    }
    names
}

#[test]
fn the_order_lists_every_module_once() {
    let listed: Vec<&str> = MAY_USE.iter().map(|(module, _)| *module).collect();
    let mut on_disk: Vec<String> = fs::read_dir(source_root())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    on_disk.sort();
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, on_disk);
    for (place, (module, uses)) in MAY_USE.iter().enumerate() {
        for used in *uses {
            let above = listed.iter().position(|listed| listed == used).unwrap();
            assert!(above < place, "{module} may not use {used}: it comes later");
        }
    }
}

#[test]
fn modules_use_only_what_the_order_allows() {
    let mut wrong = Vec::new();
    for (module, allowed) in MAY_USE {
        let mut files = Vec::new();
        sources(&source_root().join(module), &mut files);
        assert!(!files.is_empty(), "{module} has no files");
        for file in files {
            for name in named(&code(&fs::read_to_string(&file).unwrap())) {
                let is_module = MAY_USE.iter().any(|(listed, _)| *listed == name);
                if is_module && name != *module && !allowed.contains(&name.as_str()) {
                    wrong.push(format!("{} uses crate::{name}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "the module order is broken:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_only_where_memory_and_libraries_are_wrapped() {
    let mut files = Vec::new();
    sources(&source_root(), &mut files);
    for file in files {
        let place = file.strip_prefix(source_root()).unwrap().to_string_lossy().into_owned();
        let allowed = MAY_BE_UNSAFE.iter().any(|prefix| place.starts_with(prefix));
        let text = code(&fs::read_to_string(&file).unwrap());
        let is_unsafe =
            text.contains("unsafe {") || text.contains("unsafe impl") || text.contains("unsafe fn");
        assert!(allowed || !is_unsafe, "{place} holds unsafe code");
    }
}

#[test]
fn the_check_sees_single_and_grouped_imports() {
    let text =
        "use crate::world::Road;\nuse crate::{model, pilot::Run};\nlet x = crate::engine::y();";
    let expected = ["engine", "model", "pilot", "world"].map(String::from);
    assert_eq!(named(text), BTreeSet::from(expected));
}
