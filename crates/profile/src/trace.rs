//! A run on a timeline: what ran when on which thread, and which refresh each tick acted on.
//!
//! Written in Chromium's JSON trace format, not in Perfetto's own: Perfetto reads both alike (times
//! to the nanosecond, nesting, counters, flows), and only JSON is also read by Chromium's viewer, by
//! speedscope, and by a script of three lines. Its price is size, 2 to 4 kB a tick.
//!
//! On the tick a report's spans are copied into memory set aside before; all else happens in
//! [`TraceRecorder::write`].

use serde::{Serialize, Serializer};
use std::cmp::Reverse;
use std::hint::black_box;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tandem::scene::{DeadlineVerdict, PrefixInfo, TickReport};
use tandem::timing::{MAX_SPANS, Role, Span, Stage, StageSpans, now_ns};

/// The rows of the timeline, one per thread; a stream of a device would be one more.
const LANES: [&str; 2] = ["tick", "understanding"];
const TICK_LANE: usize = 0;
const REFRESH_LANE: usize = 1;

/// Process number in the file. Threads are numbered from the next one, since viewers take the thread
/// that has its process' number for the main thread.
const PROCESS: u32 = 1;

/// Phases that are marked; later ones are told apart but have no mark.
const MAX_PHASES: usize = 16;

struct Tick {
    phase: usize,
    frame: u64,
    prefix: Option<PrefixInfo>,
    deadline: DeadlineVerdict,
    /// Of all spans.
    spans: Range<usize>,
    /// Number of refreshes that had ended, its own included.
    refreshes: usize,
}

struct Refresh {
    phase: usize,
    version: u64,
    is_published: bool,
    /// Of all spans.
    spans: Range<usize>,
}

/// Takes up ticks and refreshes, and writes them as a timeline.
pub struct TraceRecorder {
    capacity: usize,
    ticks: Vec<Tick>,
    refreshes: Vec<Refresh>,
    spans: Vec<Span>,
    /// Title and beginning.
    phases: Vec<(&'static str, u64)>,
    phase: usize,
    ticks_dropped: u64,
    refreshes_dropped: u64,
    spans_dropped: u64,
}

/// What a trace holds, and what it had to leave out. Stands in the file, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct TraceCounts {
    /// Ticks.
    pub ticks: u64,
    /// Ticks that found no place.
    pub ticks_dropped: u64,
    /// Refreshes that ended.
    pub refreshes: u64,
    /// Refreshes that found no place.
    pub refreshes_dropped: u64,
    /// Slices on threads.
    pub slices: u64,
    /// Slices cut short because they reached beyond the one that they began in.
    pub slices_cut: u64,
    /// Stages that their tick or refresh had no place for.
    pub spans_dropped: u64,
    /// Ticks connected with the refresh that they acted on.
    pub flows: u64,
    /// Ticks with a prefix whose refresh is not in the trace, for it ended before the recording.
    pub flows_missing: u64,
}

/// A trace cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the trace {path:?}: {source}; nothing was left there")]
pub struct TraceError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl TraceRecorder {
    /// A recorder for `capacity_ticks` ticks, with memory for all of them (about 1.5 kB each) set
    /// aside and touched.
    pub fn new(capacity_ticks: usize) -> Self {
        let mut spans =
            vec![Span { stage: Stage::TICK, start_ns: 1, took_ns: 1 }; capacity_ticks * MAX_SPANS];
        black_box(&mut spans).clear();
        Self {
            capacity: capacity_ticks,
            ticks: Vec::with_capacity(capacity_ticks),
            refreshes: Vec::with_capacity(capacity_ticks),
            spans,
            phases: Vec::with_capacity(MAX_PHASES),
            phase: 0,
            ticks_dropped: 0,
            refreshes_dropped: 0,
            spans_dropped: 0,
        }
    }

    /// Begins a phase now and marks it on the timeline. Versions of different phases are different
    /// prefixes, whatever their numbers.
    pub fn begin_phase(&mut self, title: &'static str) {
        self.phase += 1;
        if self.phases.len() < MAX_PHASES {
            self.phases.push((title, now_ns()));
        }
    }

    /// Adds a tick, and the refresh that ended in it. Does not allocate.
    pub fn tick(&mut self, report: &TickReport) {
        if let Some(refresh) = &report.refresh {
            self.refresh(refresh.version, refresh.is_published, &refresh.spans);
        }
        if self.ticks.len() == self.capacity || !self.has_room_for(&report.spans) {
            self.ticks_dropped += 1;
            return;
        }
        let spans = self.keep(&report.spans);
        self.ticks.push(Tick {
            phase: self.phase,
            frame: report.frame.0,
            prefix: report.prefix,
            deadline: report.deadline,
            spans,
            refreshes: self.refreshes.len(),
        });
    }

    /// Adds a refresh that ended outside of any tick. Does not allocate.
    pub fn refresh(&mut self, version: u64, is_published: bool, spans: &StageSpans) {
        if self.refreshes.len() == self.capacity || !self.has_room_for(spans) {
            self.refreshes_dropped += 1;
            return;
        }
        let spans = self.keep(spans);
        self.refreshes.push(Refresh { phase: self.phase, version, is_published, spans });
    }

    fn has_room_for(&self, spans: &StageSpans) -> bool {
        self.spans.len() + spans.iter().count() <= self.capacity * MAX_SPANS
    }

    fn keep(&mut self, spans: &StageSpans) -> Range<usize> {
        let first = self.spans.len();
        self.spans.extend(spans.iter());
        self.spans_dropped += u64::from(spans.dropped());
        first..self.spans.len()
    }

    /// Writes the timeline, whole or not at all; `about` goes into the file under `otherData.run`.
    /// What found no place is said once, in the log and in the result.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&self, path: &Path, about: &impl Serialize) -> Result<TraceCounts, TraceError> {
        let (events, counts) = self.events();
        let file = TraceFile {
            display_time_unit: "ms",
            other_data: About {
                clock: "microseconds of the host's monotonic clock since the process began",
                counts,
                run: about,
            },
            trace_events: &events,
        };
        tandem_files::write_with(path, |out| Ok(serde_json::to_writer(out, &file)?))
            .map_err(|source| TraceError { path: path.to_owned(), source })?;
        if counts.ticks_dropped + counts.refreshes_dropped + counts.spans_dropped > 0 {
            let TraceCounts { ticks_dropped, refreshes_dropped, spans_dropped, .. } = counts;
            tracing::warn!(ticks_dropped, refreshes_dropped, spans_dropped, "the trace was full");
        }
        Ok(counts)
    }

    /// All events, ascending in time; an enclosing slice stands before those inside it.
    fn events(&self) -> (Vec<Event>, TraceCounts) {
        let mut counts = TraceCounts {
            ticks: self.ticks.len() as u64,
            ticks_dropped: self.ticks_dropped,
            refreshes: self.refreshes.len() as u64,
            refreshes_dropped: self.refreshes_dropped,
            spans_dropped: self.spans_dropped,
            ..TraceCounts::default()
        };
        let mut lanes = LANES.map(|_| Vec::new());
        let mut others = Vec::new();
        for refresh in &self.refreshes {
            let args = Args {
                version: Some(refresh.version),
                is_published: Some(refresh.is_published),
                ..Args::default()
            };
            for slice in slices(&self.spans[refresh.spans.clone()]) {
                lanes[REFRESH_LANE].push(Slice { args, ..slice });
            }
        }
        for (number, tick) in self.ticks.iter().enumerate() {
            let spans = &self.spans[tick.spans.clone()];
            let frame = Args { frame: Some(tick.frame), ..Args::default() };
            for slice in slices(spans).filter(|slice| !is_due(slice.stage)) {
                let args = if slice.stage == Stage::TICK { tick.args(slice.args) } else { frame };
                lanes[TICK_LANE].push(Slice { args, ..slice });
            }
            push_due(&mut others, number as u64, spans, frame);
            push_counters(&mut others, tick, spans);
            if let Some(prefix) = tick.prefix {
                match self.flow(tick, prefix.version) {
                    Some(ends) => {
                        counts.flows += 1;
                        push_flow(&mut others, counts.flows, prefix.version, ends);
                    }
                    None => counts.flows_missing += 1,
                }
            }
        }
        let mut events = Vec::new();
        for (lane, slices) in lanes.iter_mut().enumerate() {
            counts.slices += slices.len() as u64;
            counts.slices_cut += push_nested(&mut events, slices, thread(lane));
        }
        let marks = self.phases.iter().map(|&(title, at_ns)| {
            let event = Event::new("i", "phase", title, thread(TICK_LANE), at_ns);
            Event { s: Some("g"), ..event }
        });
        events.extend(others);
        events.extend(marks);
        // Stable: what a lane put in order at the same instant stays in order.
        events.sort_by_key(|event| event.ts);
        let mut all = names();
        all.extend(events);
        (all, counts)
    }

    /// Where the prefix that `tick` acted on was sealed, and where it was acted on.
    fn flow(&self, tick: &Tick, version: u64) -> Option<[u64; 2]> {
        let refresh = self.refreshes[..tick.refreshes]
            .iter()
            .rev()
            .take_while(|refresh| refresh.phase == tick.phase)
            .find(|refresh| refresh.version == version && refresh.is_published)?;
        // The instants lie inside slices, not on their edges, so that viewers agree on which.
        let inside = |spans: &Range<usize>, part: Stage, whole: Stage| {
            let spans = &self.spans[spans.clone()];
            let of = |stage| spans.iter().find(|span| span.stage == stage && span.took_ns > 0);
            of(part).or(of(whole)).map(|span| span.start_ns + span.took_ns / 2)
        };
        let sealed = inside(&refresh.spans, Stage::SEAL, Stage::REFRESH);
        // The last network of a tick is the one that attends to the prefix.
        let networks = self.spans[tick.spans.clone()].iter().map(|span| span.stage);
        let networks = networks.filter(|stage| stage.role() == Role::FastNetwork);
        let acted = inside(&tick.spans, networks.max().unwrap_or(Stage::TICK), Stage::TICK);
        Some([sealed?, acted?]).filter(|[sealed, acted]| sealed <= acted)
    }
}

impl Tick {
    fn args(&self, more: Args) -> Args {
        let late_by = match self.deadline {
            DeadlineVerdict::Met => None,
            DeadlineVerdict::Missed { by } => Some(by.as_nanos() as u64),
        };
        Args {
            frame: Some(self.frame),
            prefix_version: self.prefix.map(|prefix| prefix.version),
            prefix_age_ms: self.prefix.map(|prefix| Millis(prefix.age.as_nanos() as u64)),
            deadline: Some(if late_by.is_some() { "missed" } else { "met" }),
            late_by_ms: late_by.map(Millis),
            ..more
        }
    }
}

fn end_ns(span: &Span) -> u64 {
    span.start_ns + span.took_ns
}

fn thread(lane: usize) -> u32 {
    PROCESS + 1 + lane as u32
}

/// A stage on its lane.
#[derive(Clone, Copy)]
struct Slice {
    stage: Stage,
    start_ns: u64,
    end_ns: u64,
    args: Args,
}

impl Slice {
    fn begin(&self, tid: u32) -> Event {
        let event = Event::new("B", "stage", self.stage.name(), tid, self.start_ns);
        Event { args: Some(self.args), ..event }
    }

    fn end(&self, tid: u32) -> Event {
        Event::new("E", "stage", self.stage.name(), tid, self.end_ns)
    }
}

/// Spans as slices. One whose parts go on behind its end is drawn to the end of its last part, and
/// says what it took: in virtual time a tick may wait for a refresh, which is no part of its cost.
fn slices(spans: &[Span]) -> impl Iterator<Item = Slice> + '_ {
    spans.iter().map(move |span| {
        let parts = spans.iter().filter(|part| {
            part.stage.parent() == Some(span.stage) && part.start_ns >= span.start_ns
        });
        let last = parts.map(end_ns).max().unwrap_or(0);
        let took_ms = (last > end_ns(span)).then_some(Millis(span.took_ns));
        Slice {
            stage: span.stage,
            start_ns: span.start_ns,
            end_ns: last.max(end_ns(span)),
            args: Args { took_ms, ..Args::default() },
        }
    })
}

/// Adds the slices of a lane in order, cutting those that reach beyond the one that they began in;
/// returns how many were cut.
///
/// Beginnings and ends are events of their own: a viewer that adds a duration to a beginning may end
/// a slice one rounding behind the beginning of the next.
fn push_nested(events: &mut Vec<Event>, slices: &mut [Slice], tid: u32) -> u64 {
    slices.sort_by_key(|slice| (slice.start_ns, Reverse(slice.end_ns), slice.stage));
    let mut open: Vec<Slice> = Vec::new();
    let mut cut = 0;
    for slice in slices {
        while let Some(ended) = open.pop_if(|around| around.end_ns <= slice.start_ns) {
            events.push(ended.end(tid));
        }
        if let Some(around) = open.last()
            && around.end_ns < slice.end_ns
        {
            slice.end_ns = around.end_ns;
            cut += 1;
        }
        events.push(slice.begin(tid));
        open.push(*slice);
    }
    events.extend(open.iter().rev().map(|slice| slice.end(tid)));
    cut
}

/// Stages that count from the instant at which a tick was due. When a tick is late the next one is
/// due before it ends, so these are no nested work of a thread but spans of their own.
fn is_due(stage: Stage) -> bool {
    [Stage::RESPONSE, Stage::WAKE].contains(&stage)
}

fn push_due(events: &mut Vec<Event>, id: u64, spans: &[Span], args: Args) {
    let mut due: Vec<&Span> = spans.iter().filter(|span| is_due(span.stage)).collect();
    due.sort_by_key(|span| (span.start_ns, Reverse(span.took_ns), span.stage));
    let event = |ph, span: &Span, at_ns| {
        let event = Event::new(ph, "due", span.stage.name(), thread(TICK_LANE), at_ns);
        Event { id: Some(id), ..event }
    };
    let begin = |span: &Span| Event { args: Some(args), ..event("b", span, span.start_ns) };
    events.extend(due.iter().map(|&span| begin(span)));
    events.extend(due.iter().rev().map(|span| event("e", span, end_ns(span))));
}

fn push_counters(events: &mut Vec<Event>, tick: &Tick, spans: &[Span]) {
    let Some(span) = spans.iter().find(|span| span.stage == Stage::TICK) else { return };
    let mut counter = |name, at_ns, value_ns| {
        let args = Some(Args { ms: Some(Millis(value_ns)), ..Args::default() });
        let event = Event::new("C", "counter", name, thread(TICK_LANE), at_ns);
        events.push(Event { args, ..event });
    };
    if let Some(prefix) = tick.prefix {
        counter("prefix age", span.start_ns, prefix.age.as_nanos() as u64);
    }
    let late_by_ns = match tick.deadline {
        DeadlineVerdict::Met => 0,
        DeadlineVerdict::Missed { by } => by.as_nanos() as u64,
    };
    counter("late by", end_ns(span), late_by_ns);
}

fn push_flow(events: &mut Vec<Event>, id: u64, version: u64, [from_ns, to_ns]: [u64; 2]) {
    let args = Some(Args { version: Some(version), ..Args::default() });
    let start = Event::new("s", "prefix", "prefix", thread(REFRESH_LANE), from_ns);
    events.push(Event { id: Some(id), args, ..start });
    let finish = Event::new("f", "prefix", "prefix", thread(TICK_LANE), to_ns);
    events.push(Event { id: Some(id), bp: Some("e"), ..finish });
}

/// The events that name the process and its threads and put these in order.
fn names() -> Vec<Event> {
    let named =
        |name, tid, args| Event { args: Some(args), ..Event::new("M", "__metadata", name, tid, 0) };
    let called = |name| Args { name: Some(name), ..Args::default() };
    let mut events = vec![named("process_name", PROCESS, called("tandem"))];
    for (lane, name) in LANES.into_iter().enumerate() {
        events.push(named("thread_name", thread(lane), called(name)));
        let order = Args { sort_index: Some(lane as u64), ..Args::default() };
        events.push(named("thread_sort_index", thread(lane), order));
    }
    events
}

/// Nanoseconds that the file holds as microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Micros(u64);

impl Serialize for Micros {
    /// Exact to the nanosecond below 104 days: the shortest decimal of the nearest double.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1e3)
    }
}

/// Nanoseconds that the file holds as milliseconds.
#[derive(Clone, Copy)]
struct Millis(u64);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1e6)
    }
}

/// The file; keys are the format's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TraceFile<'a, T: Serialize> {
    display_time_unit: &'static str,
    other_data: About<'a, T>,
    trace_events: &'a [Event],
}

#[derive(Serialize)]
struct About<'a, T: Serialize> {
    clock: &'static str,
    #[serde(flatten)]
    counts: TraceCounts,
    run: &'a T,
}

/// One event; fields are the format's.
#[derive(Serialize)]
struct Event {
    ph: &'static str,
    cat: &'static str,
    name: &'static str,
    pid: u32,
    tid: u32,
    ts: Micros,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    /// `e`: a flow ends in the slice around it, not in the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'static str>,
    /// How far a mark reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Args>,
}

impl Event {
    fn new(ph: &'static str, cat: &'static str, name: &'static str, tid: u32, at_ns: u64) -> Self {
        let (id, bp, s, args) = (None, None, None, None);
        Self { ph, cat, name, pid: PROCESS, tid, ts: Micros(at_ns), id, bp, s, args }
    }
}

/// What an event says besides its time.
#[derive(Clone, Copy, Default, Serialize)]
struct Args {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_age_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_by_ms: Option<Millis>,
    /// Where a slice is drawn longer than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_published: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<Millis>,
}
