//! Charts of single ticks, stage by stage, with the prefills that ran concurrently.

use super::timeline::wide;
use super::{budget_ns, is_of_prefill};
use crate::latency_file::{LatencyFile, Phase, StageColumn};
use crate::samples::nearest_rank;
use std::collections::BTreeMap;
use std::fmt::Write;
use tandem::timing::{Percentile, Role, Stage};
use tandem_page::chart::{Axis, RowAxis};
use tandem_page::{escape, figure, milliseconds};

const ROW_HEIGHT: f64 = 20.0;

/// Returns charts of the median tick, the tick at p99 and the slowest; empty without ticks.
pub(super) fn drawings(file: &LatencyFile, phase: &Phase) -> String {
    let by_time = phase.ticks_by_time();
    let Some(stage) = phase.main_stage() else { return String::new() };
    let picks = [
        ("Median tick", nearest_rank(&by_time, Percentile::P50)),
        ("Tick at p99", nearest_rank(&by_time, Percentile::P99)),
        ("Slowest tick", by_time.last().copied()),
    ];
    let mut titles: Vec<(Vec<&str>, (usize, u64))> = Vec::new();
    for (title, pick) in picks {
        let Some(pick) = pick else { continue };
        match titles.iter_mut().find(|(_, listed)| *listed == pick) {
            Some((same, _)) => same.push(title),
            None => titles.push((vec![title], pick)),
        }
    }
    if titles.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "<p class=\"small\">Selected by nearest rank of {} among the {} sampled ticks. A stage that ran \
         several times is one bar, from its first start and as long as all its runs. Bars are cut \
         off at the edge of the chart.</p>",
        stage.name(),
        by_time.len()
    );
    out += LEGEND;
    for (same, (index, took_ns)) in titles {
        let title = format!("{}: tick {index}, {} ms", same.join(", "), milliseconds(took_ns));
        let (drawing, caption) = drawing(file, phase, index);
        out += &figure(&title, &wide(&drawing), &escape(&caption));
    }
    out
}

const LEGEND: &str = "<div class=\"legend\">\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><rect class=\"bar whole\" x=\"0\" y=\"1\" width=\"22\" height=\"10\"/></svg>stage with parts</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><rect class=\"bar network\" x=\"0\" y=\"1\" width=\"22\" height=\"10\"/></svg>network</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><rect class=\"bar code\" x=\"0\" y=\"1\" width=\"22\" height=\"10\"/></svg>host code, copies</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><rect class=\"bar waiting\" x=\"0\" y=\"1\" width=\"22\" height=\"10\"/></svg>waiting</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"dashed slimit\" d=\"M0 6H22\"/></svg>deadline</span></div>";

/// Returns the CSS class of a stage's bar.
fn class(stage: Stage) -> &'static str {
    match stage.role() {
        Role::FastNetwork | Role::SlowNetwork => "network",
        Role::Waiting => "waiting",
        Role::Host if stage.parts().next().is_some() => "whole",
        Role::Host | Role::Copy => "code",
    }
}

/// Bar of a stage; times are milliseconds from the start of the tick.
struct Bar {
    stage: Stage,
    start_ms: f64,
    took_ns: u64,
}

impl Bar {
    fn end_ms(&self) -> f64 {
        self.start_ms + self.took_ns as f64 / 1e6
    }
}

/// Returns the stages of one sample by start, each before its parts.
fn bars(stages: &BTreeMap<String, StageColumn>, index: usize, zero_ns: u64) -> Vec<Bar> {
    let mut bars: Vec<_> = Stage::all()
        .iter()
        .copied()
        .filter_map(|stage| {
            let (start_ns, took_ns) = stages.get(stage.name())?.span(index)?;
            let start_ms = (start_ns as f64 - zero_ns as f64) / 1e6;
            Some(Bar { stage, start_ms, took_ns })
        })
        .collect();
    bars.sort_by(|left, right| {
        left.start_ms.total_cmp(&right.start_ms).then(left.stage.cmp(&right.stage))
    });
    bars
}

/// Returns the chart of one tick and its caption.
fn drawing(file: &LatencyFile, phase: &Phase, index: usize) -> (String, String) {
    let zero_ns = phase.ticks.start_ns.get(index).copied().unwrap_or(0);
    let tick = bars(&phase.ticks.stages, index, zero_ns);
    let begin_ms = tick.iter().map(|bar| bar.start_ms).fold(0.0, f64::min);
    let end_ms = tick.iter().map(Bar::end_ms).fold(0.0, f64::max).max(1e-3);
    let budget_ms = budget_ns(file) / 1e6;
    // A distant deadline would leave no room for the stages, so it is not drawn.
    let is_deadline_drawn = budget_ms > 0.0 && budget_ms <= 4.0 * end_ms;
    let last_ms = if is_deadline_drawn { end_ms.max(budget_ms) } else { end_ms } * 1.02;

    let refreshes = refreshes(phase, zero_ns, begin_ms, end_ms);
    let rows = tick.len() + refreshes.iter().map(|(_, bars)| bars.len() + 1).sum::<usize>();
    let axis = RowAxis::new(
        Axis::exact("time since the tick began (ms)", begin_ms, last_ms),
        rows + 1,
        ROW_HEIGHT,
    );
    let mut out = axis.open(&format!("Stages of tick {index} over time"));
    let mut row = 0;
    heading(&mut out, &axis, &mut row, "on the tick's thread");
    for bar in &tick {
        draw(&mut out, &axis, &mut row, bar);
    }
    for (version, bars) in &refreshes {
        let title = format!("on the understanding expert's thread: prefill of prefix {version}");
        heading(&mut out, &axis, &mut row, &title);
        for bar in bars {
            draw(&mut out, &axis, &mut row, bar);
        }
    }
    let [top, bottom] = axis.height();
    if is_deadline_drawn {
        let x = axis.to_page(budget_ms);
        let _ = write!(out, r#"<path class="dashed slimit" d="M{x:.1} {top}V{bottom}"/>"#);
    }
    out += "</svg>";
    (out, caption(phase, index, &refreshes, is_deadline_drawn.then_some(budget_ms)))
}

/// Returns the prefills that ran during the tick: version, and stages in the visible window.
fn refreshes(phase: &Phase, zero_ns: u64, begin_ms: f64, end_ms: f64) -> Vec<(u64, Vec<Bar>)> {
    let overlaps = |bar: &Bar| bar.start_ms < end_ms && bar.end_ms() > begin_ms;
    phase
        .refreshes
        .version
        .iter()
        .enumerate()
        .filter_map(|(index, &version)| {
            let all = bars(&phase.refreshes.stages, index, zero_ns);
            let is_concurrent = all.iter().any(|bar| bar.stage == Stage::PREFILL && overlaps(bar));
            let seen = || all.into_iter().filter(|bar| is_of_prefill(bar.stage) && overlaps(bar));
            is_concurrent.then(|| (version, seen().collect()))
        })
        .collect()
}

fn caption(
    phase: &Phase,
    index: usize,
    refreshes: &[(u64, Vec<Bar>)],
    drawn_deadline_ms: Option<f64>,
) -> String {
    let mut out = Vec::new();
    for (version, bars) in refreshes {
        let whole = bars.iter().find(|bar| bar.stage == Stage::PREFILL);
        out.extend(whole.map(|bar| {
            let when = if bar.start_ms < 0.0 { "before" } else { "after" };
            format!(
                "The prefill of prefix {version} started {:.1} ms {when} the tick and took {} ms.",
                bar.start_ms.abs(),
                milliseconds(bar.took_ns)
            )
        }));
    }
    if refreshes.is_empty() {
        let is_refreshing = phase.ticks.is_refreshing.get(index) == Some(&true);
        out.push(if is_refreshing {
            "A prefill was running that was not sampled.".to_owned()
        } else {
            "No prefill was running.".to_owned()
        });
    }
    if drawn_deadline_ms.is_none() {
        out.push("The deadline is beyond the right edge of the chart.".to_owned());
    }
    match phase.ticks.late_by_ns.get(index).copied().flatten() {
        Some(late_ns) => out.push(format!("Missed its deadline by {} ms.", milliseconds(late_ns))),
        None => out.push("Met its deadline.".to_owned()),
    }
    out.join(" ")
}

/// Draws a heading above the following rows.
fn heading(out: &mut String, axis: &RowAxis, row: &mut usize, text: &str) {
    let y = axis.middle(*row) + 5.0;
    let _ = write!(
        out,
        r#"<text class="word" x="{:.1}" y="{y:.1}">{}</text>"#,
        axis.to_page(f64::NAN) + 2.0,
        escape(text)
    );
    *row += 1;
}

fn draw(out: &mut String, axis: &RowAxis, row: &mut usize, bar: &Bar) {
    let (left, right) = (axis.to_page(bar.start_ms), axis.to_page(bar.end_ms()));
    let middle = axis.middle(*row);
    let took = milliseconds(bar.took_ns);
    let _ = write!(
        out,
        r#"<g><title>{}: from {:.3} ms, {took} ms</title>{}<rect class="bar {}" x="{left:.1}" y="{:.1}" width="{:.1}" height="{:.1}"/><text x="{:.1}" y="{:.1}">{took}</text></g>"#,
        bar.stage.name(),
        bar.start_ms,
        axis.name(*row, bar.stage.name()),
        class(bar.stage),
        middle - 6.0,
        (right - left).max(1.5),
        12.0,
        right.max(left + 1.5) + 5.0,
        middle + 4.0
    );
    *row += 1;
}
