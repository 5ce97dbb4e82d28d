//! Table of the slowest ticks.

use super::WORST;
use crate::latency_file::Phase;
use crate::worst::{WorstTick, worst_ticks};
use std::fmt::Write;
use tandem_page::milliseconds;

/// Returns the table of the slowest ticks; empty without ticks.
pub(super) fn table(phase: &Phase) -> String {
    let worst = worst_ticks(phase, WORST);
    let Some(stage) = phase.main_stage().filter(|_| !worst.is_empty()) else {
        return String::new();
    };
    let rows: String = worst.iter().map(row).collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr><th class=\"n\">Tick</th><th class=\"n\">At<br/>s</th>\
         <th class=\"n\">{}<br/>ms</th><th class=\"n\">Over the<br/>median, ms</th>\
         <th class=\"n\">Late by<br/>ms</th><th>Largest excess over own median</th>\
         <th class=\"n\">Took<br/>ms</th><th class=\"n\">Median<br/>ms</th><th class=\"n\">Over<br/>ms</th>\
         <th>Notes</th></tr></thead><tbody>{rows}</tbody></table></div>\
         <p class=\"small\">Tick 0 is the first after the warm-up. The stage is the one, among \
         those without parts and remainders of stages, that exceeds its median over the ticks in \
         which it ran by most. A late wake-up is listed if it is at least a tenth of the tick's \
         excess over the median.</p>",
        stage.name()
    )
}

fn row(tick: &WorstTick) -> String {
    let mut out = format!(
        "<tr><td class=\"n\">{}</td><td class=\"n\">{:.2}</td><td class=\"n\"><b>{}</b></td><td class=\"n\">{}</td>",
        tick.index,
        tick.start_ns as f64 / 1e9,
        milliseconds(tick.took_ns),
        milliseconds(tick.over_median_ns)
    );
    let _ = match tick.late_by_ns {
        Some(late_ns) => write!(out, "<td class=\"n bad\">{}</td>", milliseconds(late_ns)),
        None => write!(out, "<td class=\"n\">–</td>"),
    };
    let _ = match tick.slowest {
        Some(slowest) => write!(
            out,
            "<td class=\"w\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>",
            slowest.part.title(),
            milliseconds(slowest.took_ns),
            milliseconds(slowest.median_ns),
            milliseconds(slowest.over_ns())
        ),
        None => write!(
            out,
            "<td>none</td><td class=\"n\">–</td><td class=\"n\">–</td><td class=\"n\">–</td>"
        ),
    };
    let _ = write!(out, "<td class=\"notes\">{}</td></tr>", notes(tick).join(", "));
    out
}

/// Returns further facts about a tick, apart from its stages.
fn notes(tick: &WorstTick) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(late_ns) = tick.woke_late_by_ns {
        notes.push(format!("wake-up {} ms late", milliseconds(late_ns)));
    }
    if tick.is_first_on_prefix {
        notes.push("first on a new prefix".to_owned());
    }
    notes
        .push(if tick.is_refreshing { "prefill running" } else { "no prefill running" }.to_owned());
    if tick.page_faults > 0 {
        notes.push(format!("page faults: {}", tick.page_faults));
    }
    if tick.preemptions > 0 {
        notes.push(format!("preemptions: {}", tick.preemptions));
    }
    notes
}
