//! The page that `demo` and `eval` leave beside their results.

use super::drive::{Driven, WARM_UP_TICKS};
use super::{doctor, print};
use crate::evaluation::report::{Report, ReportRoute, ReportRun, render};
use crate::pilot::{ClockName, RunFile};
use std::path::Path;
use std::time::Duration;

/// One driver's part of the page.
pub(super) struct Part<'a> {
    pub(super) driver: &'a str,
    pub(super) driven: &'a Driven,
    /// Time allowed for a tick, if its driver is timed.
    pub(super) tick_budget: Option<Duration>,
}

/// Writes the page, whole or not at all.
pub(super) fn write(
    page: &Path,
    title: &str,
    note: &str,
    facts: &[(String, String)],
    parts: &[Part<'_>],
) -> anyhow::Result<()> {
    let routes: Vec<Vec<ReportRoute<'_>>> = parts
        .iter()
        .map(|part| {
            let logs = part.driven.logs.iter().enumerate();
            logs.map(|(place, (record, log))| ReportRoute {
                record,
                log,
                // The picture is of the first route that was driven.
                still_png: part.driven.still_png.as_deref().filter(|_| place == 0),
            })
            .collect()
        })
        .collect();
    let runs: Vec<ReportRun<'_>> = parts
        .iter()
        .zip(&routes)
        .map(|(part, routes)| ReportRun {
            driver: part.driver,
            routes,
            routes_total: part.driven.drives_total,
            warm_up_ticks: WARM_UP_TICKS,
            tick_budget: part.tick_budget,
        })
        .collect();
    let html = render(&Report { title, note, facts, runs: &runs });
    print::whole_file(page, html.as_bytes())
}

/// What was run, on what: name and value.
pub(super) fn facts(
    command: String,
    run: &RunFile,
    emulated: &[String],
    backend: Option<&str>,
) -> Vec<(String, String)> {
    let clock = match run.clock {
        ClockName::Lockstep => "lockstep: the world waits".to_owned(),
        ClockName::Virtual => format!(
            "virtual: slow latency {}, fast latency {} (milliseconds), fast inferences {}",
            run.slow_latency,
            run.fast_latency,
            run.fast_releases.as_str()
        ),
        ClockName::Wall => "wall: real time".to_owned(),
    };
    let threads = format!(
        "{} for BEV and action, {} for vision and understanding",
        run.threads.action, run.threads.understanding
    );
    let mut facts: Vec<(String, String)> = [
        ("tandem", env!("CARGO_PKG_VERSION").to_owned()),
        ("command", command),
        ("clock", clock),
        ("refresh", format!("every {} ticks of 50 ms", run.refresh_period_ticks)),
        ("tick budget", format!("{} ms", run.act_budget_millis)),
        ("threads", threads),
        ("seed", run.seed.to_string()),
        ("back end", backend.unwrap_or("none").to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let emulated = emulated.iter().map(|label| ("latencies".to_owned(), label.clone()));
    facts.extend(emulated);
    facts.extend(doctor::machine());
    facts
}
