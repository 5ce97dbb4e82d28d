//! `tandem build`: a network folder to an engine folder.

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
    Available, BackendKind, BuildError, BuildRecord, BuildStep, Builder, Prediction, StepListener,
    Target, UnknownTarget, hashes_file,
};
use tandem_export::options::Precision;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Folder that `tandem export` wrote
    #[arg(long, value_name = "DIR")]
    network: PathBuf,
    /// Engine folder to write; engines in it that are still right are kept
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What the engines run on, comma-separated: cpu, native, sm75, sm80, sm86, sm89, sm120, sm121
    /// [default: cpu, or native with a TensorRT back end]
    #[arg(long, value_delimiter = ',', value_parser = target, value_name = "TARGETS")]
    target: Vec<Target>,
    /// Library that the engines are for: onnxruntime, tensorrt-rtx or tensorrt
    #[arg(long, default_value = "onnxruntime", value_parser = backend)]
    backend: BackendKind,
    /// What the networks compute in, as they were exported: f32, bf16, f16 or bf16-emulated [default: as
    /// exported]
    #[arg(long, value_parser = precision)]
    precision: Option<Precision>,
    /// Print JSON
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
        available: &Available::here,
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
            bar.suspend(|| phases.suspend(|| print::note(&say(&progress))));
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
            print::note(
                "interrupted: finished engines are kept, the same command goes on from here",
            );
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

/// The library that `kind` names, if this binary has it.
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
                "this tandem was built without back end {kind}; build one that has it with `cargo \
                 build --release --features {feature}` (engines/README.md says what that takes), and \
                 run this command again"
            )
        }
    }
}

/// Shows the phase that a library is in.
fn phases_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
        .expect("the template is a constant");
    ProgressBar::no_length().with_style(style)
}

/// On a terminal every step is shown as it comes. Elsewhere, as in a log, each step of the whole is a
/// line: there are a handful in the minutes that a large network takes.
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

/// One line on how far it is.
fn say(progress: &Progress<'_>) -> String {
    match progress {
        Progress::Waiting { holder } => {
            let holder = if holder.is_empty() { "another process" } else { holder };
            format!("{holder} is building this folder; waiting for it to end")
        }
        Progress::Hashing { network, .. } => format!("{network}: hashing weights"),
        Progress::Kept { network } => format!("{network}: the engine that is there is right"),
        Progress::Building { network, predicted } => {
            format!("{network}: building, with {}", predicted_line(predicted))
        }
        Progress::Built { network, build } => format!("{network}: {}", built_line(build)),
    }
}

fn predicted_line(predicted: &Prediction) -> String {
    format!(
        "about {} MB of memory beside {} MB of mapped files, and {} MB of disk",
        megabytes(predicted.memory_bytes),
        megabytes(predicted.mapped_bytes),
        megabytes(predicted.scratch_bytes + predicted.result_bytes),
    )
}

fn built_line(build: &BuildRecord) -> String {
    let peak = build.peak_resident_bytes.map(megabytes);
    format!(
        "built in {:.2} s, {} MB resident at most ({} predicted), {} MB written ({} predicted)",
        build.seconds,
        peak.as_deref().unwrap_or("an unknown number of"),
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
            format!("{:.2}", network.build.seconds),
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
        "s",
        "memory MB predicted",
        "measured",
        "disk MB predicted",
        "measured",
    ];
    print::table(&header, &rows.collect::<Vec<_>>())
}

fn target(text: &str) -> Result<Target, String> {
    text.parse().map_err(|error: UnknownTarget| error.to_string())
}

fn backend(text: &str) -> Result<BackendKind, String> {
    let all = [BackendKind::OnnxRuntime, BackendKind::TensorrtRtx, BackendKind::Tensorrt];
    let names = || all.map(BackendKind::as_str).join(", ");
    all.into_iter().find(|kind| kind.as_str() == text).ok_or_else(names)
}

fn precision(text: &str) -> Result<Precision, String> {
    match text {
        "fp16" => Ok(Precision::F16),
        _ => export::precision(text),
    }
}
