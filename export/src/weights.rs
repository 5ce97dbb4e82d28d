//! Identity of the files from which the weights of an export are read, and the check that they are
//! unchanged.
//!
//! Small files are identified by a hash of all bytes, large ones by a hash of samples, so that
//! identifying many gigabytes only takes reading a few megabytes. For linked files the times are
//! stored too: while they are unchanged, no bytes are read. A copy with other times and equal bytes is
//! accepted.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use tandem_files::open_regular;

/// Largest file that is hashed completely, bytes. Larger files are sampled.
const MAX_HASHED_COMPLETELY: u64 = 64 << 20;

/// Size of one sample, bytes.
const SAMPLE: u64 = 4 << 10;

/// Distance between samples, bytes. Each tensor of a safetensors file has another at its start.
const SAMPLE_DISTANCE: u64 = 4 << 20;

/// Longest header of a safetensors file that is searched for tensors, bytes.
const MAX_HEADER: u64 = 64 << 20;

/// Number of bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Maximum number of cached hashes. A full cache is cleared.
const MAX_CACHED: usize = 512;

/// Identity of the content of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Lower-case SHA-256 of all bytes.
    Sha256(String),
    /// Lower-case SHA-256 of samples: the start of every tensor, and 4 KiB of every 4 MiB.
    SamplesSha256(String),
}

/// Path and times, at the time of the export, of a file that the export did not write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Absolute path, links resolved.
    pub path: PathBuf,
    /// mtime, nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// ctime, nanoseconds since the Unix epoch.
    pub changed_ns: i64,
}

/// A file with weights and its identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightFile {
    pub name: String,
    pub bytes: u64,
    pub content: Content,
    /// The checkpoint's file, or the target of the link to it; `None` if the export wrote the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Error returned when the weights of an export have changed.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file or the target of a link cannot be read.
    #[error(
        "cannot read weights {}{}: {source}; put the file back, or export again with `{export}`",
        path.display(),
        link_target.as_ref().map_or(String::new(), |to| format!(", a link to {}", to.display()))
    )]
    Missing {
        path: PathBuf,
        link_target: Option<PathBuf>,
        #[source]
        source: io::Error,
        export: String,
    },
    /// The content of a file has changed since the export.
    #[error(
        "weights {}{} changed since the export ({how}): its networks would mix the weights of two \
         checkpoints; export again with `{export}`",
        path.display(),
        link_target.as_ref().map_or(String::new(), |to| format!(", a link to {},", to.display()))
    )]
    Changed { path: PathBuf, link_target: Option<PathBuf>, how: String, export: String },
}

/// Cache of file hashes by path, length and times.
///
/// It does not detect a file that was rewritten with all of these unchanged.
#[derive(Clone, Debug, Default)]
pub struct HashCache {
    path: Option<PathBuf>,
}

impl HashCache {
    /// Creates a cache in the file `path`; without a path nothing is cached.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// Returns the cached hash for `key`. An unreadable cache is treated as empty.
    pub fn get(&self, key: &str) -> Option<String> {
        self.read().remove(key)
    }

    /// Caches a hash. Write errors are ignored: the hash is then computed again later.
    pub fn insert(&self, key: String, hash: &str) {
        let Some(path) = &self.path else { return };
        let mut hashes = self.read();
        if hashes.len() >= MAX_CACHED {
            hashes.clear();
        }
        hashes.insert(key, hash.to_owned());
        let text = serde_json::to_vec_pretty(&hashes).expect("a map of strings");
        let folder = fs::create_dir_all(tandem_files::folder_of(path));
        let _ = folder.and_then(|()| tandem_files::write(path, &text));
    }

    fn read(&self) -> BTreeMap<String, String> {
        let text = self.path.as_ref().and_then(|path| fs::read(path).ok()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

impl WeightFile {
    /// Identifies the file `path` of a checkpoint. Fails if it cannot be
    /// read or is not a regular file.
    pub fn of_checkpoint(path: &Path) -> io::Result<Self> {
        let open = OpenFile::open(path)?;
        Ok(Self {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: open.bytes,
            content: open.content(&HashCache::default())?,
            origin: Some(open.origin),
        })
    }

    /// Identifies the file `name` that the export wrote to `folder`. Fails like
    /// [`of_checkpoint`](Self::of_checkpoint).
    pub fn written(folder: &Path, name: &str) -> io::Result<Self> {
        Ok(Self { origin: None, ..Self::of_checkpoint(&folder.join(name))? })
    }

    /// Checks that the content of the file in `folder` is unchanged. `export` is the command that
    /// the error suggests. Fails if the file is missing or has changed.
    pub fn check(
        &self,
        folder: &Path,
        cache: &HashCache,
        export: &str,
    ) -> Result<(), WeightsError> {
        let path = folder.join(&self.name);
        let link_target = fs::read_link(&path).ok();
        let missing = |source| WeightsError::Missing {
            path: path.clone(),
            link_target: link_target.clone(),
            source,
            export: export.to_owned(),
        };
        let changed = |how: String| WeightsError::Changed {
            path: path.clone(),
            link_target: link_target.clone(),
            how,
            export: export.to_owned(),
        };
        let now = OpenFile::open(&path).map_err(missing)?;
        if now.bytes != self.bytes {
            return Err(changed(format!("it had {} bytes, now {}", self.bytes, now.bytes)));
        }
        let times = |origin: &Origin| (origin.modified_ns, origin.changed_ns);
        if self.origin.as_ref().map(times) == Some(times(&now.origin)) {
            return Ok(());
        }
        let (what, expected, found) = match (&self.content, self.cached_sha256(cache)) {
            (Content::Sha256(expected), _) => {
                ("SHA-256", expected.clone(), now.sha256(cache).map_err(missing)?)
            }
            (Content::SamplesSha256(_), Some(expected)) => {
                ("SHA-256", expected, now.sha256(cache).map_err(missing)?)
            }
            (Content::SamplesSha256(expected), None) => {
                ("SHA-256 of samples", expected.clone(), now.samples_sha256().map_err(missing)?)
            }
        };
        if found == expected {
            return Ok(());
        }
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        Err(changed(format!("its {what} was {}, now {}", short(&expected), short(&found))))
    }

    /// Returns the SHA-256 of all bytes of the file in `folder`. Reads the file unless the hash is
    /// stored or cached. Fails if it cannot be read.
    pub fn sha256(&self, folder: &Path, cache: &HashCache) -> io::Result<String> {
        match &self.content {
            Content::Sha256(known) => Ok(known.clone()),
            Content::SamplesSha256(_) => OpenFile::open(&folder.join(&self.name))?.sha256(cache),
        }
    }

    /// True if [`sha256`](Self::sha256) has to read the file.
    pub fn must_be_read(&self, folder: &Path, cache: &HashCache) -> bool {
        let is_cached = |open: OpenFile| cache.get(&key(&open.origin, open.bytes)).is_some();
        matches!(self.content, Content::SamplesSha256(_))
            && !OpenFile::open(&folder.join(&self.name)).is_ok_and(is_cached)
    }

    /// Cached hash of all bytes of the file as it was at the export.
    fn cached_sha256(&self, cache: &HashCache) -> Option<String> {
        cache.get(&key(self.origin.as_ref()?, self.bytes))
    }
}

/// An open regular file with its size and times.
struct OpenFile {
    file: File,
    bytes: u64,
    origin: Origin,
}

impl OpenFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = open_regular(path)?;
        let metadata = file.metadata()?;
        let nanoseconds =
            |seconds: i64, part: i64| seconds.saturating_mul(1_000_000_000).saturating_add(part);
        let origin = Origin {
            path: path.canonicalize()?,
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        };
        Ok(Self { file, bytes: metadata.len(), origin })
    }

    fn content(&self, cache: &HashCache) -> io::Result<Content> {
        match self.bytes {
            0..=MAX_HASHED_COMPLETELY => self.sha256(cache).map(Content::Sha256),
            _ => self.samples_sha256().map(Content::SamplesSha256),
        }
    }

    fn sha256(&self, cache: &HashCache) -> io::Result<String> {
        let key = key(&self.origin, self.bytes);
        if let Some(known) = cache.get(&key) {
            return Ok(known);
        }
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        while at < self.bytes {
            let part = &mut chunk[..(self.bytes - at).min(CHUNK as u64) as usize];
            self.file.read_exact_at(part, at)?;
            hash.update(&*part);
            at += part.len() as u64;
        }
        let hash = hex(&hash.finalize());
        cache.insert(key, &hash);
        Ok(hash)
    }

    fn samples_sha256(&self) -> io::Result<String> {
        let mut starts: BTreeSet<u64> = (0..self.bytes).step_by(SAMPLE_DISTANCE as usize).collect();
        starts.insert(self.bytes.saturating_sub(SAMPLE));
        starts.extend(tensor_starts(&self.file, self.bytes));
        let mut hash = Sha256::new();
        hash.update(self.bytes.to_le_bytes());
        let mut sample = [0; SAMPLE as usize];
        for start in starts {
            let part = &mut sample[..SAMPLE.min(self.bytes.saturating_sub(start)) as usize];
            self.file.read_exact_at(part, start)?;
            hash.update(start.to_le_bytes());
            hash.update(&*part);
        }
        Ok(hex(&hash.finalize()))
    }
}

/// Offsets of the tensors of a safetensors file; empty for any other file.
fn tensor_starts(file: &File, bytes: u64) -> Vec<u64> {
    let read = || -> Option<Vec<u64>> {
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0).ok()?;
        let length = u64::from_le_bytes(length);
        let data = length.checked_add(8).filter(|data| *data <= bytes && length <= MAX_HEADER)?;
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, 8).ok()?;
        let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header).ok()?;
        let starts = header.values().filter_map(|tensor| tensor["data_offsets"][0].as_u64());
        Some(starts.filter_map(|start| data.checked_add(start)).filter(|at| *at < bytes).collect())
    };
    read().unwrap_or_default()
}

fn key(origin: &Origin, bytes: u64) -> String {
    let mut key = Sha256::new();
    key.update(format!("file\0{bytes}\0{}\0{}\0", origin.modified_ns, origin.changed_ns));
    key.update(origin.path.as_os_str().as_encoded_bytes());
    hex(&key.finalize())
}

/// Formats bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn file_of(folder: &Path, bytes: &[u8]) -> PathBuf {
        let path = folder.join("w.safetensors");
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn touched_file_is_accepted_and_changed_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = file_of(folder.path(), b"first");
        let known = WeightFile::of_checkpoint(&path).unwrap();
        let check = || known.check(folder.path(), &HashCache::default(), "tandem export");
        check().unwrap();
        let touch = || {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        };
        touch();
        check().unwrap();
        fs::write(&path, b"other").unwrap();
        touch();
        let error = check().unwrap_err().to_string();
        assert!(error.contains("changed since the export (its SHA-256"), "{error}");
        assert!(error.contains("`tandem export`"), "{error}");
        fs::write(&path, b"longer than before").unwrap();
        assert!(check().unwrap_err().to_string().contains("it had 5 bytes, now 18"));
    }

    #[test]
    fn error_names_the_missing_link_target() {
        let folder = tempfile::tempdir().unwrap();
        let path = file_of(folder.path(), b"first");
        let known = WeightFile::of_checkpoint(&path).unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/nowhere/else", &path).unwrap();
        let error = known.check(folder.path(), &HashCache::default(), "tandem export").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("w.safetensors, a link to /nowhere/else"), "{error}");
    }

    #[test]
    fn samples_include_the_start_of_every_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let header = r#"{"a":{"dtype":"U8","shape":[9000],"data_offsets":[0,9000]},
            "b":{"dtype":"U8","shape":[9000],"data_offsets":[9000,18000]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        let data = bytes.len();
        bytes.resize(data + 18_000, 0);
        let samples = |bytes: &[u8]| {
            OpenFile::open(&file_of(folder.path(), bytes)).unwrap().samples_sha256().unwrap()
        };
        let before = samples(&bytes);
        bytes[data + 9_000] = 1;
        assert_ne!(samples(&bytes), before, "the first byte of b");
        bytes[data + 9_000] = 0;
        bytes[data + 4_999] = 1;
        assert_eq!(samples(&bytes), before, "between two samples");
    }

    #[test]
    fn cached_hash_is_not_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = file_of(folder.path(), b"first");
        let cache = HashCache::new(Some(folder.path().join("cache/hashes.json")));
        let open = OpenFile::open(&path).unwrap();
        let hash = open.sha256(&cache).unwrap();
        assert_eq!(cache.get(&key(&open.origin, 5)), Some(hash));
        cache.insert(key(&open.origin, 5), "known");
        assert_eq!(open.sha256(&cache).unwrap(), "known");
    }
}
