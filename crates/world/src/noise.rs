//! Random numbers: a small, fast generator seeded with a seed, a purpose and a frame.

use std::f64::consts::TAU;

/// Use of a random sequence; each use has its own numbers.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Traffic = 1,
    Imu = 2,
    Gnss = 3,
    Lidar = 4,
    Scenery = 5,
    Scenarios = 6,
    Control = 7,
}

/// Bounds of a uniform distribution: `low` is inclusive, `high` exclusive unless it equals `low`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// A splitmix64 generator: the same seed gives the same numbers on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    /// Creates a generator that depends only on `seed`, `purpose` and `frame`, so that switching
    /// one sensor off does not change the numbers of the others.
    pub(crate) fn new(seed: u64, purpose: u64, frame: u64) -> Self {
        let mut noise = Self(seed ^ purpose.wrapping_mul(0xA076_1D64_78BD_642F));
        let mixed = noise.bits() ^ frame.wrapping_mul(0xE703_7ED1_A0B4_28DB);
        Self(mixed)
    }

    /// Returns 64 uniform bits (one step of splitmix64).
    #[inline]
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// Returns a uniform number in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a uniform number in [`low`, `high`).
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Returns a uniform number within `bounds`.
    pub(crate) fn within(&mut self, bounds: Interval) -> f64 {
        self.between(bounds.low, bounds.high)
    }

    /// Returns a uniform integer in 0..`n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n - 1)
    }

    /// Returns a normal number with mean 0 and the given standard deviation (Box–Muller).
    pub(crate) fn normal(&mut self, deviation: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        deviation * radius * (TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_the_given_deviation() {
        let mut noise = Noise::new(7, 1, 1);
        let numbers: Vec<f64> = (0..100_000).map(|_| noise.normal(2.0)).collect();
        let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
        let square = numbers.iter().map(|number| number * number).sum::<f64>();
        assert!(mean.abs() < 0.03, "{mean}");
        assert!(((square / numbers.len() as f64).sqrt() - 2.0).abs() < 0.03);
    }

    #[test]
    fn purposes_and_frames_do_not_share_numbers() {
        let first = |purpose, frame| Noise::new(1, purpose, frame).bits();
        assert_ne!(first(1, 1), first(2, 1));
        assert_ne!(first(1, 1), first(1, 2));
        assert_eq!(first(3, 9), first(3, 9));
    }
}
