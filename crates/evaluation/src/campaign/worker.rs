//! Worker process: drives units of a campaign for its parent process.
//!
//! The worker begins when it receives a line on standard input. When standard input is closed,
//! which also happens if the parent is killed, it stops after the current tick. If it does not stop
//! in time, the parent kills it or it terminates itself.

use super::drive::{BoxError, DriveTask, Progress, Remaining};
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

/// Number of ticks between two progress messages.
const TICKS_PER_MESSAGE: u64 = 20;

/// Error returned when a process can't become a worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The parent-death signal could not be set.
    #[error("cannot make this worker end with its parent process")]
    ParentDeathSignal(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Worker side of the connection to the parent process.
pub struct Worker {
    cancel: Arc<AtomicBool>,
    /// Receives one value when the worker may begin; closed when it must stop.
    begin: Receiver<()>,
    send_line: Box<dyn Fn(&str)>,
}

impl Worker {
    /// Makes this process a worker that ends when its parent does: when standard input is closed,
    /// `cancel` is set, and then `end_soon` is called on a separate thread; it must terminate the
    /// process if that does not end by itself. `send_line` must write a line to standard output.
    ///
    /// # Errors
    /// If the parent-death signal can't be set or the thread can't be started.
    pub fn start(
        cancel: Arc<AtomicBool>,
        send_line: impl Fn(&str) + 'static,
        end_soon: impl FnOnce() + Send + 'static,
    ) -> Result<Self, WorkerError> {
        // The thread below detects the end of standard input, but does not run in a stopped
        // process. The signal also ends a stopped process.
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(|error| WorkerError::ParentDeathSignal(error.into()))?;
        let (may_begin, begin) = sync_channel(1);
        let flag = Arc::clone(&cancel);
        thread::Builder::new()
            .name("watch stdin".to_owned())
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

    /// Returns the flag that is set when the worker must stop.
    pub fn cancel(&self) -> &AtomicBool {
        &self.cancel
    }

    /// Reports that the driver is loaded and waits for permission to begin. Returns false if
    /// the worker must stop instead.
    pub fn wait_to_begin(&self, ready: Ready) -> bool {
        self.send(&Message::<()>::Ready(ready));
        // An error means that standard input was closed, and then the flag is set.
        let _ = self.begin.recv();
        !self.cancel.load(Ordering::Relaxed)
    }

    /// Runs unfinished drives of `campaign`, concurrently with other processes. `drive` runs one
    /// drive and calls its second argument with the number of every tick. The report that it
    /// returns with the outcome is sent to the parent process.
    pub fn drive<R: Serialize>(
        &self,
        campaign: &Campaign,
        drive: &mut DriveAndReport<'_, R>,
    ) -> Result<(), CampaignError> {
        let remaining = drive_and_report(campaign, &self.cancel, drive, &mut |message| {
            if !matches!(&message, Message::Tick { tick } if !tick.is_multiple_of(TICKS_PER_MESSAGE))
            {
                self.send(&message);
            }
        })?;
        self.send(&Message::<R>::Ended(remaining));
        Ok(())
    }

    /// Reports to the parent that this worker cannot continue. The worker should then exit with
    /// success, because a reported error is not a crash.
    pub fn fail(&self, error: &(dyn Error + 'static)) {
        self.send(&Message::<()>::Failed(RemoteError::new(error)));
    }

    fn send<R: Serialize>(&self, message: &Message<R>) {
        let line = serde_json::to_string(message).expect("messages have only text keys");
        (self.send_line)(&line);
    }
}

/// Outcome of one drive and the caller's report on it.
pub type DriveResult<R> = Result<(RouteOutcome, R), BoxError>;

/// Callback that runs one drive: creates world and driver, calls [`run_route`](super::run_route)
/// and, at every tick, its second argument.
pub type DriveAndReport<'a, R> =
    dyn FnMut(DriveTask<'_>, &mut dyn FnMut(u64)) -> DriveResult<R> + 'a;

/// Runs the unfinished drives of `campaign` and passes messages to `send`.
pub(super) fn drive_and_report<R>(
    campaign: &Campaign,
    cancel: &AtomicBool,
    drive: &mut DriveAndReport<'_, R>,
    send: &mut dyn FnMut(Message<R>),
) -> Result<Remaining, CampaignError> {
    let send = RefCell::new(send);
    campaign.drive(
        cancel,
        &mut |progress| match progress {
            Progress::Kept { .. } => {}
            Progress::Started { unit, .. } => send.borrow_mut()(Message::Started { unit }),
            Progress::Finished { unit, .. } => send.borrow_mut()(Message::Finished { unit }),
        },
        &mut |work| {
            let mut on_tick = |tick| send.borrow_mut()(Message::Tick { tick });
            let (outcome, report) = drive(work, &mut on_tick)?;
            send.borrow_mut()(Message::Report(report));
            Ok(outcome)
        },
    )
}
