//! Benchmarks of ticks and prefills on a device, alone and concurrently, in every arrangement of
//! CUDA graphs and streams; and a comparison of a device's bf16 with its f32.
//!
//! Device times are measured by the experts with events on their streams. If a part fails, its
//! error is reported and the other parts continue.

mod certificate;
mod device;
mod drive;
mod experts;
mod lower_bounds;
mod parts;
mod series;
mod table;

pub(crate) use certificate::run as certify;

use self::device::{Arrangement, DeviceName, Library, Loaded, Opened};
use self::experts::Experts;
use self::parts::Bounds;
use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tandem::device::Sharing;
use tandem::engine::Engine;
use tandem::model::automot::networks::Contracts;
use tandem::timing::{Stopwatch, wall_time_unix_s};
use tandem_profile::MachineCard;

/// Version of the result's format.
const FORMAT: u32 = 1;

/// Share of the time for the first arrangement; the others divide the rest.
const MAIN_PART: f64 = 0.55;

/// Ticks between two frames of a prompt: AutoMoT's default.
const FRAME_SPACING_TICKS: u64 = 5;

/// Minimum number of runs of a part that gets a tenth of the runs.
const MIN_RUNS: usize = 20;

/// Share of an arrangement's time for ticks alone.
const TICKS_PART: f64 = 0.15;

/// Share of an arrangement's time for each of the two kinds of prefills alone.
const PREFILLS_PART: f64 = 0.1;

/// Share of an arrangement's time for ticks and prefills concurrently. The rest is for loading.
const BOTH_PART: f64 = 0.45;

#[derive(Parser)]
#[command(name = "gpu", no_binary_name = true)]
struct Arguments {
    /// Device: host, emulated or cuda:N
    #[arg(long, value_name = "DEVICE")]
    device: DeviceName,
    /// Engine folder of the networks
    #[arg(long, value_name = "DIR")]
    engine: PathBuf,
    /// Library that runs the networks on a GPU
    #[arg(long, value_enum, default_value_t = Library::Onnxruntime)]
    library: Library,
    /// Ticks during prefills in the first arrangement; a tenth of it alone and in the others
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    ticks: u32,
    /// Prefills alone, of each of the two kinds
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    refreshes: u32,
    /// Time limit, minutes; no run starts after it
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Arrangement to measure, may be repeated; the first gets most of the time [default: all four]
    #[arg(long = "arrangement", value_enum, value_name = "NAME")]
    arrangements: Vec<Name>,
    /// Share of the multiprocessors for the fast stream if the device is split
    #[arg(long, default_value_t = 0.25)]
    share: f64,
    /// Maximum number of raw samples per series in the result
    #[arg(long, default_value_t = 2000)]
    raw: usize,
    /// Device of the roofline table to report lower bounds of [default: the GPU]
    #[arg(long = "ceilings", value_name = "NAME")]
    peak_rates: Option<String>,
    /// Result file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Measures, writes the result, and prints a table to standard error. Fails if the device or the
/// engine folder does not exist, or the result cannot be written. Parts that fail only change the
/// exit code.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let Arguments { minutes, share, .. } = arguments;
    ensure!(minutes.is_finite() && minutes > 0.0, "--minutes {minutes}: must be above 0");
    ensure!(share > 0.0 && share < 1.0, "--share {share}: must be between 0 and 1");
    let opened = Opened::open(arguments.device)?;
    Contracts::read(&arguments.engine)?;
    let begun = Begun { watch: Stopwatch::start(), at_unix_s: wall_time_unix_s() };
    let names = match &arguments.arrangements[..] {
        [] => Name::value_variants(),
        some => some,
    };
    let arrangements = names.iter().map(|name| name.arrangement(share));
    let mut measured = Measured {
        bounds: lower_bounds::of_device(
            &arguments.engine,
            arguments.peak_rates.as_deref(),
            opened.gpu(),
        ),
        libraries: Vec::new(),
        arrangements: Vec::new(),
    };
    let mut result = Value::Null;
    for (place, arrangement) in arrangements.enumerate() {
        eprintln!("{}", named(arrangement));
        let turn = Turn { is_main: place == 0, others: names.len() - 1 };
        let arranged =
            measure(&opened, &arguments, arrangement, turn, &begun, &mut measured.libraries);
        measured.arrangements.push(arranged);
        // Written after every arrangement, so that an aborted run leaves a result.
        result = measured.to_json(&opened, &arguments, &begun);
        write(&arguments.out, &result)?;
    }
    eprintln!("{}", table::of(&result, measured.bounds.as_ref().ok()));
    eprintln!("written to {}", arguments.out.display());
    Ok(if measured.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Values of `--arrangement`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Name {
    /// Captured graphs, streams split
    GraphsSplit,
    /// Captured graphs, streams by priority
    GraphsPriorities,
    /// No graphs, streams split
    PlainSplit,
    /// No graphs, streams by priority
    PlainPriorities,
}

impl Name {
    fn arrangement(self, share: f64) -> Arrangement {
        let graphs = matches!(self, Self::GraphsSplit | Self::GraphsPriorities);
        let is_split = matches!(self, Self::GraphsSplit | Self::PlainSplit);
        Arrangement { graphs, share: is_split.then_some(share) }
    }
}

/// Position of an arrangement: the main one gets most of the time.
#[derive(Clone, Copy)]
struct Turn {
    is_main: bool,
    others: usize,
}

impl Turn {
    /// Returns the arrangement's share of the time.
    fn part(self) -> f64 {
        match (self.is_main, self.others) {
            (true, 0) => 1.0,
            (true, _) => MAIN_PART,
            (false, others) => (1.0 - MAIN_PART) / others as f64,
        }
    }
}

/// Start time of the measurement.
struct Begun {
    watch: Stopwatch,
    at_unix_s: u64,
}

/// Result of all arrangements.
struct Measured {
    bounds: anyhow::Result<lower_bounds::DeviceBounds>,
    libraries: Vec<String>,
    arrangements: Vec<Value>,
}

impl Measured {
    fn failed(&self) -> usize {
        self.arrangements.iter().map(failures).sum()
    }

    fn to_json(&self, opened: &Opened, arguments: &Arguments, begun: &Begun) -> Value {
        let gpus = opened.gpu().map(str::to_owned).into_iter().collect();
        json!({
            "bench": "gpu",
            "format": FORMAT,
            "unit": "ns",
            "percentiles": "nearest rank over all samples",
            "device": opened.device().name(),
            "engine": engine_facts(&arguments.engine),
            "began_at_unix_s": begun.at_unix_s,
            "took_s": begun.watch.elapsed().as_secs_f64(),
            "limits": {
                "minutes": arguments.minutes,
                "ticks": arguments.ticks,
                "refreshes": arguments.refreshes,
            },
            "machine_card": MachineCard::read(gpus, self.libraries.clone()),
            "floors": match &self.bounds {
                Ok(bounds) => json!({
                    "ceilings": bounds.peak_rates,
                    "all_frames_new": bounds.all_new,
                    "one_frame_new": bounds.one_new,
                }),
                Err(error) => json!({ "unknown": format!("{error:#}") }),
            },
            "failed": self.failed(),
            "arrangements": self.arrangements,
        })
    }
}

/// Measures all parts in one arrangement.
fn measure(
    opened: &Opened,
    arguments: &Arguments,
    arrangement: Arrangement,
    turn: Turn,
    begun: &Begun,
    libraries: &mut Vec<String>,
) -> Value {
    let all = Duration::from_secs_f64(arguments.minutes * 60.0);
    let (part, is_main) = (turn.part(), turn.is_main);
    let bounds = |runs: usize, of_arrangement: f64| Bounds {
        runs: if is_main { runs } else { a_tenth(runs) },
        time: all.mul_f64(part * of_arrangement).min(all.saturating_sub(begun.watch.elapsed())),
        raw: arguments.raw,
    };
    let mut result = json!({
        "graphs": arrangement.graphs,
        "share": arrangement.share,
        "sharing": null,
        "could_not_be_had": [],
        "parts": {},
    });
    if begun.watch.elapsed() >= all {
        result["failed"] = json!(format!("the {} minutes had elapsed", arguments.minutes));
        return result;
    }
    let watch = Stopwatch::start();
    let set_up = opened
        .load(&arguments.engine, arguments.library, arrangement)
        .and_then(|loaded| Ok((Experts::new(&loaded, &arguments.engine, arrangement)?, loaded)));
    let (mut experts, loaded) = match set_up {
        Ok(experts) => experts,
        Err(error) => {
            result["failed"] = json!(format!("{error:#}"));
            return result;
        }
    };
    result["set_up_s"] = json!(watch.elapsed().as_secs_f64());
    result["memory"] = json!(opened.device().memory().ok().flatten().map(|memory| json!({
        "free_bytes": memory.free,
        "total_bytes": memory.total,
    })));
    result["sharing"] = json!(loaded.networks.streams.sharing.to_string());
    result["could_not_be_had"] = json!(missing(arrangement, &loaded));
    for library in loaded.libraries {
        if !libraries.contains(&library) {
            libraries.push(library);
        }
    }
    let frames = experts.slow.frames_per_prompt;
    let (ticks, prefills) = (arguments.ticks as usize, arguments.refreshes as usize);
    let mut part = |name: &str, work: &mut dyn FnMut(&mut Experts) -> anyhow::Result<Value>| {
        result["parts"][name] =
            work(&mut experts).unwrap_or_else(|error| json!({ "failed": format!("{error:#}") }));
    };
    part("ticks alone", &mut |experts| {
        parts::ticks_alone(experts, bounds(a_tenth(ticks), TICKS_PART))
    });
    part("refreshes alone, all frames new", &mut |experts| {
        parts::prefills_alone(experts, frames, bounds(prefills, PREFILLS_PART))
    });
    part("refreshes alone, one frame new", &mut |experts| {
        parts::prefills_alone(experts, 1, bounds(prefills, PREFILLS_PART))
    });
    part("both", &mut |experts| parts::both(experts, bounds(ticks, BOTH_PART)));
    result
}

fn a_tenth(runs: usize) -> usize {
    (runs / 10).max(MIN_RUNS.min(runs))
}

/// Returns the properties of the arrangement that are not available, with the reasons.
fn missing(arrangement: Arrangement, loaded: &Loaded) -> Vec<String> {
    let networks = &loaded.networks;
    let mut missing = Vec::new();
    let is_split = matches!(networks.streams.sharing, Sharing::Partitions { .. });
    if let Some(share) = arrangement.share.filter(|_| !is_split) {
        let actual = &networks.streams.sharing;
        missing.push(format!("a share of {share} for the fast stream: the device has {actual}"));
    }
    if arrangement.graphs {
        let refuses = |engine: &&Arc<dyn Engine>| {
            Arc::clone(engine).session().runs_before_capture().is_none()
        };
        let names = networks.engines().filter(refuses);
        let names: Vec<_> = names.map(|engine| engine.contract().network.clone()).collect();
        if !names.is_empty() {
            missing.push(format!("graphs: the library cannot capture {}", names.join(", ")));
        }
    }
    missing
}

fn named(arrangement: Arrangement) -> String {
    let graphs = if arrangement.graphs { "graphs" } else { "no graphs" };
    match arrangement.share {
        Some(share) => format!("{graphs}, {share} for the fast stream"),
        None => format!("{graphs}, priorities"),
    }
}

/// Returns the number of failed parts; 1 if the arrangement could not be set up.
fn failures(arrangement: &Value) -> usize {
    let parts = arrangement["parts"].as_object().into_iter().flat_map(|parts| parts.values());
    parts.chain([arrangement]).filter(|part| part.get("failed").is_some()).count()
}

/// Returns the folder's name and the options of its export.
fn engine_facts(engine: &Path) -> Value {
    let read = |path: PathBuf| -> Option<Value> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    };
    let summary = read(engine.join(tandem_export::folder::SUMMARY_FILE));
    json!({
        "folder": engine.file_name().map(|name| name.to_string_lossy()),
        "options": summary.as_ref().and_then(|summary| summary.get("options")),
    })
}

/// Writes a result atomically.
fn write(path: &Path, result: &Value) -> anyhow::Result<()> {
    tandem_files::write(path, format!("{result}\n").as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}
