//! Run files: a YAML file is read into [`RunFile`] and validated into [`Run`].

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

/// Tick rate of the benchmark and of all supported models, Hz.
const TICK_HZ: u32 = 20;

/// Ticks at the start of a route during which the agent of the AutoMoT release only brakes.
const RELEASE_WARM_UP_TICKS: u32 = 31;

/// Contents of a run file; `configs/run.yaml` lists every key with its default.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunFile {
    /// Control ticks per second; only 20, the rate that the models were trained for, is accepted.
    pub tick_hz: u32,
    /// Deadline of the command, measured from the observation, milliseconds.
    pub act_budget_millis: f64,
    /// Ticks from one prefill to the next; 2 in the release. The second prefill of a route starts
    /// at the first multiple of the period after the first prefill.
    pub refresh_period_ticks: u32,
    /// Ticks at the start of a route that apply full brake and run no network, while the history of
    /// frames and the state filter are updated; 31 in the release. With 0 the first prefill starts
    /// as soon as the history is long enough.
    pub warm_up_ticks: u32,
    /// Time mode: `lockstep`, `virtual` or `wall`.
    pub clock: ClockName,
    /// Virtual time: latency from the start of a prefill until its prefix is visible. Earlier
    /// versions name this key `refresh_latency_millis`.
    #[serde(alias = "refresh_latency_millis")]
    pub slow_latency: LatencySpec,
    /// Virtual time: latency from a tick's observation until its command can be applied.
    pub fast_latency: LatencySpec,
    /// Virtual time: whether action steps overlap.
    pub fast_releases: FastReleases,
    /// Random seed of the world.
    pub seed: u64,
    /// Device of the networks: `cpu`, `cuda:N` or `emulated`.
    pub device: DeviceName,
    /// On a GPU: fraction of the multiprocessors, above 0 and below 1, reserved for the BEV encoder
    /// and the action expert; the vision tower and the understanding expert use the rest. Absent:
    /// both use all multiprocessors, and the fast networks have the higher stream priority.
    pub fast_share: Option<f64>,
    /// On a GPU: milliseconds without a prefill after which the vision tower runs on dummy input to
    /// keep the clocks up; a prefill may wait for one such run. Absent: never.
    pub keep_warm_millis: Option<f64>,
    /// Where both experts share all of a device: the understanding expert launches no frame and
    /// no layer group during this many milliseconds before a tick and during its action step.
    /// Absent: it launches at any time.
    pub tick_guard_millis: Option<f64>,
    pub threads: Threads,
    /// Requests to the operating system; none by default.
    pub real_time: RealTimeOptions,
    /// Model family and its options. Absent: the defaults of the engine folder's family. Files of
    /// earlier versions have AutoMoT's options at the top level; see [`RunFile::read`].
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

/// Device named by a run file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    Cpu,
    /// The host, emulating a GPU: one thread per stream and separate device memory. For tests, and
    /// for the structure of a GPU's timeline; the durations are those of a CPU.
    Emulated,
    /// CUDA device by ordinal.
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
            _ => Err(format!("unknown device {name:?}; expected cpu, cuda:N or emulated")),
        }
    }
}

/// Time mode of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockName {
    /// The simulation waits for every command, which is applied at its own
    /// tick, as in the benchmark.
    Lockstep,
    /// Results become visible after emulated latencies, independent of the machine.
    Virtual,
    /// The wall clock.
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

/// Time mode of a validated run, which determines when results become visible.
#[derive(Clone, PartialEq, Debug)]
pub enum Pace {
    /// At the tick that started them; the simulation waits.
    Lockstep,
    /// After their latencies in simulated time.
    Virtual(Latencies),
    /// As soon as they are computed; the loop runs in real time.
    Wall,
}

/// A validated run.
#[derive(Clone, PartialEq, Debug)]
pub struct Run {
    /// Period of the control loop.
    pub tick: Duration,
    /// Deadline of the command, measured from the observation.
    pub act_budget: Duration,
    /// Ticks from one prefill to the next.
    pub refresh_period_ticks: u64,
    /// Ticks at the start of a route that run no network.
    pub warm_up_ticks: u64,
    pub pace: Pace,
    /// Random seed of the world.
    pub seed: u64,
    /// Random seed of the experts on one drive; see [`Run::for_drive`].
    pub drive_seed: u64,
    pub device: DeviceName,
    /// Fraction of a GPU's multiprocessors reserved for the fast stream.
    pub fast_share: Option<f64>,
    /// Time without a prefill after which the device runs on dummy input.
    pub keep_warm: Option<Duration>,
    /// Time before a tick in which the slow expert launches nothing.
    pub tick_guard: Option<Duration>,
    pub threads: Threads,
    pub real_time: RealTimeOptions,
    /// Model family and options; `None` for the defaults of the loaded family.
    pub model: Option<ModelBlock>,
}

impl Run {
    /// Returns this run with the experts' seed for the drive along `route` in a world of `seed`.
    #[must_use]
    pub fn for_drive(self, seed: u64, route: &RouteId) -> Self {
        Self { drive_seed: SplitMix64::hash(seed, route.seed()), ..self }
    }
}

/// Error returned for an unusable run file.
#[derive(Debug, thiserror::Error)]
pub enum RunFileError {
    #[error("cannot read run file {path:?}: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("run file {path:?}: {reason}")]
    Parse {
        path: PathBuf,
        /// The parser's message with the position.
        reason: String,
    },
    #[error(
        "tick_hz is {found}; the models were trained for {TICK_HZ}, and the benchmark runs at {TICK_HZ}"
    )]
    TickRate { found: u32 },
    #[error("act_budget_millis of {budget} ms exceeds the {tick} ms tick")]
    Budget { budget: f64, tick: f64 },
    #[error("{key}: {source}")]
    Latency {
        key: &'static str,
        #[source]
        source: LatencyError,
    },
    #[error(
        "{key} is {found}, but clock {clock} emulates no latencies; set clock: virtual or remove {key}"
    )]
    LatencyNotVirtual { key: &'static str, found: String, clock: &'static str },
    #[error("{key} is {found}; it must be {expected}")]
    Range {
        key: &'static str,
        found: String,
        /// The valid range as text.
        expected: &'static str,
    },
}

impl RunFile {
    /// Reads a run file; absent keys take their defaults. `notes` receives a warning about keys of
    /// earlier versions. Fails if the file cannot be read, is not YAML or has an unknown key.
    pub fn read(path: &Path, notes: &mut dyn FnMut(&str)) -> Result<Self, RunFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RunFileError::Read { path: path.to_owned(), source })?;
        let refused = |reason| RunFileError::Parse { path: path.to_owned(), reason };
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
            "warning: run file {}: model options at the top level: {}; move them into a `model:` block \
             with `family: automot` (see configs/run.yaml)",
            path.display(),
            moved.join(", "),
        ));
        Ok(file)
    }

    /// Deserializes a run file embedded in a file of this or an earlier version; for
    /// `#[serde(deserialize_with = …)]`. Fails on an unknown key.
    pub fn of_any_version<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut keys = Map::deserialize(from)?;
        move_into_block(&mut keys);
        serde_json::from_value(Value::Object(keys)).map_err(D::Error::custom)
    }
}

impl TryFrom<&RunFile> for Run {
    type Error = RunFileError;

    /// Validates a run file without recordings; [`Run::new`] also accepts recordings.
    fn try_from(file: &RunFile) -> Result<Self, RunFileError> {
        Self::new(file, &mut |path| {
            Err(format!("{} can be replayed only in a drive", path.display()).into())
        })
    }
}

impl Run {
    /// Validates `file`; `open` reads the recordings that its latencies name. Fails if a value is
    /// out of range or a recording cannot be read.
    pub fn new(file: &RunFile, open: &mut OpenRecording<'_>) -> Result<Self, RunFileError> {
        if file.tick_hz != TICK_HZ {
            return Err(RunFileError::TickRate { found: file.tick_hz });
        }
        let tick_millis = 1000.0 / f64::from(file.tick_hz);
        if file.act_budget_millis > tick_millis {
            return Err(RunFileError::Budget { budget: file.act_budget_millis, tick: tick_millis });
        }
        let act_budget = positive("act_budget_millis", file.act_budget_millis)?;
        if file.refresh_period_ticks == 0 {
            let (key, found) = ("refresh_period_ticks", "0".to_owned());
            return Err(RunFileError::Range { key, found, expected: "1 or more" });
        }
        for (key, threads) in [
            ("threads.action", file.threads.action),
            ("threads.understanding", file.threads.understanding),
        ] {
            if threads == 0 {
                return Err(RunFileError::Range { key, found: "0".into(), expected: "1 or more" });
            }
        }
        check_real_time(&file.real_time)?;
        let guard = file.tick_guard_millis;
        if let Some(guard) = guard.filter(|guard| !(0.0..=tick_millis).contains(guard)) {
            let (key, found) = ("tick_guard_millis", guard.to_string());
            return Err(RunFileError::Range { key, found, expected: "between 0 and a tick, 50" });
        }
        let pace = pace(file, open)?;
        if let Some(share) = file.fast_share.filter(|&share| !(share > 0.0 && share < 1.0)) {
            let (key, found) = ("fast_share", share.to_string());
            return Err(RunFileError::Range { key, found, expected: "above 0 and below 1" });
        }
        let keep_warm = file.keep_warm_millis;
        if let Some(millis) = keep_warm.filter(|millis| !(0.1..=10_000.0).contains(millis)) {
            let (key, found) = ("keep_warm_millis", millis.to_string());
            return Err(RunFileError::Range { key, found, expected: "between 0.1 and 10000" });
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

/// Returns the time mode with its latencies.
fn pace(file: &RunFile, open: &mut OpenRecording<'_>) -> Result<Pace, RunFileError> {
    let (pace, clock) = match file.clock {
        ClockName::Lockstep => (Pace::Lockstep, "lockstep"),
        ClockName::Wall => (Pace::Wall, "wall"),
        ClockName::Virtual => {
            let mut source = |key, spec: &LatencySpec, expert| {
                LatencySource::new(spec, expert, open)
                    .map_err(|source| RunFileError::Latency { key, source })
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
            return Err(RunFileError::LatencyNotVirtual { key, found, clock });
        }
    }
    Ok(pace)
}

/// Refuses values that no machine supports. Limits of this machine are
/// reported when options are applied.
fn check_real_time(wanted: &RealTimeOptions) -> Result<(), RunFileError> {
    for (key, cores) in [
        ("real_time.pin_tick", &wanted.pin_tick),
        ("real_time.pin_understanding", &wanted.pin_understanding),
    ] {
        let Some(cores) = cores else { continue };
        let repeated = |(place, core): (usize, &usize)| cores[..place].contains(core);
        let too_high = cores.iter().any(|&core| core >= MAX_CORES);
        if cores.is_empty() || too_high || cores.iter().enumerate().any(repeated) {
            let expected = "null, or one or more different cores from 0 to 1023";
            return Err(RunFileError::Range { key, found: format!("{cores:?}"), expected });
        }
    }
    if let Some(priority) = wanted.fifo_priority
        && !(1..=MAX_FIFO_PRIORITY).contains(&priority)
    {
        let (key, found) = ("real_time.fifo_priority", priority.to_string());
        return Err(RunFileError::Range { key, found, expected: "null, or 1 to 99" });
    }
    if let Some(mib) = wanted.prefault_mib
        && !(1..=MAX_PREFAULT_MIB).contains(&mib)
    {
        let (key, found) = ("real_time.prefault_mib", mib.to_string());
        return Err(RunFileError::Range { key, found, expected: "null, or 1 to 65536" });
    }
    Ok(())
}

fn positive(key: &'static str, millis: f64) -> Result<Duration, RunFileError> {
    if millis > 0.0 && millis.is_finite() {
        return Ok(Duration::from_secs_f64(millis / 1000.0));
    }
    Err(RunFileError::Range { key, found: millis.to_string(), expected: "a positive number" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` and returns the run file with the warnings.
    fn read_file(text: &str) -> Result<(RunFile, Vec<String>), RunFileError> {
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
    fn check_error(text: &str, parts: &[&str]) {
        let error = read(text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part:?} is missing in: {error}");
        }
    }

    #[test]
    fn absent_keys_take_their_defaults() {
        let run = read("seed: 7\n").unwrap();
        assert_eq!((run.seed, run.refresh_period_ticks), (7, 2));
        assert_eq!(run.tick, Duration::from_millis(50));
    }

    #[test]
    fn model_block_keeps_options_of_unknown_family() {
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
        check_error("model: {noise: 0.5}\n", &["run.yaml", "family"]);
    }

    #[test]
    fn top_level_options_move_into_block_with_one_warning() {
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
        // Other keys are still checked, and top-level options next to a block are refused.
        check_error("positions: release\nsede: 7\n", &["run.yaml", "sede"]);
        check_error("positions: release\nmodel: {family: automot}\n", &["run.yaml", "positions"]);
    }

    #[test]
    fn unknown_choice_is_refused_with_key_and_choices() {
        check_error("clock: sundial\n", &["clock", "sundial", "lockstep", "virtual", "wall"]);
    }

    #[test]
    fn latencies_are_numbers_or_text() {
        let text =
            "clock: virtual\nrefresh_latency_millis: 100\nfast_latency: lognormal:p50=30,p99=70\n";
        let Pace::Virtual(latencies) = read(text).unwrap().pace else { panic!("not virtual") };
        assert_eq!(latencies.slow, LatencySource::Fixed(Duration::from_millis(100)));
        assert!(matches!(latencies.fast, LatencySource::LogNormal { median_ns: 3e7, .. }));
        check_error("clock: virtual\nfast_latency: brisk\n", &["brisk", "lognormal:p50=A,p99=B"]);
        check_error("clock: virtual\nfast_releases: often\n", &["often", "overlap", "busy"]);
        check_error("clock: virtual\nslow_latency: file:x.json\n", &["slow_latency", "x.json"]);
    }

    #[test]
    fn latency_outside_virtual_time_is_refused() {
        check_error("slow_latency: 100\n", &["slow_latency is 100", "lockstep", "clock: virtual"]);
        check_error("clock: wall\nfast_latency: 5\n", &["fast_latency is 5", "clock wall"]);
    }

    #[test]
    fn unknown_key_is_refused_by_name() {
        check_error("refresh_perod_ticks: 2\n", &["run.yaml", "refresh_perod_ticks"]);
    }

    #[test]
    fn budget_longer_than_tick_is_refused() {
        check_error("act_budget_millis: 60\n", &["60 ms", "50 ms tick"]);
    }

    #[test]
    fn out_of_range_numbers_are_refused() {
        check_error("refresh_period_ticks: 0\n", &["refresh_period_ticks", "1 or more"]);
        check_error("clock: virtual\nslow_latency: -1\n", &["slow_latency", "-1", "60000 ms"]);
        check_error("act_budget_millis: .nan\n", &["act_budget_millis"]);
        check_error("tick_hz: 10\n", &["tick_hz", "20"]);
        check_error("threads: {action: 0, understanding: 1}\n", &["threads.action"]);
    }

    #[test]
    fn impossible_real_time_options_are_refused() {
        let cores = "one or more different cores from 0 to 1023";
        check_error("real_time: {pin_tick: []}\n", &["real_time.pin_tick is []", cores]);
        check_error("real_time: {pin_tick: [1024]}\n", &["real_time.pin_tick is [1024]", cores]);
        check_error(
            "real_time: {pin_understanding: [1, 1]}\n",
            &["pin_understanding is [1, 1]", cores],
        );
        check_error(
            "real_time: {fifo_priority: 0}\n",
            &["real_time.fifo_priority is 0", "1 to 99"],
        );
        check_error("real_time: {fifo_priority: 100}\n", &["real_time.fifo_priority is 100"]);
        check_error(
            "real_time: {prefault_mib: 0}\n",
            &["real_time.prefault_mib is 0", "1 to 65536"],
        );
        check_error("real_time: {prefault_mib: 65537}\n", &["real_time.prefault_mib is 65537"]);
        check_error("real_time: {lock_memory: much}\n", &["run.yaml", "lock_memory", "much"]);
        check_error("real_time: {fifo_priority: -1}\n", &["run.yaml", "fifo_priority"]);
        check_error("real_time: {pin_tick: 0}\n", &["run.yaml", "pin_tick"]);
        check_error("real_time: {pin: [0]}\n", &["run.yaml", "pin", "pin_tick", "prefault_mib"]);
    }

    #[test]
    fn real_time_options_are_kept() {
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
