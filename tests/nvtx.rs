//! Stages as NVTX ranges, received by a library that logs every call.
//!
//! One test, because a process enables NVTX once. The test compiles the library with `rustc`.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails here")]

use std::path::{Path, PathBuf};
use std::process::Command;
use tandem::model::automot::stages;
use tandem::timing::{Stage, StageSpans, nvtx};

/// Compiles `source` to a shared library in `folder`.
fn library(folder: &Path, name: &str, source: &str) -> PathBuf {
    let (file, source_file) =
        (folder.join(format!("{name}.so")), folder.join(format!("{name}.rs")));
    std::fs::write(&source_file, source).unwrap();
    let output = Command::new("rustc")
        .args(["--crate-type", "cdylib", "--edition", "2024", "-C", "panic=abort", "-o"])
        .args([&file, &source_file])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

/// Source of the four functions that tandem calls; each
/// appends its thread, name and argument to `log`.
fn listener(log: &Path) -> String {
    format!(
        r##"
        use std::{{ffi::CStr, fs::OpenOptions, io::Write}};
        fn note(line: String) {{
            let mut log = OpenOptions::new().create(true).append(true).open({log:?}).unwrap();
            let thread = std::thread::current();
            let line = format!("{{:?}} {{line}}\n", thread.id());
            log.write_all(line.as_bytes()).unwrap();
        }}
        fn name(of: *const i8) -> String {{
            unsafe {{ CStr::from_ptr(of.cast()) }}.to_str().unwrap().to_owned()
        }}
        #[unsafe(no_mangle)]
        extern "C" fn nvtxRangePushA(of: *const i8) -> i32 {{ note(format!("push {{}}", name(of))); 0 }}
        #[unsafe(no_mangle)]
        extern "C" fn nvtxRangePop() -> i32 {{ note("pop".into()); 0 }}
        #[unsafe(no_mangle)]
        extern "C" fn nvtxRangeStartA(of: *const i8) -> u64 {{
            note(format!("start {{}}", name(of)));
            name(of).len() as u64
        }}
        #[unsafe(no_mangle)]
        extern "C" fn nvtxRangeEnd(id: u64) {{ note(format!("end {{id}}")) }}
        "##
    )
}

/// Calls that the library received, without their threads.
fn calls(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn stages_are_nvtx_ranges_once_enabled() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut spans = StageSpans::default();

    let missing = folder.path().join("libnvToolsExt.so.1");
    let error = nvtx::enable_from(&missing).unwrap_err().to_string();
    assert!(error.contains("libnvToolsExt.so.1"), "{error}");
    assert!(error.contains("pip install nvidia-nvtx-cu12"), "{error}");
    let other = library(folder.path(), "other", "");
    let error = nvtx::enable_from(&other).unwrap_err().to_string();
    assert!(error.contains("other.so") && error.contains("nvtxRangePushA"), "{error}");

    let listener = library(folder.path(), "listener", &listener(&log));
    let begun_before = stages::BEV.begin();
    assert_eq!(nvtx::enable_from(&listener).unwrap(), listener.display().to_string());
    assert_eq!(nvtx::enable().unwrap(), listener.display().to_string());
    spans.end(begun_before);
    assert_eq!(calls(&log), Vec::<String>::new());

    let request = Stage::REQUEST.begin();
    let (refresh, hand_off) = (Stage::PREFILL.begin(), Stage::HAND_OFF.begin());
    let understanding = std::thread::scope(|scope| {
        let understanding = scope.spawn(|| {
            let mut spans = StageSpans::default();
            spans.end(hand_off);
            spans.measure(stages::PROMPT, || ());
            // Dropped, as by an error: its range ends, too.
            drop(stages::VISION.begin());
            spans.end(refresh);
            spans
        });
        understanding.join().unwrap()
    });
    spans.end(request);

    let expected = [
        "push refresh request",
        "start refresh",
        "start hand-off",
        "end 8",
        "push prompt",
        "pop",
        "push vision",
        "pop",
        "end 7",
        "pop",
    ];
    assert_eq!(calls(&log), expected);
    let stages: Vec<Stage> =
        spans.iter().chain(understanding.iter()).map(|span| span.stage).collect();
    assert_eq!(
        stages,
        [stages::BEV, Stage::REQUEST, Stage::HAND_OFF, stages::PROMPT, Stage::PREFILL]
    );
}
