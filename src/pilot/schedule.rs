//! Latencies of every expert run of a drive, in a file from which the drive can be replayed.

use super::Expert;
use crate::scene::{Latency, TickReport};
use crate::timing::Stage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Format version that is written and read.
pub const SCHEDULE_FORMAT: u32 = 1;

/// Latencies of the expert runs of one drive in nanoseconds, by the frame
/// at which each was released.
///
/// In virtual time the latencies are those sampled, in the other time modes those measured on the
/// host; both can be replayed in virtual time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    format: u32,
    slow_ns: BTreeMap<u64, u64>,
    fast_ns: BTreeMap<u64, u64>,
    /// Version and frame of measured prefills in progress.
    #[serde(skip)]
    in_progress: Vec<(u64, u64)>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            format: SCHEDULE_FORMAT,
            slow_ns: BTreeMap::new(),
            fast_ns: BTreeMap::new(),
            in_progress: Vec::new(),
        }
    }
}

/// Error returned for a schedule that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error("cannot read schedule {path:?}: {source}; `tandem eval` writes one for every drive")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path:?} is not a schedule of format {SCHEDULE_FORMAT}: {reason}")]
    Content { path: PathBuf, reason: String },
    #[error("cannot write schedule {path:?}: {source}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Schedule {
    /// Adds the latencies of the expert runs that started or ended at a tick.
    pub fn add(&mut self, report: &TickReport) {
        let nanos = |took: Duration| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let frame = report.frame.0;
        if let Some(released) = report.action_step
            && let Some(took) = match released.takes {
                Latency::Emulated(takes) => Some(takes),
                Latency::Measured => report.spans.took(Stage::TICK),
            }
        {
            self.fast_ns.insert(frame, nanos(took));
        }
        if let Some(started) = report.prefill_started {
            match started.takes {
                Latency::Emulated(takes) => drop(self.slow_ns.insert(frame, nanos(takes))),
                Latency::Measured => self.in_progress.push((started.version, frame)),
            }
        }
        if let Some(prefill) = &report.prefill
            && let Some(place) = self.in_progress.iter().position(|(v, _)| *v == prefill.version)
        {
            let (_, frame) = self.in_progress.swap_remove(place);
            if let Some(took) = prefill.spans.took(Stage::PREFILL) {
                self.slow_ns.insert(frame, nanos(took));
            }
        }
    }

    /// Returns the latency of the run of `expert` released at `frame`, or
    /// `None` if none was released.
    pub fn latency(&self, expert: Expert, frame: u64) -> Option<Duration> {
        let latencies = match expert {
            Expert::Slow => &self.slow_ns,
            Expert::Fast => &self.fast_ns,
        };
        latencies.get(&frame).copied().map(Duration::from_nanos)
    }

    /// Returns true if the schedule has no latencies.
    pub fn is_empty(&self) -> bool {
        self.slow_ns.is_empty() && self.fast_ns.is_empty()
    }

    /// Reads a schedule. Fails if the file cannot be read or has another format.
    pub fn read(path: &Path) -> Result<Self, ScheduleError> {
        let text = fs::read(path)
            .map_err(|source| ScheduleError::Read { path: path.to_owned(), source })?;
        let content = |reason| ScheduleError::Content { path: path.to_owned(), reason };
        let schedule: Self =
            serde_json::from_slice(&text).map_err(|error| content(error.to_string()))?;
        if schedule.format != SCHEDULE_FORMAT {
            return Err(content(format!("its format is {}", schedule.format)));
        }
        Ok(schedule)
    }

    /// Writes the schedule atomically and creates its folder.
    pub fn write(&self, path: &Path) -> Result<(), ScheduleError> {
        let refused = |source| ScheduleError::Write { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(refused)?;
        }
        let text = serde_json::to_vec(self).map_err(|error| refused(error.into()))?;
        tandem_files::write(path, &text).map_err(refused)
    }
}
