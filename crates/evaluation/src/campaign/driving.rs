//! Runs a campaign in this process or in worker processes, and reports events as they happen.

use super::drive::{BoxError, Remaining};
use super::folder::{Campaign, CampaignError, CampaignPlan};
use super::message::{Message, Ready};
use super::supervisor::{SupervisorError, WorkerEvent, Workers, supervise};
use super::units::Unit;
use super::worker::{DriveAndReport, drive_and_report};
use crate::scoring::Record;
use serde::de::DeserializeOwned;
use std::sync::atomic::AtomicBool;

/// Event of a running campaign. `R` is the caller's report on a drive. Workers are numbered from 0;
/// a campaign that runs in one process has worker 0.
#[derive(Clone, PartialEq, Debug)]
pub enum Event<R> {
    /// A driver is loaded, and the result folder belongs to the campaign.
    Opened {
        /// Number of drives that already had a result.
        kept: usize,
        /// Number of claims of other machines that were declared void.
        taken_over: usize,
    },
    Started {
        worker: usize,
        unit: Unit,
    },
    /// Current tick of a worker's drive.
    Tick {
        worker: usize,
        tick: u64,
    },
    /// Report on a drive that has ended, with a result or without.
    Report(R),
    /// A drive's result is written.
    Finished {
        worker: usize,
        record: Box<Record>,
        /// Wall time of the drive, seconds.
        took_s: f64,
    },
    /// A worker crashed during a drive, which is driven again or given up.
    Died {
        worker: usize,
        unit: Unit,
        /// Exit status of the worker, as text.
        how: String,
    },
    /// A worker was killed because its drive exceeded the wall-time limit.
    /// The drive counts as failed.
    TimedOut {
        worker: usize,
        unit: Unit,
        /// Text of the note in `crashes/`.
        note: String,
    },
}

/// Receives the events of a campaign.
pub type Listener<'a, R> = dyn FnMut(&Campaign, Event<R>) + 'a;

/// Runs all unfinished drives in this process.
pub fn drive_in_process<R>(
    campaign: &Campaign,
    cancel: &AtomicBool,
    drive: &mut DriveAndReport<'_, R>,
    listener: &mut Listener<'_, R>,
) -> Result<Remaining, CampaignError> {
    campaign.open()?;
    listener(campaign, Event::Opened { kept: campaign.finished(), taken_over: 0 });
    drive_and_report(campaign, cancel, drive, &mut |message| {
        if let Some(event) = event_of(campaign, 0, message) {
            listener(campaign, event);
        }
    })
}

/// Returns an error if a campaign must not be driven.
pub type CheckCampaign<'a> = dyn FnMut(&Campaign) -> Result<(), BoxError> + 'a;

/// Steps between loading the first driver and the first drive.
pub struct Start<'a> {
    /// Rejects a campaign that cannot be completed, before its folder is written to.
    pub check: &'a mut CheckCampaign<'a>,
    /// True to drive the units claimed by processes on other machines, which must have ended.
    pub take_over: bool,
}

/// Campaign after worker processes have run, finished or not.
#[derive(Clone, Debug)]
pub struct Driven {
    pub campaign: Campaign,
    /// Properties of the driver, as reported by the first worker.
    pub ready: Ready,
    pub remaining: Remaining,
}

/// Runs all unfinished drives in worker processes. Returns `None` if it was stopped
/// before a driver was loaded.
///
/// # Errors
/// If a worker cannot be started, dies before it drives or reports an error, if `start` rejects the
/// campaign, or if the result folder cannot be used.
pub fn drive_with_workers<R: DeserializeOwned + Send + 'static>(
    plan: CampaignPlan,
    workers: &Workers<'_>,
    mut start: Start<'_>,
    cancel: &AtomicBool,
    listener: &mut Listener<'_, R>,
) -> Result<Option<Driven>, SupervisorError> {
    let mut plan = Some(plan);
    let mut driven: Option<Driven> = None;
    supervise(workers, cancel, &mut |event| {
        if let WorkerEvent::Ready(ready) = event {
            let plan = plan.take().expect("only the first worker sends `Ready` to this callback");
            let campaign = plan.with(ready.settings.clone(), ready.sensors.clone());
            let opened = open(&campaign, &mut start)?;
            listener(&campaign, opened);
            driven = Some(Driven { campaign, ready, remaining: Remaining::default() });
            return Ok(());
        }
        let driven = driven.as_mut().expect("the first event is `Ready`");
        if let WorkerEvent::Message { message: Message::Ended(remaining), .. } = event {
            driven.remaining = remaining;
            return Ok(());
        }
        let limit = workers.drive_limit.as_ref().map(|limit| limit.note.as_str());
        if let Some(event) = settle(&driven.campaign, event, limit)? {
            listener(&driven.campaign, event);
        }
        Ok(())
    })?;
    if let Some(Driven { campaign, remaining, .. }) = &mut driven {
        // Workers may have been stopped or have crashed during a drive.
        let is_unfinished = |unit| campaign.record(unit).is_none();
        remaining.elsewhere.retain(|held| is_unfinished(held.unit));
        let unfinished = campaign.units().filter(|&unit| is_unfinished(unit)).count();
        remaining.is_cancelled = unfinished > remaining.elsewhere.len();
    }
    Ok(driven)
}

fn open<R>(campaign: &Campaign, start: &mut Start<'_>) -> Result<Event<R>, SupervisorError> {
    (start.check)(campaign).map_err(SupervisorError::Refused)?;
    campaign.open()?;
    let taken_over = if start.take_over { campaign.take_over()? } else { 0 };
    Ok(Event::Opened { kept: campaign.finished(), taken_over })
}

/// Writes crash and timeout notes, and returns the event for the caller. A worker may die after it
/// has written a result and before it has sent `Finished`.
fn settle<R>(
    campaign: &Campaign,
    event: WorkerEvent<R>,
    limit_note: Option<&str>,
) -> Result<Option<Event<R>>, CampaignError> {
    let finished = |worker, unit| event_of(campaign, worker, Message::Finished { unit });
    Ok(match event {
        WorkerEvent::Ready(_) => None,
        WorkerEvent::Message { worker, message } => event_of(campaign, worker, message),
        WorkerEvent::Died { worker, unit, how } => match finished(worker, unit) {
            None => {
                campaign.note_crash(unit, &how)?;
                Some(Event::Died { worker, unit, how })
            }
            finished => finished,
        },
        WorkerEvent::TimedOut { worker, unit } => match finished(worker, unit) {
            None => {
                let note = limit_note.expect("drives time out only if there is a limit").to_owned();
                campaign.note_timeout(unit, &note)?;
                Some(Event::TimedOut { worker, unit, note })
            }
            finished => finished,
        },
    })
}

/// Converts a worker's message into an event; `None` for messages that the caller does not receive.
fn event_of<R>(campaign: &Campaign, worker: usize, message: Message<R>) -> Option<Event<R>> {
    Some(match message {
        Message::Started { unit } => Event::Started { worker, unit },
        Message::Tick { tick } => Event::Tick { worker, tick },
        Message::Report(report) => Event::Report(report),
        Message::Finished { unit } => {
            let record = Box::new(campaign.record(unit)?);
            let took_s = campaign.wall_time(unit).map_or(0.0, |wall| wall.took_s);
            Event::Finished { worker, record, took_s }
        }
        Message::Ready(_) | Message::Ended(_) | Message::Failed(_) => return None,
    })
}
