//! `tandem export`: writes the ONNX networks of a checkpoint.

use super::{Outcome, print};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tandem::runtime::{FamilyNameError, family};
use tandem::timing::Stopwatch;
use tandem_export::family::OpenCheckpoint;
use tandem_export::folder::{Progress, Summary, export_networks};
use tandem_export::onnx::OPSET;
use tandem_export::options::{Options, PREFIX_CAPACITY, Precision, WeightStorage};
use tandem_export::registry::Families;
use tandem_export::weights::WeightFile;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem export --checkpoint checkpoint --out network
  tandem export --checkpoint checkpoint --precision bf16 --understanding-groups 4 --out network")]
pub(super) struct Arguments {
    /// Checkpoint folder (config.json, bev_config.json, model.safetensors, tokenizer.json)
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Folder to write; an earlier export in it is replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// f32 for CPUs; bf16 or f16 for GPUs; bf16-emulated to reproduce a GPU's rounding on CPUs
    /// (slow)
    #[arg(long, default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Height and width of the vision tower's input frames, pixels [default of automot: 256x512]
    #[arg(long, value_parser = frame_size, value_name = "HxW")]
    frame_size: Option<[usize; 2]>,
    /// Number of frames per prompt [default of automot: 4]
    #[arg(long)]
    frames: Option<usize>,
    /// Capacity of the prefix KV cache, tokens [default: the multiple of 64 that fits every prompt]
    #[arg(long, value_name = "TOKENS")]
    prefix_capacity: Option<usize>,
    /// Number of networks to split the understanding expert into; their engines run in sequence
    #[arg(long, value_name = "GROUPS")]
    understanding_groups: Option<usize>,
    /// Option of the checkpoint's model family that has no flag; the value is JSON or text
    #[arg(long = "option", value_parser = own_option, value_name = "NAME=VALUE")]
    own: Vec<(String, Value)>,
    /// Add outputs for intermediate values, for comparisons layer by layer
    #[arg(long)]
    probes: bool,
    /// Storage of weights that need no conversion: copy (into the folder, which is then
    /// self-contained), link (to the checkpoint; ONNX's checker and ONNX Runtime do not follow
    /// links), or auto (copy up to 1 GiB; larger files are cloned where the file system supports
    /// it, else linked)
    #[arg(long, default_value = "auto", value_parser = storage)]
    weights: WeightStorage,
    /// Read every weight and warn of NaN and infinite values
    #[arg(long)]
    check_values: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Check of the values of all weights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    Check,
    Skip,
}

impl Arguments {
    fn values(&self) -> Values {
        if self.check_values { Values::Check } else { Values::Skip }
    }

    /// Returns the given options. Missing options of the model family take their defaults.
    fn options(&self) -> Options {
        let given = [
            ("frame_size", self.frame_size.map(|[height, width]| json!([height, width]))),
            ("frames", self.frames.map(Value::from)),
            (PREFIX_CAPACITY, self.prefix_capacity.map(Value::from)),
            ("understanding_groups", self.understanding_groups.map(Value::from)),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Options {
            precision: self.precision,
            own: given.chain(self.own.iter().cloned()).collect(),
            probes: self.probes,
            weights: self.weights,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let options = arguments.options();
    let watch = Stopwatch::start();
    let checkpoint = open(&arguments.checkpoint, arguments.values())?;
    let summary = export(&*checkpoint, options, &arguments.out)?;
    let seconds = watch.elapsed().as_secs_f64();
    if arguments.json {
        print::line(&serde_json::to_string_pretty(&summary)?);
    } else {
        print::line(&describe(&summary, &arguments.out));
        print::line(&format!("done in {seconds:.1} s"));
    }
    Ok(Outcome::Done)
}

/// Opens a checkpoint, checks it and its companion files, and prints warnings.
pub(super) fn open(folder: &Path, values: Values) -> anyhow::Result<Box<dyn OpenCheckpoint>> {
    let checkpoint = Families::known().open(folder)?;
    for warning in checkpoint.check()? {
        print::note(&format!("warning: {warning}"));
    }
    for companion in checkpoint.family().companions() {
        if folder.join(companion).exists() {
            check_companion(checkpoint.family().name(), folder, companion)?;
        }
    }
    if values == Values::Check {
        let bar = bytes_bar("checking values");
        let warnings = checkpoint.tensors().scan_values(&mut |done, total| {
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

/// Checks that the runtime can read the companion file `name` of a checkpoint of `model`, if it has
/// that family.
pub(super) fn check_companion(model: &str, folder: &Path, name: &str) -> anyhow::Result<()> {
    match family(model) {
        Ok(family) => Ok(family.check_companion(name, &folder.join(name))?),
        Err(FamilyNameError::Unknown { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Exports with a progress bar.
pub(super) fn export(
    checkpoint: &dyn OpenCheckpoint,
    options: Options,
    out: &Path,
) -> anyhow::Result<Summary> {
    let bar = bytes_bar("exporting");
    let summary = export_networks(checkpoint, options, out, &mut |progress| match progress {
        Progress::Network(name) => bar.set_message(format!("building {name}")),
        Progress::Weights { written, total } => {
            bar.set_message("converting weights");
            bar.set_length(total);
            bar.set_position(written);
        }
        Progress::Syncing => bar.set_message("writing to disk"),
    })
    .with_context(|| {
        format!("exporting {} to {}", checkpoint.tensors().dir().display(), out.display())
    })?;
    bar.finish_and_clear();
    Ok(summary)
}

/// Formats the networks of an export and the origin of its weights.
pub(super) fn describe(summary: &Summary, out: &Path) -> String {
    let rows: Vec<Vec<String>> = summary
        .networks
        .iter()
        .map(|(name, hash)| vec![name.clone(), hash[..12].to_owned()])
        .collect();
    let mut lines = vec![
        print::table(&["network", "graph SHA-256"], &rows),
        format!(
            "exported to {}: {}{} MB converted, folded or copied, {}",
            out.display(),
            summary
                .prefix_capacity
                .map_or(String::new(), |tokens| format!("prefix capacity {tokens} tokens, ")),
            print::megabytes(summary.converted_bytes),
            if summary.weight_files.is_empty() {
                "no weights read from the checkpoint".to_owned()
            } else {
                format!("other weights read from {}", summary.weight_files.join(", "))
            },
        ),
        format!(
            "the graphs use operator set {OPSET}; they need ONNX Runtime 1.24 or later and onnx 1.19 \
             or later"
        ),
    ];
    if is_linked(summary, out) {
        lines.push(
            "weights are links to the checkpoint, which ONNX's checker and ONNX Runtime do not follow; \
             use --weights copy for a folder that they can open"
                .to_owned(),
        );
    }
    lines.join("\n")
}

/// True if any weight file of the folder is a link.
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
        _ => Err("expected f32, bf16, f16 or bf16-emulated".into()),
    }
}

fn storage(text: &str) -> Result<WeightStorage, String> {
    match text {
        "auto" => Ok(WeightStorage::Auto),
        "link" => Ok(WeightStorage::Link),
        "copy" => Ok(WeightStorage::Copy),
        _ => Err("expected auto, link or copy".into()),
    }
}

fn own_option(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, such as frames=4")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

fn frame_size(text: &str) -> Result<[usize; 2], String> {
    let numbers = text.split_once('x').map(|(height, width)| (height.parse(), width.parse()));
    match numbers {
        Some((Ok(height), Ok(width))) => Ok([height, width]),
        _ => Err("expected HEIGHTxWIDTH in pixels, such as 256x512".into()),
    }
}
