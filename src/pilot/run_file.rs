//! How to run: one YAML file, read into a struct that mirrors it, then checked.

use super::RealTimeOptions;
use super::flat_keys::move_into_block;
use super::latency::{
    Expert, FastReleases, Latencies, LatencyError, LatencySource, LatencySpec, OpenRecording,
};
use super::real_time::{MAX_CORES, MAX_FIFO_PRIORITY, MAX_PREFAULT_MIB};
use crate::model::ModelBlock;
use crate::scene::RouteId;
use crate::scene::random::SplitMix64;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem_files::shortened_error;

/// The tick rate of the benchmark and of every model so far, Hz.
const TICK_HZ: u32 = 20;

/// Ticks that the release's agent only brakes at the start of a route.
const RELEASE_WARM_UP_TICKS: u32 = 31;

/// A run file as it is written; `configs/run.yaml` has every key with its default.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunFile {
    /// Control ticks a second; 20 is the only rate that the models were trained for.
    pub tick_hz: u32,
    /// Time from observation to control that counts as in time, milliseconds.
    pub act_budget_millis: f64,
    /// Ticks from one refresh to the next; the release refreshes every second tick. The second
    /// refresh of a route comes at the first multiple of the period behind the first one.
    pub refresh_period_ticks: u32,
    /// Ticks at the start of a route that fully brake and run no network, while readings, histories
    /// and the state filter go on; the release's are 31. With 0 the first refresh begins as soon as
    /// the history suffices.
    pub warm_up_ticks: u32,
    /// The time mode: `lockstep`, `virtual` or `wall`.
    pub clock: ClockName,
    /// Virtual time: from the start of a refresh until its prefix is seen. Files of before name it
    /// `refresh_latency_millis`.
    #[serde(alias = "refresh_latency_millis")]
    pub slow_latency: LatencySpec,
    /// Virtual time: from a tick's observation until its command is there to be applied.
    pub fast_latency: LatencySpec,
    /// Virtual time: whether inferences of the fast expert overlap.
    pub fast_releases: FastReleases,
    /// Seed of the world's randomness.
    pub seed: u64,
    /// Where the networks run: `cpu`, `cuda:N`, or `emulated`.
    pub device: DeviceName,
    /// On a GPU: the part of its multiprocessors, above 0 and below 1, that the BEV encoder and the
    /// action expert have for themselves, the vision tower and the understanding expert having the
    /// rest. Absent: all share all, the fast ones first.
    pub fast_share: Option<f64>,
    /// On a GPU: milliseconds without a refresh after which the vision tower runs for nothing, so that
    /// clocks stay up; a refresh may wait for one such run. Absent: never.
    pub keep_warm_millis: Option<f64>,
    /// Where the experts share a device without being apart on it: milliseconds before a tick in which
    /// the understanding expert begins no frame and no layer group, nor while the tick acts. Absent:
    /// it begins at any time.
    pub tick_guard_millis: Option<f64>,
    /// CPU threads of each expert.
    pub threads: Threads,
    /// What the operating system is asked for; nothing by default.
    pub real_time: RealTimeOptions,
    /// The model's family and its options; absent, the options are at the defaults of the family
    /// that the engine folder is of. Files of earlier versions have AutoMoT's options at the top; see
    /// [`RunFile::read`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelBlock>,
}

/// CPU threads of each expert's engines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threads {
    /// BEV encoder and action expert.
    pub action: usize,
    /// Vision tower and understanding expert.
    pub understanding: usize,
}

/// The devices a run file can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The host.
    Cpu,
    /// The host made to behave like a GPU: a thread per stream, memory of its own. For tests, and to
    /// see the shape of a GPU's timeline; its times are a CPU's.
    Emulated,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Emulated => f.write_str("emulated"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let ordinal = name.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        match (name.as_str(), ordinal) {
            ("cpu", _) => Ok(Self::Cpu),
            ("emulated", _) => Ok(Self::Emulated),
            (_, Some(ordinal)) => Ok(Self::Cuda(ordinal)),
            _ => Err(format!("there is no device {name:?}; name cpu, cuda:0 or emulated")),
        }
    }
}

/// The time modes a run file can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockName {
    /// The world waits for every answer, which is there at once: the benchmark's way.
    Lockstep,
    /// Answers are there after their latencies, whatever the machine takes.
    Virtual,
    /// Real time.
    Wall,
}

impl Default for RunFile {
    fn default() -> Self {
        Self {
            tick_hz: TICK_HZ,
            act_budget_millis: 50.0,
            refresh_period_ticks: 2,
            warm_up_ticks: RELEASE_WARM_UP_TICKS,
            clock: ClockName::Lockstep,
            slow_latency: LatencySpec::ZERO,
            fast_latency: LatencySpec::ZERO,
            fast_releases: FastReleases::Overlap,
            seed: 0,
            device: DeviceName::Cpu,
            fast_share: None,
            keep_warm_millis: None,
            tick_guard_millis: None,
            threads: Threads { action: 1, understanding: 1 },
            real_time: RealTimeOptions::default(),
            model: None,
        }
    }
}

/// When results become visible.
#[derive(Clone, PartialEq, Debug)]
pub enum Pace {
    /// At the tick that they are of: the world waits.
    Lockstep,
    /// When their latencies have passed in simulated time.
    Virtual(Latencies),
    /// As soon as they are done; the loop keeps real time.
    Wall,
}

/// A checked run: nothing in it is optional.
#[derive(Clone, PartialEq, Debug)]
pub struct Run {
    /// Time from tick to tick.
    pub tick: Duration,
    /// Time from observation to control that counts as in time.
    pub act_budget: Duration,
    /// Ticks from one refresh to the next.
    pub refresh_period_ticks: u64,
    /// Ticks at the start of a route that run no network.
    pub warm_up_ticks: u64,
    /// The time mode, with its latencies.
    pub pace: Pace,
    /// Seed of the world's randomness.
    pub seed: u64,
    /// Seed of the experts' randomness on one drive; see [`Run::for_drive`].
    pub drive_seed: u64,
    /// Where the networks run.
    pub device: DeviceName,
    /// Part of a GPU's multiprocessors that the fast lane has for itself.
    pub fast_share: Option<f64>,
    /// Time without a refresh after which the device is kept busy.
    pub keep_warm: Option<Duration>,
    /// Time before a tick in which the slow expert begins no piece of work.
    pub tick_guard: Option<Duration>,
    /// CPU threads.
    pub threads: Threads,
    /// What the operating system is asked for.
    pub real_time: RealTimeOptions,
    /// The model's family and options; `None` for the defaults of whichever family is loaded.
    pub model: Option<ModelBlock>,
}

impl Run {
    /// Returns this run with the experts' randomness of the drive along `route` in a world of `seed`.
    #[must_use]
    pub fn for_drive(self, seed: u64, route: &RouteId) -> Self {
        Self { drive_seed: SplitMix64::hash(seed, route.seed()), ..self }
    }
}

/// A run file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot be read.
    #[error("cannot read run file {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not a run file.
    #[error("run file {path:?}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's words, with the place.
        reason: String,
    },
    /// Another rate than the models'.
    #[error(
        "tick_hz is {found}; the models were trained for {TICK_HZ}, and the benchmark runs at {TICK_HZ}"
    )]
    TickRate {
        /// The rate asked for.
        found: u32,
    },
    /// A budget that can't be kept.
    #[error("act_budget_millis of {budget} ms exceeds the {tick} ms tick")]
    Budget {
        /// The budget.
        budget: f64,
        /// The tick.
        tick: f64,
    },
    /// A latency that cannot be.
    #[error("{key}: {source}")]
    Latency {
        /// The key.
        key: &'static str,
        /// Why.
        #[source]
        source: LatencyError,
    },
    /// A latency in a time mode that has none.
    #[error(
        "{key} is {found}, and clock {clock} has no latencies to emulate; set clock: virtual, or leave \
         {key} out"
    )]
    LatencyNotVirtual {
        /// The key.
        key: &'static str,
        /// The latency.
        found: String,
        /// The time mode.
        clock: &'static str,
    },
    /// A number outside its range.
    #[error("{key} is {found}; it must be {expected}")]
    Range {
        /// The key.
        key: &'static str,
        /// The value.
        found: String,
        /// The range, in words.
        expected: &'static str,
    },
}

impl RunFile {
    /// Reads a run file; keys that are absent take their defaults. `notes` receives a warning about
    /// keys of earlier versions.
    ///
    /// # Errors
    /// If the file cannot be read, is not YAML, or has a key that no run file has.
    pub fn read(path: &Path, notes: &mut dyn FnMut(&str)) -> Result<Self, RunError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RunError::Read { path: path.to_owned(), source })?;
        let refused = |reason| RunError::Parse { path: path.to_owned(), reason };
        let error = match serde_saphyr::from_str(&text) {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        let mut keys = serde_saphyr::from_str::<Map<String, Value>>(&text).unwrap_or_default();
        let moved = move_into_block(&mut keys);
        if moved.is_empty() {
            return Err(refused(shortened_error(error)));
        }
        let file = serde_json::from_value(Value::Object(keys))
            .map_err(|error| refused(shortened_error(error)))?;
        notes(&format!(
            "warning: run file {}: {} {} of the model: put {} into a `model:` block with `family: \
             automot` (see configs/run.yaml)",
            path.display(),
            moved.join(", "),
            if moved.len() == 1 { "is an option" } else { "are options" },
            if moved.len() == 1 { "it" } else { "them" },
        ));
        Ok(file)
    }

    /// Reads the run that a file of this or an earlier version has as one of its values; for
    /// `#[serde(deserialize_with = …)]`.
    ///
    /// # Errors
    /// If it is not a run, or has a key that no run has.
    pub fn of_any_version<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut keys = Map::deserialize(from)?;
        move_into_block(&mut keys);
        serde_json::from_value(Value::Object(keys)).map_err(D::Error::custom)
    }
}

impl TryFrom<&RunFile> for Run {
    type Error = RunError;

    /// Checks a run file that names no recording; [`Run::new`] takes the others as well.
    fn try_from(file: &RunFile) -> Result<Self, RunError> {
        Self::new(file, &mut |path| {
            Err(format!("only drives emulate what {} recorded", path.display()).into())
        })
    }
}

impl Run {
    /// Checks `file`. `open` reads the recordings that its latencies may name.
    ///
    /// # Errors
    /// If a key has a value that it cannot have, or a recording cannot be read.
    pub fn new(file: &RunFile, open: &mut OpenRecording<'_>) -> Result<Self, RunError> {
        if file.tick_hz != TICK_HZ {
            return Err(RunError::TickRate { found: file.tick_hz });
        }
        let tick_millis = 1000.0 / f64::from(file.tick_hz);
        if file.act_budget_millis > tick_millis {
            return Err(RunError::Budget { budget: file.act_budget_millis, tick: tick_millis });
        }
        let act_budget = positive("act_budget_millis", file.act_budget_millis)?;
        if file.refresh_period_ticks == 0 {
            let (key, found) = ("refresh_period_ticks", "0".to_owned());
            return Err(RunError::Range { key, found, expected: "1 or more" });
        }
        for (key, threads) in [
            ("threads.action", file.threads.action),
            ("threads.understanding", file.threads.understanding),
        ] {
            if threads == 0 {
                return Err(RunError::Range { key, found: "0".into(), expected: "1 or more" });
            }
        }
        check_real_time(&file.real_time)?;
        let guard = file.tick_guard_millis;
        if let Some(guard) = guard.filter(|guard| !(0.0..=tick_millis).contains(guard)) {
            let (key, found) = ("tick_guard_millis", guard.to_string());
            return Err(RunError::Range { key, found, expected: "between 0 and a tick, 50" });
        }
        let pace = pace(file, open)?;
        if let Some(share) = file.fast_share.filter(|&share| !(share > 0.0 && share < 1.0)) {
            let (key, found) = ("fast_share", share.to_string());
            return Err(RunError::Range { key, found, expected: "above 0 and below 1" });
        }
        let keep_warm = file.keep_warm_millis;
        if let Some(millis) = keep_warm.filter(|millis| !(0.1..=10_000.0).contains(millis)) {
            let (key, found) = ("keep_warm_millis", millis.to_string());
            return Err(RunError::Range { key, found, expected: "between 0.1 and 10000" });
        }
        Ok(Self {
            device: file.device,
            fast_share: file.fast_share,
            keep_warm: keep_warm.map(|millis| Duration::from_secs_f64(millis / 1000.0)),
            tick_guard: guard.map(|millis| Duration::from_secs_f64(millis / 1000.0)),
            tick: Duration::from_secs_f64(tick_millis / 1000.0),
            act_budget,
            refresh_period_ticks: u64::from(file.refresh_period_ticks),
            warm_up_ticks: u64::from(file.warm_up_ticks),
            pace,
            seed: file.seed,
            drive_seed: file.seed,
            threads: file.threads,
            real_time: file.real_time.clone(),
            model: file.model.clone(),
        })
    }
}

/// The time mode with its latencies.
fn pace(file: &RunFile, open: &mut OpenRecording<'_>) -> Result<Pace, RunError> {
    let (pace, clock) = match file.clock {
        ClockName::Lockstep => (Pace::Lockstep, "lockstep"),
        ClockName::Wall => (Pace::Wall, "wall"),
        ClockName::Virtual => {
            let mut source = |key, spec: &LatencySpec, expert| {
                LatencySource::new(spec, expert, open)
                    .map_err(|source| RunError::Latency { key, source })
            };
            return Ok(Pace::Virtual(Latencies {
                slow: source("slow_latency", &file.slow_latency, Expert::Slow)?,
                fast: source("fast_latency", &file.fast_latency, Expert::Fast)?,
                fast_releases: file.fast_releases,
                seed: file.seed,
                refresh_period_ticks: u64::from(file.refresh_period_ticks),
            }));
        }
    };
    for (key, spec) in [("slow_latency", &file.slow_latency), ("fast_latency", &file.fast_latency)]
    {
        if !spec.is_zero() {
            let found = spec.to_string();
            return Err(RunError::LatencyNotVirtual { key, found, clock });
        }
    }
    Ok(pace)
}

/// Refuses what no machine could give; what this one cannot is for the report.
fn check_real_time(wanted: &RealTimeOptions) -> Result<(), RunError> {
    for (key, cores) in [
        ("real_time.pin_tick", &wanted.pin_tick),
        ("real_time.pin_understanding", &wanted.pin_understanding),
    ] {
        let Some(cores) = cores else { continue };
        let repeated = |(place, core): (usize, &usize)| cores[..place].contains(core);
        let too_high = cores.iter().any(|&core| core >= MAX_CORES);
        if cores.is_empty() || too_high || cores.iter().enumerate().any(repeated) {
            let expected = "null, or one or more different cores from 0 to 1023";
            return Err(RunError::Range { key, found: format!("{cores:?}"), expected });
        }
    }
    if let Some(priority) = wanted.fifo_priority
        && !(1..=MAX_FIFO_PRIORITY).contains(&priority)
    {
        let (key, found) = ("real_time.fifo_priority", priority.to_string());
        return Err(RunError::Range { key, found, expected: "null, or 1 to 99" });
    }
    if let Some(mib) = wanted.prefault_mib
        && !(1..=MAX_PREFAULT_MIB).contains(&mib)
    {
        let (key, found) = ("real_time.prefault_mib", mib.to_string());
        return Err(RunError::Range { key, found, expected: "null, or 1 to 65536" });
    }
    Ok(())
}

fn positive(key: &'static str, millis: f64) -> Result<Duration, RunError> {
    if millis > 0.0 && millis.is_finite() {
        return Ok(Duration::from_secs_f64(millis / 1000.0));
    }
    Err(RunError::Range { key, found: millis.to_string(), expected: "a positive number" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` and returns the warnings, too.
    fn read_file(text: &str) -> Result<(RunFile, Vec<String>), RunError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.yaml");
        std::fs::write(&path, text).unwrap();
        let mut notes = Vec::new();
        let file = RunFile::read(&path, &mut |note| notes.push(note.to_owned()))?;
        Ok((file, notes))
    }

    fn read(text: &str) -> Result<Run, String> {
        let (file, _) = read_file(text).map_err(|error| error.to_string())?;
        Run::try_from(&file).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(text: &str, says: &[&str]) {
        let error = read(text).unwrap_err();
        for word in says {
            assert!(error.contains(word), "{word:?} is missing in: {error}");
        }
    }

    #[test]
    fn absent_keys_take_their_defaults() {
        let run = read("seed: 7\n").unwrap();
        assert_eq!((run.seed, run.refresh_period_ticks), (7, 2));
        assert_eq!(run.tick, Duration::from_millis(50));
    }

    #[test]
    fn a_model_block_keeps_the_options_that_only_its_family_can_check() {
        let text = "seed: 7\nmodel: {family: someone, cameras: [front, rear], noise: 0.5}\n";
        let (file, notes) = read_file(text).unwrap();
        let block = file.model.clone().unwrap();
        assert_eq!(block.family, "someone");
        let options = serde_json::json!({"cameras": ["front", "rear"], "noise": 0.5});
        assert_eq!(Value::Object(block.options), options);
        assert!(notes.is_empty(), "{notes:?}");
        let written = serde_json::to_value(&file).unwrap();
        assert_eq!(written["model"]["cameras"], options["cameras"]);
        assert_eq!(RunFile::of_any_version(written).unwrap(), file);
        refused("model: {noise: 0.5}\n", &["run.yaml", "family"]);
    }

    #[test]
    fn options_at_the_top_move_into_the_block_with_one_warning() {
        let text = "seed: 7\npositions: release\njpeg_quality: null\nheuristics: {escape: false}\n";
        let (file, notes) = read_file(text).unwrap();
        let options = serde_json::json!({
            "positions": "release", "jpeg_quality": null, "heuristics": {"escape": false},
        });
        let Value::Object(options) = options else { unreachable!() };
        let block = ModelBlock { family: "automot".into(), options };
        assert_eq!((file.seed, file.model.as_ref()), (7, Some(&block)));
        let [note] = &notes[..] else { panic!("{notes:?}") };
        for key in ["run.yaml", "positions", "jpeg_quality", "heuristics", "model:"] {
            assert!(note.contains(key), "{key}: {note}");
        }
        let flat = serde_json::json!({"seed": 7, "history_spacing_ticks": 10});
        let file = RunFile::of_any_version(flat).unwrap();
        assert_eq!(file.model.unwrap().options["history_spacing_ticks"], 10);
        // The rest is checked as strictly as before, and nothing is guessed where both stand.
        refused("positions: release\nsede: 7\n", &["run.yaml", "sede"]);
        refused("positions: release\nmodel: {family: automot}\n", &["run.yaml", "positions"]);
    }

    #[test]
    fn an_unknown_choice_is_refused_with_key_and_choices() {
        refused("clock: sundial\n", &["clock", "sundial", "lockstep", "virtual", "wall"]);
    }

    #[test]
    fn latencies_are_milliseconds_or_words() {
        let text =
            "clock: virtual\nrefresh_latency_millis: 100\nfast_latency: lognormal:p50=30,p99=70\n";
        let Pace::Virtual(latencies) = read(text).unwrap().pace else { panic!("not virtual") };
        assert_eq!(latencies.slow, LatencySource::Fixed(Duration::from_millis(100)));
        assert!(matches!(latencies.fast, LatencySource::LogNormal { median_ns: 3e7, .. }));
        refused("clock: virtual\nfast_latency: brisk\n", &["brisk", "lognormal:p50=A,p99=B"]);
        refused("clock: virtual\nfast_releases: often\n", &["often", "overlap", "busy"]);
        refused("clock: virtual\nslow_latency: file:x.json\n", &["slow_latency", "x.json"]);
    }

    #[test]
    fn a_latency_that_would_go_unheard_is_refused() {
        refused("slow_latency: 100\n", &["slow_latency is 100", "lockstep", "clock: virtual"]);
        refused("clock: wall\nfast_latency: 5\n", &["fast_latency is 5", "clock wall"]);
    }

    #[test]
    fn an_unknown_key_is_named() {
        refused("refresh_perod_ticks: 2\n", &["run.yaml", "refresh_perod_ticks"]);
    }

    #[test]
    fn a_budget_longer_than_its_tick_is_refused() {
        refused("act_budget_millis: 60\n", &["60 ms", "50 ms tick"]);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        refused("refresh_period_ticks: 0\n", &["refresh_period_ticks", "1 or more"]);
        refused("clock: virtual\nslow_latency: -1\n", &["slow_latency", "-1", "60000 ms"]);
        refused("act_budget_millis: .nan\n", &["act_budget_millis"]);
        refused("tick_hz: 10\n", &["tick_hz", "20"]);
        refused("threads: {action: 0, understanding: 1}\n", &["threads.action"]);
    }

    #[test]
    fn real_time_options_that_no_machine_has_are_refused() {
        let cores = "one or more different cores from 0 to 1023";
        refused("real_time: {pin_tick: []}\n", &["real_time.pin_tick is []", cores]);
        refused("real_time: {pin_tick: [1024]}\n", &["real_time.pin_tick is [1024]", cores]);
        refused(
            "real_time: {pin_understanding: [1, 1]}\n",
            &["pin_understanding is [1, 1]", cores],
        );
        refused("real_time: {fifo_priority: 0}\n", &["real_time.fifo_priority is 0", "1 to 99"]);
        refused("real_time: {fifo_priority: 100}\n", &["real_time.fifo_priority is 100"]);
        refused("real_time: {prefault_mib: 0}\n", &["real_time.prefault_mib is 0", "1 to 65536"]);
        refused("real_time: {prefault_mib: 65537}\n", &["real_time.prefault_mib is 65537"]);
        refused("real_time: {lock_memory: much}\n", &["run.yaml", "lock_memory", "much"]);
        refused("real_time: {fifo_priority: -1}\n", &["run.yaml", "fifo_priority"]);
        refused("real_time: {pin_tick: 0}\n", &["run.yaml", "pin_tick"]);
        refused("real_time: {pin: [0]}\n", &["run.yaml", "pin", "pin_tick", "prefault_mib"]);
    }

    #[test]
    fn real_time_options_come_through() {
        let run =
            read("real_time: {pin_tick: [0, 3], fifo_priority: 80, prefault_mib: 8}\n").unwrap();
        let expected = RealTimeOptions {
            pin_tick: Some(vec![0, 3]),
            fifo_priority: Some(80),
            prefault_mib: Some(8),
            ..RealTimeOptions::default()
        };
        assert_eq!(run.real_time, expected);
        assert_eq!(read("seed: 1\n").unwrap().real_time, RealTimeOptions::default());
    }
}
