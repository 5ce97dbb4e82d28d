//! `tandem verify`: an engine against a reference, layer by layer.

use super::{Outcome, print};
use anyhow::{Context, bail};
use indicatif::ProgressBar;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tandem::engine::{EngineFolder, NetworkFile, read_network};
use tandem::model::automot::Networks;
use tandem::model::automot::accuracy::{
    Comparison, Difference, Excess, Limits, PointDifference, comparable, compare,
};
use tandem::model::automot::golden::GoldenRun;
use tandem::model::automot::networks::Contracts;
use tandem::model::automot::recording::{Recording, RecordingInputs, record};
use tandem::model::automot::tokenizer::Tokenizer;
use tandem::pilot::{DeviceName, Run, RunFile, Threads};
use tandem::runtime::Placement;
use tandem_export::folder::{ACCURACY_FILE, GOLDEN_FILE, TOKENIZER_FILE};
use tandem_export::options::Precision;

/// Version of what [`ACCURACY_FILE`] holds.
const FORMAT: u32 = 1;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Engine folder to verify; accuracy.json is written into it
    #[arg(long, value_name = "DIR")]
    engine: PathBuf,
    /// Engine folder to hold it against, such as an f32 export of the same checkpoint
    #[arg(long, value_name = "DIR")]
    reference: PathBuf,
    /// Seed of scenes, routes and speeds
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Prompts, each with its own scene, route and speed
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    prompts: u16,
    /// Least cosine that any token of any layer may have
    #[arg(long, default_value_t = Limits::default().min_cosine, value_parser = cosine, allow_negative_numbers = true)]
    min_cosine: f64,
    /// Most that a trajectory point may be off, as a part of its distance or of one meter
    #[arg(long, default_value_t = Limits::default().max_point_distance, value_parser = distance, allow_negative_numbers = true)]
    max_point_distance: f64,
    /// Where both run: cpu, cuda:N, or emulated
    #[arg(long, default_value = "cpu", value_parser = device)]
    device: DeviceName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn device(name: &str) -> Result<DeviceName, String> {
    DeviceName::try_from(name.to_owned())
}

/// What is written into the engine folder.
#[derive(Serialize)]
struct AccuracyFile<'a> {
    format: u32,
    within_limits: bool,
    /// What is past its limit, in the order of computation.
    excesses: &'a [Excess],
    limits: Limits,
    inputs: RecordingInputs,
    engine: &'a SideRecord,
    reference: &'a SideRecord,
    comparison: &'a Comparison,
}

/// One of the two sides, for the record.
#[derive(Serialize)]
struct SideRecord {
    /// Of the folder's `export.json`.
    export_sha256: String,
    /// Of the folder's `engine.json`, if its networks were built.
    engine_sha256: Option<String>,
    precision: Precision,
    backend: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let limits = Limits {
        min_cosine: arguments.min_cosine,
        max_point_distance: arguments.max_point_distance,
    };
    let inputs = RecordingInputs { seed: arguments.seed, prompts: arguments.prompts.into() };
    let folders = [&arguments.engine, &arguments.reference];
    check_folders(folders)?;

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let run = Run::try_from(&RunFile {
        device: arguments.device,
        threads: Threads { action: threads, understanding: threads },
        ..RunFile::default()
    })?;
    let bar = ProgressBar::new(2 * inputs.prompts as u64);
    // One after the other: only one of two large engines is in memory at a time.
    let (reference, reference_record) = side(&arguments.reference, &run, inputs, &bar)?;
    let (engine, engine_record) = side(&arguments.engine, &run, inputs, &bar)?;
    bar.finish_and_clear();

    let comparison = compare(&engine, &reference)?;
    let excesses = comparison.excesses(&limits);
    let record = AccuracyFile {
        format: FORMAT,
        within_limits: excesses.is_empty(),
        excesses: &excesses,
        limits,
        inputs,
        engine: &engine_record,
        reference: &reference_record,
        comparison: &comparison,
    };
    let text = serde_json::to_string_pretty(&record)?;
    print::whole_file(&arguments.engine.join(ACCURACY_FILE), format!("{text}\n").as_bytes())?;
    keep_golden_run(&arguments.engine, excesses.is_empty(), || {
        let graphs = Contracts::read(&arguments.engine)?;
        let graphs = graphs.iter().map(|c| (c.network.clone(), c.graph_sha256.clone())).collect();
        Ok(GoldenRun::of(&reference, inputs, limits, graphs))
    })?;
    if arguments.json {
        print::line(&text);
    } else {
        print::line(&describe(&comparison, &limits));
        print::line(&verdict(&excesses));
    }
    Ok(if excesses.is_empty() { Outcome::Done } else { Outcome::CheckFailed })
}

/// Holds contracts and tokenizers against each other before anything is loaded.
fn check_folders(folders: [&PathBuf; 2]) -> anyhow::Result<()> {
    let mut contracts = Vec::new();
    let mut tokenizers = Vec::new();
    for folder in folders {
        if !folder.is_dir() {
            bail!("{} is not an engine folder; `tandem export` writes one", folder.display());
        }
        let networks = Contracts::read(folder)?;
        for contract in networks.iter() {
            // Also what was built of it: nothing is worth running if that cannot be used.
            read_network(folder, &contract.network)?;
        }
        contracts.push(networks.whole());
        let path = folder.join(TOKENIZER_FILE);
        let text =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        tokenizers.push(text);
    }
    comparable(contracts[0].each_ref(), contracts[1].each_ref())?;
    if tokenizers[0] != tokenizers[1] {
        bail!("the two folders have different tokenizers, so their prompts would differ");
    }
    Ok(())
}

/// Leaves the golden run with engines that are within their limits, and takes it from others.
fn keep_golden_run(
    folder: &Path,
    is_within_limits: bool,
    golden: impl FnOnce() -> anyhow::Result<GoldenRun>,
) -> anyhow::Result<()> {
    let path = folder.join(GOLDEN_FILE);
    if is_within_limits {
        return print::whole_file(&path, &serde_json::to_vec(&golden()?)?);
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Loads a folder, drives it and lets it go.
fn side(
    folder: &Path,
    run: &Run,
    inputs: RecordingInputs,
    bar: &ProgressBar,
) -> anyhow::Result<(Recording, SideRecord)> {
    let (summary, export_sha256) = NetworkFile::summary_with_sha256(folder)?;
    let engine_sha256 = EngineFolder::read(folder)?.map(|engines| engines.sha256);
    let precision = summary.options.precision;
    let Placement { device, lanes, fast, slow } =
        Placement::of(folder, run, None, &mut print::note)?;
    let networks = Networks::load(folder, &*fast, &*slow).with_context(|| {
        let hint = match precision {
            Precision::Bf16 => {
                "; the library does not compute in bf16 on a CPU, --precision bf16-emulated of \
                 `tandem export` writes networks that round alike"
            }
            _ => "",
        };
        format!("loading engine folder {}{hint}", folder.display())
    })?;
    let networks = networks.on(device, lanes);
    let tokenizer = Tokenizer::read(&folder.join(TOKENIZER_FILE))?;
    let recording = record(&networks, tokenizer, inputs, &mut || bar.inc(1))
        .with_context(|| format!("driving engine folder {}", folder.display()))?;
    let backend = fast.name();
    Ok((recording, SideRecord { export_sha256, engine_sha256, precision, backend }))
}

/// Tables of everything that was compared.
fn describe(comparison: &Comparison, limits: &Limits) -> String {
    let layers = comparison.layers.iter().enumerate().map(|(l, layer)| {
        let [keys, values] = [layer.keys, layer.values].map(vector_cells);
        [vec![l.to_string()], keys.to_vec(), values.to_vec()].concat()
    });
    let header = ["layer", "K max abs", "K min cosine", "V max abs", "V min cosine"];
    let layers = print::table(&header, &layers.collect::<Vec<_>>());

    let others = comparison
        .vectors()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("keys of") && !name.starts_with("values of"));
    let others =
        others.map(|(name, difference)| [vec![name], vector_cells(difference).to_vec()].concat());
    let others = print::table(&["", "max abs", "min cosine"], &others.collect::<Vec<_>>());

    let points = [("route", comparison.route), ("waypoints", comparison.waypoints)];
    let points =
        points.map(|(name, points)| [vec![name.into()], point_cells(points).to_vec()].concat());
    let points = print::table(&["trajectory", "max distance m", "relative"], &points);
    let decisions = comparison.decisions;
    format!(
        "{layers}\n\n{others}\n\n{points}\n\n{} of {} decision tokens are equal\nlimits: cosine {} \
         and above, relative distance {} and below",
        decisions.equal, decisions.total, limits.min_cosine, limits.max_point_distance
    )
}

/// Largest difference and least cosine; words instead if something is not finite.
fn vector_cells(difference: Difference) -> [String; 2] {
    match difference.not_finite {
        0 => [format!("{:.3e}", difference.max_abs), format!("{:.6}", difference.min_cosine)],
        n => [format!("{n} not finite"), format!("of {}", difference.vectors)],
    }
}

fn point_cells(points: PointDifference) -> [String; 2] {
    match points.not_finite {
        0 => [format!("{:.6}", points.max_distance_m), format!("{:.6}", points.max_relative)],
        n => [format!("{n} not finite"), format!("of {}", points.points)],
    }
}

fn verdict(excesses: &[Excess]) -> String {
    match excesses {
        [] => "within limits".into(),
        [first] => format!("past limits: {first}"),
        [first, others @ ..] => format!("past limits: {first}; and {} more", others.len()),
    }
}

fn cosine(text: &str) -> Result<f64, String> {
    within(text, -1.0, 1.0)
}

fn distance(text: &str) -> Result<f64, String> {
    within(text, 0.0, f64::MAX)
}

fn within(text: &str, low: f64, high: f64) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| match high {
        f64::MAX => format!("a number from {low} on"),
        _ => format!("a number from {low} to {high}"),
    })
}
