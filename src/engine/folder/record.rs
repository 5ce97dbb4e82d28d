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

/// File of the [`EngineRecord`].
pub const ENGINE_FILE: &str = "engine.json";

/// File in which `tandem profile` leaves the latencies of these engines.
pub const LATENCY_FILE: &str = "latency.json";

/// Version of [`EngineRecord`]'s layout; a reader refuses another.
pub(in crate::engine) const FORMAT: u32 = 2;

/// Ending of engine files.
pub(in crate::engine) const ENGINE_ENDING: &str = "engine";

/// Ending of files of layers.
pub(in crate::engine) const LAYERS_ENDING: &str = "layers.json";

/// Ending of files with kernels that a library compiled when an engine first ran.
pub(in crate::engine) const RUNTIME_CACHE_ENDING: &str = "runtime-cache";

/// Ending of files of weights that only one engine has.
pub(in crate::engine) const WEIGHTS_ENDING: &str = "weights";

/// Ending of the records of engines that no `engine.json` names yet.
const RECORD_ENDING: &str = "built.json";

/// Everything that an engine was made from. Engines of equal keys are interchangeable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Lower-case SHA-256 of the exported graph.
    pub graph_sha256: String,
    /// Lower-case SHA-256 over the values of every weight that the graph reads.
    pub weights_sha256: String,
    /// What it runs on.
    pub targets: Vec<Target>,
    /// What else of the building machine it depends on, such as CPU features.
    pub machine: Option<String>,
    /// What built it.
    pub backend: BackendKind,
    /// Library and version.
    pub library: String,
    /// What the network computes in.
    pub precision: Precision,
    /// Version of tandem.
    pub tandem: String,
}

impl Key {
    /// Lower-case SHA-256 over all of it.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(serde_json::to_vec(self).expect("a struct of words")))
    }

    /// What is otherwise in `now`, in words.
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
        compare("precision", &precision_word(self.precision), &precision_word(now.precision));
        differences
    }
}

/// A file with what it must hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Name in the folder.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// Lower-case SHA-256.
    pub sha256: String,
}

/// How a build went.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRecord {
    /// Wall time, seconds.
    pub seconds: f64,
    /// What it was predicted to need.
    pub predicted: Prediction,
    /// Most memory that was resident, mapped weights included, bytes.
    pub peak_resident_bytes: Option<u64>,
    /// Disk that its files take, bytes.
    pub result_bytes: u64,
}

/// One built network.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecord {
    /// What it was made from.
    pub key: Key,
    /// What the library loads.
    pub engine: FileRecord,
    /// Weights that only this engine has.
    pub own_weights: Option<FileRecord>,
    /// The engine's layers, if the library listed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<FileRecord>,
    /// Files of the network folder and the checkpoint that weights are read from.
    pub weight_files: Vec<WeightFile>,
    /// Inputs, outputs and sizes.
    pub contract: Contract,
    /// How the build went.
    pub build: BuildRecord,
}

impl NetworkRecord {
    /// Files that only this engine has.
    pub fn files(&self) -> impl Iterator<Item = &FileRecord> {
        [&self.engine].into_iter().chain(&self.own_weights).chain(&self.layers)
    }
}

/// What an engine folder holds; the content of [`ENGINE_FILE`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineRecord {
    /// `FORMAT` at the time of writing.
    pub format: u32,
    /// Version of tandem.
    pub tandem: String,
    /// The folder that it was built from.
    pub network_folder: PathBuf,
    /// Lower-case SHA-256 of that folder's `export.json`.
    pub export_sha256: String,
    /// Networks in the order in which they run.
    pub networks: Vec<NetworkRecord>,
}

/// What building one network needs, as far as its files tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// Memory of the process itself, bytes; it must be free.
    pub memory_bytes: u64,
    /// Weights that are mapped from files, bytes; they take memory only while there is some.
    pub mapped_bytes: u64,
    /// Disk that the build takes while it runs, bytes.
    pub scratch_bytes: u64,
    /// Disk that its result takes, bytes.
    pub result_bytes: u64,
}

/// A precision as the command line spells it.
pub(in crate::engine) fn precision_word(precision: Precision) -> String {
    let value = serde_json::to_value(precision).expect("an enum of words");
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether a file has a name as [`file_name`] makes it: network, key, ending.
pub(super) fn is_of_an_engine(name: &str) -> bool {
    let endings =
        [LAYERS_ENDING, ENGINE_ENDING, WEIGHTS_ENDING, RECORD_ENDING, RUNTIME_CACHE_ENDING];
    let stem = endings.iter().find_map(|ending| name.strip_suffix(ending)?.strip_suffix('.'));
    let is_key = |key: &str| key.len() == 12 && key.chars().all(|c| c.is_ascii_hexdigit());
    // A layer group's name has a dot of its own.
    stem.and_then(|stem| stem.rsplit_once('.'))
        .is_some_and(|(network, key)| Families::known().is_network(network) && is_key(key))
}

/// Returns the name of a file of `network`'s engine.
pub(in crate::engine) fn file_name(network: &str, key: &Key, ending: &str) -> String {
    format!("{network}.{}.{ending}", &key.sha256()[..12])
}

/// Returns the name of the record of an engine that no [`ENGINE_FILE`] names yet.
pub(super) fn record_name(network: &str, key: &Key) -> String {
    file_name(network, key, RECORD_ENDING)
}
