//! What the stand-in reports: violations of the driver's rules, and the functions that were called.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Violations after this many are counted only.
const WRITTEN: usize = 100;

/// Lines `violation: …` and `called: FUNCTION`, appended to a file as they occur, so that a process
/// that ends in any way leaves them.
#[derive(Default)]
pub(crate) struct Report {
    file: Option<PathBuf>,
    violations: Vec<String>,
}

impl Report {
    pub(crate) fn to(file: Option<PathBuf>) -> Self {
        Self { file, violations: Vec::new() }
    }

    pub(crate) fn violation(&mut self, text: String) {
        if self.violations.len() < WRITTEN {
            self.write(&format!("violation: {text}"));
            eprintln!("driver stand-in: {text}");
        }
        self.violations.push(text);
    }

    pub(crate) fn called(&mut self, function: &str) {
        self.write(&format!("called: {function}"));
    }

    fn write(&self, line: &str) {
        if let Some(file) = &self.file {
            let opened = OpenOptions::new().create(true).append(true).open(file);
            let written =
                opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
            written.unwrap_or_else(|error| panic!("cannot write {file:?}: {error}"));
        }
    }

    #[cfg(test)]
    pub(crate) fn violations(&self) -> &[String] {
        &self.violations
    }
}
