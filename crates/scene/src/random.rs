//! Seeded random numbers that are identical on every machine and in every version.

/// Increment of the state per number; odd, so that the sequence visits all states.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 generator: a sequence of 64-bit numbers that depends on its seed only.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Creates a generator seeded with `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number. The period is 2⁶⁴.
    #[expect(clippy::should_implement_trait, reason = "the sequence has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Returns the number at index `skipped` (from 0) of the sequence of `seed`.
    pub fn at(seed: u64, skipped: u64) -> u64 {
        Self(seed.wrapping_add(STEP.wrapping_mul(skipped))).next()
    }

    /// Mixes `word` into the hash `state`; fold over several values to hash all of them.
    pub fn hash(state: u64, word: u64) -> u64 {
        Self(state ^ word.wrapping_mul(STEP)).next()
    }

    /// Returns a number below `bound`, uniform up to a relative error of `bound` / 2⁶⁴.
    pub fn below(&mut self, bound: usize) -> usize {
        let scaled = (u128::from(self.next()) * bound as u128) >> 64;
        usize::try_from(scaled).expect("it is below a usize")
    }

    /// Returns a number in [0, 1), a multiple of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_matches_published_values() {
        let mut numbers = SplitMix64::new(1_234_567);
        let first: Vec<u64> = (0..5).map(|_| numbers.next()).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(first, published);
        assert_eq!(SplitMix64::at(1_234_567, 3), published[3]);
    }
}
