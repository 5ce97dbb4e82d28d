//! Latency of each stage and age of the prefix KV cache.

use super::ReportRun;
use super::charts::{Charts, histogram};
use std::fmt::Write;
use tandem_page::milliseconds;
use tandem_timing::{LatencyHistogram, Role, Stage};

/// Returns the latency section of run number `run_idx`, and adds its charts to `charts`.
pub(super) fn section(run: &ReportRun, run_idx: usize, charts: &mut Charts) -> String {
    let head = format!("<h3 id=\"latency-{run_idx}\">Latency of each stage</h3>");
    let timed: Vec<(&str, &LatencyHistogram)> = Stage::all()
        .iter()
        .copied()
        .map(|stage| (stage.name(), run.statistics.stage(stage)))
        .filter(|(_, histogram)| histogram.count() > 0)
        .collect();
    if timed.is_empty() {
        return head + "<div class=\"card\"><p>No stage was timed.</p></div>";
    }
    // Shows the totals and the networks; all other stages are hidden until selected in the legend.
    let is_shown = |stage: Stage| {
        [Stage::TICK, Stage::PREFILL].contains(&stage) || stage.role() == Role::FastNetwork
    };
    let shown = |name: &str| Stage::named(name).is_some_and(is_shown);
    let stages = charts.add(histogram("share of its ticks (%)", &timed, &shown));
    let mut out = format!(
        "{head}<div class=\"card\">{}</div><div class=\"card\"><h4>Distribution</h4>{stages}\
         <p class=\"small\">Logarithmic. More stages are in the legend.</p></div>",
        table(run, &timed)
    );
    let age = run.statistics.prefix_age();
    if age.count() > 0 {
        let chart = charts.add(histogram("share of ticks (%)", &[("age", age)], &|_| true));
        let _ = write!(
            out,
            "<div class=\"card\"><h4>Age of the prefix</h4>{chart}<p class=\"small\">Tick time \
             minus capture time of the newest frame in the prefix, over ticks with a prefix.</p></div>"
        );
    }
    out
}

fn table(run: &ReportRun, timed: &[(&str, &LatencyHistogram)]) -> String {
    let mut out = String::from(
        "<table class=\"sorts\"><thead><tr><th>Stage</th><th class=\"n\">Count</th>\
         <th class=\"n\">p50 ms</th><th class=\"n\">p90 ms</th><th class=\"n\">p99 ms</th>\
         <th class=\"n\">p99.9 ms</th><th class=\"n\">Max ms</th>\
         <th class=\"n\">Deadline misses</th></tr></thead><tbody>",
    );
    let mut row = |name: &str, histogram: &LatencyHistogram, misses: String| {
        let Some(summary) = histogram.summary() else { return };
        let count = summary.count;
        let _ = write!(out, "<tr><td>{name}</td><td class=\"n\" data-v=\"{count}\">{count}</td>");
        for nanos in
            [summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.p999_ns, summary.max_ns]
        {
            let _ = write!(out, "<td class=\"n\" data-v=\"{nanos}\">{}</td>", milliseconds(nanos));
        }
        let _ = write!(out, "<td class=\"n\">{misses}</td></tr>");
    };
    for (name, histogram) in timed {
        let is_tick = *name == Stage::TICK.name();
        let misses = run.statistics.deadline_misses();
        row(name, histogram, if is_tick { misses.to_string() } else { "–".to_owned() });
    }
    row("age of the prefix", run.statistics.prefix_age(), "–".to_owned());
    let budget = match run.tick_budget {
        Some(budget) => {
            format!(
                "The tick's deadline is {} ms after its observation.",
                milliseconds(budget.as_nanos() as u64)
            )
        }
        None => "Ticks had no deadline.".to_owned(),
    };
    let _ = write!(
        out,
        "</tbody></table><p class=\"small\">Percentiles are nearest-rank, from histograms with 3 \
         significant digits, rounded up; max is exact. Count is the number of ticks at which the \
         stage ran, without the first {} ticks of each route. {budget} {} ticks had no prefix yet.</p>",
        run.warm_up_ticks,
        run.statistics.ticks_without_prefix(),
    );
    out
}
