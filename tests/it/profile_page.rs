//! The page of an invented profile: a self-contained page, also of an incomplete profile, and the
//! causes of the worst ticks.
//!
//! The page stays in the temporary folder of the build as `profile-sample.html`.

use crate::second_family;
use roxmltree::{Document, ParsingOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tandem::model::automot::stages;
use tandem::pilot::{Outcome, RealTimeReport};
use tandem::scene::{DeadlineVerdict, PrefillReport, PrefixInfo, TickReport};
use tandem::timing::{Span, Stage, StageSpans, StageStatistics};
use tandem_profile::page::{PeakRate, RooflineChart, RooflineRow, render};
use tandem_profile::{
    EngineIdentity, FirstControl, LatencyFile, MachineCard, Part, Phase, PhaseName, PhaseRecorder,
    PrefillSamples, ProfilerCost, StageColumn, TickFacts, TickSamples, worst_ticks,
};
use tandem_testkit::latency_file::latency_file;

/// Pseudorandom numbers in 0..1, equal on every machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }

    /// Nanoseconds around `ms`, skewed to larger values.
    fn around(&mut self, ms: f64) -> u64 {
        let spread = self.next() + self.next() * self.next();
        (ms * (0.94 + 0.1 * spread) * 1e6) as u64
    }
}

/// Adds consecutive stages from `start_ns` on and the stage `parent` around them, which ends
/// `rest_ns` after the last. Returns its end.
fn push_stages(
    spans: &mut StageSpans,
    parent: Stage,
    start_ns: u64,
    parts: &[(Stage, u64)],
    rest_ns: u64,
) -> u64 {
    let mut at_ns = start_ns;
    for &(stage, took_ns) in parts {
        spans.push(Span { stage, start_ns: at_ns, took_ns });
        at_ns += took_ns;
    }
    spans.push(Span { stage: parent, start_ns, took_ns: at_ns + rest_ns - start_ns });
    at_ns + rest_ns
}

fn prefill_spans(noise: &mut Noise, start_ns: u64, slower: f64) -> (StageSpans, u64) {
    let mut spans = StageSpans::default();
    let parts = [
        (Stage::HAND_OFF, noise.around(0.06)),
        (stages::PROMPT, noise.around(0.4)),
        (stages::RESIZE, noise.around(3.2)),
        (stages::PATCHIFY, noise.around(1.1)),
        (stages::VISION, noise.around(52.0 * slower)),
        (stages::GATHER, noise.around(0.3)),
        (stages::UNDERSTANDING, noise.around(128.0 * slower)),
        (Stage::SEAL, noise.around(0.002)),
    ];
    let end_ns = push_stages(&mut spans, Stage::PREFILL, start_ns, &parts, 90_000);
    // Two layer groups with a gap between them.
    let understanding = *spans.iter().find(|span| span.stage == stages::UNDERSTANDING).unwrap();
    let took_ns = understanding.took_ns / 2 - 20_000;
    for start_ns in [understanding.start_ns, understanding.start_ns + understanding.took_ns / 2] {
        spans.push(Span { stage: stages::UNDERSTANDING_GROUP, start_ns, took_ns });
    }
    (spans, end_ns)
}

/// A phase with concurrent prefills of some 190 ms, each requested after the previous one ended.
fn driven(name: PhaseName, ticks: u64) -> Phase {
    const PERIOD_NS: u64 = 50_000_000;
    let is_paced = name == PhaseName::Paced;
    let has_prefills = name != PhaseName::ActionAlone;
    let mut noise = Noise(ticks + name as u64);
    let mut recorder = PhaseRecorder::new(name, 20, ticks, 0);
    let mut due_ns = 1_000_000_000;
    let mut running: Option<(StageSpans, u64, u64)> = None;
    let mut prefix = Some((41, due_ns - 120_000_000));
    for tick in 0..ticks {
        let mut report = TickReport::default();
        let hiccup = match tick {
            317 => 42.0,
            _ if noise.next() > 0.985 => 12.0 * noise.next(),
            _ => 0.0,
        };
        let wake_ns = if noise.next() > 0.99 { noise.around(3.4) } else { noise.around(0.07) };
        let receive_ns = noise.around(0.4);
        let start_ns = if is_paced { due_ns + wake_ns + receive_ns } else { due_ns };
        let mut parts = vec![
            (Stage::STATE_FILTER, noise.around(0.012)),
            (stages::LIDAR_HISTOGRAM, noise.around(0.9)),
            (stages::PLANNER, noise.around(0.0006)),
        ];
        if let Some((spans, captured_ns, _)) = running.take_if(|(_, _, end_ns)| *end_ns <= start_ns)
        {
            parts.push((Stage::PUBLISH, noise.around(0.0011)));
            let version = prefix.map_or(1, |(version, _)| version + 1);
            prefix = Some((version, captured_ns));
            report.prefill = Some(PrefillReport { version, is_published: true, spans });
        } else if running.is_none() && has_prefills {
            parts.push((Stage::REQUEST, noise.around(0.05)));
            let (spans, end_ns) = prefill_spans(&mut noise, start_ns + 1_000_000, 1.15);
            running = Some((spans, start_ns, end_ns));
        }
        let slowdown = if running.is_some() { 1.3 } else { 1.0 };
        parts.extend([
            (stages::PICTURE, noise.around(2.1)),
            (Stage::UPLOAD, noise.around(0.2)),
            (stages::BEV, noise.around(6.0 * slowdown)),
            (stages::ACTION, noise.around(13.5 * slowdown + hiccup)),
            (Stage::DOWNLOAD, noise.around(0.01)),
            (stages::TRAJECTORY, noise.around(0.004)),
            (Stage::CONTROL, noise.around(0.009)),
        ]);
        let mut end_ns = push_stages(&mut report.spans, Stage::TICK, start_ns, &parts, 30_000);
        if is_paced {
            let send_ns = noise.around(0.15);
            let enclosing = [
                (Stage::WAKE, due_ns, wake_ns),
                (Stage::RECEIVE, due_ns + wake_ns, receive_ns),
                (Stage::SEND, end_ns, send_ns),
                (Stage::RESPONSE, due_ns, end_ns + send_ns - due_ns),
            ];
            for (stage, start_ns, took_ns) in enclosing {
                report.spans.push(Span { stage, start_ns, took_ns });
            }
            end_ns += send_ns;
        }
        report.prefix = prefix.map(|(version, captured_ns)| PrefixInfo {
            version,
            age: Duration::from_nanos(start_ns - captured_ns),
        });
        if end_ns - due_ns > PERIOD_NS {
            let by = Duration::from_nanos(end_ns - due_ns - PERIOD_NS);
            report.deadline = DeadlineVerdict::Missed { by };
        }
        report.is_refreshing =
            running.as_ref().is_some_and(|(_, _, prefill_end)| *prefill_end > end_ns);
        let facts = TickFacts {
            start_ns: due_ns,
            page_faults: if hiccup > 30.0 { 3 } else { 0 },
            preemptions: u64::from(hiccup > 4.0),
        };
        recorder.tick(&report, facts);
        due_ns = if is_paced { due_ns + PERIOD_NS } else { end_ns };
    }
    recorder.finish()
}

fn understanding_alone(prefills: u64) -> Phase {
    let mut recorder = PhaseRecorder::new(PhaseName::UnderstandingAlone, 3, prefills, 0);
    let (mut noise, mut at_ns) = (Noise(5), 0);
    for version in 0..prefills {
        let (spans, end_ns) = prefill_spans(&mut noise, at_ns, 1.0);
        recorder.refresh(version, &spans);
        at_ns = end_ns;
    }
    recorder.finish()
}

fn file(phases: Vec<Phase>) -> LatencyFile {
    let text = |text: &str| Some(text.to_owned());
    LatencyFile {
        tandem: "0.1.0".into(),
        taken_at_unix_s: 1_763_732_000,
        command: "tandem profile engines/<made-up> & \u{1}more".into(),
        machine: MachineCard {
            kernel: text("Linux version 6.1"),
            cpu: text("made-up processor"),
            cores: 2,
            is_virtual: true,
            clocks_mhz: vec![2100.0, 2100.0],
            governor: None,
            memory_bytes: Some(8 << 30),
            load_1min: Some(0.4),
            gpus: Vec::new(),
            libraries: vec!["ONNX Runtime 1.2".into()],
        },
        engine: EngineIdentity {
            folder: "engines/made-up".into(),
            backend: "onnxruntime 1.2, CPU".into(),
            graphs_sha256: BTreeMap::from([("action".into(), "0f".repeat(32))]),
            built: BTreeMap::new(),
        },
        observations: "embedded world, route 7".into(),
        real_time: RealTimeReport {
            fifo_priority: Some(Outcome {
                wanted: 20,
                had: None,
                why_not: Some("not permitted".into()),
            }),
            ..RealTimeReport::default()
        },
        profiler: ProfilerCost { stage_ns: 52, tick_ns: 2300, trace_ns: 900, rounds: 101 },
        first_control: Some(FirstControl {
            load_ns: 4_200_000_000,
            loop_ns: 612_000_000,
            ticks: 9,
        }),
        ..latency_file(phases)
    }
}

fn roofline() -> RooflineChart {
    let row = |stage: &str, flops: f64, bytes: f64, measured_p50_ms| RooflineRow {
        stage: stage.into(),
        memory_ms: bytes / 20e9 * 1e3,
        compute_ms: flops / 150e9 * 1e3,
        floor_ms: (bytes / 20e9 * 1e3).max(flops / 150e9 * 1e3),
        measured_p50_ms,
        is_predicted: measured_p50_ms.is_none(),
        flops,
        bytes,
    };
    RooflineChart {
        ceilings: vec![
            PeakRate { name: "f32, measured".into(), bytes_per_s: 20e9, flops_per_s: 150e9 },
            PeakRate { name: "a GPU, data sheet".into(), bytes_per_s: 3.3e12, flops_per_s: 6e13 },
        ],
        rows: vec![
            row("bev", 0.55e9, 42e6, Some(6.4)),
            row("action", 0.8e9, 160e6, Some(14.2)),
            row("vision", 5.2e9, 180e6, Some(53.0)),
            row("understanding", 14e9, 420e6, None),
        ],
    }
}

/// Parses a page and checks the properties of every page.
#[track_caller]
fn checked(page: &str) {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(page, options).unwrap();
    let mut ids = BTreeSet::new();
    let mut links = Vec::new();
    for node in document.descendants().filter(|node| node.is_element()) {
        if let Some(id) = node.attribute("id") {
            assert!(ids.insert(id.to_owned()), "two elements have the id {id:?}");
        }
        links.extend(node.attribute("href").map(str::to_owned));
        assert_ne!(node.tag_name().name(), "script");
        for attribute in node.attributes().filter(|_| node.tag_name().name() != "title") {
            let is_number_free =
                !attribute.value().contains("NaN") && !attribute.value().contains("inf");
            assert!(is_number_free, "{}={:?}", attribute.name(), attribute.value());
        }
    }
    for link in links {
        assert!(
            link.strip_prefix('#').is_some_and(|id| ids.contains(id)),
            "{link:?} leads nowhere"
        );
    }
    for outside in ["http://", "https://", "<link", "@import", "url(", "{{"] {
        assert!(!page.contains(outside), "the page contains {outside:?}");
    }
    assert!(!page.contains("NaN"), "the page contains NaN");
}

#[test]
fn page_names_machine_engine_and_stages() {
    let file = file(vec![
        driven(PhaseName::Paced, 600),
        driven(PhaseName::BackToBack, 400),
        driven(PhaseName::ActionAlone, 300),
        understanding_alone(60),
    ]);
    let page = render(&file, Some(&roofline()));
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("profile-sample.html"), &page)
        .unwrap();
    checked(&page);
    for fragment in [
        "tandem profile engines/&lt;made-up&gt; &amp; \u{fffd}more",
        "2025-11-21 13:33 UTC",
        "made-up processor",
        "52 ns per stage, 2.30 µs per tick",
        "4200 ms for loading, then 612 ms and 9 ticks",
        "nearest rank",
        "600 ticks after a warm-up of 20",
        "Slowest tick: tick 317",
        "maximum of 600",
        "In loop<br/>÷ alone",
        "threads.action",
        "page faults: 3",
    ] {
        assert!(page.contains(fragment), "the page lacks {fragment:?}");
    }
    // Every stage that ran has a row and every containing stage its rest. The stage of the other
    // model family did not run.
    for &stage in Stage::all().iter().filter(|&&stage| stage != second_family::PLANNER) {
        assert!(page.contains(&format!("\">{}</td>", stage.name())), "{}", stage.name());
    }
    assert_eq!(page.matches("\">(rest)</td>").count(), 4 + 3 + 1 + 2);
}

fn empty(name: PhaseName) -> Phase {
    Phase {
        name,
        warm_up: 0,
        statistics: StageStatistics::new(),
        ticks: TickSamples::default(),
        refreshes: PrefillSamples::default(),
        samples_dropped: 0,
        ticks_skipped: 0,
        resident_bytes: Vec::new(),
        others_share: None,
    }
}

#[test]
fn nearly_empty_profile_has_a_page() {
    let names = [
        PhaseName::Paced,
        PhaseName::BackToBack,
        PhaseName::ActionAlone,
        PhaseName::UnderstandingAlone,
    ];
    let page = render(&file(Vec::new()), None);
    checked(&page);
    assert!(page.contains("Nothing was measured.") && page.contains("No device was given."));
    checked(&render(&file(names.map(empty).into()), None));
    // Phases of one name have one link.
    checked(&render(&file(vec![empty(PhaseName::Paced), empty(PhaseName::Paced)]), None));
    for name in names {
        // One tick, whose prefill is still running if it has one.
        checked(&render(&file(vec![driven(name, 1)]), None));
        checked(&render(&file(vec![driven(name, 2)]), None));
    }
    checked(&render(&file(vec![understanding_alone(1)]), None));
}

#[test]
fn empty_and_extreme_columns_have_a_page() {
    // Ticks are counted but not sampled.
    let mut counted = driven(PhaseName::Paced, 3);
    counted.ticks = TickSamples::default();
    counted.refreshes = PrefillSamples::default();
    counted.samples_dropped = 3;
    // Samples with empty columns.
    let mut hollow = driven(PhaseName::BackToBack, 5);
    hollow.ticks.stages.clear();
    hollow.ticks.prefix_age_ns = vec![None; 5];
    hollow.ticks.late_by_ns.clear();
    // Ticks of zero and of the longest time.
    let mut extreme = driven(PhaseName::ActionAlone, 3);
    let column = StageColumn {
        start_ns: vec![Some(0), Some(u64::MAX), None],
        took_ns: vec![Some(0), Some(u64::MAX), None],
    };
    for stage in [Stage::TICK, stages::BEV, stages::ACTION] {
        extreme.ticks.stages.insert(stage.name().into(), column.clone());
    }
    let mut run = file(vec![counted, hollow, extreme]);
    run.first_control = None;
    run.run.tick_hz = 0;
    run.run.act_budget_millis = 0.0;
    let mut strange = roofline();
    strange.rows[0].floor_ms = f64::NAN;
    strange.rows[1].measured_p50_ms = Some(0.0);
    strange.rows[2].bytes = 0.0;
    strange.ceilings[0].bytes_per_s = f64::INFINITY;
    checked(&render(&run, Some(&strange)));
    strange.ceilings.clear();
    strange.rows.truncate(1);
    checked(&render(&run, Some(&strange)));
}

/// Ten ticks of 10 ms: 6 ms of BEV, 3 ms of action and 1 ms of rest. `change` alters each tick.
fn ten_ticks(change: impl Fn(u64, &mut [(Stage, u64); 3], &mut TickFacts, &mut u64)) -> Phase {
    let mut recorder = PhaseRecorder::new(PhaseName::BackToBack, 0, 10, 0);
    for tick in 0..10 {
        let mut parts = [(Stage::WAKE, 10), (stages::BEV, 6_000), (stages::ACTION, 3_000)];
        let mut facts = TickFacts { start_ns: tick * 50_000, ..TickFacts::default() };
        let mut rest_ns = 1_000;
        change(tick, &mut parts, &mut facts, &mut rest_ns);
        let mut report = TickReport { is_refreshing: tick == 4, ..TickReport::default() };
        push_stages(&mut report.spans, Stage::TICK, facts.start_ns, &parts[1..], rest_ns);
        let (wake_ns, tick_ns) = (parts[0].1, parts[1].1 + parts[2].1 + rest_ns);
        for (stage, took_ns) in [(Stage::WAKE, wake_ns), (Stage::RESPONSE, wake_ns + tick_ns)] {
            report.spans.push(Span { stage, start_ns: facts.start_ns, took_ns });
        }
        let version = if tick < 6 { 1 } else { 2 };
        report.prefix = Some(PrefixInfo { version, age: Duration::ZERO });
        recorder.tick(&report, facts);
    }
    recorder.finish()
}

#[test]
fn worst_ticks_name_their_cause() {
    let phase = ten_ticks(|tick, parts, facts, rest_ns| match tick {
        // A slow network; its wake-up is late, but too little to be the cause.
        2 => (parts[1].1, parts[0].1) = (16_000, 510),
        // Time of no stage while the thread was preempted.
        4 => (*rest_ns, facts.preemptions) = (8_000, 2),
        // A late wake-up.
        6 => (parts[0].1, facts.page_faults) = (5_010, 1),
        _ => {}
    });
    let worst = worst_ticks(&phase, 3);
    let slowest: Vec<_> = worst
        .iter()
        .map(|tick| (tick.index, tick.slowest.map(|slowest| (slowest.part, slowest.over_ns()))))
        .collect();
    let expected = [
        (2, Some((Part::whole(stages::BEV), 10_000))),
        (4, Some((Part::rest(Stage::TICK), 7_000))),
        (6, Some((Part::whole(Stage::WAKE), 5_000))),
    ];
    assert_eq!(slowest, expected);
    assert_eq!(worst.iter().map(|w| w.over_median_ns).collect::<Vec<_>>(), [10_500, 7_000, 5_000]);
    let woke: Vec<_> = worst.iter().map(|tick| tick.woke_late_by_ns).collect();
    assert_eq!(woke, [None, None, Some(5_000)]);
    assert_eq!(worst.iter().map(|w| w.is_refreshing).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(worst.iter().map(|w| w.preemptions).collect::<Vec<_>>(), [0, 2, 0]);
    assert_eq!(worst.iter().map(|w| w.page_faults).collect::<Vec<_>>(), [0, 0, 1]);
    let first: Vec<_> = worst.iter().map(|tick| tick.is_first_on_prefix).collect();
    assert_eq!(first, [false, false, true]);
}

#[test]
fn equal_ticks_have_no_cause() {
    let phase = ten_ticks(|_, _, _, _| {});
    let worst = worst_ticks(&phase, 20);
    assert_eq!(worst.len(), 10);
    assert!(worst.iter().all(|tick| tick.slowest.is_none() && tick.over_median_ns == 0));
    assert!(worst_ticks(&empty(PhaseName::Paced), 10).is_empty());
}
