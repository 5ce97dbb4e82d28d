//! Comparison of profiles by percentile: faster, slower, alike, or undecided.
//!
//! One profile is compared with one, or several with several, by the ratio of percentiles. Intervals
//! hold for all rows of a comparison simultaneously, so that the probability of any wrong verdict is
//! bounded by the confidence, for any number of rows.
//!
//! Several profiles per side (`repeated.rs`) show how much profiles of one engine differ. With
//! one profile per side, intervals come from a moving-block bootstrap of its ticks
//! (`bootstrap.rs`), widened by an assumed difference between two starts of one engine; on a busy
//! machine nothing is judged.

use super::bootstrap::{
    MIN_BLOCKS, Series, Sorted, block_length, intervals_together, log_ratio, log_ratios,
};
use super::differences::{Difference, differences};
use super::due_ticks::DueResponse;
use super::latency_file::{LatencyFile, Phase, PhaseName, StageColumn};
use super::repeated::{MIN_PROFILES, compare_repeated};
use super::sample_size::values_needed;
use serde::Serialize;
use std::collections::BTreeMap;
use tandem::timing::{Percentile, Stage};

/// Minimum number of ticks or prefills of a series: fewer do not give
/// `MIN_BLOCKS` of the shortest blocks.
pub const MIN_SAMPLES: usize = 200;

/// Compared percentiles of each latency.
pub(super) const PERCENTILES: [(&str, Percentile); 4] = [
    ("p50", Percentile::P50),
    ("p90", Percentile::P90),
    ("p99", Percentile::P99),
    ("p99.9", Percentile::P999),
];

/// Settings of a comparison and of its resampling.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Method {
    pub seed: u64,
    /// Number of bootstrap replicates, or maximum number of permutations of several profiles. The
    /// default leaves about five replicates to cut off at each end for a hundred rows.
    pub replicates: usize,
    /// Simultaneous confidence of all intervals, 0 to 1.
    pub confidence: f64,
    /// Smallest relevant relative difference: relative to the value itself, and for a stage also to
    /// the median in A of its tick or prefill.
    pub relevant: f64,
    /// One profile per side: assumed relative difference between two starts of one engine. A larger
    /// difference between the halves of a profile replaces it.
    pub start_to_start: f64,
    /// One profile per side: share of processor time of other processes
    /// above which nothing is judged.
    pub busy_share: f64,
}

impl Default for Method {
    fn default() -> Self {
        Self {
            seed: 1,
            replicates: 10_000,
            confidence: 0.95,
            relevant: 0.01,
            start_to_start: 0.1,
            busy_share: BUSY_SHARE,
        }
    }
}

/// Share of the processor time of all cores above which other processes make a machine busy.
pub const BUSY_SHARE: f64 = 0.1;

/// Change of a percentile from A to B.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The interval is below 1 and the difference is relevant.
    Faster,
    /// The interval is above 1 and the difference is relevant.
    Slower,
    /// The complete interval is within the relevant difference of 1.
    Alike,
    CannotTell,
}

/// Comparison of one percentile of one latency.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// Name of a stage, or `prefix age`.
    pub what: String,
    pub percentile: &'static str,
    /// Numbers of values in A and B, over all profiles.
    pub counts: [usize; 2],
    /// The percentile in A and B, nanoseconds; of several profiles the geometric
    /// mean; `None` without values.
    pub ns: [Option<u64>; 2],
    /// Ratio B/A of the percentile.
    pub ratio: Option<f64>,
    /// Confidence interval of the ratio.
    pub interval: Option<[f64; 2]>,
    /// Smallest relevant relative difference of this row.
    pub relevant: f64,
    pub change: Change,
    /// Reason why there is no interval.
    pub why: Option<String>,
}

/// Outcome of a comparison as a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The main latency was judged, and no row is slower in B.
    Kept,
    /// At least one row is slower in B.
    Slower,
    /// The main latency could not be judged.
    NotJudged,
}

/// Parameters of the resampling of a series.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ResampledSeries {
    /// Kind of the entries: `ticks` or `refreshes`.
    pub of: &'static str,
    /// Numbers of entries in A and B.
    pub lengths: [usize; 2],
    /// Block lengths in A and B, entries.
    pub blocks: [usize; 2],
}

/// Result of comparing profiles A and B.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    pub phase: PhaseName,
    /// Numbers of profiles in A and B.
    pub profiles: [usize; 2],
    pub method: Method,
    /// Resampled series; empty with several profiles per side.
    pub drawn: Vec<ResampledSeries>,
    pub check: Check,
    /// Reason why no row is judged, if so.
    pub not_judged: Option<String>,
    /// Other facts that differ and may explain a change.
    pub differences: Vec<Difference>,
    /// Stages in reading order, then the prefix age; percentiles ascending.
    pub rows: Vec<Row>,
    /// Stages with too few values for any percentile in one file, with the counts.
    pub left_out: Vec<String>,
}

/// Error returned when profiles cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("{which} has no phase {phase:?}; it has {found}")]
    NoPhase {
        /// Side of the comparison, `A` or `B`.
        which: &'static str,
        phase: &'static str,
        found: String,
    },
    #[error(
        "{found_a} profiles in A and {found_b} in B: give one per side, or at least {MIN_PROFILES} \
            per side, taken in turn"
    )]
    Profiles { found_a: usize, found_b: usize },
    #[error(
        "{which} has {found} samples {phase}, but a comparison needs {MIN_SAMPLES} (p99 needs 1000); \
            profile more ticks"
    )]
    TooFew {
        /// Side of the comparison, `A` or `B`.
        which: &'static str,
        phase: &'static str,
        found: usize,
    },
}

/// Compares the profiles `b` with the profiles `a` in one phase.
///
/// # Errors
/// If there is neither one profile per side nor several on both sides, or a file lacks the
/// phase or enough samples of it.
pub fn compare(
    a: &[LatencyFile],
    b: &[LatencyFile],
    phase: PhaseName,
    method: Method,
) -> Result<Comparison, CompareError> {
    let phases = [phases_of("A", a, phase)?, phases_of("B", b, phase)?];
    let files = [a, b].map(|files| files.iter().collect::<Vec<_>>());
    let judged = match [a, b] {
        [[a], [b]] => compare_two([a, b], [phases[0][0], phases[1][0]], phase, method)?,
        [a, b] if a.len().min(b.len()) >= MIN_PROFILES => {
            let taken_at = [a, b].map(|files| files.iter().map(|f| f.taken_at_unix_s).collect());
            compare_repeated(&phases, &taken_at, phase, method)?
        }
        [a, b] => return Err(CompareError::Profiles { found_a: a.len(), found_b: b.len() }),
    };
    let Judged { rows, drawn, left_out, not_judged } = judged;
    Ok(Comparison {
        phase,
        profiles: [a.len(), b.len()],
        method,
        drawn,
        check: check(&rows, phase),
        not_judged,
        differences: differences([&files[0], &files[1]], phase),
        rows,
        left_out,
    })
}

/// Rows and notes of one comparison method.
pub(super) struct Judged {
    pub(super) rows: Vec<Row>,
    pub(super) drawn: Vec<ResampledSeries>,
    pub(super) left_out: Vec<String>,
    pub(super) not_judged: Option<String>,
}

/// Returns the outcome as a check. The median of the main latency must have been judged.
fn check(rows: &[Row], phase: PhaseName) -> Check {
    let is_judged = main_row(rows.iter(), phase).is_some_and(|row| row.interval.is_some());
    if rows.iter().any(|row| row.change == Change::Slower) {
        Check::Slower
    } else if is_judged {
        Check::Kept
    } else {
        Check::NotJudged
    }
}

/// Compares two single profiles.
fn compare_two(
    files: [&LatencyFile; 2],
    phases: [&Phase; 2],
    phase: PhaseName,
    method: Method,
) -> Result<Judged, CompareError> {
    let not_judged = busy(files, phases, method);
    let mut drawn = Vec::new();
    let mut candidates = Vec::new();
    let mut left_out = Vec::new();
    for columns in [tick_columns(phases), refresh_columns(phases)] {
        let lengths = columns.lengths;
        if lengths.contains(&0) {
            continue;
        }
        if let Some(&few) = lengths.iter().find(|&&length| length < MIN_SAMPLES) {
            let why = format!("{few} {} (needs {MIN_SAMPLES})", columns.of);
            left_out.extend(columns.pairs.iter().map(|pair| format!("{}: {why}", pair.what)));
            continue;
        }
        let (compared, blocks) =
            compare_series(&columns, method, drawn.len() as u64, not_judged.is_some());
        drawn.push(ResampledSeries { of: columns.of, lengths, blocks });
        candidates.extend(compared);
    }
    if drawn.is_empty() {
        let samples = phases.map(|p| p.ticks.start_ns.len().max(p.refreshes.version.len()));
        let (which, found) =
            if samples[0] <= samples[1] { ("A", samples[0]) } else { ("B", samples[1]) };
        return Err(CompareError::TooFew { which, phase: phase.title(), found });
    }
    let not_judged = not_judged.or_else(|| unsteady(&mut candidates, phase));
    let mut rows = judged(candidates, method);
    leave_out_skipped(&mut rows, phases);
    Ok(Judged { rows, drawn, left_out, not_judged })
}

/// Returns the reason not to judge anything if the main latency drifts: the machine changed during
/// the profile, so its parts cannot be compared either.
fn unsteady(candidates: &mut [Candidate], phase: PhaseName) -> Option<String> {
    let main = main_row(candidates.iter().map(|candidate| &candidate.row), phase)?;
    let drift = main.why.clone().filter(|why| why.starts_with(DRIFTS))?;
    let what = main.what.clone();
    for candidate in candidates.iter_mut().filter(|candidate| candidate.log_ratios.is_some()) {
        candidate.log_ratios = None;
        candidate.row.why = Some(format!("{what} drifts"));
    }
    Some(format!(
        "{what} {drift}. With one profile per side, drift cannot be distinguished from a change: take \
         longer profiles on an idle machine, or at least {MIN_PROFILES} per side in turn"
    ))
}

/// Returns the row of the median of the phase's main latency, if it was measured.
fn main_row<'a>(rows: impl Iterator<Item = &'a Row> + Clone, phase: PhaseName) -> Option<&'a Row> {
    let main: &[Stage] = match phase {
        PhaseName::UnderstandingAlone => &[Stage::PREFILL],
        _ => &[Stage::RESPONSE, Stage::TICK],
    };
    main.iter().find_map(|stage| {
        rows.clone().find(|row| row.what == stage.name() && row.percentile == PERCENTILES[0].0)
    })
}

/// Beginning of the reason for a row that drifts.
const DRIFTS: &str = "drifts";

/// Returns the reason not to judge anything if other processes kept the machine busy. Files of
/// format 1 only have the load at the start.
fn busy(files: [&LatencyFile; 2], phases: [&Phase; 2], method: Method) -> Option<String> {
    let busy = |side: usize| {
        let which = ["A", "B"][side];
        let (machine, cores) = (&files[side].machine, files[side].machine.cores);
        match (phases[side].others_share, machine.load_1min) {
            (Some(share), _) if share > method.busy_share => {
                Some(format!("other processes used {:.0} % of all cores in {which}", 100.0 * share))
            }
            (None, Some(load)) if load > cores as f64 => {
                Some(format!("the load was {load} on {cores} cores at the start of {which}"))
            }
            _ => None,
        }
    };
    let reasons: Vec<String> = [0, 1].into_iter().filter_map(busy).collect();
    (!reasons.is_empty()).then(|| {
        format!(
            "the machine was busy: {}. With one profile per side, load cannot be distinguished from a \
             change: take profiles on an idle machine, or at least {MIN_PROFILES} per side in turn",
            reasons.join(", ")
        )
    })
}

/// Removes intervals of response percentiles that fall on a skipped tick.
fn leave_out_skipped(rows: &mut [Row], phases: [&Phase; 2]) {
    for row in rows.iter_mut().filter(|row| row.what == Stage::RESPONSE.name()) {
        let Some((_, percentile)) = PERCENTILES.iter().find(|(name, _)| *name == row.percentile)
        else {
            continue;
        };
        let is_skipped =
            |phase: &Phase| phase.due_response(*percentile) == Some(DueResponse::Skipped);
        if phases.into_iter().any(is_skipped) {
            row.interval = None;
            row.change = Change::CannotTell;
            row.why = Some("the tick of this rank was skipped".to_owned());
        }
    }
}

fn phases_of<'a>(
    which: &'static str,
    files: &'a [LatencyFile],
    phase: PhaseName,
) -> Result<Vec<&'a Phase>, CompareError> {
    files.iter().map(|file| phase_of(which, file, phase)).collect()
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

/// Columns of the same latency in both files.
struct Pair<'a> {
    what: &'static str,
    columns: [&'a [Option<u64>]; 2],
}

/// Latencies that are resampled together.
struct Columns<'a> {
    of: &'static str,
    lengths: [usize; 2],
    pairs: Vec<Pair<'a>>,
    /// Median in A of the parent tick or prefill, nanoseconds; 0 if unknown.
    parent_ns: u64,
}

fn tick_columns(phases: [&Phase; 2]) -> Columns<'_> {
    let mut pairs = stage_pairs(phases.map(|phase| &phase.ticks.stages));
    let ages = phases.map(|phase| phase.ticks.prefix_age_ns.as_slice());
    if ages.iter().any(|column| column.iter().any(Option::is_some)) {
        pairs.push(Pair { what: "prefix age", columns: ages });
    }
    let lengths = phases.map(|phase| phase.ticks.start_ns.len());
    Columns { of: "ticks", lengths, pairs, parent_ns: median_ns(phases[0], Stage::TICK) }
}

fn refresh_columns(phases: [&Phase; 2]) -> Columns<'_> {
    let pairs = stage_pairs(phases.map(|phase| &phase.refreshes.stages));
    let lengths = phases.map(|phase| phase.refreshes.version.len());
    Columns { of: "refreshes", lengths, pairs, parent_ns: median_ns(phases[0], Stage::PREFILL) }
}

/// Returns the median of a stage, nanoseconds; 0 if it did not run.
pub(super) fn median_ns(phase: &Phase, stage: Stage) -> u64 {
    let median = phase.statistics.stage(stage).percentile(Percentile::P50);
    median.map_or(0, |median| median.as_nanos() as u64)
}

/// Returns the smallest relevant relative difference of a latency of `ns` that is part of a tick
/// or prefill of `parent_ns`.
pub(super) fn relevant_part(ns: Option<u64>, parent_ns: u64, method: Method) -> f64 {
    let of_parent = ns.map_or(0.0, |ns| parent_ns as f64 / ns.max(1) as f64);
    method.relevant * of_parent.max(1.0)
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
    Stage::all().iter().copied().filter_map(pair).collect()
}

/// A row that has not been judged, with its replicates if there are enough values.
struct Candidate {
    row: Row,
    log_ratios: Option<Vec<f64>>,
    /// Factor by which both halves of the interval are widened.
    widening: f64,
    /// Logarithm of the assumed ratio between two starts.
    start_to_start: f64,
}

/// Returns all rows of one series and the block lengths. On a busy machine, rows
/// are measured but not judged.
fn compare_series(
    columns: &Columns<'_>,
    method: Method,
    nth: u64,
    is_busy: bool,
) -> (Vec<Candidate>, [usize; 2]) {
    let longest = columns.lengths.map(|length| length / MIN_BLOCKS);
    let fitting: Vec<[usize; 2]> =
        columns.pairs.iter().map(|pair| pair.columns.map(block_length)).collect();
    let fits = |blocks: &[usize; 2]| blocks[0] <= longest[0] && blocks[1] <= longest[1];
    let blocks = [0, 1].map(|side| {
        fitting.iter().filter(|blocks| fits(blocks)).map(|blocks| blocks[side]).max().unwrap_or(1)
    });
    let block_counts = [0, 1].map(|side| columns.lengths[side] / blocks[side]);
    let widening = widening(block_counts[0].min(block_counts[1]));
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
    let replicates = if is_busy { 1 } else { method.replicates };
    let mut replicates = log_ratios([&a, &b], &percentiles, replicates, seed).into_iter();
    let mut candidates = Vec::new();
    for (idx, pair) in columns.pairs.iter().enumerate() {
        let (of_a, of_b) = (&a.columns[idx], &b.columns[idx]);
        let halves = pair.columns.map(halves);
        let mut of_pair: Vec<Candidate> = named
            .iter()
            .zip(&mut replicates)
            .map(|(&(name, percentile), drawn)| {
                let row = measured(pair.what, name, percentile, [of_a, of_b]);
                let relevant = relevant_part(row.ns[0], columns.parent_ns, method);
                let why = unsupported(&row, percentile, fits(&fitting[idx]), &fitting[idx])
                    .or_else(|| drawn.iter().any(|ratio| ratio.is_nan()).then(ran_too_rarely))
                    .or_else(|| is_busy.then(|| "busy machine".to_owned()));
                let log_ratios = why.is_none().then_some(drawn);
                let apart = halves.iter().map(|halves| apart(halves, percentile));
                let start_to_start = apart.fold(method.start_to_start.ln_1p(), f64::max);
                Candidate {
                    row: Row { why, relevant, ..row },
                    log_ratios,
                    widening,
                    start_to_start,
                }
            })
            .collect();
        of_pair.reverse();
        candidates.extend(of_pair);
    }
    (candidates, blocks)
}

/// Returns the widening factor of intervals for `blocks` blocks. Their spread has a relative error of
/// 1/√(2·blocks) and is biased low, because correlation across block ends is lost. Twice that error
/// is added: without it, ticks with an autocorrelation of 0.8 cause false alarms in 9 % of
/// comparisons instead of 5 %.
fn widening(blocks: usize) -> f64 {
    1.0 + (2.0 / blocks as f64).sqrt()
}

/// Returns the first and the second half of the values of a column.
fn halves(column: &[Option<u64>]) -> [Sorted; 2] {
    let values: Vec<Option<u64>> = column.iter().copied().filter(Option::is_some).collect();
    let (first, second) = values.split_at(values.len() / 2);
    [first, second].map(Sorted::new)
}

/// Returns the absolute logarithm of the ratio of a percentile between two halves of a profile.
fn apart(halves: &[Sorted; 2], percentile: Percentile) -> f64 {
    match halves.each_ref().map(|half| half.percentile(percentile)) {
        [Some(first), Some(second)] => log_ratio(first, second).abs(),
        _ => 0.0,
    }
}

fn ran_too_rarely() -> String {
    "it ran in too few blocks".to_owned()
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
        relevant: 0.0,
        change: Change::CannotTell,
        why: None,
    }
}

/// Returns the reason why a row cannot be judged, if any.
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
        _ if a.min(b) < needed => return Some(format!("needs {needed} values")),
        _ => {}
    }
    (!fits).then(|| {
        let ticks = blocks[0].max(blocks[1]);
        format!("{DRIFTS}: correlated over {ticks} samples, needs {}", ticks * MIN_BLOCKS)
    })
}

/// Judges all rows with simultaneous intervals.
fn judged(candidates: Vec<Candidate>, method: Method) -> Vec<Row> {
    let (mut rows, mut drawn) = (Vec::new(), Vec::new());
    for mut candidate in candidates {
        let log_ratios = candidate.log_ratios.take();
        let widened = (candidate.widening, candidate.start_to_start);
        rows.push((candidate.row, log_ratios.is_some().then_some(widened)));
        drawn.extend(log_ratios);
    }
    let mut intervals = intervals_together(&drawn, method.confidence).into_iter();
    rows.into_iter()
        .map(|(mut row, widened)| {
            if let (Some((widening, start_to_start)), Some(ratio)) = (widened, row.ratio) {
                let (low, high) =
                    intervals.next().expect("there is one interval per resampled row");
                let at = ratio.ln();
                let low = (at - widening * (at - low).max(0.0) - start_to_start).exp();
                let high = (at + widening * (high - at).max(0.0) + start_to_start).exp();
                row.interval = Some([low, high]);
                row.change = change(ratio, low, high, row.relevant);
            }
            row
        })
        .collect()
}

pub(super) fn change(ratio: f64, low: f64, high: f64, relevant: f64) -> Change {
    // Symmetric on a logarithmic scale: twice as fast is as relevant as half as fast.
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
