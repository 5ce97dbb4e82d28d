//! Charts in the format of the charting library (Plotly).

use plotly::common::{ErrorData, ErrorType, Fill, Line, LineShape, Mode, Visible};
use plotly::layout::{Axis, AxisType};
use plotly::{Layout, Plot, Scatter};
use tandem_timing::LatencyHistogram;

/// Bins of a latency histogram per decade.
const BINS_PER_DECADE: f64 = 20.0;

/// Charts of a page, in the order of their addition.
#[derive(Default)]
pub(super) struct Charts(Vec<serde_json::Value>);

impl Charts {
    /// Adds a chart and returns its HTML element.
    pub(super) fn add(&mut self, plot: Plot) -> String {
        let id = format!("chart-{}", self.0.len());
        let figure: serde_json::Value =
            serde_json::from_str(&plot.to_json()).expect("Plotly writes valid JSON");
        self.0.push(serde_json::json!({ "id": id, "figure": figure }));
        format!("<div class=\"chart\" id=\"{id}\"></div>")
    }

    /// Returns the data for the page's script.
    pub(super) fn entries(&self) -> &[serde_json::Value] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Plots histograms over a logarithmic axis of milliseconds. Those for which `shown` returns
/// false are only in the legend.
pub(super) fn histogram(
    y_title: &str,
    histograms: &[(&str, &LatencyHistogram)],
    shown: &dyn Fn(&str) -> bool,
) -> Plot {
    let mut plot = Plot::new();
    for (name, histogram) in histograms {
        let (x, y) = outline(histogram);
        let visible = if shown(name) { Visible::True } else { Visible::LegendOnly };
        plot.add_trace(
            Scatter::new(x, y)
                .name(*name)
                .mode(Mode::Lines)
                .line(Line::new().shape(LineShape::Hv).width(1.6))
                .fill(Fill::ToZeroY)
                .visible(visible),
        );
    }
    plot.set_layout(
        Layout::new()
            .height(380)
            .x_axis(Axis::new().type_(AxisType::Log).title("milliseconds"))
            .y_axis(Axis::new().title(y_title.to_owned())),
    );
    plot
}

/// Points of a curve with error bars.
pub(super) struct Curve {
    pub(super) name: String,
    /// x, y, and the lengths of the error bar below and above y.
    pub(super) points: Vec<[f64; 4]>,
}

/// Plots curves with error bars.
pub(super) fn curves(x_title: &str, y_title: &str, curves: Vec<Curve>) -> Plot {
    let mut plot = Plot::new();
    for Curve { name, points } in curves {
        let column = |at: usize| points.iter().map(|point| point[at]).collect::<Vec<_>>();
        let bars = ErrorData::new(ErrorType::Data)
            .symmetric(false)
            .array(column(3))
            .array_minus(column(2))
            .thickness(1.2);
        plot.add_trace(
            Scatter::new(column(0), column(1))
                .name(name)
                .mode(Mode::LinesMarkers)
                .line(Line::new().width(1.8))
                .error_y(bars),
        );
    }
    plot.set_layout(
        Layout::new()
            .height(380)
            .x_axis(Axis::new().title(x_title.to_owned()))
            .y_axis(Axis::new().title(y_title.to_owned())),
    );
    plot
}

/// Returns the lower edges of bins in milliseconds and their shares in percent, with
/// an empty bin at both ends.
fn outline(histogram: &LatencyHistogram) -> (Vec<f64>, Vec<f64>) {
    let bin_of = |value_ns: u64| ((value_ns.max(1) as f64).log10() * BINS_PER_DECADE) as i64;
    let mut bins: Vec<(i64, u64)> = Vec::new();
    for (value_ns, count) in histogram.buckets() {
        let bin = bin_of(value_ns);
        match bins.last_mut() {
            Some((last, sum)) if *last == bin => *sum += count,
            _ => bins.push((bin, count)),
        }
    }
    let (Some(&(first, _)), Some(&(last, _))) = (bins.first(), bins.last()) else {
        return (Vec::new(), Vec::new());
    };
    let total = histogram.count() as f64;
    let mut bins = bins.into_iter().peekable();
    (first - 1..=last + 1)
        .map(|bin| {
            let count = bins.next_if(|(next, _)| *next == bin).map_or(0, |(_, count)| count);
            let edge_ms = 10_f64.powf(bin as f64 / BINS_PER_DECADE) / 1e6;
            (edge_ms, 100.0 * count as f64 / total)
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn outline_contains_every_value_once() {
        let mut histogram = LatencyHistogram::new();
        for millis in [1, 1, 10, 40] {
            histogram.record(Duration::from_millis(millis));
        }
        let (edges, shares) = outline(&histogram);
        assert!((shares.iter().sum::<f64>() - 100.0).abs() < 1e-9, "{shares:?}");
        assert_eq!(shares.iter().filter(|share| **share > 0.0).count(), 3);
        assert!(edges[0] < 1.0 && edges[edges.len() - 1] > 40.0);
        assert_eq!((shares[0], shares[shares.len() - 1]), (0.0, 0.0));
    }
}
