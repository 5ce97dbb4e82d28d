//! Budgets: every limit is kept, broken or undecided; none is skipped.

use std::fs;
use std::path::Path;
use std::time::Duration;
use tandem::scene::{DeadlineVerdict, PrefillReport, PrefixInfo, TickReport};
use tandem::timing::{Span, Stage};
use tandem_profile::{
    Budget, FirstControl, LatencyFile, PhaseName, PhaseRecorder, Quantity, TickFacts, Verdict,
};
use tandem_testkit::latency_file::latency_file;

/// A profile whose ticks take 10, 20, 30… µs, with a prefill every 100 ms except those whose
/// numbers are in `skips`; the first `without_prefix` ticks have no prefix.
fn profile(ticks: u64, skips: &[u64], without_prefix: u64) -> LatencyFile {
    let mut recorder = PhaseRecorder::new(PhaseName::Paced, 0, ticks, 0);
    let mut prefills = 0;
    for tick in 0..ticks {
        let start_ns = tick * 50_000_000;
        let took_ns = (tick + 1) * 10_000;
        let mut report = TickReport::default();
        for stage in [Stage::TICK, Stage::RESPONSE] {
            report.spans.push(Span { stage, start_ns, took_ns });
        }
        if took_ns > 50_000_000 {
            let by = Duration::from_nanos(took_ns - 50_000_000);
            report.deadline = DeadlineVerdict::Missed { by };
        }
        if tick >= without_prefix {
            let age = Duration::from_millis(100);
            report.prefix = Some(PrefixInfo { version: 1, age });
        }
        if tick % 2 == 1 {
            prefills += 1;
            if !skips.contains(&prefills) {
                let mut prefill = PrefillReport {
                    version: prefills,
                    is_published: true,
                    spans: Default::default(),
                };
                let start_ns = start_ns - 50_000_000;
                prefill.spans.push(Span { stage: Stage::PREFILL, start_ns, took_ns: 40_000_000 });
                report.prefill = Some(prefill);
            }
        }
        recorder.tick(&report, TickFacts { start_ns, ..TickFacts::default() });
    }
    LatencyFile {
        first_control: Some(FirstControl {
            load_ns: 3_000_000_000,
            loop_ns: 2_000_000_000,
            ticks: 40,
        }),
        ..latency_file(vec![recorder.finish()])
    }
}

fn budget(text: &str) -> Result<Budget, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("budget.yaml");
    fs::write(&path, text).unwrap();
    Budget::read(&path).map_err(|error| error.to_string())
}

/// Verdict on the only limit of a budget.
#[track_caller]
fn verdict(text: &str, file: &LatencyFile) -> Verdict {
    let mut verdicts = budget(text).unwrap().check(file);
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
    verdicts.remove(0)
}

#[track_caller]
fn kept(text: &str, file: &LatencyFile, found: Quantity) {
    let verdict = verdict(text, file);
    assert!(verdict.is_kept && verdict.cannot_tell.is_none(), "{verdict:?}");
    assert!(is_near(verdict.found.unwrap(), found), "{verdict:?}");
}

#[track_caller]
fn broken(text: &str, file: &LatencyFile, found: Quantity) {
    let verdict = verdict(text, file);
    assert!(!verdict.is_kept && verdict.cannot_tell.is_none(), "{verdict:?}");
    assert!(is_near(verdict.found.unwrap(), found), "{verdict:?}");
}

#[track_caller]
fn undecided(text: &str, file: &LatencyFile, fragments: &[&str]) {
    let verdict = verdict(text, file);
    assert!(!verdict.is_kept, "{verdict:?}");
    let why = verdict.cannot_tell.unwrap();
    for fragment in fragments {
        assert!(why.contains(fragment), "{fragment:?} is missing in: {why}");
    }
}

/// Compares quantities; histograms overstate by up to 0.1 %.
fn is_near(found: Quantity, expected: Quantity) -> bool {
    match (found, expected) {
        (Quantity::Ms(found), Quantity::Ms(expected)) => {
            found >= expected && found <= expected * 1.001
        }
        (Quantity::Share(found), Quantity::Share(expected)) => found == expected,
        _ => false,
    }
}

#[test]
fn stage_percentiles_are_compared_with_their_limits() {
    let file = profile(1000, &[], 0);
    kept("stages: {tick: {p99_ms: 9.95}}", &file, Quantity::Ms(9.9));
    broken("stages: {tick: {p99_ms: 9.85}}", &file, Quantity::Ms(9.9));
    kept("stages: {tick: {p50_ms: 5.01}}", &file, Quantity::Ms(5.0));
    kept("stages: {tick: {max_ms: 10}}", &file, Quantity::Ms(10.0));
    broken("stages: {tick: {max_ms: 9.999}}", &file, Quantity::Ms(10.0));
    let several = budget("stages: {tick: {p50_ms: 1, max_ms: 20}, refresh: {p90_ms: 41}}").unwrap();
    let verdicts: Vec<_> =
        several.check(&file).into_iter().map(|verdict| (verdict.what, verdict.is_kept)).collect();
    let expected = [("tick p50", false), ("tick max", true), ("refresh p90", true)];
    assert_eq!(verdicts, expected.map(|(what, is_kept)| (what.to_owned(), is_kept)));
}

#[test]
fn percentile_of_too_few_ticks_fails_the_budget() {
    undecided(
        "stages: {tick: {p999_ms: 59999}}",
        &profile(200, &[], 0),
        &["p99.9", "10000", "200"],
    );
    undecided("stages: {tick: {p99_ms: 59999}}", &profile(999, &[], 0), &["p99", "1000", "999"]);
    undecided("prefix_age: {p99_ms: 500}", &profile(200, &[], 0), &["p99", "1000", "200"]);
}

#[test]
fn limit_on_a_stage_that_did_not_run_fails() {
    let file = profile(1000, &[], 0);
    undecided("stages: {send: {max_ms: 5}}", &file, &["send", "did not run"]);
    undecided("{phase: back_to_back, stages: {tick: {max_ms: 5}}}", &file, &["no phase"]);
    undecided("{phase: back_to_back, deadline: {ms: 5, late_share: 0}}", &file, &["no phase"]);
    let mut unmeasured = file;
    unmeasured.first_control = None;
    undecided("first_control_ms: 1000000", &unmeasured, &["did not measure"]);
}

#[test]
fn late_ticks_are_counted_for_any_deadline() {
    let file = profile(6000, &[], 0);
    // Ticks 5001 to 6000 take longer than the run's own 50 ms.
    kept("deadline: {ms: 50, late_share: 0.2}", &file, Quantity::Share(1000.0 / 6000.0));
    broken("deadline: {ms: 50, late_share: 0.1}", &file, Quantity::Share(1000.0 / 6000.0));
    broken("deadline: {ms: 30, late_share: 0.4}", &file, Quantity::Share(0.5));
    kept("deadline: {ms: 59, late_share: 0.1}", &file, Quantity::Share(100.0 / 6000.0));
    kept("deadline: {ms: 60, late_share: 0}", &file, Quantity::Share(0.0));
    let short = profile(100, &[], 0);
    undecided("deadline: {ms: 50, late_share: 0.001}", &short, &["0 of 100", "10000 due ticks"]);
    // Enough late ticks break the limit even in a short profile.
    broken("deadline: {ms: 0.5, late_share: 0.001}", &short, Quantity::Share(0.5));
    let mut dropped = profile(100, &[], 0);
    dropped.phases[0].samples_dropped = 7;
    undecided("deadline: {ms: 30, late_share: 0}", &dropped, &["7 ticks", "50 ms"]);
}

/// A profile in which 100 of 1,100 due ticks never began.
fn overrun() -> LatencyFile {
    let mut file = profile(1000, &[], 0);
    file.phases[0].ticks_skipped = 100;
    file
}

#[test]
fn skipped_ticks_are_late_for_any_deadline() {
    let file = overrun();
    broken("deadline: {ms: 50, late_share: 0.05}", &file, Quantity::Share(100.0 / 1100.0));
    kept("deadline: {ms: 50, late_share: 0.1}", &file, Quantity::Share(100.0 / 1100.0));
    // Ticks 801 to 1000 take longer than 8 ms.
    broken("deadline: {ms: 8, late_share: 0.2}", &file, Quantity::Share(300.0 / 1100.0));
    broken("deadline: {ms: 20000, late_share: 0.05}", &file, Quantity::Share(100.0 / 1100.0));
    // One stall of five seconds in two thousand due ticks is 5 % of them, not one tick.
    let mut stalled = profile(1900, &[], 0);
    stalled.phases[0].ticks_skipped = 99;
    broken("deadline: {ms: 50, late_share: 0.001}", &stalled, Quantity::Share(99.0 / 1999.0));
}

#[test]
fn overrun_fails_even_the_longest_deadline() {
    // 45 ticks began, 161 did not.
    let mut file = profile(45, &[], 0);
    file.phases[0].ticks_skipped = 161;
    let text = "{phase: paced, deadline: {ms: 20000, late_share: 0.3}}";
    broken(text, &file, Quantity::Share(161.0 / 206.0));
}

#[test]
fn skipped_ticks_have_their_own_limit() {
    broken("skipped_share: 0.05", &overrun(), Quantity::Share(100.0 / 1100.0));
    kept("skipped_share: 0.1", &overrun(), Quantity::Share(100.0 / 1100.0));
    broken("skipped_share: 0", &overrun(), Quantity::Share(100.0 / 1100.0));
    kept("skipped_share: 0", &profile(1000, &[], 0), Quantity::Share(0.0));
    undecided("skipped_share: 0.001", &profile(1000, &[], 0), &["0 of 1000", "10000 due ticks"]);
    let mut back_to_back = profile(1000, &[], 0);
    back_to_back.phases[0].name = PhaseName::BackToBack;
    let text = "{phase: back_to_back, skipped_share: 0}";
    undecided(text, &back_to_back, &["no tick is due back to back"]);
}

#[test]
fn response_percentiles_cover_due_ticks() {
    // The 1,000 that began are the 1,000 smallest of 1,100; rank 990 took 9.9 ms.
    kept("stages: {response: {p90_ms: 9.95}}", &overrun(), Quantity::Ms(9.9));
    let skipped = |text: &str| {
        let verdict = verdict(text, &overrun());
        assert_eq!((verdict.is_kept, verdict.found), (false, Some(Quantity::Skipped)));
    };
    skipped("stages: {response: {p99_ms: 59999}}");
    skipped("stages: {response: {max_ms: 59999}}");
    // Other stages count only the ticks that began.
    kept("stages: {tick: {p99_ms: 9.95}}", &overrun(), Quantity::Ms(9.9));
}

#[test]
fn late_and_missing_prefills_break_the_period_limit() {
    let period = "refresh_period: {ms: 100, tolerance_ms: 5, late_share: 0.1}";
    kept(period, &profile(1000, &[], 0), Quantity::Share(0.0));
    // Two are missing: their successors begin 200 ms after the previous one.
    kept(period, &profile(1000, &[100, 200], 0), Quantity::Share(2.0 / 497.0));
    let strict = "refresh_period: {ms: 100, tolerance_ms: 5, late_share: 0}";
    broken(strict, &profile(1000, &[100, 200], 0), Quantity::Share(2.0 / 497.0));
    kept(
        "refresh_period: {ms: 100, tolerance_ms: 100, late_share: 0}",
        &profile(1000, &[100], 0),
        Quantity::Share(0.0),
    );
    // The last 100 of 500 are missing: one gap at the end.
    let stopped: Vec<u64> = (401..=500).collect();
    broken(strict, &profile(1000, &stopped, 0), Quantity::Share(1.0 / 400.0));
    let late_start: Vec<u64> = (1..=100).collect();
    broken(strict, &profile(1000, &late_start, 0), Quantity::Share(1.0 / 400.0));
    let none: Vec<u64> = (1..=500).collect();
    undecided(strict, &profile(1000, &none, 0), &["no prefill"]);
    undecided(period, &profile(60, &[], 0), &["0 of 29", "100 prefills"]);
}

#[test]
fn tick_without_prefix_fails_the_age_limit() {
    kept("prefix_age: {max_ms: 100}", &profile(1000, &[], 0), Quantity::Ms(100.0));
    broken("prefix_age: {p99_ms: 99}", &profile(1000, &[], 0), Quantity::Ms(100.0));
    undecided("prefix_age: {max_ms: 100}", &profile(1000, &[], 3), &["3 of 1000", "no prefix"]);
}

#[test]
fn first_control_time_includes_loading() {
    let file = profile(10, &[], 0);
    kept("first_control_ms: 5000", &file, Quantity::Ms(5000.0));
    broken("first_control_ms: 4999", &file, Quantity::Ms(5000.0));
}

#[test]
fn invalid_budgets_are_refused_with_their_key() {
    let check = |text: &str, fragments: &[&str]| {
        let error = budget(text).unwrap_err();
        for fragment in fragments.iter().chain(&["budget.yaml"]) {
            assert!(error.contains(fragment), "{fragment:?} is missing in: {error}");
        }
    };
    check("{}", &["limits nothing"]);
    check("phase: paced", &["limits nothing"]);
    check("stages: {tick: {}}", &["stages.tick", "limits nothing", "p99_ms"]);
    check("stages: {tik: {p99_ms: 1}}", &["tik", "stages are", "lidar histogram"]);
    check("stages: {tick: {p98_ms: 1}}", &["p98_ms", "p99_ms"]);
    check("stages: {tick: {p99_ms: 0}}", &["stages.tick p99", "0"]);
    check("stages: {tick: {p99_ms: 60000}}", &["stages.tick p99", "60000"]);
    check("prefix_age: {max_ms: .nan}", &["prefix_age max", "NaN"]);
    check("deadline: {ms: 50, late_share: 1}", &["deadline.late_share"]);
    check("deadline: {ms: -1, late_share: 0}", &["deadline.ms", "-1"]);
    check("deadline: {ms: 50}", &["late_share"]);
    check("skipped_share: 1.5", &["skipped_share", "1.5"]);
    check("refresh_period: {ms: 100, tolerance_ms: -1, late_share: 0}", &["tolerance_ms", "-1"]);
    check("first_control_ms: .inf", &["first_control_ms"]);
    check("phase: sometimes", &["phase", "sometimes", "back_to_back"]);
    check("deadlin: {ms: 1, late_share: 0}", &["deadlin"]);
    let error = Budget::read(Path::new("no/such.yaml")).unwrap_err().to_string();
    assert!(error.contains("such.yaml") && error.contains("configs/budget.yaml"), "{error}");
}

#[test]
fn example_budget_sets_every_limit() {
    let path = Path::new(tandem_testkit::ROOT).join("configs/budget.yaml");
    let budget = Budget::read(&path).unwrap();
    assert!(budget.deadline.is_some() && budget.refresh_period.is_some());
    assert!(budget.prefix_age.is_some() && budget.first_control_ms.is_some());
    assert!(budget.skipped_share.is_some());
    let verdicts = budget.check(&profile(100, &[], 0));
    assert_eq!(verdicts.iter().filter(|verdict| verdict.what.starts_with("response")).count(), 2);
    assert!(
        verdicts.iter().any(|verdict| verdict.what.contains("first control") && verdict.is_kept)
    );
}
