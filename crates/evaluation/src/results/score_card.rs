//! Scores of a folder of result files, written by tandem or by the official harness.
//!
//! Every score is reported with the number of finished and of all drives. No drive counts twice,
//! and all records must belong to the route set that they are scored against.

use super::result_folder::ResultFolder;
use crate::campaign::error_chain_text;
use crate::routes::{RouteFileError, SubsetError, parse_routes, select_subset};
use crate::scoring::{
    Abilities, Ability, AbilityError, FirstJunction, FoundRecord, MIN_SPEED_KEY, Means, Merged,
    MotionLog, OFFICIAL_ROUTES, Rule, SignRule, abilities, duplicates, route_efficiency, route_id,
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

/// Error returned when a folder can't be scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    #[error("cannot read route file {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Routes(Box<RouteFileError>),
    #[error(transparent)]
    Subset(#[from] SubsetError),
    #[error("these drives have more than one record, and each may count once: {}; remove the files \
             that should not count", found.join("; "))]
    Duplicates {
        /// Route id and files, one entry per drive.
        found: Vec<String>,
    },
    /// `run.json` has the SHA-256 `made_with`, but the route file has `found`.
    #[error(
        "the results in {folder:?} were made with the route file of SHA-256 {made_with}, but \
             {file} has {found}: give the file that they were made with"
    )]
    OtherRouteFile { folder: PathBuf, made_with: String, file: String, found: String },
    #[error("these records belong to routes that are not in {file}: {}; give the route file that \
             they were made with", found.join(", "))]
    OtherRoutes {
        file: String,
        /// Route id and difference, one entry per record.
        found: Vec<String>,
    },
}

/// Routes that results are scored against.
#[derive(Clone, PartialEq, Debug)]
pub struct RouteSet {
    pub routes: Vec<Route>,
    /// Path of the file, as the caller gave it.
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// `None` if the file is not one of Bench2Drive's.
    pub name: Option<&'static str>,
    /// First junction of each route, by route id, computed from maps; empty without maps.
    pub first_junctions: BTreeMap<RouteId, FirstJunction>,
}

impl RouteSet {
    /// Reads a route file and keeps the routes of `subset`, see [`select_subset`].
    ///
    /// # Errors
    /// If the file can't be read or parsed, or the subset is not valid.
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

/// Mean over drives, or the reason why there is no value.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    pub value: Option<f64>,
    /// Number of drives in the mean.
    pub drives: usize,
    /// Reason why `value` is `None`.
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

/// Abilities by the sign rule of one release.
#[derive(Debug)]
pub struct AbilityTable {
    pub abilities: Result<Abilities, AbilityError>,
    /// True if junctions were estimated without a map, so that traffic signs
    /// and the mean are approximate.
    pub is_approximate: bool,
}

impl AbilityTable {
    /// Ratio of the ability at `index` of [`Ability::ALL`], 0 to 1.
    pub fn ratio(&self, index: usize) -> Option<f64> {
        self.abilities.as_ref().ok()?.ratios[index]
    }

    /// Mean of the five ratios, 0 to 1.
    pub fn mean(&self) -> Option<f64> {
        self.abilities.as_ref().ok()?.mean
    }

    /// True if the ratio of `ability` depends on estimated junctions.
    pub fn is_guessed(&self, ability: Ability) -> bool {
        self.is_approximate && ability == Ability::TrafficSigns
    }
}

impl Serialize for AbilityTable {
    /// Writes the keys of the official file, and the list of approximate values.
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

/// Scores of one repetition of all routes.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Repetition {
    /// Number of the repetition, from 0.
    pub repetition: u32,
    /// Number of drives with a record.
    pub finished: usize,
    /// 0 to 100; `None` where [`ScoreCard::driving_score`] is.
    pub driving_score: Option<f64>,
    /// 0 to 1.
    pub success_rate: Option<f64>,
}

/// Output of the official merge tool, which divides by 220 whatever the number of records. It is a
/// driving score and a success rate only for 220 records of 220 routes.
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

/// Scores of a folder of results.
#[derive(Debug, Serialize)]
pub struct ScoreCard {
    /// `official` or `corrected`.
    pub rule: &'static str,
    /// Number of drives with a record.
    pub finished: usize,
    /// Drives of the route set: routes × repetitions.
    pub total: usize,
    /// Repetitions of every route, from `run.json` if there is one, otherwise from the records.
    pub repetitions: usize,
    /// Divisor of the sums of scores and of successes.
    pub divisor: usize,
    /// Mean over repetitions, 0 to 100; `None` by the official rule for a set of other than 220
    /// routes, because the official tool always divides by 220.
    pub driving_score: Option<f64>,
    /// 0 to 1; `None` where the driving score is.
    pub success_rate: Option<f64>,
    /// Empty for a single repetition.
    pub by_repetition: Vec<Repetition>,
    pub official_tool: OfficialTool,
    /// Percent of the surrounding traffic's speed.
    pub efficiency: Figure,
    /// Share of smooth windows, 0 to 1.
    pub smoothness: Figure,
    /// By the sign rule of release 0.0.4.
    #[serde(rename = "abilities_0_0_4")]
    pub abilities: AbilityTable,
    /// By the sign rule of release 0.0.3.
    #[serde(rename = "abilities_0_0_3")]
    pub abilities_003: AbilityTable,
    /// Number of drives by status.
    pub statuses: BTreeMap<String, usize>,
    /// Number of infractions by key of the record, `min_speed_infractions`,
    /// which cost no score, included.
    pub infractions: BTreeMap<String, usize>,
    /// Route ids of the set's drives without a record.
    pub missing: Vec<String>,
    /// Records whose driving score is not the product of its parts, each with its numbers.
    pub contradictions: Vec<String>,
    /// Routes by note of their records.
    pub notes: BTreeMap<String, Vec<String>>,
    /// Path of the route file, as the caller gave it.
    pub route_file: String,
    pub route_file_sha256: String,
    /// `None` if the route file is not one of Bench2Drive's.
    pub route_set: Option<&'static str>,
    /// True if `run.json` has the SHA-256 of this route file.
    pub is_route_file_confirmed: bool,
}

/// Keys of the infractions that a score card counts.
const COUNTED: [&str; 12] = [
    "collisions_layout",
    "collisions_pedestrian",
    "collisions_vehicle",
    "red_light",
    "stop_infraction",
    "outside_route_lanes",
    MIN_SPEED_KEY,
    "yield_emergency_vehicle_infractions",
    "scenario_timeouts",
    "route_dev",
    "vehicle_blocked",
    "route_timeout",
];

impl ScoreCard {
    /// Scores the results of a folder. `motion` is the folder with `SAVE_NAME/metric_info.json` of
    /// every drive, which smoothness is computed from.
    ///
    /// # Errors
    /// If a drive has several records, or records belong to routes that are not in `set`.
    pub fn new(
        folder: ResultFolder,
        set: &RouteSet,
        motion: Option<&Path>,
        rule: Rule,
    ) -> Result<Self, ScoreError> {
        check_records(&folder, set)?;
        let is_route_file_confirmed = folder.run.is_some();
        let repetitions = repetitions(&folder);
        let routes = set.routes.len();
        let divisor = match rule {
            Rule::Official => OFFICIAL_ROUTES,
            Rule::Corrected => routes,
        };
        let is_score = divisor == routes;
        let official_tool = OfficialTool::new(&folder.records);
        let by_repetition = match repetitions.len() {
            1 => Vec::new(),
            _ => by_repetition(&folder.records, &repetitions, divisor, is_score),
        };
        let missing = missing_drives(set, &repetitions, &folder.records);
        let merged = Merged::new(folder.records, divisor * repetitions.len());
        let records = merged.records();
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
            total: routes * repetitions.len(),
            repetitions: repetitions.len(),
            divisor: merged.divisor,
            driving_score: is_score.then_some(merged.driving_score),
            success_rate: is_score.then_some(merged.success_rate),
            by_repetition,
            official_tool,
            efficiency: efficiency(records, rule),
            smoothness: smoothness(records, motion, rule),
            abilities: table(SignRule::Release004),
            abilities_003: table(SignRule::Release003),
            statuses: count_statuses(records),
            infractions: COUNTED.map(|key| (key.to_owned(), count(key))).into(),
            missing,
            contradictions: records.iter().filter_map(FoundRecord::contradiction).collect(),
            notes: routes_by_note(records),
            route_file: set.file.clone(),
            route_file_sha256: set.sha256.clone(),
            route_set: set.name,
            is_route_file_confirmed,
        })
    }

    /// Infractions that reduce the score or end a route, by key. Minimum-speed values, which do
    /// neither, are counted by [`minimum_speed_values`](Self::minimum_speed_values).
    pub fn costly_infractions(&self) -> impl Iterator<Item = (&str, usize)> {
        self.infractions
            .iter()
            .filter(|(key, _)| *key != MIN_SPEED_KEY)
            .map(|(key, count)| (key.as_str(), *count))
    }

    /// Number of minimum-speed values, which cost no score; up to about twenty per drive.
    pub fn minimum_speed_values(&self) -> usize {
        self.infractions.get(MIN_SPEED_KEY).copied().unwrap_or(0)
    }

    /// Scores as one line, with the numbers of finished and of all drives.
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
                "{drives}, no driving score by the official rule, which divides the sums of any \
                 set by 220 (scores {score_sum_over_220:.2}, successes {:.1} %): --rule corrected \
                 divides by {total}",
                successes_over_220 * 100.0
            );
        };
        let mean = if repetitions > 1 { " (means over repetitions)" } else { "" };
        format!("{drives}, driving score {score:.2}, success rate {:.1} %{mean}", success * 100.0)
    }
}

/// Checks that every drive has one record, and that records and route set belong together.
fn check_records(folder: &ResultFolder, set: &RouteSet) -> Result<(), ScoreError> {
    let made_with = folder.run.as_ref().map(|run| run.provenance.route_file_sha256.as_str());
    if let Some(made_with) = made_with.filter(|made_with| *made_with != set.sha256) {
        return Err(ScoreError::OtherRouteFile {
            folder: folder.path.clone(),
            made_with: made_with.to_owned(),
            file: set.file.clone(),
            found: set.sha256.clone(),
        });
    }
    let found: Vec<String> = duplicates(&folder.records)
        .into_iter()
        .map(|(route_id, files)| format!("{route_id} in {}", files.join(", ")))
        .collect();
    if !found.is_empty() {
        return Err(ScoreError::Duplicates { found });
    }
    let found = foreign_records(&folder.records, set);
    if !found.is_empty() {
        return Err(ScoreError::OtherRoutes { file: set.file.clone(), found });
    }
    Ok(())
}

/// Repetitions that a folder should hold: those of `run.json`, if there is
/// one, and those of its records.
fn repetitions(folder: &ResultFolder) -> BTreeSet<u32> {
    let mut found: BTreeSet<u32> = folder.records.iter().map(FoundRecord::repetition).collect();
    let planned = folder.run.as_ref().map_or(1, |run| run.repetitions);
    if found.is_empty() || folder.run.is_some() {
        found.extend(0..planned);
    }
    found
}

fn by_repetition(
    records: &[FoundRecord],
    repetitions: &BTreeSet<u32>,
    divisor: usize,
    is_score: bool,
) -> Vec<Repetition> {
    let figures = |&repetition: &u32| {
        let of = records.iter().filter(|record| record.repetition() == repetition);
        let means = Means::new(of, divisor);
        Repetition {
            repetition,
            finished: means.finished,
            driving_score: is_score.then_some(means.driving_score),
            success_rate: is_score.then_some(means.success_rate),
        }
    };
    repetitions.iter().map(figures).collect()
}

fn routes_by_note(records: &[FoundRecord]) -> BTreeMap<String, Vec<String>> {
    let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in records {
        for note in record.notes() {
            notes.entry(note.to_owned()).or_default().push(record.route_id.clone());
        }
    }
    notes
}

fn count_statuses(records: &[FoundRecord]) -> BTreeMap<String, usize> {
    let mut statuses = BTreeMap::new();
    for record in records {
        *statuses.entry(record.status.clone()).or_default() += 1;
    }
    statuses
}

/// Official names of the set's drives without a record, by repetition.
pub(super) fn missing_drives(
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

/// Records whose route, town or scenario is not in the set, each with the difference.
pub(super) fn foreign_records(records: &[FoundRecord], set: &RouteSet) -> Vec<String> {
    let routes: BTreeMap<&str, &Route> =
        set.routes.iter().map(|route| (route.id.as_str(), route)).collect();
    let differs = |record: &FoundRecord| {
        let Some(route) = routes.get(record.route()) else { return Some(String::new()) };
        let scenario = route.scenarios.first().map_or("", |scenario| &scenario.name);
        [("town_name", route.town.as_str()), ("scenario_name", scenario)].into_iter().find_map(
            |(key, expected)| {
                let found = record.text(key)?;
                (found != expected)
                    .then(|| format!(" ({key} is {found:?}, the file has {expected:?})"))
            },
        )
    };
    records
        .iter()
        .filter_map(|record| differs(record).map(|text| record.route_id.clone() + &text))
        .collect()
}

fn efficiency(records: &[FoundRecord], rule: Rule) -> Figure {
    let mut values = Vec::new();
    for record in records {
        match route_efficiency(record.infractions(MIN_SPEED_KEY), rule) {
            Ok(value) => values.extend(value),
            Err(error) => return Figure::none(format!("{}: {error}", record.route_id)),
        }
    }
    Figure::mean(&values, "no record has a minimum-speed value")
}

fn smoothness(records: &[FoundRecord], motion: Option<&Path>, rule: Rule) -> Figure {
    let Some(folder) = motion else {
        return Figure::none("needs a folder with the metric_info.json of every drive".to_owned());
    };
    let mut values = Vec::new();
    for record in records {
        let Some(name) = record.text("save_name") else {
            return Figure::none(format!("{} has no save_name", record.route_id));
        };
        let is_inside =
            Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_inside {
            let name = shortened(name);
            return Figure::none(format!("the save_name {name:?} points outside the folder"));
        }
        let path = folder.join(name).join("metric_info.json");
        let value = match fs::read_to_string(&path) {
            Ok(text) => MotionLog::parse(&text).and_then(|log| log.smoothness(rule)),
            Err(error) => return Figure::none(format!("cannot read {}: {error}", path.display())),
        };
        match value {
            Ok(value) => values.push(value),
            Err(error) => {
                return Figure::none(format!("{}: {}", path.display(), error_chain_text(&error)));
            }
        }
    }
    Figure::mean(&values, "no records")
}
