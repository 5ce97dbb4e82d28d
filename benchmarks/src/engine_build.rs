//! Measures time, memory and disk of ahead-of-time engine builds, and compares them with
//! predictions.
//!
//! Writes a checkpoint with random weights (equal weights would be deduplicated), exports it in
//! bf16 with the understanding expert in groups, and builds four of its networks for two GPUs, each
//! in a separate process, because peak memory is measured per process.

use anyhow::{Context, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tandem::engine::NetworkFile;
use tandem::engine::tensorrt::{BuildRequest, Target, TensorRt, predict};
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::automot::synth::{SynthSpec, synthesize};
use tandem_export::folder::export_networks;
use tandem_export::options::Precision;
use tandem_profile::MachineCard;

/// GPUs of the generations Ada and Blackwell.
const TARGETS: [Target; 2] = [Target::Sm89, Target::Sm120];

#[derive(Parser)]
#[command(name = "engine-build", no_binary_name = true)]
struct Arguments {
    /// Sizes of the generated checkpoint
    #[arg(long, default_value = "configs/full.json")]
    config: PathBuf,
    /// Number of layer groups of the understanding expert; the middle one is built
    #[arg(long, default_value_t = 9)]
    groups: usize,
    /// Folder for the checkpoint, 13 GB at full size, which is removed afterwards
    #[arg(long, default_value = "engines")]
    folder: PathBuf,
    /// Build one network of an exported folder for one target and print the measurements
    #[arg(long, num_args = 3, value_names = ["FOLDER", "NETWORK", "TARGET"], hide = true)]
    one: Option<Vec<String>>,
}

/// Builds the networks and returns the measurements of each. Fails if the checkpoint cannot be
/// written, the library is missing, or it rejects a network.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<Value> {
    let arguments = Arguments::try_parse_from(arguments)?;
    if let Some([folder, network, target]) = arguments.one.as_deref() {
        return build(Path::new(folder), network, target.parse()?);
    }
    ensure!(arguments.groups > 1, "--groups must be 2 or more");
    let scratch = tempfile::tempdir_in(&arguments.folder)
        .with_context(|| format!("cannot create a folder in {}", arguments.folder.display()))?;
    let [checkpoint, engine] = ["checkpoint", "engine"].map(|name| scratch.path().join(name));
    let text = std::fs::read_to_string(&arguments.config)
        .with_context(|| format!("cannot read {}", arguments.config.display()))?;
    let spec: SynthSpec =
        serde_json::from_str(&text).with_context(|| arguments.config.display().to_string())?;
    synthesize(&spec, 1, &checkpoint, |_, _| {})?;
    let options = ExportOptions {
        precision: Precision::Bf16,
        understanding_groups: arguments.groups,
        ..ExportOptions::default()
    };
    export_networks(&Checkpoint::open(&checkpoint)?, &options, &engine, &mut |_| {})?;

    let group = format!("understanding.{}", arguments.groups / 2);
    let mut builds = Vec::new();
    for network in ["action", "vision", "bev", group.as_str()] {
        for target in TARGETS {
            builds.push(build_in_process(&engine, network, target)?);
        }
    }
    Ok(json!({
        "bench": "engine-build",
        "config": arguments.config,
        "understanding_groups": arguments.groups,
        "precision": "bf16",
        "machine": MachineCard::read(Vec::new(), vec![builds[0]["library"].to_string()]),
        "builds": builds,
    }))
}

/// Builds one network in a new process of this program.
fn build_in_process(folder: &Path, network: &str, target: Target) -> anyhow::Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["engine-build", "--one"]).arg(folder).args([network, target.name()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("building {network} for {target} failed: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{network} for {target}"))
}

/// Builds one network and returns the measurements and the number of fused attentions.
fn build(folder: &Path, network: &str, target: Target) -> anyhow::Result<Value> {
    let file = NetworkFile::exported(folder, network)?;
    let predicted = predict(&file)?;
    let library = TensorRt::open(&mut |_| {})?;
    let request = BuildRequest::for_targets([target]);
    let report = library.build(&file, &request, &mut std::io::sink())?;
    let layers = report.layers.context("the library listed no layers")?;
    let found = layers.findings(&file.graph)?;
    ensure!(found.is_as_requested(), "the engine of {network} does not match its graph");
    let measured = json!({
        "peak_resident_bytes": report.peak_bytes,
        "engine_bytes": report.engine_bytes,
    });
    let predicted = json!({
        "peak_resident_bytes": predicted.host_memory_bytes + predicted.mapped_bytes,
        "engine_bytes": predicted.engine_bytes,
    });
    Ok(json!({
        "network": network,
        "target": target.name(),
        "library": report.library,
        "parse_s": report.parse_ns as f64 / 1e9,
        "build_s": report.build_ns as f64 / 1e9,
        "measured": measured,
        "predicted": predicted,
        "launches": found.launches,
        "attention_kernels": found.attention_kernels,
        "warnings": report.warnings,
    }))
}
