//! Writes the files of an engine folder.
//!
//! A finished engine is renamed to a name that contains its key and gets a build record of its own;
//! [`publish`] writes [`ENGINE_FILE`] last. Only one process may write a folder at a time.

use super::engine_folder::{EngineFolder, file_sha256};
use super::file_error::FileError;
use super::network_file::NetworkFile;
use super::record::{
    ENGINE_FILE, EngineRecord, FileRecord, Key, LATENCY_FILE, NetworkRecord, is_engine_file,
    record_name,
};
use super::weight_file::WeightFile;
use super::weight_hash::{GraphWeights, WeightHashError};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use tandem_export::folder::{ACCURACY_FILE, GOLDEN_FILE};
use tandem_export::registry::Families;
use tandem_files::sync_folder;

/// Returns the record of a complete engine with this `key`, with the present state of its weight
/// files. Fails if a weight file cannot be read.
pub(in crate::engine) fn finished_engine(
    out: &Path,
    key: &Key,
    earlier: Option<&EngineFolder>,
    file: &NetworkFile,
) -> Result<Option<NetworkRecord>, WeightHashError> {
    let waiting = fs::read(out.join(record_name(&file.contract.network, key))).ok();
    let waiting: Option<NetworkRecord> =
        waiting.and_then(|text| serde_json::from_slice(&text).ok());
    let records = earlier.into_iter().flat_map(|folder| folder.record.networks.iter().cloned());
    for mut record in records.chain(waiting) {
        let is_complete = |file: &FileRecord| {
            let path = out.join(&file.name);
            fs::metadata(&path).is_ok_and(|found| found.len() == file.bytes)
                && file_sha256(&path).is_ok_and(|hash| hash == file.sha256)
        };
        let same = record.key == *key && record.contract == file.contract;
        if same && record.files().all(is_complete) {
            record.weight_files = weight_files(file)?;
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// Lists the weight files that `file` reads, in their present state. Fails if one cannot be read.
pub(in crate::engine) fn weight_files(
    file: &NetworkFile,
) -> Result<Vec<WeightFile>, WeightHashError> {
    let of = |name: String| {
        WeightFile::of(&file.folder, &name).map_err(FileError::at("read", &file.folder.join(&name)))
    };
    Ok(GraphWeights::of(file)?.locations().into_iter().map(of).collect::<Result<_, _>>()?)
}

/// Creates links to the weight files of `file` in the folder `out`. Fails if a weight file cannot be
/// read or a link cannot be created.
pub(in crate::engine) fn link_weights(
    out: &Path,
    file: &NetworkFile,
) -> Result<(), WeightHashError> {
    for file in weight_files(file)? {
        let link = out.join(&file.name);
        if link.canonicalize().is_ok_and(|there| there == file.path) {
            continue;
        }
        tandem_files::link(&file.path, &link).map_err(FileError::at("link", &link))?;
    }
    Ok(())
}

/// Syncs a finished file and moves it into the folder `out`. Fails if it cannot be read or moved.
pub(in crate::engine) fn move_into(
    path: &Path,
    out: &Path,
    name: String,
) -> Result<FileRecord, FileError> {
    let to = out.join(&name);
    let writing = || FileError::at("write", &to);
    File::open(path).and_then(|file| file.sync_all()).map_err(writing())?;
    let sha256 = file_sha256(path).map_err(writing())?;
    let bytes = fs::metadata(path).map_err(writing())?.len();
    fs::rename(path, &to).and_then(|()| sync_folder(out)).map_err(writing())?;
    Ok(FileRecord { name, bytes, sha256 })
}

/// Writes the build record of an engine that [`ENGINE_FILE`] does not list yet.
pub(in crate::engine) fn write_record(out: &Path, record: &NetworkRecord) -> Result<(), FileError> {
    let name = record_name(&record.contract.network, &record.key);
    write_atomic(&out.join(name), &json(record))
}

/// Writes the record of the folder and removes files that only an earlier record lists. Fails if a
/// file cannot be written or removed.
pub(in crate::engine) fn publish(
    out: &Path,
    record: &EngineRecord,
    earlier: Option<&EngineFolder>,
) -> Result<(), FileError> {
    let is_new = earlier.is_none_or(|earlier| earlier.record != *record);
    if is_new {
        // These files describe the previous engines.
        for name in [ACCURACY_FILE, GOLDEN_FILE, LATENCY_FILE] {
            remove_file(&out.join(name))?;
        }
        write_atomic(&out.join(ENGINE_FILE), &json(record))?;
    }
    let named: Vec<&str> = record
        .networks
        .iter()
        .flat_map(NetworkRecord::files)
        .map(|file| file.name.as_str())
        .collect();
    let networks: Vec<&str> =
        record.networks.iter().map(|network| network.contract.network.as_str()).collect();
    for entry in fs::read_dir(out).map_err(FileError::at("read", out))? {
        let entry = entry.map_err(FileError::at("read", out))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_gone =
            |network: &str| Families::known().is_network(network) && !networks.contains(&network);
        // Graphs of an export with other layer groups would appear to belong to this one.
        let exported = [".onnx", ".json"].iter().find_map(|ending| name.strip_suffix(ending));
        let is_stale = is_engine_file(&name) && !named.contains(&name.as_str());
        if is_stale || exported.is_some_and(is_gone) {
            remove_file(&entry.path())?;
        }
    }
    sync_folder(out).map_err(FileError::at("sync", out))
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("string keys and finite numbers");
    text.push(b'\n');
    text
}

/// Replaces a file atomically by `bytes`.
pub(in crate::engine) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    tandem_files::write(path, bytes).map_err(FileError::at("write", path))
}

fn remove_file(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::at("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a folder with its files, if it exists.
pub(in crate::engine) fn remove_folder(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::at("remove", path)(error))
        }
        _ => Ok(()),
    }
}
