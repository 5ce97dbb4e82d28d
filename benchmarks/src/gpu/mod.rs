//! Ticks and refreshes on a device, alone and at once, in every arrangement of graphs and lanes; and
//! whether a device's bf16 is near enough to its f32.
//!
//! Device times are the ones that the experts note of themselves, by events on their streams. A part
//! that fails is told as failed with its error, and the others go on.

mod certificate;
mod drive;
mod experts;
mod floors;
mod parts;
mod place;
mod series;
mod table;

pub(crate) use certificate::run as certify;

use self::experts::Experts;
use self::parts::Bounds;
use self::place::{Arrangement, Library, Loaded, Opened, Place};
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

/// Version of the result's form.
const FORMAT: u32 = 1;

/// Part of the time that the first arrangement gets; the others share the rest.
const MAIN_PART: f64 = 0.55;

/// Ticks between two frames of a prompt: the default of AutoMoT's options.
const FRAME_SPACING_TICKS: u64 = 5;

/// Runs of a part that are not divided any further where an arrangement or a part gets a tenth.
const FEWEST: usize = 20;

/// Part of an arrangement's time for ticks alone.
const TICKS_PART: f64 = 0.15;

/// Part of an arrangement's time for refreshes alone, of either kind.
const REFRESHES_PART: f64 = 0.1;

/// Part of an arrangement's time for both at once. What is left is for loading.
const BOTH_PART: f64 = 0.45;

#[derive(Parser)]
#[command(name = "gpu", no_binary_name = true)]
struct Arguments {
    /// Where to run: host, emulated or cuda:N
    #[arg(long, value_name = "DEVICE")]
    device: Place,
    /// Engine folder
    #[arg(long, value_name = "DIR")]
    engine: PathBuf,
    /// Who runs the networks on a GPU
    #[arg(long, value_enum, default_value_t = Library::Onnxruntime)]
    library: Library,
    /// Ticks while refreshes run, in the first arrangement; a tenth of it alone and in the others
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    ticks: u32,
    /// Refreshes alone, of either kind
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    refreshes: u32,
    /// Begin no run of any part after this long
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Arrangement to measure, may be given several times; the first gets most of the time [default: all four]
    #[arg(long = "arrangement", value_enum, value_name = "NAME")]
    arrangements: Vec<Name>,
    /// Part of the multiprocessors that the fast lane gets where the device is split
    #[arg(long, default_value_t = 0.25)]
    share: f64,
    /// Raw samples that are told of every series
    #[arg(long, default_value_t = 2000)]
    raw: usize,
    /// Device of the roofline's table whose floors stand beside the times [default: the GPU's]
    #[arg(long, value_name = "NAME")]
    ceilings: Option<String>,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Measures, writes the result, and prints a table to the error stream.
///
/// # Errors
/// If the device or the engine folder is not there, or the result cannot be written. Parts that fail only change the exit
/// code.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let Arguments { minutes, share, .. } = arguments;
    ensure!(minutes.is_finite() && minutes > 0.0, "--minutes {minutes}: give more than 0");
    ensure!(share > 0.0 && share < 1.0, "--share {share}: give a part between 0 and 1");
    let opened = Opened::open(arguments.device)?;
    Contracts::read(&arguments.engine)?;
    let begun = Begun { watch: Stopwatch::start(), at_unix_s: wall_time_unix_s() };
    let names = match &arguments.arrangements[..] {
        [] => Name::value_variants(),
        some => some,
    };
    let arrangements = names.iter().map(|name| name.arrangement(share));
    let mut measured = Measured {
        floors: floors::known(&arguments.engine, arguments.ceilings.as_deref(), opened.gpu()),
        libraries: Vec::new(),
        arrangements: Vec::new(),
    };
    let mut result = Value::Null;
    for (place, arrangement) in arrangements.enumerate() {
        eprintln!("{}", named(arrangement));
        let turn = Turn { is_main: place == 0, others: names.len() - 1 };
        let told =
            arranged(&opened, &arguments, arrangement, turn, &begun, &mut measured.libraries);
        measured.arrangements.push(told);
        // Written each time: what was measured stays if this program is ended.
        result = measured.told(&opened, &arguments, &begun);
        write(&arguments.out, &result)?;
    }
    eprintln!("{}", table::of(&result, measured.floors.as_ref().ok()));
    eprintln!("written to {}", arguments.out.display());
    Ok(if measured.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An arrangement of graphs and lanes, as the command line names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Name {
    /// Captured graphs, lanes split
    GraphsSplit,
    /// Captured graphs, lanes by priority
    GraphsPriorities,
    /// No graphs, lanes split
    PlainSplit,
    /// No graphs, lanes by priority
    PlainPriorities,
}

impl Name {
    fn arrangement(self, share: f64) -> Arrangement {
        let graphs = matches!(self, Self::GraphsSplit | Self::GraphsPriorities);
        let is_split = matches!(self, Self::GraphsSplit | Self::PlainSplit);
        Arrangement { graphs, share: is_split.then_some(share) }
    }
}

/// Whether an arrangement is the one that gets most of the time, and how many others there are.
#[derive(Clone, Copy)]
struct Turn {
    is_main: bool,
    others: usize,
}

impl Turn {
    /// Its part of the time.
    fn part(self) -> f64 {
        match (self.is_main, self.others) {
            (true, 0) => 1.0,
            (true, _) => MAIN_PART,
            (false, others) => (1.0 - MAIN_PART) / others as f64,
        }
    }
}

/// When the measurement began.
struct Begun {
    watch: Stopwatch,
    at_unix_s: u64,
}

/// What there is to tell.
struct Measured {
    floors: anyhow::Result<floors::Known>,
    /// Libraries that ran the networks.
    libraries: Vec<String>,
    arrangements: Vec<Value>,
}

impl Measured {
    fn failed(&self) -> usize {
        self.arrangements.iter().map(failures).sum()
    }

    fn told(&self, opened: &Opened, arguments: &Arguments, begun: &Begun) -> Value {
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
            "floors": match &self.floors {
                Ok(known) => json!({
                    "ceilings": known.ceilings,
                    "all_frames_new": known.all_new,
                    "one_frame_new": known.one_new,
                }),
                Err(error) => json!({ "unknown": format!("{error:#}") }),
            },
            "failed": self.failed(),
            "arrangements": self.arrangements,
        })
    }
}

/// All parts in one arrangement.
fn arranged(
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
    let mut told = json!({
        "graphs": arrangement.graphs,
        "share": arrangement.share,
        "sharing": null,
        "could_not_be_had": [],
        "parts": {},
    });
    if begun.watch.elapsed() >= all {
        told["failed"] = json!(format!("the {} minutes were over", arguments.minutes));
        return told;
    }
    let watch = Stopwatch::start();
    let set_up = opened
        .load(&arguments.engine, arguments.library, arrangement)
        .and_then(|loaded| Ok((Experts::new(&loaded, &arguments.engine, arrangement)?, loaded)));
    let (mut experts, loaded) = match set_up {
        Ok(experts) => experts,
        Err(error) => {
            told["failed"] = json!(format!("{error:#}"));
            return told;
        }
    };
    told["set_up_s"] = json!(watch.elapsed().as_secs_f64());
    told["memory"] = json!(opened.device().memory().ok().flatten().map(|memory| json!({
        "free_bytes": memory.free,
        "total_bytes": memory.total,
    })));
    told["sharing"] = json!(loaded.networks.lanes.sharing.to_string());
    told["could_not_be_had"] = json!(missing(arrangement, &loaded));
    for library in loaded.libraries {
        if !libraries.contains(&library) {
            libraries.push(library);
        }
    }
    let frames = experts.slow.frames_per_prompt;
    let (ticks, refreshes) = (arguments.ticks as usize, arguments.refreshes as usize);
    let mut part = |name: &str, work: &mut dyn FnMut(&mut Experts) -> anyhow::Result<Value>| {
        told["parts"][name] =
            work(&mut experts).unwrap_or_else(|error| json!({ "failed": format!("{error:#}") }));
    };
    part("ticks alone", &mut |experts| {
        parts::ticks_alone(experts, bounds(a_tenth(ticks), TICKS_PART))
    });
    part("refreshes alone, all frames new", &mut |experts| {
        parts::refreshes_alone(experts, frames, bounds(refreshes, REFRESHES_PART))
    });
    part("refreshes alone, one frame new", &mut |experts| {
        parts::refreshes_alone(experts, 1, bounds(refreshes, REFRESHES_PART))
    });
    part("both", &mut |experts| parts::both(experts, bounds(ticks, BOTH_PART)));
    told
}

fn a_tenth(runs: usize) -> usize {
    (runs / 10).max(FEWEST.min(runs))
}

/// What was asked for and is not so, with its reason.
fn missing(arrangement: Arrangement, loaded: &Loaded) -> Vec<String> {
    let networks = &loaded.networks;
    let mut missing = Vec::new();
    let is_split = matches!(networks.lanes.sharing, Sharing::Partitions { .. });
    if let Some(share) = arrangement.share.filter(|_| !is_split) {
        let had = &networks.lanes.sharing;
        missing.push(format!("a share of {share} for the fast lane: there are {had}"));
    }
    if arrangement.graphs {
        let refuses = |engine: &&Arc<dyn Engine>| {
            Arc::clone(engine).session().runs_before_capture().is_none()
        };
        let names = networks.engines().filter(refuses);
        let names: Vec<_> = names.map(|engine| engine.contract().network.clone()).collect();
        if !names.is_empty() {
            missing
                .push(format!("graphs: the library does not let {} be captured", names.join(", ")));
        }
    }
    missing
}

fn named(arrangement: Arrangement) -> String {
    let graphs = if arrangement.graphs { "graphs" } else { "no graphs" };
    match arrangement.share {
        Some(share) => format!("{graphs}, {share} for the fast lane"),
        None => format!("{graphs}, priorities"),
    }
}

/// Parts of an arrangement that failed; all of them are one if it could not be set up.
fn failures(arrangement: &Value) -> usize {
    let parts = arrangement["parts"].as_object().into_iter().flat_map(|parts| parts.values());
    parts.chain([arrangement]).filter(|part| part.get("failed").is_some()).count()
}

/// What the folder's export says of itself.
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

/// Writes a result that appears complete or not at all.
fn write(path: &Path, result: &Value) -> anyhow::Result<()> {
    tandem_files::write(path, format!("{result}\n").as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}
