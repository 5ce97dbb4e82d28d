//! The `model:` block of a run file: a family's name and its options.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tandem_files::{shortened, shortened_error};

/// A family's name and options that were given for it, which only the family can check; in a file the
/// options stand beside the key `family`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ModelBlock {
    /// Name of the family.
    pub family: String,
    /// Options by name. Those that are absent have the family's defaults.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

/// Options are not those of their family.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// There is no such option, or it has a value of another type.
    #[error("option {key} of model family {family:?}: {reason}")]
    Option {
        /// The family.
        family: &'static str,
        /// The option, shortened.
        key: String,
        /// The reason, with the options or values that there are.
        reason: String,
    },
    /// A number outside its range.
    #[error("option {key} of model family {family:?} is {found}; it must be {expected}")]
    Range {
        /// The family.
        family: &'static str,
        /// The option.
        key: &'static str,
        /// The value.
        found: String,
        /// The range, as text.
        expected: &'static str,
    },
    /// The options are for another family.
    #[error("the run file has options of model family {given:?}, the model is of {family:?}")]
    Family {
        /// The model's family.
        family: &'static str,
        /// The family of the block, shortened.
        given: String,
    },
}

impl ModelBlock {
    /// The block that gives every option of `options`.
    pub fn of<O: Serialize>(family: &str, options: &O) -> Self {
        let Ok(Value::Object(options)) = serde_json::to_value(options) else {
            unreachable!("options are a struct of plain values")
        };
        Self { family: family.to_owned(), options }
    }

    /// The options of `family`, those that were not given at their defaults.
    ///
    /// # Errors
    /// The block is of another family, or an option is not one of its own.
    pub fn options<O: DeserializeOwned>(&self, family: &'static str) -> Result<O, OptionsError> {
        if self.family != family {
            return Err(OptionsError::Family { family, given: shortened(&self.family) });
        }
        serde_json::from_value(Value::Object(self.options.clone())).map_err(|error| {
            // One by one, because the parser does not say of which option a value is.
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
