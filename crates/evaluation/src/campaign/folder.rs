//! A campaign and the folder of its results.

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

/// So many processes may die at a drive; then it is recorded as `Failed - Simulation crashed`.
pub const CRASHES_ALLOWED: usize = 2;

/// One variant of what is run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// Name of its folder, where a campaign has several settings.
    pub name: String,
    /// What is run.
    pub provenance: Provenance,
}

/// Whose times records hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordedTime {
    /// Time is simulated: a drive starts with the epoch, and its system time is its game time, so that
    /// a drive has the same bytes whenever and wherever it is driven.
    Simulated,
    /// Time is real.
    Wall,
}

/// A campaign before a driver is loaded: only then its settings' values and sensors are known.
#[derive(Clone, Debug)]
pub struct CampaignPlan {
    /// See [`Campaign::folder`].
    pub folder: PathBuf,
    /// See [`Campaign::repetitions`].
    pub repetitions: u32,
    /// See [`Campaign::routes`].
    pub routes: Vec<Route>,
    /// See [`Campaign::shard`].
    pub shard: Shard,
    /// See [`Campaign::recorded_time`].
    pub recorded_time: RecordedTime,
    /// See [`Campaign::motion`].
    pub motion: Option<PathBuf>,
}

impl CampaignPlan {
    /// The campaign, of what the loaded driver is asked for.
    pub fn with(self, settings: Vec<Setting>, sensors: Vec<String>) -> Campaign {
        let Self { folder, repetitions, routes, shard, recorded_time, motion } = self;
        Campaign { folder, settings, repetitions, routes, shard, recorded_time, sensors, motion }
    }
}

/// A campaign: settings × repetitions × routes.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Where results go; made if it does not exist.
    pub folder: PathBuf,
    /// What is run. One setting has the folder itself, several have one each in it.
    pub settings: Vec<Setting>,
    /// Drives of every route, 1 or more, each with a seed of its own.
    pub repetitions: u32,
    /// The routes, in order.
    pub routes: Vec<Route>,
    /// Which of the units to drive; tables are of all.
    pub shard: Shard,
    /// Whose times records hold.
    pub recorded_time: RecordedTime,
    /// One icon name per declared sensor, e.g. `carla_camera`.
    pub sensors: Vec<String>,
    /// Where to keep each drive's motion, as `SAVE_NAME/metric_info.json`, if anywhere.
    pub motion: Option<PathBuf>,
}

/// What a drive took in real time: the file in `wall/`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WallTime {
    /// When it began, seconds since the Unix epoch.
    pub started_unix_s: u64,
    /// How long it took, seconds.
    pub took_s: f64,
    /// By whom.
    pub by: Holder,
}

/// A campaign could not go on. Finished drives keep their files.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// There is nothing to drive.
    #[error("a campaign of no {what}: give 1 or more")]
    Nothing {
        /// What there is none of.
        what: &'static str,
    },
    /// Settings can't be told apart by their folders.
    #[error(
        "setting {name:?} can't have a folder: names are letters, digits, '-', '_', '=', ',' and \
         '.', not '.' first, and each is there once"
    )]
    SettingName {
        /// Its name.
        name: String,
    },
    /// The folder could not be made or read.
    #[error("cannot use result folder {path:?}")]
    Folder {
        /// Which folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder holds something else than results.
    #[error("cannot read {path:?} in the result folder")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The folder belongs to other settings.
    #[error(
        "result folder {path:?} was made with other settings: {}; name another folder",
        differences.join("; ")
    )]
    OtherSettings {
        /// Which folder.
        path: PathBuf,
        /// One line per setting.
        differences: Vec<String>,
    },
    /// A result could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A unit could not be claimed.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// A drive could not be set up.
    #[error("cannot drive route {route_id}")]
    Route {
        /// Which route.
        route_id: RouteId,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Campaign {
    /// The units of the shard, in order.
    pub fn units(&self) -> impl Iterator<Item = Unit> {
        let all = units(self.settings.len(), self.repetitions, self.routes.len()).enumerate();
        all.filter(|(position, _)| self.shard.holds(*position)).map(|(_, unit)| unit)
    }

    /// Units of the shard that have a result.
    pub fn finished(&self) -> usize {
        self.units().filter(|&unit| self.record(unit).is_some()).count()
    }

    /// The records of a setting so far, whoever drove them, and what they come to; also written as
    /// `merged.json`.
    ///
    /// # Errors
    /// If it can't be written.
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

    /// The log of a drive that has a result.
    ///
    /// # Errors
    /// If there is none or it can't be read.
    pub fn read_log(&self, unit: Unit) -> Result<RouteLog, CampaignError> {
        read_json(&self.file(unit, "logs"))
    }

    /// The result of a drive, if it has a whole one: complete JSON, one finished route, the right one,
    /// with scores that a drive can have.
    pub fn record(&self, unit: Unit) -> Option<Record> {
        let mut checkpoint: Checkpoint = read_json(&self.file(unit, "routes")).ok()?;
        let is_whole = checkpoint.body.progress == [1, 1] && checkpoint.body.records.len() == 1;
        let record = checkpoint.body.records.pop()?;
        let is_right = record.route_id == self.route_id(unit) && record.scores.is_possible();
        (is_whole && is_right).then_some(record)
    }

    /// What a drive took in real time, if that is known.
    pub fn wall_time(&self, unit: Unit) -> Option<WallTime> {
        read_json(&self.file(unit, "wall")).ok()
    }

    /// Notes that a process died while it drove `unit`, in `words`. After [`CRASHES_ALLOWED`] notes
    /// nobody drives it any more.
    ///
    /// # Errors
    /// If the note can't be written.
    pub fn note_crash(&self, unit: Unit, words: &str) -> Result<(), CampaignError> {
        let note = serde_json::json!({ "how": words, "unix_s": wall_time_unix_s() });
        self.write_note(unit, &note)
    }

    /// Notes that the drive of `unit` took longer than the user allows, in `words`. Nobody drives it
    /// any more.
    ///
    /// # Errors
    /// If the note can't be written.
    pub fn note_timeout(&self, unit: Unit, words: &str) -> Result<(), CampaignError> {
        let note =
            serde_json::json!({ "how": words, "unix_s": wall_time_unix_s(), "timed_out": true });
        self.write_note(unit, &note)
    }

    fn write_note(&self, unit: Unit, note: &serde_json::Value) -> Result<(), CampaignError> {
        while !write_new(&self.crash_file(unit, self.crashes(unit)), note)? {}
        Ok(())
    }

    /// Why nobody drives `unit` any more, if that is so.
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

    /// How many processes are known to have died at `unit`.
    pub fn crashes(&self, unit: Unit) -> usize {
        (0..).take_while(|&note| self.crash_file(unit, note).exists()).count()
    }

    /// Declares void every claim on a unit of the shard whose holder may be alive on another machine.
    /// Returns how many there were. Whoever asks knows that they are dead; if one is not, its drives
    /// are driven twice and count once.
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

    /// The official name of a unit's drive, e.g. `RouteScenario_1711_rep0`.
    pub fn route_id(&self, unit: Unit) -> String {
        route_id(&self.routes[unit.route].id, unit.repetition)
    }

    /// The name of the files of a unit's drive.
    pub(super) fn stem(&self, unit: Unit) -> String {
        file_stem(&self.route_id(unit))
    }

    /// The folder of a setting.
    pub fn setting_folder(&self, setting: usize) -> PathBuf {
        match &self.settings[..] {
            [_] => self.folder.clone(),
            many => self.folder.join(&many[setting].name),
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

    /// Makes the folders of this campaign, or checks that they are.
    ///
    /// # Errors
    /// If they belong to other settings or can't be used, or there is nothing to drive.
    pub fn open(&self) -> Result<(), CampaignError> {
        let counts = [
            ("settings", self.settings.len()),
            ("repetitions", self.repetitions as usize),
            ("routes", self.routes.len()),
        ];
        if let Some((what, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(CampaignError::Nothing { what });
        }
        for (place, setting) in self.settings.iter().enumerate() {
            let name = &setting.name;
            let is_told_apart = self.settings[..place].iter().all(|before| before.name != *name);
            if self.settings.len() > 1 && !(is_folder_name(name) && is_told_apart) {
                return Err(CampaignError::SettingName { name: name.clone() });
            }
        }
        // Folders of other settings are left as they are.
        (0..self.settings.len()).try_for_each(|setting| self.check_setting(setting))?;
        (0..self.settings.len()).try_for_each(|setting| self.open_setting(setting))
    }

    /// Checks that the folder of a setting is new or of the same settings.
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
        // Another process may have been faster, with other settings.
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
