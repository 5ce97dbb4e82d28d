//! `tandem profile`: what every stage of the real loop takes.

mod floors;
mod observe;
mod operators;
mod table;

use super::{Outcome, budget, doctor, drive, print};
use anyhow::{Context, bail};
use floors::EngineFloors;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tandem::engine::{EngineFolder, LATENCY_FILE};
use tandem::pilot::{Pace, RealTimeReport, Run, RunFile};
use tandem::runtime::Loaded;
use tandem::scene::{Observation, Route, RoutePlan, TickReport};
use tandem::timing::{StageSpans, Stopwatch, nvtx, wall_time_unix_s};
use tandem_evaluation::routes::parse_routes;
use tandem_profile::page;
use tandem_profile::{
    Budget, EngineIdentity, FORMAT, FirstControl, LatencyFile, LoopOptions, LoopRun, MachineCard,
    Phase, PhaseName, ProfilerCost, RefreshOptions, Replay, TraceRecorder, run_loop, run_refreshes,
};

/// The route that is looked at unless another is named.
const ROUTE_FILE: &str = include_str!("../../../../routes/demo.xml");

/// Ticks that a timeline holds at most: some 80 MB of file.
const MOST_TRACED: u64 = 20_000;

/// A refresh period that never comes round.
const NEVER: u64 = u64::MAX / 2;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Folder that `tandem build` or `tandem export` wrote
    #[arg(long, value_name = "DIR")]
    engine: PathBuf,
    /// Run file (YAML): periods, budget, threads; its clock is not used, profiles keep real time
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// Route file whose first route is looked at [default: the demo's]
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// What to run, in this order
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "PHASES",
        default_values_t = [PhaseChoice::Paced, PhaseChoice::BackToBack, PhaseChoice::Alone]
    )]
    phases: Vec<PhaseChoice>,
    /// Ticks (or refreshes) that count, in each phase
    #[arg(long, default_value_t = 400)]
    ticks: u64,
    /// Ticks with a prefix (or refreshes) before the first that counts, in each phase
    #[arg(long, default_value_t = 60, value_name = "TICKS")]
    warm_up: u64,
    /// Look at this recording (of `tandem record`) instead of the embedded world
    #[arg(long, value_name = "FILE", conflicts_with = "routes")]
    recording: Option<PathBuf>,
    /// Different observations to take up beforehand; the loop sees them lap after lap
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    observations: u64,
    /// Let ONNX Runtime measure every operator too, in runs of their own, and sum up by part of each
    /// network; its own profiles go to a folder beside --out
    #[arg(long)]
    operators: bool,
    /// Show what the networks take beside the least that they can take on a device: a name,
    /// `measured`, or `measured:FILE`, as `tandem roofline` takes them
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Write the profile as one page to look at
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a timeline of all phases that count, for Perfetto or Chromium's trace viewer
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Make every stage an NVTX range, for NVIDIA's profilers
    #[arg(long)]
    nvtx: bool,
    /// Check the profile against the limits of this file (YAML; configs/budget.yaml has them all); a
    /// limit that is not kept, or that the profile cannot answer, makes the exit code 1
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Where the profile goes
    #[arg(long, default_value = "results/profile/latency.json", value_name = "FILE")]
    out: PathBuf,
    /// Print the profile as JSON, without histograms and single ticks
    #[arg(long)]
    json: bool,
}

/// Phases that `--phases` can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum PhaseChoice {
    /// A tick at every period of real time, idle in between
    Paced,
    /// A tick as soon as the one before is answered
    BackToBack,
    /// Each expert without the other
    Alone,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    if arguments.ticks == 0 || arguments.observations == 0 {
        bail!("--ticks and --observations must be 1 or more");
    }
    let mut run_file = match &arguments.run {
        Some(path) => RunFile::read(path, &mut print::note)?,
        None => RunFile::default(),
    };
    let budget = arguments.check.as_deref().map(Budget::read).transpose()?;
    let run = Run { pace: Pace::Wall, ..Run::try_from(&run_file)? };
    let machine = MachineCard::read(doctor::gpus().into_iter().collect(), Vec::new());
    if arguments.nvtx {
        print::note(&format!("stages are NVTX ranges of {}", nvtx::enable()?));
    }
    let floors = arguments
        .device
        .as_ref()
        .map(|device| EngineFloors::new(&arguments.engine, device, &run))
        .transpose()?;
    let built = EngineFolder::read(&arguments.engine)?;
    let profiler = ProfilerCost::measure();
    let watch = Stopwatch::start();
    let real_time = run.real_time.apply_process();
    let model = Loaded::open(&arguments.engine, &run, &mut print::note)?;
    let load = watch.elapsed();
    run_file.model = Some(model.options().clone());

    let cancel = drive::cancel_on_interrupt()?;
    let (observations, plan, observed) = match &arguments.recording {
        Some(file) => observe::recorded(file, arguments)?,
        None => observe::embedded(&route(arguments)?, arguments, &run, model.sensors())?,
    };
    let mut profiling = Profiling {
        arguments,
        run: &run,
        model: &model,
        plan: &plan,
        observations,
        cancel: Arc::clone(&cancel),
        first_control: None,
        real_time,
        trace: arguments.trace.as_ref().map(|_| {
            let phases = arguments.phases.len() as u64 + 1;
            TraceRecorder::new((phases * arguments.ticks).min(MOST_TRACED) as usize)
        }),
    };
    let mut phases = Vec::new();
    for choice in &arguments.phases {
        match choice {
            PhaseChoice::Paced => phases.push(profiling.ticks(PhaseName::Paced)?),
            PhaseChoice::BackToBack => phases.push(profiling.ticks(PhaseName::BackToBack)?),
            PhaseChoice::Alone => {
                phases.push(profiling.ticks(PhaseName::ActionAlone)?);
                phases.push(profiling.refreshes()?);
            }
        }
    }
    let first_control = profiling
        .first_control
        .map(|first| FirstControl { load_ns: load.as_nanos() as u64, ..first });
    let measured = arguments.operators && !cancel.load(Ordering::Relaxed);
    let operators = measured.then(|| operators::measure(&profiling)).transpose()?;
    let traced = profiling.trace.take();
    let file = LatencyFile {
        format: FORMAT,
        tandem: env!("CARGO_PKG_VERSION").to_owned(),
        taken_at_unix_s: wall_time_unix_s(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: MachineCard { libraries: vec![model.backend().to_owned()], ..machine },
        engine: identity(&arguments.engine, &model, built.as_ref()),
        run: run_file,
        observations: observed,
        real_time: profiling.real_time,
        profiler,
        first_control,
        phases,
    };
    if let Some(folder) = arguments.out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make folder {}", folder.display()))?;
    }
    file.write(&arguments.out)?;
    if let Some(built) = &built
        && !cancel.load(Ordering::Relaxed)
    {
        certify(built, &file)?;
    }
    if let (Some(path), Some(trace)) = (&arguments.trace, &traced) {
        let about = serde_json::json!({
            "command": file.command, "machine": file.machine, "engine": file.engine,
        });
        trace.write(path, &about)?;
        print::note(&format!("timeline in {}; open it in Perfetto", path.display()));
    }
    if let Some(page) = &arguments.html {
        let chart = floors.as_ref().map(|floors| floors.chart(&file));
        print::whole_file(page, page::render(&file, chart.as_ref()).as_bytes())?;
    }
    let verdicts = budget.map(|budget| budget.check(&file)).unwrap_or_default();
    if arguments.json {
        let mut json = table::to_json(&file);
        json["verdicts"] = serde_json::to_value(&verdicts)?;
        json["operators"] = operators.as_deref().map(operators::to_json).into();
        print::line(&serde_json::to_string_pretty(&json)?);
    } else {
        print::line(&table::profile(&file, &run));
        if let Some(floors) = &floors {
            print::line(&format!("\n{}", floors.table(&file)));
        }
        if let Some(operators) = &operators {
            print::line(&operators::tables(operators));
        }
        print::line(&format!("\nwritten to {}", arguments.out.display()));
    }
    if !verdicts.is_empty() {
        let table = budget::verdict_table(&verdicts);
        if arguments.json { print::note(&table) } else { print::line(&format!("\n{table}")) }
    }
    if cancel.load(Ordering::Relaxed) {
        print::note("interrupted: the numbers are those of the ticks until then");
        return Ok(Outcome::CheckFailed);
    }
    if verdicts.iter().any(|verdict| !verdict.is_kept) {
        return Ok(Outcome::CheckFailed);
    }
    Ok(Outcome::Done)
}

/// The route that is looked at.
fn route(arguments: &Arguments) -> anyhow::Result<Route> {
    let (bytes, name) = match &arguments.routes {
        None => (ROUTE_FILE.as_bytes().to_owned(), "routes/demo.xml".to_owned()),
        Some(path) => {
            let bytes = std::fs::read(path)
                .with_context(|| format!("cannot read route file {}", path.display()))?;
            (bytes, path.display().to_string())
        }
    };
    let routes = parse_routes(&bytes, &name)?;
    routes.into_iter().next().with_context(|| format!("{name} has no route"))
}

/// What all phases share.
struct Profiling<'a> {
    arguments: &'a Arguments,
    run: &'a Run,
    model: &'a Loaded,
    plan: &'a RoutePlan,
    observations: Vec<Observation>,
    cancel: Arc<AtomicBool>,
    /// Of the first phase that drove.
    first_control: Option<FirstControl>,
    /// What came of the run's real-time options.
    real_time: RealTimeReport,
    /// The timeline, if one is asked for.
    trace: Option<TraceRecorder>,
}

impl Profiling<'_> {
    /// Runs a phase with ticks.
    fn ticks(&mut self, name: PhaseName) -> anyhow::Result<Phase> {
        let mut run = self.run.clone();
        if name == PhaseName::ActionAlone {
            run.refresh_period_ticks = NEVER;
        }
        let options = LoopOptions {
            name,
            period: run.tick,
            budget: run.act_budget,
            warm_up: self.arguments.warm_up,
            ticks: self.arguments.ticks,
        };
        let bar = bar(name, options.ticks);
        let mut pilot = self.model.pilot(self.plan, &run)?;
        let mut replay = Replay::new(self.observations.clone());
        if let Some(trace) = &mut self.trace {
            trace.begin_phase(name.title());
        }
        let trace = &mut self.trace;
        let mut watch = |report: &TickReport| {
            if let Some(trace) = trace {
                trace.tick(report);
            }
            bar.inc(1);
        };
        // The pilot's own thread runs by now, and does not inherit what the tick thread is given.
        let tick_thread = run.real_time.apply_tick_thread();
        let ran = run_loop(&mut *pilot, &mut replay, &options, &self.cancel, &mut watch);
        if self.first_control.is_none() {
            self.real_time.add(pilot.real_time());
            self.real_time.add(tick_thread.report());
            self.real_time.warn();
        }
        drop(tick_thread);
        bar.finish_and_clear();
        let LoopRun { phase, first_control } = ran?;
        if self.first_control.is_none() {
            self.first_control = first_control;
        }
        Ok(phase)
    }

    /// Runs refreshes without ticks.
    fn refreshes(&mut self) -> anyhow::Result<Phase> {
        let mut expert = self.model.slow_expert(self.plan)?;
        let options = RefreshOptions {
            frames: self.run.refresh_period_ticks,
            warm_up: self.arguments.warm_up.min(20),
            refreshes: self.arguments.ticks,
        };
        let bar = bar(PhaseName::UnderstandingAlone, options.refreshes);
        let mut replay = Replay::new(self.observations.clone());
        if let Some(trace) = &mut self.trace {
            trace.begin_phase(PhaseName::UnderstandingAlone.title());
        }
        let trace = &mut self.trace;
        let mut watch = |version: u64, spans: &StageSpans| {
            if let Some(trace) = trace {
                trace.refresh(version, true, spans);
            }
            bar.inc(1);
        };
        let phase = run_refreshes(&mut *expert, &mut replay, &options, &self.cancel, &mut watch);
        bar.finish_and_clear();
        Ok(phase?)
    }
}

/// Leaves the profile with the engines that it is of, unless they are others by now.
fn certify(built: &EngineFolder, file: &LatencyFile) -> anyhow::Result<()> {
    let ran = &file.engine;
    let is_what_ran = !ran.built.is_empty()
        && ran
            .built
            .iter()
            .all(|(name, key)| ran.graphs_sha256.get(name) == Some(&key.graph_sha256));
    let now = EngineFolder::read(&built.path)?;
    if !is_what_ran || now.is_none_or(|now| now.sha256 != built.sha256) {
        print::note(&format!(
            "{} was built anew meanwhile: it gets no {LATENCY_FILE}; take the profile again",
            built.path.display()
        ));
        return Ok(());
    }
    let path = built.path.join(LATENCY_FILE);
    file.write(&path)?;
    print::note(&format!("latencies of these engines in {}", path.display()));
    Ok(())
}

fn identity(folder: &Path, model: &Loaded, built: Option<&EngineFolder>) -> EngineIdentity {
    let hash = |engine: &Arc<dyn tandem::engine::Engine>| {
        let contract = engine.contract();
        (contract.network.clone(), contract.graph_sha256.clone())
    };
    EngineIdentity {
        folder: folder.display().to_string(),
        backend: model.backend().to_owned(),
        graphs_sha256: model.engines().into_iter().map(hash).collect::<BTreeMap<_, _>>(),
        built: built.map(EngineFolder::keys).unwrap_or_default(),
    }
}

fn bar(name: PhaseName, ticks: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len}, {eta} left")
        .expect("the template is a constant");
    let bar = ProgressBar::new(ticks).with_style(style).with_message(name.title());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
