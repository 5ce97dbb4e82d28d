//! The understanding expert on its own thread, one refresh at a time.

use super::turns::TickGuard;
use super::{RealTimeOptions, RealTimeReport};
use crate::kv_cache::{Handover, KvSnapshot, KvWriter, SlotPool};
use crate::model::{ModelError, RefreshRequest, UnderstandingExpert};
use crate::scene::RefreshReport;
use crate::timing::{Begun, Stage, StageSpans, Stopwatch, Timestamp};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A refresh on its way to the expert.
struct Job<I> {
    request: RefreshRequest<I>,
    writer: KvWriter,
    /// Begun where the job was handed over.
    refresh: Begun,
    hand_off: Begun,
}

/// A refresh that ended.
struct Done {
    version: u64,
    snapshot: Result<KvSnapshot, ModelError>,
    spans: StageSpans,
}

/// The low-rate side: starts refreshes, publishes their prefixes.
pub(super) struct RefreshLane<I> {
    /// `None` once the lane is closing: the thread then ends.
    jobs: Option<SyncSender<Job<I>>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    pool: SlotPool,
    handover: Handover,
    /// When the refresh in flight becomes visible; `None` without one in flight.
    visible: Option<Visible>,
    next_version: u64,
    /// What came of the thread's real-time options.
    real_time: RealTimeReport,
}

/// When a refresh becomes visible.
#[derive(Clone, Copy)]
pub(super) enum Visible {
    /// At this instant of virtual time.
    At(Timestamp),
    /// When it is done.
    WhenDone,
}

/// What [`RefreshLane::collect`] found.
pub(super) struct Collected {
    /// The refresh that ended, if one did.
    pub(super) refresh: Option<RefreshReport>,
    /// Host time spent waiting for a virtual instant: no part of the tick's own cost.
    pub(super) waited: Duration,
}

impl Collected {
    /// Both, of which the later one counts where two refreshes ended: the first was done before this
    /// tick went on, so the second is the one that it acts on.
    pub(super) fn then(self, later: Self) -> Self {
        Self { refresh: later.refresh.or(self.refresh), waited: self.waited + later.waited }
    }
}

impl<I: Send + 'static> RefreshLane<I> {
    /// Starts the expert's thread.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub(super) fn start(
        mut expert: Box<dyn UnderstandingExpert<Inputs = I>>,
        pool: SlotPool,
        turns: Arc<TickGuard>,
        keep_warm: Option<Duration>,
        real_time: RealTimeOptions,
    ) -> std::io::Result<Self> {
        // One job at a time is in flight, so one place in each queue is never waited for.
        let (jobs, job_queue) = sync_channel::<Job<I>>(1);
        let (finished, done) = sync_channel(1);
        let (placed, place) = sync_channel(1);
        let thread = std::thread::Builder::new().name("understanding".into()).spawn(move || {
            let _ = placed.send(real_time.apply_understanding_thread());
            while let Some(job) = next_job(&job_queue, keep_warm, &mut *expert, &turns) {
                let Job { request, writer, refresh, hand_off } = job;
                let mut spans = StageSpans::default();
                spans.end(hand_off);
                let version = request.version;
                let snapshot = expert.refresh(&request, writer, &*turns, &mut spans);
                spans.end(refresh);
                if finished.send(Done { version, snapshot, spans }).is_err() {
                    return;
                }
            }
        })?;
        let real_time = place.recv().expect("placing a thread does not panic");
        Ok(Self {
            jobs: Some(jobs),
            done,
            thread: Some(thread),
            pool,
            handover: Handover::new(),
            visible: None,
            next_version: 1,
            real_time,
        })
    }

    /// What came of the real-time options of the expert's thread.
    pub(super) fn real_time(&self) -> &RealTimeReport {
        &self.real_time
    }

    /// The newest published prefix.
    pub(super) fn latest(&self) -> Option<Arc<KvSnapshot>> {
        self.handover.latest()
    }

    /// True while a refresh runs or waits for its virtual instant.
    pub(super) fn is_busy(&self) -> bool {
        self.visible.is_some()
    }

    /// The version that the next refresh will have.
    pub(super) fn next_version(&self) -> u64 {
        self.next_version
    }

    /// Sends `request` to the expert, whose prefix will be `visible`; false if every slot is leased.
    /// Only when no refresh is under way.
    pub(super) fn begin(&mut self, request: RefreshRequest<I>, visible: Visible) -> bool {
        assert!(!self.is_busy(), "one refresh at a time");
        let Some(writer) = self.pool.writer() else { return false };
        self.visible = Some(visible);
        self.next_version += 1;
        let jobs = self.jobs.as_ref().expect("the lane is open until it is dropped");
        // The thread takes jobs until this sender is dropped; if it panicked, `collect` says so.
        let (refresh, hand_off) = (Stage::REFRESH.begin(), Stage::HAND_OFF.begin());
        let _ = jobs.send(Job { request, writer, refresh, hand_off });
        true
    }

    /// Publishes the refresh in flight if it is visible by `now`.
    pub(super) fn collect(&mut self, now: Timestamp, spans: &mut StageSpans) -> Collected {
        let nothing = Collected { refresh: None, waited: Duration::ZERO };
        let Some(visible) = self.visible else { return nothing };
        let watch = Stopwatch::start();
        let (done, waited) = match visible {
            Visible::WhenDone => match self.done.try_recv() {
                Ok(done) => (done, Duration::ZERO),
                Err(std::sync::mpsc::TryRecvError::Empty) => return nothing,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => self.thread_is_gone(),
            },
            Visible::At(instant) if instant > now => return nothing,
            Visible::At(_) => match self.done.recv() {
                Ok(done) => (done, watch.elapsed()),
                Err(std::sync::mpsc::RecvError) => self.thread_is_gone(),
            },
        };
        self.visible = None;
        let publish = Stage::PUBLISH.begin();
        let is_published = done.snapshot.is_ok();
        match done.snapshot {
            Ok(snapshot) => {
                self.handover
                    .publish(snapshot)
                    .expect("versions of one lane only go up, one refresh at a time");
            }
            Err(error) => {
                tracing::warn!(%error, "refresh failed, the old prefix stays in use");
            }
        }
        spans.end(publish);
        let refresh = RefreshReport { version: done.version, is_published, spans: done.spans };
        Collected { refresh: Some(refresh), waited }
    }

    /// The expert's thread only ends early by a panic: that is our bug, and it is passed on.
    fn thread_is_gone(&mut self) -> ! {
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => unreachable!("the understanding thread ends only when its queue closes"),
        }
    }
}

/// The next refresh, `None` if there will be none; in between, the device is kept busy.
fn next_job<I>(
    jobs: &Receiver<Job<I>>,
    keep_warm: Option<Duration>,
    expert: &mut dyn UnderstandingExpert<Inputs = I>,
    turns: &TickGuard,
) -> Option<Job<I>> {
    let Some(patience) = keep_warm else { return jobs.recv().ok() };
    loop {
        match jobs.recv_timeout(patience) {
            Ok(job) => return Some(job),
            Err(RecvTimeoutError::Disconnected) => return None,
            // Ignored: what fails here fails the next refresh as well, which reports it.
            Err(RecvTimeoutError::Timeout) => drop(expert.keep_warm(turns)),
        }
    }
}

impl<I> Drop for RefreshLane<I> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A refresh in flight finishes first; its panic was or will be reported by the thread.
            let _ = thread.join();
        }
    }
}
