//! Order of the crate's module folders: each uses only those before it.

use std::fs;
use std::path::Path;

/// Each module folder, with the modules that it may use besides itself.
const FOLDERS: &[(&str, &[&str])] = &[
    ("road", &[]),
    ("actors", &["noise", "road"]),
    ("sensors", &["noise", "road", "actors"]),
    ("scenarios", &["noise", "road", "actors"]),
];

#[test]
fn modules_use_only_those_before_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (folder, allowed) in FOLDERS {
        for entry in fs::read_dir(source.join(folder)).unwrap() {
            let file = entry.unwrap().path();
            let text = fs::read_to_string(&file).unwrap();
            for path in text.split("crate::").skip(1) {
                let used = path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let is_allowed = used == *folder || allowed.contains(&used);
                assert!(is_allowed, "{} uses crate::{used}", file.display());
            }
        }
    }
}

#[test]
fn modules_import_from_their_siblings_by_name() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (folder, _) in FOLDERS {
        for entry in fs::read_dir(source.join(folder)).unwrap() {
            let file = entry.unwrap().path();
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let is_tests = file.file_stem().unwrap().to_string_lossy().ends_with("_tests");
            for line in code.lines().filter_map(|line| line.strip_prefix("use super::")) {
                // A name with a capital letter is an item of `mod.rs`, not a module.
                let is_module = line.starts_with(|c: char| c.is_lowercase() || c == '{');
                assert!(is_module || is_tests, "{}: use super::{line}", file.display());
            }
        }
    }
}
