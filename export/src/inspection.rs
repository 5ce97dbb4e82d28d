//! Report on a checkpoint folder: its content, and whether it can be exported.

use crate::checkpoint::{CheckpointError, Tensors};
use crate::family::Description;
use crate::registry::Families;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// Report on a checkpoint folder. If reading fails, tensors and configuration are empty.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Inspection {
    pub folder: PathBuf,
    /// All files in the folder, sorted by name.
    pub files: Vec<FoundFile>,
    pub tensors: usize,
    /// Elements of floating-point tensors without batch norm statistics.
    pub parameters: u64,
    /// Tensors and bytes by element type.
    pub dtypes: BTreeMap<String, Stored>,
    /// Sizes of the networks as the model family reads them; `None` if reading failed.
    pub config: Option<Value>,
    /// Sizes of the networks as text, one line per network.
    #[serde(skip)]
    pub networks: Vec<String>,
    /// Warnings that do not prevent an export.
    pub notes: Vec<String>,
    /// Errors that prevent an export.
    pub problems: Vec<String>,
}

/// A file of the inspected folder.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FoundFile {
    pub name: String,
    /// Size in bytes; of the target, if the file is a link.
    pub bytes: u64,
    /// Number of tensors; `None` if the checkpoint reads no weights from the file.
    pub tensors: Option<usize>,
}

/// Tensors of one element type.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Stored {
    pub tensors: usize,
    /// Size in bytes; zero for an element type that [`DType`](crate::dtype::DType) does not have.
    pub bytes: u64,
}

/// Inspects a checkpoint folder. Reads almost no weights. A folder that no family recognizes is read
/// as an AutoMoT checkpoint, and the problems describe what is wrong.
///
/// Fails if the folder does not exist or cannot be listed. Problems inside
/// it are part of the result.
pub fn inspect(dir: &Path) -> Result<Inspection, CheckpointError> {
    if !dir.is_dir() {
        return Err(CheckpointError::NoFolder { dir: dir.into() });
    }
    let mut inspection = Inspection {
        folder: dir.into(),
        files: list(dir)?,
        tensors: 0,
        parameters: 0,
        dtypes: BTreeMap::new(),
        config: None,
        networks: Vec::new(),
        notes: Vec::new(),
        problems: Vec::new(),
    };
    let family = Families::known().of_folder_or_default(dir);
    match family.and_then(|family| family.open(dir)) {
        Ok(checkpoint) => {
            inspection.add_tensors(checkpoint.tensors());
            let Description { config, networks } = checkpoint.describe();
            inspection.config = Some(config);
            inspection.networks = networks;
            match checkpoint.check() {
                Ok(warnings) => {
                    inspection.notes.extend(warnings.iter().map(ToString::to_string));
                }
                Err(error) => inspection.problems.push(with_causes(&error)),
            }
        }
        Err(error) => inspection.problems.push(with_causes(&error)),
    }
    Ok(inspection)
}

impl Inspection {
    fn add_tensors(&mut self, stored: &Tensors) {
        let names = stored.files().iter().filter_map(|path| path.file_name());
        let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        let mut in_file = vec![0; names.len()];
        for (name, entry) in stored.tensors() {
            in_file[entry.file] += 1;
            let of_dtype = self.dtypes.entry(entry.dtype.to_string()).or_default();
            of_dtype.tensors += 1;
            of_dtype.bytes += entry.length;
            let is_statistic = name.ends_with(".running_mean") || name.ends_with(".running_var");
            if entry.dtype.is_float() && !is_statistic {
                self.parameters += entry.length / entry.dtype.size() as u64;
            }
        }
        for (dtype, file) in stored.unsupported.values() {
            in_file[*file] += 1;
            self.dtypes.entry(dtype.clone()).or_default().tensors += 1;
        }
        self.tensors = in_file.iter().sum();
        for found in &mut self.files {
            let file = names.iter().position(|name| *name == found.name);
            found.tensors = file.map(|file| in_file[file]);
        }
    }
}

fn list(dir: &Path) -> Result<Vec<FoundFile>, CheckpointError> {
    let unreadable = |source| CheckpointError::Read { path: dir.into(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // A broken link is listed with size zero.
        let metadata = fs::metadata(entry.path());
        if metadata.as_ref().is_ok_and(fs::Metadata::is_dir) {
            continue;
        }
        files.push(FoundFile {
            name: entry.file_name().to_string_lossy().into_owned(),
            bytes: metadata.map_or(0, |metadata| metadata.len()),
            tensors: None,
        });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Formats an error followed by its causes.
fn with_causes(error: &CheckpointError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
