//! Results of several folders, put together: of the shards of one campaign, or of the processes of the
//! official harness.

use super::merge::{FoundRecord, Merged, OFFICIAL_ROUTES, duplicates};
use super::provenance::RunJson;
use super::record::{WriteError, route_id, write_json};
use super::rule::Rule;
use super::score_card::ResultFolder;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tandem_export::files;

/// What a folder of ours has of every drive, and of all of them.
const PARTS: [&str; 3] = ["routes", "logs", "wall"];
const STILL_FILE: &str = "still.png";

/// Folders do not go together, or the whole can't be written.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// There is nothing to put together.
    #[error("no folder to merge: name one or more")]
    Nothing,
    /// Some folders say what they were made with, and others do not.
    #[error(
        "{ours:?} was made by tandem and says with what, {foreign:?} has no run.json: merge only \
         folders of one origin"
    )]
    MixedOrigin {
        /// A folder with `run.json`.
        ours: PathBuf,
        /// A folder without.
        foreign: PathBuf,
    },
    /// Two folders are of different campaigns.
    #[error(
        "{other:?} is of another campaign than {first:?}: {}; merge only shards of one campaign",
        differences.join("; ")
    )]
    OtherSettings {
        /// The first folder.
        first: PathBuf,
        /// The one that differs.
        other: PathBuf,
        /// One line per setting.
        differences: Vec<String>,
    },
    /// The folders are of a version that did not say which drives there are.
    #[error("{folder:?} does not say of which routes it is: it was made by an earlier version")]
    UnknownDrives {
        /// The folder.
        folder: PathBuf,
    },
    /// Drives have several records.
    #[error(
        "these drives have more than one record, and each may count once: {}; remove the files that \
         should not count, or leave out a folder",
        found.join("; ")
    )]
    Duplicates {
        /// Route id and files of each.
        found: Vec<String>,
    },
    /// Records are of no drive of the campaign.
    #[error("these records are of no drive of their campaign: {}; remove them", found.join(", "))]
    Strangers {
        /// File of each.
        found: Vec<String>,
    },
    /// The folder for the whole holds something.
    #[error("{folder:?} holds something already: name a new folder, or a file for the table alone")]
    Occupied {
        /// Which folder.
        folder: PathBuf,
    },
    /// A file could not be copied.
    #[error("cannot copy {path:?}")]
    Copy {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The whole could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Results of several folders.
#[derive(Clone, PartialEq, Debug)]
pub struct Gathered {
    folders: Vec<PathBuf>,
    /// What our campaigns ran; `None` for the official harness.
    pub run: Option<RunJson>,
    /// Drives of the whole: of the campaign, or the official 220.
    pub total: usize,
    /// Drives of our campaign without a record.
    pub missing: Vec<String>,
    /// Records and what they come to. The divisor is the number of drives of our campaign, and the
    /// official one for the official harness.
    pub merged: Merged,
}

impl Gathered {
    /// Puts folders together.
    ///
    /// # Errors
    /// If they are not all of one campaign, or not all of the official harness, or a drive has several
    /// records.
    pub fn new(folders: Vec<ResultFolder>) -> Result<Self, GatherError> {
        let first = folders.first().ok_or(GatherError::Nothing)?;
        let (first_path, run) = (first.path.clone(), first.run.clone());
        for folder in &folders {
            match (&run, &folder.run) {
                (None, None) => {}
                (Some(run), Some(other)) => {
                    let differences = other.differences(run, "the first");
                    if !differences.is_empty() {
                        let (first, other) = (first_path, folder.path.clone());
                        return Err(GatherError::OtherSettings { first, other, differences });
                    }
                }
                (Some(_), None) => {
                    let (ours, foreign) = (first_path, folder.path.clone());
                    return Err(GatherError::MixedOrigin { ours, foreign });
                }
                (None, Some(_)) => {
                    let (ours, foreign) = (folder.path.clone(), first_path);
                    return Err(GatherError::MixedOrigin { ours, foreign });
                }
            }
        }
        let paths = folders.iter().map(|folder| folder.path.clone()).collect();
        let records: Vec<FoundRecord> =
            folders.into_iter().flat_map(|folder| folder.records).collect();
        let found: Vec<String> = duplicates(&records)
            .into_iter()
            .map(|(route_id, files)| format!("{route_id} in {}", files.join(", ")))
            .collect();
        if !found.is_empty() {
            return Err(GatherError::Duplicates { found });
        }
        let Some(run) = run else {
            return Ok(Self {
                folders: paths,
                run: None,
                total: OFFICIAL_ROUTES,
                missing: Vec::new(),
                merged: Merged::new(records, OFFICIAL_ROUTES, Rule::Official),
            });
        };
        let total = run.drives().ok_or(GatherError::UnknownDrives { folder: first_path })?;
        let (records, missing) = in_order(&run, records)?;
        let merged = Merged::new(records, total, Rule::Corrected);
        Ok(Self { folders: paths, run: Some(run), total, missing, merged })
    }

    /// One line; the scores never stand without how many drives they rest on.
    pub fn summary(&self) -> String {
        let of = if self.run.is_some() { "" } else { " (of Bench2Drive's set of 220)" };
        format!(
            "{} / {} drives finished{of}, driving score {:.2}, success rate {:.1} %",
            self.merged.finished,
            self.total,
            self.merged.driving_score,
            self.merged.success_rate * 100.0
        )
    }

    /// Writes the table alone.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_table(&self, file: &Path) -> Result<(), GatherError> {
        Ok(write_json(file, &self.merged)?)
    }

    /// Writes a new folder: the table, and of our campaigns everything that the folders have of their
    /// drives, as if one process had driven them all.
    ///
    /// # Errors
    /// If the folder holds something, or a file can't be copied or written.
    pub fn write_folder(&self, folder: &Path) -> Result<(), GatherError> {
        let copy = |path: &Path, source| GatherError::Copy { path: path.to_owned(), source };
        fs::create_dir_all(folder).map_err(|source| copy(folder, source))?;
        if fs::read_dir(folder).map_err(|source| copy(folder, source))?.next().is_some() {
            return Err(GatherError::Occupied { folder: folder.to_owned() });
        }
        if let Some(run) = &self.run {
            write_json(&folder.join("run.json"), run)?;
            for part in PARTS {
                let to = folder.join(part);
                fs::create_dir_all(&to).map_err(|source| copy(&to, source))?;
                for from in &self.folders {
                    self.copy_part(&from.join(part), &to)?;
                }
            }
            for from in &self.folders {
                let still = from.join(STILL_FILE);
                if still.is_file() {
                    copy_file(&still, &folder.join(STILL_FILE))?;
                }
            }
        }
        self.write_table(&folder.join("merged.json"))
    }

    /// Copies the files of drives that have a record; others are of drives that were not finished.
    fn copy_part(&self, from: &Path, to: &Path) -> Result<(), GatherError> {
        let finished =
            self.merged.records().iter().map(|record| format!("{}.json", record.route_id));
        for name in finished {
            let file = from.join(&name);
            if file.is_file() {
                copy_file(&file, &to.join(&name))?;
            }
        }
        Ok(())
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<(), GatherError> {
    let copied = fs::read(from).and_then(|bytes| files::write(to, &bytes));
    copied.map_err(|source| GatherError::Copy { path: from.to_owned(), source })
}

/// Records in the order of the campaign's drives, which their sum depends on, and what is missing.
fn in_order(
    run: &RunJson,
    records: Vec<FoundRecord>,
) -> Result<(Vec<FoundRecord>, Vec<String>), GatherError> {
    let mut found: BTreeMap<String, FoundRecord> =
        records.into_iter().map(|record| (record.route_id.clone(), record)).collect();
    let (mut ordered, mut missing) = (Vec::new(), Vec::new());
    for repetition in 0..run.repetitions {
        for route in &run.routes {
            let id = route_id(*route, repetition);
            match found.remove(&id) {
                Some(record) => ordered.push(record),
                None => missing.push(id),
            }
        }
    }
    let found: BTreeSet<String> = found.into_values().map(|record| record.file).collect();
    if found.is_empty() {
        return Ok((ordered, missing));
    }
    Err(GatherError::Strangers { found: found.into_iter().collect() })
}
