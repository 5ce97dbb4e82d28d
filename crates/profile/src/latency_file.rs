//! `latency.json`: a profile with everything that it depends on.
//!
//! The file is written by `tandem profile`, and read by `tandem compare`, by the page and by the
//! replay of recorded latencies. All times are nanoseconds of the host's monotonic clock; start
//! times count from the start of their phase.

use super::{MachineCard, ProfilerCost};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tandem::engine::Key;
use tandem::pilot::{RealTimeReport, RunFile};
use tandem::timing::{Stage, StageStatistics};
use tandem_files::shortened_error;

/// Format that this version writes.
pub const FORMAT: u32 = 2;

/// Oldest format that this version reads; format 1 has no [`Phase::others_share`].
const OLDEST_FORMAT: u32 = 1;

/// Content of `latency.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyFile {
    /// [`FORMAT`], or the older format of a file that was read.
    pub format: u32,
    /// Version of tandem that wrote the file.
    pub tandem: String,
    /// Time of the profile, seconds since the Unix epoch.
    pub taken_at_unix_s: u64,
    /// Command line of the profile.
    pub command: String,
    pub machine: MachineCard,
    pub engine: EngineIdentity,
    /// Run file with all defaults filled in.
    #[serde(deserialize_with = "RunFile::of_any_version")]
    pub run: RunFile,
    /// Source of the observations.
    pub observations: String,
    /// Results of the real-time options that the run file requests.
    pub real_time: RealTimeReport,
    /// Cost of measuring, in the same process.
    pub profiler: ProfilerCost,
    /// Time to the first control with a prefix.
    pub first_control: Option<FirstControl>,
    /// Measured phases, in order.
    pub phases: Vec<Phase>,
}

/// Identity of the networks of a profile.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineIdentity {
    /// Engine folder as given on the command line.
    pub folder: String,
    pub backend: String,
    /// SHA-256 of each graph, by network.
    pub graphs_sha256: BTreeMap<String, String>,
    /// Key of each built engine, by network; empty for networks as exported, and in older files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub built: BTreeMap<String, Key>,
}

impl EngineIdentity {
    fn check(&self) -> Result<(), String> {
        if self.built.is_empty() {
            return Ok(());
        }
        if !self.built.keys().eq(self.graphs_sha256.keys()) {
            let graphs: Vec<&String> = self.graphs_sha256.keys().collect();
            let built: Vec<&String> = self.built.keys().collect();
            return Err(format!("it has graphs of {graphs:?}, but engine keys of {built:?}"));
        }
        for (network, key) in &self.built {
            let is_hash =
                |hash: &str| hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit());
            if !is_hash(&key.graph_sha256) || !is_hash(&key.weights_sha256) {
                return Err(format!("the key of {network:?} has an invalid hash"));
            }
            if self.graphs_sha256[network] != key.graph_sha256 {
                return Err(format!(
                    "network {network:?} ran graph {}, but its engine's key names {}",
                    self.graphs_sha256[network], key.graph_sha256
                ));
            }
        }
        Ok(())
    }
}

/// Time to the first control that is based on a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstControl {
    /// Time to load the networks.
    pub load_ns: u64,
    /// Time from the first observation to the first control with a prefix.
    pub loop_ns: u64,
    /// Number of ticks in this time, including the one with the prefix.
    pub ticks: u64,
}

/// Mode in which a phase runs the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    /// Both experts, one tick per period of real time, idle in between.
    Paced,
    /// Both experts, each tick immediately after the previous one.
    BackToBack,
    /// Ticks back to back on one prefix, without prefills.
    ActionAlone,
    /// Prefills back to back, without ticks; each has new frames.
    UnderstandingAlone,
}

impl PhaseName {
    /// Returns the description for tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Paced => "at the real period, with idle gaps",
            Self::BackToBack => "back to back",
            Self::ActionAlone => "action expert alone",
            Self::UnderstandingAlone => "understanding expert alone",
        }
    }
}

/// Measurements of one phase.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    pub name: PhaseName,
    /// Number of ticks (in [`PhaseName::UnderstandingAlone`] prefills) before the first that counts.
    pub warm_up: u64,
    /// Statistics of all counted ticks. Deadlines count from the due instant in phases that keep
    /// real time, otherwise from the observation.
    pub statistics: StageStatistics,
    /// Samples of counted ticks, without the last [`Self::samples_dropped`] ones.
    pub ticks: TickSamples,
    /// Samples of the prefills that ended in these ticks.
    pub refreshes: PrefillSamples,
    /// Number of counted ticks without samples.
    pub samples_dropped: u64,
    /// Number of ticks that were due and skipped, because the previous tick
    /// overran by more than a period.
    pub ticks_skipped: u64,
    /// Pairs of counted ticks so far and resident memory of the process, bytes.
    pub resident_bytes: Vec<(u64, u64)>,
    /// Share of the processor time of all cores that other processes and the hypervisor
    /// used during the phase, including warm-up, 0 to 1; `None` if the system does not
    /// report it, and in files of format 1.
    #[serde(default)]
    pub others_share: Option<f64>,
}

/// Samples of ticks in columns: entry `i` of every column belongs to the same tick.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TickSamples {
    /// Instant at which the tick was due, or its observation was taken in phases without real time.
    pub start_ns: Vec<u64>,
    pub stages: BTreeMap<String, StageColumn>,
    /// Version of the prefix that the tick acted on.
    pub prefix_version: Vec<Option<u64>>,
    pub prefix_age_ns: Vec<Option<u64>>,
    /// Time by which the deadline was missed; `None` if it was met.
    pub late_by_ns: Vec<Option<u64>>,
    /// True if a prefill was running when the tick ended.
    pub is_refreshing: Vec<bool>,
    pub page_faults: Vec<u64>,
    /// Involuntary context switches of the tick's thread.
    pub preemptions: Vec<u64>,
}

/// Samples of prefills in columns, like [`TickSamples`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefillSamples {
    pub version: Vec<u64>,
    /// Start of the first stage of the prefill.
    pub start_ns: Vec<u64>,
    /// Index of the sampled tick at which its prefix was published.
    pub published_at: Vec<u64>,
    pub stages: BTreeMap<String, StageColumn>,
}

/// Samples of one stage over all ticks or prefills; `None` where it did not run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageColumn {
    /// Start of the first run of the stage.
    pub start_ns: Vec<Option<u64>>,
    /// Total duration of all runs of the stage.
    pub took_ns: Vec<Option<u64>>,
}

/// Error returned when a latency file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LatencyFileError {
    #[error("cannot read {path:?}: {source}; `tandem profile` writes it")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path:?} has latency format {found}, but this version reads formats {OLDEST_FORMAT} to \
            {FORMAT}; take the profile again"
    )]
    Format { path: PathBuf, found: u64 },
    #[error("{path:?} is not a complete latency file: {reason}")]
    Content {
        path: PathBuf,
        /// Problem and its position in the file.
        reason: String,
    },
    #[error("cannot write {path:?}: {source}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl LatencyFile {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// If it cannot be read, has another format, or is inconsistent.
    pub fn read(path: &Path) -> Result<Self, LatencyFileError> {
        let text = fs::read(path)
            .map_err(|source| LatencyFileError::Read { path: path.to_owned(), source })?;
        let content = |reason: String| LatencyFileError::Content {
            path: path.to_owned(),
            reason: shortened_error(reason),
        };
        #[derive(Deserialize)]
        struct Head {
            format: u64,
        }
        let head: Head =
            serde_json::from_slice(&text).map_err(|error| content(error.to_string()))?;
        if !(u64::from(OLDEST_FORMAT)..=u64::from(FORMAT)).contains(&head.format) {
            return Err(LatencyFileError::Format { path: path.to_owned(), found: head.format });
        }
        let file: Self =
            serde_json::from_slice(&text).map_err(|error| content(error.to_string()))?;
        file.engine.check().map_err(|reason| content(format!("engine: {reason}")))?;
        for phase in &file.phases {
            phase.check().map_err(|reason| content(format!("{}: {reason}", phase.name.title())))?;
        }
        Ok(file)
    }

    /// Writes the file atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), LatencyFileError> {
        let write_error = |source| LatencyFileError::Write { path: path.to_owned(), source };
        let text = serde_json::to_vec(self).map_err(|error| write_error(error.into()))?;
        tandem_files::write(path, &text).map_err(write_error)
    }

    /// Returns the phase with this name, if it was measured.
    pub fn phase(&self, name: PhaseName) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.name == name)
    }
}

impl Phase {
    fn check(&self) -> Result<(), String> {
        let ticks = self.ticks.start_ns.len();
        let lengths = [
            ("prefix_version", self.ticks.prefix_version.len()),
            ("prefix_age_ns", self.ticks.prefix_age_ns.len()),
            ("late_by_ns", self.ticks.late_by_ns.len()),
            ("is_refreshing", self.ticks.is_refreshing.len()),
            ("page_faults", self.ticks.page_faults.len()),
            ("preemptions", self.ticks.preemptions.len()),
        ];
        for (name, found) in lengths {
            same_length("tick", name, ticks, found)?;
        }
        check_columns("tick", ticks, &self.ticks.stages)?;
        let refreshes = self.refreshes.version.len();
        same_length("refresh", "start_ns", refreshes, self.refreshes.start_ns.len())?;
        same_length("refresh", "published_at", refreshes, self.refreshes.published_at.len())?;
        check_columns("refresh", refreshes, &self.refreshes.stages)?;
        let counted = self.statistics.ticks();
        let sampled = (ticks as u64).saturating_add(self.samples_dropped);
        if self.others_share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err(format!("others_share is {:?}, not from 0 to 1", self.others_share));
        }
        if self.name != PhaseName::UnderstandingAlone && counted != sampled {
            return Err(format!("{counted} ticks were counted, but {sampled} sampled or dropped"));
        }
        Ok(())
    }
}

fn check_columns(
    of: &str,
    expected: usize,
    stages: &BTreeMap<String, StageColumn>,
) -> Result<(), String> {
    for (name, column) in stages {
        if Stage::named(name).is_none() {
            return Err(format!("unknown stage {name:?}"));
        }
        same_length(of, name, expected, column.took_ns.len())?;
        same_length(of, name, expected, column.start_ns.len())?;
        if let Some(at) = column
            .took_ns
            .iter()
            .zip(&column.start_ns)
            .position(|(t, s)| t.is_some() != s.is_some())
        {
            return Err(format!("{of} {at}: {name:?} has only one of start and duration"));
        }
    }
    Ok(())
}

fn same_length(of: &str, name: &str, expected: usize, found: usize) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    Err(format!("column {name:?} has {found} entries for {expected} {of} samples"))
}
