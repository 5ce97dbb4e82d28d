//! Traces equal their reports, read back strictly by the rules of the format.
//!
//! `benchmarks/README.md` describes the test of a trace in Perfetto's trace processor and viewer.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tandem::model::automot::stages;
use tandem::scene::{DeadlineVerdict, FrameId, PrefillReport, PrefixInfo, TickReport};
use tandem::timing::{MAX_SPANS, Span, Stage, StageSpans};
use tandem_profile::{TraceCounts, TraceRecorder};

const MS: u64 = 1_000_000;

fn spans(of: &[(Stage, u64, u64)]) -> StageSpans {
    let mut spans = StageSpans::default();
    for &(stage, start_ns, took_ns) in of {
        spans.push(Span { stage, start_ns, took_ns });
    }
    spans
}

/// Report of a tick that was due at `due_ns` and began 300 µs later.
fn tick(frame: u64, due_ns: u64, took_ns: u64, version: Option<u64>) -> TickReport {
    let start_ns = due_ns + 300_007;
    TickReport {
        frame: FrameId(frame),
        prefix: version.map(|version| PrefixInfo { version, age: Duration::from_millis(150) }),
        spans: spans(&[
            (Stage::WAKE, due_ns, 100_001),
            (Stage::RECEIVE, due_ns + 100_001, 200_002),
            (Stage::STATE_FILTER, start_ns, 20_003),
            (stages::BEV, start_ns + 30_004, took_ns / 2),
            (stages::ACTION, start_ns + 30_004 + took_ns / 2, took_ns / 3),
            (Stage::TICK, start_ns, took_ns),
            (Stage::SEND, start_ns + took_ns, 50_001),
            (Stage::RESPONSE, due_ns, start_ns + took_ns + 50_001 - due_ns),
        ]),
        ..TickReport::default()
    }
}

fn prefill(version: u64, start_ns: u64, took_ns: u64) -> PrefillReport {
    PrefillReport {
        version,
        is_published: true,
        spans: spans(&[
            (Stage::HAND_OFF, start_ns, 40_001),
            (stages::RESIZE, start_ns + 50_000, 1_000),
            (stages::RESIZE, start_ns + 51_000, 1_000),
            (stages::VISION, start_ns + 60_000, took_ns / 2),
            (stages::UNDERSTANDING, start_ns + 60_000 + took_ns / 2, took_ns / 3),
            (Stage::SEAL, start_ns + took_ns - 501, 501),
            (Stage::PREFILL, start_ns, took_ns),
        ]),
    }
}

/// Records two seconds at 20 Hz with a prefill at every fifth tick that is used three ticks later.
/// Tick 20 ends after the next one is due; the prefill begun at tick 25 fails.
fn two_rates(trace: &mut TraceRecorder, began_ns: u64, first_version: u64) {
    let mut newest = None;
    for number in 0..40_u64 {
        let due_ns = began_ns + number * 50 * MS;
        let began = number.checked_sub(3).filter(|began| began % 5 == 0);
        let ended = began.map(|began| {
            let version = first_version + began / 5;
            let mut ended = prefill(version, began_ns + began * 50 * MS + 9 * MS, 120 * MS + 1);
            ended.is_published = began != 25;
            newest = Some(version).filter(|_| ended.is_published).or(newest);
            ended
        });
        let took_ns = if number == 20 { 58 * MS } else { 8 * MS + number };
        let late_start_ns = if number == 21 { due_ns + 12 * MS } else { due_ns };
        let mut report = tick(number + 1, late_start_ns, took_ns, newest);
        if number == 20 {
            report.deadline = DeadlineVerdict::Missed { by: Duration::from_nanos(8 * MS + 5) };
        }
        if number == 21 {
            // The tick was due while the previous one still ran.
            report.spans = spans(
                &report
                    .spans
                    .iter()
                    .map(|span| match span.stage {
                        stage if stage == Stage::WAKE => (stage, due_ns, 12 * MS + 100_001),
                        stage if stage == Stage::RESPONSE => {
                            (stage, due_ns, span.took_ns + 12 * MS)
                        }
                        stage => (stage, span.start_ns, span.took_ns),
                    })
                    .collect::<Vec<_>>(),
            );
        }
        report.prefill = ended;
        trace.tick(&report);
    }
}

#[derive(Clone, Debug)]
struct Slice {
    stage: Stage,
    tid: u64,
    start_ns: u64,
    end_ns: u64,
    args: Value,
    /// Enclosing slices, outermost first.
    around: Vec<usize>,
}

/// A trace that follows every rule.
struct Parsed {
    slices: Vec<Slice>,
    /// Slice from, slice to, and version.
    flows: Vec<(usize, usize, u64)>,
    /// Times and values of each counter.
    counters: BTreeMap<String, Vec<(u64, f64)>>,
    /// Stages that begin when a tick is due: name, start, end.
    due: Vec<(Stage, u64, u64)>,
    marks: Vec<String>,
    about: Value,
}

fn ns(event: &Value, key: &str) -> u64 {
    let micros = event[key].as_f64().unwrap();
    let nanos = (micros * 1e3).round();
    assert!((micros * 1e3 - nanos).abs() < 1e-3, "not an integer number of nanoseconds: {event}");
    nanos as u64
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[track_caller]
fn has_keys(value: &Value, expected: &[&str]) {
    assert_eq!(keys(value), expected.iter().copied().collect(), "{value}");
}

fn parse(path: &Path) -> Parsed {
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    has_keys(&file, &["displayTimeUnit", "otherData", "traceEvents"]);
    let mut parsed = Parsed {
        slices: Vec::new(),
        flows: Vec::new(),
        counters: BTreeMap::new(),
        due: Vec::new(),
        marks: Vec::new(),
        about: file["otherData"].clone(),
    };
    let mut threads = BTreeMap::new();
    let mut open: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let mut open_due: BTreeMap<u64, Vec<(Stage, u64)>> = BTreeMap::new();
    let mut open_flows = BTreeMap::new();
    let mut last_ns = 0;
    for event in file["traceEvents"].as_array().unwrap() {
        let (ph, name) = (event["ph"].as_str().unwrap(), event["name"].as_str().unwrap());
        let (tid, args, at_ns) = (event["tid"].as_u64().unwrap(), &event["args"], ns(event, "ts"));
        assert_eq!(event["pid"], 1, "{event}");
        if ph != "M" {
            assert!(last_ns <= at_ns, "time goes backwards: {event}");
            assert!(ph == "i" || ph == "C" || threads.contains_key(&tid), "no thread: {event}");
            last_ns = at_ns;
        }
        let around = open.entry(tid).or_default();
        let common = ["ph", "cat", "name", "pid", "tid", "ts"];
        let and = |more: &[&'static str]| [&common[..], more].concat();
        match ph {
            "M" => {
                has_keys(event, &and(&["args"]));
                if name == "thread_name" {
                    assert!(threads.insert(tid, args["name"].as_str().unwrap()).is_none());
                }
            }
            "B" => {
                has_keys(event, &and(&["args"]));
                let slice = Slice {
                    stage: Stage::named(name).unwrap(),
                    tid,
                    start_ns: at_ns,
                    end_ns: at_ns,
                    args: args.clone(),
                    around: around.clone(),
                };
                around.push(parsed.slices.len());
                parsed.slices.push(slice);
            }
            "E" => {
                has_keys(event, &common);
                let slice = &mut parsed.slices[around.pop().unwrap()];
                assert_eq!(slice.stage.name(), name, "crosses its enclosing slice: {event}");
                slice.end_ns = at_ns;
            }
            "b" => {
                has_keys(event, &and(&["id", "args"]));
                let stack = open_due.entry(event["id"].as_u64().unwrap()).or_default();
                stack.push((Stage::named(name).unwrap(), at_ns));
            }
            "e" => {
                has_keys(event, &and(&["id"]));
                let stack = open_due.get_mut(&event["id"].as_u64().unwrap()).unwrap();
                let (stage, start_ns) = stack.pop().unwrap();
                assert_eq!(stage.name(), name);
                parsed.due.push((stage, start_ns, at_ns));
            }
            "s" => {
                has_keys(event, &and(&["id", "args"]));
                assert_eq!(threads[&tid], "understanding");
                let begun = (*around.first().unwrap(), args["version"].as_u64().unwrap());
                assert!(open_flows.insert(event["id"].as_u64().unwrap(), begun).is_none());
            }
            "f" => {
                has_keys(event, &and(&["id", "bp"]));
                assert_eq!((threads[&tid], event["bp"].as_str().unwrap()), ("tick", "e"));
                let (from, version) = open_flows.remove(&event["id"].as_u64().unwrap()).unwrap();
                let to = *around.first().unwrap();
                parsed.flows.push((from, to, version));
            }
            "C" => {
                has_keys(event, &and(&["args"]));
                has_keys(args, &["ms"]);
                let of = parsed.counters.entry(name.to_owned()).or_default();
                of.push((at_ns, args["ms"].as_f64().unwrap()));
            }
            "i" => {
                has_keys(event, &and(&["s"]));
                parsed.marks.push(name.to_owned());
            }
            _ => panic!("unknown kind of event: {event}"),
        }
    }
    assert!(open_flows.is_empty() && open_due.values().all(Vec::is_empty));
    assert!(open.values().all(Vec::is_empty), "slices without an end");
    assert_eq!(threads.values().copied().collect::<Vec<_>>(), ["tick", "understanding"]);
    for slice in &parsed.slices {
        let is_prefill =
            slice.stage == Stage::PREFILL || slice.stage.parent() == Some(Stage::PREFILL);
        assert_eq!(threads[&slice.tid] == "understanding", is_prefill, "{slice:?}");
        let parent = slice.around.last().map(|&around| parsed.slices[around].stage);
        let expected = slice.stage.parent().filter(|&parent| parent != Stage::RESPONSE);
        assert_eq!(parent, expected, "{slice:?}");
    }
    for &(from, to, version) in &parsed.flows {
        let (from, to) = (&parsed.slices[from], &parsed.slices[to]);
        assert_eq!((from.stage, to.stage), (Stage::PREFILL, Stage::TICK));
        assert!(from.end_ns <= to.end_ns && from.start_ns < to.end_ns);
        assert_eq!(
            (&from.args["version"], &from.args["is_published"]),
            (&json!(version), &json!(true))
        );
        assert_eq!(to.args["prefix_version"], version);
    }
    parsed
}

impl Parsed {
    fn of(&self, stage: Stage) -> Vec<&Slice> {
        self.slices.iter().filter(|slice| slice.stage == stage).collect()
    }
}

fn written(trace: &TraceRecorder) -> (Parsed, TraceCounts) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let counts = trace.write(&path, &json!({ "command": "a \"test\"" })).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let parsed = parse(&path);
    assert_eq!(parsed.slices.len() as u64, counts.slices);
    assert_eq!(parsed.flows.len() as u64, counts.flows);
    assert_eq!(parsed.about["ticks"], counts.ticks);
    (parsed, counts)
}

#[test]
fn ticks_are_linked_to_the_prefill_they_acted_on() {
    let mut trace = TraceRecorder::new(100);
    two_rates(&mut trace, 7 * MS + 1, 1);
    let (parsed, counts) = written(&trace);
    assert_eq!((counts.ticks, counts.refreshes, counts.slices_cut), (40, 8, 0));
    assert_eq!((counts.flows, counts.flows_missing), (37, 0));
    assert_eq!(parsed.about["run"]["command"], "a \"test\"");

    let ticks = parsed.of(Stage::TICK);
    assert_eq!(ticks.len(), 40);
    assert_eq!(ticks[39].start_ns, 7 * MS + 1 + 39 * 50 * MS + 300_007);
    assert_eq!(ticks[39].end_ns - ticks[39].start_ns, 8 * MS + 39);
    let expected = json!({
        "frame": 21, "prefix_version": 4, "prefix_age_ms": 150.0, "deadline": "missed",
        "late_by_ms": 8.000005,
    });
    assert_eq!(ticks[20].args, expected);
    assert_eq!(ticks[0].args, json!({ "frame": 1, "deadline": "met" }));
    // Version 6 failed, so ticks kept using 5.
    let of_version = |version| parsed.flows.iter().filter(|flow| flow.2 == version).count();
    assert_eq!([1, 5, 6, 7, 8].map(of_version), [5, 10, 0, 5, 2]);
    assert_eq!(parsed.of(Stage::PREFILL)[5].args, json!({ "version": 6, "is_published": false }));
    assert_eq!(parsed.of(stages::RESIZE).len(), 16);

    let late = &parsed.counters["late by"];
    assert_eq!(
        late.iter().filter(|(_, ms)| *ms > 0.0).collect::<Vec<_>>(),
        [&(late[20].0, 8.000005)]
    );
    assert_eq!((late.len(), parsed.counters["prefix age"].len()), (40, 37));

    let responses: Vec<_> = parsed.due.iter().filter(|due| due.0 == Stage::RESPONSE).collect();
    assert_eq!((parsed.due.len(), responses.len()), (80, 40));
    assert!(responses[21].1 < responses[20].2, "tick 21 was due before tick 20 was answered");
}

#[test]
fn virtual_waits_and_the_cost_of_tracing_are_shown() {
    let mut trace = TraceRecorder::new(10);
    let mut report = TickReport {
        frame: FrameId(1),
        prefix: Some(PrefixInfo { version: 1, age: Duration::ZERO }),
        spans: spans(&[
            (Stage::STATE_FILTER, 1000, 500),
            (Stage::REQUEST, 2000, 300),
            (Stage::PUBLISH, 3_002_000, 100),
            (stages::ACTION, 3_003_000, 8000),
            (Stage::TICK, 1000, 12_000),
        ]),
        ..TickReport::default()
    };
    report.prefill = Some(prefill(1, 2100, 2_999_000));
    trace.tick(&report);
    let (parsed, counts) = written(&trace);
    assert_eq!((counts.slices_cut, counts.flows), (0, 1));
    let tick = parsed.of(Stage::TICK)[0];
    assert_eq!((tick.start_ns, tick.end_ns), (1000, 3_011_000));
    assert_eq!(tick.args["took_ms"], 0.012);
}

#[test]
fn versions_of_different_phases_are_different_prefixes() {
    let mut trace = TraceRecorder::new(100);
    trace.begin_phase("one");
    two_rates(&mut trace, 0, 1);
    trace.begin_phase("two");
    // Its prefill ended in the warm-up; the traced prefill of that version is another.
    trace.tick(&tick(9, 3000 * MS, 8 * MS, Some(5)));
    let (parsed, counts) = written(&trace);
    assert_eq!((counts.flows, counts.flows_missing), (37, 1));
    assert_eq!(parsed.marks, ["one", "two"]);
}

#[test]
fn full_recorder_counts_dropped_ticks() {
    let mut trace = TraceRecorder::new(10);
    two_rates(&mut trace, 0, 1);
    let (parsed, counts) = written(&trace);
    assert_eq!((counts.ticks, counts.ticks_dropped), (10, 30));
    assert_eq!(parsed.of(Stage::TICK).len(), 10);
    assert_eq!(parsed.about["ticks_dropped"], 30);

    // Space for spans may run out first; no tick is kept partly.
    let mut trace = TraceRecorder::new(2);
    let mut long = StageSpans::default();
    for start_ns in 0..MAX_SPANS as u64 + 10 {
        long.push(Span { stage: stages::RESIZE, start_ns, took_ns: 1 });
    }
    long.push(Span { stage: Stage::PREFILL, start_ns: 0, took_ns: 2 * MAX_SPANS as u64 });
    trace.refresh(1, true, &long);
    trace.refresh(2, true, &StageSpans::default());
    trace.tick(&tick(1, MS, MS, None));
    trace.refresh(3, true, &long);
    let folder = tempfile::tempdir().unwrap();
    let counts = trace.write(&folder.path().join("trace.json"), &()).unwrap();
    assert_eq!((counts.ticks, counts.refreshes, counts.refreshes_dropped), (1, 2, 1));
    assert_eq!(counts.spans_dropped, 11);
}

#[test]
fn crossing_slices_are_cut_and_counted() {
    let mut trace = TraceRecorder::new(10);
    let report = |start_ns| TickReport {
        spans: spans(&[(Stage::SEND, start_ns, 100)]),
        ..TickReport::default()
    };
    trace.tick(&report(1000));
    trace.tick(&report(1050));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    assert_eq!(trace.write(&path, &()).unwrap().slices_cut, 1);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!((text.matches("\"ts\":1.05,").count(), text.matches("\"ts\":1.1}").count()), (1, 2));
}

#[test]
fn failed_trace_leaves_no_file_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    std::fs::create_dir_all(taken.join("inside")).unwrap();
    for path in [&taken, &folder.path().join("missing").join("trace.json")] {
        let error = TraceRecorder::new(1).write(path, &()).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
