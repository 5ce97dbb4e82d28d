//! Supervisor of worker processes: starts them, receives their messages, replaces workers that die
//! during a drive, and kills workers when a drive exceeds the wall-time limit.
//!
//! A worker that dies loses only its current drive. Drives are assigned by claims in the result
//! folder (`claim.rs`), as for independent processes.

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

/// Capacity of the channel of workers' output lines.
const LINES: usize = 256;

/// Polling interval of the cancel flag.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Number of workers that may die between drives before a drive is finished.
const IDLE_DEATHS_ALLOWED: usize = 3;

/// Configuration of the worker processes.
pub struct Workers<'a> {
    /// Number of concurrent workers.
    pub count: usize,
    /// Returns the command that starts a program which becomes a [`Worker`](super::Worker).
    pub command: &'a dyn Fn() -> Result<Command, BoxError>,
    pub drive_limit: Option<DriveLimit>,
    /// Receives lines of workers' standard output that are not messages,
    /// e.g. of libraries that print.
    pub on_text: &'a dyn Fn(&str),
    /// Time that workers have to stop after a request; then they are killed.
    pub time_to_stop: Duration,
}

/// Wall-time limit of a drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DriveLimit {
    /// Wall time after which the worker is killed.
    pub after: Duration,
    /// Text of the note on a drive that was killed.
    pub note: String,
}

/// Error that stops worker processes. Finished drives keep their files.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The command that starts a worker could not be created.
    #[error(transparent)]
    Command(BoxError),
    #[error("cannot start a worker process")]
    Start(#[source] io::Error),
    #[error("cannot start a thread for a worker")]
    Thread(#[source] io::Error),
    #[error("cannot get the exit status of a worker")]
    Wait(#[source] io::Error),
    /// A worker reported an error.
    #[error(transparent)]
    Worker(RemoteError),
    #[error("a worker died while it loaded the driver: {0}")]
    DiedLoading(ExitStatus),
    /// Several workers died between drives.
    #[error("workers die before they drive: {0}")]
    DiedIdle(ExitStatus),
    /// The caller rejected the campaign before the first drive.
    #[error(transparent)]
    Refused(BoxError),
    #[error(transparent)]
    Campaign(#[from] CampaignError),
}

/// Event of the worker processes.
pub(super) enum WorkerEvent<R> {
    /// The first worker is ready, and no drive has begun.
    Ready(Ready),
    /// Any other message of a worker.
    Message { worker: usize, message: Message<R> },
    /// A worker died during a drive.
    Died { worker: usize, unit: Unit, how: String },
    /// A worker was killed because its drive exceeded the limit.
    TimedOut { worker: usize, unit: Unit },
}

/// One line of a worker's standard output.
enum Output<R> {
    Message(Message<R>),
    Text(String),
    /// The output was closed: the worker ends or has ended.
    Closed,
}

type OnEvent<'a, R> = dyn FnMut(WorkerEvent<R>) -> Result<(), SupervisorError> + 'a;

/// Runs workers until all have ended. Workers that die during a drive, or are killed because their
/// drive exceeds the limit, are replaced. `cancel` stops them after the current tick. An error of
/// `on_event` or of one worker stops the others.
pub(super) fn supervise<R: DeserializeOwned + Send + 'static>(
    workers: &Workers<'_>,
    cancel: &AtomicBool,
    on_event: &mut OnEvent<'_, R>,
) -> Result<(), SupervisorError> {
    let (sender, receiver) = sync_channel(LINES);
    let mut pool =
        Pool { config: workers, running: Vec::new(), sender, stopping: None, idle_deaths: 0 };
    pool.start()?;
    let result = pool.handle_messages(&receiver, cancel, on_event);
    // Read the channel until all workers have ended, so that no worker blocks on a full pipe.
    pool.stop();
    while pool.is_any_running() {
        pool.kill_late_workers();
        match receiver.recv_timeout(POLL_INTERVAL) {
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
    config: &'a Workers<'a>,
    /// All workers that were started, by number, ended ones included.
    running: Vec<Process>,
    sender: SyncSender<(usize, Output<R>)>,
    /// Started when workers were requested to stop.
    stopping: Option<Stopwatch>,
    /// Number of workers that died between drives since the last finished drive.
    idle_deaths: usize,
}

struct Process {
    /// `None` after the process has ended.
    child: Option<Child>,
    /// Standard input, closed to request a stop.
    stdin: Option<ChildStdin>,
    is_ready: bool,
    /// Current drive and its duration.
    at: Option<(Unit, Stopwatch)>,
    /// True if it was killed because its drive exceeded the limit.
    is_timed_out: bool,
}

impl<R: DeserializeOwned + Send + 'static> Pool<'_, R> {
    fn start(&mut self) -> Result<(), SupervisorError> {
        let number = self.running.len();
        let mut command = (self.config.command)().map_err(SupervisorError::Command)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(SupervisorError::Start)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is piped");
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
                // Ignored: the supervisor may have ended.
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
            self.kill_late_workers();
            match receiver.recv_timeout(POLL_INTERVAL) {
                Ok((worker, Output::Message(message))) => {
                    self.handle_message(worker, message, on_event)?;
                }
                Ok((_, Output::Text(line))) => (self.config.on_text)(&line),
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
                    (1..self.config.count).try_for_each(|_| self.start())?;
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

    /// Reaps a worker after its output was closed, and replaces it if it died during a drive.
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
            // Killed by this process, or by a signal to the process group: not caused by the drive.
            _ if self.stopping.is_some() => {}
            Some((unit, _)) => {
                on_event(WorkerEvent::Died { worker, unit, how: status.to_string() })?;
            }
            // Killed just after its drive had finished.
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

    /// Kills workers that did not stop in time or exceed the wall-time limit of a drive.
    fn kill_late_workers(&mut self) {
        let must_end =
            self.stopping.is_some_and(|since| since.elapsed() > self.config.time_to_stop);
        let limit = self.config.drive_limit.as_ref().map(|limit| limit.after);
        for process in &mut self.running {
            let Some(child) = &mut process.child else { continue };
            let limit = limit.filter(|_| !process.is_timed_out);
            let is_late =
                process.at.zip(limit).is_some_and(|((_, since), limit)| since.elapsed() > limit);
            process.is_timed_out |= is_late;
            if is_late || must_end {
                // Ignored: a worker that has already ended is reaped when its output closes.
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
            // Ignored: a worker that has died is reaped when its output closes.
            let _ = stdin.write_all(b"drive\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::error::Error;

    /// Supervises one worker that is a shell script. Also returns the lines that are not messages.
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
    fn worker_error_and_foreign_output_are_passed_on() {
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
    fn worker_that_dies_while_loading_is_an_error() {
        let (result, _) = supervised("exit 3");
        assert!(matches!(result, Err(SupervisorError::DiedLoading(status)) if !status.success()));
        assert!(supervised("exit 0").0.is_ok(), "a worker without drives");
    }
}
