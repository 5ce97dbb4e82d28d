//! Child processes of this binary that load the fake driver.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// Result of a child process.
pub(crate) struct Ended {
    /// True if at least one test ran and all passed.
    pub(crate) has_passed: bool,
    pub(crate) output: String,
    /// Reported violations of the driver's rules.
    pub(crate) violations: Vec<String>,
    /// Called functions of the driver.
    pub(crate) called: BTreeSet<String>,
    settings: String,
}

impl Ended {
    /// Checks that the child passed its tests on the fake driver without violations.
    #[track_caller]
    pub(crate) fn check(&self) {
        let Self { output, violations, settings, .. } = self;
        assert!(self.has_passed, "with {settings}:\n{output}");
        assert!(violations.is_empty(), "with {settings}:\n{}", violations.join("\n"));
        assert!(
            self.called.contains("cuInit"),
            "the child did not load the fake driver:\n{output}"
        );
    }
}

/// Library of the fake driver, which cargo builds as a dependency into the folder of this test.
fn library() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let library = this.with_file_name("libcuda_driver_standin.so");
    assert!(library.is_file(), "{library:?} is missing; run `cargo test --features cuda`");
    library
}

/// Runs the tests with `filter` in their names, including ignored ones, in a child process with these
/// settings of the fake driver.
pub(crate) fn run(filter: &str, settings: &[(&str, &str)]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    // The first name that cudarc searches. ONNX Runtime and TensorRT search another.
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
