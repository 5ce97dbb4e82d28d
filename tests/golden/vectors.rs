//! Reads golden vectors and compares results with them.
//!
//! The folder is `tests/data/automot`, or `TANDEM_GOLDEN_DIR` with another set of the same layout and
//! any dimensions. Tensors that a set does not store are not compared.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::PathBuf;

/// Returns the folder of vectors.
#[expect(clippy::disallowed_methods, reason = "the environment selects the vectors of the tests")]
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("TANDEM_GOLDEN_DIR").map_or_else(
        || PathBuf::from(tandem_testkit::ROOT).join("tests/data/automot"),
        PathBuf::from,
    )
}

/// One file of vectors with its entry in `index.json`.
pub(crate) struct Vectors {
    name: String,
    bytes: Vec<u8>,
    /// The `extra` object of the index.
    pub(crate) extra: Value,
    tolerance: Tolerance,
}

/// Result of a comparison. A failed comparison panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compared {
    /// All stored values are within the tolerance.
    Within,
    /// The set does not store this tensor.
    NotStored,
}

impl Compared {
    /// Panics if the set does not store the tensor.
    #[track_caller]
    pub(crate) fn needed(self) {
        assert_eq!(self, Self::Within, "the set does not store it");
    }
}

/// Allowed difference from a golden value: `atol + rtol · |expected|`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    pub(crate) atol: f64,
    pub(crate) rtol: f64,
}

/// A stored tensor, converted to f64.
pub(crate) struct Stored {
    pub(crate) shape: Vec<usize>,
    /// Row-major.
    pub(crate) values: Vec<f64>,
}

impl Vectors {
    /// Reads `name.safetensors`; `None` if this set has no such file.
    pub(crate) fn read(name: &str) -> Option<Self> {
        let index = std::fs::read(folder().join("index.json")).expect("the set has an index.json");
        let index: Value = serde_json::from_slice(&index).expect("index.json is JSON");
        let file = format!("{name}.safetensors");
        let entry = index["files"].get(&file)?;
        let bytes = std::fs::read(folder().join(&file)).expect("listed files exist");
        let tolerance = tolerance(&index["suggested_tolerance"], name);
        Some(Self { name: name.into(), bytes, extra: entry["extra"].clone(), tolerance })
    }

    /// Reads a tensor; `None` if the set does not store it.
    pub(crate) fn get(&self, tensor: &str) -> Option<Stored> {
        let file = SafeTensors::deserialize(&self.bytes).expect("a safetensors file");
        let view = file.tensor(tensor).ok()?;
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => {
                data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect()
            }
            Dtype::F64 => data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::I64 => {
                data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect()
            }
            Dtype::U8 | Dtype::BOOL => data.iter().map(|&b| b.into()).collect(),
            other => panic!("{}: {tensor} has dtype {other:?}", self.name),
        };
        Some(Stored { shape: view.shape().to_vec(), values })
    }

    /// Reads a tensor that every set of this layout stores.
    #[track_caller]
    pub(crate) fn need(&self, tensor: &str) -> Stored {
        self.get(tensor).unwrap_or_else(|| panic!("{} stores no {tensor}", self.name))
    }

    /// Compares `found` with the stored tensor within the tolerance of the set, if the set stores it. A
    /// set may store the leading rows, channels or columns of a large tensor.
    #[track_caller]
    pub(crate) fn compare(&self, tensor: &str, found: &[f32], shape: &[usize]) -> Compared {
        let Some(stored) = self.get(tensor) else { return Compared::NotStored };
        let what = format!("{}/{tensor}", self.name);
        compare(
            &what,
            &stored.values,
            &leading(&what, found, shape, &stored.shape),
            self.tolerance,
        );
        Compared::Within
    }

    /// Compares the leading `block` of `found` with that of the stored tensor.
    #[track_caller]
    pub(crate) fn compare_block(
        &self,
        tensor: &str,
        found: &[f32],
        shape: &[usize],
        block: &[usize],
    ) {
        let stored = self.need(tensor);
        let what = format!("{}/{tensor}", self.name);
        let expected = leading(&what, &stored.values, &stored.shape, block);
        compare(&what, &expected, &leading(&what, found, shape, block), self.tolerance);
    }

    /// Compares integers exactly.
    #[track_caller]
    pub(crate) fn compare_exactly(&self, tensor: &str, found: &[i64]) {
        let stored = self.need(tensor);
        let found: Vec<f64> = found.iter().map(|&value| value as f64).collect();
        assert_eq!(stored.values, found, "{}/{tensor}", self.name);
    }
}

/// Returns the leading block of dimensions `part` of a tensor of dimensions `shape`.
#[track_caller]
fn leading<T: Copy>(what: &str, values: &[T], shape: &[usize], part: &[usize]) -> Vec<T> {
    assert_eq!(values.len(), shape.iter().product::<usize>(), "{what}: values of {shape:?}");
    let fits = shape.len() == part.len() && part.iter().zip(shape).all(|(part, all)| part <= all);
    assert!(fits, "{what}: stored {part:?}, found {shape:?}");
    (0..part.iter().product())
        .map(|flat: usize| {
            let (mut rest, mut place, mut stride) = (flat, 0, 1);
            for (&part, &all) in part.iter().zip(shape).rev() {
                place += rest % part * stride;
                rest /= part;
                stride *= all;
            }
            values[place]
        })
        .collect()
}

/// Panics with the worst value if a value is outside the tolerance.
#[track_caller]
pub(crate) fn compare(what: &str, expected: &[f64], found: &[f32], tolerance: Tolerance) {
    assert_eq!(expected.len(), found.len(), "{what}: number of values");
    let mut worst = (0.0, 0);
    for (place, (&expected, &found)) in expected.iter().zip(found).enumerate() {
        let difference = (expected - f64::from(found)).abs();
        let excess = difference / (tolerance.atol + tolerance.rtol * expected.abs());
        // NaN must fail.
        let excess = if excess.is_nan() { f64::INFINITY } else { excess };
        if excess > worst.0 {
            worst = (excess, place);
        }
    }
    let (excess, place) = worst;
    assert!(
        excess <= 1.0,
        "{what}: value {place} is {}, expected {} ({excess:.1} × the tolerance {tolerance:?})",
        found[place],
        expected[place],
    );
}

/// Finds the tolerance with a key that matches the file. Keys are comma-separated patterns with a `*`.
fn tolerance(suggested: &Value, name: &str) -> Tolerance {
    let matches = |pattern: &str| {
        let pattern = pattern.trim().trim_end_matches(".safetensors");
        match pattern.split_once('*') {
            Some((start, _)) => name.starts_with(start),
            None => name == pattern,
        }
    };
    let entries = suggested.as_object().expect("suggested_tolerance is an object");
    let entry = entries.iter().find(|(key, _)| key.split(',').any(matches));
    let number = |key: &str| entry.and_then(|(_, value)| value[key].as_f64());
    Tolerance { atol: number("atol").unwrap_or(2e-4), rtol: number("rtol").unwrap_or(1e-4) }
}
