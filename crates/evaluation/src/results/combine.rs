//! Combines results of several folders: of the shards of one campaign, or of the
//! processes of the official harness.

use super::result_folder::ResultFolder;
use super::score_card::{RouteSet, foreign_records, missing_drives};
use crate::campaign::RunJson;
use crate::scoring::{
    FoundRecord, Merged, OFFICIAL_ROUTES, WriteError, duplicates, file_stem, json_text, route_id,
    write_json,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use tandem_files::AtomicFolder;

/// Folders that contain one file per finished drive.
const PARTS: [&str; 4] = ["routes", "logs", "wall", "schedules"];

/// Folder with notes on crashed drives.
const CRASHES: &str = "crashes";

const STILL_FILE: &str = "still.png";
const FACTS_FILE: &str = "facts.json";

/// Error returned when folders can't be combined, or the result can't be written.
#[derive(Debug, thiserror::Error)]
pub enum CombineError {
    #[error("no folder to merge: give one or more")]
    Nothing,
    /// Some folders have a `run.json`, others have none.
    #[error(
        "{ours:?} was written by tandem, but {foreign:?} has no run.json: merge only folders of \
         one origin"
    )]
    MixedOrigin { ours: PathBuf, foreign: PathBuf },
    #[error(
        "{other:?} is from another campaign than {first:?}: {}; merge only shards of one campaign",
        differences.join("; ")
    )]
    OtherSettings {
        first: PathBuf,
        other: PathBuf,
        /// One line per setting that differs.
        differences: Vec<String>,
    },
    /// The `run.json` of an earlier version has no list of routes.
    #[error("run.json in {folder:?} has no list of routes: it was written by an earlier version")]
    UnknownDrives { folder: PathBuf },
    #[error(
        "these drives have more than one record, and each may count once: {}; remove the files \
         that should not count, or leave out a folder",
        found.join("; ")
    )]
    Duplicates {
        /// Route id and files, one entry per drive.
        found: Vec<String>,
    },
    /// Records do not belong to any drive of the campaign.
    #[error(
        "these records do not belong to any drive of their campaign: {}; remove them",
        found.join(", ")
    )]
    ForeignRecords {
        /// Path of the file of each record.
        found: Vec<String>,
    },
    #[error("these records belong to routes that are not in {file}: {}; give the route file that \
             they were made with", found.join(", "))]
    OtherRoutes {
        file: String,
        /// Route id and difference, one entry per record.
        found: Vec<String>,
    },
    #[error("{folder:?} is not empty: give a new folder, or a file for the table alone")]
    NotEmpty { folder: PathBuf },
    #[error("cannot copy {path:?}")]
    Copy {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Combined results of several folders.
#[derive(Clone, PartialEq, Debug)]
pub struct CombinedResults {
    folders: Vec<PathBuf>,
    /// `run.json` of tandem's campaigns; `None` for results of the official harness.
    pub run: Option<RunJson>,
    /// Number of drives of the campaign, or routes of the set × repetitions.
    pub total: usize,
    /// Drives of the campaign, or of a known route set, without a record.
    pub missing: Vec<String>,
    /// Route file of results of the official harness; `None` if it was not given.
    set: Option<String>,
    /// Merged records, with `total` as divisor.
    pub merged: Merged,
}

impl CombinedResults {
    /// Combines folders. `set` is the route set of results of the official harness; without it,
    /// Bench2Drive's 220 routes are assumed.
    ///
    /// # Errors
    /// If the folders belong to several campaigns, or only some of them to the official harness, or
    /// a drive has several records, or records belong to routes that are not in `set`.
    pub fn new(folders: Vec<ResultFolder>, set: Option<&RouteSet>) -> Result<Self, CombineError> {
        let first = folders.first().ok_or(CombineError::Nothing)?;
        let (first_path, run) = (first.path.clone(), first.run.clone());
        for folder in &folders {
            match (&run, &folder.run) {
                (None, None) => {}
                (Some(run), Some(other)) => {
                    let differences = other.differences(run, "the first");
                    if !differences.is_empty() {
                        let (first, other) = (first_path, folder.path.clone());
                        return Err(CombineError::OtherSettings { first, other, differences });
                    }
                }
                (Some(_), None) => {
                    let (ours, foreign) = (first_path, folder.path.clone());
                    return Err(CombineError::MixedOrigin { ours, foreign });
                }
                (None, Some(_)) => {
                    let (ours, foreign) = (folder.path.clone(), first_path);
                    return Err(CombineError::MixedOrigin { ours, foreign });
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
            return Err(CombineError::Duplicates { found });
        }
        let Some(run) = run else {
            return Self::of_harness(paths, records, set);
        };
        let total = run.drives().ok_or(CombineError::UnknownDrives { folder: first_path })?;
        let (records, missing) = in_order(&run, records)?;
        let merged = Merged::new(records, total);
        Ok(Self { folders: paths, run: Some(run), total, missing, set: None, merged })
    }

    fn of_harness(
        folders: Vec<PathBuf>,
        records: Vec<FoundRecord>,
        set: Option<&RouteSet>,
    ) -> Result<Self, CombineError> {
        let found: BTreeSet<&str> = records.iter().map(FoundRecord::route).collect();
        let mut repetitions: BTreeSet<u32> = records.iter().map(FoundRecord::repetition).collect();
        if repetitions.is_empty() {
            repetitions.insert(0);
        }
        let mut routes = OFFICIAL_ROUTES.max(found.len());
        let mut missing = Vec::new();
        if let Some(set) = set {
            let found = foreign_records(&records, set);
            if !found.is_empty() {
                return Err(CombineError::OtherRoutes { file: set.file.clone(), found });
            }
            routes = set.routes.len();
            missing = missing_drives(set, &repetitions, &records);
        }
        let total = routes * repetitions.len();
        let merged = Merged::new(records, total);
        let set = set.map(|set| set.file.clone());
        Ok(Self { folders, run: None, total, missing, set, merged })
    }

    /// Returns the scores as one line, with the numbers of finished and of all drives.
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

    /// Writes only the merged table.
    pub fn write_table(&self, file: &Path) -> Result<(), CombineError> {
        Ok(write_json(file, &self.merged)?)
    }

    /// Writes a new folder atomically: the merged table and, for tandem's campaigns, the files of
    /// all finished drives, as if one process had driven the campaign.
    ///
    /// # Errors
    /// If the folder is not empty, or a file can't be copied or written.
    pub fn write_folder(&self, folder: &Path) -> Result<(), CombineError> {
        let not_empty = || CombineError::NotEmpty { folder: folder.to_owned() };
        let is_free = |mut entries: fs::ReadDir| entries.next().is_none();
        if folder.exists() && !fs::read_dir(folder).is_ok_and(is_free) {
            return Err(not_empty());
        }
        let writing = |source| WriteError { path: folder.to_owned(), source };
        let target = AtomicFolder::create(folder).map_err(writing)?;
        if let Some(run) = &self.run {
            let text = json_text(run).map_err(writing)?;
            target.write("run.json", &text).map_err(writing)?;
            for part in PARTS {
                fs::create_dir(target.path().join(part)).map_err(writing)?;
            }
            for from in &self.folders {
                self.copy_drives(from, &target)?;
                copy_crashes(from, run, &target)?;
                for name in [STILL_FILE, FACTS_FILE] {
                    if !target.path().join(name).exists() {
                        copy_if_present(from, name, &target, name)?;
                    }
                }
            }
        }
        let text = json_text(&self.merged).map_err(writing)?;
        target.write("merged.json", &text).map_err(writing)?;
        if target.publish_new().map_err(writing)? { Ok(()) } else { Err(not_empty()) }
    }

    /// Copies the files of drives with a record. Other files belong to unfinished drives.
    fn copy_drives(&self, from: &Path, target: &AtomicFolder) -> Result<(), CombineError> {
        for record in self.merged.records() {
            for part in PARTS {
                let name = format!("{part}/{}.json", file_stem(&record.route_id));
                copy_if_present(from, &name, target, &name)?;
            }
        }
        Ok(())
    }
}

/// Copies the crash notes of drives of `run`. Numbers continue after those of earlier folders.
fn copy_crashes(from: &Path, run: &RunJson, target: &AtomicFolder) -> Result<(), CombineError> {
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
        let path = |number: usize| format!("{CRASHES}/{id}.{number}");
        let is_used = |number: &usize| target.path().join(path(*number)).exists();
        let number = (0..).take_while(is_used).count();
        copy_if_present(from, &format!("{CRASHES}/{name}"), target, &path(number))?;
    }
    Ok(())
}

fn copy_if_present(
    from: &Path,
    name: &str,
    target: &AtomicFolder,
    target_name: &str,
) -> Result<(), CombineError> {
    let path = from.join(name);
    if !path.is_file() {
        return Ok(());
    }
    let copied = File::open(&path).and_then(|mut from| {
        let mut to = target.create_file(target_name)?;
        io::copy(&mut from, &mut to)?;
        to.sync_all()
    });
    copied.map_err(|source| CombineError::Copy { path, source })
}

/// Returns the records in the order of the campaign's drives, because their floating-point sum
/// depends on it, and the drives without a record.
fn in_order(
    run: &RunJson,
    records: Vec<FoundRecord>,
) -> Result<(Vec<FoundRecord>, Vec<String>), CombineError> {
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
    Err(CombineError::ForeignRecords { found: found.into_iter().collect() })
}
