//! Which files a folder of results consists of, and their records.

use crate::campaign::RunJson;
use crate::scoring::{FoundRecord, MergeError, found_records, is_result_file_name, records_of};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Results of the official ability tool, which are beside result files.
const ABILITY_FILE_END: &str = "_ability.json";
/// Logs of agents for the official smoothness tool, which may be below result folders.
const MOTION_FILE: &str = "metric_info.json";
/// What says that a folder is of a campaign of ours.
const RUN_FILE: &str = "run.json";

/// How many folders deep result files are looked for.
const DEPTH: usize = 4;

/// Results can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// A file or folder could not be read.
    #[error("cannot read {path:?}: name a result file or a folder of result files")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder's `run.json` is not one of ours.
    #[error(
        "cannot read {path:?}: it should say what the results were made with; move it away if \
             these are results of the official harness"
    )]
    RunFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The folder has no result files.
    #[error(
        "no result files in {path:?} or in folders up to {DEPTH} below it: expected *.json as the \
             Bench2Drive harness or its merge tool writes them, or a folder that `tandem eval` wrote"
    )]
    NoResults {
        /// Which folder.
        path: PathBuf,
    },
    /// The folder is not of one campaign.
    #[error(
        "{path:?} has results of several campaigns below it: name one of {}",
        found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Campaigns {
        /// Which folder.
        path: PathBuf,
        /// Folders of campaigns.
        found: Vec<PathBuf>,
    },
    /// A result file can't be used.
    #[error(transparent)]
    Merge(#[from] MergeError),
}

/// The results in a folder, or in a file.
#[derive(Clone, PartialEq, Debug)]
pub struct ResultFolder {
    /// The folder or file, as the caller named it.
    pub path: PathBuf,
    /// What our campaigns say that they ran; the official harness says nothing.
    pub run: Option<RunJson>,
    /// Every record of every file, files in the order of their names.
    pub records: Vec<FoundRecord>,
}

impl ResultFolder {
    /// Reads a result file, or every result file of a folder.
    ///
    /// A folder with a `run.json`, as our campaigns have, has them in `routes/`. Other folders have them
    /// in themselves, as the official merge tool expects; or, if they have none, in folders below. A
    /// table of a merge tool (`*merged.json`) is read where nothing else is.
    ///
    /// # Errors
    /// If there is none, or one can't be used.
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

    /// Reads one file; what it was made with is said beside it, or beside its folder.
    fn read_file(path: &Path) -> Result<Self, ResultError> {
        let folder = tandem_files::folder_of(path);
        let run = match run_of(folder)? {
            None if folder.ends_with("routes") => run_of(&folder.join(".."))?,
            run => run,
        };
        Ok(Self { path: path.to_owned(), run, records: read_records(path)? })
    }
}

/// Adds the records of result files in folders below `folder`; other JSON files are passed over. Returns
/// whether there was a result file.
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

/// What the folder says that it was made with, if it says so.
fn run_of(folder: &Path) -> Result<Option<RunJson>, ResultError> {
    let path = folder.join(RUN_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let run = serde_json::from_str(&read_text(&path)?);
    run.map(Some).map_err(|source| ResultError::RunFile { path, source })
}

/// JSON files of a folder but those of the ability tool, in the order of their names.
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
    // Reading anything else, such as a pipe, could wait for ever.
    if path.exists() && !path.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(read_error(path, source));
    }
    fs::read_to_string(path).map_err(|source| read_error(path, source))
}

fn read_error(path: &Path, source: io::Error) -> ResultError {
    ResultError::Read { path: path.to_owned(), source }
}
