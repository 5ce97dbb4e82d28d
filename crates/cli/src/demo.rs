//! `tandem demo`: the whole chain on the embedded default, in one command.
//!
//! Generates a tiny checkpoint, exports it, drives a route with it and with the autopilot, and writes
//! results and one page to look at.

use super::drive::{self, Drive, Variant};
use super::driver::{DriverFactory, DriverName};
use super::maps::TownMaps;
use super::report::{self, Part};
use super::{Outcome, checkpoint, export, print};
use anyhow::{Context, bail};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem::pilot::{ClockName, LatencySpec, RealTimeOptions, RealTimeReport, RunFile};
use tandem::timing::Stopwatch;
use tandem_evaluation::campaign::Shard;
use tandem_evaluation::routes::parse_routes;
use tandem_export::automot::synth::SynthSpec;
use tandem_export::options::Options;

/// Sizes of the demo's checkpoint.
const CHECKPOINT: &str = include_str!("../../../configs/tiny.json");

/// The demo's route.
const ROUTE_FILE: &str = include_str!("../../../routes/demo.xml");

/// Marks a folder that the demo may clear.
const MARKER: &str = "demo.json";

/// Time that a refresh takes in the demo's virtual time: two ticks, so that both rates are seen.
const REFRESH_LATENCY_MILLIS: f64 = 100.0;

const NOTE: &str = "The tiny checkpoint has random weights: it cannot drive, and its numbers show \
                    the chain, not skill. Scores of the embedded world are not CARLA scores.";

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Folder for checkpoint, engine, results and report; an earlier demo there is replaced
    #[arg(long, default_value = "results/demo", value_name = "DIR")]
    out: PathBuf,
    /// Seed of the weights and of the world
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ticks that the tiny checkpoint drives; it would only stand in the way until its time is up
    #[arg(long, default_value_t = 400, value_name = "TICKS")]
    ticks: u64,
    /// Print JSON; what people read goes to standard error
    #[arg(long)]
    json: bool,
    /// Run file (YAML) for the model's drive [default: virtual clock, a refresh takes 100 ms]
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let out = &arguments.out;
    let _lock = take(out)?;
    let mut steps = Steps::default();
    let say = |text: &str| if arguments.json { print::note(text) } else { print::line(text) };

    say("1/4 generating a tiny checkpoint with random weights");
    let spec: SynthSpec = serde_json::from_str(CHECKPOINT).context("configs/tiny.json")?;
    let checkpoint_folder = out.join("checkpoint");
    checkpoint::synth(&spec, arguments.seed, &checkpoint_folder)?;
    steps.done("checkpoint");

    say("2/4 exporting it: four ONNX networks");
    let engine = out.join("engine");
    let checkpoint = export::open(&checkpoint_folder, export::Values::Skip)?;
    let summary = export::export(&*checkpoint, Options::default(), &engine)?;
    say(&export::describe(&summary, &engine));
    steps.done("export");

    let file = run_file(arguments)?;
    // What the model's ticks take and are given is not for a driver that hardly computes.
    let plain = RunFile {
        clock: ClockName::Lockstep,
        slow_latency: LatencySpec::ZERO,
        fast_latency: LatencySpec::ZERO,
        real_time: RealTimeOptions::default(),
        ..file.clone()
    };
    let variants = |driver: DriverName, file: &RunFile| -> anyhow::Result<[Variant; 1]> {
        Ok([Variant::new(driver.as_str(), file.clone())?])
    };
    let with_model = variants(DriverName::Automot, &file)?;
    let with_autopilot = variants(DriverName::Autopilot, &plain)?;
    let [Variant { timed, .. }] = &with_model;
    let run = &timed.run;
    let real_time = run.real_time.apply_process();
    let factory = DriverFactory::new(DriverName::Automot, Some(&engine), run)?;
    steps.done("libraries, loading");

    let cancel = drive::cancel_on_interrupt()?;
    let routes = parse_routes(ROUTE_FILE, "routes/demo.xml")?;
    let folder = |driver: DriverName| out.join(driver.as_str());
    let maps = TownMaps::default();
    let drive = Drive {
        folder: &folder(DriverName::Automot),
        routes: &routes,
        repetitions: 1,
        shard: Shard::WHOLE,
        route_file: ROUTE_FILE.as_bytes(),
        driver: DriverName::Automot,
        variants: &with_model,
        engine: Some(&engine),
        maps: &maps,
        motion: None,
        tick_cap: arguments.ticks,
    };
    say(&format!("3/4 driving {} ticks with it, two experts at two rates", arguments.ticks));
    let model = drive.all(&factory, &real_time, &cancel)?;
    steps.done("driving, model");
    if model.is_cancelled {
        return Ok(interrupted());
    }
    say("4/4 driving the same route with the autopilot, which sees the truth");
    let autopilot = Drive {
        folder: &folder(DriverName::Autopilot),
        driver: DriverName::Autopilot,
        variants: &with_autopilot,
        engine: None,
        motion: None,
        tick_cap: tandem_evaluation::scoring::TICK_CAP,
        ..drive
    }
    .all(&DriverFactory::Autopilot, &RealTimeReport::default(), &cancel)?;
    steps.done("driving, autopilot");
    if autopilot.is_cancelled {
        return Ok(interrupted());
    }

    let page = out.join("report.html");
    let command = format!("tandem demo --seed {} --ticks {}", arguments.seed, arguments.ticks);
    let parts = [
        Part {
            driver: "AutoMoT, tiny, random weights",
            folder: &folder(DriverName::Automot),
            drives_total: model.drives_total,
            tick_budget: Some(run.act_budget),
            set: None,
            only: &[],
        },
        Part {
            driver: "autopilot",
            folder: &folder(DriverName::Autopilot),
            drives_total: autopilot.drives_total,
            tick_budget: None,
            set: None,
            only: &[],
        },
    ];
    let facts = report::facts(command, &file, &timed.emulated, factory.backend());
    report::write(&page, "tandem demo", NOTE, &facts, &parts)?;
    steps.done("report");

    say("");
    say(&format!("AutoMoT, tiny, random weights\n{}", model.scores()));
    say("");
    say(&format!("autopilot\n{}", autopilot.scores()));
    say("");
    say(&drive::latency_table(&model.statistics));
    say(&drive::prefix_age_line(&model.statistics));
    if let Some(table) = model.safety_table() {
        say("");
        say(&table);
    }
    say("");
    say(&steps.to_string());
    say("");
    say(NOTE);
    say(&format!("look at {}", page.display()));
    if arguments.json {
        let results = serde_json::json!({
            "note": NOTE,
            "automot": model.to_json(),
            "autopilot": autopilot.to_json(),
        });
        print::line(&serde_json::to_string_pretty(&results)?);
    }
    Ok(drive::check_safety(&model.safety()))
}

fn interrupted() -> Outcome {
    print::note("interrupted: the demo begins anew next time");
    Outcome::CheckFailed
}

fn run_file(arguments: &Arguments) -> anyhow::Result<RunFile> {
    Ok(match &arguments.run {
        Some(path) => RunFile::read(path)?,
        None => RunFile {
            clock: ClockName::Virtual,
            slow_latency: LatencySpec::Fixed(REFRESH_LATENCY_MILLIS),
            seed: arguments.seed,
            ..RunFile::default()
        },
    })
}

/// Locks the demo's folder until the result is dropped, and empties it; refuses a folder that no
/// demo made. The marker stays in it from the first moment on, so that a demo that was killed at any
/// time is replaced by the next.
fn take(out: &Path) -> anyhow::Result<File> {
    let marker = out.join(MARKER);
    let is_demo = || marker.symlink_metadata().is_ok_and(|found| found.is_file());
    if !is_demo() && out.exists() {
        let holds_files = holds_files(out);
        // Another demo may have started meanwhile: the marker is its first file.
        if !is_demo() && holds_files? {
            bail!(
                "{} holds something else than a demo; give another folder with --out",
                out.display()
            );
        }
    }
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let writing = || format!("cannot write {}", marker.display());
    let options = || File::options().write(true).create(true).truncate(false).open(&marker);
    let mut lock = options().with_context(writing)?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        bail!(
            "another demo is running in {}: wait for it, or give another folder with --out",
            out.display()
        );
    }
    lock.write_all(b"{\"made_by\": \"tandem demo\"}\n").with_context(writing)?;
    clear(out).with_context(|| format!("cannot clear {}", out.display()))?;
    Ok(lock)
}

/// True if there is anything but folders in `folder`, at any depth.
fn holds_files(folder: &Path) -> anyhow::Result<bool> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if !entry.file_type()?.is_dir() || holds_files(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes everything but the marker.
fn clear(out: &Path) -> io::Result<()> {
    for entry in fs::read_dir(out)? {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Wall time of each step.
struct Steps {
    watch: Stopwatch,
    steps: Vec<(&'static str, Duration)>,
}

impl Default for Steps {
    fn default() -> Self {
        Self { watch: Stopwatch::start(), steps: Vec::new() }
    }
}

impl Steps {
    fn done(&mut self, name: &'static str) {
        self.steps.push((name, self.watch.elapsed()));
        self.watch = Stopwatch::start();
    }
}

impl std::fmt::Display for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total: Duration = self.steps.iter().map(|(_, took)| *took).sum();
        write!(f, "wall time {:.1} s:", total.as_secs_f64())?;
        for (place, (name, took)) in self.steps.iter().enumerate() {
            let comma = if place == 0 { "" } else { ";" };
            write!(f, "{comma} {name} {:.1} s", took.as_secs_f64())?;
        }
        Ok(())
    }
}
