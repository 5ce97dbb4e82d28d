//! Timeline of a run: stages by thread, and links from prefills to the ticks on their prefixes.
//!
//! The format is Chromium's JSON trace format, not Perfetto's own. Perfetto reads both equally well
//! (nanoseconds, nesting, counters, flows), and JSON is also read by Chromium's viewer, by
//! speedscope and by short scripts. The disadvantage is the size, 2 to 4 kB per tick.
//!
//! During a tick, the spans of its report are copied to preallocated memory; everything else happens
//! in [`TraceRecorder::write`].

use serde::{Serialize, Serializer};
use std::cmp::Reverse;
use std::hint::black_box;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tandem::scene::{DeadlineVerdict, PrefixInfo, TickReport};
use tandem::timing::{MAX_SPANS, Role, Span, Stage, StageSpans, now_ns};

/// Rows of the timeline, one per thread.
const ROWS: [&str; 2] = ["tick", "understanding"];
const TICK_ROW: usize = 0;
const PREFILL_ROW: usize = 1;

/// Process id in the file. Thread ids start after it, because viewers treat a thread with the id of
/// its process as the main thread.
const PROCESS: u32 = 1;

/// Maximum number of phases that are marked. Prefixes of later phases are still distinguished.
const MAX_PHASES: usize = 16;

struct Tick {
    phase: usize,
    frame: u64,
    prefix: Option<PrefixInfo>,
    deadline: DeadlineVerdict,
    spans: Range<usize>,
    /// Number of prefills that had ended by then, including its own.
    refreshes: usize,
}

struct Refresh {
    phase: usize,
    version: u64,
    is_published: bool,
    spans: Range<usize>,
}

/// Stores ticks and prefills and writes them as a timeline.
pub struct TraceRecorder {
    capacity: usize,
    ticks: Vec<Tick>,
    refreshes: Vec<Refresh>,
    spans: Vec<Span>,
    /// Title and start of each phase.
    phases: Vec<(&'static str, u64)>,
    phase: usize,
    ticks_dropped: u64,
    refreshes_dropped: u64,
    spans_dropped: u64,
}

/// Numbers of stored and dropped items; also written to the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct TraceCounts {
    pub ticks: u64,
    pub ticks_dropped: u64,
    pub refreshes: u64,
    pub refreshes_dropped: u64,
    pub slices: u64,
    /// Slices shortened because they exceeded their enclosing slice.
    pub slices_cut: u64,
    /// Spans dropped by the buffer of their tick or prefill.
    pub spans_dropped: u64,
    /// Ticks linked to the prefill of their prefix.
    pub flows: u64,
    /// Ticks with a prefix from a prefill that ended before the recording.
    pub flows_missing: u64,
}

/// Error returned when a trace cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the trace {path:?}: {source}; no partial file was left")]
pub struct TraceError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl TraceRecorder {
    /// Creates a recorder for `capacity_ticks` ticks; all of its memory (about 1.5 kB per
    /// tick) is allocated and touched.
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

    /// Starts a phase now and marks it on the timeline. Equal versions in different
    /// phases are different prefixes.
    pub fn begin_phase(&mut self, title: &'static str) {
        self.phase += 1;
        if self.phases.len() < MAX_PHASES {
            self.phases.push((title, now_ns()));
        }
    }

    /// Adds a tick, and the prefill that ended in it. Does not allocate.
    pub fn tick(&mut self, report: &TickReport) {
        if let Some(refresh) = &report.prefill {
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

    /// Adds a prefill that ended outside of a tick. Does not allocate.
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

    /// Writes the timeline atomically; `about` is stored under `otherData.run`. Dropped items are
    /// reported in the log and in the result.
    ///
    /// # Errors
    /// If the file cannot be written.
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

    /// Returns all events, ascending in time; an enclosing slice precedes those inside it.
    fn events(&self) -> (Vec<Event>, TraceCounts) {
        let mut counts = TraceCounts {
            ticks: self.ticks.len() as u64,
            ticks_dropped: self.ticks_dropped,
            refreshes: self.refreshes.len() as u64,
            refreshes_dropped: self.refreshes_dropped,
            spans_dropped: self.spans_dropped,
            ..TraceCounts::default()
        };
        let mut rows = ROWS.map(|_| Vec::new());
        let mut others = Vec::new();
        for refresh in &self.refreshes {
            let args = Args {
                version: Some(refresh.version),
                is_published: Some(refresh.is_published),
                ..Args::default()
            };
            for slice in slices(&self.spans[refresh.spans.clone()]) {
                rows[PREFILL_ROW].push(Slice { args, ..slice });
            }
        }
        for (number, tick) in self.ticks.iter().enumerate() {
            let spans = &self.spans[tick.spans.clone()];
            let frame = Args { frame: Some(tick.frame), ..Args::default() };
            for slice in slices(spans).filter(|slice| !is_due(slice.stage)) {
                let args = if slice.stage == Stage::TICK { tick.args(slice.args) } else { frame };
                rows[TICK_ROW].push(Slice { args, ..slice });
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
        for (row, slices) in rows.iter_mut().enumerate() {
            counts.slices += slices.len() as u64;
            counts.slices_cut += push_nested(&mut events, slices, thread(row));
        }
        let marks = self.phases.iter().map(|&(title, at_ns)| {
            let event = Event::new("i", "phase", title, thread(TICK_ROW), at_ns);
            Event { s: Some("g"), ..event }
        });
        events.extend(others);
        events.extend(marks);
        // The sort is stable, so events of a row at the same instant stay in order.
        events.sort_by_key(|event| event.ts);
        let mut all = names();
        all.extend(events);
        (all, counts)
    }

    /// Returns the instants at which the prefix of `tick` was sealed and at which it was used.
    fn flow(&self, tick: &Tick, version: u64) -> Option<[u64; 2]> {
        let refresh = self.refreshes[..tick.refreshes]
            .iter()
            .rev()
            .take_while(|refresh| refresh.phase == tick.phase)
            .find(|refresh| refresh.version == version && refresh.is_published)?;
        // The instants are inside slices, not on their edges, so that viewers agree on the slice.
        let inside = |spans: &Range<usize>, part: Stage, parent: Stage| {
            let spans = &self.spans[spans.clone()];
            let of = |stage| spans.iter().find(|span| span.stage == stage && span.took_ns > 0);
            of(part).or(of(parent)).map(|span| span.start_ns + span.took_ns / 2)
        };
        let sealed = inside(&refresh.spans, Stage::SEAL, Stage::PREFILL);
        // The last network of a tick is the one that reads the prefix.
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

fn thread(row: usize) -> u32 {
    PROCESS + 1 + row as u32
}

/// A stage as a slice of its row.
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

/// Converts spans to slices. If its parts end later, a span is extended to the end of its
/// last part and stores its own duration: in virtual time a tick may wait for a prefill,
/// which is not part of its cost.
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

/// Adds the slices of a row in order and shortens those that exceed their enclosing slice; returns
/// the number of shortened slices. Starts and ends are separate events: a viewer that adds a
/// duration to a start may end a slice after the start of the next one because of rounding.
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

/// Returns true for stages that count from the due instant of a tick. If a tick is late, the next
/// one is due before it ends, so these are separate spans and not nested slices of a thread.
fn is_due(stage: Stage) -> bool {
    [Stage::RESPONSE, Stage::WAKE].contains(&stage)
}

fn push_due(events: &mut Vec<Event>, id: u64, spans: &[Span], args: Args) {
    let mut due: Vec<&Span> = spans.iter().filter(|span| is_due(span.stage)).collect();
    due.sort_by_key(|span| (span.start_ns, Reverse(span.took_ns), span.stage));
    let event = |ph, span: &Span, at_ns| {
        let event = Event::new(ph, "due", span.stage.name(), thread(TICK_ROW), at_ns);
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
        let event = Event::new("C", "counter", name, thread(TICK_ROW), at_ns);
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
    let start = Event::new("s", "prefix", "prefix", thread(PREFILL_ROW), from_ns);
    events.push(Event { id: Some(id), args, ..start });
    let finish = Event::new("f", "prefix", "prefix", thread(TICK_ROW), to_ns);
    events.push(Event { id: Some(id), bp: Some("e"), ..finish });
}

/// Returns the events that name the process and its threads and define their order.
fn names() -> Vec<Event> {
    let named =
        |name, tid, args| Event { args: Some(args), ..Event::new("M", "__metadata", name, tid, 0) };
    let called = |name| Args { name: Some(name), ..Args::default() };
    let mut events = vec![named("process_name", PROCESS, called("tandem"))];
    for (row, name) in ROWS.into_iter().enumerate() {
        events.push(named("thread_name", thread(row), called(name)));
        let order = Args { sort_index: Some(row as u64), ..Args::default() };
        events.push(named("thread_sort_index", thread(row), order));
    }
    events
}

/// Nanoseconds, serialized as microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Micros(u64);

impl Serialize for Micros {
    /// Writes the shortest decimal of the nearest double, exact to the nanosecond below 104 days.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1e3)
    }
}

/// Nanoseconds, serialized as milliseconds.
#[derive(Clone, Copy)]
struct Millis(u64);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1e6)
    }
}

/// Content of the file; keys are those of the format.
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

/// An event; fields are those of the format.
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
    /// Binding point `e`: a flow ends in the enclosing slice, not in the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'static str>,
    /// Scope of a mark, `g` for global.
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

/// Arguments of an event; absent ones are omitted.
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
    /// Duration of the stage, if its slice was extended.
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_published: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<Millis>,
}
