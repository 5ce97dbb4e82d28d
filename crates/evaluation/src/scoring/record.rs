//! Result files: records, checkpoints and merged tables with the keys, key order and number formats
//! of the official ones.

use super::python::{Number, float_text, round};
use super::safety::Safety;
use super::statistics::InfractionKind;
use serde::ser::Error as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use tandem_files::path_component;
use tandem_scene::RouteId;

/// The verdict on one route.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Position in the file's route list.
    pub index: usize,
    /// E.g. `RouteScenario_1711_rep0`.
    pub route_id: String,
    /// Name of the first scenario, e.g. `ParkingCutIn_1`.
    pub scenario_name: String,
    /// Id of the weather preset, if the route's weather is one.
    pub weather_id: Option<String>,
    /// Route, town, scenario, weather and start time in one name.
    pub save_name: String,
    /// `Perfect`, `Completed`, `Failed` or `Failed - why`.
    pub status: String,
    /// Length of all lists together.
    pub num_infractions: usize,
    /// What went wrong.
    pub infractions: Infractions,
    /// What it is worth.
    pub scores: Scores,
    /// How long it was.
    pub meta: Meta,
    /// Where it was.
    pub town_name: String,
    /// What a reader must know of the drive; the official format has no such key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the scores do not show; `None` if all of it is zero, and in other harnesses' records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<Safety>,
}

/// Messages by rule. The order of the fields is the order of the keys.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the file format's; `InfractionKind` explains them")]
pub struct Infractions {
    pub collisions_layout: Vec<String>,
    pub collisions_pedestrian: Vec<String>,
    pub collisions_vehicle: Vec<String>,
    pub red_light: Vec<String>,
    pub stop_infraction: Vec<String>,
    pub outside_route_lanes: Vec<String>,
    pub min_speed_infractions: Vec<String>,
    pub yield_emergency_vehicle_infractions: Vec<String>,
    pub scenario_timeouts: Vec<String>,
    pub route_dev: Vec<String>,
    pub vehicle_blocked: Vec<String>,
    pub route_timeout: Vec<String>,
}

impl Infractions {
    /// Every list with its key, in file order.
    pub fn lists(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        [
            ("collisions_layout", self.collisions_layout.as_slice()),
            ("collisions_pedestrian", &self.collisions_pedestrian),
            ("collisions_vehicle", &self.collisions_vehicle),
            ("red_light", &self.red_light),
            ("stop_infraction", &self.stop_infraction),
            ("outside_route_lanes", &self.outside_route_lanes),
            ("min_speed_infractions", &self.min_speed_infractions),
            ("yield_emergency_vehicle_infractions", &self.yield_emergency_vehicle_infractions),
            ("scenario_timeouts", &self.scenario_timeouts),
            ("route_dev", &self.route_dev),
            ("vehicle_blocked", &self.vehicle_blocked),
            ("route_timeout", &self.route_timeout),
        ]
        .into_iter()
    }

    /// The list that infractions of `kind` go to.
    pub(super) fn list_mut(&mut self, kind: InfractionKind) -> &mut Vec<String> {
        match kind {
            InfractionKind::CollisionPedestrian => &mut self.collisions_pedestrian,
            InfractionKind::CollisionVehicle => &mut self.collisions_vehicle,
            InfractionKind::CollisionLayout => &mut self.collisions_layout,
            InfractionKind::RedLight => &mut self.red_light,
            InfractionKind::StopSign => &mut self.stop_infraction,
            InfractionKind::OutsideRouteLanes { .. } => &mut self.outside_route_lanes,
            InfractionKind::MinSpeed => &mut self.min_speed_infractions,
            InfractionKind::YieldEmergencyVehicle => &mut self.yield_emergency_vehicle_infractions,
            InfractionKind::ScenarioTimeout => &mut self.scenario_timeouts,
            InfractionKind::RouteDeviation => &mut self.route_dev,
            InfractionKind::VehicleBlocked => &mut self.vehicle_blocked,
        }
    }
}

/// What a route is worth, rounded to 6 digits.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Scores {
    /// Route completion, percent; the integer 100 for a finished route.
    pub score_route: Number,
    /// Infraction penalty.
    pub score_penalty: f64,
    /// Driving score.
    pub score_composed: f64,
}

/// How long a route was, rounded to 3 digits.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Meta {
    /// Length of the dense route, meters; the integer 0 if it was never loaded.
    pub route_length: Number,
    /// Simulation time, seconds.
    pub duration_game: f64,
    /// Time on the run's own clock, seconds: wall time, and simulation time where time is simulated.
    pub duration_system: f64,
}

/// What a record says about the route before it is driven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteIdentity {
    /// E.g. `RouteScenario_1711_rep0`.
    pub route_id: String,
    /// Name of the first scenario, empty without one.
    pub scenario_name: String,
    /// Id of the weather preset, if the route's weather is one.
    pub weather_id: Option<String>,
    /// The file's town.
    pub town_name: String,
    /// Route, town, scenario, weather and start time in one name.
    pub save_name: String,
}

impl RouteIdentity {
    /// Names one drive along a route, `repetition` counting from 0. `started_unix_s` is wall time in
    /// seconds since the Unix epoch; the save name prints it in UTC.
    pub fn new(
        route: &tandem_scene::Route,
        repetition: u32,
        weather_id: Option<&str>,
        started_unix_s: u64,
    ) -> Self {
        let route_id = route_id(&route.id, repetition);
        let scenario_name = route.scenarios.first().map(|s| s.name.clone()).unwrap_or_default();
        let (month, day) = month_and_day(started_unix_s / 86_400);
        let second = started_unix_s % 86_400;
        let save_name = format!(
            "{route_id}_{}_{scenario_name}_{}_{month:02}_{day:02}_{:02}_{:02}_{:02}",
            route.town,
            weather_id.unwrap_or("None"),
            second / 3600,
            second / 60 % 60,
            second % 60,
        );
        Self {
            route_id,
            scenario_name,
            weather_id: weather_id.map(str::to_owned),
            town_name: route.town.clone(),
            // It is the name of a folder, too: names in route files must not lead out of it.
            save_name: file_stem(&save_name),
        }
    }
}

/// The official name of a drive, e.g. `RouteScenario_1711_rep0`.
pub fn route_id(route: &RouteId, repetition: u32) -> String {
    format!("RouteScenario_{route}_rep{repetition}")
}

/// The route's id and the repetition in the official name of a drive. An id may hold any text,
/// underscores and `_rep` too; names of other forms are read as the official tools read them, the id
/// between the first two underscores.
pub fn parts_of(route_id: &str) -> (&str, u32) {
    let named = route_id.strip_prefix("RouteScenario_").and_then(|rest| {
        let (id, repetition) = rest.rsplit_once("_rep")?;
        Some((id, repetition.parse().ok()?))
    });
    named.unwrap_or_else(|| (route_id.split('_').nth(1).unwrap_or_default(), 0))
}

/// The name of a drive's files, without ending: its official name as one component of a path. Where
/// that takes changes, it ends in a part of the name's SHA-256, which keeps drives apart.
pub fn file_stem(name: &str) -> String {
    let component = path_component(name);
    let digest = Sha256::digest(name);
    let digits: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    if component == name || component.ends_with(&digits) {
        return component;
    }
    format!("{component}-{digits}")
}

/// Month and day, both from 1, of the Gregorian calendar.
fn month_and_day(mut days_since_epoch: u64) -> (u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days_since_epoch >= 365 + u64::from(is_leap(year)) {
        days_since_epoch -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days_since_epoch < length {
            break;
        }
        days_since_epoch -= length;
        month += 1;
    }
    (month, days_since_epoch + 1)
}

impl Scores {
    /// True if a drive can have these scores: completion up to 100 %, and their product.
    pub fn is_possible(&self) -> bool {
        let route = self.score_route.value();
        (0.0..=100.0).contains(&route)
            && (0.0..=100.0).contains(&self.score_composed)
            && self.score_penalty <= 1.0
            && is_product(self.score_composed, route, self.score_penalty)
    }
}

/// True if a driving score is route completion times penalty, but for the rounding of all three.
pub(super) fn is_product(composed: f64, route: f64, penalty: f64) -> bool {
    (composed - (route * penalty).max(0.0)).abs() <= 1e-3
}

impl Record {
    /// A record of a route that has not been judged yet.
    pub fn blank(index: usize, identity: &RouteIdentity) -> Self {
        Self {
            index,
            route_id: identity.route_id.clone(),
            scenario_name: identity.scenario_name.clone(),
            weather_id: identity.weather_id.clone(),
            save_name: identity.save_name.clone(),
            status: "Started".to_owned(),
            num_infractions: 0,
            infractions: Infractions::default(),
            scores: Scores { score_route: Number::Int(0), score_penalty: 0.0, score_composed: 0.0 },
            meta: Meta { route_length: Number::Int(0), duration_game: 0.0, duration_system: 0.0 },
            town_name: identity.town_name.clone(),
            notes: Vec::new(),
            safety: None,
        }
    }

    /// Finished without a penalized infraction: what the success rate counts.
    pub fn is_success(&self) -> bool {
        matches!(self.status.as_str(), "Completed" | "Perfect")
            && self
                .infractions
                .lists()
                .all(|(key, list)| key == "min_speed_infractions" || list.is_empty())
    }
}

/// A result file of one or more routes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Records and what they come to.
    #[serde(rename = "_checkpoint")]
    pub body: CheckpointBody,
    /// `Started`, `Finished`, `Rejected`, `Crashed` or `Invalid`.
    pub entry_status: String,
    /// True only for `Finished`.
    pub eligible: bool,
    /// One icon name per declared sensor.
    pub sensors: Vec<String>,
    /// 15 numbers as text, empty until all routes are done.
    pub values: Vec<String>,
    /// What the values are, empty until all routes are done.
    pub labels: Vec<String>,
}

/// The inner part of a [`Checkpoint`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CheckpointBody {
    /// Averages over the file, once all routes are done.
    pub global_record: MaybeGlobal,
    /// Routes done, routes in total.
    pub progress: [usize; 2],
    /// One per finished route.
    pub records: Vec<Record>,
}

/// A global record, or `{}` while routes are missing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MaybeGlobal {
    /// All routes are done.
    Complete(Box<GlobalRecord>),
    /// Some are missing.
    Missing {},
}

/// Averages over all routes of a file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GlobalRecord {
    /// Always −1.
    pub index: i64,
    /// Always −1.
    pub route_id: i64,
    /// The worst of all: `Failed`, `Completed` or `Perfect`.
    pub status: String,
    /// Events per kilometer; lane departures in kilometers.
    pub infractions: InfractionRates,
    /// Means over all routes.
    pub scores_mean: GlobalScores,
    /// Standard deviations over all routes.
    pub scores_std_dev: GlobalScores,
    /// Sums over all routes.
    pub meta: GlobalMeta,
}

/// Infractions per kilometer, 3 digits; lane departures are kilometers. Fields in key order.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the file format's; `InfractionKind` explains them")]
pub struct InfractionRates {
    pub collisions_layout: f64,
    pub collisions_pedestrian: f64,
    pub collisions_vehicle: f64,
    pub red_light: f64,
    pub stop_infraction: f64,
    pub outside_route_lanes: f64,
    pub min_speed_infractions: f64,
    pub yield_emergency_vehicle_infractions: f64,
    pub scenario_timeouts: f64,
    pub route_dev: f64,
    pub vehicle_blocked: f64,
    pub route_timeout: f64,
}

/// One number per score, in key order.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct GlobalScores {
    /// Driving score.
    pub score_composed: f64,
    /// Route completion, percent.
    pub score_route: f64,
    /// Infraction penalty.
    pub score_penalty: f64,
}

/// Sums over all routes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GlobalMeta {
    /// Meters.
    pub total_length: f64,
    /// Seconds of simulation.
    pub duration_game: f64,
    /// Seconds of wall time.
    pub duration_system: f64,
    /// Route id, index and status of every failed route.
    pub exceptions: Vec<(String, usize, String)>,
}

/// What the values of a checkpoint are.
const LABELS: [&str; 15] = [
    "Avg. driving score",
    "Avg. route completion",
    "Avg. infraction penalty",
    "Collisions with pedestrians",
    "Collisions with vehicles",
    "Collisions with layout",
    "Red lights infractions",
    "Stop sign infractions",
    "Off-road infractions",
    "Route deviations",
    "Route timeouts",
    "Agent blocked",
    "Yield emergency vehicles infractions",
    "Scenario timeouts",
    "Min speed infractions",
];

impl GlobalRecord {
    /// Averages `records` over `routes_total` routes, the ones without a record counting as zero.
    ///
    /// # Panics
    /// If `routes_total` is 0.
    pub fn new(records: &[Record], routes_total: usize) -> Self {
        assert!(routes_total > 0, "averages over no routes");
        let mean = |score: fn(&Scores) -> f64| {
            round(sum(records.iter().map(|r| score(&r.scores))) / routes_total as f64, 6)
        };
        let deviation = |score: fn(&Scores) -> f64, mean: f64| {
            if routes_total == 1 {
                return 0.0;
            }
            let squares = sum(records.iter().map(|r| (score(&r.scores) - mean).powi(2)));
            round((squares / (routes_total - 1) as f64).sqrt(), 3)
        };
        let composed = |scores: &Scores| scores.score_composed;
        let route = |scores: &Scores| scores.score_route.value();
        let penalty = |scores: &Scores| scores.score_penalty;
        let scores_mean = GlobalScores {
            score_composed: mean(composed),
            score_route: mean(route),
            score_penalty: mean(penalty),
        };
        let failed = records.iter().filter(|record| record.status.contains("Failed"));
        Self {
            index: -1,
            route_id: -1,
            status: worst_status(records).to_owned(),
            infractions: infraction_rates(records),
            scores_mean,
            scores_std_dev: GlobalScores {
                score_composed: deviation(composed, scores_mean.score_composed),
                score_route: deviation(route, scores_mean.score_route),
                score_penalty: deviation(penalty, scores_mean.score_penalty),
            },
            meta: GlobalMeta {
                total_length: sum(records.iter().map(|r| r.meta.route_length.value())),
                duration_game: sum(records.iter().map(|r| r.meta.duration_game)),
                duration_system: sum(records.iter().map(|r| r.meta.duration_system)),
                exceptions: failed
                    .map(|r| (r.route_id.clone(), r.index, r.status.clone()))
                    .collect(),
            },
        }
    }

    /// The numbers that [`LABELS`] name, as text.
    fn values(&self) -> Vec<String> {
        let (scores, rates) = (&self.scores_mean, &self.infractions);
        [
            scores.score_composed,
            scores.score_route,
            scores.score_penalty,
            rates.collisions_pedestrian,
            rates.collisions_vehicle,
            rates.collisions_layout,
            rates.red_light,
            rates.stop_infraction,
            rates.outside_route_lanes,
            rates.route_dev,
            rates.route_timeout,
            rates.vehicle_blocked,
            rates.yield_emergency_vehicle_infractions,
            rates.scenario_timeouts,
            rates.min_speed_infractions,
        ]
        .map(float_text)
        .to_vec()
    }
}

fn worst_status(records: &[Record]) -> &'static str {
    if records.iter().any(|record| record.status.contains("Failed")) {
        "Failed"
    } else if records.iter().any(|record| record.status == "Completed") {
        "Completed"
    } else {
        "Perfect"
    }
}

fn infraction_rates(records: &[Record]) -> InfractionRates {
    let driven_km = sum(records
        .iter()
        .map(|r| r.meta.route_length.value() / 1000.0 * r.scores.score_route.value() / 100.0))
    .max(0.001);
    let rate = |list: fn(&Infractions) -> &Vec<String>| {
        let events: usize = records.iter().map(|r| list(&r.infractions).len()).sum();
        round(events as f64 / driven_km, 3)
    };
    let outside_km = sum(records
        .iter()
        .flat_map(|r| &r.infractions.outside_route_lanes)
        .map(|message| meters_of_lane_message(message).unwrap_or(0.0) / 1000.0));
    InfractionRates {
        collisions_layout: rate(|i| &i.collisions_layout),
        collisions_pedestrian: rate(|i| &i.collisions_pedestrian),
        collisions_vehicle: rate(|i| &i.collisions_vehicle),
        red_light: rate(|i| &i.red_light),
        stop_infraction: rate(|i| &i.stop_infraction),
        outside_route_lanes: round(outside_km, 3),
        min_speed_infractions: rate(|i| &i.min_speed_infractions),
        yield_emergency_vehicle_infractions: rate(|i| &i.yield_emergency_vehicle_infractions),
        scenario_timeouts: rate(|i| &i.scenario_timeouts),
        route_dev: rate(|i| &i.route_dev),
        vehicle_blocked: rate(|i| &i.vehicle_blocked),
        route_timeout: rate(|i| &i.route_timeout),
    }
}

/// Adds from zero up: `Iterator::sum` of nothing is −0.0, which files would print.
pub(super) fn sum(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |total, number| total + number)
}

/// The meters in "Agent went outside its route lanes for about 4.251 meters (…": the ninth word.
fn meters_of_lane_message(message: &str) -> Option<f64> {
    message.split(' ').nth(8)?.parse().ok()
}

impl Checkpoint {
    /// The file of a run that got through all `routes_total` routes.
    pub fn finished(records: Vec<Record>, routes_total: usize, sensors: Vec<String>) -> Self {
        let global = GlobalRecord::new(&records, routes_total);
        let values = global.values();
        let crash = records.iter().rev().find_map(|record| {
            let is_given_up = ["Simulation crashed", "Wall-time limit"];
            if is_given_up.iter().any(|why| record.status.contains(why)) {
                Some("Crashed")
            } else if record.status.contains("Agent's sensors were invalid") {
                Some("Rejected")
            } else {
                None
            }
        });
        let is_whole = records.len() == routes_total && !sensors.is_empty();
        let entry_status = if is_whole { crash.unwrap_or("Finished") } else { "Invalid" };
        Self {
            body: CheckpointBody {
                global_record: MaybeGlobal::Complete(Box::new(global)),
                progress: [records.len(), routes_total],
                records,
            },
            entry_status: entry_status.to_owned(),
            eligible: entry_status == "Finished",
            sensors,
            values,
            labels: LABELS.map(str::to_owned).to_vec(),
        }
    }
}

/// All records of a campaign in the format of the official merge tool, which calls it `merged.json`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MergedTable {
    #[serde(rename = "_checkpoint")]
    body: MergedBody,
    /// Sum of all driving scores over the number of drives of the campaign.
    #[serde(rename = "driving score")]
    pub driving_score: f64,
    /// Successes over the number of drives of the campaign, 0 to 1.
    #[serde(rename = "success rate")]
    pub success_rate: f64,
    /// Number of records.
    #[serde(rename = "eval num")]
    pub finished: usize,
    #[serde(skip)]
    routes: usize,
    #[serde(skip)]
    repetitions: u32,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct MergedBody {
    records: Vec<MergedRecord>,
}

/// A [`Record`] without its index.
#[derive(Clone, PartialEq, Debug)]
struct MergedRecord(Record);

impl Serialize for MergedRecord {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = serde_json::to_value(&self.0).map_err(S::Error::custom)?;
        if let Some(object) = value.as_object_mut() {
            object.shift_remove("index");
        }
        value.serialize(serializer)
    }
}

impl MergedTable {
    /// Merges `records` of a campaign that drives `routes` routes `repetitions` times each; drives
    /// without a record count as zero. The official tool always divides by 220.
    ///
    /// # Panics
    /// If there is no route or no repetition.
    pub fn new(mut records: Vec<Record>, routes: usize, repetitions: u32) -> Self {
        assert!(routes > 0 && repetitions > 0, "averages over no drives");
        let total = routes as f64 * f64::from(repetitions);
        let score = sum(records.iter().map(|record| record.scores.score_composed));
        let successes = records.iter().filter(|record| record.is_success()).count();
        // As text, descending: the official order.
        records.sort_by(|left, right| right.route_id.cmp(&left.route_id));
        Self {
            finished: records.len(),
            driving_score: score / total,
            success_rate: successes as f64 / total,
            body: MergedBody { records: records.into_iter().map(MergedRecord).collect() },
            routes,
            repetitions,
        }
    }

    /// Drives of the whole campaign, with a record or without.
    pub fn total(&self) -> usize {
        self.routes * self.repetitions as usize
    }

    /// The records, by route id as text, descending.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.body.records.iter().map(|record| &record.0)
    }
}

impl fmt::Display for MergedTable {
    /// One line; the scores never stand without how many drives they rest on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {} ", self.finished, self.total())?;
        match self.repetitions {
            1 => f.write_str("routes"),
            repetitions => write!(f, "drives ({} routes, {repetitions} times each)", self.routes),
        }?;
        write!(
            f,
            " finished, driving score {:.2}, success rate {:.1} %",
            self.driving_score,
            self.success_rate * 100.0
        )
    }
}

/// A result file could not be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write {path:?}; finished drives are kept: put it right and run the same command again"
)]
pub struct WriteError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Writes `value` as JSON with the official indent of 4; `path` holds either what it held before or
/// all of it.
///
/// # Errors
/// If one of these steps fails.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), WriteError> {
    let written = json_text(value).and_then(|text| tandem_files::write(path, &text));
    written.map_err(|source| WriteError { path: path.to_owned(), source })
}

/// As [`write_json`], on one line.
///
/// # Errors
/// If a step fails.
pub fn write_json_compact(path: &Path, value: &impl Serialize) -> Result<(), WriteError> {
    serde_json::to_vec(value)
        .map_err(io::Error::from)
        .and_then(|text| tandem_files::write(path, &text))
        .map_err(|source| WriteError { path: path.to_owned(), source })
}

/// As [`write_json`], unless there is a file already: of several writers at once one wins. Returns
/// whether this one did.
///
/// # Errors
/// If a step fails.
pub(crate) fn write_new(path: &Path, value: &impl Serialize) -> Result<bool, WriteError> {
    let written = json_text(value).and_then(|text| tandem_files::write_new(path, &text));
    written.map_err(|source| WriteError { path: path.to_owned(), source })
}

pub(crate) fn json_text(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, indent);
    value.serialize(&mut serializer)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_calendar_knows_leap_years() {
        let cases = [(0, (1, 1)), (58, (2, 28)), (59, (3, 1)), (789, (2, 29)), (20_778, (11, 21))];
        for (days, expected) in cases {
            assert_eq!(month_and_day(days), expected, "day {days}");
        }
    }

    #[test]
    fn files_of_drives_have_names_of_their_own_whatever_the_ids_are() {
        let official = "RouteScenario_1711_rep0";
        assert_eq!(file_stem(official), official);
        let long = "x".repeat(9_000);
        let names = ["a_b", "a/b", "a:b", "../a", "", &long, &format!("{long}y")];
        let stems: BTreeSet<String> = names.iter().map(|name| file_stem(name)).collect();
        assert_eq!(stems.len(), names.len(), "{stems:?}");
        assert!(stems.iter().all(|stem| !stem.contains('/') && stem.len() < 200), "{stems:?}");
    }

    #[test]
    fn the_id_is_found_in_official_names_whatever_its_text_is() {
        let cases = [
            ("RouteScenario_1711_rep0", ("1711", 0)),
            ("RouteScenario_a_b/c_rep12", ("a_b/c", 12)),
            ("RouteScenario_7_rep1_rep2", ("7_rep1", 2)),
            ("RouteScenario__rep0", ("", 0)),
            ("RouteScenario_1711", ("1711", 0)),
            ("Other_1711_rep3", ("1711", 0)),
            ("1711", ("", 0)),
        ];
        for (name, expected) in cases {
            assert_eq!(parts_of(name), expected, "{name}");
        }
        assert_eq!(parts_of(&route_id(&"a_b".into(), 3)), ("a_b", 3));
    }

    #[test]
    fn a_summary_never_shows_a_score_without_finished_and_total() {
        let line = MergedTable::new(Vec::new(), 3, 1).to_string();
        assert!(line.starts_with("0 / 3 routes finished, driving score 0.00"), "{line}");
    }

    #[test]
    fn an_unfinished_file_has_an_empty_global_record() {
        let text = serde_json::to_string(&MaybeGlobal::Missing {}).unwrap();
        assert_eq!(text, "{}");
        assert_eq!(serde_json::from_str::<MaybeGlobal>("{}").unwrap(), MaybeGlobal::Missing {});
    }
}
