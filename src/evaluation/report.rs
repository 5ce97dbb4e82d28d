//! One self-contained HTML page about a run: no script, no font, no image from elsewhere, so it can
//! be mailed, archived and printed.

use super::log::{RouteLog, TickLog};
use super::record::{MergedTable, Record};
use crate::page::chart::{Axis, Mark, Plot, RowAxis, Series, Shape, Stroke, short};
use crate::page::{document, escape, facts, figure, milliseconds, tile};
use crate::scene::DeadlineVerdict;
use crate::timing::{LatencyHistogram, Stage, StageStatistics};
use std::fmt::Write;
use std::time::Duration;

/// More routes than this are shown folded up.
const UNFOLDED_ROUTES: usize = 6;

/// Size of the plots beside each other.
const HALF: [f64; 2] = [520.0, 290.0];

/// What a page is made of. All text is escaped.
pub struct Report<'a> {
    /// Heading.
    pub title: &'a str,
    /// What a reader must know before looking at any number, e.g. "random weights: this shows the
    /// chain, not skill". Stands out at the top; empty for none.
    pub note: &'a str,
    /// Name and value of everything worth knowing about run and machine, in order: versions, seed,
    /// CPU, GPU.
    pub facts: &'a [(String, String)],
    /// One or more runs, each with scores and latencies of its own.
    pub runs: &'a [ReportRun<'a>],
}

/// The routes of one driver.
pub struct ReportRun<'a> {
    /// Who drove.
    pub driver: &'a str,
    /// Finished routes, in order.
    pub routes: &'a [ReportRoute<'a>],
    /// Number of routes of the run, finished or not.
    pub routes_total: usize,
    /// Ticks at the start of each route that latencies leave out.
    pub warm_up_ticks: usize,
    /// Time allowed for a tick, if it had a deadline.
    pub tick_budget: Option<Duration>,
}

/// One finished route.
pub struct ReportRoute<'a> {
    /// Its verdict.
    pub record: &'a Record,
    /// Its drive.
    pub log: &'a RouteLog,
    /// A picture of the front camera, as a PNG file.
    pub still_png: Option<&'a [u8]>,
}

/// Writes the page.
///
/// # Panics
/// If `routes_total` of a run is 0.
pub fn render(report: &Report<'_>) -> String {
    let subtitle: Vec<String> = report
        .runs
        .iter()
        .map(|run| {
            let (routes, total) = (run.routes.len(), run.routes_total);
            format!("{}: {routes} / {total} routes finished", escape(run.driver))
        })
        .collect();
    let body = format!(
        "<h2>What was run</h2><div class=\"card\">{}</div>{}",
        facts(report.facts),
        report.runs.iter().map(run_section).collect::<String>()
    );
    document(report.title, &subtitle.join(" · "), report.note, &body)
}

/// Scores, latencies and drives of one driver.
fn run_section(run: &ReportRun<'_>) -> String {
    let mut statistics = StageStatistics::new();
    for route in run.routes {
        statistics.merge(&route.log.statistics(run.warm_up_ticks));
    }
    let records = run.routes.iter().map(|route| route.record.clone()).collect();
    let table = MergedTable::new(records, run.routes_total, 1);
    let routes: String = run.routes.iter().map(|route| route_section(route, run)).collect();
    format!(
        "<h2>{}</h2><section class=\"tiles\">{}</section><h3>Scores</h3><div class=\"card\">{}</div>\
         <h3>Latency of each stage</h3><div class=\"card\">{}</div>{}<h3>Routes</h3>{routes}",
        escape(run.driver),
        tiles(&table, run, &statistics),
        score_table(run),
        latency_table(run, &statistics),
        distribution(&statistics),
    )
}

fn tiles(table: &MergedTable, run: &ReportRun<'_>, statistics: &StageStatistics) -> String {
    let rest = if table.finished < run.routes_total { ", the rest as 0" } else { "" };
    let basis = format!("{} / {} routes finished{rest}", table.finished, run.routes_total);
    // From zero up: the sum of nothing would print as −0.
    let completion =
        table.records().fold(0.0, |sum, record| sum + record.scores.score_route.value())
            / run.routes_total as f64;
    let ticks = statistics.ticks();
    let misses = statistics.deadline_misses();
    let share = if ticks > 0 { 100.0 * misses as f64 / ticks as f64 } else { 0.0 };
    let (tick, tick_basis) = match statistics.stage(Stage::Tick).summary() {
        Some(summary) => (
            format!("{} ms", milliseconds(summary.p99_ns)),
            format!("nearest-rank over {} ticks", summary.count),
        ),
        None => ("–".to_owned(), "ticks were not timed".to_owned()),
    };
    let (late, late_basis) = match run.tick_budget {
        None if misses == 0 => ("–".to_owned(), "ticks had no deadline".to_owned()),
        _ => (misses.to_string(), format!("{share:.2} % of {ticks} ticks")),
    };
    [
        tile("Driving score", &format!("{:.2}", table.driving_score), &basis),
        tile("Success rate", &format!("{:.1} %", table.success_rate * 100.0), &basis),
        tile("Route completion", &format!("{completion:.1} %"), &basis),
        tile("Tick, p99", &tick, &tick_basis),
        tile("Deadline misses", &late, &late_basis),
    ]
    .concat()
}

fn score_table(run: &ReportRun<'_>) -> String {
    let mut out = String::from(
        "<table><thead><tr><th>Route</th><th>Town</th><th>Scenario</th><th>Status</th>\
         <th class=\"n\">Completion<br/>%</th><th class=\"n\">Penalty<br/>0–1</th>\
         <th class=\"n\">Driving<br/>score</th><th class=\"n\">Infractions<br/>penalized</th>\
         <th class=\"n\">Length<br/>m</th><th class=\"n\">Driven<br/>s</th></tr></thead><tbody>",
    );
    for ReportRoute { record, .. } in run.routes {
        let class = if record.is_success() { "good" } else { "bad" };
        let penalized = record.num_infractions - record.infractions.min_speed_infractions.len();
        let _ = write!(
            out,
            "<tr><td class=\"w\">{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{}</td>\
             <td class=\"n\">{:.2}</td><td class=\"n\">{:.3}</td><td class=\"n\"><b>{:.2}</b></td>\
             <td class=\"n\">{penalized}</td><td class=\"n\">{:.1}</td><td class=\"n\">{:.2}</td></tr>",
            escape(&record.route_id),
            escape(&record.town_name),
            escape(&record.scenario_name),
            escape(&record.status),
            record.scores.score_route.value(),
            record.scores.score_penalty,
            record.scores.score_composed,
            record.meta.route_length.value(),
            record.meta.duration_game,
        );
    }
    let unfinished = run.routes_total.saturating_sub(run.routes.len());
    let _ = write!(
        out,
        "</tbody></table><p class=\"small\">Driving score = route completion × infraction penalty. \
         {unfinished} of {} routes are not finished and count as zero in the averages above. \
         Green: finished without a penalized infraction. Red lights, stop signs and yielding to \
         emergency vehicles are not judged.</p>",
        run.routes_total
    );
    out
}

fn latency_table(run: &ReportRun<'_>, statistics: &StageStatistics) -> String {
    if !is_timed(statistics) {
        return "<p>No stage was timed.</p>".to_owned();
    }
    let mut out = String::from(
        "<table><thead><tr><th>Stage</th><th class=\"n\">Count</th><th class=\"n\">p50<br/>ms</th>\
         <th class=\"n\">p90<br/>ms</th><th class=\"n\">p99<br/>ms</th><th class=\"n\">p99.9<br/>ms</th>\
         <th class=\"n\">Max<br/>ms</th><th class=\"n\">Deadline<br/>misses</th></tr></thead><tbody>",
    );
    let mut row = |name: &str, histogram: &LatencyHistogram, misses: String| {
        let Some(summary) = histogram.summary() else { return };
        let _ = write!(out, "<tr><td>{name}</td><td class=\"n\">{}</td>", summary.count);
        for nanos in
            [summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.p999_ns, summary.max_ns]
        {
            let _ = write!(out, "<td class=\"n\">{}</td>", milliseconds(nanos));
        }
        let _ = write!(out, "<td class=\"n\">{misses}</td></tr>");
    };
    for stage in Stage::ALL {
        let misses = match stage {
            Stage::Tick => statistics.deadline_misses().to_string(),
            _ => "–".to_owned(),
        };
        row(stage.name(), statistics.stage(stage), misses);
    }
    row("age of the prefix", statistics.prefix_age(), "–".to_owned());
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
        "</tbody></table><p class=\"small\">Percentiles are nearest-rank, from histograms of 3 \
         digits that never understate; max is exact. Count is the number of ticks at which the stage ran, \
         without the first {} ticks of each route. {budget} {} ticks had no prefix yet.</p>",
        run.warm_up_ticks,
        statistics.ticks_without_prefix(),
    );
    out
}

fn is_timed(statistics: &StageStatistics) -> bool {
    Stage::ALL.into_iter().any(|stage| statistics.stage(stage).count() > 0)
}

/// One row per stage on a logarithmic axis, in a card; nothing if no stage was timed.
fn distribution(statistics: &StageStatistics) -> String {
    let rows: Vec<_> = Stage::ALL
        .into_iter()
        .filter_map(|stage| {
            let histogram = statistics.stage(stage);
            Some((stage.name(), histogram.summary()?, histogram.min()?.as_nanos() as u64))
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let in_ms = |nanos: u64| (nanos as f64 / 1e6).max(1e-6);
    let low = rows.iter().map(|row| in_ms(row.2)).fold(f64::INFINITY, f64::min);
    let high = rows.iter().map(|row| in_ms(row.1.max_ns)).fold(0.0, f64::max);
    let axis = RowAxis::new(Axis::log("latency (ms)", low, high), rows.len(), 30.0);
    let mut out = String::from(
        "<div class=\"card\"><h3>Distribution, logarithmic</h3><div class=\"legend\">\
         <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"whisker\" d=\"M0 6H22\"/></svg>min to max</span>\
         <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><rect class=\"box\" x=\"0\" y=\"1\" width=\"22\" height=\"10\"/></svg>p50 to p99</span>\
         <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"median\" d=\"M11 0V12\"/></svg>p50</span>\
         <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"p90\" d=\"M11 0V12\"/></svg>p90</span>\
         <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><circle class=\"most\" cx=\"11\" cy=\"6\" r=\"4\"/></svg>max</span></div>",
    );
    out += &axis.open("Latency distribution of each stage, in milliseconds, logarithmic");
    for (index, (name, summary, min_ns)) in rows.iter().enumerate() {
        let [p50, p90, p99, most] =
            [summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.max_ns].map(in_ms);
        let tip = format!(
            "{name}: p50 {} ms, p90 {} ms, p99 {} ms, max {} ms, count {}",
            milliseconds(summary.p50_ns),
            milliseconds(summary.p90_ns),
            milliseconds(summary.p99_ns),
            milliseconds(summary.max_ns),
            summary.count
        );
        out += &axis.row(index, name, &tip, [in_ms(*min_ns), p50, p90, p99, most]);
    }
    out + "</svg></div>"
}

fn route_section(route: &ReportRoute<'_>, run: &ReportRun<'_>) -> String {
    let ReportRoute { record, log, still_png } = route;
    let open = if run.routes.len() <= UNFOLDED_ROUTES { " open=\"\"" } else { "" };
    let mut out = format!(
        "<details class=\"route card\"{open}><summary>{} <span>· {} · {} · {} · driving score {:.2}</span></summary>",
        escape(&record.route_id),
        escape(&record.town_name),
        escape(&record.scenario_name),
        escape(&record.status),
        record.scores.score_composed,
    );
    if !log.events.is_empty() {
        out += "<ul class=\"events\">";
        for event in &log.events {
            let when = match event.tick.and_then(|tick| tick_log(log, tick)) {
                Some(tick) => format!("{:.2} s: ", tick.time_s),
                None => String::new(),
            };
            let _ = write!(out, "<li>{when}{}</li>", escape(&event.message));
        }
        out += "</ul>";
    }
    out += "<div class=\"plots\">";
    out += &figure(
        "Path seen from above",
        &path_plot(log),
        "Equal axes. North is up: x points east, y points south.",
    );
    out += &figure("Speed", &speed_plot(log), "");
    if let Some(drawing) = latency_plot(log, run.tick_budget) {
        let caption = "Logarithmic. Refresh runs on a thread of its own, beside the tick.";
        out += &figure("Stage latency over time", &drawing, caption);
    }
    if let Some(drawing) = prefix_plot(log) {
        let caption = "Tick time minus capture time of the newest frame in the prefix. Nothing \
                       is drawn while there is none.";
        out += &figure("Age of the prefix", &drawing, caption);
    }
    if let Some(png) = still_png {
        let _ = write!(
            out,
            "<figure class=\"wide\"><h3>Front camera</h3><img alt=\"A picture of the front camera\" src=\"data:image/png;base64,{}\"/></figure>",
            base64(png)
        );
    }
    out + "</div></details>"
}

/// Tick number `tick`, counted from 1.
fn tick_log(log: &RouteLog, tick: u64) -> Option<&TickLog> {
    log.ticks.get(usize::try_from(tick).ok()?.checked_sub(1)?)
}

fn path_plot(log: &RouteLog) -> String {
    let driven: Vec<_> = log.ticks.iter().map(|tick| [tick.x_m, tick.y_m]).collect();
    let mut low = [f64::INFINITY; 2];
    let mut high = [f64::NEG_INFINITY; 2];
    for point in log.planned_m.iter().chain(&driven) {
        for axis in 0..2 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    if low[0] > high[0] {
        return "<div></div><p>Nothing was driven.</p>".to_owned();
    }
    // One scale for both axes: the one that shows everything with a margin.
    let size = [HALF[0], 340.0];
    let inner = Plot::inner(size);
    let meters_per_unit = (0..2)
        .map(|axis| (high[axis] - low[axis]).max(10.0) * 1.12 / inner[axis])
        .fold(0.0, f64::max);
    let [x, y] = [("x (m)", 0), ("y (m)", 1)].map(|(label, axis)| {
        let center = (low[axis] + high[axis]) / 2.0;
        let half = meters_per_unit * inner[axis] / 2.0;
        Axis::exact(label, center - half, center + half)
    });
    let series = [
        Series {
            name: "planned route".to_owned(),
            class: "sband",
            stroke: Stroke::Band,
            points: log.planned_m.iter().copied().map(Some).collect(),
        },
        Series {
            name: "driven path".to_owned(),
            class: "s1",
            stroke: Stroke::Line,
            points: driven.iter().copied().map(Some).collect(),
        },
    ];
    let mark = |at: [f64; 2], class, shape, word: &str, tip: &str| Mark {
        at,
        class,
        shape,
        word: word.to_owned(),
        tip: tip.to_owned(),
    };
    let mut marks = Vec::new();
    for event in &log.events {
        if let Some(tick) = event.tick.and_then(|tick| tick_log(log, tick)) {
            marks.push(mark([tick.x_m, tick.y_m], "sbad", Shape::Cross, "", &event.message));
        }
    }
    if let (Some(first), Some(last)) = (driven.first(), driven.last()) {
        marks.push(mark(*first, "sgood", Shape::Circle, "start", "where the drive began"));
        marks.push(mark(*last, "s1", Shape::Square, "end", "where the drive ended"));
    }
    let drawing = Plot {
        description: "Planned route and driven path, seen from above, in meters",
        size,
        x,
        y,
        y_down: true,
        series: &series,
        marks: &marks,
    }
    .draw();
    let has_crosses = marks.iter().any(|mark| mark.shape == Shape::Cross);
    if has_crosses {
        let key = "<span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"cross sbad\" d=\"M7 2l8 8m0 -8l-8 8\"/></svg>infraction</span></div>";
        return drawing.replacen("</div>", key, 1);
    }
    drawing
}

fn time_axis(log: &RouteLog) -> Axis {
    Axis::exact("time (s)", 0.0, log.ticks.last().map_or(1.0, |tick| tick.time_s))
}

fn speed_plot(log: &RouteLog) -> String {
    let points: Vec<_> = log.ticks.iter().map(|tick| Some([tick.time_s, tick.speed_mps])).collect();
    let (low, high) = range(&points).unwrap_or((0.0, 1.0));
    let series = [Series { name: "speed".to_owned(), class: "s1", stroke: Stroke::Line, points }];
    Plot {
        description: "Speed over time",
        size: [HALF[0], 340.0],
        x: time_axis(log),
        y: Axis::linear("speed (m/s)", low.min(0.0), high.max(1.0)),
        y_down: false,
        series: &series,
        marks: &[],
    }
    .draw()
}

/// Smallest and largest y.
fn range(points: &[Option<[f64; 2]>]) -> Option<(f64, f64)> {
    let values = points.iter().flatten().map(|point| point[1]);
    let low = values.clone().min_by(f64::total_cmp)?;
    Some((low, values.max_by(f64::total_cmp)?))
}

/// `None` if no stage was timed.
fn latency_plot(log: &RouteLog, budget: Option<Duration>) -> Option<String> {
    // Sparse stages are dots: a line would draw times at ticks where they did not run.
    let drawn = [
        (Stage::Refresh, "s5", Stroke::Dots),
        (Stage::Bev, "s3", Stroke::Line),
        (Stage::Action, "s4", Stroke::Line),
        (Stage::Tick, "s1", Stroke::Line),
    ];
    let in_ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let mut series: Vec<_> = drawn
        .into_iter()
        .map(|(stage, class, stroke)| {
            let took = |tick: &TickLog| {
                let took = tick.stages.took(stage).filter(|took| !took.is_zero());
                took.map(|took| [tick.time_s, in_ms(took)])
            };
            let points = log.ticks.iter().map(took).collect();
            Series { name: stage.name().to_owned(), class, stroke, points }
        })
        .filter(|series| series.points.iter().any(Option::is_some))
        .collect();
    let ranges: Vec<_> = series.iter().filter_map(|series| range(&series.points)).collect();
    if ranges.is_empty() {
        return None;
    }
    let low = ranges.iter().map(|range| range.0).fold(f64::INFINITY, f64::min);
    let mut high = ranges.iter().map(|range| range.1).fold(0.0, f64::max);
    if let Some(budget) = budget {
        let end_s = log.ticks.last().map_or(1.0, |tick| tick.time_s);
        high = high.max(in_ms(budget));
        series.push(Series {
            name: format!("tick deadline, {} ms", short(in_ms(budget))),
            class: "slimit",
            stroke: Stroke::Dashed,
            points: [0.0, end_s].map(|time_s| Some([time_s, in_ms(budget)])).to_vec(),
        });
    }
    let misses: Vec<_> = log
        .ticks
        .iter()
        .filter(|tick| tick.deadline != DeadlineVerdict::Met)
        .filter_map(|tick| Some(Some([tick.time_s, in_ms(tick.stages.took(Stage::Tick)?)])))
        .collect();
    if !misses.is_empty() {
        let name = "deadline miss".to_owned();
        series.push(Series { name, class: "sbad", stroke: Stroke::Dots, points: misses });
    }
    let plot = Plot {
        description: "Latency of the stages over time, logarithmic",
        size: HALF,
        x: time_axis(log),
        y: Axis::log("latency (ms)", low, high),
        y_down: false,
        series: &series,
        marks: &[],
    };
    Some(plot.draw())
}

/// `None` if there never was a prefix.
fn prefix_plot(log: &RouteLog) -> Option<String> {
    let age = |tick: &TickLog| Some([tick.time_s, tick.prefix?.age.as_secs_f64() * 1e3]);
    let points: Vec<_> = log.ticks.iter().map(age).collect();
    let (_, high) = range(&points)?;
    let series = [Series { name: "age".to_owned(), class: "s2", stroke: Stroke::Line, points }];
    let plot = Plot {
        description: "Age of the prefix over time",
        size: HALF,
        x: time_axis(log),
        y: Axis::linear("age of the prefix (ms)", 0.0, high),
        y_down: false,
        series: &series,
        marks: &[],
    };
    Some(plot.draw())
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..4 {
            if letter <= chunk.len() {
                out.push(char::from(LETTERS[(bits >> (18 - 6 * letter)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_the_standard_says() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
