//! `tandem profile`: measures every stage of the real-time loop.

mod lower_bounds;
mod observe;
mod operators;
mod table;

use super::{Outcome, budget, doctor, drive, print};
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use lower_bounds::EngineLowerBounds;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tandem::engine::{EngineFolder, LATENCY_FILE, OperatorProfile};
use tandem::pilot::{Pace, RealTimeReport, Run, RunFile};
use tandem::runtime::Loaded;
use tandem::scene::{Observation, Route, RoutePlan, TickReport};
use tandem::timing::{StageSpans, Stopwatch, nvtx, wall_time_unix_s};
use tandem_evaluation::routes::parse_routes;
use tandem_profile::page;
use tandem_profile::{
    Budget, EngineIdentity, FORMAT, FirstControl, LatencyFile, LoopOptions, LoopRun, MachineCard,
    Phase, PhaseName, PrefillOptions, ProfilerCost, Replay, TraceRecorder, Verdict, run_loop,
    run_prefills,
};

/// Default route file, that of the demo.
const ROUTE_FILE: &str = include_str!("../../../../routes/demo.xml");

/// Maximum number of ticks in a timeline: about 80 MB of file.
const MAX_TRACED_TICKS: u64 = 20_000;

/// Refresh period that never elapses.
const NEVER: u64 = u64::MAX / 2;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem profile --engine engine
  tandem profile --engine engine --check configs/budget.yaml --html profile.html")]
pub(super) struct Arguments {
    /// Engine folder or network folder, from `tandem build` or `tandem export`
    #[arg(long, value_name = "DIR")]
    engine: PathBuf,
    /// Run file (YAML): periods, budget, threads; its clock is ignored, as profiles use real time
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// Route file; its first route provides the observations [default: the demo's]
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Phases to measure in this order, separated by commas [default: paced,back-to-back,alone]
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "PHASES",
        hide_default_value = true,
        default_values_t = [PhaseChoice::Paced, PhaseChoice::BackToBack, PhaseChoice::Alone]
    )]
    phases: Vec<PhaseChoice>,
    /// Number of measured ticks (or prefills) per phase
    #[arg(long, default_value_t = 400)]
    ticks: u64,
    /// Number of ticks with a prefix (or prefills) before the measured ones, per phase
    #[arg(long, default_value_t = 60, value_name = "TICKS")]
    warm_up: u64,
    /// Replay this recording (of `tandem record`) instead of the embedded world
    #[arg(long, value_name = "FILE", conflicts_with = "routes")]
    recording: Option<PathBuf>,
    /// Number of different observations, replayed cyclically
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    observations: u64,
    /// Also measure every operator with ONNX Runtime, in separate runs, summed per part of each
    /// network; its own profiles are written to a folder next to --out
    #[arg(long)]
    operators: bool,
    /// Compare the networks with their lower bounds on a device: a name, `measured`, or
    /// `measured:FILE`, as in `tandem roofline`
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Write the profile as an HTML report
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a timeline of all measured phases, for Perfetto or Chromium's trace viewer
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Emit every stage as an NVTX range, for NVIDIA's profilers
    #[arg(long)]
    nvtx: bool,
    /// Check the profile against the limits of this file (YAML; configs/budget.yaml lists all);
    /// exit with 1 if a limit is not kept or cannot be checked
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Profile to write, as JSON
    #[arg(long, default_value = "results/profile/latency.json", value_name = "FILE")]
    out: PathBuf,
    /// Print the profile as JSON, without histograms and single ticks
    #[arg(long)]
    json: bool,
}

/// Phases that `--phases` accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum PhaseChoice {
    /// One tick per period of real time, idle in between
    Paced,
    /// Each tick starts as soon as the previous one is finished
    #[value(alias = "back_to_back")]
    BackToBack,
    /// Each expert without the other
    Alone,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let plan = Plan::new(arguments)?;
    let measured = plan.execute(arguments)?;
    write_files(arguments, &plan, &measured)?;
    let verdicts = plan.budget.as_ref().map(|budget| budget.check(&measured.file));
    let verdicts = verdicts.unwrap_or_default();
    present(arguments, &plan, &measured, &verdicts)?;
    if measured.is_cancelled() {
        print::note("interrupted: the profile contains the ticks until then");
        return Ok(Outcome::CheckFailed);
    }
    if verdicts.iter().any(|verdict| !verdict.is_kept) {
        return Ok(Outcome::CheckFailed);
    }
    Ok(Outcome::Done)
}

/// Validated inputs, read before any network is loaded.
struct Plan {
    run_file: RunFile,
    run: Run,
    budget: Option<Budget>,
    machine: MachineCard,
    lower_bounds: Option<EngineLowerBounds>,
    /// `None` for a folder without built engines.
    built: Option<EngineFolder>,
}

impl Plan {
    fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        if arguments.ticks == 0 || arguments.observations == 0 {
            bail!("--ticks and --observations must be 1 or more");
        }
        let run_file = match &arguments.run {
            Some(path) => RunFile::read(path, &mut print::note)?,
            None => RunFile::default(),
        };
        let budget = arguments.check.as_deref().map(Budget::read).transpose()?;
        let run = Run { pace: Pace::Wall, ..Run::try_from(&run_file)? };
        let machine = MachineCard::read(doctor::gpus().into_iter().collect(), Vec::new());
        if arguments.nvtx {
            print::note(&format!("stages are emitted as NVTX ranges of {}", nvtx::enable()?));
        }
        let lower_bounds = arguments
            .device
            .as_ref()
            .map(|device| EngineLowerBounds::new(&arguments.engine, device, &run))
            .transpose()?;
        let built = EngineFolder::read(&arguments.engine)?;
        Ok(Self { run_file, run, budget, machine, lower_bounds, built })
    }

    /// Loads the networks and measures all phases.
    fn execute(&self, arguments: &Arguments) -> anyhow::Result<Measured> {
        let run = &self.run;
        let profiler = ProfilerCost::measure();
        let watch = Stopwatch::start();
        let real_time = run.real_time.apply_process();
        let model = Loaded::open(&arguments.engine, run, &mut print::note)?;
        let load = watch.elapsed();
        let cancel = drive::cancel_on_interrupt()?;
        let (observations, plan, observed) = match &arguments.recording {
            Some(file) => observe::recorded(file, arguments)?,
            None => observe::embedded(&route(arguments)?, arguments, run, model.sensors())?,
        };
        let mut profiling = Profiling {
            arguments,
            run,
            model: &model,
            plan: &plan,
            observations,
            cancel: Arc::clone(&cancel),
            first_control: None,
            real_time,
            trace: arguments.trace.as_ref().map(|_| {
                let phases = arguments.phases.len() as u64 + 1;
                TraceRecorder::new((phases * arguments.ticks).min(MAX_TRACED_TICKS) as usize)
            }),
        };
        let phases = profiling.phases()?;
        let first_control = profiling
            .first_control
            .map(|first| FirstControl { load_ns: load.as_nanos() as u64, ..first });
        let is_measured = arguments.operators && !cancel.load(Ordering::Relaxed);
        let operators = is_measured.then(|| operators::measure(&profiling)).transpose()?;
        let file = LatencyFile {
            format: FORMAT,
            tandem: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at_unix_s: wall_time_unix_s(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: MachineCard {
                libraries: vec![model.backend().to_owned()],
                ..self.machine.clone()
            },
            engine: identity(&arguments.engine, &model, self.built.as_ref()),
            run: RunFile { model: Some(model.options().clone()), ..self.run_file.clone() },
            observations: observed,
            real_time: profiling.real_time,
            profiler,
            first_control,
            phases,
        };
        Ok(Measured { file, operators, trace: profiling.trace, cancel })
    }
}

/// Measurements of all phases.
struct Measured {
    file: LatencyFile,
    operators: Option<Vec<OperatorProfile>>,
    trace: Option<TraceRecorder>,
    cancel: Arc<AtomicBool>,
}

impl Measured {
    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// Writes the profile, its copy in the engine folder, the timeline and the HTML report.
fn write_files(arguments: &Arguments, plan: &Plan, measured: &Measured) -> anyhow::Result<()> {
    let file = &measured.file;
    if let Some(folder) = arguments.out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create folder {}", folder.display()))?;
    }
    file.write(&arguments.out)?;
    if let Some(built) = &plan.built
        && !measured.is_cancelled()
    {
        certify(built, file)?;
    }
    if let (Some(path), Some(trace)) = (&arguments.trace, &measured.trace) {
        let about = serde_json::json!({
            "command": file.command, "machine": file.machine, "engine": file.engine,
        });
        trace.write(path, &about)?;
        print::note(&format!("timeline in {}; open it in Perfetto", path.display()));
    }
    if let Some(path) = &arguments.html {
        let chart = plan.lower_bounds.as_ref().map(|bounds| bounds.chart(file));
        print::write_file(path, page::render(file, chart.as_ref()).as_bytes())?;
    }
    Ok(())
}

/// Prints the profile, as tables or as JSON, and the verdicts of the budget.
fn present(
    arguments: &Arguments,
    plan: &Plan,
    measured: &Measured,
    verdicts: &[Verdict],
) -> anyhow::Result<()> {
    let Measured { file, operators, .. } = measured;
    if arguments.json {
        let mut json = table::to_json(file);
        json["verdicts"] = serde_json::to_value(verdicts)?;
        json["operators"] = operators.as_deref().map(operators::to_json).into();
        print::line(&serde_json::to_string_pretty(&json)?);
    } else {
        print::line(&table::profile(file, &plan.run));
        if let Some(bounds) = &plan.lower_bounds {
            print::line(&format!("\n{}", bounds.table(file)));
        }
        if let Some(operators) = operators {
            print::line(&operators::tables(operators));
        }
        print::line(&format!("\nwritten to {}", arguments.out.display()));
    }
    if !verdicts.is_empty() {
        let table = budget::verdict_table(verdicts);
        if arguments.json { print::note(&table) } else { print::line(&format!("\n{table}")) }
    }
    Ok(())
}

/// Reads the route that provides the observations.
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

/// State that all phases share.
struct Profiling<'a> {
    arguments: &'a Arguments,
    run: &'a Run,
    model: &'a Loaded,
    plan: &'a RoutePlan,
    observations: Vec<Observation>,
    cancel: Arc<AtomicBool>,
    /// From the first phase with ticks.
    first_control: Option<FirstControl>,
    /// Result of the run's real-time options.
    real_time: RealTimeReport,
    /// Timeline of `--trace`, if given.
    trace: Option<TraceRecorder>,
}

impl Profiling<'_> {
    /// Runs the phases of `--phases` in order.
    fn phases(&mut self) -> anyhow::Result<Vec<Phase>> {
        let mut phases = Vec::new();
        for choice in &self.arguments.phases {
            match choice {
                PhaseChoice::Paced => phases.push(self.ticks(PhaseName::Paced)?),
                PhaseChoice::BackToBack => phases.push(self.ticks(PhaseName::BackToBack)?),
                PhaseChoice::Alone => {
                    phases.push(self.ticks(PhaseName::ActionAlone)?);
                    phases.push(self.prefills()?);
                }
            }
        }
        Ok(phases)
    }

    /// Runs a phase with ticks, with or without prefills.
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
        // The pilot's thread is running already, so it does not inherit the tick thread's settings.
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

    /// Runs prefills without ticks.
    fn prefills(&mut self) -> anyhow::Result<Phase> {
        let mut expert = self.model.slow_expert(self.plan)?;
        let options = PrefillOptions {
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
        let phase = run_prefills(&mut *expert, &mut replay, &options, &self.cancel, &mut watch);
        bar.finish_and_clear();
        Ok(phase?)
    }
}

/// Writes the profile into the engine folder, unless its engines have changed since they were
/// loaded.
fn certify(built: &EngineFolder, file: &LatencyFile) -> anyhow::Result<()> {
    let ran = &file.engine;
    let ran_these_graphs = !ran.built.is_empty()
        && ran
            .built
            .iter()
            .all(|(name, key)| ran.graphs_sha256.get(name) == Some(&key.graph_sha256));
    let now = EngineFolder::read(&built.path)?;
    if !ran_these_graphs || now.is_none_or(|now| now.sha256 != built.sha256) {
        print::note(&format!(
            "{} was rebuilt meanwhile, so no {LATENCY_FILE} was written into it; profile it again",
            built.path.display()
        ));
        return Ok(());
    }
    let path = built.path.join(LATENCY_FILE);
    file.write(&path)?;
    print::note(&format!("latencies of these engines written to {}", path.display()));
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
