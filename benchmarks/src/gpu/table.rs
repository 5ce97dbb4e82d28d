//! Tables of measured latencies and their lower bounds.

use super::lower_bounds::DeviceBounds;
use serde_json::Value;
use tandem::model::automot::stages;
use tandem::timing::Stage;

/// Part, group of series, series, and its lower bound.
const ROWS: [(&str, &str, &str, BoundOf); 11] = [
    ("ticks alone", "ticks", "action", BoundOf::Action),
    ("ticks alone", "ticks", "bev", BoundOf::Bev),
    ("ticks alone", "ticks", "device", BoundOf::Tick),
    ("ticks alone", "ticks", "host", BoundOf::NoBound),
    ("refreshes alone, all frames new", "refreshes", "refresh", BoundOf::AllNew),
    ("refreshes alone, one frame new", "refreshes", "refresh", BoundOf::OneNew),
    ("both", "ticks", "action", BoundOf::Action),
    ("both", "ticks", "device", BoundOf::Tick),
    ("both", "ticks", "host", BoundOf::NoBound),
    ("both", "ticks", "act", BoundOf::NoBound),
    ("both", "refreshes", "refresh", BoundOf::AllNew),
];

/// Kind of lower bound of a series.
#[derive(Clone, Copy)]
enum BoundOf {
    NoBound,
    Bev,
    Action,
    Tick,
    AllNew,
    OneNew,
}

impl BoundOf {
    fn ms(self, bounds: &DeviceBounds) -> Option<f64> {
        let of_stage = |stage: Stage| {
            let stage = bounds.all_new.stages.iter().find(|bound| bound.stage == stage)?;
            Some(stage.floor.floor_ms)
        };
        match self {
            Self::NoBound => None,
            Self::Bev => of_stage(stages::BEV),
            Self::Action => of_stage(stages::ACTION),
            Self::Tick => Some(bounds.all_new.tick_ms),
            Self::AllNew => Some(bounds.all_new.refresh_ms),
            Self::OneNew => Some(bounds.one_new.refresh_ms),
        }
    }
}

const HEADER: [&str; 8] =
    ["part", "of", "count", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "bound ms (p50/bound)"];

/// Formats a result as tables.
pub(super) fn of(result: &Value, bounds: Option<&DeviceBounds>) -> String {
    let mut lines = Vec::new();
    for arrangement in result["arrangements"].as_array().into_iter().flatten() {
        lines.push(format!(
            "\ngraphs {}, share {}: {}",
            arrangement["graphs"],
            arrangement["share"],
            text(&arrangement["sharing"])
        ));
        let missing = arrangement["could_not_be_had"].as_array().into_iter().flatten();
        lines.extend(missing.map(|missing| format!("not available: {}", text(missing))));
        if let Some(error) = arrangement.get("failed") {
            lines.push(format!("FAILED: {}", text(error)));
            continue;
        }
        lines.push(aligned(HEADER.map(str::to_owned)));
        for (part, group, series, bound) in ROWS {
            let values = &arrangement["parts"][part];
            if let Some(row) = row(part, &values[group][series], series, bound, bounds) {
                lines.push(aligned(row));
            }
        }
        let parts = arrangement["parts"].as_object().into_iter().flatten();
        let failed = parts.filter_map(|(name, part)| Some((name, part.get("failed")?)));
        lines.extend(failed.map(|(name, error)| format!("FAILED: {name}: {}", text(error))));
    }
    if let Some(bounds) = bounds {
        lines.push(format!(
            "\nlower bounds: {} ({:?})",
            bounds.peak_rates.name, bounds.peak_rates.source
        ));
    }
    lines.join("\n")
}

/// Returns the text of a JSON string.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn row(
    part: &str,
    values: &Value,
    series: &str,
    bound: BoundOf,
    bounds: Option<&DeviceBounds>,
) -> Option<[String; 8]> {
    let ms = |name: &str| values[name].as_u64().map(|ns| ns as f64 / 1e6);
    let p50 = ms("p50")?;
    let cell = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.3}"));
    let bound = bounds.and_then(|bounds| bound.ms(bounds));
    Some([
        part.to_owned(),
        series.to_owned(),
        values["count"].to_string(),
        cell(Some(p50)),
        cell(ms("p99")),
        cell(ms("p99.9")),
        cell(ms("max")),
        bound.map_or("-".to_owned(), |bound| format!("{bound:.3} ({:.2})", p50 / bound)),
    ])
}

fn aligned(row: [String; 8]) -> String {
    let [part, series, count, p50, p99, p999, max, bound] = row;
    format!("{part:32}{series:10}{count:>8}{p50:>11}{p99:>11}{p999:>11}{max:>11}  {bound:>22}")
}
