//! The record of an engine folder, and the names of its files.

use super::weight_file::WeightFile;
use crate::engine::target::{BackendKind, Target, comma_separated};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use tandem_export::contract::Contract;
use tandem_export::options::Precision;
use tandem_export::registry::Families;
use tandem_export::weights::hex;

/// Name of the file that contains the [`EngineRecord`].
pub const ENGINE_FILE: &str = "engine.json";

/// Name of the file to which `tandem profile` writes the latencies of these engines.
pub const LATENCY_FILE: &str = "latency.json";

/// Format version of [`EngineRecord`]; readers refuse any other.
pub(in crate::engine) const FORMAT: u32 = 2;

/// Extension of engine files.
pub(in crate::engine) const ENGINE_ENDING: &str = "engine";

/// Extension of files with a list of layers.
pub(in crate::engine) const LAYERS_ENDING: &str = "layers.json";

/// Extension of files with kernels that a library compiled in an engine's first run.
pub(in crate::engine) const RUNTIME_CACHE_ENDING: &str = "runtime-cache";

/// Extension of files with converted weights of one engine.
pub(in crate::engine) const WEIGHTS_ENDING: &str = "weights";

/// Extension of build records of finished engines that `engine.json` does not list yet.
const RECORD_ENDING: &str = "built.json";

/// Inputs of an engine's build. Engines with equal keys are interchangeable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Lower-case SHA-256 of the exported graph.
    pub graph_sha256: String,
    /// Lower-case SHA-256 over the values of every weight that the graph reads.
    pub weights_sha256: String,
    pub targets: Vec<Target>,
    /// Properties of the building machine on which the engine depends, such as CPU features; `None`
    /// if it runs on any machine with the target.
    pub machine: Option<String>,
    pub backend: BackendKind,
    /// Name and version of the library.
    pub library: String,
    pub precision: Precision,
    /// Version of tandem that wrote it.
    pub tandem: String,
}

impl Key {
    /// Returns the lower-case SHA-256 over all fields.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(serde_json::to_vec(self).expect("a struct of strings")))
    }

    /// Lists the differences from `now` as text.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, built: &str, now: &str| {
            if built != now {
                differences.push(format!("{what}: built for {built:?}, here is {now:?}"));
            }
        };
        compare("library", &self.library, &now.library);
        let machine = |key: &Self| key.machine.clone().unwrap_or_else(|| "any".into());
        compare("machine", &machine(self), &machine(now));
        compare("targets", &comma_separated(&self.targets), &comma_separated(&now.targets));
        compare("tandem", &self.tandem, &now.tandem);
        compare("back end", self.backend.as_str(), now.backend.as_str());
        compare("graph", &self.graph_sha256, &now.graph_sha256);
        compare("weights", &self.weights_sha256, &now.weights_sha256);
        compare("precision", &precision_name(self.precision), &precision_name(now.precision));
        differences
    }
}

/// Name, length and hash of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Name in the engine folder.
    pub name: String,
    pub bytes: u64,
    /// Lower-case hexadecimal SHA-256.
    pub sha256: String,
}

/// Resources that one build took.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRecord {
    pub seconds: f64,
    pub predicted: Prediction,
    /// Peak resident memory, mapped weights included; `None` if the system does not report it.
    pub peak_resident_bytes: Option<u64>,
    /// Total size of the written files.
    pub result_bytes: u64,
}

/// Record of one built network.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecord {
    pub key: Key,
    pub engine: FileRecord,
    /// Converted weights of this engine alone, if the library wrote any.
    pub own_weights: Option<FileRecord>,
    /// List of the engine's layers, if the library provided one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<FileRecord>,
    /// Files of the network folder and the checkpoint from which weights are read.
    pub weight_files: Vec<WeightFile>,
    pub contract: Contract,
    pub build: BuildRecord,
}

impl NetworkRecord {
    /// Returns the files that belong to this engine alone.
    pub fn files(&self) -> impl Iterator<Item = &FileRecord> {
        [&self.engine].into_iter().chain(&self.own_weights).chain(&self.layers)
    }
}

/// Content of [`ENGINE_FILE`], the record of an engine folder.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineRecord {
    pub format: u32,
    /// Version of tandem that wrote it.
    pub tandem: String,
    /// Folder that the engines were built from.
    pub network_folder: PathBuf,
    /// Lower-case SHA-256 of that folder's `export.json`.
    pub export_sha256: String,
    /// Networks in execution order.
    pub networks: Vec<NetworkRecord>,
}

/// Predicted memory and disk use of one network's build, estimated from its files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// Memory that the process allocates and that must be free.
    pub memory_bytes: u64,
    /// Weights mapped from files; the system may evict them.
    pub mapped_bytes: u64,
    /// Temporary disk space during the build.
    pub scratch_bytes: u64,
    /// Size of the resulting files.
    pub result_bytes: u64,
}

/// Returns the name of a precision as used on the command line.
pub(in crate::engine) fn precision_name(precision: Precision) -> String {
    let value = serde_json::to_value(precision).expect("an enum without fields");
    value.as_str().unwrap_or_default().to_owned()
}

/// Returns whether a file name has the form that [`file_name`] produces: network, key, extension.
pub(super) fn is_engine_file(name: &str) -> bool {
    let endings =
        [LAYERS_ENDING, ENGINE_ENDING, WEIGHTS_ENDING, RECORD_ENDING, RUNTIME_CACHE_ENDING];
    let stem = endings.iter().find_map(|ending| name.strip_suffix(ending)?.strip_suffix('.'));
    let is_key = |key: &str| key.len() == 12 && key.chars().all(|c| c.is_ascii_hexdigit());
    // The name of a layer group contains a dot.
    stem.and_then(|stem| stem.rsplit_once('.'))
        .is_some_and(|(network, key)| Families::known().is_network(network) && is_key(key))
}

/// Returns the name of a file that belongs to the engine of `network`.
pub(in crate::engine) fn file_name(network: &str, key: &Key, ending: &str) -> String {
    format!("{network}.{}.{ending}", &key.sha256()[..12])
}

/// Returns the name of the build record of an engine that [`ENGINE_FILE`] does not list yet.
pub(super) fn record_name(network: &str, key: &Key) -> String {
    file_name(network, key, RECORD_ENDING)
}
