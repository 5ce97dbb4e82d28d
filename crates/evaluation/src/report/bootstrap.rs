//! Confidence intervals of figures over routes, by a cluster bootstrap over routes.
//!
//! Drives of one route under several seeds are correlated, so routes are resampled, each with all
//! its drives. Resampling single drives would give intervals that are too narrow. Every figure is a
//! ratio of two sums over routes (a mean is a sum divided by a count). All figures of one
//! [`Resamples`] use the same resampled routes, which makes the difference between two settings a
//! paired one. Intervals are percentile intervals: with few routes they are too narrow, and for a
//! figure that is the same on every route they have zero width.

use serde::{Deserialize, Serialize};
use tandem_scene::random::SplitMix64;

/// Number of resamples of published intervals.
pub const RESAMPLES: usize = 10_000;

/// Confidence level of intervals.
pub const CONFIDENCE: f64 = 0.95;

/// Contribution of one route to a figure, which is the sum of all numerators divided by
/// the sum of all denominators.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct RouteTotals {
    /// For a mean, the sum over the route's drives.
    pub numerator: f64,
    /// For a mean, the number of the route's drives.
    pub denominator: f64,
}

impl RouteTotals {
    /// Returns a route's contribution to the mean over all drives.
    pub fn of_mean(drives: impl IntoIterator<Item = f64>) -> Self {
        drives.into_iter().fold(Self::default(), |total, value| Self {
            numerator: total.numerator + value,
            denominator: total.denominator + 1.0,
        })
    }
}

/// Figure with its confidence interval.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Estimate {
    pub value: f64,
    /// Lower end of the interval; `None` with fewer than two routes.
    pub low: Option<f64>,
    /// Upper end of the interval; `None` with fewer than two routes.
    pub high: Option<f64>,
}

/// Many resamples of routes, sampled with replacement.
pub struct Resamples {
    n_routes: usize,
    /// Route indices, `n_routes` per resample.
    indices: Vec<u32>,
    confidence: f64,
}

impl Resamples {
    /// Samples `count` resamples of `n_routes` routes. Equal seeds give equal
    /// resamples on every machine.
    pub fn new(n_routes: usize, count: usize, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let route = |_| u32::try_from(random.below(n_routes)).expect("fewer than 2³² routes");
        let indices = (0..count * n_routes).map(route).collect();
        Self { n_routes, indices, confidence: CONFIDENCE }
    }

    /// Returns the figure of `totals`, one per route; `None` if the denominators sum to 0.
    ///
    /// # Panics
    /// If the number of totals is not the number of routes.
    pub fn estimate(&self, totals: &[RouteTotals]) -> Option<Estimate> {
        let value = ratio(totals.iter())?;
        let figures =
            self.resamples().filter_map(|routes| ratio(routes.map(|route| &totals[route])));
        Some(self.with_interval(value, totals.len(), figures.collect()))
    }

    /// Returns the figure of `totals` minus that of `base`, with the same resampled routes; `None`
    /// if the denominators of either sum to 0.
    ///
    /// # Panics
    /// If the numbers of totals are not the number of routes.
    pub fn difference(&self, totals: &[RouteTotals], base: &[RouteTotals]) -> Option<Estimate> {
        assert_eq!(totals.len(), base.len(), "`totals` and `base` have different lengths");
        let value = ratio(totals.iter())? - ratio(base.iter())?;
        let differences = self.resamples().filter_map(|routes| {
            let ours = ratio(routes.clone().map(|route| &totals[route]))?;
            Some(ours - ratio(routes.map(|route| &base[route]))?)
        });
        Some(self.with_interval(value, totals.len(), differences.collect()))
    }

    /// Returns the route indices of each resample.
    fn resamples(&self) -> impl Iterator<Item = impl Iterator<Item = usize> + Clone + '_> {
        self.indices
            .chunks_exact(self.n_routes.max(1))
            .map(|routes| routes.iter().map(|&route| route as usize))
    }

    fn with_interval(&self, value: f64, n_totals: usize, mut values: Vec<f64>) -> Estimate {
        assert_eq!(n_totals, self.n_routes, "one total per route");
        if self.n_routes < 2 || values.is_empty() {
            return Estimate { value, low: None, high: None };
        }
        values.sort_unstable_by(f64::total_cmp);
        let outside = (1.0 - self.confidence) / 2.0 * values.len() as f64;
        let cut = (outside as usize).min((values.len() - 1) / 2);
        Estimate { value, low: Some(values[cut]), high: Some(values[values.len() - 1 - cut]) }
    }
}

/// Returns the sum of numerators divided by that of denominators; `None` if the latter is 0.
fn ratio<'a>(totals: impl Iterator<Item = &'a RouteTotals>) -> Option<f64> {
    let sum = totals.fold(RouteTotals::default(), |sum, total| RouteTotals {
        numerator: sum.numerator + total.numerator,
        denominator: sum.denominator + total.denominator,
    });
    (sum.denominator > 0.0).then(|| sum.numerator / sum.denominator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Samples a number from 0 to 1.
    fn uniform(random: &mut SplitMix64) -> f64 {
        random.next() as f64 / u64::MAX as f64
    }

    /// Scores of routes with `n_drives` drives each: an offset per route plus noise per drive.
    fn routes(random: &mut SplitMix64, n_routes: usize, n_drives: usize) -> Vec<Vec<f64>> {
        let route = |random: &mut SplitMix64| {
            let offset = 100.0 * uniform(random);
            (0..n_drives).map(|_| offset + 10.0 * (uniform(random) - 0.5)).collect()
        };
        (0..n_routes).map(|_| route(random)).collect()
    }

    fn means(routes: &[Vec<f64>]) -> Vec<RouteTotals> {
        routes.iter().map(|drives| RouteTotals::of_mean(drives.iter().copied())).collect()
    }

    fn width(estimate: Estimate) -> f64 {
        estimate.high.unwrap() - estimate.low.unwrap()
    }

    #[test]
    fn about_95_percent_of_intervals_contain_the_true_value() {
        let mut random = SplitMix64::new(7);
        let resamples = Resamples::new(40, 500, 1);
        let experiments = 500;
        let contained = (0..experiments)
            .filter(|_| {
                let found = resamples.estimate(&means(&routes(&mut random, 40, 3))).unwrap();
                (found.low.unwrap()..=found.high.unwrap()).contains(&50.0)
            })
            .count();
        // 0.95 minus the undercoverage of percentile intervals at 40 routes (about 0.01), ± three
        // standard deviations of 500 experiments.
        assert!((455..=488).contains(&contained), "{contained} of {experiments}");
    }

    #[test]
    fn resampling_single_drives_gives_narrower_intervals() {
        let mut random = SplitMix64::new(3);
        let routes = routes(&mut random, 40, 5);
        let by_route = Resamples::new(40, 2000, 1).estimate(&means(&routes)).unwrap();
        let drives: Vec<Vec<f64>> = routes.concat().into_iter().map(|drive| vec![drive]).collect();
        let by_drive = Resamples::new(200, 2000, 1).estimate(&means(&drives)).unwrap();
        assert!((by_route.value - by_drive.value).abs() < 1e-9);
        assert!(width(by_drive) < 0.6 * width(by_route), "{by_drive:?} {by_route:?}");
    }

    #[test]
    fn paired_difference_is_narrower_than_unpaired() {
        let mut random = SplitMix64::new(5);
        let base = routes(&mut random, 40, 3);
        let late: Vec<Vec<f64>> = base
            .iter()
            .map(|drives| drives.iter().map(|score| score - 5.0 * uniform(&mut random)).collect())
            .collect();
        let resamples = Resamples::new(40, 2000, 1);
        let [base, late] = [means(&base), means(&late)];
        let difference = resamples.difference(&late, &base).unwrap();
        let unpaired = [&base, &late].map(|totals| width(resamples.estimate(totals).unwrap()));
        assert!(
            width(difference) < 0.2 * unpaired[0].hypot(unpaired[1]),
            "{difference:?} {unpaired:?}"
        );
        assert!(difference.high.unwrap() < 0.0, "{difference:?}");
        let same = resamples.difference(&base, &base).unwrap();
        assert_eq!(same, Estimate { value: 0.0, low: Some(0.0), high: Some(0.0) });
    }

    #[test]
    fn rate_weights_routes_by_length() {
        let totals = [
            RouteTotals { numerator: 1.0, denominator: 10.0 },
            RouteTotals { numerator: 3.0, denominator: 1.0 },
        ];
        let found = Resamples::new(2, 1000, 1).estimate(&totals).unwrap();
        assert_eq!((found.value, found.low, found.high), (4.0 / 11.0, Some(0.1), Some(3.0)));
    }

    #[test]
    fn one_route_has_no_interval_and_no_route_no_figure() {
        let one =
            Resamples::new(1, 100, 1).estimate(&[RouteTotals::of_mean([60.0, 80.0])]).unwrap();
        assert_eq!(one, Estimate { value: 70.0, low: None, high: None });
        assert_eq!(Resamples::new(0, 100, 1).estimate(&[]), None);
        assert_eq!(Resamples::new(2, 100, 1).estimate(&[RouteTotals::default(); 2]), None);
    }

    proptest! {
        #[test]
        fn interval_is_within_the_range_of_routes(
            values in prop::collection::vec(-100.0..100.0_f64, 2..30),
            seed: u64,
        ) {
            let of_route = |&value: &f64| RouteTotals::of_mean([value]);
            let totals: Vec<RouteTotals> = values.iter().map(of_route).collect();
            let found = Resamples::new(totals.len(), 200, seed).estimate(&totals).unwrap();
            let (low, high) = (found.low.unwrap(), found.high.unwrap());
            prop_assert!(low <= high);
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(low >= least - 1e-9 && high <= most + 1e-9);
            let again = Resamples::new(totals.len(), 200, seed).estimate(&totals).unwrap();
            prop_assert_eq!(found, again);
        }
    }
}
