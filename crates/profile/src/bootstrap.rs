//! Moving-block bootstrap of the ratio of percentiles of two runs.
//!
//! Consecutive ticks are correlated (a prefill runs during several of them, the clock drops, another
//! process uses the core), so resampling single ticks would overestimate the evidence. Blocks of
//! consecutive ticks are resampled instead, on a circle, so that the ends have the same weight as
//! the middle. All stages of a tick are resampled together.

use tandem::scene::random::SplitMix64;
use tandem::timing::Percentile;

/// Minimum number of blocks of a series. With n blocks, the spread of the replicates has a relative
/// error of 1/√(2n), 13 % here.
pub(super) const MIN_BLOCKS: usize = 30;

/// Column of a series: existing values in descending order, with their positions.
pub(super) struct Sorted {
    /// Position of each value in the series.
    positions: Vec<u32>,
    values: Vec<u64>,
}

impl Sorted {
    pub(super) fn new(column: &[Option<u64>]) -> Self {
        let mut present: Vec<(u64, u32)> =
            column.iter().zip(0..).filter_map(|(value, at)| Some(((*value)?, at))).collect();
        present.sort_unstable_by(|a, b| b.cmp(a));
        let (values, positions) = present.into_iter().unzip();
        Self { positions, values }
    }

    /// Returns the number of values.
    pub(super) fn count(&self) -> usize {
        self.values.len()
    }

    /// Returns a nearest-rank percentile of the original values; `None` without values.
    pub(super) fn percentile(&self, percentile: Percentile) -> Option<u64> {
        let count = self.count();
        count
            .checked_sub(percentile.rank(count as u64) as usize)
            .map(|from_top| self.values[from_top])
    }

    /// Computes nearest-rank percentiles (highest first) of the resampled series in which position
    /// `i` occurs `weights[i]` times; `None` if no value occurs.
    fn resampled(&self, weights: &[u32], percentiles: &[Percentile], into: &mut [Option<u64>]) {
        into.fill(None);
        let total = if self.count() == weights.len() {
            weights.len() as u64
        } else {
            self.positions.iter().map(|&at| u64::from(weights[at as usize])).sum()
        };
        if total == 0 {
            return;
        }
        let (mut above, mut next) = (0, 0);
        for (&at, &value) in self.positions.iter().zip(&self.values) {
            above += u64::from(weights[at as usize]);
            while next < percentiles.len() && above > total - percentiles[next].rank(total) {
                into[next] = Some(value);
                next += 1;
            }
            if next == percentiles.len() {
                return;
            }
        }
    }
}

/// Columns that are resampled together.
pub(super) struct Series {
    /// Number of entries of each column.
    pub(super) length: usize,
    /// Number of entries of a block.
    pub(super) block: usize,
    pub(super) columns: Vec<Sorted>,
}

impl Series {
    /// Computes how often each entry occurs in one replicate.
    fn resample(&self, draws: &mut SplitMix64, weights: &mut [u32]) {
        // `changes` marks starts and ends of blocks; the weights are its running sum.
        let mut changes = vec![0_i32; self.length + 1];
        let (mut left, mut wrapped) = (self.length, 0);
        while left > 0 {
            let size = self.block.min(left);
            let start = draws.below(self.length);
            changes[start] += 1;
            match start + size {
                end if end <= self.length => changes[end] -= 1,
                end => {
                    wrapped += 1;
                    changes[end - self.length] -= 1;
                }
            }
            left -= size;
        }
        let mut running = wrapped;
        for (weight, change) in weights.iter_mut().zip(&changes) {
            running += change;
            *weight = running as u32;
        }
    }
}

/// Returns the logarithms of the ratios b/a of all replicates, for each column and percentile. A
/// replicate in which a column has no value is NaN.
pub(super) fn log_ratios(
    [a, b]: [&Series; 2],
    percentiles: &[Percentile],
    replicates: usize,
    seed: u64,
) -> Vec<Vec<f64>> {
    let mut draws = SplitMix64::new(seed);
    let mut rows = vec![Vec::with_capacity(replicates); a.columns.len() * percentiles.len()];
    let mut weights = [vec![0; a.length], vec![0; b.length]];
    let mut found = [vec![None; percentiles.len()], vec![None; percentiles.len()]];
    for _ in 0..replicates {
        for (series, weights) in [a, b].into_iter().zip(&mut weights) {
            series.resample(&mut draws, weights);
        }
        for (idx, columns) in a.columns.iter().zip(&b.columns).enumerate() {
            columns.0.resampled(&weights[0], percentiles, &mut found[0]);
            columns.1.resampled(&weights[1], percentiles, &mut found[1]);
            for (place, pair) in found[0].iter().zip(&found[1]).enumerate() {
                let ratio = match pair {
                    (Some(a), Some(b)) => log_ratio(*a, *b),
                    _ => f64::NAN,
                };
                rows[idx * percentiles.len() + place].push(ratio);
            }
        }
    }
    rows
}

/// Returns ln(b/a), with zero replaced by one, the resolution of the clock in nanoseconds.
pub(super) fn log_ratio(a: u64, b: u64) -> f64 {
    (b.max(1) as f64).ln() - (a.max(1) as f64).ln()
}

/// Returns intervals that contain all rows simultaneously in the fraction `confidence` of the
/// replicates. The same number of replicates is cut off at both ends of every row, the largest for
/// which this holds. Rows must not contain NaN.
pub(super) fn intervals_together(rows: &[Vec<f64>], confidence: f64) -> Vec<(f64, f64)> {
    let Some(replicates) = rows.first().map(Vec::len) else { return Vec::new() };
    let mut sorted: Vec<Vec<f64>> = rows.to_vec();
    // Per replicate, the largest cut at both ends of every row that keeps the replicate inside.
    let mut depths = vec![usize::MAX; replicates];
    for (row, sorted) in rows.iter().zip(&mut sorted) {
        sorted.sort_unstable_by(f64::total_cmp);
        for (value, depth) in row.iter().zip(&mut depths) {
            let below = sorted.partition_point(|other| other < value);
            let not_above = sorted.partition_point(|other| other <= value);
            *depth = (*depth).min((not_above - 1).min(replicates - 1 - below));
        }
    }
    depths.sort_unstable();
    let outside = ((1.0 - confidence) * replicates as f64) as usize;
    let cut = depths[outside.min(replicates - 1)];
    sorted.iter().map(|row| (row[cut], row[replicates - 1 - cut])).collect()
}

/// Returns the block length for a column: twice the length at which the means of adjacent segments
/// are no longer correlated, searched by doubling from half of n^⅓. The result exceeds the column's
/// length divided by [`MIN_BLOCKS`] if no length with that many segments qualifies: the column
/// drifts. Alternation from tick to tick averages out within a segment and does not lengthen blocks.
/// Means are taken over ranks, so that single outliers do not mask correlation.
pub(super) fn block_length(column: &[Option<u64>]) -> usize {
    let ranks = ranks(column);
    let n = ranks.len();
    let mut segment = (((n as f64).cbrt() / 2.0).round() as usize).max(1);
    while n / (2 * segment) >= MIN_BLOCKS && neighbors_are_correlated(&ranks, segment) {
        segment *= 2;
    }
    in_column_entries(2 * segment, column.len(), n)
}

/// Returns true if the means of adjacent segments are correlated at the 5 % level. Means whose
/// variance is below a quarter of that of independent values are the residue of an alternation
/// and count as uncorrelated.
fn neighbors_are_correlated(values: &[f64], segment: usize) -> bool {
    let means: Vec<f64> = values
        .chunks_exact(segment)
        .map(|chunk| chunk.iter().sum::<f64>() / chunk.len() as f64)
        .collect();
    let (ticks, means) = (Deviations::new(values), Deviations::new(&means));
    let independent = ticks.variance() / segment as f64;
    means.variance() > independent / 4.0
        && means.correlation() > 1.645 / (means.0.len() as f64).sqrt()
}

/// Converts a block length in values to entries of a column of `length` entries with `n` values.
fn in_column_entries(block: usize, length: usize, n: usize) -> usize {
    (block * length).div_ceil(n.max(1)).max(1)
}

/// Returns the ranks of the existing values in column order; ties get the mean of their ranks.
fn ranks(column: &[Option<u64>]) -> Vec<f64> {
    let values: Vec<u64> = column.iter().flatten().copied().collect();
    let mut sorted = values.clone();
    sorted.sort_unstable();
    let rank = |value: &u64| {
        let below = sorted.partition_point(|other| other < value);
        let not_above = sorted.partition_point(|other| other <= value);
        (below + not_above) as f64 / 2.0
    };
    values.iter().map(rank).collect()
}

/// Values minus their mean, for moments.
struct Deviations(Vec<f64>);

impl Deviations {
    fn new(values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        Self(values.iter().map(|value| value - mean).collect())
    }

    fn variance(&self) -> f64 {
        self.0.iter().map(|value| value * value).sum::<f64>() / self.0.len().max(1) as f64
    }

    /// Returns the correlation of each value with the next; 0 if the values are constant.
    fn correlation(&self) -> f64 {
        let products: f64 = self.0.windows(2).map(|pair| pair[0] * pair[1]).sum();
        let squares: f64 = self.0.iter().map(|value| value * value).sum();
        if squares > 0.0 { products / squares } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn series(block: usize, columns: &[Vec<Option<u64>>]) -> Series {
        let length = columns[0].len();
        Series {
            length,
            block,
            columns: columns.iter().map(|column| Sorted::new(column)).collect(),
        }
    }

    /// Reference implementation by definition.
    fn nearest_rank(values: &[u64], percentile: Percentile) -> Option<u64> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let enough = |value: &&u64| {
            let not_above = sorted.iter().filter(|other| other <= value).count() as u64;
            not_above * percentile.denominator >= sorted.len() as u64 * percentile.numerator
        };
        sorted.iter().find(enough).copied()
    }

    const ALL: [Percentile; 4] =
        [Percentile::P999, Percentile::P99, Percentile::P90, Percentile::P50];

    proptest! {
        #[test]
        fn percentiles_are_nearest_rank(column in prop::collection::vec(prop::option::of(0..50_u64), 1..300)) {
            let sorted = Sorted::new(&column);
            let values: Vec<u64> = column.iter().flatten().copied().collect();
            for percentile in ALL {
                prop_assert_eq!(sorted.percentile(percentile), nearest_rank(&values, percentile));
            }
        }

        #[test]
        fn replicate_keeps_the_length_and_nearest_rank_percentiles(
            column in prop::collection::vec(prop::option::of(0..50_u64), 1..200),
            block in 1..50_usize,
            seed: u64,
        ) {
            let series = series(block, std::slice::from_ref(&column));
            let mut weights = vec![0; column.len()];
            series.resample(&mut SplitMix64::new(seed), &mut weights);
            prop_assert_eq!(weights.iter().sum::<u32>() as usize, column.len());
            let drawn: Vec<u64> = column
                .iter()
                .zip(&weights)
                .flat_map(|(value, &times)| value.iter().copied().cycle().take(times as usize * usize::from(value.is_some())))
                .collect();
            let mut found = [None; 4];
            series.columns[0].resampled(&weights, &ALL, &mut found);
            for (percentile, found) in ALL.into_iter().zip(found) {
                prop_assert_eq!(found, nearest_rank(&drawn, percentile));
            }
        }

        #[test]
        fn replicate_consists_of_complete_blocks(length in 10..200_usize, block in 1..10_usize, seed: u64) {
            let column: Vec<Option<u64>> = vec![Some(1); length];
            let series = series(block, &[column]);
            let mut weights = vec![0; length];
            series.resample(&mut SplitMix64::new(seed), &mut weights);
            // Each block changes the weight at its start and at its end.
            let changes = (0..length).filter(|&i| weights[i] != weights[(i + 1) % length]).count();
            prop_assert!(changes <= 2 * length.div_ceil(block));
        }
    }

    #[test]
    fn intervals_have_simultaneous_coverage() {
        let mut draws = SplitMix64::new(3);
        let rows: Vec<Vec<f64>> =
            (0..20).map(|_| (0..4000).map(|_| draws.next() as f64).collect()).collect();
        let intervals = intervals_together(&rows, 0.95);
        let is_inside = |replicate: &usize| {
            rows.iter()
                .zip(&intervals)
                .all(|(row, &(low, high))| (low..=high).contains(&row[*replicate]))
        };
        let inside = (0..4000).filter(is_inside).count();
        assert!((3800..3900).contains(&inside), "{inside} of 4000");
        // The interval of a single row is narrower than that of twenty rows together.
        let alone = intervals_together(&rows[..1], 0.95)[0];
        assert!(alone.0 > intervals[0].0 && alone.1 < intervals[0].1);
    }

    #[test]
    fn blocks_are_longer_for_correlated_ticks() {
        let mut draws = SplitMix64::new(5);
        let mut series = |memory: f64| -> Vec<Option<u64>> {
            let mut state = 0.0;
            (0..2000)
                .map(|_| {
                    state = memory * state + draws.next() as f64 / u64::MAX as f64;
                    Some((state * 1e6) as u64)
                })
                .collect()
        };
        let (free, bound) = (block_length(&series(0.0)), block_length(&series(0.9)));
        assert!(free <= 24, "{free}");
        assert!((40..=120).contains(&bound), "{bound}");
        // With every second entry missing, blocks have twice as many entries.
        let scattered: Vec<_> = series(0.0).into_iter().flat_map(|value| [value, None]).collect();
        assert!(block_length(&scattered) >= 2 * 12);
        // Alternation does not lengthen blocks; a drift needs more than the maximum.
        let wave = |i: u64| 1000 * (i % 5) + i % 3;
        assert_eq!(block_length(&(0..2000).map(|i| Some(wave(i))).collect::<Vec<_>>()), 12);
        assert!(block_length(&(0..2000).map(|i| Some(i + wave(i))).collect::<Vec<_>>()) > 66);
        assert_eq!(block_length(&[Some(7); 1000]), 10);
        assert!(block_length(&[None; 4]) > 4);
    }
}
