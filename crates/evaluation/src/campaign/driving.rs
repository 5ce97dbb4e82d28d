//! Driving a campaign, in this process or in worker processes: what happens is told as it happens.

use super::drive::{BoxError, Share};
use super::folder::{Campaign, CampaignError, CampaignPlan};
use super::message::{Message, Ready};
use super::supervisor::{SupervisorError, WorkerEvent, Workers, supervise};
use super::units::Unit;
use super::worker::{DriveAndReport, drive_and_tell};
use crate::scoring::Record;
use serde::de::DeserializeOwned;
use std::sync::atomic::AtomicBool;

/// What happens while a campaign is driven. `R` is what the caller's drives report beside their
/// results.
#[derive(Clone, PartialEq, Debug)]
pub enum Event<R> {
    /// A driver is loaded and the result folder belongs to the campaign.
    Opened {
        /// Drives that had a result already.
        kept: usize,
        /// Claims of other machines that the caller's word made void.
        taken_over: usize,
    },
    /// A worker, by number, begins a drive.
    Started {
        /// The worker; 0 where one process drives.
        worker: usize,
        /// The drive.
        unit: Unit,
    },
    /// A worker is at this tick of its drive.
    Tick {
        /// The worker.
        worker: usize,
        /// The tick.
        tick: u64,
    },
    /// A drive has ended, with a result or without.
    Report(R),
    /// A drive's result is written.
    Finished {
        /// The worker.
        worker: usize,
        /// The drive's result.
        record: Box<Record>,
        /// What it took in real time, seconds.
        took_s: f64,
    },
    /// A worker died at a drive, which is driven again or given up.
    Died {
        /// The worker.
        worker: usize,
        /// The drive.
        unit: Unit,
        /// How it died.
        how: String,
    },
    /// A worker was killed because its drive took too long, which counts as failed.
    TimedOut {
        /// The worker.
        worker: usize,
        /// The drive.
        unit: Unit,
        /// What is noted of it.
        note: String,
    },
}

/// Hears what happens, with the campaign that it happens in.
pub type Listener<'a, R> = dyn FnMut(&Campaign, Event<R>) + 'a;

/// Drives, in this process, everything that has no result yet.
///
/// # Errors
/// If [`Campaign::drive`] fails.
pub fn drive_here<R>(
    campaign: &Campaign,
    cancel: &AtomicBool,
    drive: &mut DriveAndReport<'_, R>,
    listener: &mut Listener<'_, R>,
) -> Result<Share, CampaignError> {
    campaign.open()?;
    listener(campaign, Event::Opened { kept: campaign.finished(), taken_over: 0 });
    drive_and_tell(campaign, cancel, drive, &mut |message| {
        if let Some(event) = event_of(campaign, 0, message) {
            listener(campaign, event);
        }
    })
}

/// Says why a campaign is refused, if it is.
pub type CheckCampaign<'a> = dyn FnMut(&Campaign) -> Result<(), BoxError> + 'a;

/// What must be settled between loading the first driver and the first drive.
pub struct Start<'a> {
    /// Refuses a campaign that cannot be driven to its end, before its folder is written to.
    pub check: &'a mut CheckCampaign<'a>,
    /// Whether to drive what processes of other machines have claimed: they are dead.
    pub take_over: bool,
}

/// A campaign that worker processes have driven, as far as they got.
#[derive(Clone, Debug)]
pub struct Driven {
    /// The campaign.
    pub campaign: Campaign,
    /// What the first worker told of the loaded driver.
    pub ready: Ready,
    /// What is left.
    pub share: Share,
}

/// Drives, in worker processes, everything that has no result yet. Returns `None` if it was stopped
/// before a driver was loaded.
///
/// # Errors
/// If a worker cannot be started, dies before it drives or says that it cannot go on, if the start is
/// refused, or if the result folder cannot be used.
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
            let plan = plan.take().expect("one worker is the first");
            let campaign = plan.with(ready.settings.clone(), ready.sensors.clone());
            let opened = open(&campaign, &mut start)?;
            listener(&campaign, opened);
            driven = Some(Driven { campaign, ready, share: Share::default() });
            return Ok(());
        }
        let driven = driven.as_mut().expect("the first message says that a worker is ready");
        if let WorkerEvent::Message { message: Message::Ended(share), .. } = event {
            driven.share = share;
            return Ok(());
        }
        let limit = workers.drive_limit.as_ref().map(|limit| limit.note.as_str());
        if let Some(event) = settle(&driven.campaign, event, limit)? {
            listener(&driven.campaign, event);
        }
        Ok(())
    })?;
    if let Some(Driven { campaign, share, .. }) = &mut driven {
        // What a worker was stopped at, and what died with the last one, is left.
        let is_left = |unit| campaign.record(unit).is_none();
        share.elsewhere.retain(|held| is_left(held.unit));
        let left = campaign.units().filter(|&unit| is_left(unit)).count();
        share.is_cancelled = left > share.elsewhere.len();
    }
    Ok(driven)
}

fn open<R>(campaign: &Campaign, start: &mut Start<'_>) -> Result<Event<R>, SupervisorError> {
    (start.check)(campaign).map_err(SupervisorError::Refused)?;
    campaign.open()?;
    let taken_over = if start.take_over { campaign.take_over()? } else { 0 };
    Ok(Event::Opened { kept: campaign.finished(), taken_over })
}

/// Notes what the folder must know of a worker's end, and says what happened. A worker may die
/// between its result and its word that there is one.
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
                let note = limit_note.expect("without a limit nothing times out").to_owned();
                campaign.note_timeout(unit, &note)?;
                Some(Event::TimedOut { worker, unit, note })
            }
            finished => finished,
        },
    })
}

/// What a worker's message says; `None` for what the caller need not hear.
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
