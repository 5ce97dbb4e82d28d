//! The contract of a network: the JSON file next to each ONNX graph that describes its inputs and
//! outputs.
//!
//! The exporter writes it, an engine checks a loaded graph against it, and a model checks that it
//! describes the expected network. Order matters: sessions bind tensors by position.

use crate::dtype::DType;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Version of the contract format. Readers refuse any other.
pub const FORMAT: u32 = 2;

/// One input or output of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    pub name: String,
    pub dtype: DType,
    /// Dimensions, outermost first; all static.
    pub shape: Vec<usize>,
    /// Axes, unit and coordinate frame, as text.
    pub meaning: String,
}

/// Description of one network for its callers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// [`FORMAT`] at the time of writing.
    pub format: u32,
    /// Name of the network, e.g. `vision`.
    pub network: String,
    /// Name of the model family, e.g. `automot`.
    pub model: String,
    /// Inputs of the network in binding order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, in binding order.
    pub outputs: Vec<TensorSpec>,
    /// Sizes that a user of the network needs, by name (layers, heads …).
    pub sizes: BTreeMap<String, u64>,
    /// Other numbers that a user of the network needs, by name (RoPE theta …).
    pub numbers: BTreeMap<String, f64>,
    /// Lower-case SHA-256 of the graph file.
    pub graph_sha256: String,
}

/// Error of reading a contract.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// The text is not JSON or lacks a key.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The contract has another format version.
    #[error("it has format {found}, this tandem reads format {FORMAT}")]
    Format { found: u32 },
}

/// Error returned when a contract lacks a size or a number.
#[derive(Debug, thiserror::Error)]
#[error(
    "the contract of network {network:?} does not have the numbers of this network ({source}); export \
     the checkpoint again"
)]
pub struct SizesError {
    pub network: String,
    #[source]
    pub source: serde_json::Error,
}

/// The key that is read before the format is known.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Returns the fields of a struct by name.
///
/// # Panics
/// If `fields` has a field that is not a `T`.
pub fn by_name<T: DeserializeOwned>(fields: &impl Serialize) -> BTreeMap<String, T> {
    let fields = serde_json::to_value(fields).expect("plain structs serialize");
    serde_json::from_value(fields).expect("all fields of the struct are of this type")
}

impl Contract {
    /// Parses a contract. Fails if the text is not a contract, or has another format version.
    pub fn parse(text: &[u8]) -> Result<Self, ContractError> {
        let FormatOnly { format } = serde_json::from_slice(text)?;
        if format != FORMAT {
            return Err(ContractError::Format { found: format });
        }
        Ok(serde_json::from_slice(text)?)
    }

    /// Reads the sizes as a struct with a field for each. Fails if one is missing.
    pub fn read_sizes<T: DeserializeOwned>(&self) -> Result<T, SizesError> {
        self.read(self.sizes.iter().map(|(name, &size)| (name.clone(), size.into())).collect())
    }

    /// Reads the numbers as a struct with a field for each. Fails if one is missing.
    pub fn read_numbers<T: DeserializeOwned>(&self) -> Result<T, SizesError> {
        self.read(self.numbers.iter().map(|(name, &size)| (name.clone(), size.into())).collect())
    }

    fn read<T: DeserializeOwned>(
        &self,
        fields: serde_json::Map<String, Value>,
    ) -> Result<T, SizesError> {
        serde_json::from_value(Value::Object(fields))
            .map_err(|source| SizesError { network: self.network.clone(), source })
    }

    /// Position of an input, by name.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|tensor| tensor.name == name)
    }

    /// Position of an output, by name.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|tensor| tensor.name == name)
    }
}
