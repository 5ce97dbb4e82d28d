//! `tandem demo`: the complete chain in one command, in the embedded world.
//!
//! Generates a tiny checkpoint, exports it, drives a route with it and with the autopilot, and
//! writes results and one report.

use super::drive::{self, Drive, Tally, Variant, sensor_icons};
use super::driver::{DriverFactory, DriverName};
use super::maps::TownMaps;
use super::results::{Results, check_safety, latency_table, prefix_age_line};
use super::{Outcome, checkpoint, export, print, report};
use anyhow::{Context, bail};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tandem::pilot::{ClockName, LatencySpec, RealTimeOptions, RealTimeReport, RunFile};
use tandem::scene::Route;
use tandem::timing::Stopwatch;
use tandem_evaluation::campaign::{CampaignPlan, Shard, drive_in_process};
use tandem_evaluation::routes::parse_routes;
use tandem_evaluation::scoring::TICK_CAP;
use tandem_export::options::Options;
use tandem_export::spec::SpecFile;

/// Sizes of the generated checkpoint.
const CHECKPOINT: &str = include_str!("../../../configs/tiny.json");

/// Model family of the checkpoint.
const MODEL: &str = "automot";

/// Route file; both drivers drive its route.
const ROUTE_FILE: &str = include_str!("../../../routes/demo.xml");

/// File that marks a folder as one that the demo may clear.
const MARKER: &str = "demo.json";

/// Latency of a prefill in virtual time: two ticks, so that the two rates differ.
const PREFILL_LATENCY_MILLIS: f64 = 100.0;

const NOTE: &str = "The tiny checkpoint has random weights: it cannot drive, and its numbers test \
                    the chain only. Scores of the embedded world are not CARLA scores.";

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tandem demo\n  tandem demo --seed 2 --ticks 200 --out results/demo2"
)]
pub(super) struct Arguments {
    /// Folder for checkpoint, engine, results and report; an earlier demo in it is replaced
    #[arg(long, default_value = "results/demo", value_name = "DIR")]
    out: PathBuf,
    /// Seed of the weights and of the world
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Maximum number of ticks that the tiny checkpoint drives
    #[arg(long, default_value_t = 400, value_name = "TICKS")]
    ticks: u64,
    /// Print JSON; progress and tables go to standard error
    #[arg(long)]
    json: bool,
    /// Run file (YAML) of the model's drive [default: virtual clock, a prefill takes 100 ms]
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let _lock = lock_and_clear(&arguments.out)?;
    let demo = Demo { arguments, routes: parse_routes(ROUTE_FILE, "routes/demo.xml")? };
    let mut steps = Steps::default();
    demo.make_engine(&mut steps)?;
    let with_model = Part::model(arguments)?;
    let run = &with_model.variant.timed.run;
    let real_time = run.real_time.apply_process();
    let factory = DriverFactory::new(DriverName::Model(MODEL), Some(&demo.engine()), run)?;
    steps.done("libraries, loading");

    let cancel = drive::cancel_on_interrupt()?;
    demo.print(&format!("3/4 driving {} ticks with it, two experts at two rates", arguments.ticks));
    let model = demo.drive(&with_model, &factory, real_time, &cancel)?;
    steps.done("driving, model");
    if model.is_cancelled {
        return Ok(interrupted());
    }
    demo.print("4/4 driving the same route with the autopilot, which reads the true state");
    let with_autopilot = Part::autopilot(&with_model.variant.file)?;
    let no_options = RealTimeReport::default();
    let autopilot = demo.drive(&with_autopilot, &DriverFactory::Autopilot, no_options, &cancel)?;
    steps.done("driving, autopilot");
    if autopilot.is_cancelled {
        return Ok(interrupted());
    }

    let driven = [(&with_model, &model), (&with_autopilot, &autopilot)];
    let page = demo.write_page(driven, factory.backend())?;
    steps.done("report");
    demo.present(&model, &autopilot, &steps, &page);
    if arguments.json {
        let results = serde_json::json!({
            "note": NOTE,
            MODEL: model.to_json(),
            "autopilot": autopilot.to_json(),
        });
        print::line(&serde_json::to_string_pretty(&results)?);
    }
    Ok(check_safety(&model.safety()))
}

/// One of the demo's two drives of the route.
struct Part {
    driver: DriverName,
    title: &'static str,
    variant: Variant,
    has_engine: bool,
    tick_cap: u64,
}

impl Part {
    fn model(arguments: &Arguments) -> anyhow::Result<Self> {
        let driver = DriverName::Model(MODEL);
        Ok(Self {
            driver,
            title: "AutoMoT, tiny, random weights",
            variant: Variant::new(driver.as_str(), run_file(arguments, driver)?)?,
            has_engine: true,
            tick_cap: arguments.ticks,
        })
    }

    /// Uses `file` without its latencies and real-time options, which are meant for the model.
    fn autopilot(file: &RunFile) -> anyhow::Result<Self> {
        let driver = DriverName::Autopilot;
        let file = RunFile {
            model: None,
            clock: ClockName::Lockstep,
            slow_latency: LatencySpec::ZERO,
            fast_latency: LatencySpec::ZERO,
            real_time: RealTimeOptions::default(),
            ..file.clone()
        };
        Ok(Self {
            driver,
            title: "autopilot",
            variant: Variant::new(driver.as_str(), file)?,
            has_engine: false,
            tick_cap: TICK_CAP,
        })
    }
}

struct Demo<'a> {
    arguments: &'a Arguments,
    routes: Vec<Route>,
}

impl Demo<'_> {
    /// Prints text; to standard error if JSON is printed.
    fn print(&self, text: &str) {
        if self.arguments.json { print::note(text) } else { print::line(text) }
    }

    fn engine(&self) -> PathBuf {
        self.arguments.out.join("engine")
    }

    fn folder(&self, driver: DriverName) -> PathBuf {
        self.arguments.out.join(driver.as_str())
    }

    /// Generates the checkpoint and exports it.
    fn make_engine(&self, steps: &mut Steps) -> anyhow::Result<()> {
        self.print("1/4 generating a tiny checkpoint with random weights");
        let sizes = SpecFile::parse("configs/tiny.json".into(), CHECKPOINT.to_owned())?;
        let (family, spec) = checkpoint::spec_of(&sizes)?;
        let checkpoint_folder = self.arguments.out.join("checkpoint");
        checkpoint::synth(family, &spec, self.arguments.seed, &checkpoint_folder)?;
        steps.done("checkpoint");

        self.print("2/4 exporting it: four ONNX networks");
        let engine = self.engine();
        let checkpoint = export::open(&checkpoint_folder, export::Values::Skip)?;
        let summary = export::export(&*checkpoint, Options::default(), &engine)?;
        self.print(&export::describe(&summary, &engine));
        steps.done("export");
        Ok(())
    }

    /// Drives the route in this process.
    fn drive(
        &self,
        part: &Part,
        factory: &DriverFactory,
        real_time: RealTimeReport,
        cancel: &AtomicBool,
    ) -> anyhow::Result<Results> {
        let engine = self.engine();
        let drive = Drive {
            route_file: ROUTE_FILE.as_bytes(),
            driver: part.driver,
            variants: std::slice::from_ref(&part.variant),
            engine: part.has_engine.then_some(engine.as_path()),
            maps: &TownMaps::default(),
            tick_cap: part.tick_cap,
        };
        let plan = CampaignPlan {
            folder: self.folder(part.driver),
            repetitions: 1,
            routes: self.routes.clone(),
            shard: Shard::ALL,
            recorded_time: drive.recorded_time(),
            motion: None,
        };
        let campaign = plan.with(drive.settings(factory)?, sensor_icons(&factory.sensors()));
        drive.check(&campaign)?;
        let mut tally = Tally::new(campaign.units().count());
        let remaining = drive_in_process(
            &campaign,
            cancel,
            &mut drive.driving(&campaign, factory, cancel, real_time),
            &mut |campaign, event| tally.handle(campaign, event),
        )?;
        tally.clear();
        Results::collect(&campaign, remaining, &tally)
    }

    fn write_page(
        &self,
        driven: [(&Part, &Results); 2],
        backend: Option<&str>,
    ) -> anyhow::Result<PathBuf> {
        let Arguments { out, seed, ticks, .. } = self.arguments;
        let page = out.join("report.html");
        let [(Part { variant, .. }, _), _] = driven;
        let folders = driven.map(|(part, _)| self.folder(part.driver));
        let parts = [0, 1].map(|place| {
            let (part, results) = driven[place];
            let budget = part.variant.timed.run.act_budget;
            report::Part {
                driver: part.title,
                folder: &folders[place],
                drives_total: results.drives_total,
                tick_budget: part.driver.has_tick_budget().then_some(budget),
                set: None,
                only: &[],
            }
        });
        let command = format!("tandem demo --seed {seed} --ticks {ticks}");
        let facts = report::facts(command, &variant.file, &variant.timed.emulated, backend);
        report::write(&page, "tandem demo", NOTE, &facts, &parts)?;
        Ok(page)
    }

    fn present(&self, model: &Results, autopilot: &Results, steps: &Steps, page: &Path) {
        let mut blocks = vec![
            format!("AutoMoT, tiny, random weights\n{}", model.scores()),
            format!("autopilot\n{}", autopilot.scores()),
            format!("{}\n{}", latency_table(&model.statistics), prefix_age_line(&model.statistics)),
        ];
        blocks.extend(model.safety_table());
        blocks.push(steps.to_string());
        blocks.push(format!("{NOTE}\nreport: {}", page.display()));
        for block in blocks {
            self.print("");
            self.print(&block);
        }
    }
}

fn interrupted() -> Outcome {
    print::note("interrupted: the next demo starts from the beginning");
    Outcome::CheckFailed
}

fn run_file(arguments: &Arguments, driver: DriverName) -> anyhow::Result<RunFile> {
    let mut file = match &arguments.run {
        Some(path) => RunFile::read(path, &mut print::note)?,
        None => RunFile {
            clock: ClockName::Virtual,
            slow_latency: LatencySpec::Fixed(PREFILL_LATENCY_MILLIS),
            seed: arguments.seed,
            ..RunFile::default()
        },
    };
    driver.complete(&mut file)?;
    Ok(file)
}

/// Locks the demo's folder until the result is dropped, and clears it. Rejects a folder that no
/// demo created. The marker is the first file in the folder, so the next demo can replace a killed
/// one.
fn lock_and_clear(out: &Path) -> anyhow::Result<File> {
    let marker = out.join(MARKER);
    let is_demo = || marker.symlink_metadata().is_ok_and(|found| found.is_file());
    if !is_demo() && out.exists() {
        let holds_files = holds_files(out);
        // Another demo may have started meanwhile; the marker is its first file.
        if !is_demo() && holds_files? {
            bail!(
                "{} contains files that are not a demo's; give another folder with --out",
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

/// True if `folder` contains anything other than folders, at any depth.
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

/// Removes everything except the marker.
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

/// Wall time of each step of the demo.
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
