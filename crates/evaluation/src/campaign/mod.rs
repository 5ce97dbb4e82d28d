//! Many drives, one result file each, in a folder that any number of processes may work on at once
//! and that can be taken up again wherever it was left.
//!
//! ```text
//! run.json                              what was run: a folder belongs to one set of settings
//! routes/RouteScenario_1711_rep0.json   result file of one drive, in the official format
//! logs/RouteScenario_1711_rep0.json     that drive tick by tick, for the report
//! wall/RouteScenario_1711_rep0.json     what it took in real time, which no other file says
//! claims/RouteScenario_1711_rep0.0      who drives it now
//! crashes/RouteScenario_1711_rep0.0     how a process died, or was ended, that drove it
//! merged.json                           all records so far, in the official merged format
//! ```
//!
//! A campaign of several settings has all of that once per setting, in a folder of its name.
//! A log is written before its result file, so whatever has a result has a log. A result file, which
//! appears whole or not at all, is all that makes a drive count; everything else may be lost.

mod claim;
pub mod log;
mod provenance;
mod run;
mod units;

pub use claim::{ClaimError, Holder};
pub use provenance::{MOST_REPETITIONS, Provenance, RunJson};
pub use run::{RouteEnd, RouteOutcome, run_route};
pub use units::{Shard, ShardError, Unit, repetition_seed, units};

pub(crate) use run::words_of;

use crate::routes::{left_out, weather_id};
use crate::scoring::{
    Checkpoint, Failure, MergedTable, Record, RouteIdentity, RouteResult, WriteError, file_stem,
    route_id, score, write_json, write_json_compact, write_new,
};
use claim::{Claimed, claim, clear, take_over};
use log::RouteLog;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tandem_files::{remove_leftovers, remove_leftovers_of};
use tandem_scene::{Route, RouteId};
use tandem_timing::wall_time_unix_s;

/// So many processes may die at a drive; then it is recorded as `Failed - Simulation crashed`.
pub const CRASHES_ALLOWED: usize = 2;

/// Time between two looks at drives that other processes of this machine are at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

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

/// A campaign: settings × repetitions × routes.
#[derive(Clone, Copy)]
pub struct Campaign<'a> {
    /// Where results go; made if it does not exist.
    pub folder: &'a Path,
    /// What is run. One setting has the folder itself, several have one each in it.
    pub settings: &'a [Setting],
    /// Drives of every route, 1 or more, each with a seed of its own.
    pub repetitions: u32,
    /// The routes, in order.
    pub routes: &'a [Route],
    /// Which of the units to drive; tables are of all.
    pub shard: Shard,
    /// Whose times records hold.
    pub recorded_time: RecordedTime,
    /// One icon name per declared sensor, e.g. `carla_camera`.
    pub sensors: &'a [String],
    /// Where to keep each drive's motion, as `SAVE_NAME/metric_info.json`, if anywhere.
    pub motion: Option<&'a Path>,
}

/// One drive to make.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// Which.
    pub unit: Unit,
    /// Along which route.
    pub route: &'a Route,
    /// Seed of the world: a function of the setting's seed and the repetition alone.
    pub seed: u64,
}

/// Sets up world and driver for one drive and calls [`run_route`](run::run_route).
pub type DriveUnit<'a> =
    dyn FnMut(Work<'_>) -> Result<RouteOutcome, Box<dyn Error + Send + Sync>> + 'a;

/// What a campaign tells while it runs.
#[derive(Clone, PartialEq, Debug)]
pub enum Progress<'a> {
    /// The folder held the result of this drive already.
    Kept {
        /// Which drive.
        unit: Unit,
        /// Its result.
        record: &'a Record,
    },
    /// This drive begins.
    Started {
        /// Which drive.
        unit: Unit,
        /// Its route.
        route: &'a Route,
    },
    /// This drive's result is written.
    Finished {
        /// Which drive.
        unit: Unit,
        /// Its result.
        record: &'a Record,
    },
}

/// What one process came to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Share {
    /// Whether it was stopped before the last unit.
    pub is_cancelled: bool,
    /// Units that processes have which may be alive where this one can't see.
    pub elsewhere: Vec<HeldElsewhere>,
}

/// A unit that another machine's process may be driving.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldElsewhere {
    /// Which drive.
    pub unit: Unit,
    /// Its name, e.g. `RouteScenario_1711_rep0`.
    pub route_id: String,
    /// Who has it; `None` if its claim can't be read.
    pub holder: Option<Holder>,
}

/// What a campaign came to.
#[derive(Clone, PartialEq, Debug)]
pub struct CampaignSummary {
    /// Records and averages over all drives of each setting; what was not driven counts as zero.
    pub tables: Vec<MergedTable>,
    /// What this process did not get to.
    pub share: Share,
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

/// How a look at a unit ended.
enum Looked {
    /// There was a result before.
    Kept(Box<Record>),
    /// There is one now.
    Driven,
    /// A process of this machine is at it.
    Taken,
    /// One of another may be.
    Elsewhere(Option<Holder>),
    /// Somebody asked to stop.
    Cancelled,
}

impl Campaign<'_> {
    /// The units of the shard, in order.
    pub fn units(&self) -> impl Iterator<Item = Unit> {
        let all = units(self.settings.len(), self.repetitions, self.routes.len()).enumerate();
        all.filter(|(position, _)| self.shard.holds(*position)).map(|(_, unit)| unit)
    }

    /// Drives what is left and writes the table of each setting: [`drive`](Self::drive), then
    /// [`table`](Self::table).
    ///
    /// # Errors
    /// If one of them fails.
    pub fn run(
        &self,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
        drive: &mut DriveUnit<'_>,
    ) -> Result<CampaignSummary, CampaignError> {
        let share = self.drive(cancel, progress, drive)?;
        let tables = (0..self.settings.len()).map(|setting| self.table(setting));
        Ok(CampaignSummary { tables: tables.collect::<Result<_, _>>()?, share })
    }

    /// Drives, with `drive`, every unit of the shard that has no whole result, until all have one or
    /// are held by processes of other machines. Any number of processes and threads may do so in
    /// one folder at once: each unit is driven by one, and all wait for each other on one machine. A
    /// cancelled drive leaves nothing.
    ///
    /// # Errors
    /// If the folder belongs to other settings or can't be used, or `drive` fails.
    pub fn drive(
        &self,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
        drive: &mut DriveUnit<'_>,
    ) -> Result<Share, CampaignError> {
        self.open()?;
        let us = Holder::this_process();
        let mut left: Vec<Unit> = self.units().collect();
        let mut is_first_look = true;
        loop {
            let mut share = Share::default();
            let mut taken = Vec::new();
            for unit in left {
                match self.look(unit, &us, cancel, progress, drive)? {
                    Looked::Kept(record) if is_first_look => {
                        progress(Progress::Kept { unit, record: &record });
                    }
                    Looked::Kept(_) | Looked::Driven => {}
                    Looked::Taken => taken.push(unit),
                    Looked::Elsewhere(holder) => {
                        let route_id = self.route_id(unit);
                        share.elsewhere.push(HeldElsewhere { unit, route_id, holder });
                    }
                    Looked::Cancelled => return Ok(Share { is_cancelled: true, ..share }),
                }
            }
            if taken.is_empty() {
                return Ok(share);
            }
            taken.extend(share.elsewhere.into_iter().map(|held| held.unit));
            (left, is_first_look) = (taken, false);
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn look(
        &self,
        unit: Unit,
        us: &Holder,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
        drive: &mut DriveUnit<'_>,
    ) -> Result<Looked, CampaignError> {
        let (claims, id) = (self.part(unit.setting, "claims"), self.stem(unit));
        if let Some(record) = self.record(unit) {
            clear(&claims, &id);
            return Ok(Looked::Kept(Box::new(record)));
        }
        if cancel.load(Ordering::Relaxed) {
            return Ok(Looked::Cancelled);
        }
        let ours = match claim(&claims, &id, us)? {
            Claimed::Ours(ours) => ours,
            Claimed::Taken => return Ok(Looked::Taken),
            Claimed::Elsewhere(holder) => return Ok(Looked::Elsewhere(holder)),
        };
        // Its last holder may have finished between our look and our claim.
        if let Some(record) = self.record(unit) {
            ours.finish();
            return Ok(Looked::Kept(Box::new(record)));
        }
        let route = &self.routes[unit.route];
        progress(Progress::Started { unit, route });
        let started_unix_s = wall_time_unix_s();
        let (result, outcome) = match self.given_up(unit) {
            Some(failure) => {
                tracing::error!(route = %route.id, %failure, "given up: see the notes in crashes/");
                (Some(without_outcome(failure)), None)
            }
            None => {
                let seed = repetition_seed(self.provenance(unit).seed, unit.repetition);
                let outcome = drive(Work { unit, route, seed }).map_err(|source| {
                    CampaignError::Route { route_id: route.id.clone(), source }
                })?;
                (self.judged(route, &outcome), Some(outcome))
            }
        };
        let Some(result) = result else { return Ok(Looked::Cancelled) };
        let took_s = outcome.as_ref().map_or(0.0, |outcome| outcome.duration_system_s);
        let wall = WallTime { started_unix_s, took_s, by: us.clone() };
        let record = self.write(unit, &result, outcome.as_ref(), &wall)?;
        ours.finish();
        progress(Progress::Finished { unit, record: &record });
        Ok(Looked::Driven)
    }

    /// The result of a drive; `None` if it was cancelled.
    fn judged(&self, route: &Route, outcome: &RouteOutcome) -> Option<RouteResult> {
        if let RouteEnd::DriverFailed(words) = &outcome.end {
            tracing::error!(route = %route.id, words, "the driver failed");
        }
        let mut result = outcome.result()?;
        if self.recorded_time == RecordedTime::Simulated {
            result.duration_system_s = result.duration_game_s;
        }
        Some(result)
    }

    fn write(
        &self,
        unit: Unit,
        result: &RouteResult,
        outcome: Option<&RouteOutcome>,
        wall: &WallTime,
    ) -> Result<Record, CampaignError> {
        let route = &self.routes[unit.route];
        let started_unix_s = match self.recorded_time {
            RecordedTime::Simulated => 0,
            RecordedTime::Wall => wall.started_unix_s,
        };
        let identity =
            RouteIdentity::new(route, unit.repetition, weather_id(route), started_unix_s);
        let mut record = Record::blank(0, &identity).with(score(result));
        record.notes.extend(left_out(route));
        record.safety = outcome.and_then(|outcome| outcome.safety.if_any());
        let [log_file, wall_file, result_file] =
            ["logs", "wall", "routes"].map(|part| self.file(unit, part));
        match outcome {
            Some(outcome) => write_json_compact(&log_file, &outcome.log)?,
            None => write_json_compact(&log_file, &RouteLog::default())?,
        }
        if let Some((folder, outcome)) = self.motion.zip(outcome) {
            let path = folder.join(&record.save_name);
            fs::create_dir_all(&path)
                .map_err(|source| CampaignError::Folder { path: path.clone(), source })?;
            write_json_compact(&path.join("metric_info.json"), &outcome.motion)?;
        }
        write_json(&wall_file, wall)?;
        let checkpoint = Checkpoint::finished(vec![record.clone()], 1, self.sensors.to_vec());
        write_json(&result_file, &checkpoint)?;
        Ok(record)
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
            // Another process may have finished, and written its table before ours.
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
    fn given_up(&self, unit: Unit) -> Option<Failure> {
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
        let us = Holder::this_process();
        let mut taken = 0;
        for unit in self.units() {
            let claims = self.part(unit.setting, "claims");
            taken += usize::from(take_over(&claims, &self.stem(unit), &us)?);
        }
        Ok(taken)
    }

    /// The official name of a unit's drive, e.g. `RouteScenario_1711_rep0`.
    pub fn route_id(&self, unit: Unit) -> String {
        route_id(&self.routes[unit.route].id, unit.repetition)
    }

    /// The name of the files of a unit's drive.
    fn stem(&self, unit: Unit) -> String {
        file_stem(&self.route_id(unit))
    }

    /// The folder of a setting.
    pub fn setting_folder(&self, setting: usize) -> PathBuf {
        match self.settings {
            [_] => self.folder.to_owned(),
            many => self.folder.join(&many[setting].name),
        }
    }

    fn provenance(&self, unit: Unit) -> &Provenance {
        &self.settings[unit.setting].provenance
    }

    fn part(&self, setting: usize, part: &str) -> PathBuf {
        self.setting_folder(setting).join(part)
    }

    fn file(&self, unit: Unit, part: &str) -> PathBuf {
        self.part(unit.setting, part).join(format!("{}.json", self.stem(unit)))
    }

    fn crash_file(&self, unit: Unit, note: usize) -> PathBuf {
        self.part(unit.setting, "crashes").join(format!("{}.{note}", self.stem(unit)))
    }

    /// Makes the folders ours, or checks that they are.
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

/// The result of a drive that no process survived, as the official harness has it.
fn without_outcome(failure: Failure) -> RouteResult {
    RouteResult {
        route_length_m: None,
        completion: None,
        infractions: Vec::new(),
        timed_out: false,
        failure: Some(failure),
        duration_game_s: 0.0,
        duration_system_s: 0.0,
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
