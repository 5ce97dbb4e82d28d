//! Scores of a run: tiles, and tables by rule, scenario type, ability, infraction and route.

use super::bootstrap::{Estimate, RESAMPLES, Resamples, RouteTotals};
use super::{Drive, ReportRun, scenario_type};
use crate::results::{Figure, ScoreCard};
use crate::routes::SCENARIO_TYPES;
use crate::scoring::{Ability, MergedTable, Safety};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use tandem_page::{escape, milliseconds, tile};
use tandem_timing::Stage;

/// Returns the tiles with the scores of a run.
pub(super) fn summary(run: &ReportRun) -> String {
    format!(
        "<section class=\"tiles\">{}</section><p class=\"small\">Intervals are the middle 95 % of \
         {RESAMPLES} bootstrap resamples of routes (seed {SEED}); routes that are not finished \
         count as 0 in estimates and resamples.</p>",
        tiles(run)
    )
}

/// Returns all score tables of run number `run_idx`.
pub(super) fn section(run: &ReportRun, run_idx: usize) -> String {
    let mut out = String::new();
    let mut part = |id: &str, title: &str, content: String| {
        let _ = write!(out, "<h3 id=\"{id}-{run_idx}\">{title}</h3>{content}");
    };
    part("scores", "Scores by rule", rules(run));
    part("scenarios", "Scenario types", scenarios(run));
    part("abilities", "Abilities", abilities(&run.cards));
    part("infractions", "Infractions", infractions(run, run_idx));
    part("routes", "Routes", routes(run, run_idx));
    if run.drives.iter().any(|drive| drive.record.safety.is_some()) {
        part("safety", "Degraded operation", safety(run, run_idx));
    }
    out
}

/// Seed of the bootstrap over routes.
const SEED: u64 = 1;

/// Computes means over all drives of the set. Routes are resampled with all their repetitions.
struct Means<'a> {
    run: &'a ReportRun,
    resamples: Resamples,
    routes: usize,
    repetitions: usize,
}

impl<'a> Means<'a> {
    fn new(run: &'a ReportRun) -> Self {
        let found: BTreeSet<&str> = run.drives.iter().map(|drive| drive.parts().0).collect();
        let repeated: BTreeSet<u32> = run.drives.iter().map(|drive| drive.parts().1).collect();
        let repetitions = repeated.len().max(1);
        let routes = (run.drives_total / repetitions).max(found.len());
        let resamples = Resamples::new(routes, RESAMPLES, SEED);
        Self { run, resamples, routes, repetitions }
    }

    /// Returns the mean of `value`. Unfinished drives count as 0.
    fn of(&self, value: impl Fn(&Drive) -> f64) -> Option<Estimate> {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for drive in &self.run.drives {
            *sums.entry(drive.parts().0).or_default() += value(drive);
        }
        let denominator = self.repetitions as f64;
        let mut totals: Vec<RouteTotals> =
            sums.values().map(|&numerator| RouteTotals { numerator, denominator }).collect();
        totals.resize(self.routes, RouteTotals { numerator: 0.0, denominator });
        self.resamples.estimate(&totals)
    }
}

fn tiles(run: &ReportRun) -> String {
    let records = run.drives.iter().map(|drive| drive.record.clone()).collect();
    let table = MergedTable::new(records, run.drives_total, 1);
    let rest = if table.finished < run.drives_total { ", the rest as 0" } else { "" };
    let basis = format!("{} / {} routes finished{rest}", table.finished, run.drives_total);
    let with = |estimate: Option<Estimate>, unit: &str| {
        let ends = estimate.and_then(|estimate| Some((estimate.low?, estimate.high?)));
        ends.map_or(basis.clone(), |(low, high)| format!("{low:.1} to {high:.1}{unit}; {basis}"))
    };
    // Folded from +0.0: `sum` of an empty iterator is −0.0, which would be printed.
    let completion =
        table.records().fold(0.0, |sum, record| sum + record.scores.score_route.value())
            / run.drives_total as f64;
    let means = Means::new(run);
    let score = means.of(|drive| drive.record.scores.score_composed);
    let success = means.of(|drive| 100.0 * f64::from(u8::from(drive.record.is_success())));
    let complete = means.of(|drive| drive.record.scores.score_route.value());
    let ticks = run.statistics.ticks();
    let misses = run.statistics.deadline_misses();
    let share = if ticks > 0 { 100.0 * misses as f64 / ticks as f64 } else { 0.0 };
    let (tick, tick_basis) = match run.statistics.stage(Stage::TICK).summary() {
        Some(summary) => (
            format!("{} ms", milliseconds(summary.p99_ns)),
            format!("nearest-rank over {} ticks", summary.count),
        ),
        None => ("–".to_owned(), "ticks were not timed".to_owned()),
    };
    let (late, late_basis) = match run.tick_budget {
        None if misses == 0 => ("–".to_owned(), "ticks had no deadline".to_owned()),
        _ => (misses.to_string(), format!("{share:.2} % of {ticks} ticks")),
    };
    let faults = match total_safety(run).faults() {
        Some(faults) => tile("Faults of the model", "yes", &faults),
        None => String::new(),
    };
    [
        faults,
        tile("Driving score", &format!("{:.2}", table.driving_score), &with(score, "")),
        tile("Success rate", &format!("{:.1} %", table.success_rate * 100.0), &with(success, " %")),
        tile("Route completion", &format!("{completion:.1} %"), &with(complete, " %")),
        tile("Tick, p99", &tick, &tick_basis),
        tile("Deadline misses", &late, &late_basis),
    ]
    .concat()
}

fn figure(figure: &Figure, scale: f64) -> String {
    match (figure.value, &figure.why_none) {
        (Some(value), _) => format!("{:.1} % <small>({})</small>", value * scale, figure.drives),
        (None, why) => {
            let reason = escape(why.as_deref().unwrap_or("no drive has a value"));
            format!("<span title=\"{reason}\">–</span>")
        }
    }
}

fn or_dash(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or("–".to_owned(), text)
}

fn rules(run: &ReportRun) -> String {
    if run.cards.is_empty() {
        return "<p>Not scored against a route set: averages above are over the routes of this run.\
                </p>"
            .to_owned();
    }
    let mut out = String::from(
        "<div class=\"card\"><table><thead><tr><th>Rule</th><th class=\"n\">Finished</th>\
         <th class=\"n\">Sums<br/>over</th><th class=\"n\">Driving<br/>score</th>\
         <th class=\"n\">Success<br/>rate</th><th class=\"n\">Efficiency<br/>(drives)</th>\
         <th class=\"n\">Smoothness<br/>(drives)</th></tr></thead><tbody>",
    );
    for card in &run.cards {
        let _ = write!(
            out,
            "<tr><td>{}</td><td class=\"n\">{} / {}</td><td class=\"n\">{}</td>\
             <td class=\"n\"><b>{}</b></td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td></tr>",
            card.rule,
            card.finished,
            card.total,
            card.divisor,
            or_dash(card.driving_score, |score| format!("{score:.2}")),
            or_dash(card.success_rate, |rate| format!("{:.1} %", rate * 100.0)),
            figure(&card.efficiency, 1.0),
            figure(&card.smoothness, 100.0),
        );
    }
    out += "</tbody></table>";
    if let Some(card) = run.cards.first() {
        let _ = write!(
            out,
            "<p class=\"small\">Official divides by 220, so that it has a driving score only for \
             sets of 220 routes, and keeps the official tools’ defects; corrected fixes them. \
             Routes: {} ({}), SHA-256 {}.</p>",
            escape(&card.route_file),
            card.route_set.unwrap_or("not a Bench2Drive set"),
            escape(&card.route_file_sha256),
        );
    }
    out + "</div>"
}

/// Heading of the column of minimum-speed values.
const MINIMUM_SPEED_HEADING: &str = "<th class=\"n\">Minimum speed<br/>(no cost)</th>";

/// Sums over the drives of one scenario type.
#[derive(Default)]
struct TypeSums {
    total: usize,
    finished: usize,
    score: f64,
    successes: usize,
    infractions: usize,
    minimum_speed_values: usize,
}

fn scenarios(run: &ReportRun) -> String {
    let mut sums: BTreeMap<&str, TypeSums> =
        SCENARIO_TYPES.iter().map(|kind| (*kind, TypeSums::default())).collect();
    for (kind, total) in &run.by_type {
        sums.entry(kind).or_default().total = *total;
    }
    for drive in &run.drives {
        let sum = sums.entry(scenario_type(&drive.record.scenario_name)).or_default();
        sum.finished += 1;
        sum.total = sum.total.max(sum.finished);
        sum.score += drive.record.scores.score_composed;
        sum.successes += usize::from(drive.record.is_success());
        sum.infractions += drive.infractions.len();
        sum.minimum_speed_values += drive.minimum_speed_values();
    }
    let mut out = format!(
        "<div class=\"card\"><table class=\"sorts\"><thead><tr><th>Scenario type</th>\
         <th class=\"n\">Drives</th><th class=\"n\">Finished</th>\
         <th class=\"n\">Driving score</th><th class=\"n\">Success rate %</th>\
         <th class=\"n\">Infractions</th>{MINIMUM_SPEED_HEADING}</tr></thead><tbody>",
    );
    let absent = sums.values().filter(|sum| sum.total == 0).count();
    for (kind, sum) in sums.iter().filter(|(_, sum)| sum.total > 0) {
        let name = if kind.is_empty() { "none" } else { kind };
        let mean = |value: f64| value / sum.total as f64;
        let (score, success) = (mean(sum.score), mean(100.0 * sum.successes as f64));
        let _ = write!(
            out,
            "<tr><td>{}</td><td class=\"n\" data-v=\"{}\">{}</td><td class=\"n\" data-v=\"{}\">{}</td>\
             <td class=\"n\" data-v=\"{score}\">{score:.2}</td>\
             <td class=\"n\" data-v=\"{success}\">{success:.1}</td>\
             <td class=\"n\" data-v=\"{}\">{}</td><td class=\"n\" data-v=\"{}\">{}</td></tr>",
            escape(name),
            sum.total,
            sum.total,
            sum.finished,
            sum.finished,
            sum.infractions,
            sum.infractions,
            sum.minimum_speed_values,
            sum.minimum_speed_values
        );
    }
    let _ = write!(
        out,
        "</tbody></table><p class=\"small\">{absent} of the benchmark’s {} types have no route in \
         this set. Drives that are not finished count as 0. Minimum-speed values are \
         never penalized and do not count as infractions.</p></div>",
        SCENARIO_TYPES.len()
    );
    out
}

fn abilities(cards: &[ScoreCard]) -> String {
    if cards.is_empty() {
        return "<p>Abilities need a route set: pass its file to <code>tandem report</code>.</p>"
            .to_owned();
    }
    let tables: Vec<_> = cards
        .iter()
        .flat_map(|card| {
            [("0.0.4", &card.abilities), ("0.0.3", &card.abilities_003)]
                .map(|(release, table)| (format!("{}<br/>{release}", card.rule), table))
        })
        .collect();
    let mut out = String::from(
        "<div class=\"card\"><table><thead><tr><th>Ability</th><th class=\"n\">Routes</th>",
    );
    for (name, _) in &tables {
        let _ = write!(out, "<th class=\"n\">{name}<br/>%</th>");
    }
    out += "</tr></thead><tbody>";
    let percent = |ratio: Option<f64>, is_approximate: bool| match ratio {
        Some(ratio) => {
            let mark = if is_approximate { "<br/>approximate" } else { "" };
            format!("<td class=\"n\">{:.1}{mark}</td>", ratio * 100.0)
        }
        None => "<td class=\"n\">–</td>".to_owned(),
    };
    for (idx, ability) in Ability::ALL.into_iter().enumerate() {
        let known = tables.iter().find_map(|(_, table)| table.abilities.as_ref().ok());
        let routes = known.map_or("–".to_owned(), |found| found.routes[idx].to_string());
        let _ = write!(
            out,
            "<tr><td>{}</td><td class=\"n\">{routes}</td>",
            ability.key().replace('_', " ")
        );
        for (_, table) in &tables {
            out += &percent(table.ratio(idx), table.is_guessed(ability));
        }
        out += "</tr>";
    }
    out += "<tr><td><b>Mean</b></td><td></td>";
    for (_, table) in &tables {
        out += &percent(table.mean(), table.is_approximate);
    }
    out += "</tr></tbody></table>";
    let errors: BTreeSet<String> = tables
        .iter()
        .filter_map(|(_, table)| Some(table.abilities.as_ref().err()?.to_string()))
        .collect();
    for error in errors {
        let _ = write!(out, "<p class=\"small\">No value: {}.</p>", escape(&error));
    }
    let junctions = if tables.iter().any(|(_, table)| table.is_approximate) {
        "Approximate values depend on junctions that are estimated from gaps between key points, \
         because no map was given."
    } else {
        "Junctions are those of the maps."
    };
    let _ = write!(
        out,
        "<p class=\"small\">0.0.4 and 0.0.3 are the releases whose rule for traffic signs is used. \
         {junctions}</p></div>"
    );
    out
}

/// Returns the displayed name of a kind of infraction, by its key in result files.
fn kind_name(key: &str) -> &str {
    match key {
        "collisions_layout" => "collision with layout",
        "collisions_pedestrian" => "collision with pedestrian",
        "collisions_vehicle" => "collision with vehicle",
        "red_light" => "red light",
        "stop_infraction" => "stop sign",
        "outside_route_lanes" => "outside route lanes",
        "yield_emergency_vehicle_infractions" => "did not yield",
        "scenario_timeouts" => "scenario timeout",
        "route_dev" => "route deviation",
        "vehicle_blocked" => "blocked",
        "route_timeout" => "route timeout",
        other => other,
    }
}

fn infractions(run: &ReportRun, run_idx: usize) -> String {
    let all = || {
        run.drives.iter().flat_map(|drive| drive.infractions.iter().map(move |one| (drive, one)))
    };
    if all().next().is_none() {
        return "<p>No infraction was recorded.</p>".to_owned();
    }
    let kinds: BTreeSet<&str> = all().map(|(_, one)| one.kind.as_str()).collect();
    let types: BTreeSet<&str> =
        all().map(|(drive, _)| scenario_type(&drive.record.scenario_name)).collect();
    let options = |names: &mut dyn Iterator<Item = (&str, &str)>| {
        names.fold("<option value=\"\">all</option>".to_owned(), |out, (value, name)| {
            format!("{out}<option value=\"{}\">{}</option>", escape(value), escape(name))
        })
    };
    let mut out = format!(
        "<section class=\"filters card\"><div class=\"controls\">\
         <label>Kind <select data-filter=\"kind\">{}</select></label>\
         <label>Scenario <select data-filter=\"scenario\">{}</select></label>\
         <label>Text <input type=\"search\" data-filter=\"text\"/></label>\
         <output data-count=\"\"></output></div>\
         <table class=\"sorts\"><thead><tr><th>Route</th><th>Scenario</th><th>Kind</th>\
         <th class=\"n\">At</th><th>Message</th></tr></thead><tbody>",
        options(&mut kinds.iter().map(|kind| (*kind, kind_name(kind)))),
        options(&mut types.iter().map(|kind| (*kind, *kind))),
    );
    for (drive, one) in all() {
        let kind = scenario_type(&drive.record.scenario_name);
        let at = match one.tick {
            Some(tick) => format!(
                "<td class=\"n w\" data-v=\"{tick}\"><a href=\"{}\">{:.2} s</a></td>",
                drive.link(run_idx, tick),
                tick as f64 * tandem_scene::TICK_S
            ),
            None => "<td class=\"n\" data-v=\"1000000000\">end</td>".to_owned(),
        };
        let _ = write!(
            out,
            "<tr data-kind=\"{}\" data-scenario=\"{}\"><td class=\"w\"><a href=\"{}\">{}</a></td>\
             <td>{}</td><td class=\"w\">{}</td>{at}<td>{}</td></tr>",
            escape(&one.kind),
            escape(kind),
            drive.link(run_idx, one.tick.unwrap_or(1)),
            escape(&short_id(drive)),
            escape(kind),
            escape(kind_name(&one.kind)),
            escape(&one.message),
        );
    }
    out + "</tbody></table></section>"
}

/// Returns the route id, with the repetition unless it is the first.
pub(super) fn short_id(drive: &Drive) -> String {
    match drive.parts() {
        ("", _) => drive.record.route_id.clone(),
        (route, 0) => route.to_string(),
        (route, repetition) => format!("{route} rep {repetition}"),
    }
}

/// Returns the notes of all records, each with its routes.
fn notes(run: &ReportRun) -> String {
    let mut routes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for drive in &run.drives {
        for note in &drive.record.notes {
            routes.entry(note).or_default().push(short_id(drive));
        }
    }
    routes.iter().fold(String::new(), |out, (note, routes)| {
        format!("{out}<p class=\"note\">{}: {}</p>", escape(&routes.join(", ")), escape(note))
    })
}

fn routes(run: &ReportRun, run_idx: usize) -> String {
    let mut out = format!(
        "<div class=\"card\"><table class=\"sorts\"><thead><tr><th>Route</th><th>Town</th>\
         <th>Scenario</th><th>Status</th><th class=\"n\">Completion %</th>\
         <th class=\"n\">Penalty 0–1</th><th class=\"n\">Driving score</th>\
         <th class=\"n\">Infractions</th>{MINIMUM_SPEED_HEADING}<th class=\"n\">Length m</th>\
         <th class=\"n\">Driven s</th></tr></thead><tbody>",
    );
    for drive in &run.drives {
        let record = &drive.record;
        let class = if record.is_success() { "good" } else { "bad" };
        let number = |value: f64, digits: usize| {
            format!("<td class=\"n\" data-v=\"{value}\">{value:.digits$}</td>")
        };
        let _ = write!(
            out,
            "<tr><td class=\"w\" data-v=\"{}\"><a href=\"{}\">{}</a></td><td>{}</td><td>{}</td>\
             <td class=\"{class}\">{}</td>{}{}{}{}{}{}{}</tr>",
            escape(drive.parts().0),
            drive.link(run_idx, 1),
            escape(&short_id(drive)),
            escape(&record.town_name),
            escape(&record.scenario_name),
            escape(&record.status),
            number(record.scores.score_route.value(), 2),
            number(record.scores.score_penalty, 3),
            number(record.scores.score_composed, 2),
            number(drive.infractions.len() as f64, 0),
            number(drive.minimum_speed_values() as f64, 0),
            number(record.meta.route_length.value(), 1),
            number(record.meta.duration_game, 2),
        );
    }
    let unfinished = run.drives_total.saturating_sub(run.drives.len());
    let _ = write!(
        out,
        "</tbody></table><p class=\"small\">Driving score = route completion × infraction penalty. \
         {unfinished} of {} routes are not finished and count as zero in the averages above. \
         Minimum-speed values cost no score. Green: finished without an infraction.</p></div>",
        run.drives_total
    );
    out += &notes(run);
    out
}

fn total_safety(run: &ReportRun) -> Safety {
    let mut total = Safety::default();
    run.drives.iter().filter_map(|drive| drive.record.safety).for_each(|one| total.add(&one));
    total
}

fn safety(run: &ReportRun, run_idx: usize) -> String {
    let mut out = String::from(
        "<div class=\"card\"><table class=\"sorts\"><thead><tr><th>Route</th>\
         <th class=\"n\">Commands<br/>held</th><th class=\"n\">Answers<br/>not finite</th>\
         <th class=\"n\">Prefills<br/>failed</th><th class=\"n\">Filter<br/>restarts</th>\
         <th class=\"n\">Oldest<br/>prefix s</th><th class=\"n\">Oldest<br/>camera s</th>\
         <th class=\"n\">Oldest<br/>LiDAR s</th></tr></thead><tbody>",
    );
    for drive in &run.drives {
        let Some(one) = drive.record.safety else { continue };
        let count = |count: u64| format!("<td class=\"n\" data-v=\"{count}\">{count}</td>");
        let fault = |count: u64| match count {
            0 => "<td class=\"n\" data-v=\"0\">0</td>".to_owned(),
            _ => format!("<td class=\"n bad\" data-v=\"{count}\">{count}</td>"),
        };
        let age = |age_s: f64| format!("<td class=\"n\" data-v=\"{age_s}\">{age_s:.2}</td>");
        let _ = write!(
            out,
            "<tr><td class=\"w\" data-v=\"{}\"><a href=\"{}\">{}</a></td>{}{}{}{}{}{}{}</tr>",
            escape(drive.parts().0),
            drive.link(run_idx, 1),
            escape(&short_id(drive)),
            count(one.commands_held),
            fault(one.answers_not_finite),
            fault(one.prefills_failed),
            fault(one.filter_restarts),
            age(one.oldest_prefix_s),
            age(one.oldest_camera_s),
            age(one.oldest_lidar_s),
        );
    }
    out + "</tbody></table><p class=\"small\">Ages are the maximum of each drive: of the prefix KV \
           cache (of the scene, for drivers without a model) when a command computed from it was \
           applied, and of sensor data when the driver received it. For routes that are not listed \
           all values are 0.</p></div>"
}
