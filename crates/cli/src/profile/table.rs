//! A profile as tables.

use crate::print;
use std::collections::BTreeMap;
use std::time::Duration;
use tandem::pilot::{DeviceName, Run};
use tandem::timing::{LatencyHistogram, Percentile, Role, Stage};
use tandem_profile::{BUSY_SHARE, LatencyFile, Phase, PhaseName, ResponseOfDue};

/// The whole profile, for people.
pub(super) fn profile(file: &LatencyFile, run: &Run) -> String {
    let mut parts: Vec<String> = file.phases.iter().map(|part| phase(part, run)).collect();
    parts.extend(alone_beside_loop(file));
    let mut closing = vec![
        "percentiles are nearest-rank; those that the count cannot tell from the maximum are left out"
            .to_owned(),
        where_tensors_are(run.device).to_owned(),
        format!(
            "the profiler itself: {} ns a stage, {:.2} us a tick, a timeline {:.2} us more (medians of \
             {} rounds)",
            file.profiler.stage_ns,
            file.profiler.tick_ns as f64 / 1e3,
            file.profiler.trace_ns as f64 / 1e3,
            file.profiler.rounds
        ),
    ];
    closing.extend(file.first_control.map(|first| {
        let [load, to_control] = [first.load_ns, first.loop_ns].map(Duration::from_nanos);
        format!(
            "first control that rests on a prefix: {} ms after the first observation, at tick {}; \
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
            "other processes took {:.0} % of all cores {}",
            100.0 * share,
            phase.name.title()
        ))
    }));
    closing.extend(file.machine.load_1min.filter(|load| *load > 0.5).map(|load| {
        format!(
            "this machine was not idle at the start: load {load} on {} cores",
            file.machine.cores
        )
    }));
    parts.push(closing.join("\n"));
    parts.join("\n\n")
}

/// What upload and download are on a device.
fn where_tensors_are(device: DeviceName) -> &'static str {
    match device {
        DeviceName::Cpu => {
            "tensors are read and written where the host has them: there is no upload, no download"
        }
        DeviceName::Emulated => {
            "EMULATED device: copies and streams as on a GPU, times of this CPU"
        }
        DeviceName::Cuda(_) => "upload, networks and download by the GPU's own events",
    }
}

/// The profile without histograms and single ticks, for programs.
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
            "response_of_due_ns": response_of_due(phase),
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

/// Percentiles of the response over all due ticks, nanoseconds, `null` for a skipped tick; `null`
/// where no real time is kept.
fn response_of_due(phase: &Phase) -> serde_json::Value {
    let at = |percentile| {
        Some(match phase.response_of_due(percentile)? {
            ResponseOfDue::Took(took) => Some(took.as_nanos() as u64),
            ResponseOfDue::Skipped => None,
        })
    };
    let named = ["p50", "p90", "p99", "p99.9"].into_iter().zip(PERCENTILES);
    let all: Option<BTreeMap<_, _>> = named.map(|(name, p)| Some((name, at(p)?))).collect();
    serde_json::to_value(all).expect("numbers by name are plain data")
}

/// One phase: its stages, and what they leave open.
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
        // The rest of a stage stands behind its last part.
        for parent in ended_by(stage) {
            let rest = statistics.rest(parent);
            let share = share_of(rest, statistics.stage(parent));
            let name = format!("{}(rest of {})", "  ".repeat(parent.depth() + 1), parent.name());
            rows.extend(row(name, rest, share, String::new()));
        }
    }
    // Alone, the action expert keeps its one prefix for ever.
    if phase.name != PhaseName::ActionAlone {
        let age = statistics.prefix_age();
        rows.extend(row("age of the prefix".to_owned(), age, String::new(), String::new()));
    }
    let header =
        ["stage, ms", "count", "p50", "p90", "p99", "p99.9", "max", "% of parent", "misses"];
    let what = match phase.name {
        PhaseName::UnderstandingAlone => "refreshes",
        _ => "ticks",
    };
    let warm_up = phase.warm_up;
    let mut text = format!(
        "{} (behind {warm_up} warm-up {what})\n{}",
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

/// Due ticks without a command in time, and how many were due.
fn misses(phase: &Phase) -> String {
    format!("{} of {}", phase.due_ticks_missed(), phase.ticks_due())
}

/// Count, percentiles and maximum of the response over all due ticks, where some were skipped.
fn of_due_ticks(phase: &Phase, cells: &mut [String]) {
    if phase.ticks_skipped == 0 {
        return;
    }
    let due = phase.ticks_due();
    cells[1] = due.to_string();
    for (cell, percentile) in cells[2..].iter_mut().zip(PERCENTILES) {
        *cell = match phase.response_of_due(percentile) {
            Some(ResponseOfDue::Took(took)) if percentile.is_supported_by(due) => millis(took),
            Some(ResponseOfDue::Skipped) => "skipped".to_owned(),
            _ => "–".to_owned(),
        };
    }
    cells[2 + PERCENTILES.len()] = "skipped".to_owned();
}

const PERCENTILES: [Percentile; 4] =
    [Percentile::P50, Percentile::P90, Percentile::P99, Percentile::P999];

/// The parents whose last part `stage` is, innermost first.
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
            "{} of {} due ticks were skipped: the one before took over a period too long; they count \
             as missed, and in the row of the response as slower than any other",
            phase.ticks_skipped,
            phase.ticks_due()
        ));
    }
    if phase.samples_dropped > 0 {
        notes.push(format!(
            "{} ticks are in the histograms only: single samples are kept of the first ones",
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

/// Engines alone beside the same engines in the loop.
fn alone_beside_loop(file: &LatencyFile) -> Option<String> {
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
        "network, ms",
        "p50 alone",
        "p50 paced",
        "p50 back to back",
        "p99 alone",
        "p99 paced",
        "p99 back to back",
    ];
    Some(format!("networks alone, and in the loop\n{}", print::table(&header, &rows)))
}

/// How well refreshes kept their period, in one line; `None` with fewer than two.
fn period_line(phase: &Phase, asked: Duration) -> Option<String> {
    let mut gaps: Vec<u64> =
        phase.refreshes.start_ns.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    if gaps.is_empty() {
        return None;
    }
    gaps.sort_unstable();
    let asked_ns = asked.as_nanos() as u64;
    let kept = gaps.iter().filter(|gap| gap.abs_diff(asked_ns) <= asked_ns / 10).count();
    let median = Duration::from_nanos(gaps[(gaps.len() - 1) / 2]);
    Some(format!(
        "refresh period: {} ms asked for, median {} ms, within a tenth of it {kept} of {} times",
        millis(asked),
        millis(median),
        gaps.len()
    ))
}

fn share_of(part: &LatencyHistogram, whole: &LatencyHistogram) -> String {
    share(part.total(), whole.total())
}

fn share(part: Duration, whole: Duration) -> String {
    if whole.is_zero() || part.is_zero() {
        return String::new();
    }
    format!("{:.1}", 100.0 * part.as_secs_f64() / whole.as_secs_f64())
}

fn millis(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem::pilot::RunFile;
    use tandem::scene::{DeadlineVerdict, RefreshReport, TickReport};
    use tandem::timing::Span;
    use tandem_profile::{PhaseRecorder, TickFacts};

    #[test]
    fn skipped_ticks_are_missed_and_in_the_response() {
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
                spans.push(Span { stage: Stage::REFRESH, start_ns, took_ns: 1 });
                report.refresh = Some(RefreshReport { version: tick, is_published: true, spans });
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
            "response", "125", "10.000", "skipped", "skipped", "skipped", "skipped", "26", "of",
            "125",
        ];
        assert_eq!(cells, expected);
        assert!(text.contains("25 of 125 due ticks were skipped"), "{text}");
        assert!(text.contains("refresh period: 100.000 ms asked for, median 100.000 ms"), "{text}");
        assert_eq!(response_of_due(&phase)["p90"], serde_json::Value::Null);
    }
}
