//! `tandem build`: builds an engine folder from a network folder.

use super::print::megabytes;
use super::{Outcome, ending, export, identity, print};
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tandem::engine::build::{BuildFolderError, BuildRequest, Progress, Report, build};
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
#[cfg(any(feature = "tensorrt", feature = "tensorrt-enterprise"))]
use tandem::engine::tensorrt::TensorRt;
use tandem::engine::{
    BackendKind, BuildError, BuildRecord, BuildStep, Builder, FreeResources, Prediction,
    StepListener, Target, UnknownTarget, hashes_file,
};
use tandem_export::options::Precision;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem build --network network --out engine
  tandem build --network network --backend tensorrt-rtx --target sm89,sm120 --out engine")]
pub(super) struct Arguments {
    /// Network folder written by `tandem export`
    #[arg(long, value_name = "DIR")]
    network: PathBuf,
    /// Engine folder to write; engines in it that are up to date are kept
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Targets of the engines, comma-separated: cpu, native, sm75, sm80, sm86, sm89, sm120, sm121
    /// [default: cpu, or native with a TensorRT back end]
    #[arg(long, value_delimiter = ',', value_parser = target, value_name = "TARGETS")]
    target: Vec<Target>,
    /// Library that runs the engines: onnxruntime, tensorrt-rtx or tensorrt
    #[arg(long, default_value = "onnxruntime", value_parser = backend)]
    backend: BackendKind,
    /// Required precision of the networks: f32, bf16, f16 or bf16-emulated [default: any]
    #[arg(long, value_parser = precision)]
    precision: Option<Precision>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let targets = match (arguments.target.as_slice(), arguments.backend) {
        ([], BackendKind::OnnxRuntime) => vec![Target::Cpu],
        ([], BackendKind::TensorrtRtx | BackendKind::Tensorrt) => vec![Target::Native],
        (targets, _) => targets.to_vec(),
    };
    arguments.backend.check_targets(&targets)?;
    let builder = builder(arguments.backend)?;
    let cancel = ending::cancel_on_signal("stopping after this network")?;
    for path in identity::changed_sources(&arguments.network) {
        print::note(&identity::changed_source(&path, &arguments.network));
    }
    let bar = export::bytes_bar("hashing weights");
    let phases = phases_bar();
    let request = BuildRequest {
        network: &arguments.network,
        out: &arguments.out,
        targets: &targets,
        precision: arguments.precision,
        hashes: hashes_file(),
        available: &FreeResources::here,
        steps: step_listener(&phases),
        cancel: &cancel,
    };
    let report = build(&request, builder.as_ref(), &mut |progress| {
        let Progress::Hashing { network, done, total } = progress else {
            match progress {
                Progress::Building { .. } => phases.enable_steady_tick(Duration::from_millis(500)),
                _ => phases.reset(),
            }
            if matches!(progress, Progress::Built { .. }) {
                phases.disable_steady_tick();
                phases.set_message("");
            }
            bar.suspend(|| phases.suspend(|| print::note(&progress_line(&progress))));
            return;
        };
        bar.set_message(format!("hashing {network}"));
        bar.set_length(total);
        bar.set_position(done);
        if done == total {
            bar.reset();
        }
    });
    bar.finish_and_clear();
    phases.finish_and_clear();
    let report = match report {
        Err(BuildFolderError::Build(BuildError::Canceled)) => {
            print::note("interrupted: finished engines are kept; run the same command to continue");
            return Ok(Outcome::CheckFailed);
        }
        report => report.with_context(|| format!("building {}", arguments.out.display()))?,
    };
    if arguments.json {
        let value = json!({ "built": report.built, "engine": report.record });
        print::line(&serde_json::to_string_pretty(&value)?);
    } else {
        print::line(&describe(&report));
        print::line(&format!("engines in {}", arguments.out.display()));
    }
    Ok(Outcome::Done)
}

/// Opens the library that `kind` names, if this binary supports it.
fn builder(kind: BackendKind) -> anyhow::Result<Box<dyn Builder>> {
    match kind {
        BackendKind::OnnxRuntime => {
            Ok(Box::new(OnnxRuntime::open(CpuOptions::default(), &mut print::note)?))
        }
        #[cfg(all(feature = "tensorrt", not(feature = "tensorrt-enterprise")))]
        BackendKind::TensorrtRtx => Ok(Box::new(TensorRt::open(&mut print::note)?)),
        #[cfg(feature = "tensorrt-enterprise")]
        BackendKind::Tensorrt => Ok(Box::new(TensorRt::open(&mut print::note)?)),
        #[cfg_attr(
            any(feature = "tensorrt", feature = "tensorrt-enterprise"),
            expect(unreachable_patterns, reason = "the feature brings one of the two")
        )]
        BackendKind::TensorrtRtx | BackendKind::Tensorrt => {
            let feature = match kind {
                BackendKind::Tensorrt => "tensorrt-enterprise",
                _ => "tensorrt",
            };
            bail!(
                "this tandem was built without back end {kind}; build it with `cargo build --release \
                 --features {feature}` (see engines/README.md for the requirements) and run this \
                 command again"
            )
        }
    }
}

/// Returns a spinner that shows the current phase of the library.
fn phases_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
        .expect("the template is a constant");
    ProgressBar::no_length().with_style(style)
}

/// Returns a listener that shows every step on a terminal. Elsewhere, as in a log, it prints one
/// line per top-level step: a few in the minutes that a large network takes.
fn step_listener(bar: &ProgressBar) -> StepListener {
    let (bar, is_hidden) = (bar.clone(), bar.is_hidden());
    Arc::new(move |step| {
        let line = step_line(&step);
        match is_hidden {
            true if step.depth == 0 && step.step > 0 => print::note(&line),
            true => {}
            false => bar.set_message(line),
        }
    })
}

fn step_line(step: &BuildStep<'_>) -> String {
    let BuildStep { network, phase, step, steps, .. } = step;
    format!("{network}: {phase}, step {step} of {steps}")
}

fn progress_line(progress: &Progress<'_>) -> String {
    match progress {
        Progress::Waiting { holder } => {
            let holder = if holder.is_empty() { "another process" } else { holder };
            format!("waiting for {holder}, which is building this folder")
        }
        Progress::Hashing { network, .. } => format!("{network}: hashing weights"),
        Progress::Kept { network } => format!("{network}: the engine is up to date, kept"),
        Progress::Building { network, predicted } => {
            format!("{network}: building; predicted: {}", predicted_line(predicted))
        }
        Progress::Built { network, build } => format!("{network}: {}", built_line(build)),
    }
}

fn predicted_line(predicted: &Prediction) -> String {
    format!(
        "{} MB of memory, {} MB of mapped files, {} MB of disk",
        megabytes(predicted.memory_bytes),
        megabytes(predicted.mapped_bytes),
        megabytes(predicted.scratch_bytes + predicted.result_bytes),
    )
}

fn built_line(build: &BuildRecord) -> String {
    let peak = build.peak_resident_bytes.map(megabytes);
    format!(
        "built in {} s, peak resident memory {} MB (predicted {} MB), {} MB written (predicted {} MB)",
        print::three_digits(build.seconds),
        peak.as_deref().unwrap_or("unknown"),
        megabytes(build.predicted.memory_bytes + build.predicted.mapped_bytes),
        megabytes(build.result_bytes),
        megabytes(build.predicted.result_bytes),
    )
}

fn describe(report: &Report) -> String {
    let rows = report.record.networks.iter().map(|network| {
        let name = &network.contract.network;
        let was_built = report.built.contains(name);
        let predicted = &network.build.predicted;
        vec![
            name.clone(),
            network.key.sha256()[..12].to_owned(),
            if was_built { "built" } else { "kept" }.to_owned(),
            print::three_digits(network.build.seconds),
            megabytes(predicted.memory_bytes + predicted.mapped_bytes),
            network.build.peak_resident_bytes.map_or("–".into(), megabytes),
            megabytes(predicted.result_bytes),
            megabytes(network.build.result_bytes),
        ]
    });
    let header = [
        "network",
        "key",
        "",
        "build s",
        "memory MB predicted",
        "memory MB measured",
        "disk MB predicted",
        "disk MB measured",
    ];
    print::table(&header, &rows.collect::<Vec<_>>())
}

fn target(text: &str) -> Result<Target, String> {
    text.parse().map_err(|error: UnknownTarget| error.to_string())
}

fn backend(text: &str) -> Result<BackendKind, String> {
    let all = [BackendKind::OnnxRuntime, BackendKind::TensorrtRtx, BackendKind::Tensorrt];
    let names = || format!("expected one of {}", all.map(BackendKind::as_str).join(", "));
    all.into_iter().find(|kind| kind.as_str() == text).ok_or_else(names)
}

fn precision(text: &str) -> Result<Precision, String> {
    match text {
        "fp16" => Ok(Precision::F16),
        _ => export::precision(text),
    }
}
