//! How sure a figure over routes is: a bootstrap that draws routes.
//!
//! Drives of one route under several seeds are alike, so routes are drawn, each with all its drives;
//! single drives would be taken for more evidence than they are. Every figure is a ratio of two sums
//! over routes (a mean is a sum over a count), and all figures of one [`Resamples`] see the same
//! draws, which is what makes a difference between two settings a paired one. Intervals are those of
//! percentiles: with few routes they are too narrow, and a figure that is the same on every route has
//! none to show.

use serde::{Deserialize, Serialize};
use tandem_scene::random::SplitMix64;

/// Draws that published intervals rest on.
pub const RESAMPLES: usize = 10_000;

/// Share of draws that an interval holds.
pub const CONFIDENCE: f64 = 0.95;

/// What one route adds to a figure: the figure is the sum of parts over the sum of wholes.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Share {
    /// For a mean, the sum over the route's drives.
    pub part: f64,
    /// For a mean, the number of the route's drives.
    pub whole: f64,
}

impl Share {
    /// A route's share in the mean over all drives.
    pub fn of_mean(drives: impl IntoIterator<Item = f64>) -> Self {
        drives.into_iter().fold(Self::default(), |share, value| Self {
            part: share.part + value,
            whole: share.whole + 1.0,
        })
    }
}

/// A figure with what it could have been with other routes of the same kind.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Lower end of the interval; `None` with fewer than two routes.
    pub low: Option<f64>,
    /// Upper end of the interval; `None` with fewer than two routes.
    pub high: Option<f64>,
}

/// Routes drawn with replacement, many times.
pub struct Resamples {
    n_routes: usize,
    /// Route indices, `n_routes` of them a draw.
    drawn: Vec<u32>,
    confidence: f64,
}

impl Resamples {
    /// `count` draws of `n_routes` routes; the same seed gives the same draws on every machine.
    pub fn new(n_routes: usize, count: usize, seed: u64) -> Self {
        let mut draws = SplitMix64::new(seed);
        let route = |_| u32::try_from(draws.below(n_routes)).expect("no file has 2³² routes");
        let drawn = (0..count * n_routes).map(route).collect();
        Self { n_routes, drawn, confidence: CONFIDENCE }
    }

    /// The figure of `shares`, one per route; `None` if their wholes come to nothing.
    ///
    /// # Panics
    /// If there are not as many shares as routes.
    pub fn estimate(&self, shares: &[Share]) -> Option<Estimate> {
        let value = ratio(shares.iter())?;
        let figures = self.draws().filter_map(|routes| ratio(routes.map(|route| &shares[route])));
        Some(self.with_interval(value, shares.len(), figures.collect()))
    }

    /// The figure of `shares` less that of `base`, route by route the same draws; `None` if the
    /// wholes of either come to nothing.
    ///
    /// # Panics
    /// If there are not as many shares as routes.
    pub fn difference(&self, shares: &[Share], base: &[Share]) -> Option<Estimate> {
        assert_eq!(shares.len(), base.len(), "pairs have two sides");
        let value = ratio(shares.iter())? - ratio(base.iter())?;
        let differences = self.draws().filter_map(|routes| {
            let ours = ratio(routes.clone().map(|route| &shares[route]))?;
            Some(ours - ratio(routes.map(|route| &base[route]))?)
        });
        Some(self.with_interval(value, shares.len(), differences.collect()))
    }

    /// The routes of each draw.
    fn draws(&self) -> impl Iterator<Item = impl Iterator<Item = usize> + Clone + '_> {
        self.drawn
            .chunks_exact(self.n_routes.max(1))
            .map(|routes| routes.iter().map(|&route| route as usize))
    }

    fn with_interval(&self, value: f64, n_shares: usize, mut drawn: Vec<f64>) -> Estimate {
        assert_eq!(n_shares, self.n_routes, "one share per route");
        if self.n_routes < 2 || drawn.is_empty() {
            return Estimate { value, low: None, high: None };
        }
        drawn.sort_unstable_by(f64::total_cmp);
        let outside = (1.0 - self.confidence) / 2.0 * drawn.len() as f64;
        let cut = (outside as usize).min((drawn.len() - 1) / 2);
        Estimate { value, low: Some(drawn[cut]), high: Some(drawn[drawn.len() - 1 - cut]) }
    }
}

/// The sum of parts over the sum of wholes; `None` if there is no whole.
fn ratio<'a>(shares: impl Iterator<Item = &'a Share>) -> Option<f64> {
    let sum = shares.fold(Share::default(), |sum, share| Share {
        part: sum.part + share.part,
        whole: sum.whole + share.whole,
    });
    (sum.whole > 0.0).then(|| sum.part / sum.whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A number between 0 and 1.
    fn uniform(draws: &mut SplitMix64) -> f64 {
        draws.next() as f64 / u64::MAX as f64
    }

    /// Routes with `n_drives` drives each: an ability of the route's own, and luck of the drive.
    fn routes(draws: &mut SplitMix64, n_routes: usize, n_drives: usize) -> Vec<Vec<f64>> {
        let route = |draws: &mut SplitMix64| {
            let ease = 100.0 * uniform(draws);
            (0..n_drives).map(|_| ease + 10.0 * (uniform(draws) - 0.5)).collect()
        };
        (0..n_routes).map(|_| route(draws)).collect()
    }

    fn means(routes: &[Vec<f64>]) -> Vec<Share> {
        routes.iter().map(|drives| Share::of_mean(drives.iter().copied())).collect()
    }

    fn width(estimate: Estimate) -> f64 {
        estimate.high.unwrap() - estimate.low.unwrap()
    }

    #[test]
    fn nineteen_of_twenty_intervals_hold_the_truth() {
        let mut draws = SplitMix64::new(7);
        let resamples = Resamples::new(40, 500, 1);
        let experiments = 500;
        let holds = (0..experiments)
            .filter(|_| {
                let found = resamples.estimate(&means(&routes(&mut draws, 40, 3))).unwrap();
                (found.low.unwrap()..=found.high.unwrap()).contains(&50.0)
            })
            .count();
        // 0.95 less the percentile interval's defect at 40 routes (about 0.01), give or take three
        // standard deviations of 500 experiments.
        assert!((455..=488).contains(&holds), "{holds} of {experiments}");
    }

    #[test]
    fn drawing_single_drives_would_claim_too_much() {
        let mut draws = SplitMix64::new(3);
        let routes = routes(&mut draws, 40, 5);
        let by_route = Resamples::new(40, 2000, 1).estimate(&means(&routes)).unwrap();
        let drives: Vec<Vec<f64>> = routes.concat().into_iter().map(|drive| vec![drive]).collect();
        let by_drive = Resamples::new(200, 2000, 1).estimate(&means(&drives)).unwrap();
        assert!((by_route.value - by_drive.value).abs() < 1e-9);
        assert!(width(by_drive) < 0.6 * width(by_route), "{by_drive:?} {by_route:?}");
    }

    #[test]
    fn a_pair_tells_more_than_two_settings_on_their_own() {
        let mut draws = SplitMix64::new(5);
        let base = routes(&mut draws, 40, 3);
        let late: Vec<Vec<f64>> = base
            .iter()
            .map(|drives| drives.iter().map(|score| score - 5.0 * uniform(&mut draws)).collect())
            .collect();
        let resamples = Resamples::new(40, 2000, 1);
        let [base, late] = [means(&base), means(&late)];
        let difference = resamples.difference(&late, &base).unwrap();
        let alone = [&base, &late].map(|shares| width(resamples.estimate(shares).unwrap()));
        assert!(width(difference) < 0.2 * alone[0].hypot(alone[1]), "{difference:?} {alone:?}");
        assert!(difference.high.unwrap() < 0.0, "{difference:?}");
        let same = resamples.difference(&base, &base).unwrap();
        assert_eq!(same, Estimate { value: 0.0, low: Some(0.0), high: Some(0.0) });
    }

    #[test]
    fn a_rate_weighs_routes_by_their_length() {
        let shares = [Share { part: 1.0, whole: 10.0 }, Share { part: 3.0, whole: 1.0 }];
        let found = Resamples::new(2, 1000, 1).estimate(&shares).unwrap();
        assert_eq!((found.value, found.low, found.high), (4.0 / 11.0, Some(0.1), Some(3.0)));
    }

    #[test]
    fn one_route_has_no_interval_and_none_has_no_figure() {
        let one = Resamples::new(1, 100, 1).estimate(&[Share::of_mean([60.0, 80.0])]).unwrap();
        assert_eq!(one, Estimate { value: 70.0, low: None, high: None });
        assert_eq!(Resamples::new(0, 100, 1).estimate(&[]), None);
        assert_eq!(Resamples::new(2, 100, 1).estimate(&[Share::default(); 2]), None);
    }

    proptest! {
        #[test]
        fn an_interval_lies_within_what_routes_gave(
            values in prop::collection::vec(-100.0..100.0_f64, 2..30),
            seed: u64,
        ) {
            let shares: Vec<Share> = values.iter().map(|&value| Share::of_mean([value])).collect();
            let found = Resamples::new(shares.len(), 200, seed).estimate(&shares).unwrap();
            let (low, high) = (found.low.unwrap(), found.high.unwrap());
            prop_assert!(low <= high);
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(low >= least - 1e-9 && high <= most + 1e-9);
            let again = Resamples::new(shares.len(), 200, seed).estimate(&shares).unwrap();
            prop_assert_eq!(found, again);
        }
    }
}
