//! Network folders and engine folders on disk: what each file holds, and whether it may be used.

mod engine_folder;
mod graph_check;
mod network_file;
mod weight_hash;

pub use engine_folder::{
    BuildRecord, BuiltNetwork, ENGINE_FILE, EngineFolder, EngineFolderError, EngineRecord,
    FileRecord, Key, LATENCY_FILE, NetworkRecord,
};
pub(in crate::engine) use engine_folder::{
    ENGINE_ENDING, FORMAT, LAYERS_ENDING, RUNTIME_CACHE_ENDING, file_sha256, precision_word,
};
pub use graph_check::GraphError;
pub(in crate::engine) use graph_check::check_weight;
pub(in crate::engine) use network_file::hex;
pub use network_file::{NetworkFile, NetworkFileError};
pub(in crate::engine) use weight_hash::{GraphWeights, Place};
pub use weight_hash::{WeightFile, WeightHasher, hash_cache, hashes_file};
