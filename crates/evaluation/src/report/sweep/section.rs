//! What latency costs, as curves: the figures of a sweep.

use crate::report::bootstrap::Estimate;
use crate::report::charts::{Charts, Curve, curves};
use crate::report::sweep::{Cell, Sweep};
use std::fmt::Write;
use tandem_page::escape;

/// Title, axis and value of a figure that is drawn.
type Figure = (&'static str, &'static str, fn(&Cell) -> Option<Estimate>);

const FIGURES: [Figure; 3] = [
    ("Driving score", "driving score", |cell| cell.driving_score),
    ("Success rate", "success rate (%)", |cell| cell.success_rate),
    ("Collisions", "collisions per drive", |cell| cell.collisions_per_drive),
];

/// Curves over slow latency, one for each fast latency.
pub(in crate::report) fn section(sweep: &Sweep, charts: &mut Charts) -> String {
    let mut out = format!(
        "<h2 id=\"sweep\">What latency costs</h2><p>{}: {} / {} drives finished, {} routes × {} \
         repetitions in each of {} settings. Bars hold {} % of {} draws of routes.</p>",
        escape(&sweep.driver),
        sweep.finished,
        sweep.total,
        sweep.routes,
        sweep.repetitions,
        sweep.cells.len(),
        sweep.confidence * 100.0,
        sweep.resamples,
    );
    for label in &sweep.emulated {
        let _ = write!(out, "<p><b>{}</b></p>", escape(label));
    }
    for (title, axis, of) in FIGURES {
        let lines: Vec<Curve> = sweep
            .fast
            .iter()
            .enumerate()
            .map(|(fast, latency)| Curve {
                name: format!("fast {} ms", latency.latency),
                points: points(sweep, fast, of),
            })
            .filter(|curve| !curve.points.is_empty())
            .collect();
        if lines.is_empty() {
            continue;
        }
        let chart = charts.add(curves("slow latency (ms)", axis, lines));
        let _ = write!(out, "<div class=\"card\"><h4>{title}</h4>{chart}</div>");
    }
    out + "<p class=\"small\">Over finished drives. Latencies that were recorded have no place on the \
           axis and are left out; <code>sweep.html</code> has all cells and every other figure.</p>"
}

/// The cells of one fast latency that have a place on the axis, by slow latency.
fn points(sweep: &Sweep, fast: usize, of: fn(&Cell) -> Option<Estimate>) -> Vec<[f64; 4]> {
    let cells = sweep.cells.iter().filter(|cell| cell.fast == fast);
    let mut points: Vec<[f64; 4]> = cells
        .filter_map(|cell| {
            let (x, estimate) = (sweep.slow.get(cell.slow)?.millis?, of(cell)?);
            let down = estimate.low.map_or(0.0, |low| estimate.value - low);
            let up = estimate.high.map_or(0.0, |high| high - estimate.value);
            Some([x, estimate.value, down, up])
        })
        .collect();
    points.sort_by(|a, b| a[0].total_cmp(&b[0]));
    points
}
