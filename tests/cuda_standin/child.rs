//! Child processes of this binary that load the stand-in.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// What became of a child.
pub(crate) struct Ended {
    /// All of its tests passed, and there were any.
    pub(crate) has_passed: bool,
    pub(crate) output: String,
    /// Violations of the driver's rules that the stand-in reports.
    pub(crate) violations: Vec<String>,
    /// Functions of the driver that were called.
    pub(crate) called: BTreeSet<String>,
    settings: String,
}

impl Ended {
    /// Checks that the child did without a fault what it was asked to, on the stand-in.
    #[track_caller]
    pub(crate) fn check(&self) {
        let Self { output, violations, settings, .. } = self;
        assert!(self.has_passed, "with {settings}:\n{output}");
        assert!(violations.is_empty(), "with {settings}:\n{}", violations.join("\n"));
        assert!(self.called.contains("cuInit"), "the child did not load the stand-in:\n{output}");
    }
}

/// The stand-in's library, which cargo builds as a dependency of this test, beside it.
fn library() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let library = this.with_file_name("libcuda_driver_standin.so");
    assert!(library.is_file(), "{library:?} is missing; run `cargo test --features cuda`");
    library
}

/// Runs the tests whose names contain `filter`, ignored ones too, in a child with these settings of
/// the stand-in.
pub(crate) fn run(filter: &str, settings: &[(&str, &str)]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    // The first name that cudarc looks for. ONNX Runtime and TensorRT look for another.
    std::os::unix::fs::symlink(library(), folder.path().join("libcuda.so")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([filter, "--include-ignored", "--nocapture", "--test-threads=1"]);
    command.env("LD_LIBRARY_PATH", folder.path()).env("CUDA_STANDIN_REPORT", &report);
    command.envs(settings.iter().map(|(name, value)| (format!("CUDA_STANDIN_{name}"), value)));
    let ended = command.output().unwrap();
    let output = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    let report = std::fs::read_to_string(report).unwrap_or_default();
    let lines = |prefix| report.lines().filter_map(move |line| line.strip_prefix(prefix));
    Ended {
        has_passed: ended.status.success() && !output.contains("running 0 tests"),
        violations: lines("violation: ").map(str::to_owned).collect(),
        called: lines("called: ").map(str::to_owned).collect(),
        settings: format!("{settings:?}"),
        output,
    }
}
