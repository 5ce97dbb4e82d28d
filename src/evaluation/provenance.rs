//! What results were made with, as the file `run.json` of their folder says.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// What was run. Two runs with the same provenance may share a folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of tandem.
    pub tandem_version: String,
    /// SHA-256 of the route file, hexadecimal.
    pub route_file_sha256: String,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Name of the driver.
    pub driver: String,
    /// Everything else that decides results, by name.
    pub settings: BTreeMap<String, String>,
}

impl Provenance {
    /// Provenance of this version of tandem.
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

/// What a folder's results are made with, and of which drives they are: `run.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunJson {
    /// What decides each result.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Ids of the routes, in order; absent in folders of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<u32>,
    /// Drives of every route.
    #[serde(default = "once")]
    pub repetitions: u32,
}

fn once() -> u32 {
    1
}

impl RunJson {
    /// Drives of the whole campaign; `None` if the file does not say.
    pub fn drives(&self) -> Option<usize> {
        let repetitions = usize::try_from(self.repetitions).ok()?;
        (!self.routes.is_empty()).then(|| self.routes.len() * repetitions)
    }

    /// What differs from `other`, one line each: name, ours, and what `whose` have.
    pub fn differences(&self, other: &Self, whose: &str) -> Vec<String> {
        let (ours, theirs) = (self.entries(), other.entries());
        let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        let absent = "nothing".to_owned();
        names
            .into_iter()
            .filter(|name| ours.get(*name) != theirs.get(*name))
            .map(|name| {
                let [ours, theirs] = [&ours, &theirs].map(|e| e.get(name).unwrap_or(&absent));
                format!("{name} is {ours}, {whose} has {theirs}")
            })
            .collect()
    }

    fn entries(&self) -> BTreeMap<String, String> {
        let mut entries = self.provenance.settings.clone();
        let ids: Vec<String> = self.routes.iter().map(u32::to_string).collect();
        let fixed = [
            ("tandem version", self.provenance.tandem_version.clone()),
            ("route file (SHA-256)", self.provenance.route_file_sha256.clone()),
            ("seed", self.provenance.seed.to_string()),
            ("driver", self.provenance.driver.clone()),
            ("routes", ids.join(",")),
            ("repetitions", self.repetitions.to_string()),
        ];
        entries.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
        entries
    }
}
