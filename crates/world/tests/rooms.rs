//! The order of the crate's rooms: each uses only those before it.

use std::fs;
use std::path::Path;

/// Each room with those that it may use besides itself.
const ROOMS: &[(&str, &[&str])] = &[
    ("road", &[]),
    ("actors", &["noise", "road"]),
    ("sensors", &["noise", "road", "actors"]),
    ("scenarios", &["noise", "road", "actors"]),
];

#[test]
fn rooms_use_only_those_before_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (room, allowed) in ROOMS {
        for entry in fs::read_dir(source.join(room)).unwrap() {
            let file = entry.unwrap().path();
            let text = fs::read_to_string(&file).unwrap();
            for path in text.split("crate::").skip(1) {
                let used = path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                let is_allowed = used == *room || allowed.contains(&used);
                assert!(is_allowed, "{} uses crate::{used}", file.display());
            }
        }
    }
}

#[test]
fn modules_of_a_room_import_from_their_siblings_by_name() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (room, _) in ROOMS {
        for entry in fs::read_dir(source.join(room)).unwrap() {
            let file = entry.unwrap().path();
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let is_tests = file.file_stem().unwrap().to_string_lossy().ends_with("_tests");
            for line in code.lines().filter_map(|line| line.strip_prefix("use super::")) {
                // What begins with a capital is a name of `mod.rs`, not a module.
                let is_module = line.starts_with(|c: char| c.is_lowercase() || c == '{');
                assert!(is_module || is_tests, "{}: use super::{line}", file.display());
            }
        }
    }
}
