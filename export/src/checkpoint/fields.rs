//! Reads keys of a JSON file. Every error names the file and the key, and [`Fields::finish`] refuses
//! keys that were neither read nor listed as ignored.

use super::CheckpointError;
use super::small_file;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tandem_files::shortened;

/// Largest count in a configuration. A product of three such counts fits in 64 bits, and the largest
/// known embedding table has 262,144 rows.
pub(crate) const MAX_COUNT: usize = 1 << 21;

/// A JSON object with its file and the path of keys to it.
pub(crate) struct Fields {
    file: PathBuf,
    prefix: String,
    object: Value,
    read: RefCell<BTreeSet<String>>,
}

impl Fields {
    /// Reads a file; `None` if it does not exist.
    pub(crate) fn read(file: &Path) -> Result<Option<Self>, CheckpointError> {
        let Some(bytes) = small_file::read(file)? else { return Ok(None) };
        let object: Value = serde_json::from_slice(&bytes)
            .map_err(|source| CheckpointError::NotJson { path: file.into(), source })?;
        let fields = Self::new(file, String::new(), object);
        if !fields.object.is_object() {
            return Err(fields.wrong_type("the top level", "an object", &fields.object));
        }
        Ok(Some(fields))
    }

    /// Creates an empty object, for an optional file that does not exist.
    pub(crate) fn empty(file: &Path) -> Self {
        Self::new(file, String::new(), Value::Object(serde_json::Map::new()))
    }

    fn new(file: &Path, prefix: String, object: Value) -> Self {
        Self { file: file.into(), prefix, object, read: RefCell::default() }
    }

    /// Returns the object under `key`.
    pub(crate) fn object(&self, key: &str) -> Result<Self, CheckpointError> {
        let value = self.required(key, "an object")?;
        if !value.is_object() {
            return Err(self.wrong_type(&self.path_of(key), "an object", value));
        }
        Ok(Self::new(&self.file, format!("{}.", self.path_of(key)), value.clone()))
    }

    /// Checks that every key was read, is in `ignored`, or has an empty value. Fails if there is
    /// another key: it may change what the model computes.
    pub(crate) fn finish(&self, ignored: &[&str]) -> Result<(), CheckpointError> {
        let read = self.read.borrow();
        for (key, value) in self.object.as_object().into_iter().flatten() {
            let is_known = read.contains(key) || ignored.contains(&key.as_str());
            let is_empty = value.is_null()
                || value.as_object().is_some_and(serde_json::Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty);
            if !is_known && !is_empty {
                return Err(CheckpointError::UnknownKey {
                    path: self.file.clone(),
                    key: self.path_of(&shortened(key)),
                    found: shortened(value),
                });
            }
        }
        Ok(())
    }

    /// True if `key` exists and is not null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Reads an integer from one to [`MAX_COUNT`].
    pub(crate) fn count(&self, key: &str) -> Result<usize, CheckpointError> {
        self.count_up_to(key, MAX_COUNT)
    }

    /// Reads an integer from one to `limit`.
    pub(crate) fn count_up_to(&self, key: &str, limit: usize) -> Result<usize, CheckpointError> {
        let expected = "an integer above zero";
        let value = self.required(key, expected)?;
        let count = integer(value)
            .filter(|&count| count > 0)
            .ok_or_else(|| self.wrong_type(&self.path_of(key), expected, value))?;
        self.at_most(key, count, limit)
    }

    /// Checks that `count`, the value of `key`, is at most `limit`.
    pub(crate) fn at_most(
        &self,
        key: &str,
        count: usize,
        limit: usize,
    ) -> Result<usize, CheckpointError> {
        if count > limit {
            return Err(self.invalid(key, format!("at most {limit}")));
        }
        Ok(count)
    }

    /// Like [`count`](Self::count), with a default for an absent key.
    pub(crate) fn count_or(&self, key: &str, default: usize) -> Result<usize, CheckpointError> {
        if self.has(key) { self.count(key) } else { Ok(default) }
    }

    /// Reads a number of pixels, which may exceed [`MAX_COUNT`], with a default for an absent key.
    pub(crate) fn pixels_or(&self, key: &str, default: usize) -> Result<usize, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        integer(value)
            .ok_or_else(|| self.wrong_type(&self.path_of(key), "a number of pixels", value))
    }

    /// Returns all keys of the object.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.object.as_object().into_iter().flat_map(|object| object.keys().cloned()).collect()
    }

    /// Reads a finite floating-point number.
    pub(crate) fn number(&self, key: &str) -> Result<f64, CheckpointError> {
        let value = self.required(key, "a number")?;
        number(value).ok_or_else(|| self.wrong_type(&self.path_of(key), "a number", value))
    }

    /// Like [`number`](Self::number), with a default for an absent key.
    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<f64, CheckpointError> {
        if self.has(key) { self.number(key) } else { Ok(default) }
    }

    /// Reads a boolean, with a default for an absent key. Numbers are converted as in Python.
    pub(crate) fn flag_or(&self, key: &str, default: bool) -> Result<bool, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let plain = plain(value);
        plain
            .as_bool()
            .or_else(|| plain.as_f64().map(|number| number != 0.0))
            .ok_or_else(|| self.wrong_type(&self.path_of(key), "true or false", value))
    }

    /// Reads a string, with a default for an absent key.
    pub(crate) fn text_or(&self, key: &str, default: &str) -> Result<String, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(default.to_owned()) };
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| self.wrong_type(&self.path_of(key), "a string", value))
    }

    /// Reads a list of numbers. A single number is repeated `length` times.
    pub(crate) fn numbers(&self, key: &str, length: usize) -> Result<Vec<f64>, CheckpointError> {
        let expected = "a list of numbers";
        let value = self.required(key, expected)?;
        if let Some(number) = number(value) {
            return Ok(vec![number; length]);
        }
        plain(value)
            .as_array()
            .and_then(|list| list.iter().map(number).collect())
            .ok_or_else(|| self.wrong_type(&self.path_of(key), expected, value))
    }

    /// Reads a list with strings as elements.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, CheckpointError> {
        let expected = "a list of strings";
        let value = self.required(key, expected)?;
        plain(value)
            .as_array()
            .and_then(|list| list.iter().map(|text| text.as_str().map(str::to_owned)).collect())
            .ok_or_else(|| self.wrong_type(&self.path_of(key), expected, value))
    }

    /// Reads a list of non-negative integers.
    pub(crate) fn indices(&self, key: &str) -> Result<Vec<usize>, CheckpointError> {
        let expected = "a list of non-negative integers";
        let value = self.required(key, expected)?;
        plain(value)
            .as_array()
            .and_then(|list| list.iter().map(integer).collect())
            .ok_or_else(|| self.wrong_type(&self.path_of(key), expected, value))
    }

    /// Reads a token id, an unsigned 32-bit integer.
    pub(crate) fn token(&self, key: &str) -> Result<u32, CheckpointError> {
        let value = self.required(key, "a token id")?;
        integer(value)
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| self.wrong_type(&self.path_of(key), "a token id", value))
    }

    /// Creates the error for a value that breaks a rule. `key` may be arbitrary text from the file.
    pub(crate) fn invalid(&self, key: &str, expected: String) -> CheckpointError {
        CheckpointError::InvalidValue {
            path: self.file.clone(),
            key: self.path_of(&shortened(key)),
            expected,
            found: self.get(key).map_or_else(|| "absent (its default)".to_owned(), shortened),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn required(&self, key: &str, expected: &'static str) -> Result<&Value, CheckpointError> {
        self.get(key).ok_or_else(|| CheckpointError::MissingKey {
            path: self.file.clone(),
            key: self.path_of(key),
            expected,
        })
    }

    fn path_of(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn wrong_type(&self, key: &str, expected: &'static str, value: &Value) -> CheckpointError {
        CheckpointError::WrongType {
            path: self.file.clone(),
            key: key.to_owned(),
            expected,
            found: shortened(value),
        }
    }
}

/// Unwraps jsonpickle's encodings of tuples, numpy arrays and numpy scalars.
fn plain(value: &Value) -> &Value {
    ["py/tuple", "values", "value"].iter().find_map(|key| value.get(key)).unwrap_or(value)
}

fn number(value: &Value) -> Option<f64> {
    plain(value).as_f64().filter(|number| number.is_finite())
}

fn integer(value: &Value) -> Option<usize> {
    // Python's configurations write some counts as 5.0. Counts above 2^32 are not plausible.
    let number = number(value)?;
    (number >= 0.0 && number <= f64::from(u32::MAX) && number.fract() == 0.0)
        .then_some(number as usize)
}
