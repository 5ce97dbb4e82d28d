//! Worker processes: this program again, started with `--worker`, so that one that dies takes
//! nothing with it but the drive it was at.
//!
//! A worker tells what it does on its standard output, one JSON object a line. It begins when a line
//! comes on its standard input, which it reads from its first instruction on. When that is closed, as
//! it also is when the process that started it is killed, it stops after the tick it is at; if it has
//! not stopped soon after, whatever it is doing, it is killed, or ends itself. Which drive is whose is settled by claims in the
//! result folder (`evaluation/campaign/claim.rs`), as among any processes.

use super::{ending, print};
use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;
use tandem::pilot::{PilotStatistics, RealTimeReport};
use tandem::timing::Stopwatch;
use tandem_evaluation::campaign::{Setting, Share, Unit};

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
    /// A worker was killed because its drive took longer than the limit.
    TimedOut { worker: usize, unit: Unit },
}

/// What a worker, by number, said; `None` when its output was closed: it ends, or has.
type Heard = (usize, Option<Message>);

/// Lines in flight from workers.
const LINES: usize = 256;

/// How often to look whether somebody asked to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Workers that may die between drives before one is finished.
const IDLE_DEATHS_ALLOWED: usize = 3;

/// Runs `jobs` workers until all have ended; one that dies at a drive is replaced, and so is one that
/// is killed because its drive takes longer than `drive_limit`. `cancel` stops them after the tick
/// they are at.
///
/// # Errors
/// If `on_event` fails, a worker can't be started or says that it can't go on; the others are stopped.
pub(super) fn supervise(
    jobs: usize,
    drive_limit: Option<Duration>,
    cancel: &AtomicBool,
    on_event: &mut dyn FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (tell, heard) = sync_channel(LINES);
    let mut pool = Pool { workers: Vec::new(), tell, drive_limit, stopping: None, idle_deaths: 0 };
    pool.start()?;
    let result = pool.attend(jobs, &heard, cancel, on_event);
    // The channel is read to its end, so that no worker hangs on a full pipe.
    pool.stop();
    while pool.is_any_running() {
        pool.kill_what_takes_too_long();
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
    /// Longest time that a drive may take.
    drive_limit: Option<Duration>,
    /// Runs since workers were asked to stop.
    stopping: Option<Stopwatch>,
    /// Workers that died between drives since one was finished.
    idle_deaths: usize,
}

struct Worker {
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
        self.workers.push(Worker {
            child: Some(child),
            stdin,
            is_ready: false,
            at: None,
            is_timed_out: false,
        });
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
            self.kill_what_takes_too_long();
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
                        Message::Started { unit } => {
                            self.workers[number].at = Some((*unit, Stopwatch::start()));
                        }
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
            Some((unit, _)) if worker.is_timed_out => {
                on_event(Event::TimedOut { worker: number, unit })?;
            }
            // Killed by us, or by the signal that we got as well: not by its drive.
            _ if self.stopping.is_some() => {}
            Some((unit, _)) => {
                on_event(Event::Died { worker: number, unit, how: status.to_string() })?;
            }
            // It had just finished.
            None if worker.is_timed_out => {}
            None if !worker.is_ready => bail!("a worker died while it loaded the driver: {status}"),
            None => {
                self.idle_deaths += 1;
                if self.idle_deaths > IDLE_DEATHS_ALLOWED {
                    bail!("workers die before they drive: {status}");
                }
            }
        }
        if self.stopping.is_some() { Ok(()) } else { self.start() }
    }

    fn ended(&mut self, number: usize) -> anyhow::Result<Option<ExitStatus>> {
        let child = self.workers[number].child.take();
        let status = child.map(|mut child| child.wait()).transpose();
        status.context("cannot ask how a worker ended")
    }

    /// Kills workers that did not stop in time, and those whose drive takes longer than it may.
    fn kill_what_takes_too_long(&mut self) {
        let is_over = self.stopping.is_some_and(|since| since.elapsed() > ending::TIME_FOR_WORKERS);
        for worker in &mut self.workers {
            let Some(child) = &mut worker.child else { continue };
            let limit = self.drive_limit.filter(|_| !worker.is_timed_out);
            let is_late =
                worker.at.zip(limit).is_some_and(|((_, since), limit)| since.elapsed() > limit);
            worker.is_timed_out |= is_late;
            if is_late || is_over {
                // One that has ended meanwhile is met when its output closes.
                let _ = child.kill();
            }
        }
    }

    fn stop(&mut self) {
        self.stopping.get_or_insert_with(Stopwatch::start);
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
        const ITSELF: &str = "/proc/self/exe";
        std::fs::symlink_metadata(ITSELF).with_context(|| {
            format!("cannot find this program as {ITSELF}: /proc must be mounted")
        })?;
        let mut command = Command::new(ITSELF);
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
    /// Receives one value when it may begin; closed when it is to stop.
    begin: Receiver<()>,
}

impl Told {
    /// Becomes a worker: from now on this process ends soon after the one that started it, or when
    /// that one closes its standard input.
    pub(super) fn listen() -> anyhow::Result<Self> {
        // The end of standard input is noticed by a thread, which a process that is stopped does not
        // run; this works without.
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .context("cannot tie this worker to the process that started it")?;
        let cancel = Arc::new(AtomicBool::new(false));
        // Ctrl-C reaches every process of the terminal; the one that started this one ends it.
        ending::set_on_signal(&cancel)?;
        let (may_begin, begin) = sync_channel(1);
        let flag = Arc::clone(&cancel);
        thread::Builder::new()
            .name("until told to stop".to_owned())
            .spawn(move || {
                let mut stdin = std::io::stdin().lock();
                if stdin.read_line(&mut String::new()).is_ok_and(|length| length > 0) {
                    let _ = may_begin.send(());
                    let _ = std::io::copy(&mut stdin, &mut std::io::sink());
                }
                flag.store(true, Ordering::Relaxed);
                drop(may_begin);
                ending::exit_soon();
            })
            .context("cannot start a thread")?;
        Ok(Self { cancel, begin })
    }

    /// Runs a worker's `work` and tells what became of it.
    pub(super) fn work(self, work: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let result = work(&self);
        if let Err(error) = &result {
            let causes = error.chain().map(ToString::to_string).collect();
            self.tell(&Message::Failed { causes });
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

    /// Says that everything is loaded and waits for the word to begin, or to stop.
    pub(super) fn ready(&self, ready: Ready) {
        self.tell(&Message::Ready(ready));
        // If there will be none, the flag is set.
        let _ = self.begin.recv();
    }
}
