//! Files that other processes and users see are written only through `tandem_files`.

use std::fs;
use std::path::{Path, PathBuf};

/// Calls that create or replace a file by its name.
const WRITERS: [&str; 7] = [
    "File::create(",
    "File::create_new(",
    "File::options(",
    "OpenOptions",
    "fs::write(",
    "fs::rename(",
    "fs::copy(",
];

/// Source files that may make such calls, with the reason.
const ALLOWED: [(&str, &str); 9] = [
    ("crates/files/src", "the crate itself"),
    ("export/src/folder", "moves a complete export into the checkpoint's own folder"),
    ("crates/cli/src/demo.rs", "its marker is a lock"),
    ("src/engine/build.rs", "locks the folder that it builds in"),
    ("src/engine/builder.rs", "writes to /proc"),
    ("src/engine/folder/write.rs", "moves engines within a folder that is locked"),
    ("src/engine/library.rs", "fills a scratch folder under a lock"),
    ("src/engine/onnxruntime/builder.rs", "writes to the build's scratch folder"),
    ("src/engine/tensorrt/binding/builder.rs", "writes to the build's scratch folder"),
];

/// Returns whether a file is compiled for tests only: `tests.rs` and `NAME_tests.rs`.
fn is_of_tests(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem == "tests" || stem.ends_with("_tests")
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "tests") {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_of_tests(&path)
        {
            into.push(path);
        }
    }
}

/// The first such call in a file, outside comments and unit tests.
fn writer(text: &str) -> Option<&'static str> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code: Vec<&str> =
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n").replace("AtomicFile::create(", "");
    WRITERS.into_iter().find(|writer| code.contains(writer))
}

#[test]
fn only_listed_files_write_directly() {
    let root = Path::new(tandem_testkit::ROOT);
    let mut files = Vec::new();
    for folder in ["src", "export/src", "crates"] {
        sources(&root.join(folder), &mut files);
    }
    let mut writing = [false; ALLOWED.len()];
    for file in files {
        let place = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let found = writer(&fs::read_to_string(&file).unwrap());
        match ALLOWED.iter().position(|(allowed, _)| place.starts_with(allowed)) {
            Some(allowed) => writing[allowed] |= found.is_some(),
            None => assert_eq!(found, None, "{place}: use tandem_files instead"),
        }
    }
    for ((allowed, _), writing) in ALLOWED.iter().zip(writing) {
        assert!(writing, "{allowed} no longer writes files directly: remove it from the list");
    }
}

#[test]
fn check_covers_code_but_not_comments_or_tests() {
    assert_eq!(writer("let file = File::create(path)?;"), Some("File::create("));
    assert_eq!(writer("let file = AtomicFile::create(path)?; // not File::create(path)"), None);
    assert_eq!(writer("#[cfg(test)]\nmod tests {\n    fs::write(path, text);\n}"), None);
}
