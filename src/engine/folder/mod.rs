//! Network folders and engine folders on disk: contents of their files, and validation on reading.
//!
//! Bottom up: [`weight_file`] and [`record`] define file contents, [`graph_check`] and
//! [`network_file`] read an exported network, [`weight_hash`] hashes its weights,
//! [`engine_folder`] reads built engines, and [`write`] writes them.

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
    ENGINE_ENDING, FORMAT, LAYERS_ENDING, WEIGHTS_ENDING, file_name, precision_name,
};
pub(in crate::engine) use weight_file::ExternalData;
pub use weight_file::{WeightFile, hash_cache, hashes_file};
pub(in crate::engine) use weight_hash::GraphWeights;
pub use weight_hash::{WeightHashError, WeightHasher};
pub(in crate::engine) use write::{
    finished_engine, link_weights, move_into, publish, remove_folder, weight_files, write_atomic,
    write_record,
};
