//! The pieces of a campaign, and how they are shared out.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use tandem_scene::random::SplitMix64;

/// One drive of a campaign. Settings and routes are named by their positions in its lists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Unit {
    /// Position of the setting, from 0.
    pub setting: usize,
    /// Repetition, from 0.
    pub repetition: u32,
    /// Position of the route, from 0.
    pub route: usize,
}

/// Every unit of a campaign: settings outermost, routes innermost, so that a campaign that was
/// stopped has whole repetitions of whole settings.
pub fn units(settings: usize, repetitions: u32, routes: usize) -> impl Iterator<Item = Unit> {
    (0..settings).flat_map(move |setting| {
        (0..repetitions).flat_map(move |repetition| {
            (0..routes).map(move |route| Unit { setting, repetition, route })
        })
    })
}

/// Seed of the world in a repetition: `seed` itself in the first, and another one in each further.
/// A function of its arguments alone, so that settings are compared on the same worlds.
pub fn repetition_seed(seed: u64, repetition: u32) -> u64 {
    if repetition == 0 {
        return seed;
    }
    // A sequence passes all numbers before it repeats one, so no two repetitions meet.
    SplitMix64::at(seed, u64::from(repetition) - 1)
}

/// A part of a campaign's units: every `count`-th, from the `index`-th on. Written `index/count`,
/// from `1/count` to `count/count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    index: usize,
    count: usize,
}

/// Not a shard.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShardError {
    /// Not two whole numbers.
    #[error("{found:?} is no shard: write INDEX/COUNT, e.g. 1/4 for the first of four")]
    Words {
        /// What was written.
        found: String,
    },
    /// An index that the count does not have.
    #[error("there is no shard {index}/{count}: indices of {count} shards go from 1 to {count}")]
    Range {
        /// The index.
        index: usize,
        /// The count.
        count: usize,
    },
    /// Shared out among nobody.
    #[error("{found:?} shares the drives out among no shard: the count is 1 or more")]
    None {
        /// What was written.
        found: String,
    },
}

impl Shard {
    /// Everything.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// The `index`-th of `count`, from 1.
    ///
    /// # Errors
    /// If there is no such shard.
    pub fn new(index: usize, count: usize) -> Result<Self, ShardError> {
        if count == 0 {
            return Err(ShardError::None { found: format!("{index}/{count}") });
        }
        if !(1..=count).contains(&index) {
            return Err(ShardError::Range { index, count });
        }
        Ok(Self { index, count })
    }

    /// True if the unit at this position, from 0, is of this shard.
    pub fn holds(self, position: usize) -> bool {
        position % self.count == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let numbers = text.split_once('/').and_then(|(index, count)| {
            Some((index.parse::<usize>().ok()?, count.parse::<usize>().ok()?))
        });
        let (index, count) = numbers.ok_or_else(|| ShardError::Words { found: text.to_owned() })?;
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
        fn shards_share_out_every_unit_once(
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
                let held: Vec<usize> = (0..all.len()).filter(|&unit| shard.holds(unit)).collect();
                sizes.push(held.len());
                held.into_iter().for_each(|unit| holders[unit] += 1);
            }
            prop_assert!(holders.iter().all(|&n| n == 1), "{holders:?}");
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }

        #[test]
        fn repetitions_have_seeds_of_their_own(seed: u64, a in 0_u32..1000, b in 0_u32..1000) {
            prop_assume!(a != b);
            prop_assert_ne!(repetition_seed(seed, a), repetition_seed(seed, b));
            prop_assert_eq!(repetition_seed(seed, 0), seed);
        }
    }

    #[test]
    fn what_is_no_shard_is_refused_with_what_would_be() {
        let words = |text: &str| text.parse::<Shard>().unwrap_err().to_string();
        assert!(words("0/4").contains("from 1 to 4"), "{}", words("0/4"));
        assert!(words("5/4").contains("from 1 to 4"), "{}", words("5/4"));
        assert!(words("1/0").contains("1 or more"), "{}", words("1/0"));
        for text in ["", "4", "1/", "a/b", "-1/4", "1/4/2"] {
            assert!(words(text).contains("INDEX/COUNT"), "{}", words(text));
        }
        assert_eq!("4/4".parse::<Shard>().unwrap().to_string(), "4/4");
    }
}
