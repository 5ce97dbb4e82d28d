//! Many routes, one result file each, in a folder that can be taken up again where it was left.
//!
//! ```text
//! run.json                            what was run: a folder belongs to one set of settings
//! routes/RouteScenario_1711_rep0.json result file of one route, in the official format
//! logs/RouteScenario_1711_rep0.json   that drive tick by tick, for the report
//! merged.json                         all records so far, in the official merged format
//! ```
//!
//! A log is written before its result file, so whatever has a result has a log.

use super::log::RouteLog;
use super::record::{
    Checkpoint, MergedTable, Record, RouteIdentity, WriteError, write_json, write_json_compact,
};
use super::routes::WeatherPresets;
use super::run::{RouteEnd, RouteOutcome};
use super::statistics::score;
use crate::scene::Route;
use crate::timing::wall_time_unix_s;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

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

    /// What differs from `other`, one line each: name, ours, theirs.
    fn differences(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (self.entries(), other.entries());
        let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        let absent = "nothing".to_owned();
        names
            .into_iter()
            .filter(|name| ours.get(*name) != theirs.get(*name))
            .map(|name| {
                let [ours, theirs] = [&ours, &theirs].map(|e| e.get(name).unwrap_or(&absent));
                format!("{name} is {ours}, the folder has {theirs}")
            })
            .collect()
    }

    fn entries(&self) -> BTreeMap<String, String> {
        let mut entries = self.settings.clone();
        let fixed = [
            ("tandem version", self.tandem_version.clone()),
            ("route file (SHA-256)", self.route_file_sha256.clone()),
            ("seed", self.seed.to_string()),
            ("driver", self.driver.clone()),
        ];
        entries.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
        entries
    }
}

/// Sets up world and driver for one route and calls [`run_route`](super::run::run_route).
pub type DriveRoute<'a> =
    dyn FnMut(&Route) -> Result<RouteOutcome, Box<dyn Error + Send + Sync>> + 'a;

/// A campaign to run.
pub struct Campaign<'a> {
    /// Where results go; made if it does not exist.
    pub folder: &'a Path,
    /// What is run.
    pub provenance: &'a Provenance,
    /// The routes, in order.
    pub routes: &'a [Route],
    /// For weather ids, if a preset file is at hand.
    pub presets: Option<&'a WeatherPresets>,
    /// One icon name per declared sensor, e.g. `carla_camera`.
    pub sensors: &'a [String],
}

/// What a campaign tells while it runs.
#[derive(Clone, PartialEq, Debug)]
pub enum Progress<'a> {
    /// The folder holds the result of this route already.
    Skipped {
        /// Position of the route, from 0.
        index: usize,
        /// Its result.
        record: &'a Record,
    },
    /// This route is driven now.
    Started {
        /// Position of the route, from 0.
        index: usize,
        /// The route.
        route: &'a Route,
    },
    /// This route's result is written.
    Finished {
        /// Position of the route, from 0.
        index: usize,
        /// Its result.
        record: &'a Record,
    },
}

/// What a campaign came to.
#[derive(Clone, PartialEq, Debug)]
pub struct CampaignSummary {
    /// Records and averages over all routes; those that were not driven count as zero.
    pub table: MergedTable,
    /// Whether it was stopped before the last route.
    pub is_cancelled: bool,
}

/// A campaign could not go on. Finished routes keep their files.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// There is nothing to drive.
    #[error("a campaign over no routes")]
    NoRoutes,
    /// The folder could not be made or read.
    #[error("cannot use result folder {path:?}")]
    Folder {
        /// Which folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder holds something else than results.
    #[error("cannot read {path:?} in the result folder")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The folder belongs to other settings.
    #[error("result folder {path:?} was made with other settings: {}", differences.join("; "))]
    OtherSettings {
        /// Which folder.
        path: PathBuf,
        /// One line per setting.
        differences: Vec<String>,
    },
    /// A result could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A route could not be set up.
    #[error("cannot drive route {route_id}")]
    Route {
        /// Which route.
        route_id: u32,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Campaign<'_> {
    /// Drives every route whose result file is missing or incomplete with `drive`. A cancelled
    /// drive leaves no file.
    ///
    /// # Errors
    /// If the folder belongs to other settings or can't be used, or `drive` fails.
    pub fn run(
        &self,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
        drive: &mut DriveRoute<'_>,
    ) -> Result<CampaignSummary, CampaignError> {
        if self.routes.is_empty() {
            return Err(CampaignError::NoRoutes);
        }
        self.claim_folder()?;
        let mut records = Vec::with_capacity(self.routes.len());
        let mut is_cancelled = false;
        for (index, route) in self.routes.iter().enumerate() {
            let weather_id = self.presets.and_then(|presets| presets.id_of(route));
            let identity = RouteIdentity::new(route, weather_id, wall_time_unix_s());
            let result_file = self.result_file(&identity.route_id);
            if let Some(record) = whole_result(&result_file, &identity.route_id) {
                progress(Progress::Skipped { index, record: &record });
                records.push(record);
                continue;
            }
            // Later routes may be finished already: go on to count them.
            is_cancelled |= cancel.load(Ordering::Relaxed);
            if is_cancelled {
                continue;
            }
            progress(Progress::Started { index, route });
            let outcome = drive(route)
                .map_err(|source| CampaignError::Route { route_id: route.id, source })?;
            let Some(result) = outcome.result() else {
                is_cancelled = true;
                continue;
            };
            if let RouteEnd::DriverFailed(words) = &outcome.end {
                tracing::error!(route = route.id, words, "the driver failed");
            }
            let mut record = Record::blank(0, &identity);
            score(&mut record, &result);
            write_json_compact(&self.log_file(&identity.route_id), &outcome.log)?;
            let sensors = self.sensors.to_vec();
            write_json(&result_file, &Checkpoint::finished(vec![record.clone()], 1, sensors))?;
            progress(Progress::Finished { index, record: &record });
            records.push(record);
        }
        let table = MergedTable::new(records, self.routes.len());
        write_json(&self.folder.join("merged.json"), &table)?;
        Ok(CampaignSummary { table, is_cancelled })
    }

    /// The log of a route that has a result.
    ///
    /// # Errors
    /// If there is none or it can't be read.
    pub fn read_log(&self, route_id: &str) -> Result<RouteLog, CampaignError> {
        read_json(&self.log_file(route_id))
    }

    fn result_file(&self, route_id: &str) -> PathBuf {
        self.folder.join("routes").join(format!("{route_id}.json"))
    }

    fn log_file(&self, route_id: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{route_id}.json"))
    }

    /// Makes the folder ours, or checks that it is.
    fn claim_folder(&self) -> Result<(), CampaignError> {
        for part in ["routes", "logs"] {
            let path = self.folder.join(part);
            fs::create_dir_all(&path).map_err(|source| CampaignError::Folder { path, source })?;
        }
        let path = self.folder.join("run.json");
        if !path.exists() {
            return Ok(write_json(&path, self.provenance)?);
        }
        let differences = self.provenance.differences(&read_json(&path)?);
        if differences.is_empty() {
            return Ok(());
        }
        Err(CampaignError::OtherSettings { path: self.folder.to_owned(), differences })
    }
}

/// The record in a result file that is whole: complete JSON, one finished route, the right one.
fn whole_result(path: &Path, route_id: &str) -> Option<Record> {
    let mut checkpoint: Checkpoint = read_json(path).ok()?;
    let is_whole = checkpoint.body.progress == [1, 1] && checkpoint.body.records.len() == 1;
    let record = checkpoint.body.records.pop()?;
    (is_whole && record.route_id == route_id).then_some(record)
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, CampaignError> {
    let text = fs::read_to_string(path)
        .map_err(|source| CampaignError::Folder { path: path.to_owned(), source })?;
    serde_json::from_str(&text)
        .map_err(|source| CampaignError::Unreadable { path: path.to_owned(), source })
}
