//! What stages took against the least that the machine could take for them.

use super::timeline::wide;
use std::fmt::Write;
use tandem_page::chart::{Axis, Mark, Plot, RowAxis, Series, Shape, Stroke};
use tandem_page::{escape, figure};

/// Drawn input of the roofline section. Rows and ceilings that hold a number which is not positive
/// and finite where one is needed are left out of the drawings and named in the table.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RooflineChart {
    /// The machine, or machines: at least one ceiling for the log-log chart.
    pub ceilings: Vec<Ceiling>,
    /// Stages, in order.
    pub rows: Vec<RooflineRow>,
}

/// What a machine can do at most.
#[derive(Clone, PartialEq, Debug)]
pub struct Ceiling {
    /// What and how it is known, e.g. "f32, measured here".
    pub name: String,
    /// Bytes a second between memory and cores.
    pub bytes_per_s: f64,
    /// Operations a second.
    pub flops_per_s: f64,
}

/// One stage, all its runs in one tick or refresh together.
#[derive(Clone, PartialEq, Debug)]
pub struct RooflineRow {
    /// Its name.
    pub stage: String,
    /// The least it can take, milliseconds.
    pub floor_ms: f64,
    /// What moving its bytes takes, milliseconds.
    pub memory_ms: f64,
    /// What its operations take, milliseconds.
    pub compute_ms: f64,
    /// What it took, p50, milliseconds; `None` where it was not measured.
    pub measured_p50_ms: Option<f64>,
    /// Whether the floor is of a machine that was not at hand.
    pub is_predicted: bool,
    /// Its operations.
    pub flops: f64,
    /// Its bytes.
    pub bytes: f64,
}

impl RooflineRow {
    /// Operations per byte.
    pub fn intensity(&self) -> f64 {
        self.flops / self.bytes
    }
}

fn is_drawable(value: f64) -> bool {
    (1e-12..=1e18).contains(&value)
}

/// What stands here when no chart was given.
const HOW_TO_GET: &str = "No cost model was given. <code>tandem profile</code> with \
    <code>--device</code> counts the bytes and operations of every network and draws here what \
    each stage could take at least.";

/// The section.
pub(super) fn section(chart: Option<&RooflineChart>) -> String {
    let Some(chart) = chart.filter(|chart| !chart.rows.is_empty()) else {
        return format!("<div class=\"card\"><p>{HOW_TO_GET}</p></div>");
    };
    let mut out = String::from("<div class=\"card\"><h3>Measured against the floor</h3>");
    out += &bars(chart);
    out += &table(chart);
    out += "</div>";
    if let Some(drawing) = log_log(chart) {
        let caption = "Under the slanted part of a ceiling memory is the bound, under its flat part \
                       compute is. A stage that was not measured lies on its floor, as a square.";
        let _ = write!(
            out,
            "<div class=\"card\">{}</div>",
            figure("Roofline, both axes logarithmic", &wide(&drawing), caption)
        );
    }
    out
}

/// A bar per stage from its floor to what it took; nothing if no stage can be drawn.
fn bars(chart: &RooflineChart) -> String {
    let rows: Vec<_> = chart.rows.iter().filter(|row| is_drawable(row.floor_ms)).collect();
    let measured = |row: &RooflineRow| row.measured_p50_ms.filter(|&ms| is_drawable(ms));
    let times = || {
        rows.iter().flat_map(|row| {
            let all =
                [Some(row.floor_ms), Some(row.memory_ms), Some(row.compute_ms), measured(row)];
            all.into_iter().flatten().filter(|&ms| is_drawable(ms))
        })
    };
    let low = times().fold(f64::INFINITY, f64::min);
    let high = times().fold(0.0, f64::max);
    if rows.is_empty() {
        return String::new();
    }
    let axis = Axis::exact_log("time (ms), logarithmic", low * 0.8, high * 1.25);
    let axis = RowAxis::new(axis, rows.len(), 30.0);
    let mut out = axis.open("Floor and measured time of each stage, in milliseconds, logarithmic");
    for (index, row) in rows.iter().enumerate() {
        let middle = axis.middle(index);
        let floor = axis.to_page(row.floor_ms);
        let predicted = if row.is_predicted { " predicted" } else { "" };
        let _ = write!(
            out,
            "<g><title>{}: floor {} ms</title>{}",
            escape(&row.stage),
            figures(row.floor_ms),
            axis.name(index, &row.stage)
        );
        if let Some(took_ms) = measured(row) {
            let took = axis.to_page(took_ms);
            let (left, right) = (floor.min(took), floor.max(took));
            let _ = write!(
                out,
                r#"<rect class="box" x="{left:.1}" y="{:.1}" width="{:.1}" height="14"/><path class="median" d="M{took:.1} {:.1}V{:.1}"/><text x="{:.1}" y="{:.1}">×{}</text>"#,
                middle - 7.0,
                (right - left).max(1.0),
                middle - 8.0,
                middle + 8.0,
                right + 7.0,
                middle + 4.0,
                figures(took_ms / row.floor_ms)
            );
        }
        for (value, class) in [(row.memory_ms, "s2"), (row.compute_ms, "s4")] {
            if is_drawable(value) {
                let x = axis.to_page(value);
                let _ = write!(
                    out,
                    r#"<circle class="dot {class}" cx="{x:.1}" cy="{middle:.1}" r="4"/>"#
                );
            }
        }
        let _ = write!(
            out,
            r#"<path class="floor{predicted}" d="M{floor:.1} {:.1}V{:.1}"/></g>"#,
            middle - 10.0,
            middle + 10.0
        );
    }
    out += "</svg>";
    format!("{LEGEND}{}", wide(&out))
}

const LEGEND: &str = "<div class=\"legend\">\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"floor\" d=\"M11 0V12\"/></svg>floor</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"floor predicted\" d=\"M11 0V12\"/></svg>floor, predicted</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><circle class=\"dot s2\" cx=\"11\" cy=\"6\" r=\"4\"/></svg>memory alone</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><circle class=\"dot s4\" cx=\"11\" cy=\"6\" r=\"4\"/></svg>compute alone</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"median\" d=\"M11 0V12\"/></svg>measured, p50</span></div>";

/// Three significant digits.
fn figures(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        v if v >= 0.01 => 4,
        _ => 6,
    };
    format!("{value:.digits$}")
}

fn table(chart: &RooflineChart) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table><thead><tr><th>Stage</th><th class=\"n\">Floor<br/>ms</th>\
         <th class=\"n\">Memory<br/>ms</th><th class=\"n\">Compute<br/>ms</th><th>Bound by</th>\
         <th class=\"n\">FLOP<br/>per byte</th><th class=\"n\">Measured<br/>p50 ms</th>\
         <th class=\"n\">Measured<br/>÷ floor</th><th>The floor is</th></tr></thead><tbody>",
    );
    for row in &chart.rows {
        let bound = if row.memory_ms >= row.compute_ms { "memory" } else { "compute" };
        let measured = row.measured_p50_ms;
        let _ = write!(out, "<tr><td class=\"w\">{}</td>", escape(&row.stage));
        for value in [row.floor_ms, row.memory_ms, row.compute_ms] {
            let _ = write!(out, "<td class=\"n\">{}</td>", figures(value));
        }
        let _ = write!(
            out,
            "<td>{bound}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            figures(row.intensity()),
            measured.map_or_else(|| "–".to_owned(), figures),
            measured.map_or_else(|| "–".to_owned(), |ms| figures(ms / row.floor_ms)),
            if row.is_predicted { "predicted" } else { "of this machine" }
        );
    }
    out + "</tbody></table></div>"
}

/// The classic chart; `None` without a ceiling and a stage that can be drawn.
fn log_log(chart: &RooflineChart) -> Option<String> {
    let ceilings: Vec<_> = chart
        .ceilings
        .iter()
        .filter(|ceiling| is_drawable(ceiling.bytes_per_s) && is_drawable(ceiling.flops_per_s))
        .collect();
    // Intensity and operations a second, reached or (not measured) possible at most.
    let points: Vec<_> = chart
        .rows
        .iter()
        .filter_map(|row| {
            let time_ms = row.measured_p50_ms.unwrap_or(row.floor_ms);
            let point = [row.intensity(), row.flops / (time_ms / 1e3)];
            point.iter().all(|&value| is_drawable(value)).then_some((row, point))
        })
        .collect();
    let most = ceilings.iter().map(|ceiling| ceiling.flops_per_s).max_by(f64::total_cmp)?;
    points.first()?;
    let (unit, scale) = if most >= 1e13 { ("TFLOP/s", 1e12) } else { ("GFLOP/s", 1e9) };
    let ridges = || ceilings.iter().map(|ceiling| ceiling.flops_per_s / ceiling.bytes_per_s);
    let across = || points.iter().map(|(_, point)| point[0]).chain(ridges());
    let left = across().fold(f64::INFINITY, f64::min) / 4.0;
    let right = across().fold(0.0, f64::max) * 4.0;
    let lowest = points.iter().map(|(_, point)| point[1]).fold(f64::INFINITY, f64::min);
    let below = ceilings.iter().map(|ceiling| ceiling.bytes_per_s * left).fold(lowest, f64::min);
    let highest = points.iter().map(|(_, point)| point[1]).fold(most, f64::max);
    let series: Vec<_> = ceilings
        .iter()
        .zip(["s1", "s2", "s3", "s4", "s5"].into_iter().cycle())
        .map(|(ceiling, class)| {
            let ridge = ceiling.flops_per_s / ceiling.bytes_per_s;
            let at = |x: f64| Some([x, (ceiling.bytes_per_s * x).min(ceiling.flops_per_s) / scale]);
            let points = vec![at(left), at(ridge), at(right)];
            Series { name: ceiling.name.clone(), class, stroke: Stroke::Line, points }
        })
        .collect();
    let marks: Vec<_> = points
        .iter()
        .map(|(row, point)| Mark {
            at: [point[0], point[1] / scale],
            class: "s1",
            shape: if row.measured_p50_ms.is_some() { Shape::Circle } else { Shape::Square },
            word: row.stage.clone(),
            tip: format!(
                "{}: {} FLOP per byte, {} {unit}",
                row.stage,
                figures(point[0]),
                figures(point[1] / scale)
            ),
        })
        .collect();
    let plot = Plot {
        description: "Roofline: operations a second over operations per byte, both logarithmic",
        size: [1040.0, 400.0],
        x: Axis::exact_log("arithmetic intensity (FLOP per byte)", left, right),
        y: Axis::exact_log(unit, below / scale, highest * 2.0 / scale),
        y_down: false,
        series: &series,
        marks: &marks,
    };
    Some(plot.draw())
}
