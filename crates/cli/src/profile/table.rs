//! Profiles as tables and as JSON.

use crate::print;
use std::collections::BTreeMap;
use std::time::Duration;
use tandem::pilot::{DeviceName, Run};
use tandem::timing::{LatencyHistogram, Percentile, Role, Stage};
use tandem_profile::{BUSY_SHARE, DueResponse, LatencyFile, Phase, PhaseName};

/// Formats the profile as tables and notes.
pub(super) fn profile(file: &LatencyFile, run: &Run) -> String {
    let mut parts: Vec<String> = file.phases.iter().map(|part| phase(part, run)).collect();
    parts.extend(networks_alone_and_in_loop(file));
    let mut closing = vec![
        "percentiles are nearest-rank; – where too few values separate them from the maximum"
            .to_owned(),
        device_note(run.device).to_owned(),
        format!(
            "overhead of the profiler: {} ns per stage, {} µs per tick, {} µs more with a timeline \
             (medians of {} rounds)",
            file.profiler.stage_ns,
            print::three_digits(file.profiler.tick_ns as f64 / 1e3),
            print::three_digits(file.profiler.trace_ns as f64 / 1e3),
            file.profiler.rounds
        ),
    ];
    closing.extend(file.first_control.map(|first| {
        let [load, to_control] = [first.load_ns, first.loop_ns].map(Duration::from_nanos);
        format!(
            "first command computed from a prefix: {} ms after the first observation, at tick {}; \
             loading the networks took {} ms",
            millis(to_control),
            first.ticks,
            millis(load)
        )
    }));
    closing.extend(file.real_time.lines());
    closing.extend(file.phases.iter().filter_map(|phase| {
        let share = phase.others_share.filter(|&share| share > BUSY_SHARE)?;
        Some(format!(
            "{}: other processes used {:.0} % of all cores",
            phase.name.title(),
            100.0 * share
        ))
    }));
    closing.extend(file.machine.load_1min.filter(|load| *load > 0.5).map(|load| {
        format!(
            "this machine was not idle at the start: load average {load} on {} cores",
            file.machine.cores
        )
    }));
    parts.push(closing.join("\n"));
    parts.join("\n\n")
}

/// Returns the meaning of upload and download times on a device.
fn device_note(device: DeviceName) -> &'static str {
    match device {
        DeviceName::Cpu => "tensors are in host memory: no upload, no download",
        DeviceName::Emulated => {
            "EMULATED device: copies and streams as on a GPU, times of this CPU"
        }
        DeviceName::Cuda(_) => "upload, networks and download are timed by CUDA events",
    }
}

/// Formats the profile as JSON, without histograms and single ticks.
pub(super) fn to_json(file: &LatencyFile) -> serde_json::Value {
    let summaries = |pick: &dyn Fn(Stage) -> LatencyHistogram| {
        let named = |stage: Stage| Some((stage.name(), pick(stage).summary()?));
        Stage::all().iter().copied().filter_map(named).collect::<BTreeMap<_, _>>()
    };
    let phases = file.phases.iter().map(|phase| {
        let statistics = &phase.statistics;
        serde_json::json!({
            "name": phase.name,
            "warm_up": phase.warm_up,
            "ticks": statistics.ticks(),
            "ticks_skipped": phase.ticks_skipped,
            "ticks_due": phase.ticks_due(),
            "due_ticks_missed": phase.due_ticks_missed(),
            "response_of_due_ns": due_response(phase),
            "others_share": phase.others_share,
            "deadline_misses": statistics.deadline_misses(),
            "stages": summaries(&|stage| statistics.stage(stage).clone()),
            "rests": summaries(&|stage| statistics.rest(stage).clone()),
            "prefix_age": statistics.prefix_age().summary(),
            "resident_bytes": phase.resident_bytes,
        })
    });
    serde_json::json!({
        "percentiles": "nearest rank",
        "tandem": file.tandem,
        "command": file.command,
        "machine": file.machine,
        "engine": file.engine,
        "run": file.run,
        "observations": file.observations,
        "profiler": file.profiler,
        "first_control": file.first_control,
        "phases": phases.collect::<Vec<_>>(),
    })
}

/// Returns the percentiles of the response over all due ticks, nanoseconds; `null` for a skipped
/// tick. The result is `null` for a phase without real time.
fn due_response(phase: &Phase) -> serde_json::Value {
    let at = |percentile| {
        Some(match phase.due_response(percentile)? {
            DueResponse::Took(took) => Some(took.as_nanos() as u64),
            DueResponse::Skipped => None,
        })
    };
    let named = ["p50", "p90", "p99", "p99.9"].into_iter().zip(PERCENTILES);
    let all: Option<BTreeMap<_, _>> = named.map(|(name, p)| Some((name, at(p)?))).collect();
    serde_json::to_value(all).expect("a map of numbers is valid JSON")
}

/// Formats a phase: its stages, the rest of each parent stage, and notes.
fn phase(phase: &Phase, run: &Run) -> String {
    let statistics = &phase.statistics;
    let mut rows = Vec::new();
    for &stage in Stage::all() {
        let histogram = statistics.stage(stage);
        let share = stage
            .parent()
            .map(|parent| share(histogram.total(), statistics.stage(parent).total()))
            .unwrap_or_default();
        let misses = match stage {
            stage if stage == Stage::RESPONSE => misses(phase),
            stage if stage == Stage::TICK && statistics.stage(Stage::RESPONSE).count() == 0 => {
                misses(phase)
            }
            _ => String::new(),
        };
        let name = format!("{}{}", "  ".repeat(stage.depth()), stage.name());
        let mut cells = row(name, histogram, share, misses);
        if stage == Stage::RESPONSE
            && let Some(cells) = &mut cells
        {
            of_due_ticks(phase, cells);
        }
        rows.extend(cells);
        // The rest of a stage follows its last part.
        for parent in ended_by(stage) {
            let rest = statistics.rest(parent);
            let share = share_of(rest, statistics.stage(parent));
            let name = format!("{}(rest of {})", "  ".repeat(parent.depth() + 1), parent.name());
            rows.extend(row(name, rest, share, String::new()));
        }
    }
    // The action expert alone uses one prefix all the time.
    if phase.name != PhaseName::ActionAlone {
        let age = statistics.prefix_age();
        rows.extend(row("age of the prefix".to_owned(), age, String::new(), String::new()));
    }
    let header = [
        "stage",
        "count",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "% of parent",
        "misses",
    ];
    let what = match phase.name {
        PhaseName::UnderstandingAlone => "prefills",
        _ => "ticks",
    };
    let warm_up = phase.warm_up;
    let mut text = format!(
        "{} (after {warm_up} warm-up {what})\n{}",
        phase.name.title(),
        print::table(&header, &rows)
    );
    let period = run.tick * u32::try_from(run.refresh_period_ticks).unwrap_or(u32::MAX);
    let is_kept = phase.name == PhaseName::Paced;
    let kept = is_kept.then(|| period_line(phase, period)).flatten();
    for line in kept.into_iter().chain(notes(phase)) {
        text.push('\n');
        text.push_str(&line);
    }
    text
}

/// Formats the number of due ticks without a command in time, and of all due ticks.
fn misses(phase: &Phase) -> String {
    format!("{} of {}", phase.due_ticks_missed(), phase.ticks_due())
}

/// Replaces the values of the response by those over all due ticks, if some were skipped.
fn of_due_ticks(phase: &Phase, cells: &mut [String]) {
    if phase.ticks_skipped == 0 {
        return;
    }
    let due = phase.ticks_due();
    cells[1] = due.to_string();
    for (cell, percentile) in cells[2..].iter_mut().zip(PERCENTILES) {
        *cell = match phase.due_response(percentile) {
            Some(DueResponse::Took(took)) if percentile.is_supported_by(due) => millis(took),
            Some(DueResponse::Skipped) => "skipped".to_owned(),
            _ => "–".to_owned(),
        };
    }
    cells[2 + PERCENTILES.len()] = "skipped".to_owned();
}

const PERCENTILES: [Percentile; 4] =
    [Percentile::P50, Percentile::P90, Percentile::P99, Percentile::P999];

/// Returns the parents that end with `stage`, innermost first.
fn ended_by(stage: Stage) -> Vec<Stage> {
    let mut ended = Vec::new();
    let mut last = stage;
    while let Some(parent) = last.parent().filter(|parent| parent.parts().last() == Some(last)) {
        ended.push(parent);
        last = parent;
    }
    ended
}

fn notes(phase: &Phase) -> Vec<String> {
    let mut notes = Vec::new();
    if phase.ticks_skipped > 0 {
        notes.push(format!(
            "{} of {} due ticks were skipped because the previous tick overran by more than a period; \
             they count as missed, and in the response row as slower than any other",
            phase.ticks_skipped,
            phase.ticks_due()
        ));
    }
    if phase.samples_dropped > 0 {
        notes.push(format!(
            "{} ticks are in the histograms only: single samples are stored for the first ones",
            phase.samples_dropped
        ));
    }
    if phase.statistics.ticks_without_prefix() > 0 {
        let without = phase.statistics.ticks_without_prefix();
        notes.push(format!("{without} of these ticks had no prefix and ran no network"));
    }
    if let [first, .., last] = phase.resident_bytes.as_slice() {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        notes.push(format!(
            "resident memory {:.1} MiB after {} ticks, {:.1} MiB after {}",
            mib(first.1),
            first.0,
            mib(last.1),
            last.0
        ));
    }
    notes
}

fn row(
    name: String,
    histogram: &LatencyHistogram,
    share: String,
    misses: String,
) -> Option<Vec<String>> {
    let max = histogram.max()?;
    let at = |percentile: Percentile| {
        if percentile.is_supported_by(histogram.count()) {
            millis(histogram.percentile(percentile).unwrap_or_default())
        } else {
            "–".to_owned()
        }
    };
    Some(vec![
        name,
        histogram.count().to_string(),
        at(Percentile::P50),
        at(Percentile::P90),
        at(Percentile::P99),
        at(Percentile::P999),
        millis(max),
        share,
        misses,
    ])
}

/// Formats the latencies of the networks alone and in the loop.
fn networks_alone_and_in_loop(file: &LatencyFile) -> Option<String> {
    let in_loop = [PhaseName::Paced, PhaseName::BackToBack];
    let networks = Stage::all().iter().filter_map(|&stage| match stage.role() {
        // A part of a network is not a network.
        _ if stage.parent().is_some_and(Stage::is_network) => None,
        Role::FastNetwork => Some((stage, PhaseName::ActionAlone)),
        Role::SlowNetwork => Some((stage, PhaseName::UnderstandingAlone)),
        Role::Host | Role::Copy | Role::Waiting => None,
    });
    let rows: Vec<Vec<String>> = networks
        .filter_map(|(stage, alone)| {
            let of = |name, percentile| {
                let histogram = file.phase(name)?.statistics.stage(stage);
                histogram.percentile(percentile).map(millis)
            };
            let mut row = vec![stage.name().to_owned()];
            for percentile in [Percentile::P50, Percentile::P99] {
                row.push(of(alone, percentile)?);
                row.extend(in_loop.map(|name| of(name, percentile).unwrap_or("–".to_owned())));
            }
            Some(row)
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let header = [
        "network",
        "p50 ms alone",
        "p50 ms paced",
        "p50 ms back to back",
        "p99 ms alone",
        "p99 ms paced",
        "p99 ms back to back",
    ];
    Some(format!("networks alone, and in the loop\n{}", print::table(&header, &rows)))
}

/// Formats how well prefills kept their period, as one line; `None` with fewer than two prefills.
fn period_line(phase: &Phase, requested: Duration) -> Option<String> {
    let mut gaps: Vec<u64> =
        phase.refreshes.start_ns.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    if gaps.is_empty() {
        return None;
    }
    gaps.sort_unstable();
    let requested_ns = requested.as_nanos() as u64;
    let kept = gaps.iter().filter(|gap| gap.abs_diff(requested_ns) <= requested_ns / 10).count();
    let median = Duration::from_nanos(gaps[(gaps.len() - 1) / 2]);
    Some(format!(
        "refresh period: requested {} ms, median {} ms; {kept} of {} within a tenth of the request",
        millis(requested),
        millis(median),
        gaps.len()
    ))
}

fn share_of(part: &LatencyHistogram, parent: &LatencyHistogram) -> String {
    share(part.total(), parent.total())
}

fn share(part: Duration, parent: Duration) -> String {
    if parent.is_zero() || part.is_zero() {
        return String::new();
    }
    format!("{:.1}", 100.0 * part.as_secs_f64() / parent.as_secs_f64())
}

fn millis(duration: Duration) -> String {
    print::millis(duration.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem::pilot::RunFile;
    use tandem::scene::{DeadlineVerdict, PrefillReport, TickReport};
    use tandem::timing::Span;
    use tandem_profile::{PhaseRecorder, TickFacts};

    #[test]
    fn skipped_ticks_count_as_missed_and_in_the_response() {
        const PERIOD_NS: u64 = 50_000_000;
        let mut recorder = PhaseRecorder::new(PhaseName::Paced, 0, 100, 0);
        for tick in 0..100 {
            let mut report = TickReport::default();
            let start_ns = tick * PERIOD_NS;
            report.spans.push(Span { stage: Stage::RESPONSE, start_ns, took_ns: 10_000_000 });
            if tick == 99 {
                report.deadline = DeadlineVerdict::Missed { by: Duration::from_millis(1) };
            }
            if tick % 2 == 0 {
                let mut spans = tandem::timing::StageSpans::default();
                spans.push(Span { stage: Stage::PREFILL, start_ns, took_ns: 1 });
                report.prefill = Some(PrefillReport { version: tick, is_published: true, spans });
            }
            recorder.tick(&report, TickFacts { start_ns, ..TickFacts::default() });
        }
        recorder.skipped(25);
        let run = Run::try_from(&RunFile::default()).unwrap();
        let phase = recorder.finish();
        let text = super::phase(&phase, &run);
        let row = text.lines().find(|line| line.starts_with("response")).unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        let expected = [
            "response", "125", "10.0", "skipped", "skipped", "skipped", "skipped", "26", "of",
            "125",
        ];
        assert_eq!(cells, expected);
        assert!(text.contains("25 of 125 due ticks were skipped"), "{text}");
        assert!(text.contains("refresh period: requested 100 ms, median 100 ms"), "{text}");
        assert_eq!(due_response(&phase)["p90"], serde_json::Value::Null);
    }
}
