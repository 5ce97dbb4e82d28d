//! Finds the result files of a folder and reads their records.

use crate::campaign::RunJson;
use crate::scoring::{FoundRecord, MergeError, found_records, is_result_file_name, records_of};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Suffix of files of the official ability tool, which are in the folder of the result files.
const ABILITY_FILE_END: &str = "_ability.json";
/// Name of the motion logs for the official smoothness tool, which may be in subfolders.
const MOTION_FILE: &str = "metric_info.json";
/// File that marks a folder of a tandem campaign.
const RUN_FILE: &str = "run.json";

/// Depth of subfolders that are searched for result files.
const DEPTH: usize = 4;

/// Error returned when results can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    #[error("cannot read {path:?}: give a result file or a folder of result files")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The `run.json` was not written by tandem.
    #[error(
        "cannot read {path:?}, which should record the settings of the run; remove it if these are \
         results of the official harness"
    )]
    RunFile {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "no result files in {path:?} or in its subfolders up to depth {DEPTH}: expected *.json \
         files of the Bench2Drive harness or of its merge tool, or a folder written by `tandem eval`"
    )]
    NoResults { path: PathBuf },
    /// Subfolders belong to several campaigns.
    #[error(
        "{path:?} contains results of several campaigns: give one of {}",
        found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Campaigns { path: PathBuf, found: Vec<PathBuf> },
    #[error(transparent)]
    Merge(#[from] MergeError),
}

/// Results of a folder or of a file.
#[derive(Clone, PartialEq, Debug)]
pub struct ResultFolder {
    /// Folder or file, as the caller gave it.
    pub path: PathBuf,
    /// `run.json` of a tandem campaign; `None` for results of the official harness.
    pub run: Option<RunJson>,
    /// All records of all files, files in the order of their names.
    pub records: Vec<FoundRecord>,
}

impl ResultFolder {
    /// Reads a result file, or every result file of a folder.
    ///
    /// If the folder has a `run.json`, as those of tandem's campaigns, the files in its `routes/`
    /// are read. Otherwise the files of the folder are read, as by the official merge tool, or, if
    /// there are none, those of its subfolders. Tables of a merge tool (`*merged.json`) are read
    /// only if no other result file is found.
    ///
    /// # Errors
    /// If there is no result file, or one can't be used.
    pub fn read(path: &Path) -> Result<Self, ResultError> {
        if path.is_file() {
            return Self::read_file(path);
        }
        let run = run_of(path)?;
        let mut records = Vec::new();
        if run.is_some() {
            for file in json_files(&path.join("routes"))? {
                records.extend(read_records(&file)?);
            }
            return Ok(Self { path: path.to_owned(), run, records });
        }
        let files: Vec<PathBuf> = json_files(path)?;
        let (shards, tables): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| is_result_file_name(&name_of(file)));
        for file in &shards {
            records.extend(read_records(file)?);
        }
        let mut is_found = !shards.is_empty();
        if !is_found {
            is_found = nested(path, DEPTH, &mut records)?;
        }
        if !is_found {
            for file in &tables {
                records.extend(read_records(file)?);
            }
            is_found = !tables.is_empty();
        }
        if !is_found {
            return Err(ResultError::NoResults { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), run: None, records })
    }

    /// Reads one file. Its `run.json` is in the same folder or, for files
    /// in `routes/`, one level up.
    fn read_file(path: &Path) -> Result<Self, ResultError> {
        let folder = tandem_files::folder_of(path);
        let run = match run_of(folder)? {
            None if folder.ends_with("routes") => run_of(&folder.join(".."))?,
            run => run,
        };
        Ok(Self { path: path.to_owned(), run, records: read_records(path)? })
    }
}

/// Adds the records of result files in subfolders of `folder`; other JSON files are skipped.
/// Returns true if a result file was found.
fn nested(
    folder: &Path,
    depth: usize,
    records: &mut Vec<FoundRecord>,
) -> Result<bool, ResultError> {
    let mut is_found = false;
    let below = entries(folder)?.into_iter().filter(|path| path.is_dir());
    let below: Vec<PathBuf> = below.filter(|path| !name_of(path).starts_with('.')).collect();
    let found: Vec<PathBuf> =
        below.iter().filter(|path| path.join(RUN_FILE).is_file()).cloned().collect();
    if !found.is_empty() {
        return Err(ResultError::Campaigns { path: folder.to_owned(), found });
    }
    for folder in below {
        for file in json_files(&folder)? {
            let name = name_of(&file);
            if !is_result_file_name(&name) || name == MOTION_FILE {
                continue;
            }
            if let Some(found) = found_records(&file.display().to_string(), &read_text(&file)?)? {
                records.extend(found);
                is_found = true;
            }
        }
        if depth > 1 {
            is_found |= nested(&folder, depth - 1, records)?;
        }
    }
    Ok(is_found)
}

/// Reads the folder's `run.json`; `None` if there is none.
fn run_of(folder: &Path) -> Result<Option<RunJson>, ResultError> {
    let path = folder.join(RUN_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let run = serde_json::from_str(&read_text(&path)?);
    run.map(Some).map_err(|source| ResultError::RunFile { path, source })
}

/// Lists the JSON files of a folder except those of the ability tool, in the order of their names.
fn json_files(folder: &Path) -> Result<Vec<PathBuf>, ResultError> {
    let mut files = entries(folder)?;
    files.retain(|path| {
        let name = name_of(path);
        name.ends_with(".json") && !name.ends_with(ABILITY_FILE_END) && !path.is_dir()
    });
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ResultError> {
    let error = |source| read_error(folder, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(error)? {
        found.push(entry.map_err(error)?.path());
    }
    found.sort();
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read_records(path: &Path) -> Result<Vec<FoundRecord>, ResultError> {
    Ok(records_of(&path.display().to_string(), &read_text(path)?)?)
}

fn read_text(path: &Path) -> Result<String, ResultError> {
    // Reading another kind of file, such as a pipe, could block forever.
    if path.exists() && !path.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(read_error(path, source));
    }
    fs::read_to_string(path).map_err(|source| read_error(path, source))
}

fn read_error(path: &Path, source: io::Error) -> ResultError {
    ResultError::Read { path: path.to_owned(), source }
}
