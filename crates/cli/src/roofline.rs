//! `tandem roofline`: predicts the minimum time of every stage on a device.

use super::print::{megabytes, three_digits};
use super::{Outcome, checkpoint, doctor, export, print};
use anyhow::{Context, bail, ensure};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use tandem::model::{ModelBlock, Runs};
use tandem::runtime::family_of;
use tandem::tensor::DType;
use tandem_export::cost::{Cost, MinimumTraffic, NetworkCost, PartCost};
use tandem_export::folder::export_networks;
use tandem_export::options::{Options, Precision, WeightStorage};
use tandem_export::synth::SynthWeights;
use tandem_profile::roofline::lower_bound::{
    LowerBounds, StageCosts, StageLowerBound, costs, lower_bounds,
};
use tandem_profile::roofline::measure::Measurement;
use tandem_profile::roofline::peak_rates::{self, PeakRates, Source};

/// Device name, or prefix of a file, for measured peak rates.
const MEASURED: &str = "measured";

#[derive(clap::Args)]
#[command(
    group(clap::ArgGroup::new("networks").required(true).args(["config", "engine"])),
    after_help = "\
Examples:
  tandem roofline --config configs/full.json --device h200
  tandem roofline --engine engine --device measured:machine.json"
)]
pub(super) struct Arguments {
    /// Checkpoint configuration, such as configs/full.json, or the config.json of a Qwen3-VL or
    /// AutoMoT checkpoint; no weights are needed
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Engine folder or network folder, from `tandem build` or `tandem export`
    #[arg(long, value_name = "DIR")]
    engine: Option<PathBuf>,
    /// Name of a device, `measured:FILE` (from `tandem doctor --measure --out FILE`), or `measured`
    /// to measure this machine now
    #[arg(long, value_name = "NAME")]
    device: String,
    /// Number of threads of a network, for measured peak rates [default: all measured threads]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Precision of the networks [default: bf16 if the device supports it, else f32]
    #[arg(long, conflicts_with = "engine", value_parser = export::precision)]
    precision: Option<Precision>,
    /// Number of frames per prefill with image tokens cached from an earlier prefill
    #[arg(long, default_value_t = 0, value_name = "N")]
    frames_cached: usize,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// JSON output of the verb.
#[derive(Serialize)]
struct Report<'a> {
    /// Always "predicted": no network is run.
    kind: &'static str,
    #[serde(rename = "ceilings")]
    peak_rates: &'a PeakRates,
    prefix_capacity: usize,
    frames: usize,
    frames_cached: usize,
    #[serde(rename = "floors")]
    lower_bounds: &'a LowerBounds,
    networks: Vec<NetworkReport<'a>>,
}

/// Cost of a network without its nodes.
#[derive(Serialize)]
struct NetworkReport<'a> {
    network: &'a str,
    total: &'a Cost,
    #[serde(rename = "compulsory")]
    minimum_traffic: &'a MinimumTraffic,
    parts: &'a [PartCost],
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let peak_rates = DeviceRates::of(&arguments.device)?.peak_rates(arguments.threads)?;
    let engine = match (&arguments.engine, &arguments.config) {
        (Some(engine), _) => Engine::read(engine)?,
        (None, Some(config)) => {
            let has_bf16 = peak_rates.flops_per_s.contains_key(&DType::Bf16);
            let usual = if has_bf16 { Precision::Bf16 } else { Precision::F32 };
            Engine::build(config, arguments.precision.unwrap_or(usual))?
        }
        (None, None) => unreachable!("the parser requires one of the two"),
    };
    let Engine { frames, prefix_capacity, costs, .. } = &engine;
    let cached = arguments.frames_cached;
    ensure!(cached <= *frames, "--frames-cached {cached}: a prompt has only {frames} frames");
    let lower_bounds = lower_bounds(costs, &peak_rates, frames - cached)?;
    if arguments.json {
        let report = Report {
            kind: "predicted",
            peak_rates: &peak_rates,
            prefix_capacity: *prefix_capacity,
            frames: *frames,
            frames_cached: cached,
            lower_bounds: &lower_bounds,
            networks: costs
                .iter()
                .flat_map(|stage| &stage.networks)
                .map(NetworkReport::of)
                .collect(),
        };
        print::line(&serde_json::to_string_pretty(&report)?);
    } else {
        print::line(&describe(&engine, &peak_rates, &lower_bounds, cached));
    }
    Ok(Outcome::Done)
}

/// Peak rates of a device that `--device` names.
pub(super) enum DeviceRates {
    Datasheet(PeakRates),
    /// Measured rates, by number of threads.
    Measured(Measurement),
}

impl DeviceRates {
    /// Returns the peak rates of the device that `device` names.
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
            measurement.peak_rates(None).with_context(unreadable)?;
            return Ok(Self::Measured(measurement));
        }
        let Some(peak_rates) = peak_rates::device(device) else {
            let known = peak_rates::devices().collect::<Vec<_>>().join(", ");
            bail!("device {device:?} is not known: give one of {known}, measured or measured:FILE");
        };
        Ok(Self::Datasheet(peak_rates))
    }

    /// Returns the peak rates of a network on `threads` threads, or of the complete device.
    /// Datasheet rates do not depend on the number of threads.
    pub(super) fn peak_rates(&self, threads: Option<NonZeroUsize>) -> anyhow::Result<PeakRates> {
        match self {
            Self::Datasheet(peak_rates) => Ok(peak_rates.clone()),
            Self::Measured(measurement) => {
                Ok(measurement.peak_rates(threads.map(NonZeroUsize::get))?)
            }
        }
    }
}

/// Formats the number of threads, for rates that depend on it: ", 2 threads".
pub(super) fn threads_of(peak_rates: &PeakRates) -> String {
    match peak_rates.threads {
        None => String::new(),
        Some(1) => ", 1 thread".to_owned(),
        Some(threads) => format!(", {threads} threads"),
    }
}

/// Frames, prefix capacity and costs of the networks of an engine folder.
pub(super) struct Engine {
    pub(super) frames: usize,
    pub(super) frame_spacing_ticks: u64,
    prefix_capacity: usize,
    pub(super) costs: Vec<StageCosts>,
}

impl Engine {
    /// Builds the networks of a configuration from a sparse checkpoint without weights.
    fn build(config: &Path, precision: Precision) -> anyhow::Result<Self> {
        let (family, spec) = checkpoint::read_spec(config)?;
        let folder = tempfile::tempdir().context("cannot create a folder for the graphs")?;
        let building = || format!("building the networks of {}", config.display());
        let source = folder.path().join("checkpoint");
        family
            .synthesize(&spec, SynthWeights::Sparse, &source, &mut |_, _| {})
            .with_context(building)?;
        let checkpoint = family.open(&source).with_context(building)?;
        let weights = WeightStorage::Link;
        let options = Options { precision, weights, ..Options::default() };
        let engine = folder.path().join("engine");
        export_networks(&*checkpoint, &options, &engine, &mut |_| {}).with_context(building)?;
        Self::read(&engine)
    }

    /// Reads the networks of an engine folder.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        Self::with_options(folder, None)
    }

    /// Reads the networks of an engine folder, for a model with these options.
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
        let NetworkCost { network, total, minimum_traffic, parts, .. } = cost;
        Self { network, total, minimum_traffic, parts }
    }
}

fn describe(
    engine: &Engine,
    peak_rates: &PeakRates,
    lower_bounds: &LowerBounds,
    cached: usize,
) -> String {
    let (label, source) = match &peak_rates.source {
        Source::Datasheet { document } => ("datasheet rates", document),
        Source::Measured { machine, .. } => ("measured rates", machine),
    };
    let rates = peak_rates
        .flops_per_s
        .iter()
        .map(|(dtype, rate)| match rate / 1e12 {
            tera if tera >= 1.0 => format!("{dtype} {} TFLOP/s", three_digits(tera)),
            tera => format!("{dtype} {} GFLOP/s", three_digits(tera * 1e3)),
        })
        .collect::<Vec<_>>();
    let rows = lower_bounds
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
        "min traffic MB",
        "KV cache MB",
        "unfused MB",
        "memory ms",
        "compute ms",
        "lower bound ms",
        "bound by",
    ];
    let (frames, capacity) = (engine.frames, engine.prefix_capacity);
    // The stages of a tick or of a prefill with their lower bound.
    let sum = |is_of_tick: bool, total: f64| {
        let pairs = engine.costs.iter().zip(&lower_bounds.stages);
        let stages: Vec<&StageLowerBound> = pairs
            .filter(|(costs, _)| (costs.runs == Runs::EachTick) == is_of_tick)
            .map(|(_, floor)| floor)
            .collect();
        let names: Vec<&str> = stages.iter().map(|stage| stage.stage.name()).collect();
        let memory: f64 =
            stages.iter().map(|stage| stage.floor.memory_ms * stage.runs as f64).sum();
        let names = names.join(" and ");
        let [total, memory] = [total, memory].map(three_digits);
        format!("{names}: at least {total} ms (memory traffic alone: {memory} ms)")
    };
    [
        format!(
            "PREDICTED from {label} of {}{}: no network was run, no time is measured",
            peak_rates.name,
            threads_of(peak_rates)
        ),
        format!(
            "peak rates: {} GB/s, {} ({source})",
            three_digits(peak_rates.bytes_per_s / 1e9),
            rates.join(", ")
        ),
        String::new(),
        print::table(&header, &rows),
        String::new(),
        format!("tick, {}", sum(true, lower_bounds.tick_ms)),
        format!(
            "prefill, {} of {frames} frames new, {}",
            frames - cached,
            sum(false, lower_bounds.refresh_ms)
        ),
        String::new(),
        "All numbers are per run; stages of frames run once per new frame.".to_owned(),
        "Lower bound: max(minimum traffic / memory rate, operations / matrix rate). Minimum traffic:"
            .to_owned(),
        "weights, inputs and outputs once each. Unfused, for comparison: every node through memory."
            .to_owned(),
        format!(
            "Attention and KV cache are counted over the prefix capacity of {capacity} tokens, as the \
             graphs compute."
        ),
    ]
    .join("\n")
}

fn row(stage: &StageLowerBound, networks: &[NetworkCost]) -> Vec<String> {
    let total: Cost = networks.iter().map(|cost| cost.total).sum();
    let kv_bytes = networks.iter().map(|cost| cost.minimum_traffic.kv_bytes).sum();
    let floor = &stage.floor;
    vec![
        stage.stage.name().to_owned(),
        stage.runs.to_string(),
        total.parameters.to_string(),
        three_digits(total.flops() as f64 / 1e9),
        megabytes(stage.work.bytes),
        megabytes(kv_bytes),
        megabytes(total.unfused_bytes()),
        three_digits(floor.memory_ms),
        three_digits(floor.compute_ms),
        three_digits(floor.floor_ms),
        floor.bound_by.name().to_owned(),
    ]
}
