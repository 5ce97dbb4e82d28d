//! Charts of tick time and prefix age over time.

use super::budget_ns;
use crate::latency_file::{LatencyFile, Phase};
use crate::samples::{Part, nearest_rank};
use crate::worst::is_first_on_prefix;
use tandem::timing::{Percentile, Stage};
use tandem_page::chart::{Axis, Plot, Series, Stroke, short};
use tandem_page::figure;

const SIZE: [f64; 2] = [1040.0, 270.0];

/// Returns both charts; empty without ticks.
pub(super) fn drawings(file: &LatencyFile, phase: &Phase) -> String {
    let mut out = String::new();
    if let Some(drawing) = tick_plot(file, phase) {
        out += &figure("Time of each tick", &wide(&drawing), "");
    }
    if let Some(drawing) = age_plot(phase) {
        let caption = "Time of the tick minus capture time of the newest frame in the prefix that it \
                       acted on.";
        out += &figure("Age of the prefix", &wide(&drawing), caption);
    }
    out
}

/// Wraps a drawing so that it scrolls where it would become too small to read.
pub(super) fn wide(drawing: &str) -> String {
    format!("<div class=\"scroll\">{drawing}</div>")
}

fn at_s(phase: &Phase, index: usize) -> f64 {
    phase.ticks.start_ns.get(index).map_or(0.0, |&start_ns| start_ns as f64 / 1e9)
}

fn time_axis(phase: &Phase) -> Axis {
    let last = phase.ticks.start_ns.len().saturating_sub(1);
    Axis::exact("time since the phase began (s)", at_s(phase, 0), at_s(phase, last))
}

/// Returns the chart of tick times; `None` if no tick was timed.
fn tick_plot(file: &LatencyFile, phase: &Phase) -> Option<String> {
    let stage = phase.main_stage()?;
    let part = Part::whole(stage);
    let point = |index: usize| {
        let took_ns = part.took_ns(&phase.ticks.stages, index)?;
        Some([at_s(phase, index), took_ns as f64 / 1e6])
    };
    let points: Vec<_> = (0..phase.ticks.start_ns.len()).map(point).collect();
    let by_time = phase.ticks_by_time();
    let in_ms = |nanos: u64| nanos as f64 / 1e6;
    let median = in_ms(nearest_rank(&by_time, Percentile::P50)?.1);
    let (low, high) = (in_ms(by_time.first()?.1), in_ms(by_time.last()?.1));
    let budget = budget_ns(file) / 1e6;
    let with_budget = high.max(budget);
    let y = if with_budget > 12.0 * median {
        Axis::exact_log(
            &format!("{} (ms), logarithmic", stage.name()),
            low.min(budget).max(1e-6) * 0.8,
            with_budget * 1.3,
        )
    } else {
        Axis::linear(&format!("{} (ms)", stage.name()), 0.0, with_budget)
    };
    let is_late = |index: usize| phase.ticks.late_by_ns.get(index).copied().flatten().is_some();
    let late = (0..points.len()).filter(|&index| is_late(index)).map(|index| points[index]);
    let late: Vec<_> = late.collect();
    let ends = [0, points.len() - 1].map(|index| Some([at_s(phase, index), budget]));
    let mut series = vec![
        Series { name: stage.name().to_owned(), class: "s1", stroke: Stroke::Line, points },
        Series {
            name: format!("deadline, {} ms", short(budget)),
            class: "slimit",
            stroke: Stroke::Dashed,
            points: ends.to_vec(),
        },
    ];
    if late.iter().any(Option::is_some) {
        let name = "deadline miss".to_owned();
        series.push(Series { name, class: "sbad", stroke: Stroke::Dots, points: late });
    }
    let description = if stage == Stage::RESPONSE {
        "Response of each tick over time"
    } else {
        "Time of each tick over time"
    };
    let x = time_axis(phase);
    Some(Plot { description, size: SIZE, x, y, y_down: false, series: &series, marks: &[] }.draw())
}

/// Returns the chart of prefix ages; `None` if no tick had a prefix.
fn age_plot(phase: &Phase) -> Option<String> {
    let age = |index: usize| {
        let age_ns = phase.ticks.prefix_age_ns.get(index).copied().flatten()?;
        Some([at_s(phase, index), age_ns as f64 / 1e6])
    };
    let points: Vec<_> = (0..phase.ticks.start_ns.len()).map(age).collect();
    let high = points.iter().flatten().map(|point| point[1]).max_by(f64::total_cmp)?;
    let changes = (0..points.len()).filter(|&index| is_first_on_prefix(phase, index));
    let changes: Vec<_> = changes.map(|index| points[index]).collect();
    let mut series = vec![Series {
        name: "age".to_owned(),
        class: "s2",
        stroke: Stroke::Line,
        points: points.clone(),
    }];
    if changes.iter().any(Option::is_some) {
        series.push(Series {
            name: format!("first tick on a new prefix ({})", changes.len()),
            class: "s4",
            stroke: Stroke::Dots,
            points: changes,
        });
    }
    let plot = Plot {
        description: "Age of the prefix over time",
        size: SIZE,
        x: time_axis(phase),
        y: Axis::linear("age of the prefix (ms)", 0.0, high),
        y_down: false,
        series: &series,
        marks: &[],
    };
    Some(plot.draw())
}
