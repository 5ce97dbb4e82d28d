//! Worker processes: this program again, started with `--worker`, so that one that dies takes
//! nothing with it but the drive it was at.
//!
//! A worker tells what it does on its standard output, one JSON object a line. It begins when a line
//! comes on its standard input and stops, after the tick it is at, when that is closed; so it also
//! stops when the process that started it is killed. Which drive is whose is settled by claims in the
//! result folder (`evaluation/claim.rs`), as among any processes.

use super::print;
use crate::evaluation::campaign::{Setting, Share};
use crate::evaluation::units::Unit;
use crate::pilot::{PilotStatistics, RealTimeReport};
use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// What a worker tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// Everything is loaded; it waits for the word to begin.
    Ready(Ready),
    /// It is at this drive now.
    Started { unit: Unit },
    /// It is at this tick of it.
    Tick { tick: u64 },
    /// It wrote the result of this drive.
    Finished { unit: Unit, pilot: Option<PilotStatistics> },
    /// What came of the real-time options.
    RealTime(RealTimeReport),
    /// It has nothing more to drive.
    Ended(Share),
    /// It can't go on: the error and its causes, outermost first.
    Failed { causes: Vec<String> },
}

/// What only a process that loaded the driver knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) settings: Vec<Setting>,
    /// One icon name per declared sensor.
    pub(super) sensors: Vec<String>,
    /// Library and version that run the networks.
    pub(super) backend: Option<String>,
}

/// What happens among workers, for the process that started them.
pub(super) enum Event {
    /// The first is ready, and none has begun.
    Ready(Ready),
    /// A worker, by number, told something else.
    Told { worker: usize, message: Message },
    /// A worker died at a drive, in these words.
    Died { worker: usize, unit: Unit, how: String },
}

/// What a worker, by number, said; `None` when its output was closed: it ends, or has.
type Heard = (usize, Option<Message>);

/// Lines in flight from workers.
const LINES: usize = 256;

/// How often to look whether somebody asked to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Workers that may die between drives before one is finished.
const IDLE_DEATHS_ALLOWED: usize = 3;

/// Runs `jobs` workers until all have ended; one that dies at a drive is replaced. `cancel` stops
/// them after the tick they are at.
///
/// # Errors
/// If `on_event` fails, a worker can't be started or says that it can't go on; the others are stopped.
pub(super) fn supervise(
    jobs: usize,
    cancel: &AtomicBool,
    on_event: &mut dyn FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (tell, heard) = sync_channel(LINES);
    let mut pool = Pool { workers: Vec::new(), tell, is_stopping: false, idle_deaths: 0 };
    pool.start()?;
    let result = pool.attend(jobs, &heard, cancel, on_event);
    // The channel is read to its end, so that no worker hangs on a full pipe.
    pool.stop();
    while pool.is_any_running() {
        if let Ok((worker, None)) = heard.recv_timeout(LOOK) {
            pool.ended(worker)?;
        }
    }
    result
}

struct Pool {
    /// Every worker that was ever started, by number.
    workers: Vec<Worker>,
    tell: SyncSender<Heard>,
    is_stopping: bool,
    /// Workers that died between drives since one was finished.
    idle_deaths: usize,
}

struct Worker {
    /// `None` once it has ended.
    child: Option<Child>,
    /// Closed to make it stop.
    stdin: Option<ChildStdin>,
    is_ready: bool,
    /// The drive it is at.
    at: Option<Unit>,
}

impl Pool {
    fn start(&mut self) -> anyhow::Result<()> {
        let number = self.workers.len();
        let mut child = itself()?
            .args(std::env::args_os().skip(1))
            .arg("--worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context(cannot_start())?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("it is piped");
        let tell = self.tell.clone();
        thread::Builder::new()
            .name(format!("worker {number}"))
            .spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    match serde_json::from_str(&line) {
                        Ok(message) => {
                            if tell.send((number, Some(message))).is_err() {
                                return;
                            }
                        }
                        // A library that prints.
                        Err(_) => print::note(&line),
                    }
                }
                // Nobody listens any more if the supervisor is gone.
                let _ = tell.send((number, None));
            })
            .context("cannot start a thread for a worker")?;
        self.workers.push(Worker { child: Some(child), stdin, is_ready: false, at: None });
        Ok(())
    }

    fn attend(
        &mut self,
        jobs: usize,
        heard: &Receiver<Heard>,
        cancel: &AtomicBool,
        on_event: &mut dyn FnMut(Event) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while self.is_any_running() {
            if cancel.load(Ordering::Relaxed) {
                self.stop();
            }
            let (number, what) = match heard.recv_timeout(LOOK) {
                Ok(heard) => heard,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => unreachable!("the pool holds a sender"),
            };
            let Some(message) = what else {
                self.bury(number, on_event)?;
                continue;
            };
            match message {
                Message::Failed { causes } => return Err(rebuilt(causes)),
                Message::Ready(ready) => {
                    if number == 0 {
                        on_event(Event::Ready(ready))?;
                        (1..jobs).try_for_each(|_| self.start())?;
                    }
                    self.workers[number].begin();
                }
                message => {
                    match &message {
                        Message::Started { unit } => self.workers[number].at = Some(*unit),
                        Message::Finished { .. } => {
                            self.workers[number].at = None;
                            self.idle_deaths = 0;
                        }
                        _ => {}
                    }
                    on_event(Event::Told { worker: number, message })?;
                }
            }
        }
        Ok(())
    }

    /// Sees what came of a worker whose output was closed, and replaces it if it died at a drive.
    fn bury(
        &mut self,
        number: usize,
        on_event: &mut dyn FnMut(Event) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Some(status) = self.ended(number)?.filter(|status| !status.success()) else {
            return Ok(());
        };
        let worker = &self.workers[number];
        match worker.at {
            Some(unit) => {
                on_event(Event::Died { worker: number, unit, how: status.to_string() })?;
            }
            None if self.is_stopping => {}
            None if !worker.is_ready => bail!("a worker died while it loaded the driver: {status}"),
            None => {
                self.idle_deaths += 1;
                if self.idle_deaths > IDLE_DEATHS_ALLOWED {
                    bail!("workers die before they drive: {status}");
                }
            }
        }
        if self.is_stopping { Ok(()) } else { self.start() }
    }

    fn ended(&mut self, number: usize) -> anyhow::Result<Option<ExitStatus>> {
        let child = self.workers[number].child.take();
        let status = child.map(|mut child| child.wait()).transpose();
        status.context("cannot ask how a worker ended")
    }

    fn stop(&mut self) {
        self.is_stopping = true;
        self.workers.iter_mut().for_each(|worker| worker.stdin = None);
    }

    fn is_any_running(&self) -> bool {
        self.workers.iter().any(|worker| worker.child.is_some())
    }
}

impl Worker {
    fn begin(&mut self) {
        self.is_ready = true;
        if let Some(stdin) = &mut self.stdin {
            // One that has died is met again when its output closes.
            let _ = stdin.write_all(b"drive\n");
        }
    }
}

/// This very program, even if its file was replaced since it was started.
fn itself() -> anyhow::Result<Command> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("tandem");
        Ok(command)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let path = std::env::current_exe().context("cannot find this program to start workers")?;
        Ok(Command::new(path))
    }
}

/// Why this program cannot be started again, as far as that is known.
fn cannot_start() -> &'static str {
    if cfg!(target_os = "linux") && !std::path::Path::new("/proc/self/exe").exists() {
        return "cannot start a worker process: this program is found as /proc/self/exe, and /proc \
                is not mounted";
    }
    "cannot start a worker process"
}

fn rebuilt(causes: Vec<String>) -> anyhow::Error {
    let mut causes = causes.into_iter().rev();
    let innermost = anyhow!(causes.next().unwrap_or_else(|| "a worker failed".to_owned()));
    causes.fold(innermost, |error, cause| error.context(cause))
}

/// The worker's side: what it tells, and when it is to stop.
pub(super) struct Told {
    cancel: Arc<AtomicBool>,
}

impl Told {
    /// Runs a worker's `work` and tells what became of it.
    pub(super) fn work(work: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let cancel = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cancel);
        // Ctrl-C reaches every process of the terminal; its own is told by the one that started it.
        ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
            .context("cannot watch for Ctrl-C")?;
        let told = Self { cancel };
        let result = work(&told);
        if let Err(error) = &result {
            let causes = error.chain().map(ToString::to_string).collect();
            told.tell(&Message::Failed { causes });
        }
        // It has been told; a worker that fails has not crashed.
        Ok(())
    }

    /// Set when it is to stop.
    pub(super) fn cancel(&self) -> &AtomicBool {
        &self.cancel
    }

    /// Tells the process that started this one.
    pub(super) fn tell(&self, message: &Message) {
        let line = serde_json::to_string(message).expect("messages have text keys only");
        print::line(&line);
    }

    /// Says that everything is loaded and waits for the word to begin; from then on the end of
    /// standard input asks to stop.
    pub(super) fn ready(&self, ready: Ready) -> anyhow::Result<()> {
        self.tell(&Message::Ready(ready));
        let mut line = String::new();
        let count = std::io::stdin().lock().read_line(&mut line).unwrap_or(0);
        self.cancel.fetch_or(count == 0, Ordering::Relaxed);
        let flag = Arc::clone(&self.cancel);
        thread::Builder::new()
            .name("until told to stop".to_owned())
            .spawn(move || {
                let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
                flag.store(true, Ordering::Relaxed);
            })
            .context("cannot start a thread")?;
        Ok(())
    }
}
