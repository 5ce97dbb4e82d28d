//! Roofline section: measured times and lower bounds of stages.

use super::timeline::wide;
use std::fmt::Write;
use tandem_page::chart::{Axis, Mark, Plot, RowAxis, Series, Shape, Stroke};
use tandem_page::{escape, figure, significant};

/// Input of the roofline section. Rows and peak rates with a required number that is not positive
/// and finite are omitted from the charts; rows are still listed in the table.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RooflineChart {
    /// Peak rates of the machine or machines; the log-log chart needs at least one.
    pub ceilings: Vec<PeakRate>,
    pub rows: Vec<RooflineRow>,
}

/// Peak rates of a machine for one element type.
#[derive(Clone, PartialEq, Debug)]
pub struct PeakRate {
    /// Label with the source of the rates, e.g. "f32, measured here".
    pub name: String,
    /// Memory bandwidth between memory and cores, bytes per second.
    pub bytes_per_s: f64,
    pub flops_per_s: f64,
}

/// One stage, with the sum of its runs in one tick or prefill.
#[derive(Clone, PartialEq, Debug)]
pub struct RooflineRow {
    pub stage: String,
    /// Lower bound of its time, milliseconds.
    pub floor_ms: f64,
    /// Time for its memory traffic alone, milliseconds.
    pub memory_ms: f64,
    /// Time for its operations alone, milliseconds.
    pub compute_ms: f64,
    /// Measured median, milliseconds; `None` if not measured.
    pub measured_p50_ms: Option<f64>,
    /// True if the peak rates are those of another machine than the one that ran.
    pub is_predicted: bool,
    pub flops: f64,
    pub bytes: f64,
}

impl RooflineRow {
    /// Returns the arithmetic intensity, operations per byte.
    pub fn intensity(&self) -> f64 {
        self.flops / self.bytes
    }
}

fn is_drawable(value: f64) -> bool {
    (1e-12..=1e18).contains(&value)
}

/// Text of the section if no chart was given.
const HOW_TO_GET: &str = "No device was given. <code>tandem profile</code> with \
    <code>--device</code> counts the bytes and operations of every network and shows here the \
    lower bound of each stage.";

/// Returns the HTML of the section.
pub(super) fn section(chart: Option<&RooflineChart>) -> String {
    let Some(chart) = chart.filter(|chart| !chart.rows.is_empty()) else {
        return format!("<div class=\"card\"><p>{HOW_TO_GET}</p></div>");
    };
    let mut out = String::from("<div class=\"card\"><h3>Measured times and lower bounds</h3>");
    out += &bars(chart);
    out += &table(chart);
    out += "</div>";
    if let Some(drawing) = log_log(chart) {
        let caption = "Under the sloped part of a roofline a stage is memory-bound, under the flat part \
                       compute-bound. A stage that was not measured is shown at its lower bound, as a square.";
        let _ = write!(
            out,
            "<div class=\"card\">{}</div>",
            figure("Roofline, both axes logarithmic", &wide(&drawing), caption)
        );
    }
    out
}

/// Draws a bar per stage from its lower bound to its measured time; empty if nothing can be drawn.
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
    let mut out =
        axis.open("Lower bound and measured time of each stage, in milliseconds, logarithmic");
    for (index, row) in rows.iter().enumerate() {
        let middle = axis.middle(index);
        let floor = axis.to_page(row.floor_ms);
        let predicted = if row.is_predicted { " predicted" } else { "" };
        let _ = write!(
            out,
            "<g><title>{}: lower bound {} ms</title>{}",
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
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"floor\" d=\"M11 0V12\"/></svg>lower bound</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"floor predicted\" d=\"M11 0V12\"/></svg>lower bound, predicted</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><circle class=\"dot s2\" cx=\"11\" cy=\"6\" r=\"4\"/></svg>memory alone</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><circle class=\"dot s4\" cx=\"11\" cy=\"6\" r=\"4\"/></svg>compute alone</span>\
    <span><svg class=\"key\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"median\" d=\"M11 0V12\"/></svg>measured, p50</span></div>";

/// Formats a number with three significant digits.
fn figures(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    significant(value, 3)
}

fn table(chart: &RooflineChart) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table><thead><tr><th>Stage</th><th class=\"n\">Lower bound<br/>ms</th>\
         <th class=\"n\">Memory<br/>ms</th><th class=\"n\">Compute<br/>ms</th><th>Bound by</th>\
         <th class=\"n\">FLOP<br/>per byte</th><th class=\"n\">Measured<br/>p50 ms</th>\
         <th class=\"n\">Measured<br/>÷ bound</th><th>Peak rates</th></tr></thead><tbody>",
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
            if row.is_predicted { "of another machine" } else { "of this machine" }
        );
    }
    out + "</tbody></table></div>"
}

/// Draws the roofline chart; `None` without peak rates or without a stage that can be drawn.
fn log_log(chart: &RooflineChart) -> Option<String> {
    let ceilings: Vec<_> = chart
        .ceilings
        .iter()
        .filter(|ceiling| is_drawable(ceiling.bytes_per_s) && is_drawable(ceiling.flops_per_s))
        .collect();
    // Intensity, and operations per second: measured, or at the lower bound if not measured.
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
        description: "Roofline: operations per second over operations per byte, both logarithmic",
        size: [1040.0, 400.0],
        x: Axis::exact_log("arithmetic intensity (FLOP per byte)", left, right),
        y: Axis::exact_log(unit, below / scale, highest * 2.0 / scale),
        y_down: false,
        series: &series,
        marks: &marks,
    };
    Some(plot.draw())
}
