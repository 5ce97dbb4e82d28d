//! Report section of a sweep: figures over latency as curves.

use crate::report::bootstrap::Estimate;
use crate::report::charts::{Charts, Curve, curves};
use crate::report::sweep::{Cell, Sweep};
use std::fmt::Write;
use tandem_page::escape;

/// Title, axis label and value of a plotted figure.
type Figure = (&'static str, &'static str, fn(&Cell) -> Option<Estimate>);

const FIGURES: [Figure; 3] = [
    ("Driving score", "driving score", |cell| cell.driving_score),
    ("Success rate", "success rate (%)", |cell| cell.success_rate),
    ("Collisions", "collisions per drive", |cell| cell.collisions_per_drive),
];

/// Returns curves over slow latency, one per fast latency.
pub(in crate::report) fn section(sweep: &Sweep, charts: &mut Charts) -> String {
    let mut out = format!(
        "<h2 id=\"sweep\">Effect of latency</h2><p>{}: {} / {} drives finished, {} routes × {} \
         repetitions in each of {} settings. Bars are {} % intervals from {} bootstrap \
         resamples of routes.</p>",
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
    out + "<p class=\"small\">Over finished drives. Recorded latencies have no position on the \
           axis and are not shown; <code>sweep.html</code> contains all cells and all figures.</p>"
}

/// Returns the cells of one fast latency that have a position on the axis, by slow latency.
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
