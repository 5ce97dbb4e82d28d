//! `tandem roofline`: the least time that every stage can take on a device, predicted.

use super::{Outcome, checkpoint, doctor, export, print};
use anyhow::{Context, bail, ensure};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use tandem::model::{ModelBlock, Runs};
use tandem::runtime::family_of;
use tandem::tensor::DType;
use tandem_export::cost::{Compulsory, Cost, NetworkCost, PartCost};
use tandem_export::folder::export_networks;
use tandem_export::options::{Options, Precision, WeightStorage};
use tandem_export::synth::SynthWeights;
use tandem_profile::roofline::ceilings::{self, Ceilings, Source};
use tandem_profile::roofline::floor::{Floors, StageCosts, StageFloor, costs, floors};
use tandem_profile::roofline::measure::Measurement;

/// In front of a file in `--device`.
const MEASURED: &str = "measured";

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("networks").required(true).args(["config", "engine"])))]
pub(super) struct Arguments {
    /// Checkpoint configuration, such as configs/full.json, or the config.json of a Qwen3-VL or
    /// AutoMoT checkpoint; no weights are needed or written
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Engine folder, as `tandem export` writes it
    #[arg(long, value_name = "DIR")]
    engine: Option<PathBuf>,
    /// A device's name, `measured:FILE` (from `tandem doctor --measure --out FILE`), or `measured`
    /// to measure this machine now
    #[arg(long, value_name = "NAME")]
    device: String,
    /// Threads that a network runs on, for measured ceilings [default: as many as were measured]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// What the networks compute in [default: bf16 where the device has it, else f32]
    #[arg(long, conflicts_with = "engine", value_parser = export::precision)]
    precision: Option<Precision>,
    /// Frames of a refresh whose image tokens are known from an earlier one
    #[arg(long, default_value_t = 0, value_name = "N")]
    frames_cached: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report<'a> {
    /// Always "predicted": no network ran.
    kind: &'static str,
    ceilings: &'a Ceilings,
    prefix_capacity: usize,
    frames: usize,
    frames_cached: usize,
    floors: &'a Floors,
    networks: Vec<NetworkReport<'a>>,
}

/// A network's cost without its nodes.
#[derive(Serialize)]
struct NetworkReport<'a> {
    network: &'a str,
    total: &'a Cost,
    compulsory: &'a Compulsory,
    parts: &'a [PartCost],
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let ceilings = DeviceRates::of(&arguments.device)?.ceilings(arguments.threads)?;
    let engine = match (&arguments.engine, &arguments.config) {
        (Some(engine), _) => Engine::read(engine)?,
        (None, Some(config)) => {
            let has_bf16 = ceilings.flops_per_s.contains_key(&DType::Bf16);
            let usual = if has_bf16 { Precision::Bf16 } else { Precision::F32 };
            Engine::draw(config, arguments.precision.unwrap_or(usual))?
        }
        (None, None) => unreachable!("the parser wants one of the two"),
    };
    let Engine { frames, prefix_capacity, costs, .. } = &engine;
    let cached = arguments.frames_cached;
    ensure!(
        cached <= *frames,
        "--frames-cached {cached}: a prompt has {frames} frames, so at most that many are cached"
    );
    let floors = floors(costs, &ceilings, frames - cached)?;
    if arguments.json {
        let report = Report {
            kind: "predicted",
            ceilings: &ceilings,
            prefix_capacity: *prefix_capacity,
            frames: *frames,
            frames_cached: cached,
            floors: &floors,
            networks: costs
                .iter()
                .flat_map(|stage| &stage.networks)
                .map(NetworkReport::of)
                .collect(),
        };
        print::line(&serde_json::to_string_pretty(&report)?);
    } else {
        print::line(&describe(&engine, &ceilings, &floors, cached));
    }
    Ok(Outcome::Done)
}

/// Rates of a device.
pub(super) enum DeviceRates {
    /// Rates of a datasheet.
    Datasheet(Ceilings),
    /// Rates of this machine or another, by number of threads.
    Measured(Measurement),
}

impl DeviceRates {
    /// The rates of the device that `device` names.
    pub(super) fn of(device: &str) -> anyhow::Result<Self> {
        if device == MEASURED {
            return Ok(Self::Measured(doctor::measure_machine(None)?));
        }
        if let Some(file) = device.strip_prefix(MEASURED).and_then(|rest| rest.strip_prefix(':')) {
            let unreadable = || {
                format!("{file} is not a measurement; `tandem doctor --measure --out` writes one")
            };
            let text = std::fs::read_to_string(file).with_context(unreadable)?;
            let measurement: Measurement = serde_json::from_str(&text).with_context(unreadable)?;
            measurement.ceilings(None).with_context(unreadable)?;
            return Ok(Self::Measured(measurement));
        }
        let Some(ceilings) = ceilings::device(device) else {
            let known = ceilings::devices().collect::<Vec<_>>().join(", ");
            bail!("no device {device:?} is known: give one of {known}, measured or measured:FILE");
        };
        Ok(Self::Datasheet(ceilings))
    }

    /// Ceilings of a network that runs on `threads` threads, or of the whole device. Rates of a
    /// datasheet do not depend on threads.
    pub(super) fn ceilings(&self, threads: Option<NonZeroUsize>) -> anyhow::Result<Ceilings> {
        match self {
            Self::Datasheet(ceilings) => Ok(ceilings.clone()),
            Self::Measured(measurement) => {
                Ok(measurement.ceilings(threads.map(NonZeroUsize::get))?)
            }
        }
    }
}

/// The number of threads of rates that depend on it: ", 2 threads".
pub(super) fn threads_of(ceilings: &Ceilings) -> String {
    match ceilings.threads {
        None => String::new(),
        Some(1) => ", 1 thread".to_owned(),
        Some(threads) => format!(", {threads} threads"),
    }
}

/// What an engine folder says about its networks.
pub(super) struct Engine {
    pub(super) frames: usize,
    pub(super) frame_spacing_ticks: u64,
    prefix_capacity: usize,
    pub(super) costs: Vec<StageCosts>,
}

impl Engine {
    /// Draws the networks of a configuration over a checkpoint that is all header.
    fn draw(config: &Path, precision: Precision) -> anyhow::Result<Self> {
        let (family, spec) = checkpoint::read_spec(config)?;
        let folder = tempfile::tempdir().context("cannot make a folder for the graphs")?;
        let drawing = || format!("drawing the networks of {}", config.display());
        let source = folder.path().join("checkpoint");
        family
            .synthesize(&spec, SynthWeights::Sparse, &source, &mut |_, _| {})
            .with_context(drawing)?;
        let checkpoint = family.open(&source).with_context(drawing)?;
        let weights = WeightStorage::Link;
        let options = Options { precision, weights, ..Options::default() };
        let engine = folder.path().join("engine");
        export_networks(&*checkpoint, &options, &engine, &mut |_| {}).with_context(drawing)?;
        Self::read(&engine)
    }

    /// Reads the networks of an engine folder.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        Self::with_options(folder, None)
    }

    /// The same for a model with these options.
    pub(super) fn with_options(folder: &Path, model: Option<&ModelBlock>) -> anyhow::Result<Self> {
        let outline = family_of(folder)?.outline(folder, model)?;
        let costs = costs(folder, &outline)?;
        Ok(Self {
            frame_spacing_ticks: outline.frame_spacing_ticks,
            frames: outline.frames,
            prefix_capacity: outline.prefix_capacity,
            costs,
        })
    }
}

impl<'a> NetworkReport<'a> {
    fn of(cost: &'a NetworkCost) -> Self {
        let NetworkCost { network, total, compulsory, parts, .. } = cost;
        Self { network, total, compulsory, parts }
    }
}

fn describe(engine: &Engine, ceilings: &Ceilings, floors: &Floors, cached: usize) -> String {
    let (label, source) = match &ceilings.source {
        Source::Datasheet { document } => ("datasheet numbers", document),
        Source::Measured { machine, .. } => ("measured ceilings", machine),
    };
    let rates = ceilings
        .flops_per_s
        .iter()
        .map(|(dtype, rate)| match rate / 1e12 {
            tera if tera >= 1.0 => format!("{dtype} {tera:.1} TFLOP/s"),
            tera => format!("{dtype} {:.1} GFLOP/s", tera * 1e3),
        })
        .collect::<Vec<_>>();
    let rows = floors
        .stages
        .iter()
        .zip(&engine.costs)
        .map(|(stage, costs)| row(stage, &costs.networks))
        .collect::<Vec<_>>();
    let header = [
        "stage",
        "runs",
        "parameters",
        "GFLOP",
        "least MB",
        "of it KV",
        "unfused MB",
        "memory ms",
        "compute ms",
        "floor ms",
        "bound by",
    ];
    let (frames, capacity) = (engine.frames, engine.prefix_capacity);
    // The stages of a tick or of a refresh, by name, and what they take at least.
    let sum = |is_of_tick: bool, total: f64| {
        let pairs = engine.costs.iter().zip(&floors.stages);
        let stages: Vec<&StageFloor> = pairs
            .filter(|(costs, _)| (costs.runs == Runs::EachTick) == is_of_tick)
            .map(|(_, floor)| floor)
            .collect();
        let names: Vec<&str> = stages.iter().map(|stage| stage.stage.name()).collect();
        let memory: f64 =
            stages.iter().map(|stage| stage.floor.memory_ms * stage.runs as f64).sum();
        let names = names.join(" and ");
        format!("{names}: at least {total:.3} ms (moving bytes alone: {memory:.3} ms)")
    };
    [
        format!(
            "PREDICTED from {label} of {}{}: no network was run, nothing here is a measured time",
            ceilings.name,
            threads_of(ceilings)
        ),
        format!(
            "ceilings: {:.1} GB/s, {} ({source})",
            ceilings.bytes_per_s / 1e9,
            rates.join(", ")
        ),
        String::new(),
        print::table(&header, &rows),
        String::new(),
        format!("tick, {}", sum(true, floors.tick_ms)),
        format!(
            "refresh, {} of {frames} frames new, {}",
            frames - cached,
            sum(false, floors.refresh_ms)
        ),
        String::new(),
        "Numbers of a stage are those of one run; those of frames run once per frame.".to_owned(),
        "Floor: max(least bytes / memory rate, operations / matrix rate). Least bytes: weights, inputs"
            .to_owned(),
        "and outputs once each. Unfused, for comparison: every node through memory.".to_owned(),
        format!("Attention and KV are counted over the prefix's capacity of {capacity} tokens, as the graphs compute."),
    ]
    .join("\n")
}

fn row(stage: &StageFloor, networks: &[NetworkCost]) -> Vec<String> {
    let total: Cost = networks.iter().map(|cost| cost.total).sum();
    let kv_bytes = networks.iter().map(|cost| cost.compulsory.kv_bytes).sum();
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let floor = &stage.floor;
    vec![
        stage.stage.name().to_owned(),
        stage.runs.to_string(),
        total.parameters.to_string(),
        format!("{:.2}", total.flops() as f64 / 1e9),
        megabytes(stage.work.bytes),
        megabytes(kv_bytes),
        megabytes(total.unfused_bytes()),
        format!("{:.3}", floor.memory_ms),
        format!("{:.3}", floor.compute_ms),
        format!("{:.3}", floor.floor_ms),
        floor.bound_by.name().to_owned(),
    ]
}
