//! What every inference of a drive took, as a file that gives the drive again.

use super::Expert;
use crate::scene::{Latency, TickReport};
use crate::timing::Stage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The format that this tandem writes and reads.
pub const SCHEDULE_FORMAT: u32 = 1;

/// The inferences of one drive: by the frame that each was released at, what it took, nanoseconds.
///
/// In virtual time that is what was drawn, in other time modes what the host measured, and such a
/// schedule can be replayed in virtual time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// [`SCHEDULE_FORMAT`].
    format: u32,
    /// Refreshes.
    slow_ns: BTreeMap<u64, u64>,
    /// Ticks.
    fast_ns: BTreeMap<u64, u64>,
    /// Refreshes under way that are measured: version and frame.
    #[serde(skip)]
    under_way: Vec<(u64, u64)>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            format: SCHEDULE_FORMAT,
            slow_ns: BTreeMap::new(),
            fast_ns: BTreeMap::new(),
            under_way: Vec::new(),
        }
    }
}

/// A schedule cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// There is none, or it cannot be read.
    #[error("cannot read schedule {path:?}: {source}; `tandem eval` leaves one of every drive")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is none.
    #[error("{path:?} is no schedule of format {SCHEDULE_FORMAT}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be written.
    #[error("cannot write schedule {path:?}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Schedule {
    /// Takes down what a tick says of the inferences that began or ended at it.
    pub fn note(&mut self, report: &TickReport) {
        let nanos = |took: Duration| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let frame = report.frame.0;
        if let Some(released) = report.inference
            && let Some(took) = match released.takes {
                Latency::Emulated(takes) => Some(takes),
                Latency::Measured => report.spans.took(Stage::TICK),
            }
        {
            self.fast_ns.insert(frame, nanos(took));
        }
        if let Some(begun) = report.refresh_begun {
            match begun.takes {
                Latency::Emulated(takes) => drop(self.slow_ns.insert(frame, nanos(takes))),
                Latency::Measured => self.under_way.push((begun.version, frame)),
            }
        }
        if let Some(refresh) = &report.refresh
            && let Some(place) = self.under_way.iter().position(|(v, _)| *v == refresh.version)
        {
            let (_, frame) = self.under_way.swap_remove(place);
            if let Some(took) = refresh.spans.took(Stage::REFRESH) {
                self.slow_ns.insert(frame, nanos(took));
            }
        }
    }

    /// What the inference of `expert` took that was released at `frame`; `None` if none was.
    pub fn latency(&self, expert: Expert, frame: u64) -> Option<Duration> {
        let latencies = match expert {
            Expert::Slow => &self.slow_ns,
            Expert::Fast => &self.fast_ns,
        };
        latencies.get(&frame).copied().map(Duration::from_nanos)
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.slow_ns.is_empty() && self.fast_ns.is_empty()
    }

    /// Reads a schedule.
    ///
    /// # Errors
    /// If there is none, or it is of another format.
    pub fn read(path: &Path) -> Result<Self, ScheduleError> {
        let text = fs::read(path)
            .map_err(|source| ScheduleError::Read { path: path.to_owned(), source })?;
        let content = |reason| ScheduleError::Content { path: path.to_owned(), reason };
        let schedule: Self =
            serde_json::from_slice(&text).map_err(|error| content(error.to_string()))?;
        if schedule.format != SCHEDULE_FORMAT {
            return Err(content(format!("it says format {}", schedule.format)));
        }
        Ok(schedule)
    }

    /// Writes the schedule, whole or not at all; makes its folder.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&self, path: &Path) -> Result<(), ScheduleError> {
        let refused = |source| ScheduleError::Write { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(refused)?;
        }
        let text = serde_json::to_vec(self).map_err(|error| refused(error.into()))?;
        tandem_files::write(path, &text).map_err(refused)
    }
}
