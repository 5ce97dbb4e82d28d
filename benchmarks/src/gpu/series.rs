//! Series of samples and their summaries.

use serde_json::{Value, json};
use tandem::timing::Percentile;
use tandem_profile::nearest_rank;

/// Percentiles with their names in a result.
const PERCENTILES: [(&str, Percentile); 4] = [
    ("p50", Percentile::P50),
    ("p90", Percentile::P90),
    ("p99", Percentile::P99),
    ("p99.9", Percentile::P999),
];

/// Latencies of consecutive runs, nanoseconds.
#[derive(Default)]
pub(super) struct Series(Vec<u64>);

impl Series {
    /// Creates an empty series with capacity for `runs`.
    pub(super) fn for_runs(runs: usize) -> Self {
        Self(Vec::with_capacity(runs))
    }

    pub(super) fn push(&mut self, nanoseconds: u64) {
        self.0.push(nanoseconds);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns count, extremes and nearest-rank percentiles of all samples, and the first `n_raw`
    /// samples in the order of the runs.
    pub(super) fn summary(&self, n_raw: usize) -> Value {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let mut summary = json!({ "count": sorted.len(), "min": sorted.first() });
        for (name, percentile) in PERCENTILES {
            summary[name] = json!(nearest_rank(&sorted, percentile));
        }
        let raw = &self.0[..n_raw.min(self.0.len())];
        summary["max"] = json!(sorted.last());
        summary["samples"] = json!(raw);
        summary["samples_left_out"] = json!(self.0.len() - raw.len());
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_use_all_samples_and_raw_samples_are_limited() {
        let mut series = Series::default();
        // A permutation of 1 to 2000, because 7 and 2000 are coprime.
        (0..2000).for_each(|i| series.push(i * 7 % 2000 + 1));
        let found = series.summary(3);
        let of = |name: &str| found[name].as_u64().unwrap();
        assert_eq!([of("count"), of("min"), of("max")], [2000, 1, 2000]);
        assert_eq!([of("p50"), of("p90"), of("p99"), of("p99.9")], [1000, 1800, 1980, 1998]);
        assert_eq!(found["samples"], json!([1, 8, 15]));
        assert_eq!(of("samples_left_out"), 1997);
    }

    #[test]
    fn summary_of_an_empty_series_is_null() {
        let found = Series::default().summary(3);
        assert_eq!((&found["count"], &found["p50"]), (&json!(0), &Value::Null));
    }
}
