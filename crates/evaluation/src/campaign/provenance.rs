//! Settings that results were made with: the file `run.json` of their folder.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use tandem_files::shortened;
use tandem_scene::RouteId;

/// Largest number of drives of a route in one campaign.
pub const MAX_REPETITIONS: u32 = 10_000;

/// Settings that determine results. Two runs with the same provenance may use the same folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Provenance {
    pub tandem_version: String,
    /// SHA-256 of the route file, hexadecimal.
    pub route_file_sha256: String,
    pub seed: u64,
    pub driver: String,
    /// All other settings that determine results, by name.
    pub settings: BTreeMap<String, String>,
}

impl Provenance {
    /// Creates the provenance of a run of this version of tandem.
    pub fn new(
        route_file: &[u8],
        seed: u64,
        driver: &str,
        settings: BTreeMap<String, String>,
    ) -> Self {
        let digest = Sha256::digest(route_file);
        Self {
            tandem_version: env!("CARGO_PKG_VERSION").to_owned(),
            route_file_sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            seed,
            driver: driver.to_owned(),
            settings,
        }
    }
}

/// Settings and drives of a folder's results: `run.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunJson {
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Ids of the routes, in order; empty in folders of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteId>,
    /// Drives of every route, 1 to [`MAX_REPETITIONS`].
    #[serde(default = "once", deserialize_with = "repetitions")]
    pub repetitions: u32,
}

fn once() -> u32 {
    1
}

fn repetitions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let found = u32::deserialize(deserializer)?;
    if (1..=MAX_REPETITIONS).contains(&found) {
        return Ok(found);
    }
    let expected = format!("1 to {MAX_REPETITIONS}");
    Err(D::Error::custom(format!("repetitions is {found}, expected {expected}")))
}

impl RunJson {
    /// Returns the number of drives of the campaign; `None` if the file contains no routes.
    pub fn drives(&self) -> Option<usize> {
        let repetitions = usize::try_from(self.repetitions).ok()?;
        (!self.routes.is_empty()).then(|| self.routes.len() * repetitions)
    }

    /// Returns the differences from `other`, one line each: name, value, and value of `other`,
    /// which is called `other_name` in the text.
    pub fn differences(&self, other: &Self, other_name: &str) -> Vec<String> {
        let (ours, theirs) = (self.entries(), other.entries());
        let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        let absent = "nothing".to_owned();
        names
            .into_iter()
            .filter(|name| ours.get(*name) != theirs.get(*name))
            .map(|name| {
                let [ours, theirs] = [&ours, &theirs].map(|e| e.get(name).unwrap_or(&absent));
                difference(name, ours, theirs, other_name)
            })
            .collect()
    }

    fn entries(&self) -> BTreeMap<String, String> {
        let mut entries = self.provenance.settings.clone();
        let ids: Vec<String> = self.routes.iter().map(RouteId::to_string).collect();
        let fixed = [
            ("tandem version", self.provenance.tandem_version.clone()),
            ("route file (SHA-256)", self.provenance.route_file_sha256.clone()),
            ("seed", self.provenance.seed.to_string()),
            ("driver", self.provenance.driver.clone()),
            ("routes", format!("{} ({})", ids.len(), ids.join(","))),
            ("repetitions", self.repetitions.to_string()),
        ];
        entries.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
        entries
    }
}

/// Formats one difference; of two JSON objects, such as run files, the keys that differ.
fn difference(name: &str, ours: &str, theirs: &str, other_name: &str) -> String {
    let name = shortened(name);
    let objects = [ours, theirs].map(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    let [Some(our_keys), Some(their_keys)] = objects else {
        return format!("{name} is {}, {other_name} has {}", shortened(ours), shortened(theirs));
    };
    let keys: BTreeSet<&String> = our_keys.keys().chain(their_keys.keys()).collect();
    let text = |value: Option<&Value>| value.map_or("nothing".to_owned(), shortened);
    let differing = keys.into_iter().filter(|key| our_keys.get(*key) != their_keys.get(*key));
    let lines = differing.map(|key| {
        let [ours, theirs] = [&our_keys, &their_keys].map(|keys| text(keys.get(key)));
        format!("{name}: {} is {ours}, {other_name} has {theirs}", shortened(key))
    });
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_files_are_compared_by_key() {
        let text = difference("run", r#"{"a":1,"b":2}"#, r#"{"a":1,"b":3,"c":[]}"#, "the folder");
        let expected = "run: b is 2, the folder has 3; run: c is nothing, the folder has []";
        assert_eq!(text, expected);
    }

    #[test]
    fn long_lists_are_shortened() {
        let list = |first: usize| {
            let ids: Vec<String> = (first..first + 220).map(|id| id.to_string()).collect();
            format!("{} ({})", ids.len(), ids.join(","))
        };
        let text = difference("routes", &list(1_000), &list(2_000), "the folder");
        assert!(text.starts_with("routes is 220 (1000,1001,"), "{text}");
        assert!(text.contains("…, the folder has 220 (2000,2001,"), "{text}");
        assert!(text.len() < 200, "{text}");
    }

    #[test]
    fn repetitions_out_of_range_are_rejected() {
        let read = |repetitions: &str| {
            let text = format!(
                r#"{{"tandem_version":"1","route_file_sha256":"","seed":1,"driver":"x",
                "settings":{{}},"repetitions":{repetitions}}}"#
            );
            serde_json::from_str::<RunJson>(&text).map(|run| run.repetitions)
        };
        assert_eq!(read("10000").unwrap(), MAX_REPETITIONS);
        for repetitions in ["0", "10001", "10000000"] {
            let error = read(repetitions).unwrap_err().to_string();
            assert!(error.contains(&format!("repetitions is {repetitions}")), "{error}");
        }
    }
}
