//! The record of one drive, with the keys, key order and number formats of the official ones.

use super::python::Number;
use super::safety::Safety;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
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

    /// Length of all lists together.
    pub fn count(&self) -> usize {
        self.lists().map(|(_, list)| list.len()).sum()
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

/// The part of a record that depends on how the drive went.
#[derive(Clone, PartialEq, Debug)]
pub struct Scored {
    /// `Perfect`, `Completed`, `Failed` or `Failed - why`.
    pub status: String,
    /// What went wrong.
    pub infractions: Infractions,
    /// What it is worth.
    pub scores: Scores,
    /// How long it was.
    pub meta: Meta,
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

    /// This record with what a drive came to.
    pub fn with(self, scored: Scored) -> Self {
        let Scored { status, infractions, scores, meta } = scored;
        let num_infractions = infractions.count();
        Self { status, num_infractions, infractions, scores, meta, ..self }
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
}
