//! Latencies on the command line and the files that they name.

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use tandem::pilot::{
    ClockName, FastReleases, Latencies, LatencyError, LatencySpec, Pace, Run, RunFile, Schedule,
    split_latencies,
};
use tandem::scene::RouteId;
use tandem_evaluation::scoring::{file_stem, route_id};
use tandem_profile::LatencyFile;

/// Value of `--latency`; a latency that is not given is `None`.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct LatencyArgument {
    slow: Option<LatencySpec>,
    fast: Option<LatencySpec>,
    releases: Option<FastReleases>,
}

impl FromStr for LatencyArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut argument = Self { slow: None, fast: None, releases: None };
        for part in split_latencies(text) {
            let latency = |spec: &str| {
                spec.parse().map_err(|error: LatencyError| error.to_string()).map(Some)
            };
            let (slow, fast) = match part.split_once('=') {
                Some(("slow", spec)) => (latency(spec)?, None),
                Some(("fast", spec)) => (None, latency(spec)?),
                _ => match part.as_str() {
                    "overlap" | "busy" if argument.releases.is_some() => {
                        return Err(format!("{text:?} gives busy or overlap twice"));
                    }
                    "overlap" => {
                        argument.releases = Some(FastReleases::Overlap);
                        continue;
                    }
                    "busy" => {
                        argument.releases = Some(FastReleases::Busy);
                        continue;
                    }
                    both if both.starts_with("file:") || both.starts_with("replayed:") => {
                        (latency(both)?, latency(both)?)
                    }
                    other => {
                        return Err(format!(
                            "{other:?} is not slow=LATENCY, fast=LATENCY, file:latency.json, \
                             replayed:DIR, busy or overlap"
                        ));
                    }
                },
            };
            for (of, given) in [(&mut argument.slow, slow), (&mut argument.fast, fast)] {
                if given.is_some() && of.is_some() {
                    return Err(format!("{text:?} gives one latency twice"));
                }
                *of = given.or(of.take());
            }
        }
        Ok(argument)
    }
}

impl LatencyArgument {
    /// Sets virtual time and these latencies in `file`. A latency that is not given is 0.
    pub(super) fn apply(&self, file: &mut RunFile) {
        file.clock = ClockName::Virtual;
        file.slow_latency = self.slow.clone().unwrap_or(LatencySpec::ZERO);
        file.fast_latency = self.fast.clone().unwrap_or(LatencySpec::ZERO);
        file.fast_releases = self.releases.unwrap_or(file.fast_releases);
    }
}

/// A run with the sources of its latencies.
#[derive(Clone, Debug)]
pub(super) struct Timed {
    pub(super) run: Run,
    /// Hash and machine of each latency file: settings that affect results in addition to the run
    /// file.
    pub(super) provenance: BTreeMap<String, String>,
    /// Emulated hardware, one line per recording.
    pub(super) emulated: Vec<String>,
    /// Result folder of the replayed drives.
    replayed: Option<PathBuf>,
}

impl Timed {
    /// Validates `file` and reads the recordings that its latencies name.
    pub(super) fn new(file: &RunFile) -> anyhow::Result<Self> {
        let mut provenance = BTreeMap::new();
        let mut emulated = Vec::new();
        let run = Run::new(file, &mut |path| {
            let recorded = LatencyFile::read(path)?;
            let hardware = recorded.emulated_hardware();
            let hash: String = Sha256::digest(std::fs::read(path)?)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let card = serde_json::to_string(&recorded.machine)?;
            provenance.insert(format!("{} (SHA-256)", path.display()), hash);
            provenance.insert(format!("{} (machine)", path.display()), card);
            if !emulated.contains(&hardware) {
                emulated.push(hardware);
            }
            Ok(recorded.recorded_latencies())
        })?;
        let replayed: Vec<&PathBuf> = [&file.slow_latency, &file.fast_latency]
            .into_iter()
            .filter_map(|spec| match spec {
                LatencySpec::Replayed(folder) => Some(folder),
                _ => None,
            })
            .collect();
        if let [slow, fast] = replayed[..]
            && slow != fast
        {
            bail!(
                "slow latencies are replayed from {} and fast ones from {}: name one folder",
                slow.display(),
                fast.display()
            );
        }
        let replayed = replayed.first().map(|folder| (*folder).clone());
        Ok(Self { run, provenance, emulated, replayed })
    }

    /// Returns the run of one drive.
    pub(super) fn for_drive(
        &self,
        seed: u64,
        route: &RouteId,
        repetition: u32,
    ) -> anyhow::Result<Run> {
        let run = self.run.clone().for_drive(seed, route);
        let Pace::Virtual(latencies) = &self.run.pace else { return Ok(run) };
        let schedule = match &self.replayed {
            Some(folder) => {
                let path = schedule_file(folder, &route_id(route, repetition));
                let schedule = Schedule::read(&path).context("replaying a recorded drive")?;
                Some(Arc::new(schedule))
            }
            None => None,
        };
        let latencies: Latencies = latencies.for_drive(seed, route, schedule);
        Ok(Run { pace: Pace::Virtual(latencies), ..run })
    }
}

/// Returns the file of a drive's schedule in a result folder.
pub(super) fn schedule_file(folder: &Path, route_id: &str) -> PathBuf {
    folder.join("schedules").join(format!("{}.json", file_stem(route_id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str) -> (String, String, FastReleases) {
        let mut file = RunFile::default();
        text.parse::<LatencyArgument>().unwrap().apply(&mut file);
        assert_eq!(file.clock, ClockName::Virtual);
        (file.slow_latency.to_string(), file.fast_latency.to_string(), file.fast_releases)
    }

    #[test]
    fn slow_and_fast_latencies_are_parsed() {
        let overlap = FastReleases::Overlap;
        assert_eq!(applied("slow=400,fast=35"), ("400".into(), "35".into(), overlap));
        assert_eq!(
            applied("slow=lognormal:p50=300,p99=700,fast=uniform:min=20,max=60,busy"),
            (
                "lognormal:p50=300,p99=700".into(),
                "uniform:min=20,max=60".into(),
                FastReleases::Busy
            )
        );
        assert_eq!(applied("fast=49"), ("0".into(), "49".into(), overlap));
        assert_eq!(applied("file:a.json"), ("file:a.json".into(), "file:a.json".into(), overlap));
        assert_eq!(applied("slow=file:a.json,fast=5").0, "file:a.json");
    }

    #[test]
    fn invalid_latencies_are_rejected() {
        let refused = |text: &str, fragment: &str| {
            let error = text.parse::<LatencyArgument>().unwrap_err();
            assert!(error.contains(fragment), "{fragment:?} is missing in: {error}");
        };
        refused("400", "slow=LATENCY");
        refused("slow=400,slow=300", "twice");
        refused("file:a.json,fast=3", "twice");
        refused("slow=quick", "\"quick\"");
        refused("busy,overlap", "twice");
        refused("", "slow=LATENCY");
    }
}
