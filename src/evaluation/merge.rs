//! Records of any result files in one table, by the arithmetic of the official merge tool.
//!
//! Records are kept as they stand in their files, so that whatever other harnesses write into them
//! survives merging.

use super::record::{parts_of, sum};
use super::rule::Rule;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What the official tool divides by, whatever the number of routes.
pub const OFFICIAL_ROUTES: usize = 220;

/// One record of a result file, as far as scores need it.
#[derive(Clone, PartialEq, Debug)]
pub struct FoundRecord {
    /// The file it was found in, as the caller named it.
    pub file: String,
    /// E.g. `RouteScenario_1711_rep0`.
    pub route_id: String,
    /// `Perfect`, `Completed`, `Failed`, `Failed - why`, or whatever a file says.
    pub status: String,
    /// Driving score, 0 to 100.
    pub score_composed: f64,
    /// Route completion, percent, if the record has one.
    pub score_route: Option<f64>,
    /// Finished without an infraction other than of minimum speed.
    pub is_success: bool,
    /// The whole record but for its index.
    value: Map<String, Value>,
}

/// A result file can't be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Not JSON; a run that has only just started leaves an empty file.
    #[error(
        "{file} is not a whole JSON file: let the run that writes it finish a route, or remove it"
    )]
    NotJson {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A key is missing, or what it holds is of another kind.
    #[error(
        "{file}: {place} has no usable {key:?}: this is no result file of Bench2Drive, or one that \
         was cut; remove it, or evaluate its routes again"
    )]
    Missing {
        /// Which file.
        file: String,
        /// Which record, or the file itself.
        place: String,
        /// Which key.
        key: &'static str,
    },
}

impl FoundRecord {
    /// The part of the route id that route files know, e.g. `1711`.
    pub fn route(&self) -> &str {
        parts_of(&self.route_id).0
    }

    /// Repetition, 0 for an id that names none.
    pub fn repetition(&self) -> u32 {
        parts_of(&self.route_id).1
    }

    /// The text under a key of the record, if there is one.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.value.get(key)?.as_str()
    }

    /// Messages under a key of the infractions; none if the record lacks it.
    pub fn messages(&self, key: &str) -> impl Iterator<Item = &str> {
        let list = self.value.get("infractions").and_then(|lists| lists.get(key));
        list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    fn new(file: &str, value: &Value) -> Result<Self, MergeError> {
        let missing = |key| {
            let name = value.get("route_id").and_then(Value::as_str).unwrap_or("a record");
            MergeError::Missing { file: file.to_owned(), place: name.to_owned(), key }
        };
        let text = |key| value.get(key).and_then(Value::as_str).ok_or_else(|| missing(key));
        let mut kept = value.as_object().cloned().ok_or_else(|| missing("route_id"))?;
        kept.shift_remove("index").ok_or_else(|| missing("index"))?;
        let scores = value.get("scores").ok_or_else(|| missing("scores"))?;
        let composed = scores.get("score_composed").and_then(Value::as_f64);
        let status = text("status")?.to_owned();
        // As the official tool does, infractions are asked for only where they matter.
        let is_success = matches!(status.as_str(), "Completed" | "Perfect") && {
            let lists = value.get("infractions").and_then(Value::as_object);
            let mut lists = lists.ok_or_else(|| missing("infractions"))?.iter();
            lists.all(|(key, list)| {
                key == "min_speed_infractions" || list.as_array().is_some_and(Vec::is_empty)
            })
        };
        Ok(Self {
            file: file.to_owned(),
            route_id: text("route_id")?.to_owned(),
            status,
            score_composed: composed.ok_or_else(|| missing("score_composed"))?,
            score_route: scores.get("score_route").and_then(Value::as_f64),
            is_success,
            value: kept,
        })
    }
}

impl Serialize for FoundRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// True for the names of files that the official tool merges.
pub fn is_result_file_name(name: &str) -> bool {
    name.ends_with(".json") && !name.contains("merged.json")
}

/// The records of a result file with this text. `file` is how errors name it.
///
/// # Errors
/// If it is not JSON or lacks a key that scores need.
pub fn records_of(file: &str, text: &str) -> Result<Vec<FoundRecord>, MergeError> {
    let not_json = |source| MergeError::NotJson { file: file.to_owned(), source };
    let value: Value = serde_json::from_str(text).map_err(not_json)?;
    let missing =
        |key| MergeError::Missing { file: file.to_owned(), place: "the file".to_owned(), key };
    let body = value.get("_checkpoint").ok_or_else(|| missing("_checkpoint"))?;
    let records = body.get("records").and_then(Value::as_array);
    let records = records.ok_or_else(|| missing("records"))?.iter();
    records.map(|record| FoundRecord::new(file, record)).collect()
}

/// Records and what they come to, with the keys of the official merge tool's file.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Merged {
    #[serde(rename = "_checkpoint")]
    body: MergedBody,
    /// Sum of all driving scores over the divisor.
    #[serde(rename = "driving score")]
    pub driving_score: f64,
    /// Successes over the divisor, 0 to 1.
    #[serde(rename = "success rate")]
    pub success_rate: f64,
    /// Number of records, duplicates included.
    #[serde(rename = "eval num")]
    pub finished: usize,
    /// What sums were divided by.
    #[serde(skip)]
    pub divisor: usize,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct MergedBody {
    records: Vec<FoundRecord>,
}

impl Merged {
    /// Merges `records` of a set of `routes_total` drives. Missing ones count as zero, and duplicates
    /// twice: see [`duplicates`]. The official rule divides by [`OFFICIAL_ROUTES`] instead.
    ///
    /// # Panics
    /// If `routes_total` is 0.
    pub fn new(mut records: Vec<FoundRecord>, routes_total: usize, rule: Rule) -> Self {
        assert!(routes_total > 0, "averages over no routes");
        let divisor = match rule {
            Rule::Official => OFFICIAL_ROUTES,
            Rule::Corrected => routes_total,
        };
        let score = sum(records.iter().map(|record| record.score_composed));
        let successes = records.iter().filter(|record| record.is_success).count();
        // As text, descending: the official order.
        records.sort_by(|left, right| right.route_id.cmp(&left.route_id));
        Self {
            driving_score: score / divisor as f64,
            success_rate: successes as f64 / divisor as f64,
            finished: records.len(),
            divisor,
            body: MergedBody { records },
        }
    }

    /// The records, by route id as text, descending.
    pub fn records(&self) -> &[FoundRecord] {
        &self.body.records
    }
}

/// Route ids with more than one record, each with the files they are in.
pub fn duplicates(records: &[FoundRecord]) -> BTreeMap<&str, Vec<&str>> {
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for record in records {
        files.entry(&record.route_id).or_default().push(&record.file);
    }
    files.retain(|_, files| files.len() > 1);
    files
}
