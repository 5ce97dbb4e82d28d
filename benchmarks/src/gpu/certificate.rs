//! Compares an engine folder on a device with an f32 export of the same checkpoint on the same
//! device, layer by layer, as `tandem verify` does on the CPU.

use super::device::{Arrangement, DeviceName, Library, Opened};
use super::write;
use anyhow::Context;
use clap::Parser;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tandem::model::automot::accuracy::compare;
use tandem::model::automot::networks::Contracts;
use tandem::model::automot::recording::{Recording, record};
use tandem::model::automot::tokenizer::Tokenizer;
use tandem::model::verification::{Comparison, Limits, RecordingInputs};
use tandem::timing::Stopwatch;
use tandem_export::folder::TOKENIZER_FILE;
use tandem_profile::MachineCard;
use tandem_profile::roofline::lower_bound::costs;

/// Memory for activations, prefix KV caches and the library, relative to that of the weights.
const MEMORY_OVERHEAD: f64 = 0.25;

#[derive(Parser)]
#[command(name = "certificate", no_binary_name = true)]
struct Arguments {
    /// Device: host, emulated or cuda:N
    #[arg(long, value_name = "DEVICE")]
    device: DeviceName,
    /// Engine folder to certify
    #[arg(long, value_name = "DIR")]
    engine: PathBuf,
    /// Library that runs the engine on a GPU; ONNX Runtime runs the reference
    #[arg(long, value_enum, default_value_t = Library::Onnxruntime)]
    library: Library,
    /// Reference: an f32 export of the same checkpoint
    #[arg(long, value_name = "DIR")]
    reference: PathBuf,
    /// Number of prompts, each with a different scene, route and speed
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    prompts: u16,
    /// Minimum cosine similarity of every token in every layer
    #[arg(long, default_value_t = Limits::default().min_cosine)]
    min_cosine: f64,
    /// Maximum error of a trajectory point, relative to its distance from the ego (at least one
    /// meter)
    #[arg(long, default_value_t = Limits::default().max_point_distance)]
    max_point_distance: f64,
    /// Result file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Compares, writes the result, and prints the verdict to standard error. Fails if the device does
/// not exist, a side fails, or the result cannot be written. A comparison beyond its limits only
/// changes the exit code; it is skipped if there is not enough memory.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let watch = Stopwatch::start();
    let opened = Opened::open(arguments.device)?;
    let inputs = RecordingInputs { seed: 0, prompts: arguments.prompts.into() };
    let gpus = opened.gpu().map(str::to_owned).into_iter().collect();
    let mut result = json!({
        "bench": "gpu-certificate",
        "device": opened.device().name(),
        "engine": super::engine_facts(&arguments.engine),
        "reference": super::engine_facts(&arguments.reference),
        "inputs": inputs,
        "machine_card": MachineCard::read(gpus, Vec::new()),
    });
    let code = match out_of_memory(&opened, &arguments)? {
        Some(reason) => {
            eprintln!("certificate skipped: {reason}");
            result["skipped"] = json!(reason);
            ExitCode::SUCCESS
        }
        None => certify(&opened, &arguments, inputs, &mut result)?,
    };
    result["took_s"] = json!(watch.elapsed().as_secs_f64());
    write(&arguments.out, &result)?;
    Ok(code)
}

fn certify(
    opened: &Opened,
    arguments: &Arguments,
    inputs: RecordingInputs,
    result: &mut Value,
) -> anyhow::Result<ExitCode> {
    // In sequence, so that only one of two large engines is in memory at a time.
    let (reference, by) = side(opened, &arguments.reference, Library::Onnxruntime, inputs)?;
    result["reference"]["libraries"] = json!(by);
    let (engine, by) = side(opened, &arguments.engine, arguments.library, inputs)?;
    result["engine"]["libraries"] = json!(by);
    let comparison = compare(&engine, &reference)?;
    let limits = Limits {
        min_cosine: arguments.min_cosine,
        max_point_distance: arguments.max_point_distance,
    };
    let excesses = <dyn Comparison>::excesses(&comparison, &limits);
    let verdict = match excesses.as_slice() {
        [] => "within limits".to_owned(),
        [only] => format!("beyond limits: {only}"),
        [first, others @ ..] => format!("beyond limits: {first}; and {} more", others.len()),
    };
    eprintln!("certificate: {verdict}");
    result["within_limits"] = json!(excesses.is_empty());
    result["limits"] = json!(limits);
    result["excesses"] = json!(excesses);
    result["comparison"] = json!(comparison);
    Ok(if excesses.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Loads a folder, records its outputs and unloads it.
fn side(
    opened: &Opened,
    folder: &Path,
    library: Library,
    inputs: RecordingInputs,
) -> anyhow::Result<(Recording, Vec<String>)> {
    let arrangement = Arrangement { graphs: false, share: None };
    let loaded = opened.load(folder, library, arrangement)?;
    let tokenizer = Tokenizer::read(&folder.join(TOKENIZER_FILE))?;
    let recording = record(&loaded.networks, tokenizer, inputs, &mut || {})
        .with_context(|| format!("running engine folder {}", folder.display()))?;
    Ok((recording, loaded.libraries))
}

/// Returns the reason if a side will not fit in memory, as far as the device reports its memory.
fn out_of_memory(opened: &Opened, arguments: &Arguments) -> anyhow::Result<Option<String>> {
    let Some(memory) = opened.device().memory()? else { return Ok(None) };
    for folder in [&arguments.reference, &arguments.engine] {
        let costs = costs(folder, &Contracts::read(folder)?.outline(super::FRAME_SPACING_TICKS)?)?;
        let stored = costs
            .iter()
            .flat_map(|stage| &stage.networks)
            .map(|cost| cost.total.parameter_bytes + cost.total.constant_bytes)
            .sum::<u64>();
        let needed = (stored as f64 * (1.0 + MEMORY_OVERHEAD)) as u64;
        if needed > memory.free {
            return Ok(Some(format!(
                "{} has {stored} bytes of weights and needs about {needed}; the device has {} free",
                folder.display(),
                memory.free
            )));
        }
    }
    Ok(None)
}
