//! The supervisor of worker processes: it starts them, hears what they do, replaces one that dies at
//! a drive, and ends one whose drive takes too long.
//!
//! A worker that dies takes nothing with it but the drive it was at. Which drive is whose is settled
//! by claims in the result folder (`claim.rs`), as among any processes.

use super::drive::BoxError;
use super::folder::CampaignError;
use super::message::{Message, Ready, RemoteError};
use super::units::Unit;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;
use tandem_timing::Stopwatch;

/// Lines in flight from workers.
const LINES: usize = 256;

/// How often to look whether the caller asked to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Workers that may die between drives before one is finished.
const IDLE_DEATHS_ALLOWED: usize = 3;

/// Worker processes to have.
pub struct Workers<'a> {
    /// How many at once.
    pub count: usize,
    /// Makes the command that starts one: a program that becomes a [`Worker`](super::Worker).
    pub command: &'a dyn Fn() -> Result<Command, BoxError>,
    /// Ends drives that take too long, if any do.
    pub drive_limit: Option<DriveLimit>,
    /// Gets lines of workers' standard output that are no messages: of libraries that print.
    pub on_text: &'a dyn Fn(&str),
    /// Time that workers are given to stop when they are asked to; then they are killed.
    pub time_to_stop: Duration,
}

/// The longest time that a drive may take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DriveLimit {
    /// After so much real time its worker is killed.
    pub after: Duration,
    /// What is noted of such a drive.
    pub note: String,
}

/// Worker processes cannot go on. Finished drives keep their files.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// There is no command that starts a worker.
    #[error(transparent)]
    Command(BoxError),
    /// A worker could not be started.
    #[error("cannot start a worker process")]
    Start(#[source] io::Error),
    /// No thread could be started to hear a worker.
    #[error("cannot start a thread for a worker")]
    Thread(#[source] io::Error),
    /// The system does not say how a worker ended.
    #[error("cannot ask how a worker ended")]
    Wait(#[source] io::Error),
    /// A worker said that it cannot go on.
    #[error(transparent)]
    Worker(RemoteError),
    /// A worker died before it could drive.
    #[error("a worker died while it loaded the driver: {0}")]
    DiedLoading(ExitStatus),
    /// Workers die one after the other while they drive nothing.
    #[error("workers die before they drive: {0}")]
    DiedIdle(ExitStatus),
    /// The campaign was refused before anything was driven.
    #[error(transparent)]
    Refused(BoxError),
    /// The result folder could not be used.
    #[error(transparent)]
    Campaign(#[from] CampaignError),
}

/// What happens among workers.
pub(super) enum WorkerEvent<R> {
    /// The first is ready, and none has begun.
    Ready(Ready),
    /// A worker, by number, told something else.
    Message { worker: usize, message: Message<R> },
    /// A worker died at a drive, in these words.
    Died { worker: usize, unit: Unit, how: String },
    /// A worker was killed because its drive took longer than the limit.
    TimedOut { worker: usize, unit: Unit },
}

/// One line of a worker's standard output.
enum Output<R> {
    Message(Message<R>),
    Text(String),
    /// The output was closed: the worker ends, or has ended.
    Closed,
}

type OnEvent<'a, R> = dyn FnMut(WorkerEvent<R>) -> Result<(), SupervisorError> + 'a;

/// Runs workers until all have ended; one that dies at a drive is replaced, and so is one that is
/// killed because its drive takes longer than the limit. `cancel` stops them after the tick they are
/// at.
///
/// # Errors
/// If `on_event` fails, a worker cannot be started or says that it cannot go on; the others are
/// stopped.
pub(super) fn supervise<R: DeserializeOwned + Send + 'static>(
    workers: &Workers<'_>,
    cancel: &AtomicBool,
    on_event: &mut OnEvent<'_, R>,
) -> Result<(), SupervisorError> {
    let (sender, receiver) = sync_channel(LINES);
    let mut pool =
        Pool { asked: workers, running: Vec::new(), sender, stopping: None, idle_deaths: 0 };
    pool.start()?;
    let result = pool.handle_messages(&receiver, cancel, on_event);
    // The channel is read to its end, so that no worker hangs on a full pipe.
    pool.stop();
    while pool.is_any_running() {
        pool.kill_what_takes_too_long();
        match receiver.recv_timeout(LOOK) {
            Ok((worker, Output::Closed)) => {
                pool.exit_status(worker)?;
            }
            Ok((_, Output::Text(line))) => (workers.on_text)(&line),
            Ok((_, Output::Message(_))) | Err(_) => {}
        }
    }
    result
}

struct Pool<'a, R> {
    asked: &'a Workers<'a>,
    /// Every worker that was ever started, by number.
    running: Vec<Process>,
    sender: SyncSender<(usize, Output<R>)>,
    /// Runs since workers were asked to stop.
    stopping: Option<Stopwatch>,
    /// Workers that died between drives since one was finished.
    idle_deaths: usize,
}

struct Process {
    /// `None` once it has ended.
    child: Option<Child>,
    /// Closed to make it stop.
    stdin: Option<ChildStdin>,
    is_ready: bool,
    /// The drive it is at, and for how long.
    at: Option<(Unit, Stopwatch)>,
    /// Whether it was killed because that took too long.
    is_timed_out: bool,
}

impl<R: DeserializeOwned + Send + 'static> Pool<'_, R> {
    fn start(&mut self) -> Result<(), SupervisorError> {
        let number = self.running.len();
        let mut command = (self.asked.command)().map_err(SupervisorError::Command)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(SupervisorError::Start)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("it is piped");
        let sender = self.sender.clone();
        thread::Builder::new()
            .name(format!("worker {number}"))
            .spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let output = match serde_json::from_str(&line) {
                        Ok(message) => Output::Message(message),
                        Err(_) => Output::Text(line),
                    };
                    if sender.send((number, output)).is_err() {
                        return;
                    }
                }
                // The supervisor may have ended before.
                let _ = sender.send((number, Output::Closed));
            })
            .map_err(SupervisorError::Thread)?;
        self.running.push(Process {
            child: Some(child),
            stdin,
            is_ready: false,
            at: None,
            is_timed_out: false,
        });
        Ok(())
    }

    fn handle_messages(
        &mut self,
        receiver: &Receiver<(usize, Output<R>)>,
        cancel: &AtomicBool,
        on_event: &mut OnEvent<'_, R>,
    ) -> Result<(), SupervisorError> {
        while self.is_any_running() {
            if cancel.load(Ordering::Relaxed) {
                self.stop();
            }
            self.kill_what_takes_too_long();
            match receiver.recv_timeout(LOOK) {
                Ok((worker, Output::Message(message))) => {
                    self.handle_message(worker, message, on_event)?;
                }
                Ok((_, Output::Text(line))) => (self.asked.on_text)(&line),
                Ok((worker, Output::Closed)) => self.reap(worker, on_event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the pool holds a sender"),
            }
        }
        Ok(())
    }

    fn handle_message(
        &mut self,
        worker: usize,
        message: Message<R>,
        on_event: &mut OnEvent<'_, R>,
    ) -> Result<(), SupervisorError> {
        match message {
            Message::Failed(error) => return Err(SupervisorError::Worker(error)),
            Message::Ready(ready) => {
                if worker == 0 {
                    on_event(WorkerEvent::Ready(ready))?;
                    (1..self.asked.count).try_for_each(|_| self.start())?;
                }
                self.running[worker].begin();
                return Ok(());
            }
            Message::Started { unit } => {
                self.running[worker].at = Some((unit, Stopwatch::start()));
            }
            Message::Finished { .. } => {
                self.running[worker].at = None;
                self.idle_deaths = 0;
            }
            Message::Tick { .. } | Message::Report(_) | Message::Ended(_) => {}
        }
        on_event(WorkerEvent::Message { worker, message })
    }

    /// Sees how a worker ended whose output was closed, and replaces it if it died at a drive.
    fn reap(
        &mut self,
        worker: usize,
        on_event: &mut OnEvent<'_, R>,
    ) -> Result<(), SupervisorError> {
        let Some(status) = self.exit_status(worker)?.filter(|status| !status.success()) else {
            return Ok(());
        };
        let process = &self.running[worker];
        match process.at {
            Some((unit, _)) if process.is_timed_out => {
                on_event(WorkerEvent::TimedOut { worker, unit })?;
            }
            // Killed from here, or by the signal that this process got as well: not by its drive.
            _ if self.stopping.is_some() => {}
            Some((unit, _)) => {
                on_event(WorkerEvent::Died { worker, unit, how: status.to_string() })?;
            }
            // It had just finished.
            None if process.is_timed_out => {}
            None if !process.is_ready => return Err(SupervisorError::DiedLoading(status)),
            None => {
                self.idle_deaths += 1;
                if self.idle_deaths > IDLE_DEATHS_ALLOWED {
                    return Err(SupervisorError::DiedIdle(status));
                }
            }
        }
        if self.stopping.is_some() { Ok(()) } else { self.start() }
    }

    fn exit_status(&mut self, worker: usize) -> Result<Option<ExitStatus>, SupervisorError> {
        let child = self.running[worker].child.take();
        child.map(|mut child| child.wait()).transpose().map_err(SupervisorError::Wait)
    }

    /// Kills workers that did not stop in time, and those whose drive takes longer than it may.
    fn kill_what_takes_too_long(&mut self) {
        let is_over = self.stopping.is_some_and(|since| since.elapsed() > self.asked.time_to_stop);
        let limit = self.asked.drive_limit.as_ref().map(|limit| limit.after);
        for process in &mut self.running {
            let Some(child) = &mut process.child else { continue };
            let limit = limit.filter(|_| !process.is_timed_out);
            let is_late =
                process.at.zip(limit).is_some_and(|((_, since), limit)| since.elapsed() > limit);
            process.is_timed_out |= is_late;
            if is_late || is_over {
                // One that has ended meanwhile is met when its output closes.
                let _ = child.kill();
            }
        }
    }

    fn stop(&mut self) {
        self.stopping.get_or_insert_with(Stopwatch::start);
        self.running.iter_mut().for_each(|process| process.stdin = None);
    }

    fn is_any_running(&self) -> bool {
        self.running.iter().any(|process| process.child.is_some())
    }
}

impl Process {
    fn begin(&mut self) {
        self.is_ready = true;
        if let Some(stdin) = &mut self.stdin {
            // One that has died is met again when its output closes.
            let _ = stdin.write_all(b"drive\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::error::Error;

    /// Supervises one worker that is a shell script. Returns what it printed beside messages, too.
    fn supervised(script: &str) -> (Result<(), SupervisorError>, Vec<String>) {
        let printed = RefCell::new(Vec::new());
        let workers = Workers {
            count: 1,
            command: &|| {
                let mut command = Command::new("sh");
                command.args(["-c", script]);
                Ok(command)
            },
            drive_limit: None,
            on_text: &|line| printed.borrow_mut().push(line.to_owned()),
            time_to_stop: Duration::from_secs(600),
        };
        let never = AtomicBool::new(false);
        let result = supervise::<()>(&workers, &never, &mut |_| Ok(()));
        (result, printed.into_inner())
    }

    #[test]
    fn a_worker_says_why_it_cannot_go_on_and_what_libraries_print_is_passed_on() {
        let error =
            RemoteError::new(&SupervisorError::Start(io::Error::other("no more processes")));
        let line = serde_json::to_string(&Message::<()>::Failed(error)).unwrap();
        let (result, printed) = supervised(&format!("echo a library prints; echo '{line}'"));
        let error = result.unwrap_err();
        assert!(matches!(&error, SupervisorError::Worker(_)), "{error}");
        assert_eq!(error.source().unwrap().to_string(), "no more processes");
        assert_eq!(printed, ["a library prints"]);
    }

    #[test]
    fn a_worker_that_dies_before_it_is_ready_is_an_error() {
        let (result, _) = supervised("exit 3");
        assert!(matches!(result, Err(SupervisorError::DiedLoading(status)) if !status.success()));
        assert!(supervised("exit 0").0.is_ok(), "it has nothing to do");
    }
}
