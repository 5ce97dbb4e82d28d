//! Latency statistics over many ticks, in fixed memory.
//!
//! Percentiles are nearest-rank: the p-th is the smallest recorded value that at least p percent of
//! all values do not exceed. A bucket reports its upper edge, so a percentile is never understated
//! and at most 0.1 % overstated; counts, minimum and maximum are exact.

use super::{Stage, StageSpans, StageTimes};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest latency that a histogram resolves; longer ones are recorded as this value.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Number of significant decimal digits of a bucket.
const DIGITS: u8 = 3;

/// Histogram of latencies from 1 ns to [`LONGEST`] with 3 significant digits; about 105 kB,
/// independent of the number of values. Longer values count as [`LONGEST`] and as saturated.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(into = "Buckets", try_from = "Buckets")]
pub struct LatencyHistogram {
    buckets: Histogram<u32>,
    min_ns: u64,
    max_ns: u64,
    total_ns: u64,
    saturated: u64,
}

/// Count, percentiles (nearest-rank) and maximum, as printed in tables; nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LatencySummary {
    pub count: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    /// Exact maximum, unless values were saturated.
    pub max_ns: u64,
}

/// Percentile as a fraction, so that ranks are exact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Percentile {
    pub numerator: u64,
    /// Not zero, and not less than the numerator.
    pub denominator: u64,
}

impl Percentile {
    /// The median (50th percentile).
    pub const P50: Self = Self { numerator: 50, denominator: 100 };
    /// The 90th percentile (90 of 100).
    pub const P90: Self = Self { numerator: 90, denominator: 100 };
    /// The 99th percentile (99 of 100).
    pub const P99: Self = Self { numerator: 99, denominator: 100 };
    /// The 99.9th percentile (999 of 1000).
    pub const P999: Self = Self { numerator: 999, denominator: 1000 };

    /// Returns true if, of `count` values, this percentile can differ from the maximum.
    pub fn is_supported_by(self, count: u64) -> bool {
        count.saturating_mul(self.denominator - self.numerator) >= self.denominator
    }

    /// Returns the 1-based rank of this percentile of `count` sorted values: ⌈count · p⌉, minimum 1.
    pub fn rank(self, count: u64) -> u64 {
        let exact = u128::from(count) * u128::from(self.numerator);
        let rank = exact.div_ceil(u128::from(self.denominator));
        u64::try_from(rank).unwrap_or(u64::MAX).max(1)
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl LatencyHistogram {
    /// Creates an empty histogram with all of its memory allocated.
    pub fn new() -> Self {
        let buckets = Histogram::new_with_bounds(1, nanos(LONGEST), DIGITS)
            .expect("1 ns to 60 s at 3 digits is a valid range");
        Self { buckets, min_ns: u64::MAX, max_ns: 0, total_ns: 0, saturated: 0 }
    }

    /// Adds one value. Does not allocate.
    pub fn record(&mut self, took: Duration) {
        self.record_ns(nanos(took), 1);
    }

    fn record_ns(&mut self, took_ns: u64, times: u32) {
        let kept_ns = took_ns.min(nanos(LONGEST));
        if took_ns > kept_ns {
            self.saturated += u64::from(times);
        }
        self.min_ns = self.min_ns.min(kept_ns);
        self.max_ns = self.max_ns.max(kept_ns);
        self.total_ns = self.total_ns.saturating_add(kept_ns.saturating_mul(u64::from(times)));
        self.buckets.saturating_record_n(kept_ns, times);
    }

    /// Returns the number of values.
    pub fn count(&self) -> u64 {
        self.buckets.len()
    }

    /// Returns the sum of all values; exact unless values were saturated.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns)
    }

    /// Returns the number of values longer than [`LONGEST`].
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    /// Returns the maximum, exact unless values were saturated; `None` without values.
    pub fn max(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_nanos(self.max_ns))
    }

    /// Returns the exact minimum; `None` without values.
    pub fn min(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_nanos(self.min_ns))
    }

    /// Returns a nearest-rank percentile; `None` without values.
    pub fn percentile(&self, percentile: Percentile) -> Option<Duration> {
        self.at_rank(percentile.rank(self.count()))
    }

    /// Returns the value at a 1-based rank, ascending; `None` if the rank exceeds the count.
    pub fn at_rank(&self, rank: u64) -> Option<Duration> {
        if rank > self.count() {
            return None;
        }
        let mut seen = 0;
        for bucket in self.buckets.iter_recorded() {
            seen += bucket.count_since_last_iteration();
            if seen >= rank {
                let edge_ns = self.buckets.highest_equivalent(bucket.value_iterated_to());
                return Some(Duration::from_nanos(edge_ns.min(self.max_ns)));
            }
        }
        self.max()
    }

    /// Returns value (nanoseconds) and count of every non-empty bucket, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let buckets = self.buckets.iter_recorded();
        buckets.map(|bucket| (bucket.value_iterated_to(), u64::from(bucket.count_at_value())))
    }

    /// Returns the numbers that tables print; `None` without values.
    pub fn summary(&self) -> Option<LatencySummary> {
        let at = |percentile| self.percentile(percentile).map(nanos);
        Some(LatencySummary {
            count: self.count(),
            p50_ns: at(Percentile::P50)?,
            p90_ns: at(Percentile::P90)?,
            p99_ns: at(Percentile::P99)?,
            p999_ns: at(Percentile::P999)?,
            max_ns: self.max_ns,
        })
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.add(&other.buckets).expect("all latency histograms have the same bounds");
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.saturated += other.saturated;
    }
}

/// File format of a histogram: non-empty buckets only.
#[derive(Serialize, Deserialize)]
struct Buckets {
    /// A value in the bucket (nanoseconds) and its count, ascending.
    buckets: Vec<(u64, u32)>,
    min_ns: u64,
    max_ns: u64,
    total_ns: u64,
    saturated: u64,
}

impl From<LatencyHistogram> for Buckets {
    fn from(histogram: LatencyHistogram) -> Self {
        let buckets = histogram.buckets.iter_recorded();
        Self {
            buckets: buckets.map(|b| (b.value_iterated_to(), b.count_at_value())).collect(),
            min_ns: histogram.min_ns,
            max_ns: histogram.max_ns,
            total_ns: histogram.total_ns,
            saturated: histogram.saturated,
        }
    }
}

impl TryFrom<Buckets> for LatencyHistogram {
    type Error = String;

    fn try_from(file: Buckets) -> Result<Self, String> {
        let mut histogram = Self::new();
        for (value_ns, times) in file.buckets {
            histogram
                .buckets
                .record_n(value_ns, times)
                .map_err(|error| format!("latency bucket at {value_ns} ns: {error:?}"))?;
        }
        histogram.min_ns = file.min_ns;
        histogram.max_ns = file.max_ns;
        histogram.total_ns = file.total_ns;
        histogram.saturated = file.saturated;
        Ok(histogram)
    }
}

/// Histograms of every stage, of the remainder not covered by its parts, and of the prefix age,
/// with the number of deadline misses. About 5 MB, allocated at construction.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(into = "StatisticsFile", try_from = "StatisticsFile")]
pub struct StageStatistics {
    stages: Vec<LatencyHistogram>,
    /// Per stage, the time that its parts do not cover; negative values are recorded as zero.
    rests: Vec<LatencyHistogram>,
    prefix_age: LatencyHistogram,
    ticks: u64,
    ticks_without_prefix: u64,
    deadline_misses: u64,
}

impl Default for StageStatistics {
    fn default() -> Self {
        Self::new()
    }
}

impl StageStatistics {
    /// Creates empty statistics with all of their memory allocated.
    pub fn new() -> Self {
        Self {
            stages: Stage::all().iter().map(|_| LatencyHistogram::new()).collect(),
            rests: Stage::all().iter().map(|_| LatencyHistogram::new()).collect(),
            prefix_age: LatencyHistogram::new(),
            ticks: 0,
            ticks_without_prefix: 0,
            deadline_misses: 0,
        }
    }

    /// Adds one tick: its stages, the age of its prefix (`None` without a prefix), and whether it
    /// missed its deadline. Does not allocate.
    pub fn record(&mut self, stages: &StageTimes, prefix_age: Option<Duration>, is_late: bool) {
        self.ticks += 1;
        self.deadline_misses += u64::from(is_late);
        self.record_stages(stages);
        match prefix_age {
            Some(age) => self.prefix_age.record(age),
            None => self.ticks_without_prefix += 1,
        }
    }

    /// Adds stage durations that do not belong to a tick. Does not allocate.
    pub fn record_stages(&mut self, stages: &StageTimes) {
        for (stage, took) in stages.iter() {
            if !stage.counts_runs() {
                self.stages[stage.index()].record(took);
            }
            if let Some(rest_ns) = stages.rest_ns(stage) {
                self.rests[stage.index()].record(Duration::from_nanos(rest_ns.max(0) as u64));
            }
        }
    }

    /// Adds the single runs of stages that are counted per run. [`record`](Self::record) skips
    /// these, because [`StageTimes`] holds only sums. Does not allocate.
    pub fn record_runs(&mut self, spans: &StageSpans) {
        for span in spans.iter().filter(|span| span.stage.counts_runs()) {
            self.stages[span.stage.index()].record(Duration::from_nanos(span.took_ns));
        }
    }

    /// Returns the durations of `stage`, over the ticks in which it ran.
    pub fn stage(&self, stage: Stage) -> &LatencyHistogram {
        &self.stages[stage.index()]
    }

    /// Returns the time that the parts of `stage` do not cover; empty for stages without parts.
    pub fn rest(&self, stage: Stage) -> &LatencyHistogram {
        &self.rests[stage.index()]
    }

    /// Returns the prefix age, over the ticks that had a prefix.
    pub fn prefix_age(&self) -> &LatencyHistogram {
        &self.prefix_age
    }

    /// Returns the number of ticks.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Returns the number of ticks without a prefix.
    pub fn ticks_without_prefix(&self) -> u64 {
        self.ticks_without_prefix
    }

    /// Returns the number of ticks that missed their deadline.
    pub fn deadline_misses(&self) -> u64 {
        self.deadline_misses
    }

    /// Adds all ticks of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (stage, more) in self.stages.iter_mut().zip(&other.stages) {
            stage.merge(more);
        }
        for (rest, more) in self.rests.iter_mut().zip(&other.rests) {
            rest.merge(more);
        }
        self.prefix_age.merge(&other.prefix_age);
        self.ticks += other.ticks;
        self.ticks_without_prefix += other.ticks_without_prefix;
        self.deadline_misses += other.deadline_misses;
    }
}

/// File format of [`StageStatistics`]: stages by name, without those that never ran.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatisticsFile {
    ticks: u64,
    ticks_without_prefix: u64,
    deadline_misses: u64,
    stages: BTreeMap<String, LatencyHistogram>,
    rests: BTreeMap<String, LatencyHistogram>,
    prefix_age: LatencyHistogram,
}

impl From<StageStatistics> for StatisticsFile {
    fn from(statistics: StageStatistics) -> Self {
        let named = |histograms: Vec<LatencyHistogram>| {
            Stage::all()
                .iter()
                .zip(histograms)
                .filter(|(_, histogram)| histogram.count() > 0)
                .map(|(stage, histogram)| (stage.name().to_owned(), histogram))
                .collect()
        };
        Self {
            ticks: statistics.ticks,
            ticks_without_prefix: statistics.ticks_without_prefix,
            deadline_misses: statistics.deadline_misses,
            stages: named(statistics.stages),
            rests: named(statistics.rests),
            prefix_age: statistics.prefix_age,
        }
    }
}

impl TryFrom<StatisticsFile> for StageStatistics {
    type Error = String;

    fn try_from(file: StatisticsFile) -> Result<Self, String> {
        let mut statistics = Self::new();
        for (histograms, named) in
            [(&mut statistics.stages, file.stages), (&mut statistics.rests, file.rests)]
        {
            for (name, histogram) in named {
                let stage = Stage::named(&name).ok_or_else(|| format!("unknown stage {name:?}"))?;
                histograms[stage.index()] = histogram;
            }
        }
        statistics.prefix_age = file.prefix_age;
        statistics.ticks = file.ticks;
        statistics.ticks_without_prefix = file.ticks_without_prefix;
        statistics.deadline_misses = file.deadline_misses;
        Ok(statistics)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;
    use proptest::prelude::*;

    const ALL: [Percentile; 4] =
        [Percentile::P50, Percentile::P90, Percentile::P99, Percentile::P999];

    fn histogram_of(values_ns: &[u64]) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::new();
        for &value in values_ns {
            histogram.record(Duration::from_nanos(value));
        }
        histogram
    }

    /// Generates latencies of all magnitudes from 1 ns to 60 s.
    fn any_values() -> impl Strategy<Value = Vec<u64>> {
        let value = (0u32..35, any::<u64>())
            .prop_map(|(bits, noise)| ((1 << bits) + noise % (1 << bits)).min(60_000_000_000));
        prop::collection::vec(value, 1..300)
    }

    proptest! {
        #[test]
        fn percentile_error_is_at_most_a_thousandth(values in any_values()) {
            let histogram = histogram_of(&values);
            let mut sorted = values;
            sorted.sort_unstable();
            for percentile in ALL {
                let exact = sorted[percentile.rank(sorted.len() as u64) as usize - 1];
                let found = nanos(histogram.percentile(percentile).unwrap());
                prop_assert!(found >= exact, "{percentile:?}: {found} understates {exact}");
                prop_assert!(found - exact <= exact / 1000, "{percentile:?}: {found} for {exact}");
            }
            prop_assert_eq!(nanos(histogram.max().unwrap()), sorted[sorted.len() - 1]);
            prop_assert_eq!(nanos(histogram.min().unwrap()), sorted[0]);
            prop_assert_eq!(nanos(histogram.total()), sorted.iter().sum::<u64>());
        }

        #[test]
        fn merge_equals_recording_into_one_histogram(left in any_values(), right in any_values()) {
            let mut merged = histogram_of(&left);
            merged.merge(&histogram_of(&right));
            let together = [left, right].concat();
            prop_assert_eq!(merged.summary(), histogram_of(&together).summary());
        }

        #[test]
        fn histogram_survives_serialization(values in any_values()) {
            let histogram = histogram_of(&values);
            let text = serde_json::to_string(&histogram).unwrap();
            let read: LatencyHistogram = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read.summary(), histogram.summary());
        }
    }

    #[test]
    fn ranks_are_exact_at_the_edges() {
        let rank = |percentile: Percentile, count| percentile.rank(count);
        assert_eq!(rank(Percentile::P50, 1), 1);
        assert_eq!(rank(Percentile::P50, 2), 1);
        assert_eq!(rank(Percentile::P99, 100), 99);
        assert_eq!(rank(Percentile::P99, 101), 100);
        assert_eq!(rank(Percentile::P999, 1000), 999);
        assert!(Percentile::P999.is_supported_by(1000) && !Percentile::P999.is_supported_by(999));
        assert!(Percentile::P50.is_supported_by(2) && !Percentile::P50.is_supported_by(1));
    }

    #[test]
    fn value_above_the_range_is_recorded_as_saturated() {
        let mut histogram = LatencyHistogram::new();
        histogram.record(Duration::from_secs(3600));
        assert_eq!(histogram.max(), Some(LONGEST));
        assert_eq!((histogram.count(), histogram.saturated()), (1, 1));
    }

    crate::stages! {
        // A network of a prefill.
        VISION = "test vision", Some(Stage::PREFILL), 10, SlowNetwork;
        /// Another one, which runs several times.
        TOWER = "test tower", Some(Stage::PREFILL), 20, SlowNetwork;
        /// One run of it, counted singly.
        PART = "test part", Some(TOWER), 0, SlowNetwork, each run;
    }

    #[test]
    fn only_counted_stages_are_recorded_per_run() {
        let mut spans = StageSpans::default();
        let mut push = |stage, took_ns| spans.push(Span { stage, start_ns: 0, took_ns });
        push(VISION, 1000);
        push(VISION, 2000);
        push(PART, 30);
        push(PART, 50);
        push(TOWER, 90);
        let mut statistics = StageStatistics::new();
        statistics.record_stages(&spans.times());
        statistics.record_runs(&spans);
        let recorded = |stage| (statistics.stage(stage).count(), statistics.stage(stage).max());
        assert_eq!(recorded(VISION), (1, Some(Duration::from_nanos(3000))));
        assert_eq!(recorded(PART), (2, Some(Duration::from_nanos(50))));
        assert_eq!(statistics.rest(TOWER).max(), Some(Duration::from_nanos(10)));
    }

    #[test]
    fn empty_histogram_has_no_percentiles() {
        assert_eq!(LatencyHistogram::new().summary(), None);
    }

    #[test]
    fn statistics_count_stages_prefixes_and_misses() {
        let mut times = StageTimes::default();
        times.set(Stage::TICK, Duration::from_millis(12));
        times.set(Stage::UPLOAD, Duration::from_millis(5));
        let mut statistics = StageStatistics::new();
        statistics.record(&times, None, false);
        statistics.record(&times, Some(Duration::from_millis(300)), true);
        let mut merged = statistics.clone();
        merged.merge(&statistics);
        let text = serde_json::to_string(&merged).unwrap();
        assert_eq!(serde_json::from_str::<StageStatistics>(&text).unwrap(), merged);
        assert_eq!(merged.rest(Stage::TICK).max(), Some(Duration::from_millis(7)));
        assert_eq!((merged.ticks(), merged.deadline_misses()), (4, 2));
        assert_eq!(merged.ticks_without_prefix(), 2);
        assert_eq!(merged.stage(Stage::TICK).count(), 4);
        assert_eq!(merged.stage(VISION).count(), 0);
        assert_eq!(merged.prefix_age().count(), 2);
    }
}
