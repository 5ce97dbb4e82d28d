//! Results of several folders, put together: of the shards of one campaign, or of the processes of the
//! official harness.

use super::result_folder::ResultFolder;
use super::score_card::{RouteSet, missing_of, strangers};
use crate::campaign::RunJson;
use crate::scoring::{
    FoundRecord, Merged, OFFICIAL_ROUTES, WriteError, duplicates, file_stem, json_text, route_id,
    write_json,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use tandem_files::WholeFolder;

/// Folders with a file of every finished drive.
const PARTS: [&str; 4] = ["routes", "logs", "wall", "schedules"];

/// Folder with notes of processes that died at drives.
const CRASHES: &str = "crashes";

/// Files of the whole campaign.
const STILL_FILE: &str = "still.png";
const FACTS_FILE: &str = "facts.json";

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
    /// Records are of other routes than the set.
    #[error("these records are of no route of {file}: {}; name the route file that they were made \
             with", found.join(", "))]
    OtherRoutes {
        /// The route file, as the caller named it.
        file: String,
        /// Route id and what differs of each.
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
    /// Drives of the whole: of the campaign, or routes of the set times repetitions.
    pub total: usize,
    /// Drives of our campaign, or of a known route set, without a record.
    pub missing: Vec<String>,
    /// The route set of the official harness's results, if it is known.
    set: Option<String>,
    /// Records and what they come to. The divisor is the number of drives of the whole.
    pub merged: Merged,
}

impl Gathered {
    /// Puts folders together. `set` is what results of the official harness are of; without one they are
    /// taken for results of Bench2Drive's 220 routes.
    ///
    /// # Errors
    /// If they are not all of one campaign, or not all of the official harness, or a drive has several
    /// records, or records are of other routes than `set`.
    pub fn new(folders: Vec<ResultFolder>, set: Option<&RouteSet>) -> Result<Self, GatherError> {
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
            return Self::of_harness(paths, records, set);
        };
        let total = run.drives().ok_or(GatherError::UnknownDrives { folder: first_path })?;
        let (records, missing) = in_order(&run, records)?;
        let merged = Merged::new(records, total);
        Ok(Self { folders: paths, run: Some(run), total, missing, set: None, merged })
    }

    fn of_harness(
        folders: Vec<PathBuf>,
        records: Vec<FoundRecord>,
        set: Option<&RouteSet>,
    ) -> Result<Self, GatherError> {
        let found: BTreeSet<&str> = records.iter().map(FoundRecord::route).collect();
        let mut repetitions: BTreeSet<u32> = records.iter().map(FoundRecord::repetition).collect();
        if repetitions.is_empty() {
            repetitions.insert(0);
        }
        let mut routes = OFFICIAL_ROUTES.max(found.len());
        let mut missing = Vec::new();
        if let Some(set) = set {
            let found = strangers(&records, set);
            if !found.is_empty() {
                return Err(GatherError::OtherRoutes { file: set.file.clone(), found });
            }
            routes = set.routes.len();
            missing = missing_of(set, &repetitions, &records);
        }
        let total = routes * repetitions.len();
        let merged = Merged::new(records, total);
        let set = set.map(|set| set.file.clone());
        Ok(Self { folders, run: None, total, missing, set, merged })
    }

    /// One line; the scores never stand without how many drives they rest on.
    pub fn summary(&self) -> String {
        let of = match (&self.run, &self.set) {
            (Some(_), _) => String::new(),
            (None, Some(file)) => format!(" (routes of {file})"),
            (None, None) if self.total.is_multiple_of(OFFICIAL_ROUTES) => {
                " (of Bench2Drive's set of 220; --routes FILE names what is missing)".to_owned()
            }
            (None, None) => " (of other routes than Bench2Drive's 220)".to_owned(),
        };
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

    /// Writes a new folder that appears complete or not at all: the table, and of our campaigns
    /// everything that the folders have of their drives, as if one process had driven them all.
    ///
    /// # Errors
    /// If the folder holds something, or a file can't be copied or written.
    pub fn write_folder(&self, folder: &Path) -> Result<(), GatherError> {
        let occupied = || GatherError::Occupied { folder: folder.to_owned() };
        let is_free = |mut entries: fs::ReadDir| entries.next().is_none();
        if folder.exists() && !fs::read_dir(folder).is_ok_and(is_free) {
            return Err(occupied());
        }
        let writing = |source| WriteError { path: folder.to_owned(), source };
        let whole = WholeFolder::create(folder).map_err(writing)?;
        if let Some(run) = &self.run {
            let text = json_text(run).map_err(writing)?;
            whole.write("run.json", &text).map_err(writing)?;
            for part in PARTS {
                fs::create_dir(whole.path().join(part)).map_err(writing)?;
            }
            for from in &self.folders {
                self.copy_drives(from, &whole)?;
                copy_crashes(from, run, &whole)?;
                for name in [STILL_FILE, FACTS_FILE] {
                    if !whole.path().join(name).exists() {
                        copy_if_there(from, name, &whole, name)?;
                    }
                }
            }
        }
        let text = json_text(&self.merged).map_err(writing)?;
        whole.write("merged.json", &text).map_err(writing)?;
        if whole.publish_new().map_err(writing)? { Ok(()) } else { Err(occupied()) }
    }

    /// Copies the files of drives that have a record; others are of drives that were not finished.
    fn copy_drives(&self, from: &Path, whole: &WholeFolder) -> Result<(), GatherError> {
        for record in self.merged.records() {
            for part in PARTS {
                let place = format!("{part}/{}.json", file_stem(&record.route_id));
                copy_if_there(from, &place, whole, &place)?;
            }
        }
        Ok(())
    }
}

/// Copies the notes of processes that died at drives of `run`, numbered on from those of folders
/// before.
fn copy_crashes(from: &Path, run: &RunJson, whole: &WholeFolder) -> Result<(), GatherError> {
    let Ok(entries) = fs::read_dir(from.join(CRASHES)) else { return Ok(()) };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    let drives = (0..run.repetitions).flat_map(|repetition| {
        run.routes.iter().map(move |route| file_stem(&route_id(route, repetition)))
    });
    let drives: BTreeSet<String> = drives.collect();
    for name in names {
        let Some((id, _)) = name.rsplit_once('.').filter(|(id, _)| drives.contains(*id)) else {
            continue;
        };
        let place = |number: usize| format!("{CRASHES}/{id}.{number}");
        let taken = |number: &usize| whole.path().join(place(*number)).exists();
        let number = (0..).take_while(taken).count();
        copy_if_there(from, &format!("{CRASHES}/{name}"), whole, &place(number))?;
    }
    Ok(())
}

fn copy_if_there(
    from: &Path,
    name: &str,
    whole: &WholeFolder,
    place: &str,
) -> Result<(), GatherError> {
    let path = from.join(name);
    if !path.is_file() {
        return Ok(());
    }
    let copied = File::open(&path).and_then(|mut from| {
        let mut to = whole.create_file(place)?;
        io::copy(&mut from, &mut to)?;
        to.sync_all()
    });
    copied.map_err(|source| GatherError::Copy { path, source })
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
            let id = route_id(route, repetition);
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
