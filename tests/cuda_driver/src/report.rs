//! The report of the fake driver: violations of the driver's rules, and called functions.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Maximum number of violations that are written. Further violations are only counted.
const MAX_WRITTEN: usize = 100;

/// Writes lines `violation: …` and `called: FUNCTION` to a file immediately, so that they remain if the
/// process is killed.
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
        if self.violations.len() < MAX_WRITTEN {
            self.write(&format!("violation: {text}"));
            eprintln!("fake CUDA driver: {text}");
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
