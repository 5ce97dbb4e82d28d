//! Network folders and engine folders on disk: what each file holds, and whether it may be used.
//!
//! From the bottom up: [`weight_file`] and [`record`] are what the files hold, [`graph_check`] and
//! [`network_file`] read an exported network, [`weight_hash`] hashes what it reads,
//! [`engine_folder`] reads what was built of networks, and [`write`] writes it.

mod engine_folder;
mod file_error;
mod graph_check;
mod layers;
mod network_file;
mod rebuild;
pub(in crate::engine) mod record;
mod weight_file;
mod weight_hash;
mod write;

pub use engine_folder::{EngineFolder, EngineFolderError, read_network};
pub use file_error::FileError;
pub use graph_check::GraphError;
pub(in crate::engine) use graph_check::check_weight;
pub use layers::{LAYER_FORMAT, Layer, LayerReport, LayerTensor};
pub use network_file::{BuiltNetwork, NetworkFile, NetworkFileError};
pub use rebuild::{Rebuild, Reexport};
pub use record::{
    BuildRecord, ENGINE_FILE, EngineRecord, FileRecord, Key, LATENCY_FILE, NetworkRecord,
    Prediction,
};
pub(in crate::engine) use record::{
    ENGINE_ENDING, FORMAT, LAYERS_ENDING, WEIGHTS_ENDING, file_name, precision_word,
};
pub(in crate::engine) use weight_file::Place;
pub use weight_file::{WeightFile, hash_cache, hashes_file};
pub(in crate::engine) use weight_hash::GraphWeights;
pub use weight_hash::{WeightHashError, WeightHasher};
pub(in crate::engine) use write::{
    finished_engine, keep, link_weights, publish, remove_folder, weight_files, write_record,
    write_whole,
};
