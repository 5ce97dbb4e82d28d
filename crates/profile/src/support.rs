//! How many values a percentile needs before it says anything.

use tandem::timing::Percentile;

/// Values that must lie beyond a percentile: with ten of them, how many there are is known to a
/// third (one over the root of ten); with one, the percentile is the maximum under another name.
pub const VALUES_BEYOND: u64 = 10;

/// Values that `percentile` needs: 20 for the median, 1,000 for the 99th.
pub fn values_needed(percentile: Percentile) -> u64 {
    let beyond = percentile.denominator - percentile.numerator;
    (VALUES_BEYOND * percentile.denominator).div_ceil(beyond.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rarer_the_more_values() {
        let all = [Percentile::P50, Percentile::P90, Percentile::P99, Percentile::P999];
        let needed = all.map(values_needed);
        assert_eq!(needed, [20, 100, 1_000, 10_000]);
    }
}
