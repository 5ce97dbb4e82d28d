//! The loop that drives the units of a campaign in one process.

use super::claim::{ClaimOutcome, Holder, claim, clear};
use super::folder::{Campaign, CampaignError, RecordedTime, WallTime};
use super::log::RouteLog;
use super::run::{RouteEnd, RouteOutcome};
use super::units::{Unit, repetition_seed};
use crate::routes::{left_out, weather_id};
use crate::scoring::{
    Checkpoint, Failure, MergedTable, Record, RouteIdentity, RouteResult, score, write_json,
    write_json_compact,
};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tandem_scene::Route;
use tandem_timing::wall_time_unix_s;

/// Time between two looks at drives of other processes of this machine.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

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

/// Any error of the caller's.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Sets up world and driver for one drive and calls [`run_route`](super::run_route).
pub type DriveUnit<'a> = dyn FnMut(Work<'_>) -> Result<RouteOutcome, BoxError> + 'a;

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

/// What is known of a unit after a look at it.
enum UnitState {
    /// There was a result before.
    Kept(Box<Record>),
    /// There is one now.
    Driven,
    /// A process of this machine is driving it.
    InProgress,
    /// A process of another machine may be.
    Elsewhere(Option<Holder>),
    /// The caller asked to stop.
    Cancelled,
}

impl Campaign {
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
        let owner = Holder::this_process();
        let mut left: Vec<Unit> = self.units().collect();
        let mut is_first_look = true;
        loop {
            let mut share = Share::default();
            let mut in_progress = Vec::new();
            for unit in left {
                match self.claim_and_drive(unit, &owner, cancel, progress, drive)? {
                    UnitState::Kept(record) if is_first_look => {
                        progress(Progress::Kept { unit, record: &record });
                    }
                    UnitState::Kept(_) | UnitState::Driven => {}
                    UnitState::InProgress => in_progress.push(unit),
                    UnitState::Elsewhere(holder) => {
                        let route_id = self.route_id(unit);
                        share.elsewhere.push(HeldElsewhere { unit, route_id, holder });
                    }
                    UnitState::Cancelled => return Ok(Share { is_cancelled: true, ..share }),
                }
            }
            if in_progress.is_empty() {
                return Ok(share);
            }
            in_progress.extend(share.elsewhere.into_iter().map(|held| held.unit));
            (left, is_first_look) = (in_progress, false);
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Drives `unit` unless it has a result or another process has claimed it.
    fn claim_and_drive(
        &self,
        unit: Unit,
        owner: &Holder,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
        drive: &mut DriveUnit<'_>,
    ) -> Result<UnitState, CampaignError> {
        let (claims, id) = (self.part(unit.setting, "claims"), self.stem(unit));
        if let Some(record) = self.record(unit) {
            clear(&claims, &id);
            return Ok(UnitState::Kept(Box::new(record)));
        }
        if cancel.load(Ordering::Relaxed) {
            return Ok(UnitState::Cancelled);
        }
        let claim = match claim(&claims, &id, owner)? {
            ClaimOutcome::Claimed(claim) => claim,
            ClaimOutcome::InProgress => return Ok(UnitState::InProgress),
            ClaimOutcome::Elsewhere(holder) => return Ok(UnitState::Elsewhere(holder)),
        };
        // Its last holder may have finished between the look and the claim.
        if let Some(record) = self.record(unit) {
            claim.finish();
            return Ok(UnitState::Kept(Box::new(record)));
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
                (self.result_of(route, &outcome), Some(outcome))
            }
        };
        let Some(result) = result else { return Ok(UnitState::Cancelled) };
        let took_s = outcome.as_ref().map_or(0.0, |outcome| outcome.duration_system_s);
        let wall = WallTime { started_unix_s, took_s, by: owner.clone() };
        let record = self.write(unit, &result, outcome.as_ref(), &wall)?;
        claim.finish();
        progress(Progress::Finished { unit, record: &record });
        Ok(UnitState::Driven)
    }

    /// The result of a drive; `None` if it was cancelled.
    fn result_of(&self, route: &Route, outcome: &RouteOutcome) -> Option<RouteResult> {
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
        if let Some((folder, outcome)) = self.motion.as_ref().zip(outcome) {
            let path = folder.join(&record.save_name);
            fs::create_dir_all(&path)
                .map_err(|source| CampaignError::Folder { path: path.clone(), source })?;
            write_json_compact(&path.join("metric_info.json"), &outcome.motion)?;
        }
        write_json(&wall_file, wall)?;
        let checkpoint = Checkpoint::finished(vec![record.clone()], 1, self.sensors.clone());
        write_json(&result_file, &checkpoint)?;
        Ok(record)
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
