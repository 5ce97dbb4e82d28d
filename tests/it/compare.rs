//! Comparisons of profiles: false alarms are as rare as stated, real changes are found, and too few
//! values give no verdict.

use std::time::Duration;
use tandem::model::automot::stages;
use tandem::scene::{PrefillReport, PrefixInfo, TickReport};
use tandem::timing::{Span, Stage, StageSpans};
use tandem_profile::{
    Change, Check, CompareError, Comparison, LatencyFile, Method, PhaseName, PhaseRecorder, Row,
    TickFacts,
};
use tandem_testkit::latency_file::latency_file;

/// Xorshift, another generator than that of the bootstrap.
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        let mut noise = Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15);
        for _ in 0..20 {
            noise.uniform();
        }
        noise
    }

    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Latencies of a sampled profile.
#[derive(Clone, Copy)]
struct Shape {
    ticks: u64,
    /// Correlation of a tick's deviation with that of the previous tick.
    memory: f64,
    /// Factor of the action expert's time.
    action: f64,
    /// Standard deviation, between starts of the program, of the logarithm of all times.
    starts: f64,
}

const FREE: Shape = Shape { ticks: 1500, memory: 0.0, action: 1.0, starts: 0.0 };

/// Samples a profile: ticks with lognormal stages of
/// some milliseconds, a prefill at every fifth tick.
fn profile(shape: Shape, seed: u64) -> LatencyFile {
    let mut noise = Noise::new(seed);
    let mut state = [0.0; 3];
    let start = (shape.starts * noise.normal()).exp();
    let fresh = (1.0 - shape.memory * shape.memory).sqrt();
    let mut recorder = PhaseRecorder::new(PhaseName::Paced, 10, shape.ticks, 0);
    for tick in 0..shape.ticks {
        let mut took = |place: usize, median_ns: f64| {
            let deviation: &mut f64 = &mut state[place];
            *deviation = shape.memory * *deviation + fresh * noise.normal();
            (start * median_ns * (0.3 * *deviation).exp()) as u64
        };
        let bev_ns = took(0, 6e6);
        let action_ns = took(1, 9e6 * shape.action);
        let start_ns = tick * 50_000_000;
        let mut report = TickReport::default();
        for (stage, took_ns) in
            [(stages::BEV, bev_ns), (stages::ACTION, action_ns), (Stage::TICK, bev_ns + action_ns)]
        {
            report.spans.push(Span { stage, start_ns, took_ns });
        }
        let age = Duration::from_millis(100 + 50 * (tick % 5));
        report.prefix = Some(PrefixInfo { version: tick / 5 + 1, age });
        if tick % 5 == 0 {
            let mut spans = StageSpans::default();
            let took_ns = took(2, 80e6);
            spans.push(Span { stage: Stage::PREFILL, start_ns, took_ns });
            report.prefill =
                Some(PrefillReport { version: tick / 5 + 1, is_published: true, spans });
        }
        recorder.tick(&report, TickFacts { start_ns, ..TickFacts::default() });
    }
    latency_file(vec![recorder.finish()])
}

fn compare(
    a: &LatencyFile,
    b: &LatencyFile,
    phase: PhaseName,
    method: Method,
) -> Result<Comparison, CompareError> {
    tandem_profile::compare(std::slice::from_ref(a), std::slice::from_ref(b), phase, method)
}

fn quick(seed: u64) -> Method {
    Method { seed, replicates: 1000, ..Method::default() }
}

fn change(comparison: &Comparison, what: &str, percentile: &str) -> Change {
    let is_it = |row: &&Row| row.what == what && row.percentile == percentile;
    comparison.rows.iter().find(is_it).unwrap().change
}

/// Number of seeds for which no row is judged faster or slower. At most a quarter may have no
/// verdict, because their ticks drift by chance.
fn quiet_seeds(shape: Shape, seeds: u64) -> u64 {
    let mut not_judged = 0;
    let is_quiet = |seed: &u64| {
        let (a, b) = (profile(shape, 2 * seed), profile(shape, 2 * seed + 1));
        let comparison = compare(&a, &b, PhaseName::Paced, quick(*seed)).unwrap();
        let judged = comparison.rows.iter().filter(|row| row.interval.is_some()).count();
        not_judged += u64::from(comparison.not_judged.is_some());
        assert!(
            judged >= 3 || comparison.not_judged.is_some(),
            "seed {seed}: {judged} rows judged"
        );
        let is_wrong = |row: &&Row| matches!(row.change, Change::Faster | Change::Slower);
        comparison.rows.iter().find(is_wrong).is_none()
    };
    let quiet = (0..seeds).filter(is_quiet).count() as u64;
    assert!(not_judged <= seeds / 4, "{not_judged} of {seeds} are not judged");
    quiet
}

#[test]
fn equal_distributions_do_not_differ() {
    let quiet = quiet_seeds(FREE, 200);
    assert!(quiet >= 190, "{quiet} of 200");
}

#[test]
fn correlated_ticks_raise_no_false_alarm() {
    let shape = Shape { memory: 0.8, ticks: 2500, ..FREE };
    let quiet = quiet_seeds(shape, 200);
    assert!(quiet >= 190, "{quiet} of 200");
}

#[test]
fn one_profile_per_side_finds_a_fifth_more() {
    // Starts that differ by 1 %, as on an idle machine.
    let shape = Shape { ticks: 4000, starts: 0.01, ..FREE };
    for seed in 0..20 {
        let before = profile(shape, 2 * seed);
        let after = profile(Shape { action: 1.33, ..shape }, 2 * seed + 1);
        let slower = compare(&before, &after, PhaseName::Paced, quick(seed)).unwrap();
        assert_eq!(slower.check, Check::Slower);
        for (what, percentile, expected) in [
            ("action", "p50", Change::Slower),
            ("action", "p90", Change::Slower),
            // 9 of the 15 ms of a tick are a third longer, so it is a fifth longer.
            ("tick", "p50", Change::Slower),
        ] {
            assert_eq!(change(&slower, what, percentile), expected, "seed {seed}: {what}");
        }
        let faster = compare(&after, &before, PhaseName::Paced, quick(seed)).unwrap();
        assert_eq!(change(&faster, "action", "p50"), Change::Faster);
        assert_eq!(faster.check, Check::Kept);
    }
}

#[test]
fn different_starts_raise_no_false_alarm() {
    let quiet = quiet_seeds(Shape { starts: 0.03, ..FREE }, 200);
    assert!(quiet >= 190, "{quiet} of 200");
}

/// Profiles of A and B, taken alternately; the logarithm of all times grows by `drift` per profile.
fn alternating(shapes: [Shape; 2], each: u64, drift: f64, seed: u64) -> [Vec<LatencyFile>; 2] {
    let mut sides = [Vec::new(), Vec::new()];
    for place in 0..2 * each {
        let side = (place % 2) as usize;
        let mut file = profile(shapes[side], 1000 * seed + place);
        file.taken_at_unix_s = 60 * place;
        let columns = file.phases[0].ticks.stages.values_mut();
        let took = columns.flat_map(|column| column.took_ns.iter_mut().flatten());
        took.for_each(|took| *took = (*took as f64 * (drift * place as f64).exp()) as u64);
        sides[side].push(file);
    }
    sides
}

fn compare_several(sides: &[Vec<LatencyFile>; 2]) -> Comparison {
    tandem_profile::compare(&sides[0], &sides[1], PhaseName::Paced, quick(1)).unwrap()
}

#[test]
fn several_profiles_of_one_engine_do_not_differ() {
    // Starts that differ by up to a third, as on a busy machine, and a machine that drifts.
    for (starts, drift) in [(0.02, 0.0), (0.33, 0.0), (0.1, 0.05)] {
        let shape = Shape { ticks: 300, starts, ..FREE };
        let wrong = (0..60).filter(|&seed| {
            let comparison = compare_several(&alternating([shape; 2], 4, drift, seed));
            assert_ne!(comparison.check, Check::NotJudged);
            comparison.rows.iter().any(|r| matches!(r.change, Change::Faster | Change::Slower))
        });
        let wrong = wrong.count();
        // Three are expected; more than eight have a probability of four in a thousand.
        assert!(wrong <= 8, "{wrong} of 60 with starts that differ by {starts}");
    }
}

#[test]
fn several_profiles_find_a_tenth_more() {
    let shape = Shape { ticks: 300, starts: 0.01, ..FREE };
    let slower = Shape { action: 1.17, ..shape };
    for seed in 0..20 {
        let comparison = compare_several(&alternating([shape, slower], 6, 0.0, seed));
        assert_eq!(comparison.check, Check::Slower);
        assert_eq!(change(&comparison, "tick", "p50"), Change::Slower, "seed {seed}");
        assert_eq!(change(&comparison, "bev", "p50"), Change::CannotTell, "seed {seed}");
    }
}

#[test]
fn profiles_not_taken_alternately_are_not_judged() {
    let mut sides = alternating([FREE, Shape { action: 2.0, ..FREE }], 4, 0.0, 1);
    for file in &mut sides[1] {
        file.taken_at_unix_s += 10_000;
    }
    let comparison = compare_several(&sides);
    assert_eq!(comparison.check, Check::NotJudged);
    assert!(comparison.not_judged.unwrap().contains("in turn"));
    assert!(comparison.rows.iter().all(|row| row.change == Change::CannotTell));
}

#[test]
fn two_or_three_profiles_per_side_are_refused() {
    let files: Vec<_> = (0..4).map(|seed| profile(FREE, seed)).collect();
    for (a, b) in [(1, 4), (3, 3), (4, 0)] {
        let error = tandem_profile::compare(&files[..a], &files[..b], PhaseName::Paced, quick(1))
            .unwrap_err();
        let CompareError::Profiles { found_a, found_b } = error else { panic!("{error}") };
        assert_eq!((found_a, found_b), (a, b));
    }
}

#[test]
fn one_profile_of_a_busy_machine_is_not_judged() {
    let (a, mut b) = (profile(FREE, 1), profile(Shape { action: 2.0, ..FREE }, 2));
    let judged = compare(&a, &b, PhaseName::Paced, quick(1)).unwrap();
    assert_eq!((judged.check, judged.not_judged), (Check::Slower, None));
    b.phases[0].others_share = Some(0.6);
    let comparison = compare(&a, &b, PhaseName::Paced, quick(1)).unwrap();
    assert_eq!(comparison.check, Check::NotJudged);
    assert!(comparison.not_judged.unwrap().contains("60 % of all cores in B"));
    assert!(comparison.rows.iter().all(|row| row.change == Change::CannotTell));
    // Older files have only the load at the start; a load measured during the phase takes
    // precedence.
    b.machine.load_1min = Some(7.0);
    b.phases[0].others_share = Some(0.01);
    assert_eq!(compare(&a, &b, PhaseName::Paced, quick(1)).unwrap().check, Check::Slower);
    b.phases[0].others_share = None;
    let comparison = compare(&a, &b, PhaseName::Paced, quick(1)).unwrap();
    assert!(comparison.not_judged.unwrap().contains("7 on 2 cores"));
}

#[test]
fn negligible_stage_is_not_a_difference() {
    let (mut a, mut b) = (profile(FREE, 1), profile(FREE, 2));
    let with = |file: &mut LatencyFile, took_ns: u64| {
        let column = file.phases[0].ticks.stages["bev"].clone();
        let took_ns = column.took_ns.iter().map(|_| Some(took_ns)).collect();
        let column = tandem_profile::StageColumn { took_ns, ..column };
        file.phases[0].ticks.stages.insert("publish".into(), column);
    };
    with(&mut a, 2_000);
    // Forty times as long, but half a percent of a tick of 15 ms.
    with(&mut b, 80_000);
    let comparison = compare(&a, &b, PhaseName::Paced, quick(1)).unwrap();
    assert_eq!(change(&comparison, "publish", "p50"), Change::Alike);
    with(&mut b, 800_000);
    let comparison = compare(&a, &b, PhaseName::Paced, quick(1)).unwrap();
    assert_eq!(change(&comparison, "publish", "p50"), Change::Slower);
}

#[test]
fn percentile_within_skipped_ticks_is_not_judged() {
    let (mut a, mut b) = (profile(FREE, 1), profile(FREE, 2));
    for file in [&mut a, &mut b] {
        let phase = &mut file.phases[0];
        let tick = phase.ticks.stages["tick"].clone();
        for took in tick.took_ns.iter().flatten() {
            phase.statistics.record_stages(&{
                let mut spans = StageSpans::default();
                spans.push(Span { stage: Stage::RESPONSE, start_ns: 0, took_ns: *took });
                spans.times()
            });
        }
        phase.ticks.stages.insert("response".into(), tick);
    }
    assert_eq!(compare(&a, &b, PhaseName::Paced, quick(1)).unwrap().check, Check::Kept);
    b.phases[0].ticks_skipped = 300;
    let comparison = compare(&a, &b, PhaseName::Paced, quick(1)).unwrap();
    let why = |percentile: &str| {
        let mut rows = comparison.rows.iter();
        let row = rows.find(|r| r.what == "response" && r.percentile == percentile).unwrap();
        row.why.clone()
    };
    assert_eq!(why("p50"), None);
    assert!(why("p90").unwrap().contains("skipped"));
    b.phases[0].ticks_skipped = 2000;
    assert_eq!(compare(&a, &b, PhaseName::Paced, quick(1)).unwrap().check, Check::NotJudged);
}

/// Two profiles of one engine, taken minutes apart on a machine with seven users.
#[test]
fn profiles_of_a_loaded_machine_do_not_differ() {
    let case = |name: &str| {
        let path = format!("{}/tests/data/cases/{name}", tandem_testkit::ROOT);
        LatencyFile::read(path.as_ref()).unwrap()
    };
    let (a, b) = (case("latency-loaded-1.json"), case("latency-loaded-2.json"));
    let comparison = compare(&a, &b, PhaseName::BackToBack, quick(1)).unwrap();
    assert_eq!(comparison.check, Check::NotJudged);
    let load = &comparison.differences[0];
    assert_eq!((load.what.as_str(), load.a.as_str()), ("machine: load at the start", "20.02"));
    // Also without the load at the start.
    let idle = |mut file: LatencyFile| {
        file.machine.load_1min = None;
        file
    };
    let comparison = compare(&idle(a), &idle(b), PhaseName::BackToBack, quick(1)).unwrap();
    let wrong = |row: &&Row| matches!(row.change, Change::Faster | Change::Slower);
    assert_eq!(comparison.rows.iter().find(wrong), None);
    assert_eq!(comparison.check, Check::NotJudged);
}

#[test]
fn rows_have_nearest_rank_percentiles_and_reasons() {
    let (a, b) = (profile(FREE, 1), profile(Shape { ticks: 1200, ..FREE }, 2));
    let comparison = compare(&a, &b, PhaseName::Paced, quick(1)).unwrap();
    let mut bev: Vec<u64> =
        a.phases[0].ticks.stages["bev"].took_ns.iter().map(|took| took.unwrap()).collect();
    bev.sort_unstable();
    let of =
        |what: &str| -> Vec<_> { comparison.rows.iter().filter(|row| row.what == what).collect() };
    let found: Vec<_> = of("bev").iter().map(|row| (row.percentile, row.ns[0].unwrap())).collect();
    assert_eq!(
        found,
        [("p50", bev[749]), ("p90", bev[1349]), ("p99", bev[1484]), ("p99.9", bev[1498])]
    );
    for row in &comparison.rows {
        let ratio = row.ns[1].unwrap() as f64 / row.ns[0].unwrap() as f64;
        assert!((row.ratio.unwrap() - ratio).abs() < 1e-9, "{row:?}");
        assert!(row.interval.is_none_or(|[low, high]| low <= ratio && ratio <= high), "{row:?}");
        assert_eq!(row.interval.is_none(), row.why.is_some());
    }
    assert!(of("bev")[3].why.as_ref().unwrap().contains("10000"));
    assert_eq!(of("bev")[0].counts, [1500, 1200]);
    // 300 and 240 prefills are enough for the median and the 90th percentile.
    let supported: Vec<_> = of("refresh").iter().map(|row| row.interval.is_some()).collect();
    assert_eq!(supported, [true, true, false, false]);
    assert_eq!(
        comparison.drawn.iter().map(|drawn| drawn.of).collect::<Vec<_>>(),
        ["ticks", "refreshes"]
    );
    // The same seed gives the same comparison.
    assert_eq!(comparison, compare(&a, &b, PhaseName::Paced, quick(1)).unwrap());
}

#[test]
fn drift_is_not_a_difference() {
    let mut noise = Noise::new(9);
    let mut drifting = profile(FREE, 1);
    let column = drifting.phases[0].ticks.stages.get_mut("bev").unwrap();
    for (tick, took) in column.took_ns.iter_mut().enumerate() {
        *took = Some((6e6 + 2e3 * tick as f64 + 1e5 * noise.uniform()) as u64);
    }
    let comparison = compare(&profile(FREE, 2), &drifting, PhaseName::Paced, quick(1)).unwrap();
    let row = comparison.rows.iter().find(|row| row.what == "bev").unwrap();
    assert_eq!(row.change, Change::CannotTell);
    assert!(row.why.as_ref().unwrap().contains("drifts"), "{row:?}");
    assert!(comparison.rows.iter().any(|row| row.what == "action" && row.interval.is_some()));
}

#[test]
fn stage_in_one_file_only_is_named() {
    let (a, mut b) = (profile(FREE, 1), profile(FREE, 2));
    b.phases[0].ticks.stages.remove("bev");
    let comparison = compare(&a, &b, PhaseName::Paced, quick(1)).unwrap();
    let row = comparison.rows.iter().find(|row| row.what == "bev").unwrap();
    assert_eq!((row.why.as_deref(), row.ns[1], row.counts[1]), (Some("only in A"), None, 0));
}

#[test]
fn other_differences_are_listed() {
    let (a, mut b) = (profile(FREE, 1), profile(FREE, 1));
    let none = compare(&a, &b, PhaseName::Paced, quick(1)).unwrap();
    assert_eq!(none.differences, []);
    assert!(none.rows.iter().all(
        |row| row.ratio == Some(1.0) && !matches!(row.change, Change::Slower | Change::Faster)
    ));
    b.machine.cpu = Some("another".into());
    b.machine.load_1min = Some(3.0);
    b.run.threads.action = 4;
    b.engine.graphs_sha256.insert("bev".into(), "abc".into());
    let comparison = compare(&a, &b, PhaseName::Paced, quick(1)).unwrap();
    let whats: Vec<&str> = comparison.differences.iter().map(|d| d.what.as_str()).collect();
    let load = "machine: load at the start";
    assert_eq!(whats, [load, "machine: CPU", "run.threads.action", "network bev"]);
    assert_eq!(comparison.differences[2].b, "4");
    assert_eq!(
        (comparison.differences[0].a.as_str(), &*comparison.differences[0].b),
        ("absent", "3.00")
    );
}

#[test]
fn files_without_phase_or_enough_ticks_are_refused() {
    let complete = profile(FREE, 1);
    let few = profile(Shape { ticks: 199, ..FREE }, 1);
    let error = compare(&complete, &few, PhaseName::Paced, quick(1)).unwrap_err();
    assert!(matches!(error, CompareError::TooFew { which: "B", found: 199, .. }), "{error}");
    let error = compare(&complete, &complete, PhaseName::BackToBack, quick(1)).unwrap_err();
    let CompareError::NoPhase { which: "A", phase, found } = error else { panic!("{error}") };
    let expected = [PhaseName::BackToBack, PhaseName::Paced].map(PhaseName::title);
    assert_eq!([phase, &found], expected);
}

fn tandem(arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_tandem")).args(arguments).output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(both).unwrap())
}

#[test]
fn compare_prints_verdicts_and_fails_only_with_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (a, b) = (path("a.json"), path("b.json"));
    let shape = Shape { ticks: 2000, ..FREE };
    profile(shape, 1).write(a.as_ref()).unwrap();
    let mut slower = profile(Shape { action: 1.5, ..shape }, 2);
    slower.machine.cores = 8;
    slower.write(b.as_ref()).unwrap();
    let (code, printed) = tandem(&["compare", &a, &b]);
    assert_eq!(code, Some(0), "{printed}");
    for fragment in
        ["SLOWER", "machine: cores: 2 in A, 8 in B", "seed 1", "10000 replicates", "--a FILES"]
    {
        assert!(printed.contains(fragment), "{fragment:?} is missing in: {printed}");
    }
    assert_eq!(tandem(&["compare", &a, &b, "--check"]).0, Some(1));
    let (code, printed) = tandem(&["compare", &b, &a, "--check"]);
    assert!(code == Some(0) && printed.contains("check: passed"), "{printed}");
    let mut busy = profile(shape, 3);
    busy.phases[0].others_share = Some(0.5);
    busy.write(path("busy.json").as_ref()).unwrap();
    let (code, printed) = tandem(&["compare", &a, &path("busy.json"), "--check"]);
    assert!(code == Some(1) && printed.contains("check: FAILED"), "{printed}");
    assert!(printed.contains("50 % of all cores in B"), "{printed}");
    assert_eq!(tandem(&["compare", &a, &path("busy.json")]).0, Some(0));
    let mut several = vec!["compare".to_owned(), "--check".to_owned()];
    for (side, files) in ["--a", "--b"].into_iter().zip(alternating([shape; 2], 4, 0.0, 5)) {
        several.push(side.to_owned());
        for (place, file) in files.iter().enumerate() {
            let name = path(&format!("{side}{place}.json"));
            file.write(name.as_ref()).unwrap();
            several.push(name);
        }
    }
    let several: Vec<&str> = several.iter().map(String::as_str).collect();
    let (code, printed) = tandem(&several);
    assert!(code == Some(0) && printed.contains("4 profiles in A, 4 in B"), "{printed}");
    let (code, printed) = tandem(&several[..several.len() - 1]);
    assert!(code == Some(2) && printed.contains("4 profiles in A and 3 in B"), "{printed}");
    let (code, printed) = tandem(&["compare", &a, &b, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &json["phase"]), (Some(0), &"paced".into()));
    assert!(json["rows"].as_array().unwrap().iter().any(|row| row["change"] == "slower"));
    let (code, printed) = tandem(&["compare", &a, &b, "--phase", "back_to_back"]);
    assert_eq!(code, Some(2), "{printed}");
    let (code, printed) = tandem(&["compare", &a, &path("none.json")]);
    assert!(code == Some(2) && printed.contains("none.json"), "{printed}");
}
