//! The `model:` block of a run file: a family and its options.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tandem_files::{shortened, shortened_error};

/// A family and options for it, which only the family can validate. In a file the options are on
/// the same level as the key `family`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ModelBlock {
    pub family: String,
    /// Options by name; absent ones have the family's defaults.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

/// Error returned for invalid options of a family.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The option is unknown or its value has another type.
    #[error("option {key} of model family {family:?}: {reason}")]
    Option {
        family: &'static str,
        /// The option, shortened.
        key: String,
        /// The reason, with the valid options or values.
        reason: String,
    },
    #[error("option {key} of model family {family:?} is {found}; it must be {expected}")]
    Range {
        family: &'static str,
        key: &'static str,
        found: String,
        /// The valid range as text.
        expected: &'static str,
    },
    #[error(
        "the run file has options of model family {given:?}, but the model is of family {family:?}"
    )]
    Family {
        family: &'static str,
        /// Family of the block, shortened.
        given: String,
    },
}

impl ModelBlock {
    /// Creates a block with every option of `options`.
    pub fn of<O: Serialize>(family: &str, options: &O) -> Self {
        let Ok(Value::Object(options)) = serde_json::to_value(options) else {
            unreachable!("options are a struct of plain values")
        };
        Self { family: family.to_owned(), options }
    }

    /// Returns the options of `family`, with defaults for absent ones. Fails if the block is of
    /// another family or an option is invalid.
    pub fn options<O: DeserializeOwned>(&self, family: &'static str) -> Result<O, OptionsError> {
        if self.family != family {
            return Err(OptionsError::Family { family, given: shortened(&self.family) });
        }
        serde_json::from_value(Value::Object(self.options.clone())).map_err(|error| {
            // Parses each option alone, because the parser does not report which option a value
            // belongs to.
            let of_one = self.options.iter().find_map(|(key, value)| {
                let alone = Map::from_iter([(key.clone(), value.clone())]);
                let error = serde_json::from_value::<O>(Value::Object(alone)).err()?;
                Some((shortened(key), error))
            });
            let (key, error) = of_one.unwrap_or((String::new(), error));
            OptionsError::Option { family, key, reason: shortened_error(error) }
        })
    }
}
