//! Route ids, which may be any text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Id of a route, exactly as in its file. Official ids are numbers, but any text is accepted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RouteId(String);

impl RouteId {
    /// Returns the id as text, as in the file.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns a seed for random numbers: the id itself if it is a number below 2³², otherwise a
    /// hash (FNV-1a) of its text.
    pub fn seed(&self) -> u64 {
        if let Some(number) = self.number() {
            return u64::from(number);
        }
        self.0.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// Returns the id as a number, if its text is a number without leading zeros or sign.
    fn number(&self) -> Option<u32> {
        self.0.parse().ok().filter(|number: &u32| number.to_string() == self.0)
    }
}

impl From<&str> for RouteId {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<u32> for RouteId {
    fn from(number: u32) -> Self {
        Self(number.to_string())
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// File format: numeric ids are written as numbers.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u32),
    Text(String),
}

impl Serialize for RouteId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.number() {
            Some(number) => Written::Number(number).serialize(serializer),
            None => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RouteId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Written::deserialize(deserializer)? {
            Written::Number(number) => number.into(),
            Written::Text(text) => Self(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_serialization_and_numbers_stay_numbers() {
        let cases = [("1711", "1711"), ("007", "\"007\""), ("a/b", "\"a/b\""), ("", "\"\"")];
        for (id, json) in cases {
            let id = RouteId::from(id);
            assert_eq!(serde_json::to_string(&id).unwrap(), json);
            assert_eq!(serde_json::from_str::<RouteId>(json).unwrap(), id);
        }
    }

    #[test]
    fn seed_of_a_numeric_id_is_the_number() {
        assert_eq!(RouteId::from(1711).seed(), 1711);
        assert_eq!(RouteId::from("1711").seed(), 1711);
        let texts = ["007", "7 ", "4294967296", "North loop", "a", ""];
        for (place, text) in texts.iter().enumerate() {
            for other in &texts[..place] {
                assert_ne!(RouteId::from(*text).seed(), RouteId::from(*other).seed());
            }
        }
    }
}
