//! HTML page of a sweep: heat maps over the grid, curves with intervals,
//! and a table of all figures.

use crate::report::bootstrap::Estimate;
use crate::report::sweep::{Age, AxisPoint, Cell, Percentiles, Sweep};
use std::fmt::Write;
use tandem_page::chart::{Axis, Plot, Series, Stroke, short};
use tandem_page::{document, escape, facts, figure, tile};

/// Figure that is plotted over the grid.
struct Quantity {
    title: &'static str,
    axis: &'static str,
    of: fn(&Cell) -> Option<Estimate>,
    is_more_better: bool,
}

const QUANTITIES: [Quantity; 3] = [
    Quantity {
        title: "Driving score",
        axis: "driving score",
        of: |cell| cell.driving_score,
        is_more_better: true,
    },
    Quantity {
        title: "Success rate",
        axis: "success rate (%)",
        of: |cell| cell.success_rate,
        is_more_better: true,
    },
    Quantity {
        title: "Collisions",
        axis: "collisions per drive",
        of: |cell| cell.collisions_per_drive,
        is_more_better: false,
    },
];

/// Colors of curves; further curves reuse them, dashed.
const CLASSES: [&str; 5] = ["s1", "s2", "s3", "s4", "s5"];

impl Sweep {
    /// Returns the sweep as a self-contained page. `settings` are names and
    /// values of further settings.
    pub fn page(&self, settings: &[(String, String)]) -> String {
        let mut body = String::from("<section class=\"tiles\">");
        let (finished, total) = (self.finished, self.total);
        let routes = format!("{} routes × {} repetitions per cell", self.routes, self.repetitions);
        body += &tile("drives finished", &format!("{finished} / {total}"), &routes);
        let cells = format!("{} slow × {} fast latencies", self.slow.len(), self.fast.len());
        body += &tile("cells", &self.cells.len().to_string(), &cells);
        let intervals = format!("{} bootstrap resamples of routes", self.resamples);
        body += &tile("intervals", &format!("{} %", short(self.confidence * 100.0)), &intervals);
        body += "</section>";
        for label in &self.emulated {
            let _ = write!(body, "<p><b>{}</b></p>", escape(label));
        }
        if self.base.is_none() {
            body +=
                "<p>No cell has zero latency, so differences to zero latency are not shown.</p>";
        }
        for quantity in &QUANTITIES {
            let _ = write!(
                body,
                "<h2>{}</h2><section class=\"card\"><div class=\"pair\">",
                quantity.title
            );
            let caption = "rows: slow latency, columns: fast latency (ms); second line: intervals";
            body += &figure("over the grid", &self.heat_map(quantity), caption);
            let caption = "one curve per fast latency; vertical lines are intervals";
            body += &figure("against the slow latency", &self.curves(quantity), caption);
            body += "</div></section>";
        }
        let _ =
            write!(body, "<h2>All figures</h2><section class=\"card\">{}</section>", self.table());
        let _ =
            write!(body, "<h2>Settings</h2><section class=\"card\">{}</section>", facts(settings));
        let subtitle = format!("effect of latency: driver {}", escape(&self.driver));
        document("tandem sweep", &subtitle, &self.note, &body)
    }

    fn heat_map(&self, quantity: &Quantity) -> String {
        let values = self.cells.iter().filter_map(|cell| Some((quantity.of)(cell)?.value));
        let (low, high) = ends(values);
        let mut out = String::from(
            "<div class=\"scroll\"><table class=\"heat\"><thead><tr><th>slow \\ fast</th>",
        );
        for point in &self.fast {
            let _ = write!(out, "<th class=\"n\">{}</th>", escape(&point.latency));
        }
        out += "</tr></thead><tbody>";
        for (slow, point) in self.slow.iter().enumerate() {
            let _ = write!(out, "<tr><th>{}</th>", escape(&point.latency));
            for fast in 0..self.fast.len() {
                let cell = self.cell(slow, fast);
                let Some((cell, found)) = cell.and_then(|cell| Some((cell, (quantity.of)(cell)?)))
                else {
                    out += "<td class=\"n\">–</td>";
                    continue;
                };
                let share = if high > low { (found.value - low) / (high - low) } else { 1.0 };
                let share = if quantity.is_more_better { share } else { 1.0 - share };
                let partly = if cell.finished < cell.total {
                    format!(" <small>{}/{}</small>", cell.finished, cell.total)
                } else {
                    String::new()
                };
                let _ = write!(
                    out,
                    "<td class=\"n\" style=\"--share:{:.0}%\"><b>{}</b>{partly}<br/><small>{}</small></td>",
                    share * 100.0,
                    figures(found.value),
                    interval(&found)
                );
            }
            out += "</tr>";
        }
        out + "</tbody></table></div>"
    }

    fn curves(&self, quantity: &Quantity) -> String {
        let (_, right) = ends(self.slow.iter().filter_map(|point| point.millis));
        let mut series = Vec::new();
        for (fast, point) in self.fast.iter().enumerate() {
            let mut found: Vec<(f64, Estimate)> = (self.slow.iter().enumerate())
                .filter_map(|(slow, at)| Some((at.millis?, (quantity.of)(self.cell(slow, fast)?)?)))
                .collect();
            found.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut points: Vec<Option<[f64; 2]>> =
                found.iter().map(|(x, estimate)| Some([*x, estimate.value])).collect();
            // Offset the intervals of different curves, so that they do not overlap.
            let offset = right * 0.012 * (fast as f64 - (self.fast.len() - 1) as f64 / 2.0);
            for (x, estimate) in &found {
                if let (Some(low), Some(high)) = (estimate.low, estimate.high) {
                    let x = (x + offset).max(0.0);
                    points.extend([None, Some([x, low]), Some([x, high])]);
                }
            }
            let class = CLASSES[fast % CLASSES.len()];
            let stroke = if fast < CLASSES.len() { Stroke::Line } else { Stroke::Dashed };
            series.push(Series { name: format!("fast {}", point.latency), class, stroke, points });
        }
        let points = series.iter().flat_map(|series| series.points.iter().flatten());
        let (low, high) = ends(points.map(|point| point[1]));
        let drawing = Plot {
            description: quantity.title,
            size: [520.0, 320.0],
            x: Axis::linear("slow latency (ms)", 0.0, right.max(1.0)),
            y: Axis::linear(quantity.axis, low.min(0.0), high),
            y_down: false,
            series: &series,
            marks: &[],
        };
        drawing.draw()
    }

    fn cell(&self, slow: usize, fast: usize) -> Option<&Cell> {
        self.cells.iter().find(|cell| (cell.slow, cell.fast) == (slow, fast))
    }

    fn table(&self) -> String {
        let mut out = String::from("<table><thead><tr>");
        for (idx, name) in Self::HEADER.iter().enumerate() {
            let class = if idx < 2 { "" } else { " class=\"n\"" };
            let _ = write!(out, "<th{class}>{name}</th>");
        }
        out += "</tr></thead><tbody>";
        for row in self.rows() {
            out += "<tr>";
            for (idx, value) in row.iter().enumerate() {
                let class = if idx < 2 { "" } else { " class=\"n\"" };
                let _ = write!(out, "<td{class}>{}</td>", escape(value));
            }
            out += "</tr>";
        }
        out + "</tbody></table>"
    }

    /// Headings of the columns of [`rows`](Self::rows).
    pub const HEADER: [&str; 14] = [
        "slow",
        "fast",
        "finished",
        "driving score",
        "vs zero",
        "success %",
        "vs zero",
        "collisions",
        "per km",
        "misses %",
        "held %",
        "age p50/p99 ms",
        "driven since, m",
        "infractions/min late/other",
    ];

    /// Returns one table row per cell: figures with their intervals.
    pub fn rows(&self) -> Vec<[String; 14]> {
        let with = |found: Option<Estimate>| {
            found.map_or("–".to_owned(), |found| {
                format!("{} {}", figures(found.value), interval(&found)).trim_end().to_owned()
            })
        };
        let percent = |found: Option<Estimate>| {
            found.map_or("–".to_owned(), |found| figures(found.value * 100.0))
        };
        let maybe = |found: Option<f64>| found.map_or("–".to_owned(), figures);
        let name = |axis: &[AxisPoint], idx: usize| axis[idx].latency.clone();
        let row = |cell: &Cell| {
            let difference = cell.difference.as_ref();
            let age = |of: fn(&Age) -> Percentiles| {
                cell.age.as_ref().map(of).map_or("–".to_owned(), |age| {
                    format!("{} / {}", figures(age.p50), figures(age.p99))
                })
            };
            let rates = &cell.infractions;
            [
                name(&self.slow, cell.slow),
                name(&self.fast, cell.fast),
                format!("{}/{}", cell.finished, cell.total),
                with(cell.driving_score),
                with(difference.map(|difference| difference.driving_score)),
                with(cell.success_rate),
                with(difference.map(|difference| difference.success_rate)),
                with(cell.collisions_per_drive),
                with(cell.collisions_per_km),
                percent(cell.deadline_miss_rate),
                percent(cell.held_share),
                age(|age| age.ms),
                age(|age| age.meters),
                format!("{} / {}", maybe(rates.behind_per_min), maybe(rates.otherwise_per_min)),
            ]
        };
        self.cells.iter().map(row).collect()
    }
}

/// Formats with two decimals, with one from 10 on.
fn figures(value: f64) -> String {
    if value.abs() >= 9.995 { format!("{value:.1}") } else { format!("{value:.2}") }
}

fn interval(found: &Estimate) -> String {
    match (found.low, found.high) {
        (Some(low), Some(high)) => format!("[{},\u{a0}{}]", figures(low), figures(high)),
        _ => String::new(),
    }
}

/// Returns minimum and maximum; 0 and 1 without values.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low <= high { (low, high) } else { (0.0, 1.0) }
}
