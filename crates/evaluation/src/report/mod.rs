//! Self-contained HTML report of a run: it opens from disk, makes no network requests, and contains
//! all its data, replays included.

pub mod bootstrap;
mod charts;
mod foxglove;
mod latency;
mod replay;
mod scores;
pub mod sweep;

pub use foxglove::{McapWriteError, write_mcap};

use crate::campaign::log::{LoggedEvent, RouteLog};
use crate::results::ScoreCard;
use crate::scoring::{MIN_SPEED_KEY, Record, split_route_id};
use std::collections::BTreeMap;
use std::time::Duration;
use sweep::Sweep;
use tandem_page::{escape, facts, library, script_json, scripted_document};
use tandem_timing::StageStatistics;

const STYLE: &str = include_str!("report.css");
const REPLAY_SCRIPT: &str = include_str!("replay.js");
const PAGE_SCRIPT: &str = include_str!("report.js");

/// Content of a report. All text is escaped.
pub struct Report<'a> {
    pub title: &'a str,
    /// Caveat that is highlighted at the top, e.g. "random weights: this shows the chain,
    /// not skill"; empty for none.
    pub note: &'a str,
    /// Names and values of run and machine, in order: versions, seed, CPU, GPU.
    pub facts: &'a [(String, String)],
    /// One or more runs, each with its own scores and latencies.
    pub runs: &'a [ReportRun],
    /// Present if the runs are the settings of a sweep.
    pub sweep: Option<&'a Sweep>,
}

/// Drives of one driver. They are added one by one, so that at most one log is in memory.
pub struct ReportRun {
    driver: String,
    drives_total: usize,
    warm_up_ticks: usize,
    tick_budget: Option<Duration>,
    /// One score card per rule.
    cards: Vec<ScoreCard>,
    /// Number of drives of the set by scenario type.
    by_type: BTreeMap<String, usize>,
    drives: Vec<Drive>,
    statistics: StageStatistics,
}

/// Drive in the form of the page.
struct Drive {
    record: Record,
    /// Without minimum-speed values.
    infractions: Vec<LoggedEvent>,
    replay: Option<replay::Packed>,
    still: Option<String>,
}

impl ReportRun {
    /// Creates a run of `driver` without drives. `drives_total` is the number of all drives of the
    /// set, finished or not. Latencies exclude the first `warm_up_ticks` ticks of each drive.
    /// `tick_budget` is the deadline of a tick after its observation, if there was one.
    ///
    /// # Panics
    /// If `drives_total` is 0.
    pub fn new(
        driver: &str,
        drives_total: usize,
        warm_up_ticks: usize,
        tick_budget: Option<Duration>,
    ) -> Self {
        assert!(drives_total > 0, "the number of drives is 0");
        Self {
            driver: driver.to_owned(),
            drives_total,
            warm_up_ticks,
            tick_budget,
            cards: Vec::new(),
            by_type: BTreeMap::new(),
            drives: Vec::new(),
            statistics: StageStatistics::new(),
        }
    }

    /// Adds the scores by one rule.
    pub fn add_card(&mut self, card: ScoreCard) {
        self.cards.push(card);
    }

    /// Sets the numbers of drives of the set by scenario type, finished or not.
    pub fn set_types(&mut self, by_type: BTreeMap<String, usize>) {
        self.by_type = by_type;
    }

    /// Adds a drive: its record, its log if there is one, and a front-camera image as PNG file.
    pub fn add(&mut self, record: Record, log: Option<&RouteLog>, still_png: Option<&[u8]>) {
        if let Some(log) = log {
            self.statistics.merge(&log.statistics(self.warm_up_ticks));
        }
        let events = log.map_or(&[] as &[LoggedEvent], |log| &log.events);
        self.drives.push(Drive {
            infractions: infractions(&record, events),
            replay: log.map(replay::Packed::new),
            still: still_png.map(replay::base64),
            record,
        });
    }
}

impl Drive {
    /// Returns route id and repetition.
    fn parts(&self) -> (&str, u32) {
        split_route_id(&self.record.route_id)
    }

    /// Returns the number of minimum-speed values, which cost no score.
    fn minimum_speed_values(&self) -> usize {
        self.record.infractions.min_speed_infractions.len()
    }

    /// Returns the URL fragment that opens this drive of run `run` at `tick`.
    fn link(&self, run: usize, tick: u64) -> String {
        let (route, repetition) = self.parts();
        let route = percent_encoded(route);
        let run = if run > 0 { format!("/{run}") } else { String::new() };
        format!("#{route}/{repetition}/{tick}{run}")
    }
}

/// Percent-encodes a part of a URL fragment as `encodeURIComponent` does.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
        out
    })
}

/// Returns the type in a scenario's name, e.g. `ParkingCutIn` of `ParkingCutIn_1`.
fn scenario_type(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((kind, number)) if number.chars().all(|letter| letter.is_ascii_digit()) => kind,
        _ => name,
    }
}

/// Returns the infractions of the record without minimum-speed values,
/// each with its tick in the log.
fn infractions(record: &Record, events: &[LoggedEvent]) -> Vec<LoggedEvent> {
    let mut unmatched: Vec<&LoggedEvent> = events.iter().collect();
    let lists = record.infractions.lists().filter(|(key, _)| *key != MIN_SPEED_KEY);
    let messages = lists.flat_map(|(key, list)| list.iter().map(move |message| (key, message)));
    messages
        .map(|(kind, message)| {
            let idx = unmatched.iter().position(|e| e.kind == kind && e.message == *message);
            LoggedEvent {
                tick: idx.and_then(|idx| unmatched.remove(idx).tick),
                kind: kind.to_owned(),
                message: message.clone(),
            }
        })
        .collect()
}

/// Renders a report as an HTML page.
pub fn render(report: &Report<'_>) -> String {
    let subtitle: Vec<String> = report
        .runs
        .iter()
        .map(|run| {
            let (drives, total) = (run.drives.len(), run.drives_total);
            format!("{}: {drives} / {total} routes finished", escape(&run.driver))
        })
        .collect();
    let replays = replay::Replays::new(report.runs);
    let mut charts = charts::Charts::default();
    let swept = report.sweep.map_or(String::new(), |swept| sweep::section(swept, &mut charts));
    let heading = |run: &ReportRun, level: u8| match report.runs {
        [_] => String::new(),
        _ => format!("<h{level} class=\"run\">{}</h{level}>", escape(&run.driver)),
    };
    let summaries: String =
        report.runs.iter().map(|run| heading(run, 3) + &scores::summary(run)).collect();
    let sections: String = report
        .runs
        .iter()
        .enumerate()
        .map(|(run_idx, run)| {
            format!(
                "<section id=\"run-{run_idx}\">{}{}{}</section>",
                heading(run, 2),
                scores::section(run, run_idx),
                latency::section(run, run_idx, &mut charts),
            )
        })
        .collect();
    let body = format!(
        "{NAVIGATION}{swept}{summaries}<h2 id=\"about\">Settings</h2><div class=\"card\">{}</div>{}\
         {sections}",
        facts(report.facts),
        replays.section(),
    );
    let data = script_json(&serde_json::json!({
        "routes": replays.entries(),
        "charts": charts.entries(),
    }));
    let scripts = format!(
        "{}<script type=\"application/json\" id=\"data\">{data}</script>\n{}\
         <script>\n{REPLAY_SCRIPT}\n{PAGE_SCRIPT}</script>\n",
        replays.scripts(),
        // The charting library has several megabytes, so pages without charts omit it.
        if charts.is_empty() { String::new() } else { library::script() },
    );
    scripted_document(report.title, &subtitle.join(" · "), report.note, &body, STYLE, &scripts)
}

const NAVIGATION: &str = "<nav aria-label=\"Sections\"><a href=\"#about\">Settings</a>\
     <a href=\"#replay\">Replay</a><a href=\"#scores-0\">Scores</a>\
     <a href=\"#scenarios-0\">Scenarios</a><a href=\"#abilities-0\">Abilities</a>\
     <a href=\"#infractions-0\">Infractions</a><a href=\"#routes-0\">Routes</a>\
     <a href=\"#latency-0\">Latency</a></nav>\
     <noscript><p class=\"note\">Replays, charts and filters need JavaScript, which is disabled in \
     this browser.</p></noscript>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenario_type_is_the_name_without_its_number() {
        let cases = [("ParkingCutIn_1", "ParkingCutIn"), ("T_Junction", "T_Junction"), ("", "")];
        for (name, kind) in cases {
            assert_eq!(scenario_type(name), kind);
        }
    }
}
