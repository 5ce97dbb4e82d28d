//! The top of the page: the numbers that stand out, and what was run on what.

use crate::latency_file::{LatencyFile, Phase, PhaseName};
use crate::samples::nearest_rank;
use serde_json::Value;
use std::fmt::Write;
use tandem::timing::{LatencySummary, Percentile, Stage};
use tandem_page::{facts, milliseconds, tile};

/// The phase that stands for the profile.
fn main_phase(file: &LatencyFile) -> Option<&Phase> {
    let named = [PhaseName::Paced, PhaseName::BackToBack, PhaseName::ActionAlone]
        .into_iter()
        .find_map(|name| file.phase(name));
    named.or(file.phases.first())
}

/// The tiles; nothing if nothing was measured.
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
    let judged_by = phase.judged_by().unwrap_or(Stage::TICK);
    let summary = statistics.stage(judged_by).summary();
    let unskipped = match phase.ticks_skipped {
        0 => String::new(),
        skipped => format!(" that began; {skipped} were skipped"),
    };
    let word = if judged_by == Stage::RESPONSE { "Response" } else { "Tick" };
    for (percentile, pick) in picks {
        let basis = match summary {
            Some(summary) if percentile == "p99.9" && summary.count < 1000 => {
                format!("the worst of {}{unskipped}: fewer than 1,000 ticks", summary.count)
            }
            Some(summary) => format!("of {} ticks{unskipped}", summary.count),
            None => String::new(),
        };
        add(&format!("{word}, {percentile}"), summary.map(pick), &basis);
    }
    let age = statistics.prefix_age();
    let p99 = age.summary().map(|summary| summary.p99_ns);
    add("Prefix age, p99", p99, &format!("of {} ticks with one", age.count()));
    let refresh = statistics.stage(Stage::REFRESH);
    for (percentile, pick) in &picks[..2] {
        let basis = format!("of {} refreshes", refresh.count());
        add(&format!("Refresh, {percentile}"), refresh.summary().map(pick), &basis);
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
            "of {due} due ticks ({share:.2} %){skipped}; {} ms allowed",
            file.run.act_budget_millis
        ),
    );
    let _ = write!(
        out,
        "</section><p class=\"small\">Phase: {}. Percentiles are nearest rank: the smallest value \
         that at least that share of all values does not exceed. They rest on every tick that \
         counts, in buckets of three digits that never understate; max is exact. The {} ticks of \
         warm-up count nowhere.</p>",
        phase.name.title(),
        phase.warm_up
    );
    out
}

/// From the beginning of one refresh to that of the next, median.
fn period_ns(phase: &Phase) -> Option<u64> {
    let mut starts = phase.refreshes.start_ns.clone();
    starts.sort_unstable();
    let mut periods: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    periods.sort_unstable();
    nearest_rank(&periods, Percentile::P50)
}

fn period_basis(file: &LatencyFile) -> String {
    let (ticks, hz) = (file.run.refresh_period_ticks, file.run.tick_hz.max(1));
    let asked_ms = f64::from(ticks) / f64::from(hz) * 1e3;
    format!("as kept, beginning to beginning; asked for: {asked_ms:.0} ms ({ticks} ticks)")
}

/// What was run, on what, and what measuring it cost.
pub(super) fn section(file: &LatencyFile) -> String {
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let mut what = vec![
        fact("command", file.command.clone()),
        fact("taken at", date(file.taken_at_unix_s)),
        fact("tandem", file.tandem.clone()),
        fact("observations", file.observations.clone()),
        fact("engine folder", file.engine.folder.clone()),
        fact("back end", file.engine.backend.clone()),
    ];
    for (network, hash) in &file.engine.graphs_sha256 {
        what.push(fact(&format!("graph of {network}, SHA-256"), hash.clone()));
    }
    what.push(fact(
        "time to first control",
        match file.first_control {
            Some(first) => format!(
                "{} ms to load, then {} ms and {} ticks to the first control with a prefix",
                milliseconds(first.load_ns),
                milliseconds(first.loop_ns),
                first.ticks
            ),
            None => "not measured".to_owned(),
        },
    ));
    let profiler = file.profiler;
    what.push(fact(
        "measuring costs",
        format!(
            "{} ns a stage, {:.2} µs a tick (medians of {} rounds)",
            profiler.stage_ns,
            profiler.tick_ns as f64 / 1e3,
            profiler.rounds
        ),
    ));
    what.push(fact(
        "real-time options",
        match file.real_time.lines() {
            lines if lines.is_empty() => "none asked for".to_owned(),
            lines => lines.join("; "),
        },
    ));
    let mut run = Vec::new();
    match serde_json::to_value(&file.run) {
        Ok(value) => flatten("", &value, &mut run),
        Err(error) => run.push(fact("run", error.to_string())),
    }
    format!(
        "<h2 id=\"run\">What was run</h2><div class=\"card\">{}</div>\
         <div class=\"card\"><h3>Machine</h3>{}</div>\
         <details class=\"card\"><summary>Run file, every key</summary>{}</details>",
        facts(&what),
        facts(&file.machine.facts()),
        facts(&run)
    )
}

/// Keys of nested maps joined by dots.
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

/// Seconds since the Unix epoch as a date and time of day in UTC.
pub(crate) fn date(unix_s: u64) -> String {
    let (mut days, second) = (unix_s / 86_400, unix_s % 86_400);
    // The calendar repeats every 400 years, which have 146,097 days.
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
    fn dates_are_those_of_the_calendar() {
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
