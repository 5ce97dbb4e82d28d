//! How to run: one YAML file, read into a struct that mirrors it, then checked.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The tick rate of the benchmark and of every model so far, Hz.
const TICK_HZ: u32 = 20;

/// A run file as it is written.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunFile {
    /// Control ticks a second; 20 is the only rate that the models were trained for.
    pub tick_hz: u32,
    /// Time from observation to control that counts as in time, milliseconds.
    pub act_budget_millis: f64,
    /// Ticks from one refresh to the next; the release refreshes every second tick.
    pub refresh_period_ticks: u32,
    /// `virtual` or `wall`.
    pub clock: ClockName,
    /// Virtual clock: time from the start of a refresh until its prefix is seen, milliseconds.
    pub refresh_latency_millis: f64,
    /// Seed of the world's randomness.
    pub seed: u64,
    /// CPU threads of each expert.
    pub threads: Threads,
    /// AutoMoT: shift the action tokens' positions by 101 at each re-use of a prefix, as the release
    /// does, instead of keeping the trained positions.
    pub release_position_drift: bool,
    /// AutoMoT: quality of the JPEG file that the BEV encoder's picture goes through, 1 to 100; the
    /// release's is 95, and costs some 20 ms a tick. Absent: the picture stays as it is.
    pub jpeg_quality: Option<u8>,
}

/// CPU threads of each expert's engines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threads {
    /// BEV encoder and action expert.
    pub action: usize,
    /// Vision tower and understanding expert.
    pub understanding: usize,
}

/// The clocks a run file can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockName {
    /// Lockstep: results become visible at set instants, whatever the machine.
    Virtual,
    /// Real time.
    Wall,
}

impl Default for RunFile {
    fn default() -> Self {
        Self {
            tick_hz: TICK_HZ,
            act_budget_millis: 50.0,
            refresh_period_ticks: 2,
            clock: ClockName::Virtual,
            refresh_latency_millis: 0.0,
            seed: 0,
            threads: Threads { action: 1, understanding: 1 },
            release_position_drift: false,
            jpeg_quality: None,
        }
    }
}

/// How results of a refresh become visible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Exactly `refresh_latency` of simulated time after the refresh began.
    Virtual {
        /// The latency; zero is plain lockstep.
        refresh_latency: Duration,
    },
    /// As soon as it is done; the loop keeps real time.
    Wall,
}

/// A checked run: nothing in it is optional.
#[derive(Clone, PartialEq, Debug)]
pub struct Run {
    /// Time from tick to tick.
    pub tick: Duration,
    /// Time from observation to control that counts as in time.
    pub act_budget: Duration,
    /// Ticks from one refresh to the next.
    pub refresh_period_ticks: u64,
    /// Which clock, and its latencies.
    pub pace: Pace,
    /// Seed of the world's randomness.
    pub seed: u64,
    /// CPU threads.
    pub threads: Threads,
    /// Positions as the release's (drifting) or as trained.
    pub release_position_drift: bool,
    /// Quality of the BEV picture's JPEG round trip, if it makes one.
    pub jpeg_quality: Option<u8>,
}

/// A run file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot be read.
    #[error("cannot read run file {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not a run file.
    #[error("run file {path:?}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's words, with the place.
        reason: String,
    },
    /// Another rate than the models'.
    #[error(
        "tick_hz is {found}; the models were trained for {TICK_HZ}, and the benchmark runs at {TICK_HZ}"
    )]
    TickRate {
        /// The rate asked for.
        found: u32,
    },
    /// A budget that can't be kept.
    #[error("act_budget_millis of {budget} ms exceeds the {tick} ms tick")]
    Budget {
        /// The budget.
        budget: f64,
        /// The tick.
        tick: f64,
    },
    /// A number outside its range.
    #[error("{key} is {found}; it must be {expected}")]
    Range {
        /// The key.
        key: &'static str,
        /// The value.
        found: String,
        /// The range, in words.
        expected: &'static str,
    },
}

impl RunFile {
    /// Reads a run file; keys that are absent take their defaults.
    ///
    /// # Errors
    /// If the file cannot be read, is not YAML, or has a key that no run file has.
    pub fn read(path: &Path) -> Result<Self, RunError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RunError::Read { path: path.to_owned(), source })?;
        serde_saphyr::from_str(&text)
            .map_err(|error| RunError::Parse { path: path.to_owned(), reason: error.to_string() })
    }
}

impl TryFrom<&RunFile> for Run {
    type Error = RunError;

    fn try_from(file: &RunFile) -> Result<Self, RunError> {
        if file.tick_hz != TICK_HZ {
            return Err(RunError::TickRate { found: file.tick_hz });
        }
        let tick_millis = 1000.0 / f64::from(file.tick_hz);
        if file.act_budget_millis > tick_millis {
            return Err(RunError::Budget { budget: file.act_budget_millis, tick: tick_millis });
        }
        let act_budget = positive("act_budget_millis", file.act_budget_millis)?;
        if file.refresh_period_ticks == 0 {
            let (key, found) = ("refresh_period_ticks", "0".to_owned());
            return Err(RunError::Range { key, found, expected: "1 or more" });
        }
        for (key, threads) in [
            ("threads.action", file.threads.action),
            ("threads.understanding", file.threads.understanding),
        ] {
            if threads == 0 {
                return Err(RunError::Range { key, found: "0".into(), expected: "1 or more" });
            }
        }
        if let Some(quality) = file.jpeg_quality.filter(|quality| !(1..=100).contains(quality)) {
            let (key, found) = ("jpeg_quality", quality.to_string());
            return Err(RunError::Range { key, found, expected: "1 to 100" });
        }
        let latency = file.refresh_latency_millis;
        if !(0.0..=60_000.0).contains(&latency) {
            let (key, found) = ("refresh_latency_millis", latency.to_string());
            return Err(RunError::Range { key, found, expected: "between 0 and 60000" });
        }
        let pace = match file.clock {
            ClockName::Virtual => {
                Pace::Virtual { refresh_latency: Duration::from_secs_f64(latency / 1000.0) }
            }
            ClockName::Wall => Pace::Wall,
        };
        Ok(Self {
            tick: Duration::from_secs_f64(tick_millis / 1000.0),
            act_budget,
            refresh_period_ticks: u64::from(file.refresh_period_ticks),
            pace,
            seed: file.seed,
            threads: file.threads,
            release_position_drift: file.release_position_drift,
            jpeg_quality: file.jpeg_quality,
        })
    }
}

fn positive(key: &'static str, millis: f64) -> Result<Duration, RunError> {
    if millis > 0.0 && millis.is_finite() {
        return Ok(Duration::from_secs_f64(millis / 1000.0));
    }
    Err(RunError::Range { key, found: millis.to_string(), expected: "a positive number" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Run, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.yaml");
        std::fs::write(&path, text).unwrap();
        let file = RunFile::read(&path).map_err(|error| error.to_string())?;
        Run::try_from(&file).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(text: &str, says: &[&str]) {
        let error = read(text).unwrap_err();
        for word in says {
            assert!(error.contains(word), "{word:?} is missing in: {error}");
        }
    }

    #[test]
    fn absent_keys_take_their_defaults() {
        let run = read("seed: 7\n").unwrap();
        assert_eq!((run.seed, run.refresh_period_ticks), (7, 2));
        assert_eq!(run.tick, Duration::from_millis(50));
    }

    #[test]
    fn an_unknown_key_is_named() {
        refused("refresh_perod_ticks: 2\n", &["run.yaml", "refresh_perod_ticks"]);
    }

    #[test]
    fn a_budget_longer_than_its_tick_is_refused() {
        refused("act_budget_millis: 60\n", &["60 ms", "50 ms tick"]);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        refused("refresh_period_ticks: 0\n", &["refresh_period_ticks", "1 or more"]);
        refused("refresh_latency_millis: -1\n", &["refresh_latency_millis"]);
        refused("act_budget_millis: .nan\n", &["act_budget_millis"]);
        refused("jpeg_quality: 0\n", &["jpeg_quality", "1 to 100"]);
        refused("tick_hz: 10\n", &["tick_hz", "20"]);
        refused("threads: {action: 0, understanding: 1}\n", &["threads.action"]);
    }
}
