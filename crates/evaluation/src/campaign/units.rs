//! Units of a campaign and their division into shards.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use tandem_scene::random::SplitMix64;

/// One drive of a campaign; setting and route are indices, and the repetition counts from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Unit {
    pub setting: usize,
    pub repetition: u32,
    pub route: usize,
}

/// Returns every unit of a campaign: settings outermost, routes innermost, so that an interrupted
/// campaign has complete repetitions of complete settings.
pub fn units(settings: usize, repetitions: u32, routes: usize) -> impl Iterator<Item = Unit> {
    (0..settings).flat_map(move |setting| {
        (0..repetitions).flat_map(move |repetition| {
            (0..routes).map(move |route| Unit { setting, repetition, route })
        })
    })
}

/// Returns the seed of the world in a repetition: `seed` in the first, a different one in each
/// other. Depends only on its arguments, so that settings are compared under common random numbers.
pub fn repetition_seed(seed: u64, repetition: u32) -> u64 {
    if repetition == 0 {
        return seed;
    }
    // The sequence has full period, so no two repetitions have the same seed.
    SplitMix64::at(seed, u64::from(repetition) - 1)
}

/// Part of a campaign's units: every `count`-th, starting with the `index`-th. Written
/// `index/count`, from `1/count` to `count/count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    index: usize,
    count: usize,
}

/// Error in the text or the numbers of a shard.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShardError {
    #[error("{found:?} is not a shard: write INDEX/COUNT, e.g. 1/4 for the first of four")]
    Malformed { found: String },
    #[error("{index}/{count} is not a shard: indices of {count} shards are from 1 to {count}")]
    Range { index: usize, count: usize },
    #[error("{found:?} is not a shard: the count must be 1 or more")]
    ZeroCount { found: String },
}

impl Shard {
    /// The only shard of one: all units.
    pub const ALL: Self = Self { index: 1, count: 1 };

    /// Creates the `index`-th of `count` shards, from 1.
    ///
    /// # Errors
    /// If `index` is not in 1 to `count`.
    pub fn new(index: usize, count: usize) -> Result<Self, ShardError> {
        if count == 0 {
            return Err(ShardError::ZeroCount { found: format!("{index}/{count}") });
        }
        if !(1..=count).contains(&index) {
            return Err(ShardError::Range { index, count });
        }
        Ok(Self { index, count })
    }

    /// True if this shard contains the unit at this position, from 0.
    pub fn contains(self, position: usize) -> bool {
        position % self.count == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let numbers = text.split_once('/').and_then(|(index, count)| {
            Some((index.parse::<usize>().ok()?, count.parse::<usize>().ok()?))
        });
        let (index, count) =
            numbers.ok_or_else(|| ShardError::Malformed { found: text.to_owned() })?;
        Self::new(index, count)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn shards_contain_every_unit_once(
            settings in 1_usize..4,
            repetitions in 1_u32..5,
            routes in 1_usize..40,
            count in 1_usize..50,
        ) {
            let all: Vec<Unit> = units(settings, repetitions, routes).collect();
            prop_assert_eq!(all.len(), settings * repetitions as usize * routes);
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            let mut holders = vec![0; all.len()];
            let mut sizes = Vec::new();
            for index in 1..=count {
                let shard: Shard = format!("{index}/{count}").parse().unwrap();
                let units: Vec<usize> = (0..all.len()).filter(|&unit| shard.contains(unit)).collect();
                sizes.push(units.len());
                units.into_iter().for_each(|unit| holders[unit] += 1);
            }
            prop_assert!(holders.iter().all(|&n| n == 1), "{holders:?}");
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }

        #[test]
        fn repetitions_have_distinct_seeds(seed: u64, a in 0_u32..1000, b in 0_u32..1000) {
            prop_assume!(a != b);
            prop_assert_ne!(repetition_seed(seed, a), repetition_seed(seed, b));
            prop_assert_eq!(repetition_seed(seed, 0), seed);
        }
    }

    #[test]
    fn invalid_shards_are_rejected_with_the_valid_form() {
        let error = |text: &str| text.parse::<Shard>().unwrap_err().to_string();
        assert!(error("0/4").contains("from 1 to 4"), "{}", error("0/4"));
        assert!(error("5/4").contains("from 1 to 4"), "{}", error("5/4"));
        assert!(error("1/0").contains("1 or more"), "{}", error("1/0"));
        for text in ["", "4", "1/", "a/b", "-1/4", "1/4/2"] {
            assert!(error(text).contains("INDEX/COUNT"), "{}", error(text));
        }
        assert_eq!("4/4".parse::<Shard>().unwrap().to_string(), "4/4");
    }
}
