//! Result files: checkpoints and merged tables with the keys, key order and number
//! formats of the official harness.

use super::python::{float_text, round};
use super::record::{Infractions, Record, Scores};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Result file of one or more routes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    #[serde(rename = "_checkpoint")]
    pub body: CheckpointBody,
    /// `Started`, `Finished`, `Rejected`, `Crashed` or `Invalid`.
    pub entry_status: String,
    /// True if and only if the status is `Finished`.
    pub eligible: bool,
    /// One icon name per declared sensor.
    pub sensors: Vec<String>,
    /// 15 numbers as text; empty until all routes are done.
    pub values: Vec<String>,
    /// Names of the values, empty until all routes are done.
    pub labels: Vec<String>,
}

/// The inner part of a [`Checkpoint`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CheckpointBody {
    pub global_record: MaybeGlobal,
    /// Number of finished routes and of all routes.
    pub progress: [usize; 2],
    pub records: Vec<Record>,
}

/// Global record, or `{}` until all routes are done.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MaybeGlobal {
    Complete(Box<GlobalRecord>),
    Missing {},
}

/// Averages over all routes of a result file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GlobalRecord {
    /// Always −1 in the official format.
    pub index: i64,
    /// Always −1 in the official format.
    pub route_id: i64,
    /// Worst status of all routes: `Failed`, `Completed` or `Perfect`.
    pub status: String,
    pub infractions: InfractionRates,
    pub scores_mean: GlobalScores,
    pub scores_std_dev: GlobalScores,
    pub meta: GlobalMeta,
}

/// Infractions per kilometer, rounded to 3 digits; lane departures are kilometers instead. Fields
/// in key order; [`InfractionKind`](super::InfractionKind) explains the names.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
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

/// One value per score, in key order.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct GlobalScores {
    /// Driving score of all routes, 0 to 100.
    pub score_composed: f64,
    /// Route completion, percent.
    pub score_route: f64,
    /// Infraction penalty, 0 to 1.
    pub score_penalty: f64,
}

/// Lengths and durations, summed over all routes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GlobalMeta {
    /// Length of all routes, meters.
    pub total_length: f64,
    /// Simulation time of all routes, seconds.
    pub duration_game: f64,
    /// Wall time of all routes, seconds.
    pub duration_system: f64,
    /// Route id, index and status of every failed route.
    pub exceptions: Vec<(String, usize, String)>,
}

/// Names of the values of a checkpoint.
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
    /// Averages `records` over `routes_total` routes. Routes without a record count as zero.
    ///
    /// # Panics
    /// If `routes_total`, the divisor, is 0.
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

    /// Returns the values named by [`LABELS`], as text.
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

/// Sums from +0.0: `Iterator::sum` of an empty iterator is −0.0, which files would contain.
pub(super) fn sum(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |total, number| total + number)
}

/// Parses the meters in "Agent went outside its route lanes for about 4.251
/// meters (…": the ninth word.
fn meters_of_lane_message(message: &str) -> Option<f64> {
    message.split(' ').nth(8)?.parse().ok()
}

impl Checkpoint {
    /// Creates the result file of a run that has finished all `routes_total` routes.
    pub fn finished(records: Vec<Record>, routes_total: usize, sensors: Vec<String>) -> Self {
        let global = GlobalRecord::new(&records, routes_total);
        let values = global.values();
        let crash = records.iter().rev().find_map(|record| {
            let given_up = ["Simulation crashed", "Wall-time limit"];
            if given_up.iter().any(|text| record.status.contains(text)) {
                Some("Crashed")
            } else if record.status.contains("Agent's sensors were invalid") {
                Some("Rejected")
            } else {
                None
            }
        });
        let is_complete = records.len() == routes_total && !sensors.is_empty();
        let entry_status = if is_complete { crash.unwrap_or("Finished") } else { "Invalid" };
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

/// All records of a campaign in the format of the official merge tool's `merged.json`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MergedTable {
    #[serde(rename = "_checkpoint")]
    body: MergedBody,
    /// Sum of all driving scores divided by the number of drives of the campaign, 0 to 100.
    #[serde(rename = "driving score")]
    pub driving_score: f64,
    /// Successes divided by the number of drives of the campaign, 0 to 1.
    #[serde(rename = "success rate")]
    pub success_rate: f64,
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
    /// Merges `records` of a campaign of `routes` routes with `repetitions` drives each. Drives
    /// without a record count as zero. The official tool always divides by 220 instead.
    ///
    /// # Panics
    /// If `routes` or `repetitions` is 0.
    pub fn new(mut records: Vec<Record>, routes: usize, repetitions: u32) -> Self {
        assert!(routes > 0 && repetitions > 0, "averages over no drives");
        let total = routes as f64 * f64::from(repetitions);
        let score = sum(records.iter().map(|record| record.scores.score_composed));
        let successes = records.iter().filter(|record| record.is_success()).count();
        // By route id as text, descending: the order of the official tool.
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

    /// Returns the number of drives of the campaign, with and without a record.
    pub fn total(&self) -> usize {
        self.routes * self.repetitions as usize
    }

    /// Returns the records by route id as text, descending.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.body.records.iter().map(|record| &record.0)
    }
}

impl fmt::Display for MergedTable {
    /// Formats the scores as one line, with the numbers of finished and of all drives.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_shows_finished_and_total_before_scores() {
        let line = MergedTable::new(Vec::new(), 3, 1).to_string();
        assert!(line.starts_with("0 / 3 routes finished, driving score 0.00"), "{line}");
    }

    #[test]
    fn missing_global_record_is_an_empty_object() {
        let text = serde_json::to_string(&MaybeGlobal::Missing {}).unwrap();
        assert_eq!(text, "{}");
        assert_eq!(serde_json::from_str::<MaybeGlobal>("{}").unwrap(), MaybeGlobal::Missing {});
    }
}
