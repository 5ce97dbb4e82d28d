//! Records of any result files in one table, by the arithmetic of the official merge tool.
//!
//! Records are kept as they stand in their files, so that whatever other harnesses write into them
//! survives merging.

use super::checkpoint::sum;
use super::python_json;
use super::record::{is_product, parts_of};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tandem_files::shortened;

/// What the official tool divides by, whatever the number of records: the routes of Bench2Drive's set.
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
    /// Infraction penalty, if the record has one.
    pub score_penalty: Option<f64>,
    /// Finished without an infraction other than of minimum speed.
    pub is_success: bool,
    /// The whole record but for its index.
    value: Map<String, Value>,
}

/// A result file can't be read.
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
        "{file}: {place} has no usable {key:?}: this is not a result file of Bench2Drive, or one \
         that was cut; remove it, or evaluate its routes again"
    )]
    Missing {
        /// Which file.
        file: String,
        /// Which record, or the file itself.
        place: String,
        /// Which key.
        key: &'static str,
    },
    /// A number that no drive can have.
    #[error(
        "{file}: {key} of {place} is {found}, expected a number from 0 to {most}: the file was \
         edited or damaged; evaluate the route again"
    )]
    Range {
        /// Which file.
        file: String,
        /// Which record.
        place: String,
        /// Which key.
        key: &'static str,
        /// What stands there.
        found: String,
        /// The largest number that can be.
        most: f64,
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

    /// The entries under a key of the infractions; none if the record lacks it.
    pub fn infractions(&self, key: &str) -> &[Value] {
        match self.value.get("infractions").and_then(|lists| lists.get(key)) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(list)) => list,
            Some(other) => std::slice::from_ref(other),
        }
    }

    /// What the record says of its drive besides the verdict; only our records do.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        let notes = self.value.get("notes").and_then(Value::as_array);
        notes.into_iter().flatten().filter_map(Value::as_str)
    }

    /// What contradicts the driving score, if its parts do: it is their product.
    pub fn contradiction(&self) -> Option<String> {
        let (composed, route, penalty) =
            (self.score_composed, self.score_route?, self.score_penalty?);
        (!is_product(composed, route, penalty)).then(|| {
            format!(
                "{} in {} has score_composed {composed}, but score_route {route} times \
                 score_penalty {penalty} is {}",
                shortened(&self.route_id),
                self.file,
                route * penalty
            )
        })
    }

    fn new(file: &str, value: Value, form: Form) -> Result<Self, MergeError> {
        let name = value.get("route_id").and_then(Value::as_str).unwrap_or("a record");
        let place = shortened(name);
        let missing =
            |key| MergeError::Missing { file: file.to_owned(), place: place.clone(), key };
        let text = |key| value.get(key).and_then(Value::as_str).ok_or_else(|| missing(key));
        if form == Form::Shard && value.get("index").is_none() {
            return Err(missing("index"));
        }
        let scores = value.get("scores").ok_or_else(|| missing("scores"))?;
        let number = |key: &'static str, most: f64| match scores.get(key) {
            None => Ok(None),
            Some(found) => match found.as_f64().filter(|number| (0.0..=most).contains(number)) {
                Some(number) => Ok(Some(number)),
                None => {
                    let found = match found {
                        Value::Null => "null or NaN".to_owned(),
                        other => shortened(other),
                    };
                    let (file, place) = (file.to_owned(), place.clone());
                    Err(MergeError::Range { file, place, key, found, most })
                }
            },
        };
        let score_composed = number("score_composed", 100.0)?;
        let (score_route, score_penalty) =
            (number("score_route", 100.0)?, number("score_penalty", 1.0)?);
        let (route_id, status) = (text("route_id")?.to_owned(), text("status")?.to_owned());
        // As the official tool does, infractions are asked for only where they matter.
        let is_success = matches!(status.as_str(), "Completed" | "Perfect") && {
            let lists = value.get("infractions").and_then(Value::as_object);
            let lists = lists.ok_or_else(|| missing("infractions"))?;
            let mut lists = lists.iter().filter(|(key, _)| *key != "min_speed_infractions");
            loop {
                let Some((_, list)) = lists.next() else { break true };
                if !is_empty(list).ok_or_else(|| missing("infractions"))? {
                    break false;
                }
            }
        };
        let score_composed = score_composed.ok_or_else(|| missing("score_composed"))?;
        let Value::Object(mut value) = value else { return Err(missing("route_id")) };
        value.shift_remove("index");
        let file = file.to_owned();
        Ok(Self {
            file,
            route_id,
            status,
            score_composed,
            score_route,
            score_penalty,
            is_success,
            value,
        })
    }
}

/// True for what Python calls empty; `None` for what has no length.
fn is_empty(value: &Value) -> Option<bool> {
    match value {
        Value::Array(list) => Some(list.is_empty()),
        Value::Object(map) => Some(map.is_empty()),
        Value::String(text) => Some(text.is_empty()),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
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

/// What a file of records is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// Written by a process of the harness.
    Shard,
    /// Written by a merge tool: a record has no index.
    Table,
}

/// The records of a result file with this text: one that the harness wrote, or a table of a merge tool,
/// whose records may also stand without `_checkpoint` around them. `file` is how errors name it.
///
/// # Errors
/// If it is not JSON, lacks a key that scores need, or a score is a number that no drive can have.
pub fn records_of(file: &str, text: &str) -> Result<Vec<FoundRecord>, MergeError> {
    found_records(file, text)?.ok_or_else(|| MergeError::Missing {
        file: file.to_owned(),
        place: "the file".to_owned(),
        key: "_checkpoint",
    })
}

/// As [`records_of`]; `None` for JSON that has no records at all.
///
/// # Errors
/// As [`records_of`].
pub(crate) fn found_records(
    file: &str,
    text: &str,
) -> Result<Option<Vec<FoundRecord>>, MergeError> {
    let not_json = |source| MergeError::NotJson { file: file.to_owned(), source };
    let value = python_json::parse(text).map_err(not_json)?;
    let (records, form) = match value {
        Value::Array(records) => (Value::Array(records), Form::Table),
        Value::Object(mut object) => {
            let is_of_harness = object.contains_key("entry_status");
            if let Some(mut body) = object.remove("_checkpoint") {
                let has_progress = body.get("progress").is_some();
                let form = if is_of_harness || has_progress { Form::Shard } else { Form::Table };
                (body.get_mut("records").map_or(Value::Null, Value::take), form)
            } else if let Some(records) = object.remove("records") {
                (records, Form::Table)
            } else {
                return Ok(None);
            }
        }
        _ => return Ok(None),
    };
    let Value::Array(records) = records else {
        let place = "the file".to_owned();
        return Err(MergeError::Missing { file: file.to_owned(), place, key: "records" });
    };
    let records = records.into_iter().map(|record| FoundRecord::new(file, record, form));
    records.collect::<Result<_, _>>().map(Some)
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

/// Means over records, by the arithmetic of the official merge tool.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Means {
    /// Sum of all driving scores over the divisor.
    pub(crate) driving_score: f64,
    /// Successes over the divisor, 0 to 1.
    pub(crate) success_rate: f64,
    /// Number of records.
    pub(crate) finished: usize,
}

impl Means {
    /// # Panics
    /// If `divisor` is 0.
    pub(crate) fn new<'a>(
        records: impl Iterator<Item = &'a FoundRecord> + Clone,
        divisor: usize,
    ) -> Self {
        assert!(divisor > 0, "averages over no routes");
        let score = sum(records.clone().map(|record| record.score_composed));
        let successes = records.clone().filter(|record| record.is_success).count();
        Self {
            driving_score: score / divisor as f64,
            success_rate: successes as f64 / divisor as f64,
            finished: records.count(),
        }
    }
}

impl Merged {
    /// Merges `records`, of whose scores the sum is divided by `divisor`. Duplicates count twice: see
    /// [`duplicates`].
    ///
    /// # Panics
    /// If `divisor` is 0.
    pub fn new(mut records: Vec<FoundRecord>, divisor: usize) -> Self {
        let Means { driving_score, success_rate, finished } = Means::new(records.iter(), divisor);
        // As text, descending: the official order.
        records.sort_by(|left, right| right.route_id.cmp(&left.route_id));
        Self { driving_score, success_rate, finished, divisor, body: MergedBody { records } }
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
