//! Result record of one drive, with the keys, key order and number formats of the official harness.

use super::python::Number;
use super::safety::Safety;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tandem_files::path_component;
use tandem_scene::RouteId;

/// Key of the minimum-speed values: the only infractions that neither cost score nor end a route.
pub const MIN_SPEED_KEY: &str = "min_speed_infractions";

/// Record of one drive in a result file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Position in the file's route list.
    pub index: usize,
    /// E.g. `RouteScenario_1711_rep0`.
    pub route_id: String,
    /// Name of the first scenario, e.g. `ParkingCutIn_1`.
    pub scenario_name: String,
    /// Id of the weather preset; `None` if the route's weather is not a preset.
    pub weather_id: Option<String>,
    /// Route, town, scenario, weather and start time in one name.
    pub save_name: String,
    /// `Perfect`, `Completed`, `Failed` or `Failed - reason`.
    pub status: String,
    /// Total length of all lists of `infractions`, minimum-speed values included.
    pub num_infractions: usize,
    pub infractions: Infractions,
    pub scores: Scores,
    pub meta: Meta,
    pub town_name: String,
    /// Notes for the reader of the result. The official format has no such key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Degraded operation that the scores do not show. `None` if all values are zero, and in
    /// records of other harnesses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<Safety>,
}

/// Messages by rule; [`InfractionKind`](super::InfractionKind) explains the names. The order of the
/// fields is the order of the keys.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
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
    /// Returns every list with its key, in file order.
    pub fn lists(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        [
            ("collisions_layout", self.collisions_layout.as_slice()),
            ("collisions_pedestrian", &self.collisions_pedestrian),
            ("collisions_vehicle", &self.collisions_vehicle),
            ("red_light", &self.red_light),
            ("stop_infraction", &self.stop_infraction),
            ("outside_route_lanes", &self.outside_route_lanes),
            (MIN_SPEED_KEY, &self.min_speed_infractions),
            ("yield_emergency_vehicle_infractions", &self.yield_emergency_vehicle_infractions),
            ("scenario_timeouts", &self.scenario_timeouts),
            ("route_dev", &self.route_dev),
            ("vehicle_blocked", &self.vehicle_blocked),
            ("route_timeout", &self.route_timeout),
        ]
        .into_iter()
    }

    /// Total length of all lists, as the official format counts.
    pub fn count(&self) -> usize {
        self.lists().map(|(_, list)| list.len()).sum()
    }

    /// Number of infractions without the minimum-speed values, which cost no score.
    pub fn costly_count(&self) -> usize {
        self.count() - self.min_speed_infractions.len()
    }
}

/// Scores of a drive, rounded to 6 digits.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Scores {
    /// Route completion, percent; the integer 100 for a finished route.
    pub score_route: Number,
    /// Infraction penalty: the product of the factors of all infractions.
    pub score_penalty: f64,
    /// Driving score: completion × penalty, 0 to 100.
    pub score_composed: f64,
}

/// Length and durations of a drive, rounded to 3 digits.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Meta {
    /// Length of the dense route, meters; the integer 0 if it was never loaded.
    pub route_length: Number,
    /// Simulation time of the drive, seconds.
    pub duration_game: f64,
    /// Time on the run's clock, seconds: wall time, or simulation time where time is simulated.
    pub duration_system: f64,
}

/// Part of a record that depends on the outcome of the drive.
#[derive(Clone, PartialEq, Debug)]
pub struct Scored {
    /// `Perfect`, `Completed`, `Failed` or `Failed - reason`.
    pub status: String,
    pub infractions: Infractions,
    pub scores: Scores,
    pub meta: Meta,
}

/// Part of a record that is known before the drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteIdentity {
    /// E.g. `RouteScenario_1711_rep0`.
    pub route_id: String,
    /// Name of the first scenario, empty without one.
    pub scenario_name: String,
    /// Id of the weather preset; `None` if the route's weather is not a preset.
    pub weather_id: Option<String>,
    pub town_name: String,
    /// Route, town, scenario, weather and start time in one name.
    pub save_name: String,
}

impl RouteIdentity {
    /// Names one drive along a route. `repetition` counts from 0, `started_unix_s` is seconds since
    /// the Unix epoch, which the save name prints in UTC.
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
            // Also the name of a folder, so names in route files must not point outside it.
            save_name: file_stem(&save_name),
        }
    }
}

/// Returns the official name of a drive, e.g. `RouteScenario_1711_rep0`.
pub fn route_id(route: &RouteId, repetition: u32) -> String {
    format!("RouteScenario_{route}_rep{repetition}")
}

/// Splits the official name of a drive into route id and repetition. An id may contain any text,
/// underscores and `_rep` included. Names of other forms are split as the official tools do: the id
/// is the text between the first two underscores, the repetition 0.
pub fn split_route_id(route_id: &str) -> (&str, u32) {
    let named = route_id.strip_prefix("RouteScenario_").and_then(|rest| {
        let (id, repetition) = rest.rsplit_once("_rep")?;
        Some((id, repetition.parse().ok()?))
    });
    named.unwrap_or_else(|| (route_id.split('_').nth(1).unwrap_or_default(), 0))
}

/// Returns the name of a drive's files without extension: its official name as one path component.
/// A name that has to be changed for that ends in digits of its SHA-256, so that it stays unique.
pub fn file_stem(name: &str) -> String {
    let component = path_component(name);
    let digest = Sha256::digest(name);
    let digits: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    if component == name || component.ends_with(&digits) {
        return component;
    }
    format!("{component}-{digits}")
}

/// Returns month and day of the Gregorian calendar, both from 1.
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
    /// True if a drive can have these scores: values in range, and a driving
    /// score that is their product.
    pub fn is_possible(&self) -> bool {
        let route = self.score_route.value();
        (0.0..=100.0).contains(&route)
            && (0.0..=100.0).contains(&self.score_composed)
            && self.score_penalty <= 1.0
            && is_product(self.score_composed, route, self.score_penalty)
    }
}

/// True if a driving score is route completion × penalty, up to the rounding of all three.
pub(super) fn is_product(composed: f64, route: f64, penalty: f64) -> bool {
    (composed - (route * penalty).max(0.0)).abs() <= 1e-3
}

impl Record {
    /// Creates the record of a route that has not been scored yet.
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

    /// Returns this record with the outcome of a drive.
    pub fn with(self, scored: Scored) -> Self {
        let Scored { status, infractions, scores, meta } = scored;
        let num_infractions = infractions.count();
        Self { status, num_infractions, infractions, scores, meta, ..self }
    }

    /// True if the route was finished without an infraction other than minimum-speed values. The
    /// success rate counts these drives.
    pub fn is_success(&self) -> bool {
        matches!(self.status.as_str(), "Completed" | "Perfect")
            && self.infractions.lists().all(|(key, list)| key == MIN_SPEED_KEY || list.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn leap_years_have_a_february_29() {
        let cases = [(0, (1, 1)), (58, (2, 28)), (59, (3, 1)), (789, (2, 29)), (20_778, (11, 21))];
        for (days, expected) in cases {
            assert_eq!(month_and_day(days), expected, "day {days}");
        }
    }

    #[test]
    fn file_stems_are_unique_path_components() {
        let official = "RouteScenario_1711_rep0";
        assert_eq!(file_stem(official), official);
        let long = "x".repeat(9_000);
        let names = ["a_b", "a/b", "a:b", "../a", "", &long, &format!("{long}y")];
        let stems: BTreeSet<String> = names.iter().map(|name| file_stem(name)).collect();
        assert_eq!(stems.len(), names.len(), "{stems:?}");
        assert!(stems.iter().all(|stem| !stem.contains('/') && stem.len() < 200), "{stems:?}");
    }

    #[test]
    fn official_names_are_split_into_id_and_repetition() {
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
            assert_eq!(split_route_id(name), expected, "{name}");
        }
        assert_eq!(split_route_id(&route_id(&"a_b".into(), 3)), ("a_b", 3));
    }
}
