//! Two profiles, percentile by percentile: faster, slower, alike, or not to be told.
//!
//! What is judged is the ratio of two percentiles, with an interval from a moving-block bootstrap
//! (see `bootstrap.rs`). Intervals hold for all rows of a comparison together, so one wrong verdict
//! in any of them is as rare as the confidence says, however many there are. They know of nothing
//! but the ticks of these two files: what differs from one start of the process to the next shows
//! only in further profiles.

use super::bootstrap::{
    LEAST_BLOCKS, Series, Sorted, block_length, intervals_together, log_ratio, log_ratios,
};
use super::latency_file::{LatencyFile, Phase, PhaseName, StageColumn};
use super::support::values_needed;
use crate::timing::{Percentile, Stage};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Ticks, or refreshes, that a series must have to be compared at all: fewer do not make
/// [`LEAST_BLOCKS`] of the shortest blocks.
pub const LEAST_SAMPLES: usize = 200;

/// The percentiles of each latency.
const PERCENTILES: [(&str, Percentile); 4] = [
    ("p50", Percentile::P50),
    ("p90", Percentile::P90),
    ("p99", Percentile::P99),
    ("p99.9", Percentile::P999),
];

/// How two profiles are compared.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Method {
    /// Seed of what the bootstrap draws.
    pub seed: u64,
    /// How often it draws. At the default, a hundred rows together leave five replicates to cut
    /// off at every end: enough for the cut to mean something.
    pub replicates: usize,
    /// How often all intervals together hold the truth.
    pub confidence: f64,
    /// Differences below this part are of no interest, however certain.
    pub relevant: f64,
}

impl Default for Method {
    fn default() -> Self {
        Self { seed: 1, replicates: 10_000, confidence: 0.95, relevant: 0.01 }
    }
}

/// What became of a percentile from A to B.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The interval lies below 1, the ratio by a relevant difference.
    Faster,
    /// The interval lies above 1, the ratio by a relevant difference.
    Slower,
    /// The whole interval is within a relevant difference of 1.
    Alike,
    /// None of these.
    CannotTell,
}

/// One percentile of one latency.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// A stage's name, or `prefix age`.
    pub what: String,
    /// Which percentile.
    pub percentile: &'static str,
    /// Values in A and B.
    pub counts: [usize; 2],
    /// The percentile in A and B, nanoseconds; `None` without values.
    pub ns: [Option<u64>; 2],
    /// B/A.
    pub ratio: Option<f64>,
    /// The interval of the ratio.
    pub interval: Option<[f64; 2]>,
    /// What became of it.
    pub change: Change,
    /// Why there is no interval.
    pub why: Option<String>,
}

/// Something besides the numbers that is not the same in both files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// What.
    pub what: String,
    /// In A.
    pub a: String,
    /// In B.
    pub b: String,
}

/// How a series was drawn.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Drawn {
    /// `ticks` or `refreshes`.
    pub of: &'static str,
    /// Entries in A and B.
    pub lengths: [usize; 2],
    /// Entries of a block in A and B.
    pub blocks: [usize; 2],
}

/// Two profiles compared.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// The phase.
    pub phase: PhaseName,
    /// How.
    pub method: Method,
    /// What was drawn.
    pub drawn: Vec<Drawn>,
    /// What else differs: where anything does, the rows compare more than one thing.
    pub differences: Vec<Difference>,
    /// Stages in reading order, then the prefix age; percentiles ascending.
    pub rows: Vec<Row>,
    /// Stages of which one file has too few values for any percentile, with the counts.
    pub left_out: Vec<String>,
}

/// Two files cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// One has no such phase.
    #[error("{which} has no phase {phase:?}; it has {found}")]
    NoPhase {
        /// `A` or `B`.
        which: &'static str,
        /// The phase asked for.
        phase: &'static str,
        /// What it has.
        found: String,
    },
    /// One has too few samples.
    #[error(
        "{which} has {found} samples {phase}, a comparison takes {LEAST_SAMPLES} (p99 takes 1000); profile more ticks"
    )]
    TooFew {
        /// `A` or `B`.
        which: &'static str,
        /// The phase.
        phase: &'static str,
        /// Its samples.
        found: usize,
    },
}

/// Compares `b` with `a` in one phase.
///
/// # Errors
/// If a file does not have the phase, or not enough samples in it.
pub fn compare(
    a: &LatencyFile,
    b: &LatencyFile,
    phase: PhaseName,
    method: Method,
) -> Result<Comparison, CompareError> {
    let phases = [phase_of("A", a, phase)?, phase_of("B", b, phase)?];
    let mut drawn = Vec::new();
    let mut candidates = Vec::new();
    let mut left_out = Vec::new();
    for columns in [tick_columns(phases), refresh_columns(phases)] {
        let lengths = columns.lengths;
        if lengths.contains(&0) {
            continue;
        }
        if let Some(&few) = lengths.iter().find(|&&length| length < LEAST_SAMPLES) {
            let why = format!("{few} {} (it takes {LEAST_SAMPLES})", columns.of);
            left_out.extend(columns.pairs.iter().map(|pair| format!("{}: {why}", pair.what)));
            continue;
        }
        let (compared, blocks) = compare_series(&columns, method, drawn.len() as u64);
        drawn.push(Drawn { of: columns.of, lengths, blocks });
        candidates.extend(compared);
    }
    if drawn.is_empty() {
        let samples = phases.map(|p| p.ticks.start_ns.len().max(p.refreshes.version.len()));
        let (which, found) =
            if samples[0] <= samples[1] { ("A", samples[0]) } else { ("B", samples[1]) };
        return Err(CompareError::TooFew { which, phase: phase.title(), found });
    }
    let rows = judged(candidates, method);
    Ok(Comparison { phase, method, drawn, differences: differences(a, b, phases), rows, left_out })
}

impl Comparison {
    /// Whether any row became slower.
    pub fn is_slower(&self) -> bool {
        self.rows.iter().any(|row| row.change == Change::Slower)
    }
}

fn phase_of<'a>(
    which: &'static str,
    file: &'a LatencyFile,
    phase: PhaseName,
) -> Result<&'a Phase, CompareError> {
    file.phase(phase).ok_or_else(|| {
        let names: Vec<&str> = file.phases.iter().map(|phase| phase.name.title()).collect();
        let found = if names.is_empty() { "none".to_owned() } else { names.join("; ") };
        CompareError::NoPhase { which, phase: phase.title(), found }
    })
}

/// The same latency in both files.
struct Pair<'a> {
    what: &'a str,
    columns: [&'a [Option<u64>]; 2],
}

/// Latencies that are sampled together.
struct Columns<'a> {
    of: &'static str,
    lengths: [usize; 2],
    pairs: Vec<Pair<'a>>,
}

fn tick_columns(phases: [&Phase; 2]) -> Columns<'_> {
    let mut pairs = stage_pairs(phases.map(|phase| &phase.ticks.stages));
    let ages = phases.map(|phase| phase.ticks.prefix_age_ns.as_slice());
    if ages.iter().any(|column| column.iter().any(Option::is_some)) {
        pairs.push(Pair { what: "prefix age", columns: ages });
    }
    Columns { of: "ticks", lengths: phases.map(|phase| phase.ticks.start_ns.len()), pairs }
}

fn refresh_columns(phases: [&Phase; 2]) -> Columns<'_> {
    let pairs = stage_pairs(phases.map(|phase| &phase.refreshes.stages));
    Columns { of: "refreshes", lengths: phases.map(|phase| phase.refreshes.version.len()), pairs }
}

fn stage_pairs<'a>(stages: [&'a BTreeMap<String, StageColumn>; 2]) -> Vec<Pair<'a>> {
    let pair = |stage: Stage| {
        let of = |stages: &'a BTreeMap<String, StageColumn>| {
            stages.get(stage.name()).map(|column| column.took_ns.as_slice())
        };
        let columns = stages.map(of);
        columns
            .iter()
            .any(Option::is_some)
            .then(|| Pair { what: stage.name(), columns: columns.map(Option::unwrap_or_default) })
    };
    Stage::ALL.into_iter().filter_map(pair).collect()
}

/// A row before it is judged: its replicates, where the files support it.
struct Candidate {
    row: Row,
    log_ratios: Option<Vec<f64>>,
    /// Factor on both halves of its interval.
    widening: f64,
}

/// All rows of one series, with the blocks that were drawn.
fn compare_series(columns: &Columns<'_>, method: Method, nth: u64) -> (Vec<Candidate>, [usize; 2]) {
    let longest = columns.lengths.map(|length| length / LEAST_BLOCKS);
    let fitting: Vec<[usize; 2]> =
        columns.pairs.iter().map(|pair| pair.columns.map(block_length)).collect();
    let fits = |blocks: &[usize; 2]| blocks[0] <= longest[0] && blocks[1] <= longest[1];
    let blocks = [0, 1].map(|side| {
        fitting.iter().filter(|blocks| fits(blocks)).map(|blocks| blocks[side]).max().unwrap_or(1)
    });
    let blocks_drawn = [0, 1].map(|side| columns.lengths[side] / blocks[side]);
    let widening = widening(blocks_drawn[0].min(blocks_drawn[1]));
    let sorted = |side: usize| Series {
        length: columns.lengths[side],
        block: blocks[side],
        columns: columns.pairs.iter().map(|pair| Sorted::new(pair.columns[side])).collect(),
    };
    let [a, b] = [sorted(0), sorted(1)];
    let mut named = PERCENTILES;
    named.reverse();
    let percentiles = named.map(|(_, percentile)| percentile);
    let seed = method.seed.wrapping_add(nth << 32);
    let mut replicates = log_ratios([&a, &b], &percentiles, method.replicates, seed).into_iter();
    let mut candidates = Vec::new();
    for (idx, pair) in columns.pairs.iter().enumerate() {
        let (of_a, of_b) = (&a.columns[idx], &b.columns[idx]);
        let mut of_pair: Vec<Candidate> = named
            .iter()
            .zip(&mut replicates)
            .map(|(&(name, percentile), drawn)| {
                let row = measured(pair.what, name, percentile, [of_a, of_b]);
                let why = unsupported(&row, percentile, fits(&fitting[idx]), &fitting[idx])
                    .or_else(|| drawn.iter().any(|ratio| ratio.is_nan()).then(rarely));
                let log_ratios = why.is_none().then_some(drawn);
                Candidate { row: Row { why, ..row }, log_ratios, widening }
            })
            .collect();
        of_pair.reverse();
        candidates.extend(of_pair);
    }
    (candidates, blocks)
}

/// The spread that `blocks` blocks give is known to one part in the root of twice their number, and
/// on the small side, as blocks do not see beyond their ends. Two such parts are added: without
/// them, ticks that share 0.8 of their deviation with the one before raise false alarms in 9 % of
/// comparisons instead of 5 %.
fn widening(blocks: usize) -> f64 {
    1.0 + (2.0 / blocks as f64).sqrt()
}

fn rarely() -> String {
    "it ran in too few places".to_owned()
}

fn measured(what: &str, name: &'static str, percentile: Percentile, sides: [&Sorted; 2]) -> Row {
    let ns = sides.map(|sorted| sorted.percentile(percentile));
    let ratio = match ns {
        [Some(a), Some(b)] => Some(log_ratio(a, b).exp()),
        _ => None,
    };
    Row {
        what: what.to_owned(),
        percentile: name,
        counts: sides.map(Sorted::count),
        ns,
        ratio,
        interval: None,
        change: Change::CannotTell,
        why: None,
    }
}

/// Why a row cannot be judged, if it cannot.
fn unsupported(
    row: &Row,
    percentile: Percentile,
    fits: bool,
    blocks: &[usize; 2],
) -> Option<String> {
    let needed = values_needed(percentile) as usize;
    let [a, b] = row.counts;
    match (a, b) {
        (0, _) => return Some("only in B".to_owned()),
        (_, 0) => return Some("only in A".to_owned()),
        _ if a.min(b) < needed => return Some(format!("takes {needed} values")),
        _ => {}
    }
    (!fits).then(|| {
        let ticks = blocks[0].max(blocks[1]);
        format!("drifts: alike over {ticks} samples, takes {}", ticks * LEAST_BLOCKS)
    })
}

/// Judges all rows together.
fn judged(candidates: Vec<Candidate>, method: Method) -> Vec<Row> {
    let (mut rows, mut drawn) = (Vec::new(), Vec::new());
    for mut candidate in candidates {
        let log_ratios = candidate.log_ratios.take();
        rows.push((candidate.row, log_ratios.is_some().then_some(candidate.widening)));
        drawn.extend(log_ratios);
    }
    let mut intervals = intervals_together(&drawn, method.confidence).into_iter();
    rows.into_iter()
        .map(|(mut row, widening)| {
            if let (Some(widening), Some(ratio)) = (widening, row.ratio) {
                let (low, high) = intervals.next().expect("there is one for each row drawn");
                let at = ratio.ln();
                let low = (at - widening * (at - low).max(0.0)).exp();
                let high = (at + widening * (high - at).max(0.0)).exp();
                row.interval = Some([low, high]);
                row.change = change(ratio, low, high, method.relevant);
            }
            row
        })
        .collect()
}

fn change(ratio: f64, low: f64, high: f64, relevant: f64) -> Change {
    // As far from 1 downward as upward: twice as fast is as much as half as fast.
    let (least, most) = (1.0 / (1.0 + relevant), 1.0 + relevant);
    if low > 1.0 && ratio >= most {
        Change::Slower
    } else if high < 1.0 && ratio <= least {
        Change::Faster
    } else if low >= least && high <= most {
        Change::Alike
    } else {
        Change::CannotTell
    }
}

/// Machine facts that change from minute to minute: two profiles of one machine differ in them.
const FLEETING: [&str; 2] = ["clocks", "load at the start"];

/// What besides the numbers is not the same.
fn differences(a: &LatencyFile, b: &LatencyFile, phases: [&Phase; 2]) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut note = |what: String, a: String, b: String| {
        if a != b {
            differences.push(Difference { what, a, b });
        }
    };
    note("version of tandem".to_owned(), a.tandem.clone(), b.tandem.clone());
    for ((what, of_a), (_, of_b)) in a.machine.facts().into_iter().zip(b.machine.facts()) {
        if !FLEETING.contains(&what.as_str()) {
            note(format!("machine: {what}"), of_a, of_b);
        }
    }
    note("back end".to_owned(), a.engine.backend.clone(), b.engine.backend.clone());
    let graphs = [&a.engine.graphs_sha256, &b.engine.graphs_sha256];
    let networks: BTreeSet<&String> = graphs.iter().flat_map(|graphs| graphs.keys()).collect();
    for network in networks {
        let [of_a, of_b] = graphs.map(|graphs| match graphs.get(network) {
            Some(hash) => format!("SHA-256 {hash}"),
            None => ABSENT.to_owned(),
        });
        note(format!("network {network}"), of_a, of_b);
    }
    let [run_a, run_b] = [a, b].map(|file| {
        let mut keys = BTreeMap::new();
        let run = serde_json::to_value(&file.run).expect("a run file is plain data");
        flatten("run", &run, &mut keys);
        keys
    });
    for key in run_a.keys().chain(run_b.keys()).collect::<BTreeSet<_>>() {
        let [of_a, of_b] =
            [&run_a, &run_b].map(|run| run.get(key).cloned().unwrap_or_else(|| ABSENT.to_owned()));
        note(key.clone(), of_a, of_b);
    }
    note("observations".to_owned(), a.observations.clone(), b.observations.clone());
    let lines = |file: &LatencyFile| file.real_time.lines().join("; ");
    note("real-time options".to_owned(), lines(a), lines(b));
    let [warm_a, warm_b] = phases.map(|phase| phase.warm_up.to_string());
    note("warm-up".to_owned(), warm_a, warm_b);
    differences
}

const ABSENT: &str = "absent";

/// Every key of `value` with its path and its value as text.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(keys) => {
            for (key, value) in keys {
                flatten(&format!("{path}.{key}"), value, into);
            }
        }
        leaf => {
            into.insert(path.to_owned(), leaf.to_string());
        }
    }
}
