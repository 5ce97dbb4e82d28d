//! What a folder of result files comes to, ours or the official harness's.
//!
//! A score never stands without how many of how many drives it rests on, nothing counts twice, and
//! records must be of the route set that they are scored against.

use super::result_folder::ResultFolder;
use crate::campaign::words_of;
use crate::routes::{RouteFileError, SubsetError, parse_routes, select_subset};
use crate::scoring::{
    Abilities, Ability, AbilityError, FirstJunction, FoundRecord, Means, Merged, MotionLog,
    OFFICIAL_ROUTES, Rule, SignRule, abilities, duplicates, route_efficiency, route_id,
};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use tandem_files::shortened;
use tandem_scene::{Route, RouteId};

/// Route files of Bench2Drive: SHA-256 and name.
const KNOWN_SETS: [(&str, &str); 3] = [
    (
        "ffff24b3a2b8584632730fb42de7cb6036af780c3952cfef08ee8cf96a712f88",
        "Bench2Drive 220 (releases 0.0.3 and 0.0.4)",
    ),
    (
        "885debbc3d87f14351b521d8da0dc9d25fcee1f0d926ed1c92cc9ff62504ca45",
        "Bench2Drive validation (release 0.0.4)",
    ),
    ("6dc398c3835578f026d6268c9a8db4bcabf2113a2f9a141611b66fe48bc68327", "Bench2Drive Dev10"),
];

/// A folder can't be scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The route file could not be read.
    #[error("cannot read route file {path:?}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The route file can't be used.
    #[error(transparent)]
    Routes(Box<RouteFileError>),
    /// The subset can't be chosen.
    #[error(transparent)]
    Subset(#[from] SubsetError),
    /// Drives have several records.
    #[error("these drives have more than one record, and each may count once: {}; remove the files \
             that should not count", found.join("; "))]
    Duplicates {
        /// Route id and files of each.
        found: Vec<String>,
    },
    /// The results say that they were made with another route file.
    #[error(
        "the results in {folder:?} were made with the route file of SHA-256 {made_with}, but \
             {file} has {found}: name the file that they were made with"
    )]
    OtherRouteFile {
        /// Which folder.
        folder: PathBuf,
        /// What its `run.json` says.
        made_with: String,
        /// The route file, as the caller named it.
        file: String,
        /// Its hash.
        found: String,
    },
    /// Records are of other routes.
    #[error("these records are of no route of {file}: {}; name the route file that they were made \
             with", found.join(", "))]
    OtherRoutes {
        /// The route file, as the caller named it.
        file: String,
        /// Route id and what differs of each.
        found: Vec<String>,
    },
}

/// The routes that results are scored against.
#[derive(Clone, PartialEq, Debug)]
pub struct RouteSet {
    /// The routes, in file order.
    pub routes: Vec<Route>,
    /// The file, as the caller named it.
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// The set's name, if it is one of Bench2Drive's.
    pub name: Option<&'static str>,
    /// Where routes enter their first junction, by route id, from maps; empty without maps.
    pub first_junctions: BTreeMap<RouteId, FirstJunction>,
}

impl RouteSet {
    /// Reads a route file and keeps the routes of `subset`, see [`select_subset`].
    ///
    /// # Errors
    /// If the file can't be read or parsed, or the subset can't be chosen.
    pub fn read(path: &Path, subset: &str) -> Result<Self, ScoreError> {
        let bytes = fs::read(path).map_err(|source| read_error(path, source))?;
        let file = path.display().to_string();
        let routes =
            parse_routes(&bytes, &file).map_err(|error| ScoreError::Routes(Box::new(error)))?;
        let routes = select_subset(routes, subset)?;
        let digest = Sha256::digest(&bytes);
        let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let known = KNOWN_SETS.iter().find(|(hash, _)| *hash == sha256);
        let name = known.map(|(_, name)| *name);
        Ok(Self { routes, file, sha256, name, first_junctions: BTreeMap::new() })
    }
}

fn read_error(path: &Path, source: io::Error) -> ScoreError {
    ScoreError::Read { path: path.to_owned(), source }
}

/// A figure, or why there is none.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// The figure.
    pub value: Option<f64>,
    /// How many drives it rests on.
    pub drives: usize,
    /// Why there is no value.
    pub why_none: Option<String>,
}

impl Figure {
    fn mean(values: &[f64], why_empty: &str) -> Self {
        let drives = values.len();
        let value = (drives > 0).then(|| values.iter().sum::<f64>() / drives as f64);
        Self { value, drives, why_none: value.is_none().then(|| why_empty.to_owned()) }
    }

    fn none(why: String) -> Self {
        Self { value: None, drives: 0, why_none: Some(why) }
    }
}

/// Abilities by one release's counting of signs.
#[derive(Debug)]
pub struct AbilityTable {
    /// The abilities, or why there are none.
    pub abilities: Result<Abilities, AbilityError>,
    /// True if junctions were guessed for want of a map, so that traffic signs and the mean are
    /// approximate.
    pub is_approximate: bool,
}

impl AbilityTable {
    /// The ratio of the ability at `place`, 0 to 1.
    pub fn ratio(&self, place: usize) -> Option<f64> {
        self.abilities.as_ref().ok()?.ratios[place]
    }

    /// Mean of the ratios.
    pub fn mean(&self) -> Option<f64> {
        self.abilities.as_ref().ok()?.mean
    }

    /// True if the figure of `ability` depends on guessed junctions.
    pub fn is_guessed(&self, ability: Ability) -> bool {
        self.is_approximate && ability == Ability::TrafficSigns
    }
}

impl Serialize for AbilityTable {
    /// With the keys of the official file, and which figures are approximate.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = serde_json::Map::new();
        match &self.abilities {
            Ok(abilities) => {
                for (ability, ratio) in Ability::ALL.into_iter().zip(abilities.ratios) {
                    table.insert(ability.key().to_owned(), ratio.into());
                }
                table.insert("mean".to_owned(), abilities.mean.into());
                table.insert("crashed".to_owned(), serde_json::json!(abilities.missing));
                let keys = [Ability::TrafficSigns.key(), "mean"];
                let approximate = if self.is_approximate { &keys[..] } else { &[] };
                table.insert("approximate".to_owned(), serde_json::json!(approximate));
            }
            Err(error) => {
                table.insert("error".to_owned(), error.to_string().into());
            }
        }
        table.serialize(serializer)
    }
}

/// The figures of one repetition.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Repetition {
    /// Its number, from 0.
    pub repetition: u32,
    /// Drives with a record.
    pub finished: usize,
    /// Driving score, 0 to 100; `None` as that of the card.
    pub driving_score: Option<f64>,
    /// Success rate, 0 to 1.
    pub success_rate: Option<f64>,
}

/// The figures of the official merge tool. They are a driving score and a success rate for 220 records
/// of 220 routes alone.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct OfficialTool {
    /// Sum of the scores of all records, divided by 220.
    pub score_sum_over_220: f64,
    /// Number of successes, divided by 220.
    pub successes_over_220: f64,
}

impl OfficialTool {
    fn new(records: &[FoundRecord]) -> Self {
        let means = Means::new(records.iter(), OFFICIAL_ROUTES);
        Self { score_sum_over_220: means.driving_score, successes_over_220: means.success_rate }
    }
}

/// What a folder of results comes to.
#[derive(Debug, Serialize)]
pub struct ScoreCard {
    /// `official` or `corrected`.
    pub rule: &'static str,
    /// Drives with a record.
    pub finished: usize,
    /// Drives of the route set: routes times repetitions.
    pub total: usize,
    /// Repetitions of every route: as many as `run.json` says, else as many as records name.
    pub repetitions: usize,
    /// What the sums of score and successes were divided by.
    pub divisor: usize,
    /// Driving score, 0 to 100, a mean over repetitions; `None` by the official rule for a set of other
    /// than 220 routes, whose sums the official tool divides by 220, too.
    pub driving_score: Option<f64>,
    /// Success rate, 0 to 1; `None` as the driving score.
    pub success_rate: Option<f64>,
    /// The figures of each repetition, if there are several.
    pub by_repetition: Vec<Repetition>,
    /// What the official merge tool makes of these records, whatever their number.
    pub official_tool: OfficialTool,
    /// Driving efficiency, percent of the traffic's speed.
    pub efficiency: Figure,
    /// Smoothness, 0 to 1.
    pub smoothness: Figure,
    /// Abilities by the counting of release 0.0.4.
    #[serde(rename = "abilities_0_0_4")]
    pub abilities: AbilityTable,
    /// Abilities by the counting of release 0.0.3.
    #[serde(rename = "abilities_0_0_3")]
    pub abilities_003: AbilityTable,
    /// How many drives ended with each status.
    pub statuses: BTreeMap<String, usize>,
    /// How many infractions of each kind there are in all.
    pub infractions: BTreeMap<String, usize>,
    /// Route ids of the set without a record.
    pub missing: Vec<String>,
    /// Records whose driving score is not the product of its parts, each with its numbers.
    pub contradictions: Vec<String>,
    /// What records say of their drives, each with the routes.
    pub notes: BTreeMap<String, Vec<String>>,
    /// The route file, as the caller named it.
    pub route_file: String,
    /// Its SHA-256.
    pub route_file_sha256: String,
    /// Its name, if it is one of Bench2Drive's.
    pub route_set: Option<&'static str>,
    /// Whether the results themselves say that they were made with this file.
    pub is_route_file_confirmed: bool,
}

/// The keys of infractions that a score card counts.
const COUNTED: [&str; 12] = [
    "collisions_layout",
    "collisions_pedestrian",
    "collisions_vehicle",
    "red_light",
    "stop_infraction",
    "outside_route_lanes",
    "min_speed_infractions",
    "yield_emergency_vehicle_infractions",
    "scenario_timeouts",
    "route_dev",
    "vehicle_blocked",
    "route_timeout",
];

impl ScoreCard {
    /// Scores the results of a folder. `motion` is the folder with `SAVE_NAME/metric_info.json` of
    /// every drive, which smoothness takes.
    ///
    /// # Errors
    /// If a drive has several records, or records are of other routes than `set`.
    pub fn new(
        folder: ResultFolder,
        set: &RouteSet,
        motion: Option<&Path>,
        rule: Rule,
    ) -> Result<Self, ScoreError> {
        let made_with = folder.run.as_ref().map(|run| run.provenance.route_file_sha256.as_str());
        if let Some(made_with) = made_with.filter(|made_with| *made_with != set.sha256) {
            return Err(ScoreError::OtherRouteFile {
                folder: folder.path,
                made_with: made_with.to_owned(),
                file: set.file.clone(),
                found: set.sha256.clone(),
            });
        }
        let is_route_file_confirmed = made_with.is_some();
        let found: Vec<String> = duplicates(&folder.records)
            .into_iter()
            .map(|(route_id, files)| format!("{route_id} in {}", files.join(", ")))
            .collect();
        if !found.is_empty() {
            return Err(ScoreError::Duplicates { found });
        }
        let found = strangers(&folder.records, set);
        if !found.is_empty() {
            return Err(ScoreError::OtherRoutes { file: set.file.clone(), found });
        }

        let mut found: BTreeSet<u32> = folder.records.iter().map(FoundRecord::repetition).collect();
        let promised = folder.run.as_ref().map_or(1, |run| run.repetitions);
        if found.is_empty() || folder.run.is_some() {
            found.extend(0..promised);
        }
        let repetitions = found.len();
        let total = set.routes.len() * repetitions;
        let routes = set.routes.len();
        let divisor = match rule {
            Rule::Official => OFFICIAL_ROUTES,
            Rule::Corrected => routes,
        };
        let is_score = divisor == routes;
        let official_tool = OfficialTool::new(&folder.records);
        let several = found.iter().filter(|_| repetitions > 1);
        let by_repetition = several.map(|&repetition| {
            let of = folder.records.iter().filter(|record| record.repetition() == repetition);
            let means = Means::new(of, divisor);
            Repetition {
                repetition,
                finished: means.finished,
                driving_score: is_score.then_some(means.driving_score),
                success_rate: is_score.then_some(means.success_rate),
            }
        });
        let by_repetition = by_repetition.collect();
        let missing = missing_of(set, &found, &folder.records);
        let merged = Merged::new(folder.records, divisor * repetitions);
        let records = merged.records();
        let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in records {
            for note in record.notes() {
                notes.entry(note.to_owned()).or_default().push(record.route_id.clone());
            }
        }
        let mut statuses = BTreeMap::new();
        for record in records {
            *statuses.entry(record.status.clone()).or_default() += 1;
        }
        let count = |key| records.iter().map(|record| record.infractions(key).len()).sum();
        let junction = |route: &Route| {
            let known = set.first_junctions.get(&route.id).copied();
            known.unwrap_or_else(|| FirstJunction::of_key_points(&route.key_points))
        };
        let table = |signs| AbilityTable {
            abilities: abilities(&set.routes, records, &junction, signs, rule),
            is_approximate: set.first_junctions.is_empty(),
        };
        Ok(Self {
            rule: rule.as_str(),
            finished: merged.finished,
            total,
            repetitions,
            divisor: merged.divisor,
            driving_score: is_score.then_some(merged.driving_score),
            success_rate: is_score.then_some(merged.success_rate),
            by_repetition,
            official_tool,
            efficiency: efficiency(records, rule),
            smoothness: smoothness(records, motion, rule),
            abilities: table(SignRule::Release004),
            abilities_003: table(SignRule::Release003),
            statuses,
            infractions: COUNTED.map(|key| (key.to_owned(), count(key))).into(),
            missing,
            contradictions: records.iter().filter_map(FoundRecord::contradiction).collect(),
            notes,
            route_file: set.file.clone(),
            route_file_sha256: set.sha256.clone(),
            route_set: set.name,
            is_route_file_confirmed,
        })
    }

    /// One line; the scores never stand without how many drives they rest on.
    pub fn summary(&self) -> String {
        let (finished, total, repetitions) = (self.finished, self.total, self.repetitions);
        let drives = match repetitions {
            1 => format!("{finished} / {total} routes finished"),
            _ => format!(
                "{finished} / {total} drives ({} routes, {repetitions} times each) finished",
                total / repetitions
            ),
        };
        let Some((score, success)) = self.driving_score.zip(self.success_rate) else {
            let OfficialTool { score_sum_over_220, successes_over_220 } = self.official_tool;
            return format!(
                "{drives}, no driving score by the official rule, which divides the sums of any set \
                 by 220 (scores {score_sum_over_220:.2}, successes {:.1} %): --rule corrected \
                 divides by {total}",
                successes_over_220 * 100.0
            );
        };
        let mean = if repetitions > 1 { " (means over repetitions)" } else { "" };
        format!("{drives}, driving score {score:.2}, success rate {:.1} %{mean}", success * 100.0)
    }
}

/// Official names of the set's drives without a record, repetition by repetition.
pub(super) fn missing_of(
    set: &RouteSet,
    repetitions: &BTreeSet<u32>,
    records: &[FoundRecord],
) -> Vec<String> {
    let present: BTreeSet<&str> = records.iter().map(|r| r.route_id.as_str()).collect();
    repetitions
        .iter()
        .flat_map(|rep| set.routes.iter().map(move |route| route_id(&route.id, *rep)))
        .filter(|route_id| !present.contains(route_id.as_str()))
        .collect()
}

/// Records whose route, town or scenario is not of the set, each with what is wrong.
pub(super) fn strangers(records: &[FoundRecord], set: &RouteSet) -> Vec<String> {
    let routes: BTreeMap<&str, &Route> =
        set.routes.iter().map(|route| (route.id.as_str(), route)).collect();
    let differs = |record: &FoundRecord| {
        let Some(route) = routes.get(record.route()) else { return Some(String::new()) };
        let scenario = route.scenarios.first().map_or("", |scenario| &scenario.name);
        [("town_name", route.town.as_str()), ("scenario_name", scenario)].into_iter().find_map(
            |(key, expected)| {
                let found = record.text(key)?;
                (found != expected)
                    .then(|| format!(" ({key} is {found:?}, the file says {expected:?})"))
            },
        )
    };
    records
        .iter()
        .filter_map(|record| differs(record).map(|what| record.route_id.clone() + &what))
        .collect()
}

fn efficiency(records: &[FoundRecord], rule: Rule) -> Figure {
    let mut values = Vec::new();
    for record in records {
        match route_efficiency(record.infractions("min_speed_infractions"), rule) {
            Ok(value) => values.extend(value),
            Err(error) => return Figure::none(format!("{}: {error}", record.route_id)),
        }
    }
    Figure::mean(&values, "no record holds a minimum-speed value")
}

fn smoothness(records: &[FoundRecord], motion: Option<&Path>, rule: Rule) -> Figure {
    let Some(folder) = motion else {
        return Figure::none("it takes a folder with a metric_info.json of every drive".to_owned());
    };
    let mut values = Vec::new();
    for record in records {
        let Some(name) = record.text("save_name") else {
            return Figure::none(format!("{} has no save_name", record.route_id));
        };
        let is_below =
            Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_below {
            let name = shortened(name);
            return Figure::none(format!("the save_name {name:?} leads out of the folder"));
        }
        let path = folder.join(name).join("metric_info.json");
        let value = match fs::read_to_string(&path) {
            Ok(text) => MotionLog::parse(&text).and_then(|log| log.smoothness(rule)),
            Err(error) => return Figure::none(format!("cannot read {}: {error}", path.display())),
        };
        match value {
            Ok(value) => values.push(value),
            Err(error) => {
                return Figure::none(format!("{}: {}", path.display(), words_of(&error)));
            }
        }
    }
    Figure::mean(&values, "there is no record")
}
