//! Recorder of ticks and prefills in preallocated memory.

use super::latency_file::{Phase, PhaseName, PrefillSamples, StageColumn, TickSamples};
use std::collections::BTreeMap;
use tandem::scene::{DeadlineVerdict, TickReport};
use tandem::timing::{MAX_STAGES, Stage, StageSpans, StageStatistics};

/// Maximum number of ticks that are stored individually: 17 minutes at 20 Hz, about 40 MB. Later
/// ticks are in the histograms only.
pub const MAX_SAMPLES: usize = 20_000;

/// Facts about a tick other than its stages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TickFacts {
    /// Instant at which it was due or its observation was taken, on [`tandem::timing::now_ns`].
    pub start_ns: u64,
    pub page_faults: u64,
    /// Involuntary context switches of its thread.
    pub preemptions: u64,
}

/// First start and total duration of each stage.
#[derive(Clone)]
struct Row([Option<(u64, u64)>; MAX_STAGES]);

impl Default for Row {
    fn default() -> Self {
        Self([None; MAX_STAGES])
    }
}

#[derive(Clone, Default)]
struct Tick {
    facts: TickFacts,
    is_refreshing: bool,
    row: Row,
    prefix: Option<(u64, u64)>,
    late_by_ns: Option<u64>,
}

#[derive(Clone, Default)]
struct Refresh {
    version: u64,
    published_at: u64,
    row: Row,
}

/// Records the ticks and prefills of one phase.
pub struct PhaseRecorder {
    name: PhaseName,
    warm_up: u64,
    began_ns: u64,
    statistics: StageStatistics,
    ticks: Vec<Tick>,
    refreshes: Vec<Refresh>,
    samples_dropped: u64,
    ticks_skipped: u64,
    resident_bytes: Vec<(u64, u64)>,
    /// Number of ticks between two samples of the memory.
    memory_spacing: u64,
}

/// Number of samples of the process's memory over a phase.
const MEMORY_SAMPLES: u64 = 200;

impl PhaseRecorder {
    /// Creates a recorder for `expected` counted ticks of a phase that started at `began_ns`.
    pub fn new(name: PhaseName, warm_up: u64, expected: u64, began_ns: u64) -> Self {
        let capacity = MAX_SAMPLES.min(usize::try_from(expected).unwrap_or(MAX_SAMPLES));
        Self {
            name,
            warm_up,
            began_ns,
            statistics: StageStatistics::new(),
            ticks: prefaulted(capacity),
            refreshes: prefaulted(capacity),
            samples_dropped: 0,
            ticks_skipped: 0,
            resident_bytes: Vec::with_capacity(MEMORY_SAMPLES as usize + 1),
            memory_spacing: expected.div_ceil(MEMORY_SAMPLES).max(1),
        }
    }

    /// Adds one tick that counts. Does not allocate.
    pub fn tick(&mut self, report: &TickReport, facts: TickFacts) {
        let age = report.prefix.map(|prefix| prefix.age);
        let late_by_ns = match report.deadline {
            DeadlineVerdict::Met => None,
            DeadlineVerdict::Missed { by } => Some(by.as_nanos() as u64),
        };
        self.statistics.record(&report.times(), age, late_by_ns.is_some());
        if let Some(refresh) = &report.prefill {
            self.statistics.record_runs(&refresh.spans);
        }
        if let Some(refresh) = &report.prefill
            && refresh.is_published
            && self.refreshes.len() < self.refreshes.capacity()
        {
            let (version, published_at) = (refresh.version, self.ticks.len() as u64);
            self.refreshes.push(Refresh { version, published_at, row: row(&refresh.spans) });
        }
        if self.ticks.len() == self.ticks.capacity() {
            self.samples_dropped += 1;
            return;
        }
        let prefix = report.prefix.map(|prefix| (prefix.version, prefix.age.as_nanos() as u64));
        let is_refreshing = report.is_refreshing;
        self.ticks.push(Tick { facts, is_refreshing, row: row(&report.spans), prefix, late_by_ns });
    }

    /// Adds one prefill of a phase without ticks. Does not allocate.
    pub fn refresh(&mut self, version: u64, spans: &StageSpans) {
        self.statistics.record_stages(&spans.times());
        self.statistics.record_runs(spans);
        if self.refreshes.len() < self.refreshes.capacity() {
            self.refreshes.push(Refresh { version, published_at: 0, row: row(spans) });
        } else {
            self.samples_dropped += 1;
        }
    }

    /// Adds `ticks` ticks that were due and were skipped.
    pub fn skipped(&mut self, ticks: u64) {
        self.ticks_skipped += ticks;
    }

    /// Samples the process's memory at intervals. To be called between ticks, since it reads a file.
    pub fn sample_memory(&mut self) {
        let ticks = self.statistics.ticks();
        if ticks.is_multiple_of(self.memory_spacing)
            && let Some(bytes) = resident_bytes()
        {
            self.resident_bytes.push((ticks, bytes));
        }
    }

    /// Returns the statistics recorded so far.
    pub fn statistics(&self) -> &StageStatistics {
        &self.statistics
    }

    /// Returns the recorded phase, with samples in columns.
    pub fn finish(self) -> Phase {
        let since = |ns: u64| ns.saturating_sub(self.began_ns);
        let of = |ticks: &[Tick], pick: fn(&Tick) -> u64| ticks.iter().map(pick).collect();
        let refresh_start = |refresh: &Refresh| {
            refresh.row.0.iter().flatten().map(|&(start, _)| start).min().unwrap_or(self.began_ns)
        };
        Phase {
            name: self.name,
            warm_up: self.warm_up,
            ticks: TickSamples {
                start_ns: self.ticks.iter().map(|tick| since(tick.facts.start_ns)).collect(),
                stages: columns(self.ticks.iter().map(|tick| &tick.row), self.began_ns),
                prefix_version: self.ticks.iter().map(|t| t.prefix.map(|(v, _)| v)).collect(),
                prefix_age_ns: self.ticks.iter().map(|t| t.prefix.map(|(_, age)| age)).collect(),
                late_by_ns: self.ticks.iter().map(|tick| tick.late_by_ns).collect(),
                is_refreshing: self.ticks.iter().map(|tick| tick.is_refreshing).collect(),
                page_faults: of(&self.ticks, |tick| tick.facts.page_faults),
                preemptions: of(&self.ticks, |tick| tick.facts.preemptions),
            },
            refreshes: PrefillSamples {
                version: self.refreshes.iter().map(|refresh| refresh.version).collect(),
                start_ns: self.refreshes.iter().map(|r| since(refresh_start(r))).collect(),
                published_at: self.refreshes.iter().map(|r| r.published_at).collect(),
                stages: columns(self.refreshes.iter().map(|r| &r.row), self.began_ns),
            },
            statistics: self.statistics,
            samples_dropped: self.samples_dropped,
            ticks_skipped: self.ticks_skipped,
            resident_bytes: self.resident_bytes,
            others_share: None,
        }
    }
}

/// Allocates and touches memory for `capacity` values, so that recording a tick causes no page fault
/// and no growth of resident memory.
fn prefaulted<T: Clone + Default>(capacity: usize) -> Vec<T> {
    let mut values = vec![T::default(); capacity];
    std::hint::black_box(&mut values).clear();
    values
}

/// Returns the resident memory of this process, bytes.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn row(spans: &StageSpans) -> Row {
    let mut row = Row::default();
    for span in spans.iter() {
        let entry = row.0[span.stage.index()].get_or_insert((span.start_ns, 0));
        entry.0 = entry.0.min(span.start_ns);
        entry.1 += span.took_ns;
    }
    row
}

/// Converts rows to columns; stages that never ran are omitted.
fn columns<'a>(
    rows: impl Iterator<Item = &'a Row> + Clone,
    began_ns: u64,
) -> BTreeMap<String, StageColumn> {
    Stage::all()
        .iter()
        .copied()
        .filter(|&stage| rows.clone().any(|row| row.0[stage.index()].is_some()))
        .map(|stage| {
            let entries = rows.clone().map(|row| row.0[stage.index()]);
            let start = |entry: Option<(u64, u64)>| entry.map(|e| e.0.saturating_sub(began_ns));
            let column = StageColumn {
                start_ns: entries.clone().map(start).collect(),
                took_ns: entries.map(|entry| entry.map(|(_, took)| took)).collect(),
            };
            (stage.name().to_owned(), column)
        })
        .collect()
}
