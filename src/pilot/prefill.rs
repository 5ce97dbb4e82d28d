//! Runs the understanding expert on its own thread, one prefill at a time.

use super::tick_guard::TickGuard;
use super::{RealTimeOptions, RealTimeReport};
use crate::kv_cache::{Handover, KvSnapshot, KvWriter, SlotPool};
use crate::model::{ModelError, PrefillRequest, UnderstandingExpert};
use crate::scene::PrefillReport;
use crate::timing::{Begun, Stage, StageSpans, Stopwatch, Timestamp};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A prefill that is sent to the thread.
struct Job<I> {
    request: PrefillRequest<I>,
    writer: KvWriter,
    /// Stage timers, started when the job was sent.
    prefill: Begun,
    hand_off: Begun,
}

/// A finished prefill.
struct Done {
    version: u64,
    snapshot: Result<KvSnapshot, ModelError>,
    spans: StageSpans,
}

/// Starts prefills on the understanding expert's thread and publishes their prefixes.
pub(super) struct PrefillThread<I> {
    /// `None` while closing, which ends the thread.
    jobs: Option<SyncSender<Job<I>>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    pool: SlotPool,
    handover: Handover,
    /// When the prefill in flight becomes visible; `None` without one in flight.
    in_flight: Option<Visibility>,
    next_version: u64,
    /// Outcome of the thread's real-time options.
    real_time: RealTimeReport,
}

/// Time at which a prefill becomes visible.
#[derive(Clone, Copy)]
pub(super) enum Visibility {
    /// At this virtual time.
    At(Timestamp),
    /// When it is finished.
    WhenDone,
}

/// Result of [`PrefillThread::collect`].
pub(super) struct Collected {
    pub(super) prefill: Option<PrefillReport>,
    /// Host time spent waiting for a virtual time, which does not count as duration of the tick.
    pub(super) waited: Duration,
}

impl Collected {
    /// Combines two results of one tick. If two prefills finished, the later one is reported,
    /// because the tick acts on its prefix.
    pub(super) fn then(self, later: Self) -> Self {
        Self { prefill: later.prefill.or(self.prefill), waited: self.waited + later.waited }
    }
}

impl<I: Send + 'static> PrefillThread<I> {
    /// Spawns the expert's thread.
    pub(super) fn start(
        mut expert: Box<dyn UnderstandingExpert<Inputs = I>>,
        pool: SlotPool,
        gate: Arc<TickGuard>,
        keep_warm: Option<Duration>,
        real_time: RealTimeOptions,
    ) -> std::io::Result<Self> {
        // At most one job is in flight, so a capacity of one never blocks.
        let (jobs, job_queue) = sync_channel::<Job<I>>(1);
        let (finished, done) = sync_channel(1);
        let (placed, place) = sync_channel(1);
        let thread = std::thread::Builder::new().name("understanding".into()).spawn(move || {
            let _ = placed.send(real_time.apply_understanding_thread());
            while let Some(job) = next_job(&job_queue, keep_warm, &mut *expert, &gate) {
                let Job { request, writer, prefill, hand_off } = job;
                let mut spans = StageSpans::default();
                spans.end(hand_off);
                let version = request.version;
                let snapshot = expert.prefill(&request, writer, &*gate, &mut spans);
                spans.end(prefill);
                if finished.send(Done { version, snapshot, spans }).is_err() {
                    return;
                }
            }
        })?;
        let real_time = place.recv().expect("applying real-time options does not panic");
        Ok(Self {
            jobs: Some(jobs),
            done,
            thread: Some(thread),
            pool,
            handover: Handover::new(),
            in_flight: None,
            next_version: 1,
            real_time,
        })
    }

    /// Returns the outcome of the real-time options of the expert's thread.
    pub(super) fn real_time(&self) -> &RealTimeReport {
        &self.real_time
    }

    /// Returns the newest published prefix.
    pub(super) fn latest(&self) -> Option<Arc<KvSnapshot>> {
        self.handover.latest()
    }

    /// Returns true while a prefill runs or waits until its virtual time.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Returns the version of the next prefill.
    pub(super) fn next_version(&self) -> u64 {
        self.next_version
    }

    /// Sends `request` to the expert and returns true, or returns false if every slot is leased.
    /// Panics if a prefill is in flight.
    pub(super) fn start_prefill(
        &mut self,
        request: PrefillRequest<I>,
        visibility: Visibility,
    ) -> bool {
        assert!(!self.is_busy(), "one prefill at a time");
        let Some(writer) = self.pool.writer() else { return false };
        self.in_flight = Some(visibility);
        self.next_version += 1;
        let jobs = self.jobs.as_ref().expect("the queue is open until this is dropped");
        // The thread receives until this sender is dropped; if it panicked, `collect` resumes the
        // panic.
        let (prefill, hand_off) = (Stage::PREFILL.begin(), Stage::HAND_OFF.begin());
        let _ = jobs.send(Job { request, writer, prefill, hand_off });
        true
    }

    /// Publishes the prefill in flight if it is visible at `now`.
    pub(super) fn collect(&mut self, now: Timestamp, spans: &mut StageSpans) -> Collected {
        let nothing = Collected { prefill: None, waited: Duration::ZERO };
        let Some(visibility) = self.in_flight else { return nothing };
        let watch = Stopwatch::start();
        let (done, waited) = match visibility {
            Visibility::WhenDone => match self.done.try_recv() {
                Ok(done) => (done, Duration::ZERO),
                Err(std::sync::mpsc::TryRecvError::Empty) => return nothing,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => self.thread_is_gone(),
            },
            Visibility::At(instant) if instant > now => return nothing,
            Visibility::At(_) => match self.done.recv() {
                Ok(done) => (done, watch.elapsed()),
                Err(std::sync::mpsc::RecvError) => self.thread_is_gone(),
            },
        };
        self.in_flight = None;
        let publish = Stage::PUBLISH.begin();
        let is_published = done.snapshot.is_ok();
        match done.snapshot {
            Ok(snapshot) => {
                self.handover
                    .publish(snapshot)
                    .expect("versions of one thread increase, one prefill at a time");
            }
            Err(error) => {
                tracing::warn!(%error, "prefill failed, the previous prefix stays in use");
            }
        }
        spans.end(publish);
        let prefill = PrefillReport { version: done.version, is_published, spans: done.spans };
        Collected { prefill: Some(prefill), waited }
    }

    /// Resumes the panic of the expert's thread, the only reason for which it ends early.
    fn thread_is_gone(&mut self) -> ! {
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => unreachable!("the understanding thread ends only when its queue closes"),
        }
    }
}

/// Waits for the next job, keeping the device warm; returns `None` when the queue is closed.
fn next_job<I>(
    jobs: &Receiver<Job<I>>,
    keep_warm: Option<Duration>,
    expert: &mut dyn UnderstandingExpert<Inputs = I>,
    gate: &TickGuard,
) -> Option<Job<I>> {
    let Some(idle) = keep_warm else { return jobs.recv().ok() };
    loop {
        match jobs.recv_timeout(idle) {
            Ok(job) => return Some(job),
            Err(RecvTimeoutError::Disconnected) => return None,
            // Ignored: a device error recurs at the next prefill, which reports it.
            Err(RecvTimeoutError::Timeout) => drop(expert.keep_warm(gate)),
        }
    }
}

impl<I> Drop for PrefillThread<I> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A prefill in flight finishes first. The panic hook has reported a panic of the
            // thread.
            let _ = thread.join();
        }
    }
}
