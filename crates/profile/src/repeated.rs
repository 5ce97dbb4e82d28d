//! Permutation test for several profiles per side.
//!
//! Every profile contributes one number per row, so that all differences between starts (load,
//! clock, memory layout) are part of the observed spread. If A and B are profiles of the same
//! engine, every division of the profiles into two groups is equally likely. For every division, the
//! largest difference of all rows in standard errors is computed; a row is faster or slower if its
//! own difference exceeds that of 95 % of the divisions. This holds for any distribution and for all
//! rows simultaneously, if the order of the profiles is independent of their side. A drifting machine
//! violates this if all profiles of A were taken before those of B, which is therefore checked.

use super::compare::{
    Change, CompareError, Judged, Method, PERCENTILES, Row, change, median_ns, relevant_part,
};
use super::due_ticks::DueResponse;
use super::latency_file::{Phase, PhaseName, StageColumn};
use super::sample_size::values_needed;
use super::samples::nearest_rank;
use std::collections::BTreeMap;
use tandem::scene::random::SplitMix64;
use tandem::timing::{Percentile, Stage};

/// Minimum number of profiles per side. With three, the actual division and its mirror image are 2 of
/// 20 divisions, so that no difference can reach 95 % confidence.
pub const MIN_PROFILES: usize = 4;

/// Minimum number of values of a row in each profile.
const MIN_VALUES: usize = 20;

/// A row with its values in all profiles, those of A first.
struct Candidate {
    row: Row,
    /// Logarithm of the percentile in each profile; empty if the row cannot be judged.
    logs: Vec<f64>,
}

/// Compares several profiles per side.
///
/// # Errors
/// If no latency has values in all profiles.
pub(super) fn compare_repeated(
    phases: &[Vec<&Phase>; 2],
    taken_at: &[Vec<u64>; 2],
    phase: PhaseName,
    method: Method,
) -> Result<Judged, CompareError> {
    let sizes = [phases[0].len(), phases[1].len()];
    let mut candidates = Vec::new();
    for (parent, of_prefills) in [(Stage::TICK, false), (Stage::PREFILL, true)] {
        let parent_ns = geometric_mean(phases[0].iter().map(|phase| median_ns(phase, parent)));
        for &stage in Stage::all() {
            let values = phases.each_ref().map(|side| {
                side.iter().map(|phase| sorted(column(phase, stage, of_prefills))).collect()
            });
            candidates.extend(rows(stage.name(), &values, phases, parent_ns, method));
        }
        if !of_prefills {
            let values = phases.each_ref().map(|side| {
                side.iter().map(|phase| sorted(Some(&phase.ticks.prefix_age_ns))).collect()
            });
            candidates.extend(rows("prefix age", &values, phases, parent_ns, method));
        }
    }
    if candidates.iter().all(|candidate| candidate.logs.is_empty()) {
        let samples =
            |phase: &&Phase| phase.ticks.start_ns.len().max(phase.refreshes.version.len());
        let fewest = phases.each_ref().map(|side| side.iter().map(samples).min().unwrap_or(0));
        let (which, found) =
            if fewest[0] <= fewest[1] { ("A", fewest[0]) } else { ("B", fewest[1]) };
        return Err(CompareError::TooFew { which, phase: phase.title(), found });
    }
    let not_judged = not_in_turn(taken_at);
    if not_judged.is_some() {
        for candidate in candidates.iter_mut().filter(|candidate| !candidate.logs.is_empty()) {
            candidate.row.why = Some("not taken in turn".to_owned());
            candidate.logs.clear();
        }
    }
    let rows = judged(candidates, sizes, method);
    Ok(Judged { rows, drawn: Vec::new(), left_out: Vec::new(), not_judged })
}

fn column(phase: &Phase, stage: Stage, of_prefills: bool) -> Option<&Vec<Option<u64>>> {
    let stages: &BTreeMap<String, StageColumn> =
        if of_prefills { &phase.refreshes.stages } else { &phase.ticks.stages };
    stages.get(stage.name()).map(|column| &column.took_ns)
}

fn sorted(column: Option<&Vec<Option<u64>>>) -> Vec<u64> {
    let mut values: Vec<u64> = column.into_iter().flatten().flatten().copied().collect();
    values.sort_unstable();
    values
}

fn geometric_mean(values: impl ExactSizeIterator<Item = u64>) -> u64 {
    let count = values.len().max(1) as f64;
    (values.map(|value| (value.max(1) as f64).ln()).sum::<f64>() / count).exp().round() as u64
}

/// Returns the rows of one latency; empty if it ran in no profile.
fn rows(
    what: &str,
    values: &[Vec<Vec<u64>>; 2],
    phases: &[Vec<&Phase>; 2],
    parent_ns: u64,
    method: Method,
) -> Vec<Candidate> {
    let counts = values.each_ref().map(|side| side.iter().map(Vec::len).sum::<usize>());
    if counts == [0, 0] {
        return Vec::new();
    }
    let row = |&(name, percentile): &(&'static str, Percentile)| {
        let at = |values: &Vec<u64>| nearest_rank(values, percentile);
        let found = values.each_ref().map(|side| side.iter().filter_map(at).collect::<Vec<_>>());
        let ns = found
            .each_ref()
            .map(|side| (!side.is_empty()).then(|| geometric_mean(side.iter().copied())));
        let why = unsupported(what, values, counts, percentile, phases);
        let logs = match why {
            None => found.concat().iter().map(|&ns| (ns.max(1) as f64).ln()).collect(),
            Some(_) => Vec::new(),
        };
        let ratio = match ns {
            [Some(a), Some(b)] => Some(b.max(1) as f64 / a.max(1) as f64),
            _ => None,
        };
        let row = Row {
            what: what.to_owned(),
            percentile: name,
            counts,
            ns,
            ratio,
            interval: None,
            relevant: relevant_part(ns[0], parent_ns, method),
            change: Change::CannotTell,
            why,
        };
        Candidate { row, logs }
    };
    PERCENTILES.iter().map(row).collect()
}

/// Returns the reason why a row cannot be judged, if any.
fn unsupported(
    what: &str,
    values: &[Vec<Vec<u64>>; 2],
    [a, b]: [usize; 2],
    percentile: Percentile,
    phases: &[Vec<&Phase>; 2],
) -> Option<String> {
    let needed = values_needed(percentile) as usize;
    let fewest = values.iter().flatten().map(Vec::len).min().unwrap_or(0);
    let is_skipped = |phase: &&Phase| phase.due_response(percentile) == Some(DueResponse::Skipped);
    match (a, b) {
        (0, _) => Some("only in B".to_owned()),
        (_, 0) => Some("only in A".to_owned()),
        _ if a.min(b) < needed => Some(format!("needs {needed} values per side")),
        _ if fewest < MIN_VALUES || !percentile.is_supported_by(fewest as u64) => {
            let each = MIN_VALUES.max(needed.div_ceil(10));
            Some(format!("needs {each} values in each profile"))
        }
        _ if what == Stage::RESPONSE.name() && phases.iter().flatten().any(is_skipped) => {
            Some("the tick of this rank was skipped".to_owned())
        }
        _ => None,
    }
}

/// Returns the reason if the order of the profiles does not allow a verdict: the mean positions of A
/// and B differ by more than a quarter of all profiles. A before B gives a half, alternating about 0.
fn not_in_turn(taken_at: &[Vec<u64>; 2]) -> Option<String> {
    let all = taken_at.concat();
    let place = |&at: &u64| {
        let before = all.iter().filter(|&&other| other < at).count() as f64;
        let same = all.iter().filter(|&&other| other == at).count() as f64;
        before + (same - 1.0) / 2.0
    };
    let mean = |side: &Vec<u64>| side.iter().map(place).sum::<f64>() / side.len() as f64;
    let apart = (mean(&taken_at[0]) - mean(&taken_at[1])).abs();
    (apart > all.len() as f64 / 4.0).then(|| {
        "most profiles of one side were taken before those of the other, so that a drifting machine \
         looks like a change: take them in turn (A B A B)"
            .to_owned()
    })
}

/// Judges all rows with simultaneous intervals.
fn judged(candidates: Vec<Candidate>, sizes: [usize; 2], method: Method) -> Vec<Row> {
    let tested: Vec<Tested> = candidates
        .iter()
        .filter(|candidate| !candidate.logs.is_empty())
        .map(|candidate| Tested::new(&candidate.logs, sizes, candidate.row.relevant))
        .collect();
    let limit = limit(&tested, sizes, method);
    let mut tested = tested.into_iter();
    let row = |candidate: Candidate| {
        let mut row = candidate.row;
        if !candidate.logs.is_empty() {
            let tested = tested.next().expect("there is one test per row with values");
            let (difference, error) = tested.difference(0..sizes[0]);
            let half = limit * error;
            let (low, high) = ((difference - half).exp(), (difference + half).exp());
            row.ratio = Some(difference.exp());
            row.interval = Some([low, high]);
            row.change = change(difference.exp(), low, high, row.relevant);
        }
        row
    };
    candidates.into_iter().map(row).collect()
}

/// A row with precomputed sums for any division of its profiles.
struct Tested {
    /// Logarithms minus their mean.
    logs: Vec<f64>,
    squares: f64,
    sizes: [usize; 2],
    /// Minimum standard error, a quarter of the relevant difference; it limits the confidence of rows
    /// whose profiles agree by chance.
    min_error: f64,
}

impl Tested {
    fn new(logs: &[f64], sizes: [usize; 2], relevant: f64) -> Self {
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let logs: Vec<f64> = logs.iter().map(|log| log - mean).collect();
        let squares = logs.iter().map(|log| log * log).sum();
        Self { logs, squares, sizes, min_error: relevant.ln_1p() / 4.0 }
    }

    /// Returns B minus A and its standard error, with `members` as A.
    fn difference(&self, members: impl Iterator<Item = usize>) -> (f64, f64) {
        let [n, m] = self.sizes.map(|size| size as f64);
        let sum_a: f64 = members.map(|member| self.logs[member]).sum();
        // The logarithms sum to zero.
        let (mean_a, mean_b) = (sum_a / n, -sum_a / m);
        let within = (self.squares - n * mean_a * mean_a - m * mean_b * mean_b).max(0.0);
        let variance = within / (n + m - 2.0) * (1.0 / n + 1.0 / m);
        (mean_b - mean_a, (variance + self.min_error * self.min_error).sqrt())
    }
}

/// Returns the critical value in standard errors: the quantile at the confidence of the largest
/// difference of all rows over the divisions.
fn limit(rows: &[Tested], sizes: [usize; 2], method: Method) -> f64 {
    let mut greatest: Vec<f64> = divisions(sizes, method)
        .iter()
        .map(|members| {
            let of_row = |row: &Tested| {
                let (difference, error) = row.difference(members.iter().copied());
                difference.abs() / error
            };
            rows.iter().map(of_row).fold(0.0, f64::max)
        })
        .collect();
    greatest.sort_unstable_by(f64::total_cmp);
    let above = ((1.0 - method.confidence) * greatest.len() as f64 + 1e-9) as usize;
    greatest[greatest.len() - 1 - above.min(greatest.len() - 1)]
}

/// Returns the members of A in every division, the actual one first; a random sample if there are
/// more divisions than replicates.
fn divisions([n, m]: [usize; 2], method: Method) -> Vec<Vec<usize>> {
    let all = (0..n).fold(1.0, |count, i| count * (n + m - i) as f64 / (i + 1) as f64);
    let actual: Vec<usize> = (0..n).collect();
    if all > method.replicates.max(1) as f64 {
        let mut draws = SplitMix64::new(method.seed);
        let mut order: Vec<usize> = (0..n + m).collect();
        let mut sampled = vec![actual];
        while sampled.len() < method.replicates {
            for place in 0..n {
                order.swap(place, place + draws.below(n + m - place));
            }
            sampled.push(order[..n].to_vec());
        }
        return sampled;
    }
    let mut divisions = vec![actual.clone()];
    let mut members = actual;
    // Lexicographic order: increment the last member that can be, and reset those after it.
    while let Some(place) = (0..n).rev().find(|&place| members[place] < m + place) {
        members[place] += 1;
        for after in place + 1..n {
            members[after] = members[after - 1] + 1;
        }
        divisions.push(members.clone());
    }
    divisions
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn divisions_are_complete_or_a_sample() {
        let all = divisions([4, 4], Method::default());
        assert_eq!(all.len(), 70);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 70);
        assert!(all.iter().all(|members| members.is_sorted() && members[3] < 8));
        let sampled = divisions([12, 12], Method { replicates: 500, ..Method::default() });
        assert_eq!((sampled.len(), &sampled[0]), (500, &(0..12).collect()));
        for members in &sampled {
            assert_eq!(members.iter().collect::<BTreeSet<_>>().len(), 12);
        }
    }

    #[test]
    fn difference_matches_the_pooled_t_statistic() {
        let logs = [1.0, 3.0, 2.0, 6.0, 8.0];
        let row = Tested::new(&logs, [3, 2], 0.0);
        let (difference, error) = row.difference(0..3);
        // Means 2 and 7, sums of squares 2 and 2, three degrees of freedom.
        assert!((difference - 5.0).abs() < 1e-12);
        assert!((error - (4.0_f64 / 3.0 * (1.0 / 3.0 + 0.5)).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn sequential_sides_are_not_in_turn() {
        let orders: [([u64; 4], [u64; 4], bool); 4] = [
            ([1, 3, 5, 7], [2, 4, 6, 8], true),
            ([1, 4, 5, 8], [2, 3, 6, 7], true),
            ([1, 2, 3, 4], [5, 6, 7, 8], false),
            ([1, 1, 1, 1], [1, 1, 1, 1], true),
        ];
        for (a, b, is_in_turn) in orders {
            assert_eq!(not_in_turn(&[a.into(), b.into()]).is_none(), is_in_turn, "{a:?} {b:?}");
        }
    }
}
