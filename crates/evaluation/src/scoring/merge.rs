//! Merges records of result files into one table, with the arithmetic of the official merge tool.
//!
//! Records are kept as the JSON of their files, so that keys of other harnesses survive merging.

use super::checkpoint::sum;
use super::python_json;
use super::record::{MIN_SPEED_KEY, is_product, split_route_id};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tandem_files::shortened;

/// Number of routes of Bench2Drive's set, by which the official tool always divides.
pub const OFFICIAL_ROUTES: usize = 220;

/// Record of a result file, with the fields that scores are computed from.
#[derive(Clone, PartialEq, Debug)]
pub struct FoundRecord {
    /// Path of its file, as the caller gave it.
    pub file: String,
    /// E.g. `RouteScenario_1711_rep0`.
    pub route_id: String,
    /// `Perfect`, `Completed`, `Failed`, `Failed - reason`, or another text.
    pub status: String,
    /// Driving score of the record, 0 to 100.
    pub score_composed: f64,
    /// Route completion, percent; `None` if the record has no such key.
    pub score_route: Option<f64>,
    /// Infraction penalty, 0 to 1; `None` if the record has no such key.
    pub score_penalty: Option<f64>,
    /// True if the route was finished without an infraction other than minimum-speed values.
    pub is_success: bool,
    /// All keys of the record except `index`.
    value: Map<String, Value>,
}

/// Error returned when a result file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Not JSON. A run that has just started leaves an empty file.
    #[error(
        "{file} is not a complete JSON file: let the run that writes it finish a route, or remove it"
    )]
    NotJson {
        file: String,
        #[source]
        source: serde_json::Error,
    },
    /// A key is missing, or its value has another type.
    #[error(
        "{file}: {record} has no usable {key:?}: this is not a result file of Bench2Drive, or it \
         is truncated; remove it, or evaluate its routes again"
    )]
    Missing {
        file: String,
        /// Official name of the record, or "the file".
        record: String,
        key: &'static str,
    },
    /// A score outside its range.
    #[error(
        "{file}: {key} of {record} is {found}, expected a number from 0 to {most}: the file was \
         edited or damaged; evaluate the route again"
    )]
    Range {
        file: String,
        /// Official name of the record.
        record: String,
        key: &'static str,
        found: String,
        most: f64,
    },
}

impl FoundRecord {
    /// Returns the route's id in route files, e.g. `1711`.
    pub fn route(&self) -> &str {
        split_route_id(&self.route_id).0
    }

    /// Returns the repetition; 0 if the id contains none.
    pub fn repetition(&self) -> u32 {
        split_route_id(&self.route_id).1
    }

    /// Returns the text under a key of the record.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.value.get(key)?.as_str()
    }

    /// Returns the entries under a key of the infractions; empty if the record has no such key.
    pub fn infractions(&self, key: &str) -> &[Value] {
        match self.value.get("infractions").and_then(|lists| lists.get(key)) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(list)) => list,
            Some(other) => std::slice::from_ref(other),
        }
    }

    /// Returns the notes of the record; only records of tandem have some.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        let notes = self.value.get("notes").and_then(Value::as_array);
        notes.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Returns a description if the driving score is not the product of
    /// route completion and penalty.
    pub fn contradiction(&self) -> Option<String> {
        let (composed, route, penalty) =
            (self.score_composed, self.score_route?, self.score_penalty?);
        (!is_product(composed, route, penalty)).then(|| {
            format!(
                "{} in {} has score_composed {composed}, but score_route {route} × \
                 score_penalty {penalty} is {}",
                shortened(&self.route_id),
                self.file,
                route * penalty
            )
        })
    }

    fn new(file: &str, value: Value, form: Form) -> Result<Self, MergeError> {
        let name = value.get("route_id").and_then(Value::as_str).unwrap_or("a record");
        let record = shortened(name);
        let missing =
            |key| MergeError::Missing { file: file.to_owned(), record: record.clone(), key };
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
                    let (file, record) = (file.to_owned(), record.clone());
                    Err(MergeError::Range { file, record, key, found, most })
                }
            },
        };
        let score_composed = number("score_composed", 100.0)?;
        let (score_route, score_penalty) =
            (number("score_route", 100.0)?, number("score_penalty", 1.0)?);
        let (route_id, status) = (text("route_id")?.to_owned(), text("status")?.to_owned());
        // As in the official tool, infractions are required only where success depends on them.
        let is_success = matches!(status.as_str(), "Completed" | "Perfect") && {
            let lists = value.get("infractions").and_then(Value::as_object);
            let lists = lists.ok_or_else(|| missing("infractions"))?;
            let mut lists = lists.iter().filter(|(key, _)| *key != MIN_SPEED_KEY);
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

/// True for values that Python treats as empty; `None` for values without a length.
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

/// True for names of files that the official tool merges.
pub fn is_result_file_name(name: &str) -> bool {
    name.ends_with(".json") && !name.contains("merged.json")
}

/// Form of a file of result records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// Written by a process of the official harness.
    Shard,
    /// Written by a merge tool; records have no `index`.
    Table,
}

/// Parses the records of a result file: one that the harness wrote, or a table of a merge tool,
/// whose records may also be at the top level, without `_checkpoint`. Errors name the file `file`.
///
/// # Errors
/// If the text is not JSON, a key that scores need is missing, or a score is outside its range.
pub fn records_of(file: &str, text: &str) -> Result<Vec<FoundRecord>, MergeError> {
    found_records(file, text)?.ok_or_else(|| MergeError::Missing {
        file: file.to_owned(),
        record: "the file".to_owned(),
        key: "_checkpoint",
    })
}

/// Parses as [`records_of`] does; returns `None` for JSON without records.
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
        let record = "the file".to_owned();
        return Err(MergeError::Missing { file: file.to_owned(), record, key: "records" });
    };
    let records = records.into_iter().map(|record| FoundRecord::new(file, record, form));
    records.collect::<Result<_, _>>().map(Some)
}

/// Merged records and their scores, with the keys of the official merge tool's file.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Merged {
    #[serde(rename = "_checkpoint")]
    body: MergedBody,
    /// Sum of all driving scores divided by `divisor`.
    #[serde(rename = "driving score")]
    pub driving_score: f64,
    /// Successes divided by `divisor`, 0 to 1.
    #[serde(rename = "success rate")]
    pub success_rate: f64,
    /// Number of records, duplicates included.
    #[serde(rename = "eval num")]
    pub finished: usize,
    #[serde(skip)]
    pub divisor: usize,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct MergedBody {
    records: Vec<FoundRecord>,
}

/// Means over records, with the arithmetic of the official merge tool.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Means {
    /// Sum of all driving scores divided by the divisor.
    pub(crate) driving_score: f64,
    /// Successes divided by the divisor, 0 to 1.
    pub(crate) success_rate: f64,
    pub(crate) finished: usize,
}

impl Means {
    /// Panics if `divisor` is 0.
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
    /// Merges `records`; sums are divided by `divisor`. Duplicates count twice, see [`duplicates`].
    ///
    /// # Panics
    /// If `divisor`, the number of drives, is 0.
    pub fn new(mut records: Vec<FoundRecord>, divisor: usize) -> Self {
        let Means { driving_score, success_rate, finished } = Means::new(records.iter(), divisor);
        // By route id as text, descending: the order of the official tool.
        records.sort_by(|left, right| right.route_id.cmp(&left.route_id));
        Self { driving_score, success_rate, finished, divisor, body: MergedBody { records } }
    }

    /// Returns the records by route id as text, descending.
    pub fn records(&self) -> &[FoundRecord] {
        &self.body.records
    }
}

/// Returns route ids with more than one record, each with the files of its records.
pub fn duplicates(records: &[FoundRecord]) -> BTreeMap<&str, Vec<&str>> {
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for record in records {
        files.entry(&record.route_id).or_default().push(&record.file);
    }
    files.retain(|_, files| files.len() > 1);
    files
}
