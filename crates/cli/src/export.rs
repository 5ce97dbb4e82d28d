//! `tandem export`: a checkpoint folder to ONNX networks.

use super::{Outcome, print};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use tandem::model::automot::tokenizer::Tokenizer;
use tandem::timing::Stopwatch;
use tandem_export::checkpoint::Checkpoint;
use tandem_export::folder::{Progress, Summary, TOKENIZER_FILE, export_networks};
use tandem_export::networks::{ExportOptions, Precision, WeightStorage};
use tandem_export::onnx::OPSET;
use tandem_export::weights::WeightFile;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Checkpoint folder (config.json, bev_config.json, model.safetensors, tokenizer.json)
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Folder to write; an earlier export there is replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// f32 for CPUs, bf16 or f16 for GPUs, bf16-emulated for CPUs that shall round as a GPU does (slow)
    #[arg(long, default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Height and width of the frames that the vision tower sees, pixels
    #[arg(long, default_value = "256x512", value_parser = frame_size, value_name = "HxW")]
    frame_size: [usize; 2],
    /// Frames in one prompt
    #[arg(long, default_value_t = 4)]
    frames: usize,
    /// Tokens that a prefix has room for [default: the multiple of 64 that holds every prompt]
    #[arg(long, value_name = "TOKENS")]
    prefix_capacity: Option<usize>,
    /// Divide the understanding expert into so many networks, for engines that run one after another
    #[arg(long, default_value_t = 1, value_name = "GROUPS")]
    understanding_groups: usize,
    /// Add outputs for values in between, for comparing layer by layer
    #[arg(long)]
    probes: bool,
    /// Where weights go that need no conversion: copy (into the folder, which is then complete), link
    /// (to the checkpoint, which ONNX's checker and ONNX Runtime refuse to follow), or auto (copy up
    /// to 1 GiB; beyond that clone where the file system can, else link)
    #[arg(long, default_value = "auto", value_parser = storage)]
    weights: WeightStorage,
    /// Read every weight and warn of NaN and infinite values
    #[arg(long)]
    check_values: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let options = ExportOptions {
        precision: arguments.precision,
        frame_size: arguments.frame_size,
        frames: arguments.frames,
        prefix_capacity: arguments.prefix_capacity,
        understanding_groups: arguments.understanding_groups,
        probes: arguments.probes,
        weights: arguments.weights,
    };
    let watch = Stopwatch::start();
    let checkpoint = open(&arguments.checkpoint, arguments.check_values)?;
    let summary = export(&checkpoint, &options, &arguments.out)?;
    let seconds = watch.elapsed().as_secs_f64();
    if arguments.json {
        print::line(&serde_json::to_string_pretty(&summary)?);
    } else {
        print::line(&describe(&summary, &arguments.out));
        print::line(&format!("done in {seconds:.1} s"));
    }
    Ok(Outcome::Done)
}

/// Opens and checks a checkpoint and its tokenizer, passing warnings on.
pub(super) fn open(folder: &Path, check_values: bool) -> anyhow::Result<Checkpoint> {
    let checkpoint = Checkpoint::open(folder)?;
    for warning in checkpoint.check()? {
        print::note(&format!("warning: {warning}"));
    }
    let tokenizer = folder.join(TOKENIZER_FILE);
    if tokenizer.exists() {
        Tokenizer::read(&tokenizer)?;
    }
    if check_values {
        let bar = bytes_bar("checking values");
        let warnings = checkpoint.scan_values(&mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        for warning in warnings {
            print::note(&format!("warning: {warning}"));
        }
    }
    Ok(checkpoint)
}

/// Exports with a progress bar.
pub(super) fn export(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    out: &Path,
) -> anyhow::Result<Summary> {
    let bar = bytes_bar("exporting");
    let summary = export_networks(checkpoint, options, out, &mut |progress| match progress {
        Progress::Network(name) => bar.set_message(format!("drawing {name}")),
        Progress::Weights { written, total } => {
            bar.set_message("converting weights");
            bar.set_length(total);
            bar.set_position(written);
        }
        Progress::Syncing => bar.set_message("writing to disk"),
    })
    .with_context(|| format!("exporting {} to {}", checkpoint.dir().display(), out.display()))?;
    bar.finish_and_clear();
    Ok(summary)
}

/// A table of what an export holds.
pub(super) fn describe(summary: &Summary, out: &Path) -> String {
    let rows: Vec<Vec<String>> = summary
        .networks
        .iter()
        .map(|(name, hash)| vec![name.clone(), hash[..12].to_owned()])
        .collect();
    let mut lines = vec![
        print::table(&["network", "graph SHA-256"], &rows),
        format!(
            "exported to {}: prefix capacity {} tokens, {:.1} MB converted, folded or copied, {}",
            out.display(),
            summary.prefix_capacity,
            summary.converted_bytes as f64 / 1e6,
            if summary.weight_files.is_empty() {
                "nothing read from the checkpoint".to_owned()
            } else {
                format!("the rest read from {}", summary.weight_files.join(", "))
            },
        ),
        format!(
            "the graphs use operator set {OPSET}: ONNX Runtime 1.24 or later and onnx 1.19 or later \
             open them"
        ),
    ];
    if is_linked(summary, out) {
        lines.push(
            "weights are links to the checkpoint, which ONNX's checker and ONNX Runtime refuse to \
             follow; for a folder that they open, give --weights copy"
                .to_owned(),
        );
    }
    lines.join("\n")
}

/// True if weights of the folder are links.
fn is_linked(summary: &Summary, out: &Path) -> bool {
    let is_link = |file: &WeightFile| out.join(&file.name).is_symlink();
    summary.weights.iter().any(is_link)
}

pub(super) fn bytes_bar(message: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {bytes}/{total_bytes}")
        .expect("the template is a constant");
    ProgressBar::new(0).with_style(style).with_message(message)
}

pub(super) fn precision(text: &str) -> Result<Precision, String> {
    match text {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        "f16" => Ok(Precision::F16),
        "bf16-emulated" => Ok(Precision::Bf16Emulated),
        _ => Err("f32, bf16, f16 or bf16-emulated".into()),
    }
}

fn storage(text: &str) -> Result<WeightStorage, String> {
    match text {
        "auto" => Ok(WeightStorage::Auto),
        "link" => Ok(WeightStorage::Link),
        "copy" => Ok(WeightStorage::Copy),
        _ => Err("auto, link or copy".into()),
    }
}

fn frame_size(text: &str) -> Result<[usize; 2], String> {
    let numbers = text.split_once('x').map(|(height, width)| (height.parse(), width.parse()));
    match numbers {
        Some((Ok(height), Ok(width))) => Ok([height, width]),
        _ => Err("HEIGHTxWIDTH in pixels, such as 256x512".into()),
    }
}
