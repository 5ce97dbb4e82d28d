//! A result as a table: what was measured, beside the least that it can take.

use super::floors::Known;
use serde_json::Value;
use tandem::model::automot::stages;
use tandem::timing::Stage;

/// Part, group of series, series, and which floor it has.
const ROWS: [(&str, &str, &str, FloorOf); 11] = [
    ("ticks alone", "ticks", "action", FloorOf::Action),
    ("ticks alone", "ticks", "bev", FloorOf::Bev),
    ("ticks alone", "ticks", "device", FloorOf::Tick),
    ("ticks alone", "ticks", "host", FloorOf::Nothing),
    ("refreshes alone, all frames new", "refreshes", "refresh", FloorOf::AllNew),
    ("refreshes alone, one frame new", "refreshes", "refresh", FloorOf::OneNew),
    ("both", "ticks", "action", FloorOf::Action),
    ("both", "ticks", "device", FloorOf::Tick),
    ("both", "ticks", "host", FloorOf::Nothing),
    ("both", "ticks", "act", FloorOf::Nothing),
    ("both", "refreshes", "refresh", FloorOf::AllNew),
];

/// Which floor a series has.
#[derive(Clone, Copy)]
enum FloorOf {
    Nothing,
    Bev,
    Action,
    Tick,
    AllNew,
    OneNew,
}

impl FloorOf {
    fn ms(self, known: &Known) -> Option<f64> {
        let of_stage = |stage: Stage| {
            let stage = known.all_new.stages.iter().find(|floor| floor.stage == stage)?;
            Some(stage.floor.floor_ms)
        };
        match self {
            Self::Nothing => None,
            Self::Bev => of_stage(stages::BEV),
            Self::Action => of_stage(stages::ACTION),
            Self::Tick => Some(known.all_new.tick_ms),
            Self::AllNew => Some(known.all_new.refresh_ms),
            Self::OneNew => Some(known.one_new.refresh_ms),
        }
    }
}

const HEADER: [&str; 8] =
    ["part", "of", "count", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "floor ms (p50 over it)"];

/// The result for people.
pub(super) fn of(result: &Value, known: Option<&Known>) -> String {
    let mut lines = Vec::new();
    for arrangement in result["arrangements"].as_array().into_iter().flatten() {
        lines.push(format!(
            "\ngraphs {}, share {}: {}",
            arrangement["graphs"],
            arrangement["share"],
            text(&arrangement["sharing"])
        ));
        let missing = arrangement["could_not_be_had"].as_array().into_iter().flatten();
        lines.extend(missing.map(|missing| format!("not to be had: {}", text(missing))));
        if let Some(error) = arrangement.get("failed") {
            lines.push(format!("FAILED: {}", text(error)));
            continue;
        }
        lines.push(aligned(HEADER.map(str::to_owned)));
        for (part, group, series, floor) in ROWS {
            let told = &arrangement["parts"][part];
            if let Some(row) = row(part, &told[group][series], series, floor, known) {
                lines.push(aligned(row));
            }
        }
        let parts = arrangement["parts"].as_object().into_iter().flatten();
        let failed = parts.filter_map(|(name, part)| Some((name, part.get("failed")?)));
        lines.extend(failed.map(|(name, error)| format!("FAILED: {name}: {}", text(error))));
    }
    if let Some(known) = known {
        lines.push(format!("\nfloors: {} ({:?})", known.ceilings.name, known.ceilings.source));
    }
    lines.join("\n")
}

/// Text without its quotes.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn row(
    part: &str,
    told: &Value,
    series: &str,
    floor: FloorOf,
    known: Option<&Known>,
) -> Option<[String; 8]> {
    let ms = |name: &str| told[name].as_u64().map(|ns| ns as f64 / 1e6);
    let p50 = ms("p50")?;
    let cell = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.3}"));
    let floor = known.and_then(|known| floor.ms(known));
    Some([
        part.to_owned(),
        series.to_owned(),
        told["count"].to_string(),
        cell(Some(p50)),
        cell(ms("p99")),
        cell(ms("p99.9")),
        cell(ms("max")),
        floor.map_or("-".to_owned(), |floor| format!("{floor:.3} ({:.2})", p50 / floor)),
    ])
}

fn aligned(row: [String; 8]) -> String {
    let [part, series, count, p50, p99, p999, max, floor] = row;
    format!("{part:32}{series:10}{count:>8}{p50:>11}{p99:>11}{p999:>11}{max:>11}  {floor:>22}")
}
