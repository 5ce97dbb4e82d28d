//! `docs/formats.md` lists the version of every file format as the code has it.

use super::documented::rust_files;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Folders with sources that define formats.
const SOURCES: &[&str] = &["src", "export/src", "crates"];

/// A format: where its constant is, the constant's name, and its version.
type Format = (String, String, u32);

#[test]
fn format_versions_are_those_of_the_code() {
    let root = Path::new(tandem_testkit::ROOT);
    let mut in_code = BTreeSet::new();
    for source in SOURCES {
        for path in rust_files(&root.join(source)) {
            let place = path.strip_prefix(root).unwrap().display().to_string();
            in_code.extend(constants(&fs::read_to_string(&path).unwrap(), &place));
        }
    }
    let documented = rows(&fs::read_to_string(root.join("docs/formats.md")).unwrap());
    assert!(in_code.len() > 8, "only {in_code:?} were found");
    assert_eq!(documented, in_code);
}

#[test]
fn message_types_of_recordings_are_documented() {
    let root = Path::new(tandem_testkit::ROOT);
    let documented = fs::read_to_string(root.join("docs/formats.md")).unwrap();
    let mut read = 0;
    for path in rust_files(&root.join("crates/recording/src")) {
        let code = fs::read_to_string(&path).unwrap();
        for message in code.split('"').filter(|text| is_versioned_message(text)) {
            assert!(documented.contains(&format!("`{message}`")), "{message} is not documented");
            read += 1;
        }
    }
    assert!(read >= 6, "only {read} message types were found");
}

#[test]
fn constants_and_rows_are_recognized() {
    let code = "pub const FORMAT: u32 = 2;\nconst OLDEST_FORMAT: u32 = 1;\nconst LAYER_FORMAT: u32 = 31;\n";
    let place = "src/a.rs";
    let expected = [("FORMAT", 2), ("LAYER_FORMAT", 31)]
        .map(|(name, version)| (place.into(), name.into(), version));
    assert_eq!(constants(code, place), expected);
    let page =
        "| latencies | `latency.json` | 2 | `FORMAT` in `src/a.rs` |\n| other | row | x | y |\n";
    assert_eq!(rows(page), BTreeSet::from([(place.into(), "FORMAT".into(), 2)]));
    assert!(
        is_versioned_message("tandem.Observation/3") && !is_versioned_message("tandem.Observation")
    );
}

/// Returns the format constants that `code` of the file `place` defines.
fn constants(code: &str, place: &str) -> Vec<Format> {
    let constant = |line: &str| {
        let (_, rest) = line.split_once("const ")?;
        let (name, value) = rest.strip_suffix(';')?.split_once(": u32 = ")?;
        let is_format = name.ends_with("FORMAT") && !name.starts_with("OLDEST");
        is_format.then(|| (place.to_owned(), name.to_owned(), value.parse().unwrap()))
    };
    code.lines().filter_map(constant).collect()
}

/// Returns the formats in the tables of `page`: rows
/// of format, file, version, and `NAME` in `FILE`.
fn rows(page: &str) -> BTreeSet<Format> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, _, _, version, constant, _] = cells[..] else { return None };
        let (name, place) = constant.strip_prefix('`')?.strip_suffix('`')?.split_once("` in `")?;
        Some((place.to_owned(), name.to_owned(), version.parse().ok()?))
    };
    page.lines().filter_map(row).collect()
}

/// Returns true if `text` is the name and version of
/// a message type, such as `tandem.Observation/3`.
fn is_versioned_message(text: &str) -> bool {
    text.strip_prefix("tandem.")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, version)| version.parse::<u32>().is_ok())
}
