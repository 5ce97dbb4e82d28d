//! Runs the `tandem` command in the root folder of the workspace.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Returns the command with these arguments and an empty standard input.
pub(crate) fn tandem(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.args(arguments).current_dir(tandem_testkit::ROOT).stdin(Stdio::null());
    command
}

/// Returns the command with piped outputs, for a process that runs while the test continues.
pub(crate) fn piped(arguments: &[&str]) -> Command {
    let mut command = tandem(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    tandem(arguments).output().unwrap()
}

/// Runs a command that must succeed; returns its standard output.
#[track_caller]
pub(crate) fn done(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Checks that a command failed with exit code 2 and
/// an error with all `fragments`; returns the error.
#[track_caller]
pub(crate) fn refused(output: &Output, fragments: &[&str]) -> String {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    assert_contains_all(&error, fragments);
    error
}

#[track_caller]
pub(crate) fn assert_contains_all(text: &str, fragments: &[&str]) {
    for fragment in fragments {
        assert!(text.contains(fragment), "{fragment:?} is missing in: {text}");
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
