//! The loop that drives the units of a campaign in one process.

use super::claim::{ClaimOutcome, Holder, claim, clear};
use super::folder::{Campaign, CampaignError, RecordedTime, WallTime};
use super::log::RouteLog;
use super::run::{RouteEnd, RouteOutcome};
use super::units::{Unit, repetition_seed};
use crate::routes::{unsupported_scenarios, weather_id};
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

/// Polling interval for drives of other processes on this machine.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// One drive that a [`DriveUnit`] runs.
#[derive(Clone, Copy, Debug)]
pub struct DriveTask<'a> {
    pub unit: Unit,
    pub route: &'a Route,
    /// Seed of the world; depends only on the setting's seed and the repetition.
    pub seed: u64,
}

/// Any error type of the caller's drives.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Callback that creates world and driver for one drive and calls [`run_route`](super::run_route).
pub type DriveUnit<'a> = dyn FnMut(DriveTask<'_>) -> Result<RouteOutcome, BoxError> + 'a;

/// Progress report of a running campaign.
#[derive(Clone, PartialEq, Debug)]
pub enum Progress<'a> {
    /// The folder already contained the result of this drive.
    Kept {
        unit: Unit,
        record: &'a Record,
    },
    Started {
        unit: Unit,
        route: &'a Route,
    },
    /// The result of this drive is written.
    Finished {
        unit: Unit,
        record: &'a Record,
    },
}

/// Units that a process left unfinished.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Remaining {
    /// True if the process was stopped before the last unit.
    pub is_cancelled: bool,
    /// Units claimed by processes that may run on other machines.
    pub elsewhere: Vec<HeldElsewhere>,
}

/// Unit that a process on another machine may be driving.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeldElsewhere {
    pub unit: Unit,
    /// E.g. `RouteScenario_1711_rep0`.
    pub route_id: String,
    /// Process of the claim; `None` if the claim can't be read.
    pub holder: Option<Holder>,
}

/// Result of running a campaign.
#[derive(Clone, PartialEq, Debug)]
pub struct CampaignSummary {
    /// Records and averages of each setting, over all of its drives;
    /// unfinished drives count as zero.
    pub tables: Vec<MergedTable>,
    pub remaining: Remaining,
}

/// State of a unit after an attempt to drive it.
enum UnitState {
    /// The unit already had a result.
    Kept(Box<Record>),
    /// This process has driven the unit.
    Driven,
    /// Another process on this machine is driving it.
    InProgress,
    /// A process on another machine may be driving it.
    Elsewhere(Option<Holder>),
    /// The caller requested to stop.
    Cancelled,
}

impl Campaign {
    /// Runs all unfinished drives and writes the table of each setting: [`drive`](Self::drive),
    /// then [`table`](Self::table).
    pub fn run(
        &self,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
        drive: &mut DriveUnit<'_>,
    ) -> Result<CampaignSummary, CampaignError> {
        let remaining = self.drive(cancel, progress, drive)?;
        let tables = (0..self.settings.len()).map(|setting| self.table(setting));
        Ok(CampaignSummary { tables: tables.collect::<Result<_, _>>()?, remaining })
    }

    /// Calls `drive` for every unit of the shard without a complete result, until all units have
    /// one or are claimed by processes on other machines. Several processes and threads may call
    /// this for one folder at once: each unit is driven by one of them, and those on the same
    /// machine return only when all their units are finished. A cancelled drive leaves no files.
    ///
    /// # Errors
    /// If the folder belongs to other settings or can't be used, or `drive` fails.
    pub fn drive(
        &self,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
        drive: &mut DriveUnit<'_>,
    ) -> Result<Remaining, CampaignError> {
        self.open()?;
        let owner = Holder::this_process();
        let mut unfinished: Vec<Unit> = self.units().collect();
        let mut is_first_pass = true;
        loop {
            let mut remaining = Remaining::default();
            let mut in_progress = Vec::new();
            for unit in unfinished {
                match self.claim_and_drive(unit, &owner, cancel, progress, drive)? {
                    UnitState::Kept(record) if is_first_pass => {
                        progress(Progress::Kept { unit, record: &record });
                    }
                    UnitState::Kept(_) | UnitState::Driven => {}
                    UnitState::InProgress => in_progress.push(unit),
                    UnitState::Elsewhere(holder) => {
                        let route_id = self.route_id(unit);
                        remaining.elsewhere.push(HeldElsewhere { unit, route_id, holder });
                    }
                    UnitState::Cancelled => {
                        return Ok(Remaining { is_cancelled: true, ..remaining });
                    }
                }
            }
            if in_progress.is_empty() {
                return Ok(remaining);
            }
            in_progress.extend(remaining.elsewhere.into_iter().map(|held| held.unit));
            (unfinished, is_first_pass) = (in_progress, false);
            std::thread::sleep(POLL_INTERVAL);
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
        // The previous holder may have finished after `record` was read above.
        if let Some(record) = self.record(unit) {
            claim.finish();
            return Ok(UnitState::Kept(Box::new(record)));
        }
        let route = &self.routes[unit.route];
        progress(Progress::Started { unit, route });
        let started_unix_s = wall_time_unix_s();
        let (result, outcome) = match self.given_up(unit) {
            Some(failure) => {
                tracing::error!(route = %route.id, %failure, "given up, see the notes in crashes/");
                (Some(without_outcome(failure)), None)
            }
            None => {
                let seed = repetition_seed(self.provenance(unit).seed, unit.repetition);
                let outcome = drive(DriveTask { unit, route, seed }).map_err(|source| {
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

    /// Returns the result of a drive; `None` if it was cancelled.
    fn result_of(&self, route: &Route, outcome: &RouteOutcome) -> Option<RouteResult> {
        if let RouteEnd::DriverFailed(reason) = &outcome.end {
            tracing::error!(route = %route.id, reason, "the driver failed");
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
        record.notes.extend(unsupported_scenarios(route));
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

/// Returns the result of a drive without outcome, after crashes or a timeout, as in the official
/// harness.
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
