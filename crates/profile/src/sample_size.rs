//! Minimum number of values for a percentile.

use tandem::timing::Percentile;

/// Minimum number of values beyond a percentile. With ten, the relative error of their number is
/// about a third (1/√10); with one, the percentile is just the maximum.
pub const VALUES_BEYOND: u64 = 10;

/// Returns the minimum number of values for `percentile`: 20 for the median, 1,000 for the 99th.
pub fn values_needed(percentile: Percentile) -> u64 {
    let beyond = percentile.denominator - percentile.numerator;
    (VALUES_BEYOND * percentile.denominator).div_ceil(beyond.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_percentiles_need_more_values() {
        let all = [Percentile::P50, Percentile::P90, Percentile::P99, Percentile::P999];
        let needed = all.map(values_needed);
        assert_eq!(needed, [20, 100, 1_000, 10_000]);
    }
}
