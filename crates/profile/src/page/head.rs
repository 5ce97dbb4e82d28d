//! Top of the page: main latencies, run and machine.

use crate::latency_file::{LatencyFile, Phase, PhaseName};
use crate::samples::nearest_rank;
use serde_json::Value;
use std::fmt::Write;
use tandem::timing::{LatencySummary, Percentile, Stage};
use tandem_page::{facts, milliseconds, tile};

/// Returns the phase of the latencies that are shown as tiles.
fn main_phase(file: &LatencyFile) -> Option<&Phase> {
    let named = [PhaseName::Paced, PhaseName::BackToBack, PhaseName::ActionAlone]
        .into_iter()
        .find_map(|name| file.phase(name));
    named.or(file.phases.first())
}

/// Returns the tiles; empty if nothing was measured.
pub(super) fn tiles(file: &LatencyFile) -> String {
    let Some(phase) = main_phase(file) else { return String::new() };
    let statistics = &phase.statistics;
    let mut out = String::from("<section class=\"tiles\">");
    let mut add = |name: &str, nanos: Option<u64>, basis: &str| {
        let (value, basis) = match nanos {
            Some(nanos) => (format!("{} ms", milliseconds(nanos)), basis),
            None => ("–".to_owned(), "not measured"),
        };
        out += &tile(name, &value, basis);
    };
    type Pick = fn(LatencySummary) -> u64;
    let picks: [(&str, Pick); 4] = [
        ("p50", |summary| summary.p50_ns),
        ("p99", |summary| summary.p99_ns),
        ("p99.9", |summary| summary.p999_ns),
        ("max", |summary| summary.max_ns),
    ];
    let judged_by = phase.main_stage().unwrap_or(Stage::TICK);
    let summary = statistics.stage(judged_by).summary();
    let skipped_note = match phase.ticks_skipped {
        0 => String::new(),
        skipped => format!(" that ran; {skipped} were skipped"),
    };
    let name = if judged_by == Stage::RESPONSE { "Response" } else { "Tick" };
    for (percentile, pick) in picks {
        let basis = match summary {
            Some(summary) if percentile == "p99.9" && summary.count < 1000 => {
                format!("maximum of {}{skipped_note}: fewer than 1,000 ticks", summary.count)
            }
            Some(summary) => format!("of {} ticks{skipped_note}", summary.count),
            None => String::new(),
        };
        add(&format!("{name}, {percentile}"), summary.map(pick), &basis);
    }
    let age = statistics.prefix_age();
    let p99 = age.summary().map(|summary| summary.p99_ns);
    add("Prefix age, p99", p99, &format!("of {} ticks with a prefix", age.count()));
    let refresh = statistics.stage(Stage::PREFILL);
    for (percentile, pick) in &picks[..2] {
        let basis = format!("of {} prefills", refresh.count());
        add(&format!("Prefill, {percentile}"), refresh.summary().map(pick), &basis);
    }
    add("Refresh period, p50", period_ns(phase), &period_basis(file));
    let (due, misses) = (phase.ticks_due(), phase.due_ticks_missed());
    let share = if due > 0 { 100.0 * misses as f64 / due as f64 } else { 0.0 };
    let skipped = match phase.ticks_skipped {
        0 => String::new(),
        skipped => format!(", {skipped} of them skipped"),
    };
    out += &tile(
        "Deadline misses",
        &misses.to_string(),
        &format!(
            "of {due} due ticks ({share:.2} %){skipped}; deadline {} ms",
            file.run.act_budget_millis
        ),
    );
    let _ = write!(
        out,
        "</section><p class=\"small\">Phase: {}. Percentiles are nearest-rank: the smallest value \
         that at least that share of all values does not exceed. They include every tick after \
         the warm-up of {} ticks, in buckets of three digits that never understate; max is \
         exact.</p>",
        phase.name.title(),
        phase.warm_up
    );
    out
}

/// Returns the median time from the start of one prefill to the start of the next.
fn period_ns(phase: &Phase) -> Option<u64> {
    let mut starts = phase.refreshes.start_ns.clone();
    starts.sort_unstable();
    let mut periods: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    periods.sort_unstable();
    nearest_rank(&periods, Percentile::P50)
}

fn period_basis(file: &LatencyFile) -> String {
    let (ticks, hz) = (file.run.refresh_period_ticks, file.run.tick_hz.max(1));
    let configured_ms = f64::from(ticks) / f64::from(hz) * 1e3;
    format!("measured from start to start; configured: {configured_ms:.0} ms ({ticks} ticks)")
}

/// Returns the sections on the run, the machine and the cost of measuring.
pub(super) fn section(file: &LatencyFile) -> String {
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let mut run_facts = vec![
        fact("command", file.command.clone()),
        fact("taken at", date(file.taken_at_unix_s)),
        fact("tandem", file.tandem.clone()),
        fact("observations", file.observations.clone()),
        fact("engine folder", file.engine.folder.clone()),
        fact("back end", file.engine.backend.clone()),
    ];
    for (network, hash) in &file.engine.graphs_sha256 {
        run_facts.push(fact(&format!("graph of {network}, SHA-256"), hash.clone()));
    }
    run_facts.push(fact(
        "time to first control",
        match file.first_control {
            Some(first) => format!(
                "{} ms for loading, then {} ms and {} ticks to the first control with a prefix",
                milliseconds(first.load_ns),
                milliseconds(first.loop_ns),
                first.ticks
            ),
            None => "not measured".to_owned(),
        },
    ));
    let profiler = file.profiler;
    run_facts.push(fact(
        "cost of measuring",
        format!(
            "{} ns per stage, {:.2} µs per tick (medians of {} rounds)",
            profiler.stage_ns,
            profiler.tick_ns as f64 / 1e3,
            profiler.rounds
        ),
    ));
    run_facts.push(fact(
        "real-time options",
        match file.real_time.lines() {
            lines if lines.is_empty() => "none requested".to_owned(),
            lines => lines.join("; "),
        },
    ));
    let mut run = Vec::new();
    match serde_json::to_value(&file.run) {
        Ok(value) => flatten("", &value, &mut run),
        Err(error) => run.push(fact("run", error.to_string())),
    }
    format!(
        "<h2 id=\"run\">Run</h2><div class=\"card\">{}</div>\
         <div class=\"card\"><h3>Machine</h3>{}</div>\
         <details class=\"card\"><summary>Run file, all keys</summary>{}</details>",
        facts(&run_facts),
        facts(&file.machine.facts()),
        facts(&run)
    )
}

/// Flattens nested maps to pairs of key and value, with keys joined by dots.
fn flatten(prefix: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, into);
            }
        }
        Value::Null => into.push((prefix.to_owned(), "–".to_owned())),
        Value::String(text) => into.push((prefix.to_owned(), text.clone())),
        other => into.push((prefix.to_owned(), other.to_string())),
    }
}

/// Formats seconds since the Unix epoch as a date and time in UTC.
pub(crate) fn date(unix_s: u64) -> String {
    let (mut days, second) = (unix_s / 86_400, unix_s % 86_400);
    // The calendar repeats every 400 years, which are 146,097 days.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_gregorian_calendar() {
        let cases = [
            (0, "1970-01-01 00:00 UTC"),
            (951_868_799, "2000-02-29 23:59 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ];
        for (unix_s, expected) in cases {
            assert_eq!(date(unix_s), expected);
        }
        assert!(date(u64::MAX).ends_with("UTC"));
    }
}
