//! Table of stages, nested by parent, with the remainder that the parts do not cover.

use super::{alone, is_of_prefill};
use crate::latency_file::{LatencyFile, Phase, PhaseName};
use crate::samples::{Part, nearest_rank};
use std::fmt::Write;
use tandem::timing::{LatencyHistogram, Percentile, Stage};
use tandem_page::milliseconds;

/// Width of the bar of a share of 100 %, pixels.
const FULL_SHARE: f64 = 68.0;

/// Returns the table of stages of a phase.
pub(super) fn table(file: &LatencyFile, phase: &Phase) -> String {
    let is_alone = matches!(phase.name, PhaseName::ActionAlone | PhaseName::UnderstandingAlone);
    let has_alone = !is_alone && Stage::all().iter().any(|&stage| alone(file, stage).is_some());
    let mut table = Table { file, phase, has_alone, rows: String::new() };
    for stage in Stage::all().iter().copied().filter(|stage| stage.parent().is_none()) {
        table.stage(stage, 0);
    }
    if table.rows.is_empty() {
        return "<p>No stage was timed.</p>".to_owned();
    }
    let alone_heads = if has_alone {
        "<th class=\"n\">Alone<br/>p50 ms</th><th class=\"n\">Alone<br/>p99 ms</th>\
         <th class=\"n\">In loop<br/>÷ alone</th>"
    } else {
        ""
    };
    let alone_note = if has_alone {
        " Alone: the same stage while its expert runs alone, from the phases below; the ratio is \
         of the medians."
    } else {
        ""
    };
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>Stage</th><th class=\"n\">Count</th>\
         <th class=\"n\">p50<br/>ms</th><th class=\"n\">p90<br/>ms</th><th class=\"n\">p99<br/>ms</th>\
         <th class=\"n\">p99.9<br/>ms</th><th class=\"n\">Max<br/>ms</th>\
         <th class=\"n\">Share of<br/>parent</th>{alone_heads}</tr></thead><tbody>{}</tbody></table></div>\
         <p class=\"small\">The share is relative to the parent stage, summed \
         over the samples; (rest) is the time that the parts do not cover.{alone_note}{}</p>",
        table.rows,
        contention(phase)
    )
}

struct Table<'a> {
    file: &'a LatencyFile,
    phase: &'a Phase,
    has_alone: bool,
    rows: String,
}

impl Table<'_> {
    /// Adds the rows of a stage and its parts.
    fn stage(&mut self, stage: Stage, depth: usize) {
        let histogram = self.phase.statistics.stage(stage);
        let has_run = histogram.count() > 0;
        if has_run {
            let alone = alone(self.file, stage).map(|phase| phase.statistics.stage(stage));
            self.row(Part::whole(stage), depth, histogram, alone);
        }
        let deeper = depth + usize::from(has_run);
        for part in stage.parts() {
            self.stage(part, deeper);
        }
        let alone = alone(self.file, stage).map(|phase| phase.statistics.rest(stage));
        self.row(Part::rest(stage), deeper, self.phase.statistics.rest(stage), alone);
    }

    fn row(
        &mut self,
        part: Part,
        depth: usize,
        histogram: &LatencyHistogram,
        alone: Option<&LatencyHistogram>,
    ) {
        let Some(summary) = histogram.summary() else { return };
        let class = if part.is_rest { " class=\"rest\"" } else { "" };
        let name = if part.is_rest { "(rest)".to_owned() } else { part.title() };
        let _ = write!(
            self.rows,
            "<tr{class}><td class=\"w d{}\">{name}</td><td class=\"n\">{}</td>",
            depth.min(3),
            summary.count
        );
        for nanos in
            [summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.p999_ns, summary.max_ns]
        {
            let _ = write!(self.rows, "<td class=\"n\">{}</td>", milliseconds(nanos));
        }
        let _ = match share(self.phase, part) {
            Some(share) => write!(
                self.rows,
                "<td class=\"n share\"><i style=\"width:{:.0}px\"></i>{:.1} %</td>",
                (share * FULL_SHARE).clamp(0.0, FULL_SHARE),
                share * 100.0
            ),
            None => write!(self.rows, "<td class=\"n\">–</td>"),
        };
        if self.has_alone {
            let cells = match alone.and_then(LatencyHistogram::summary) {
                Some(alone) => {
                    let ratio = if alone.p50_ns > 0 {
                        format!("{:.2}", summary.p50_ns as f64 / alone.p50_ns as f64)
                    } else {
                        "–".to_owned()
                    };
                    [milliseconds(alone.p50_ns), milliseconds(alone.p99_ns), ratio]
                }
                None => ["–"; 3].map(str::to_owned),
            };
            for cell in cells {
                let _ = write!(self.rows, "<td class=\"n\">{cell}</td>");
            }
        }
        self.rows += "</tr>";
    }
}

/// Returns the share of a part in the time of its parent over the samples; `None` for a stage
/// without parent, or without samples.
fn share(phase: &Phase, part: Part) -> Option<f64> {
    let whole = if part.is_rest { part.stage } else { part.stage.parent()? };
    let stages = if is_of_prefill(whole) { &phase.refreshes.stages } else { &phase.ticks.stages };
    let samples = stages.get(whole.name())?.took_ns.len();
    let sum = |part: Part| {
        let took = (0..samples).filter_map(|index| part.took_ns(stages, index));
        took.fold(0.0, |sum, nanos| sum + nanos as f64)
    };
    let total = sum(Part::whole(whole));
    (total > 0.0).then(|| sum(part) / total)
}

/// Returns notes on skipped ticks, on ticks with and without a concurrent prefill, on page
/// faults and on preemptions.
fn contention(phase: &Phase) -> String {
    let ticks = phase.ticks_by_time();
    let mut out = String::new();
    if phase.ticks_skipped > 0 {
        let _ = write!(
            out,
            "<br/>{} of {} due ticks were skipped and are in no row; their response counts as longer than \
             any other.",
            phase.ticks_skipped,
            phase.ticks_due()
        );
    }
    let (during, free): (Vec<_>, Vec<_>) = ticks
        .iter()
        .map(|&(index, took_ns)| (phase.ticks.is_refreshing.get(index) == Some(&true), took_ns))
        .partition(|&(is_refreshing, _)| is_refreshing);
    let of = |group: &[(bool, u64)]| {
        let at = |percentile| nearest_rank(group, percentile).map_or(0, |(_, took_ns)| took_ns);
        format!(
            "p50 {} ms, p99 {} ms",
            milliseconds(at(Percentile::P50)),
            milliseconds(at(Percentile::P99))
        )
    };
    if !during.is_empty() && !free.is_empty() {
        let _ = write!(
            out,
            "<br/>The {} ticks that ended while a prefill was running: {}. The {} others: {}.",
            during.len(),
            of(&during),
            free.len(),
            of(&free)
        );
    }
    if !ticks.is_empty() {
        let with = |column: &[u64]| column.iter().filter(|&&count| count > 0).count();
        let _ = write!(
            out,
            "<br/>{} of {} ticks had page faults on their thread; {} were preempted.",
            with(&phase.ticks.page_faults),
            ticks.len(),
            with(&phase.ticks.preemptions)
        );
    }
    out
}
