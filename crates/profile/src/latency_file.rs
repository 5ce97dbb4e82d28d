//! `latency.json`: a profile in a file, with everything that it depends on.
//!
//! Written by `tandem profile`; read by `tandem compare`, by the page, and by whoever replays
//! recorded latencies. All times are nanoseconds of the host's monotonic clock; all beginnings count
//! from the beginning of their phase.

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

/// The format that this tandem writes.
pub const FORMAT: u32 = 2;

/// The oldest format that this tandem reads; format 1 has no [`Phase::others_share`].
const OLDEST_FORMAT: u32 = 1;

/// A profile.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyFile {
    /// [`FORMAT`], or an older one that was read.
    pub format: u32,
    /// Version of tandem.
    pub tandem: String,
    /// When it was taken, seconds since the Unix epoch.
    pub taken_at_unix_s: u64,
    /// How it was called.
    pub command: String,
    /// The machine.
    pub machine: MachineCard,
    /// The networks that ran.
    pub engine: EngineIdentity,
    /// The run, every key resolved.
    #[serde(deserialize_with = "RunFile::of_any_version")]
    pub run: RunFile,
    /// What was looked at.
    pub observations: String,
    /// What came of the real-time options that the run asks for.
    pub real_time: RealTimeReport,
    /// What measuring itself costs.
    pub profiler: ProfilerCost,
    /// How long it took to come to drive.
    pub first_control: Option<FirstControl>,
    /// What was measured, in order.
    pub phases: Vec<Phase>,
}

/// The networks of a profile.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineIdentity {
    /// The folder, as it was named.
    pub folder: String,
    /// Library and version.
    pub backend: String,
    /// SHA-256 of each network's graph, by network.
    pub graphs_sha256: BTreeMap<String, String>,
    /// What each engine was made from, by network, where they were built; empty for networks as
    /// exported, and in files of earlier versions.
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
            return Err(format!("it has graphs of {graphs:?} and keys of engines of {built:?}"));
        }
        for (network, key) in &self.built {
            let is_hash =
                |hash: &str| hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit());
            if !is_hash(&key.graph_sha256) || !is_hash(&key.weights_sha256) {
                return Err(format!("the key of {network:?} has a hash that is none"));
            }
            if self.graphs_sha256[network] != key.graph_sha256 {
                return Err(format!(
                    "network {network:?} ran graph {}, its engine's key names {}",
                    self.graphs_sha256[network], key.graph_sha256
                ));
            }
        }
        Ok(())
    }
}

/// The way to the first control that rests on a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstControl {
    /// Loading the networks.
    pub load_ns: u64,
    /// From the first observation to the first control with a prefix.
    pub loop_ns: u64,
    /// Ticks that took, the one with the prefix included.
    pub ticks: u64,
}

/// How a phase runs the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    /// Both experts, a tick at every period of real time, idle in between.
    Paced,
    /// Both experts, a tick as soon as the one before is answered.
    BackToBack,
    /// Ticks back to back on one prefix, no refresh.
    ActionAlone,
    /// Refreshes back to back, no tick; a new frame in each.
    UnderstandingAlone,
}

impl PhaseName {
    /// For tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Paced => "at the real period, with idle gaps",
            Self::BackToBack => "back to back",
            Self::ActionAlone => "action expert alone",
            Self::UnderstandingAlone => "understanding expert alone",
        }
    }
}

/// One way of running, measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Which.
    pub name: PhaseName,
    /// Ticks (refreshes, in [`PhaseName::UnderstandingAlone`]) before the first that counts.
    pub warm_up: u64,
    /// Over all that count. In phases that keep real time a deadline counts from when the tick was
    /// due, otherwise from its observation.
    pub statistics: StageStatistics,
    /// The ticks that count, the first [`Self::samples_dropped`]-less ones one by one.
    pub ticks: TickSamples,
    /// Refreshes that ended in these ticks, one by one.
    pub refreshes: RefreshSamples,
    /// Ticks that count and found no place among the samples.
    pub samples_dropped: u64,
    /// Ticks that were due and never began, because the one before them took more than a period too
    /// long.
    pub ticks_skipped: u64,
    /// Resident memory of the process, bytes, with the number of ticks that had counted by then.
    pub resident_bytes: Vec<(u64, u64)>,
    /// Part of the processor time of all cores that other processes and the hypervisor took during
    /// the phase, warm-up included, 0 to 1; `None` where the system does not report it, and in files
    /// of format 1.
    #[serde(default)]
    pub others_share: Option<f64>,
}

/// Ticks in columns: entry `i` of every column belongs to the same tick.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TickSamples {
    /// When its observation was taken up (in phases that keep real time: when it was due).
    pub start_ns: Vec<u64>,
    /// Stages by name.
    pub stages: BTreeMap<String, StageColumn>,
    /// The prefix it acted on.
    pub prefix_version: Vec<Option<u64>>,
    /// Age of that prefix.
    pub prefix_age_ns: Vec<Option<u64>>,
    /// By how much it missed its deadline.
    pub late_by_ns: Vec<Option<u64>>,
    /// Whether a refresh was running when it ended.
    pub is_refreshing: Vec<bool>,
    /// Page faults of its thread.
    pub page_faults: Vec<u64>,
    /// Times that the system took the core from its thread.
    pub preemptions: Vec<u64>,
}

/// Refreshes in columns.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshSamples {
    /// Version of its prefix.
    pub version: Vec<u64>,
    /// When it was handed over.
    pub start_ns: Vec<u64>,
    /// The sampled tick at which it was published, counted from 0.
    pub published_at: Vec<u64>,
    /// Stages by name.
    pub stages: BTreeMap<String, StageColumn>,
}

/// One stage over all ticks or refreshes; absent where it did not run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageColumn {
    /// Its first beginning.
    pub start_ns: Vec<Option<u64>>,
    /// What all its runs took.
    pub took_ns: Vec<Option<u64>>,
}

/// A latency file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LatencyFileError {
    /// It cannot be read.
    #[error("cannot read {path:?}: {source}; `tandem profile` writes it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is of another format.
    #[error(
        "{path:?} has latency format {found}, this tandem reads formats {OLDEST_FORMAT} to {FORMAT}; take the profile again"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// It is not a latency file.
    #[error("{path:?} is not a whole latency file: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// It cannot be written.
    #[error("cannot write {path:?}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LatencyFile {
    /// Reads a file and checks that it is whole.
    ///
    /// # Errors
    /// If it is missing, of another format, or contradicts itself.
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

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&self, path: &Path) -> Result<(), LatencyFileError> {
        let refused = |source| LatencyFileError::Write { path: path.to_owned(), source };
        let text = serde_json::to_vec(self).map_err(|error| refused(error.into()))?;
        tandem_files::write(path, &text).map_err(refused)
    }

    /// The phase of this name, if it was measured.
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
            return Err(format!("others_share is {:?}, not a part from 0 to 1", self.others_share));
        }
        if self.name != PhaseName::UnderstandingAlone && counted != sampled {
            return Err(format!("{counted} ticks were counted, {sampled} sampled or dropped"));
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
            return Err(format!("there is no stage {name:?}"));
        }
        same_length(of, name, expected, column.took_ns.len())?;
        same_length(of, name, expected, column.start_ns.len())?;
        if let Some(at) = column
            .took_ns
            .iter()
            .zip(&column.start_ns)
            .position(|(t, s)| t.is_some() != s.is_some())
        {
            return Err(format!("{of} {at}: {name:?} has a beginning or a duration, not both"));
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
