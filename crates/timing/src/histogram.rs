//! What stages took over many ticks, in fixed memory.
//!
//! Percentiles are nearest-rank: the p-th is the smallest recorded value that at least p percent of
//! all values do not exceed. A bucket reports its upper edge, so a percentile is never understated
//! and at most 0.1 % overstated; counts, minimum and maximum are exact.

use super::{Stage, StageSpans, StageTimes};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest time that is told apart from longer ones.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Decimal digits that a bucket keeps.
const DIGITS: u8 = 3;

/// Times between 1 ns and [`LONGEST`] at 3 digits, about 105 kB whatever their number. Longer ones
/// count as [`LONGEST`] and are counted once more as saturated.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(into = "Buckets", try_from = "Buckets")]
pub struct LatencyHistogram {
    buckets: Histogram<u32>,
    min_ns: u64,
    max_ns: u64,
    total_ns: u64,
    saturated: u64,
}

/// The five numbers that tables print. All times in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Number of values that the others rest on.
    pub count: u64,
    /// Nearest-rank median.
    pub p50_ns: u64,
    /// Nearest-rank 90th percentile.
    pub p90_ns: u64,
    /// Nearest-rank 99th percentile.
    pub p99_ns: u64,
    /// Nearest-rank 99.9th percentile.
    pub p999_ns: u64,
    /// Largest value, exactly (unless saturated).
    pub max_ns: u64,
}

/// A percentile as a fraction, so that ranks come out exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Percentile {
    /// How many…
    pub numerator: u64,
    /// …of how many. Not zero, not below the numerator.
    pub denominator: u64,
}

impl Percentile {
    /// The median.
    pub const P50: Self = Self { numerator: 50, denominator: 100 };
    /// The 90th percentile.
    pub const P90: Self = Self { numerator: 90, denominator: 100 };
    /// The 99th percentile.
    pub const P99: Self = Self { numerator: 99, denominator: 100 };
    /// The 99.9th percentile.
    pub const P999: Self = Self { numerator: 999, denominator: 1000 };

    /// Whether `count` values can tell it from the maximum.
    pub fn is_supported_by(self, count: u64) -> bool {
        count.saturating_mul(self.denominator - self.numerator) >= self.denominator
    }

    /// Which of `count` sorted values it is, from 1: ⌈count · p⌉, at least 1.
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
    /// An empty histogram, its memory already allocated.
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

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.buckets.len()
    }

    /// All values together, exactly unless saturated.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns)
    }

    /// Number of values longer than [`LONGEST`].
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    /// The largest value, exactly unless saturated; `None` without values.
    pub fn max(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_nanos(self.max_ns))
    }

    /// The smallest value, exactly; `None` without values.
    pub fn min(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_nanos(self.min_ns))
    }

    /// A nearest-rank percentile; `None` without values.
    pub fn percentile(&self, percentile: Percentile) -> Option<Duration> {
        self.at_rank(percentile.rank(self.count()))
    }

    /// The value at a rank, from 1 for the smallest; `None` without that many values.
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

    /// Value and number of occurrences of every bucket that is not empty, ascending, nanoseconds.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let buckets = self.buckets.iter_recorded();
        buckets.map(|bucket| (bucket.value_iterated_to(), u64::from(bucket.count_at_value())))
    }

    /// What tables print; `None` without values.
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

/// A histogram in a file: non-empty buckets only.
#[derive(Serialize, Deserialize)]
struct Buckets {
    /// Value inside the bucket and how often, ascending.
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

/// What every stage took, what its parts leave over, how old prefixes were, and how many deadlines
/// were missed. About 5 MB, all of it allocated at the start.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(into = "StatisticsFile", try_from = "StatisticsFile")]
pub struct StageStatistics {
    stages: Vec<LatencyHistogram>,
    /// Of each stage that has parts, what these leave over; below zero counts as zero.
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
    /// Statistics of no tick.
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

    /// Adds one tick: its stages, the age of the prefix it acted on (if there was one), and whether
    /// its control came after its deadline. Does not allocate.
    pub fn record(&mut self, stages: &StageTimes, prefix_age: Option<Duration>, is_late: bool) {
        self.ticks += 1;
        self.deadline_misses += u64::from(is_late);
        self.record_stages(stages);
        match prefix_age {
            Some(age) => self.prefix_age.record(age),
            None => self.ticks_without_prefix += 1,
        }
    }

    /// Adds what stages took outside of any tick. Does not allocate.
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

    /// Adds the runs of stages that are counted run by run, which [`record`](Self::record) leaves
    /// out since times hold only their sum. Does not allocate.
    pub fn record_runs(&mut self, spans: &StageSpans) {
        for span in spans.iter().filter(|span| span.stage.counts_runs()) {
            self.stages[span.stage.index()].record(Duration::from_nanos(span.took_ns));
        }
    }

    /// What `stage` took, over the ticks at which it ran.
    pub fn stage(&self, stage: Stage) -> &LatencyHistogram {
        &self.stages[stage.index()]
    }

    /// What the parts of `stage` leave over; empty for stages without parts.
    pub fn rest(&self, stage: Stage) -> &LatencyHistogram {
        &self.rests[stage.index()]
    }

    /// Age of the prefix, over the ticks that had one.
    pub fn prefix_age(&self) -> &LatencyHistogram {
        &self.prefix_age
    }

    /// Number of ticks.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Number of ticks before there was a prefix.
    pub fn ticks_without_prefix(&self) -> u64 {
        self.ticks_without_prefix
    }

    /// Number of ticks whose control came after its deadline.
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

/// Statistics in a file: stages by name, those that never ran left out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatisticsFile {
    ticks: u64,
    ticks_without_prefix: u64,
    deadline_misses: u64,
    stages: BTreeMap<String, LatencyHistogram>,
    /// By the stage whose parts leave it over.
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
                let stage = Stage::named(&name).ok_or_else(|| format!("no stage {name:?}"))?;
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

    /// Times over all magnitudes from 1 ns to 60 s.
    fn any_values() -> impl Strategy<Value = Vec<u64>> {
        let value = (0u32..35, any::<u64>())
            .prop_map(|(bits, noise)| ((1 << bits) + noise % (1 << bits)).min(60_000_000_000));
        prop::collection::vec(value, 1..300)
    }

    proptest! {
        #[test]
        fn percentiles_are_nearest_rank_within_a_thousandth(values in any_values()) {
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
        fn merging_equals_recording_everything_in_one(left in any_values(), right in any_values()) {
            let mut merged = histogram_of(&left);
            merged.merge(&histogram_of(&right));
            let together = [left, right].concat();
            prop_assert_eq!(merged.summary(), histogram_of(&together).summary());
        }

        #[test]
        fn a_histogram_survives_its_file(values in any_values()) {
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
    fn values_beyond_the_range_count_as_the_longest_and_are_told() {
        let mut histogram = LatencyHistogram::new();
        histogram.record(Duration::from_secs(3600));
        assert_eq!(histogram.max(), Some(LONGEST));
        assert_eq!((histogram.count(), histogram.saturated()), (1, 1));
    }

    crate::stages! {
        /// A network of a refresh.
        VISION = "test vision", Some(Stage::REFRESH), 10, SlowNetwork;
        /// Another, of several runs.
        WHOLE = "test whole", Some(Stage::REFRESH), 20, SlowNetwork;
        /// One of them.
        PART = "test part", Some(WHOLE), 0, SlowNetwork, each run;
    }

    #[test]
    fn layer_groups_count_run_by_run_and_all_else_by_refresh() {
        let mut spans = StageSpans::default();
        let mut push = |stage, took_ns| spans.push(Span { stage, start_ns: 0, took_ns });
        push(VISION, 1000);
        push(VISION, 2000);
        push(PART, 30);
        push(PART, 50);
        push(WHOLE, 90);
        let mut statistics = StageStatistics::new();
        statistics.record_stages(&spans.times());
        statistics.record_runs(&spans);
        let told = |stage| (statistics.stage(stage).count(), statistics.stage(stage).max());
        assert_eq!(told(VISION), (1, Some(Duration::from_nanos(3000))));
        assert_eq!(told(PART), (2, Some(Duration::from_nanos(50))));
        assert_eq!(statistics.rest(WHOLE).max(), Some(Duration::from_nanos(10)));
    }

    #[test]
    fn an_empty_histogram_has_no_percentiles() {
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
