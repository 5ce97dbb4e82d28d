//! The files that the weights of an export are read from: their identity when the networks were
//! written, and whether they still have it.
//!
//! Small files are identified by a hash of all bytes, large ones by a hash of samples, so that an
//! export of many gigabytes takes no longer than reading a few megabytes. A linked file also has its
//! times: while they are unchanged, nothing is read at all. A copy has other times and the same
//! bytes, and is accepted.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use tandem_files::open_regular;

/// Files up to this size are hashed completely, larger ones in samples; bytes.
const HASHED_COMPLETELY: u64 = 64 << 20;

/// Bytes of one sample.
const SAMPLE: u64 = 4 << 10;

/// Distance between samples, bytes. Each tensor of a safetensors file has one more at its start.
const SAMPLE_DISTANCE: u64 = 4 << 20;

/// Longest header of a safetensors file that is searched for tensors, bytes.
const LONGEST_HEADER: u64 = 64 << 20;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Hashes remembered; beyond it all are forgotten.
const REMEMBERED: usize = 512;

/// Identity of the content of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Lower-case SHA-256 of all bytes.
    Sha256(String),
    /// Lower-case SHA-256 of samples: every tensor's start, and 4 KiB of every 4 MiB.
    SamplesSha256(String),
}

/// A file that the export did not write, when the networks were written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Absolute path, links followed.
    pub path: PathBuf,
    /// Time of the last change of its content, nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Time of the last change of its content or its attributes, nanoseconds since the Unix epoch.
    pub changed_ns: i64,
}

/// A file of weights.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightFile {
    /// Name in the folder.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// Identity of the content.
    pub content: Content,
    /// The checkpoint's file that it is, or that it links to; absent if the export wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// The weights of an export are not what they were.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file or the target of a link does not exist.
    #[error(
        "cannot read weights {}{}: {source}; put the file back, or export again with `{export}`",
        path.display(),
        led_to.as_ref().map_or(String::new(), |to| format!(", a link to {}", to.display()))
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// Target of the link, if it is one.
        led_to: Option<PathBuf>,
        /// What the system reports.
        #[source]
        source: io::Error,
        /// Command that exports again.
        export: String,
    },
    /// A file has other content than when the networks were written.
    #[error(
        "weights {}{} changed since the export ({how}): its networks would mix the weights of two \
         checkpoints; export again with `{export}`",
        path.display(),
        led_to.as_ref().map_or(String::new(), |to| format!(", a link to {},", to.display()))
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Target of the link, if it is one.
        led_to: Option<PathBuf>,
        /// What differs.
        how: String,
        /// Command that exports again.
        export: String,
    },
}

/// Hashes of files that were read before, by path, length and times.
///
/// A file that was rewritten with none of these changed is not noticed.
#[derive(Clone, Debug, Default)]
pub struct HashCache {
    path: Option<PathBuf>,
}

impl HashCache {
    /// A cache in the file `path`; without one nothing is remembered.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// Returns the hash that was remembered for `key`. A cache that cannot be read is empty.
    pub fn get(&self, key: &str) -> Option<String> {
        self.remembered().remove(key)
    }

    /// Remembers a hash. A cache that cannot be written costs time later, and nothing else.
    pub fn insert(&self, key: String, hash: &str) {
        let Some(path) = &self.path else { return };
        let mut known = self.remembered();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, hash.to_owned());
        let text = serde_json::to_vec_pretty(&known).expect("a map of strings");
        let folder = fs::create_dir_all(tandem_files::folder_of(path));
        let _ = folder.and_then(|()| tandem_files::write(path, &text));
    }

    fn remembered(&self) -> BTreeMap<String, String> {
        let text = self.path.as_ref().and_then(|path| fs::read(path).ok()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

impl WeightFile {
    /// The file `path` of a checkpoint, under its own name.
    ///
    /// # Errors
    /// If it cannot be read or is not a regular file.
    pub fn of_checkpoint(path: &Path) -> io::Result<Self> {
        let open = OpenFile::open(path)?;
        Ok(Self {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: open.bytes,
            content: open.content(&HashCache::default())?,
            origin: Some(open.origin),
        })
    }

    /// The file `name` that the export itself wrote to `folder`.
    ///
    /// # Errors
    /// As [`of_checkpoint`](Self::of_checkpoint).
    pub fn written(folder: &Path, name: &str) -> io::Result<Self> {
        Ok(Self { origin: None, ..Self::of_checkpoint(&folder.join(name))? })
    }

    /// Checks that the file in `folder` has the content that it had. `export` is the command that
    /// the error names.
    ///
    /// # Errors
    /// If it is missing or has changed.
    pub fn check(
        &self,
        folder: &Path,
        cache: &HashCache,
        export: &str,
    ) -> Result<(), WeightsError> {
        let path = folder.join(&self.name);
        let led_to = fs::read_link(&path).ok();
        let missing = |source| WeightsError::Missing {
            path: path.clone(),
            led_to: led_to.clone(),
            source,
            export: export.to_owned(),
        };
        let changed = |how: String| WeightsError::Changed {
            path: path.clone(),
            led_to: led_to.clone(),
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
        let (what, expected, found) = match (&self.content, self.known_sha256(cache)) {
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

    /// SHA-256 over all bytes of the file in `folder`, read unless it is known.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn sha256(&self, folder: &Path, cache: &HashCache) -> io::Result<String> {
        match &self.content {
            Content::Sha256(known) => Ok(known.clone()),
            Content::SamplesSha256(_) => OpenFile::open(&folder.join(&self.name))?.sha256(cache),
        }
    }

    /// True if the file has to be read completely for [`sha256`](Self::sha256).
    pub fn must_be_read(&self, folder: &Path, cache: &HashCache) -> bool {
        let known = |open: OpenFile| cache.get(&key(&open.origin, open.bytes)).is_some();
        matches!(self.content, Content::SamplesSha256(_))
            && !OpenFile::open(&folder.join(&self.name)).is_ok_and(known)
    }

    /// Hash of all bytes as they were when the networks were written, if it was computed since.
    fn known_sha256(&self, cache: &HashCache) -> Option<String> {
        cache.get(&key(self.origin.as_ref()?, self.bytes))
    }
}

/// A regular file with what identifies it.
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
            0..=HASHED_COMPLETELY => self.sha256(cache).map(Content::Sha256),
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

/// First byte of every tensor of a safetensors file; none of any other file.
fn tensor_starts(file: &File, bytes: u64) -> Vec<u64> {
    let read = || -> Option<Vec<u64>> {
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0).ok()?;
        let length = u64::from_le_bytes(length);
        let data =
            length.checked_add(8).filter(|data| *data <= bytes && length <= LONGEST_HEADER)?;
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

/// Returns bytes as lower-case hexadecimal.
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
    fn touched_file_is_accepted_and_changed_file_is_not() {
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
    fn missing_link_target_is_named() {
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
    fn remembered_hash_is_not_computed_again() {
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
