//! The worker's side: a process that drives units of a campaign for the one that started it.
//!
//! It begins when a line comes on its standard input, which it reads from its start on. When that is
//! closed, as it also is when the process that started it is killed, it stops after the tick it is
//! at; if it does not stop soon, whatever it is doing, it is killed or ends itself.

use super::drive::{BoxError, Progress, Share, Work};
use super::folder::{Campaign, CampaignError};
use super::message::{Message, Ready, RemoteError};
use super::run::RouteOutcome;
use serde::Serialize;
use std::cell::RefCell;
use std::error::Error;
use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// Ticks between two messages in which a worker says where it is.
const TICKS_PER_MESSAGE: u64 = 20;

/// A process could not become a worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The system refuses to end it with the process that started it.
    #[error("cannot tie this worker to the process that started it")]
    Tie(#[source] io::Error),
    /// No thread can be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// This process as a worker.
pub struct Worker {
    cancel: Arc<AtomicBool>,
    /// Receives one value when it may begin; closed when it is to stop.
    begin: Receiver<()>,
    /// Writes a line to standard output.
    send_line: Box<dyn Fn(&str)>,
}

impl Worker {
    /// Makes this process a worker. From now on it ends soon after the one that started it: `cancel`
    /// is set when standard input is closed, and then `end_soon` is called on a thread of its own,
    /// which ends the process if it has not ended by itself. `send_line` writes a line to standard
    /// output.
    ///
    /// # Errors
    /// If the system refuses one of these steps.
    pub fn start(
        cancel: Arc<AtomicBool>,
        send_line: impl Fn(&str) + 'static,
        end_soon: impl FnOnce() + Send + 'static,
    ) -> Result<Self, WorkerError> {
        // The end of standard input is noticed by a thread, which a process that is stopped does not
        // run; this works without.
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(|error| WorkerError::Tie(error.into()))?;
        let (may_begin, begin) = sync_channel(1);
        let flag = Arc::clone(&cancel);
        thread::Builder::new()
            .name("until told to stop".to_owned())
            .spawn(move || {
                let mut stdin = io::stdin().lock();
                if stdin.read_line(&mut String::new()).is_ok_and(|length| length > 0) {
                    let _ = may_begin.send(());
                    let _ = io::copy(&mut stdin, &mut io::sink());
                }
                flag.store(true, Ordering::Relaxed);
                drop(may_begin);
                end_soon();
            })
            .map_err(WorkerError::Thread)?;
        Ok(Self { cancel, begin, send_line: Box::new(send_line) })
    }

    /// Set when it is to stop.
    pub fn cancel(&self) -> &AtomicBool {
        &self.cancel
    }

    /// Says that everything is loaded and waits for the word to begin. Returns whether it came; if
    /// not, the worker is to stop.
    pub fn wait_to_begin(&self, ready: Ready) -> bool {
        self.send(&Message::<()>::Ready(ready));
        // If there will be none, the flag is set.
        let _ = self.begin.recv();
        !self.cancel.load(Ordering::Relaxed)
    }

    /// Drives what is left of `campaign`, as other processes of it do at the same time. `drive` makes
    /// one drive; it calls its second argument with the number of every tick, and what it returns
    /// beside the outcome reaches the process that started this one.
    ///
    /// # Errors
    /// If [`Campaign::drive`] fails.
    pub fn drive<R: Serialize>(
        &self,
        campaign: &Campaign,
        drive: &mut DriveAndReport<'_, R>,
    ) -> Result<(), CampaignError> {
        let share = drive_and_tell(campaign, &self.cancel, drive, &mut |message| {
            if !matches!(&message, Message::Tick { tick } if !tick.is_multiple_of(TICKS_PER_MESSAGE))
            {
                self.send(&message);
            }
        })?;
        self.send(&Message::<R>::Ended(share));
        Ok(())
    }

    /// Says that this worker cannot go on. It should end as if it had succeeded: a worker that says
    /// so has not crashed.
    pub fn fail(&self, error: &(dyn Error + 'static)) {
        self.send(&Message::<()>::Failed(RemoteError::new(error)));
    }

    fn send<R: Serialize>(&self, message: &Message<R>) {
        let line = serde_json::to_string(message).expect("messages have text keys only");
        (self.send_line)(&line);
    }
}

/// The outcome of one drive and what it reports beside it.
pub type DriveResult<R> = Result<(RouteOutcome, R), BoxError>;

/// Makes one drive: sets up world and driver, calls [`run_route`](super::run_route) and, at every
/// tick, its second argument.
pub type DriveAndReport<'a, R> = dyn FnMut(Work<'_>, &mut dyn FnMut(u64)) -> DriveResult<R> + 'a;

/// Drives what is left of `campaign` and tells what happens, drive by drive.
pub(super) fn drive_and_tell<R>(
    campaign: &Campaign,
    cancel: &AtomicBool,
    drive: &mut DriveAndReport<'_, R>,
    tell: &mut dyn FnMut(Message<R>),
) -> Result<Share, CampaignError> {
    let tell = RefCell::new(tell);
    campaign.drive(
        cancel,
        &mut |progress| match progress {
            Progress::Kept { .. } => {}
            Progress::Started { unit, .. } => tell.borrow_mut()(Message::Started { unit }),
            Progress::Finished { unit, .. } => tell.borrow_mut()(Message::Finished { unit }),
        },
        &mut |work| {
            let mut on_tick = |tick| tell.borrow_mut()(Message::Tick { tick });
            let (outcome, report) = drive(work, &mut on_tick)?;
            tell.borrow_mut()(Message::Report(report));
            Ok(outcome)
        },
    )
}
