//! HTML page of a profile.
//!
//! There is one section per phase. Parts without data are omitted or replaced by a note.

mod distribution;
pub(super) mod head;
mod outliers;
mod roofline;
mod stages;
mod timeline;
mod waterfall;

use super::latency_file::{LatencyFile, Phase, PhaseName};
pub use roofline::{PeakRate, RooflineChart, RooflineRow};
use std::fmt::Write;
use tandem::timing::Stage;
use tandem_page::{document, escape};

/// Number of slow ticks that are listed.
const WORST: usize = 10;

/// Returns the page as one self-contained HTML file. Without `roofline`, that
/// section explains how to get one.
pub fn render(file: &LatencyFile, roofline: Option<&RooflineChart>) -> String {
    let mut body = head::tiles(file);
    body += "<nav><a href=\"#run\">Run</a>";
    for phase in &file.phases {
        let _ = write!(body, "<a href=\"#{}\">{}</a>", id(phase.name), phase.name.title());
    }
    body += "<a href=\"#roofline\">Roofline</a></nav>";
    body += &head::section(file);
    if file.phases.is_empty() {
        body += "<h2>Phases</h2><div class=\"card\"><p>Nothing was measured.</p></div>";
    }
    for (index, phase) in file.phases.iter().enumerate() {
        // If a phase name occurs twice, links lead to the first section.
        let is_first = file.phases[..index].iter().all(|before| before.name != phase.name);
        body += &section(file, phase, is_first);
    }
    body += "<h2 id=\"roofline\">Roofline</h2>";
    body += &roofline::section(roofline);
    let subtitle = [
        escape(&file.engine.backend),
        escape(file.machine.cpu.as_deref().unwrap_or("unknown CPU")),
        head::date(file.taken_at_unix_s),
    ];
    document("tandem profile", &subtitle.join(" · "), "", &body)
}

/// Returns the HTML id of the section of a phase.
fn id(name: PhaseName) -> &'static str {
    match name {
        PhaseName::Paced => "paced",
        PhaseName::BackToBack => "back-to-back",
        PhaseName::ActionAlone => "action-alone",
        PhaseName::UnderstandingAlone => "understanding-alone",
    }
}

fn section(file: &LatencyFile, phase: &Phase, has_id: bool) -> String {
    let id = if has_id { format!(" id=\"{}\"", id(phase.name)) } else { String::new() };
    let statistics = &phase.statistics;
    let refreshes = statistics.stage(Stage::PREFILL).count();
    let mut out = format!("<h2{id}>Phase: {}</h2><p class=\"sub\">", phase.name.title());
    if phase.name == PhaseName::UnderstandingAlone {
        let _ = write!(out, "{refreshes} prefills after a warm-up of {}.", phase.warm_up);
    } else {
        let _ = write!(
            out,
            "{} ticks after a warm-up of {}; {refreshes} prefills ended in them.",
            statistics.ticks(),
            phase.warm_up
        );
    }
    if phase.samples_dropped > 0 {
        let _ = write!(
            out,
            " {} of them are in the tables only: charts show the first {}.",
            phase.samples_dropped,
            phase.ticks.start_ns.len().max(phase.refreshes.version.len())
        );
    }
    out += "</p>";
    let card = |title: &str, content: String| {
        if content.is_empty() {
            return String::new();
        }
        format!("<div class=\"card\"><h3>{title}</h3>{content}</div>")
    };
    out += &card("Stages", stages::table(file, phase));
    out += &card("Ticks, stage by stage", waterfall::drawings(file, phase));
    out += &card("Over time", timeline::drawings(file, phase));
    out += &card("Slowest ticks", outliers::table(phase));
    out += &distribution::drawings(file, phase);
    out
}

/// Returns the deadline of a tick, nanoseconds.
fn budget_ns(file: &LatencyFile) -> f64 {
    file.run.act_budget_millis * 1e6
}

/// Returns true if `stage` is part of a prefill; these samples are stored separately.
fn is_of_prefill(stage: Stage) -> bool {
    stage.parent().map_or(stage == Stage::PREFILL, is_of_prefill)
}

/// Returns the samples of one stage of a phase, nanoseconds.
fn samples_ns(phase: &Phase, stage: Stage) -> Vec<u64> {
    let stages = if is_of_prefill(stage) { &phase.refreshes.stages } else { &phase.ticks.stages };
    let column = stages.get(stage.name());
    column.into_iter().flat_map(|column| column.took_ns.iter().copied().flatten()).collect()
}

/// Returns the phase in which the expert of `stage` ran alone.
fn alone(file: &LatencyFile, stage: Stage) -> Option<&Phase> {
    let name =
        if is_of_prefill(stage) { PhaseName::UnderstandingAlone } else { PhaseName::ActionAlone };
    file.phase(name)
}
