//! Campaign and its result folder.

use super::Holder;
use super::claim::{ClaimError, take_over};
use super::log::RouteLog;
use super::provenance::{Provenance, RunJson};
use super::units::{Shard, Unit, units};
use crate::scoring::{
    Checkpoint, Failure, MergedTable, Record, WriteError, file_stem, route_id, write_json,
    write_new,
};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tandem_files::{remove_leftovers, remove_leftovers_of};
use tandem_scene::{Route, RouteId};
use tandem_timing::wall_time_unix_s;

/// After this many worker crashes a drive is recorded as `Failed - Simulation crashed`.
pub const CRASHES_ALLOWED: usize = 2;

/// One setting of a campaign.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// Name of the subfolder, used if a campaign has several settings.
    pub name: String,
    pub provenance: Provenance,
}

/// Source of the times in records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordedTime {
    /// Simulated time: a drive starts at the Unix epoch, and its system time is its game time, so
    /// that its result file has the same bytes on every machine and at any time.
    Simulated,
    Wall,
}

/// Fields of a [`Campaign`] that are known before a driver is loaded.
#[derive(Clone, Debug)]
pub struct CampaignPlan {
    pub folder: PathBuf,
    pub repetitions: u32,
    pub routes: Vec<Route>,
    pub shard: Shard,
    pub recorded_time: RecordedTime,
    pub motion: Option<PathBuf>,
}

impl CampaignPlan {
    /// Completes the plan with the settings and sensors of the loaded driver.
    pub fn with(self, settings: Vec<Setting>, sensors: Vec<String>) -> Campaign {
        let Self { folder, repetitions, routes, shard, recorded_time, motion } = self;
        Campaign { folder, settings, repetitions, routes, shard, recorded_time, sensors, motion }
    }
}

/// Campaign of settings × repetitions × routes.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Result folder; created if it does not exist.
    pub folder: PathBuf,
    /// A single setting uses the result folder, several settings use one subfolder each.
    pub settings: Vec<Setting>,
    /// Number of drives of every route, 1 or more, each with a different seed.
    pub repetitions: u32,
    pub routes: Vec<Route>,
    /// Units to drive. Tables contain all units.
    pub shard: Shard,
    pub recorded_time: RecordedTime,
    /// One icon name per declared sensor, e.g. `carla_camera`.
    pub sensors: Vec<String>,
    /// Folder for motion logs, `SAVE_NAME/metric_info.json` per drive; `None` to write none.
    pub motion: Option<PathBuf>,
}

/// Start and duration of a drive in wall time: the file in `wall/`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WallTime {
    /// Seconds since the Unix epoch.
    pub started_unix_s: u64,
    pub took_s: f64,
    pub by: Holder,
}

/// Error that stops a campaign. Finished drives keep their files.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The campaign has no units.
    #[error("a campaign of no {what}: give 1 or more")]
    Nothing {
        /// `settings`, `repetitions` or `routes`.
        what: &'static str,
    },
    #[error(
        "{name:?} is not a valid name of a setting: names consist of letters, digits, '-', '_', \
         '=', ',' and '.', do not begin with '.', and are unique"
    )]
    SettingName { name: String },
    #[error("cannot use result folder {path:?}")]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {path:?} in the result folder")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "result folder {path:?} was made with other settings: {}; name another folder",
        differences.join("; ")
    )]
    OtherSettings {
        path: PathBuf,
        /// One line per setting that differs.
        differences: Vec<String>,
    },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The caller could not set up a drive.
    #[error("cannot drive route {route_id}")]
    Route {
        route_id: RouteId,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Campaign {
    /// Returns the units of the shard, in order.
    pub fn units(&self) -> impl Iterator<Item = Unit> {
        let all = units(self.settings.len(), self.repetitions, self.routes.len()).enumerate();
        all.filter(|(position, _)| self.shard.contains(*position)).map(|(_, unit)| unit)
    }

    /// Returns the number of units of the shard with a result.
    pub fn finished(&self) -> usize {
        self.units().filter(|&unit| self.record(unit).is_some()).count()
    }

    /// Returns all records of a setting so far, of all processes, with their scores, and
    /// writes them as `merged.json`.
    pub fn table(&self, setting: usize) -> Result<MergedTable, CampaignError> {
        let path = self.setting_folder(setting).join("merged.json");
        let records = || -> Vec<Record> {
            let all = units(1, self.repetitions, self.routes.len());
            all.filter_map(|unit| self.record(Unit { setting, ..unit })).collect()
        };
        let mut found = records();
        loop {
            let table = MergedTable::new(found, self.routes.len(), self.repetitions);
            write_json(&path, &table)?;
            // Another process may have finished, and written its table before this one.
            found = records();
            if found.len() == table.finished {
                return Ok(table);
            }
        }
    }

    /// Reads the log of a finished drive.
    pub fn read_log(&self, unit: Unit) -> Result<RouteLog, CampaignError> {
        read_json(&self.file(unit, "logs"))
    }

    /// Reads the result of a drive; `None` unless its file is complete JSON with one finished
    /// record, of this drive, with valid scores.
    pub fn record(&self, unit: Unit) -> Option<Record> {
        let mut checkpoint: Checkpoint = read_json(&self.file(unit, "routes")).ok()?;
        let is_complete = checkpoint.body.progress == [1, 1] && checkpoint.body.records.len() == 1;
        let record = checkpoint.body.records.pop()?;
        let is_right = record.route_id == self.route_id(unit) && record.scores.is_possible();
        (is_complete && is_right).then_some(record)
    }

    /// Reads start and duration of a drive in wall time; `None` if the file
    /// is missing or can't be read.
    pub fn wall_time(&self, unit: Unit) -> Option<WallTime> {
        read_json(&self.file(unit, "wall")).ok()
    }

    /// Writes a note that a process died while it drove `unit`, with the cause `how`. After
    /// [`CRASHES_ALLOWED`] notes the unit is not driven again.
    pub fn note_crash(&self, unit: Unit, how: &str) -> Result<(), CampaignError> {
        let note = serde_json::json!({ "how": how, "unix_s": wall_time_unix_s() });
        self.write_note(unit, &note)
    }

    /// Writes a note that the drive of `unit` exceeded the wall-time limit, with the text `how`.
    /// The unit is not driven again.
    pub fn note_timeout(&self, unit: Unit, how: &str) -> Result<(), CampaignError> {
        let note =
            serde_json::json!({ "how": how, "unix_s": wall_time_unix_s(), "timed_out": true });
        self.write_note(unit, &note)
    }

    fn write_note(&self, unit: Unit, note: &serde_json::Value) -> Result<(), CampaignError> {
        while !write_new(&self.crash_file(unit, self.crashes(unit)), note)? {}
        Ok(())
    }

    /// Returns the recorded failure if `unit` is not driven again because of its notes.
    pub(super) fn given_up(&self, unit: Unit) -> Option<Failure> {
        let notes = self.crashes(unit);
        let is_timeout = |note: usize| {
            let note = read_json::<serde_json::Value>(&self.crash_file(unit, note));
            note.is_ok_and(|note| note["timed_out"] == true)
        };
        if (0..notes).any(is_timeout) {
            return Some(Failure::WallTimeLimit);
        }
        (notes >= CRASHES_ALLOWED).then_some(Failure::SimulationCrashed)
    }

    /// Returns the number of notes on crashes and timeouts of `unit`.
    pub fn crashes(&self, unit: Unit) -> usize {
        (0..).take_while(|&note| self.crash_file(unit, note).exists()).count()
    }

    /// Declares void every claim of the shard whose process may run on another machine, and returns
    /// their number. The caller must have checked that these processes have ended. If one still
    /// runs, its unit is driven twice and counts once.
    ///
    /// # Errors
    /// If the folder belongs to other settings, or a claim can't be read or written.
    pub fn take_over(&self) -> Result<usize, CampaignError> {
        self.open()?;
        let owner = Holder::this_process();
        let mut taken = 0;
        for unit in self.units() {
            let claims = self.part(unit.setting, "claims");
            taken += usize::from(take_over(&claims, &self.stem(unit), &owner)?);
        }
        Ok(taken)
    }

    /// Returns the official name of a unit's drive, e.g. `RouteScenario_1711_rep0`.
    pub fn route_id(&self, unit: Unit) -> String {
        route_id(&self.routes[unit.route].id, unit.repetition)
    }

    /// Returns the name of the unit's files, without extension.
    pub(super) fn stem(&self, unit: Unit) -> String {
        file_stem(&self.route_id(unit))
    }

    /// Returns the folder of a setting.
    pub fn setting_folder(&self, setting: usize) -> PathBuf {
        match &self.settings[..] {
            [_] => self.folder.clone(),
            settings => self.folder.join(&settings[setting].name),
        }
    }

    pub(super) fn provenance(&self, unit: Unit) -> &Provenance {
        &self.settings[unit.setting].provenance
    }

    pub(super) fn part(&self, setting: usize, part: &str) -> PathBuf {
        self.setting_folder(setting).join(part)
    }

    pub(super) fn file(&self, unit: Unit, part: &str) -> PathBuf {
        self.part(unit.setting, part).join(format!("{}.json", self.stem(unit)))
    }

    fn crash_file(&self, unit: Unit, note: usize) -> PathBuf {
        self.part(unit.setting, "crashes").join(format!("{}.{note}", self.stem(unit)))
    }

    /// Creates the folders of this campaign, or checks that existing ones belong to it.
    ///
    /// # Errors
    /// If folders belong to other settings or can't be used, or the campaign has no units.
    pub fn open(&self) -> Result<(), CampaignError> {
        let counts = [
            ("settings", self.settings.len()),
            ("repetitions", self.repetitions as usize),
            ("routes", self.routes.len()),
        ];
        if let Some((what, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(CampaignError::Nothing { what });
        }
        for (idx, setting) in self.settings.iter().enumerate() {
            let name = &setting.name;
            let is_unique = self.settings[..idx].iter().all(|before| before.name != *name);
            if self.settings.len() > 1 && !(is_folder_name(name) && is_unique) {
                return Err(CampaignError::SettingName { name: name.clone() });
            }
        }
        // All settings are checked before any folder is changed.
        (0..self.settings.len()).try_for_each(|setting| self.check_setting(setting))?;
        (0..self.settings.len()).try_for_each(|setting| self.open_setting(setting))
    }

    /// Checks that the folder of a setting is new or was made with the same settings.
    fn check_setting(&self, setting: usize) -> Result<(), CampaignError> {
        let folder = self.setting_folder(setting);
        let path = folder.join("run.json");
        if !path.exists() {
            return Ok(());
        }
        let differences = self.run_json(setting).differences(&read_json(&path)?, "the folder");
        if differences.is_empty() {
            return Ok(());
        }
        Err(CampaignError::OtherSettings { path: folder, differences })
    }

    fn open_setting(&self, setting: usize) -> Result<(), CampaignError> {
        let folder = self.setting_folder(setting);
        for part in ["routes", "logs", "wall", "claims", "crashes"] {
            let path = folder.join(part);
            fs::create_dir_all(&path)
                .map_err(|source| CampaignError::Folder { path: path.clone(), source })?;
            remove_leftovers(&path);
        }
        let path = folder.join("run.json");
        remove_leftovers_of(&path);
        if !path.exists() && write_new(&path, &self.run_json(setting))? {
            return Ok(());
        }
        // Another process may have created the file first, with other settings.
        self.check_setting(setting)
    }

    fn run_json(&self, setting: usize) -> RunJson {
        RunJson {
            provenance: self.settings[setting].provenance.clone(),
            routes: self.routes.iter().map(|route| route.id.clone()).collect(),
            repetitions: self.repetitions,
        }
    }
}

fn is_folder_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(is_plain)
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, CampaignError> {
    let text = fs::read_to_string(path)
        .map_err(|source| CampaignError::Folder { path: path.to_owned(), source })?;
    serde_json::from_str(&text)
        .map_err(|source| CampaignError::Unreadable { path: path.to_owned(), source })
}
