//! How far apart the percentiles of two runs would be by chance: a moving-block bootstrap.
//!
//! Ticks that follow each other are alike (a refresh runs behind several of them, the clock sinks,
//! a neighbor has the core), so single ticks must not be drawn: that would take them for more
//! evidence than they are. Blocks of consecutive ticks are drawn instead, on a circle, so that the
//! ends weigh as much as the middle. All stages of a tick are drawn together.

use tandem::scene::random::SplitMix64;
use tandem::timing::Percentile;

/// Blocks that a series must hold: with fewer, the spread of what is drawn is itself badly known
/// (to one over the root of twice the blocks, 13 % here).
pub(super) const LEAST_BLOCKS: usize = 30;

/// One column of a series: values that exist, the largest first, and where each stands.
pub(super) struct Sorted {
    /// Place in the series.
    places: Vec<u32>,
    values: Vec<u64>,
}

impl Sorted {
    pub(super) fn new(column: &[Option<u64>]) -> Self {
        let mut present: Vec<(u64, u32)> =
            column.iter().zip(0..).filter_map(|(value, place)| Some(((*value)?, place))).collect();
        present.sort_unstable_by(|a, b| b.cmp(a));
        let (values, places) = present.into_iter().unzip();
        Self { places, values }
    }

    /// Number of values.
    pub(super) fn count(&self) -> usize {
        self.values.len()
    }

    /// A nearest-rank percentile of the values as they are; `None` without values.
    pub(super) fn percentile(&self, percentile: Percentile) -> Option<u64> {
        let count = self.count();
        count
            .checked_sub(percentile.rank(count as u64) as usize)
            .map(|from_top| self.values[from_top])
    }

    /// Nearest-rank percentiles (the highest first) of the series in which place `i` occurs
    /// `weights[i]` times; `None` where no value occurs.
    fn drawn(&self, weights: &[u32], percentiles: &[Percentile], into: &mut [Option<u64>]) {
        into.fill(None);
        let total = if self.count() == weights.len() {
            weights.len() as u64
        } else {
            self.places.iter().map(|&at| u64::from(weights[at as usize])).sum()
        };
        if total == 0 {
            return;
        }
        let (mut above, mut next) = (0, 0);
        for (&place, &value) in self.places.iter().zip(&self.values) {
            above += u64::from(weights[place as usize]);
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

/// Columns that are drawn together.
pub(super) struct Series {
    /// Entries of each column.
    pub(super) length: usize,
    /// Entries of a block.
    pub(super) block: usize,
    pub(super) columns: Vec<Sorted>,
}

impl Series {
    /// How often each entry occurs in one draw.
    fn draw(&self, draws: &mut SplitMix64, weights: &mut [u32]) {
        // Beginnings and ends of blocks first, then their running sum.
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

/// Logarithms of the ratios b/a: for each column and percentile in turn, all replicates.
/// A replicate in which a column has no value is not a number.
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
            series.draw(&mut draws, weights);
        }
        for (idx, columns) in a.columns.iter().zip(&b.columns).enumerate() {
            columns.0.drawn(&weights[0], percentiles, &mut found[0]);
            columns.1.drawn(&weights[1], percentiles, &mut found[1]);
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

/// ln(b/a); zero counts as one, the smallest time that is told apart.
pub(super) fn log_ratio(a: u64, b: u64) -> f64 {
    (b.max(1) as f64).ln() - (a.max(1) as f64).ln()
}

/// Intervals that hold all rows at once in `confidence` of the replicates: the same number of
/// replicates is cut off at both ends of every row, as many as that allows. Rows must not hold NaN.
pub(super) fn intervals_together(rows: &[Vec<f64>], confidence: f64) -> Vec<(f64, f64)> {
    let Some(replicates) = rows.first().map(Vec::len) else { return Vec::new() };
    let mut sorted: Vec<Vec<f64>> = rows.to_vec();
    // The most that can be cut off both ends of every row with this replicate still inside.
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

/// The block that fits a column: twice the length at which the means of neighboring stretches no
/// longer resemble each other, from half of n^⅓ on in doublings. More than the column
/// divided by [`LEAST_BLOCKS`] where no such length leaves that many stretches: it drifts. What alternates from tick
/// to tick averages out in a stretch and asks for no longer block. Means are taken of ranks, so that
/// a single stall does not hide what the other ticks say.
pub(super) fn block_length(column: &[Option<u64>]) -> usize {
    let ranks = ranks(column);
    let n = ranks.len();
    let mut stretch = (((n as f64).cbrt() / 2.0).round() as usize).max(1);
    while n / (2 * stretch) >= LEAST_BLOCKS && neighbors_are_alike(&ranks, stretch) {
        stretch *= 2;
    }
    stretched(2 * stretch, column.len(), n)
}

/// Whether the means of neighboring stretches correlate more than independent ones do by chance in
/// one case of twenty. Means that spread less than a quarter as much as those of independent values
/// are what is left of an alternation, and are not asked.
fn neighbors_are_alike(values: &[f64], stretch: usize) -> bool {
    let means: Vec<f64> = values
        .chunks_exact(stretch)
        .map(|stretch| stretch.iter().sum::<f64>() / stretch.len() as f64)
        .collect();
    let (ticks, means) = (Deviations::new(values), Deviations::new(&means));
    let independent = ticks.variance() / stretch as f64;
    means.variance() > independent / 4.0
        && means.correlation() > 1.645 / (means.0.len() as f64).sqrt()
}

/// A block over `n` values in entries of the column that they are scattered over.
fn stretched(block: usize, length: usize, n: usize) -> usize {
    (block * length).div_ceil(n.max(1)).max(1)
}

/// Ranks of the values that exist, in their order; equal values share the middle of theirs.
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

/// Values less their mean.
struct Deviations(Vec<f64>);

impl Deviations {
    fn new(values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        Self(values.iter().map(|value| value - mean).collect())
    }

    fn variance(&self) -> f64 {
        self.0.iter().map(|value| value * value).sum::<f64>() / self.0.len().max(1) as f64
    }

    /// Of each value with the next; none where nothing changes.
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

    /// The definition, spelled out.
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
        fn a_draw_is_as_long_as_its_series_and_its_percentiles_are_nearest_rank(
            column in prop::collection::vec(prop::option::of(0..50_u64), 1..200),
            block in 1..50_usize,
            seed: u64,
        ) {
            let series = series(block, std::slice::from_ref(&column));
            let mut weights = vec![0; column.len()];
            series.draw(&mut SplitMix64::new(seed), &mut weights);
            prop_assert_eq!(weights.iter().sum::<u32>() as usize, column.len());
            let drawn: Vec<u64> = column
                .iter()
                .zip(&weights)
                .flat_map(|(value, &times)| value.iter().copied().cycle().take(times as usize * usize::from(value.is_some())))
                .collect();
            let mut found = [None; 4];
            series.columns[0].drawn(&weights, &ALL, &mut found);
            for (percentile, found) in ALL.into_iter().zip(found) {
                prop_assert_eq!(found, nearest_rank(&drawn, percentile));
            }
        }

        #[test]
        fn blocks_stay_whole(length in 10..200_usize, block in 1..10_usize, seed: u64) {
            let column: Vec<Option<u64>> = vec![Some(1); length];
            let series = series(block, &[column]);
            let mut weights = vec![0; length];
            series.draw(&mut SplitMix64::new(seed), &mut weights);
            // Each block changes the weight at its beginning and at its end.
            let changes = (0..length).filter(|&i| weights[i] != weights[(i + 1) % length]).count();
            prop_assert!(changes <= 2 * length.div_ceil(block));
        }
    }

    #[test]
    fn intervals_hold_all_rows_together_as_often_as_asked() {
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
        // One alone is narrower than twenty together.
        let alone = intervals_together(&rows[..1], 0.95)[0];
        assert!(alone.0 > intervals[0].0 && alone.1 < intervals[0].1);
    }

    #[test]
    fn blocks_are_longer_where_ticks_are_alike() {
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
        // Every second entry missing: the same ticks, twice as far apart.
        let scattered: Vec<_> = series(0.0).into_iter().flat_map(|value| [value, None]).collect();
        assert!(block_length(&scattered) >= 2 * 12);
        // What only alternates needs no longer block, a drift a longer one than there is room for.
        let wave = |i: u64| 1000 * (i % 5) + i % 3;
        assert_eq!(block_length(&(0..2000).map(|i| Some(wave(i))).collect::<Vec<_>>()), 12);
        assert!(block_length(&(0..2000).map(|i| Some(i + wave(i))).collect::<Vec<_>>()) > 66);
        assert_eq!(block_length(&[Some(7); 1000]), 10);
        assert!(block_length(&[None; 4]) > 4);
    }
}
