//! Histogram of every stage with logarithmic axes.

use super::{alone, is_of_prefill, samples_ns};
use crate::latency_file::{LatencyFile, Phase, PhaseName};
use tandem::timing::Stage;
use tandem_page::chart::{Axis, Plot, Series, Stroke};
use tandem_page::{escape, figure, milliseconds};

/// Number of columns of a histogram.
const COLUMNS: usize = 36;

const SIZE: [f64; 2] = [330.0, 190.0];

/// Returns a small histogram per stage; empty without samples.
pub(super) fn drawings(file: &LatencyFile, phase: &Phase) -> String {
    let is_alone = matches!(phase.name, PhaseName::ActionAlone | PhaseName::UnderstandingAlone);
    let figures: String = Stage::all()
        .iter()
        .copied()
        .filter_map(|stage| {
            let here = samples_ns(phase, stage);
            let reference = if is_alone { None } else { alone(file, stage) };
            let reference = reference.map(|phase| samples_ns(phase, stage)).unwrap_or_default();
            let drawing = drawing(stage, &here, &reference)?;
            let caption = match phase.statistics.stage(stage).summary() {
                Some(summary) => format!(
                    "p50 {} ms, p99 {} ms, max {} ms",
                    milliseconds(summary.p50_ns),
                    milliseconds(summary.p99_ns),
                    milliseconds(summary.max_ns)
                ),
                None => String::new(),
            };
            Some(figure(&escape(stage.name()), &drawing, &caption))
        })
        .collect();
    if figures.is_empty() {
        return String::new();
    }
    let is_first = file.phases.first().is_some_and(|first| std::ptr::eq(first, phase));
    let open = if is_first { " open=\"\"" } else { "" };
    format!(
        "<details class=\"card\"{open}><summary>Distributions</summary><p class=\"small\">Both axes are logarithmic, so that single values are visible next to \
         thousands. Columns have equal width in the logarithm of the time.</p>\
         <div class=\"plots thirds\">{figures}</div></details>"
    )
}

/// Returns the histogram; `None` without samples in this phase.
fn drawing(stage: Stage, here: &[u64], alone: &[u64]) -> Option<String> {
    here.first()?;
    let both = || here.iter().chain(alone).copied();
    let (unit, unit_ns) = if both().max()? < 500_000 { ("µs", 1e3) } else { ("ms", 1e6) };
    let in_unit = |nanos: u64| nanos.max(1) as f64 / unit_ns;
    let (low, high) = (in_unit(both().min()?) * 0.97, in_unit(both().max()?) * 1.03);
    // A minimum range keeps columns of nearly equal values distinguishable.
    let high = high.max(low * 1.2);
    let width = (high / low).ln() / COLUMNS as f64;
    let count = |samples: &[u64]| {
        let mut counts = [0u64; COLUMNS];
        for &nanos in samples {
            let column = ((in_unit(nanos) / low).ln() / width) as usize;
            counts[column.min(COLUMNS - 1)] += 1;
        }
        counts
    };
    let points = |counts: [u64; COLUMNS]| {
        let edge = |column: usize| low * (width * column as f64).exp();
        let columns = counts.into_iter().enumerate();
        let mut points: Vec<_> =
            columns.map(|(column, count)| Some([edge(column), count as f64])).collect();
        points.push(Some([edge(COLUMNS), 0.0]));
        points
    };
    let here = count(here);
    let mut series = vec![Series {
        name: "in the loop".to_owned(),
        class: "s1",
        stroke: Stroke::Columns,
        points: points(here),
    }];
    let mut most = here.into_iter().max()?;
    if !alone.is_empty() {
        let alone = count(alone);
        most = most.max(alone.into_iter().max()?);
        series.push(Series {
            name: "alone".to_owned(),
            class: "s2",
            stroke: Stroke::Outline,
            points: points(alone),
        });
    }
    let of = if is_of_prefill(stage) { "refreshes" } else { "ticks" };
    let plot = Plot {
        description: &format!("Histogram of {}", stage.name()),
        size: SIZE,
        x: Axis::exact_log(&format!("time ({unit}), logarithmic"), low, high),
        // Starts below one, so that a single value has a visible height.
        y: Axis::exact_log(of, 0.6, most as f64 * 1.25),
        y_down: false,
        series: &series,
        marks: &[],
    };
    Some(plot.draw())
}
