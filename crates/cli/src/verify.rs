//! `tandem verify`: compares an engine with a reference layer by layer.

use super::{Outcome, print};
use anyhow::Context;
use indicatif::ProgressBar;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tandem::model::verification::{
    Comparison, Difference, Excess, Limits, PointDifference, RecordingInputs,
};
use tandem::pilot::{DeviceName, Run, RunFile, Threads};
use tandem::runtime::{Side, Verification, VerifyOptions, verify};
use tandem_export::folder::{ACCURACY_FILE, GOLDEN_FILE};

/// Version of the format of [`ACCURACY_FILE`].
const FORMAT: u32 = 1;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem verify --engine engine-f16 --reference engine-f32
  tandem verify --engine engine-bf16 --reference engine-f32 --device cuda:0")]
pub(super) struct Arguments {
    /// Engine folder to verify; accuracy.json is written into it
    #[arg(long, value_name = "DIR")]
    engine: PathBuf,
    /// Reference engine folder, such as an f32 export of the same checkpoint
    #[arg(long, value_name = "DIR")]
    reference: PathBuf,
    /// Seed of scenes, routes and speeds
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of prompts, each with a different scene, route and speed
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    prompts: u16,
    /// Minimum cosine similarity of every token in every layer
    #[arg(long, default_value_t = Limits::default().min_cosine, value_parser = cosine, allow_negative_numbers = true)]
    min_cosine: f64,
    /// Maximum error of a trajectory point, relative to its distance from the ego (at least one
    /// meter)
    #[arg(long, default_value_t = Limits::default().max_point_distance, value_parser = distance, allow_negative_numbers = true)]
    max_point_distance: f64,
    /// Device of both engines: cpu, cuda:N, or emulated
    #[arg(long, default_value = "cpu", value_parser = device)]
    device: DeviceName,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

fn device(name: &str) -> Result<DeviceName, String> {
    DeviceName::try_from(name.to_owned())
}

/// Content of [`ACCURACY_FILE`].
#[derive(Serialize)]
struct AccuracyFile<'a> {
    format: u32,
    within_limits: bool,
    /// Values beyond their limits, in the order of computation.
    excesses: &'a [Excess],
    limits: Limits,
    inputs: RecordingInputs,
    engine: &'a Side,
    reference: &'a Side,
    comparison: serde_json::Value,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let limits = Limits {
        min_cosine: arguments.min_cosine,
        max_point_distance: arguments.max_point_distance,
    };
    let inputs = RecordingInputs { seed: arguments.seed, prompts: arguments.prompts.into() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let run = Run::try_from(&RunFile {
        device: arguments.device,
        threads: Threads { action: threads, understanding: threads },
        ..RunFile::default()
    })?;
    let bar = ProgressBar::new(2 * inputs.prompts as u64);
    let options = VerifyOptions { run, inputs, limits };
    let (engine, reference) = (&arguments.engine, &arguments.reference);
    let verified = verify(engine, reference, &options, &mut print::note, &mut || bar.inc(1))?;
    let Verification { engine, reference, comparison, golden_run } = verified;
    bar.finish_and_clear();

    let excesses = comparison.excesses(&limits);
    let record = AccuracyFile {
        format: FORMAT,
        within_limits: excesses.is_empty(),
        excesses: &excesses,
        limits,
        inputs,
        engine: &engine,
        reference: &reference,
        comparison: comparison.to_json(),
    };
    let text = serde_json::to_string_pretty(&record)?;
    print::write_file(&arguments.engine.join(ACCURACY_FILE), format!("{text}\n").as_bytes())?;
    update_golden_run(&arguments.engine, excesses.is_empty(), &golden_run)?;
    if arguments.json {
        print::line(&text);
    } else {
        print::line(&describe(&*comparison, &limits));
        print::line(&verdict(&excesses));
    }
    Ok(if excesses.is_empty() { Outcome::Done } else { Outcome::CheckFailed })
}

/// Writes the golden run into the folder if the engine is within its limits, and removes it
/// otherwise.
fn update_golden_run(
    folder: &Path,
    is_within_limits: bool,
    golden_run: &[u8],
) -> anyhow::Result<()> {
    let path = folder.join(GOLDEN_FILE);
    if is_within_limits {
        return print::write_file(&path, golden_run);
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Formats tables of all comparisons.
fn describe(comparison: &dyn Comparison, limits: &Limits) -> String {
    let layers = comparison.layers().iter().enumerate().map(|(l, layer)| {
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

    let points = comparison.points();
    let points = points
        .into_iter()
        .map(|(name, points)| [vec![name.into()], point_cells(points).to_vec()].concat());
    let points =
        print::table(&["trajectory", "max error m", "relative"], &points.collect::<Vec<_>>());
    let decisions = comparison.decisions().map_or_else(String::new, |decisions| {
        format!("{} of {} decision tokens are equal\n", decisions.equal, decisions.total)
    });
    format!(
        "{layers}\n\n{others}\n\n{points}\n\n{decisions}limits: cosine at least {}, relative error at \
         most {}",
        limits.min_cosine, limits.max_point_distance
    )
}

/// Formats the maximum difference and the minimum cosine, or the number of vectors that are not
/// finite.
fn vector_cells(difference: Difference) -> [String; 2] {
    match difference.not_finite {
        0 => [format!("{:.2e}", difference.max_abs), format!("{:.6}", difference.min_cosine)],
        n => [format!("{n} not finite"), format!("of {}", difference.vectors)],
    }
}

fn point_cells(points: PointDifference) -> [String; 2] {
    match points.not_finite {
        0 => [points.max_distance_m, points.max_relative].map(print::three_digits),
        n => [format!("{n} not finite"), format!("of {}", points.points)],
    }
}

fn verdict(excesses: &[Excess]) -> String {
    match excesses {
        [] => "within limits".into(),
        [first] => format!("beyond limits: {first}"),
        [first, others @ ..] => format!("beyond limits: {first}; and {} more", others.len()),
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
        f64::MAX => format!("expected a number of at least {low}"),
        _ => format!("expected a number from {low} to {high}"),
    })
}
