//! Selection of the weight files: one file, the shards that an index names, or numbered shards.

use super::CheckpointError;
use super::small_file;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use tandem_files::shortened;

/// Index with the file of each tensor.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";

const SINGLE_FILE: &str = "model.safetensors";

/// Suffixes of weight files of any format.
const WEIGHT_SUFFIXES: [&str; 6] = [".safetensors", ".pth", ".pt", ".ckpt", ".gguf", ".h5"];

/// The weight files of a folder.
pub(super) struct WeightFiles {
    /// Files to read, sorted by name.
    pub(super) files: Vec<PathBuf>,
    /// Position in `files` of each tensor, if the folder has an index.
    pub(super) index: Option<BTreeMap<String, usize>>,
    /// Names of other weight files in the folder.
    pub(super) unused_files: Vec<String>,
}

impl WeightFiles {
    /// Finds the weight files of `dir`. An index takes precedence over the single file.
    pub(super) fn find(dir: &Path) -> Result<Self, CheckpointError> {
        let present = file_names(dir)?;
        let index_path = dir.join(INDEX_FILE);
        let (names, index) = match small_file::read(&index_path)? {
            Some(text) => {
                let (names, index) = read_index(&index_path, &text)?;
                (names, Some(index))
            }
            None if present.contains(SINGLE_FILE) => (vec![SINGLE_FILE.to_owned()], None),
            None => (numbered_shards(dir, &present)?, None),
        };
        if let Some(missing) = names.iter().find(|name| !present.contains(*name)) {
            let file = shortened(missing);
            return Err(CheckpointError::MissingShard { index: index_path, file });
        }
        let is_weights = |name: &&String| {
            WEIGHT_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
                || name.starts_with("pytorch_model")
        };
        let unused_files = present.iter().filter(is_weights).filter(|name| !names.contains(name));
        Ok(Self {
            unused_files: unused_files.cloned().collect(),
            files: names.iter().map(|name| dir.join(name)).collect(),
            index,
        })
    }
}

/// Names of the files in a folder.
fn file_names(dir: &Path) -> Result<BTreeSet<String>, CheckpointError> {
    let unreadable = |source| CheckpointError::Read { path: dir.into(), source };
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !entry.path().is_dir() {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Returns the files that an index names, and the position of each tensor's file among them.
fn read_index(
    path: &Path,
    text: &[u8],
) -> Result<(Vec<String>, BTreeMap<String, usize>), CheckpointError> {
    let index: Index = serde_json::from_slice(text)
        .map_err(|source| CheckpointError::NotAnIndex { path: path.into(), source })?;
    let files: BTreeSet<&String> = index.weight_map.0.iter().map(|(_, file)| file).collect();
    let files: Vec<String> = files.into_iter().cloned().collect();
    for file in &files {
        let is_plain = Path::new(file).file_name().is_some_and(|name| name == file.as_str());
        if !is_plain || !file.ends_with(".safetensors") {
            return Err(CheckpointError::InvalidShardName {
                index: path.into(),
                file: shortened(file),
            });
        }
    }
    if files.is_empty() {
        return Err(CheckpointError::EmptyIndex { index: path.into() });
    }
    let mut positions = BTreeMap::new();
    for (tensor, file) in index.weight_map.0 {
        let position = files.binary_search(&file).expect("`files` is the sorted set of all files");
        if positions.insert(tensor.clone(), position).is_some() {
            let tensor = shortened(tensor);
            return Err(CheckpointError::DuplicateIndexEntry { index: path.into(), tensor });
        }
    }
    Ok((files, positions))
}

/// Returns files such as `model-00001-of-00003.safetensors`; checks that none is missing.
fn numbered_shards(dir: &Path, present: &BTreeSet<String>) -> Result<Vec<String>, CheckpointError> {
    let shards: Vec<String> = present
        .iter()
        .filter(|name| name.starts_with("model-") && name.ends_with(".safetensors"))
        .cloned()
        .collect();
    if shards.is_empty() {
        let is_pickle = |name: &String| name.starts_with("pytorch_model") || name.ends_with(".pth");
        return Err(CheckpointError::NoFile {
            dir: dir.into(),
            name: "model.safetensors, model.safetensors.index.json or model-*.safetensors",
            advice: if present.iter().any(is_pickle) {
                "PyTorch files are not supported; save the weights as safetensors"
            } else {
                "give the folder with the weights"
            },
        });
    }
    // Without an index the number of files follows from their names.
    if let Some(count) = shards.iter().find_map(|name| shard_count(name)) {
        for shard in 1..=count {
            let name = format!("model-{shard:05}-of-{count:05}.safetensors");
            if !present.contains(&name) {
                let dir = dir.into();
                return Err(CheckpointError::MissingNumberedShard { dir, name, count });
            }
        }
    }
    Ok(shards)
}

/// Returns the 3 of `model-00001-of-00003.safetensors`.
fn shard_count(name: &str) -> Option<usize> {
    let (_, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    count.parse().ok()
}

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Pairs of tensor and file, including repeated tensors.
struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor names and file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(WeightMap(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
