//! `tandem checkpoint …`: creates and inspects checkpoints.

use super::{Outcome, export, print};
use anyhow::Context;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tandem_export::family::Family;
use tandem_export::inspection::{Inspection, inspect};
use tandem_export::options::Options;
use tandem_export::registry::Families;
use tandem_export::spec::SpecFile;
use tandem_export::synth::SynthWeights;

#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  tandem checkpoint synth --config configs/tiny.json --out checkpoint
  tandem checkpoint inspect checkpoint")]
pub(super) enum Verb {
    /// Write a checkpoint of any size with random or no weights, in the format of its model family
    Synth(Synth),
    /// Print the contents of a checkpoint; exit with 1 if it cannot be exported
    Inspect(Inspect),
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  tandem checkpoint inspect checkpoint")]
pub(super) struct Inspect {
    /// Checkpoint folder to inspect
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem checkpoint synth --config configs/tiny.json --out checkpoint
  tandem checkpoint synth --config configs/full.json --sparse --out checkpoint")]
pub(super) struct Synth {
    /// Sizes of the networks, JSON or YAML (see configs/; the key `family` names the model family,
    /// automot if absent), or the config.json of a Qwen3-VL or AutoMoT checkpoint, or its folder
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Seed of the random weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write a sparse file without weights: full length, no disk space, zeros
    #[arg(long, conflicts_with = "seed")]
    sparse: bool,
    /// Checkpoint folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(verb: &Verb) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Inspect(arguments) => {
            let folder = &arguments.folder;
            let mut found = inspect(folder)?;
            let family = Families::known().of_folder_or_default(folder)?;
            if found.problems.is_empty()
                && let Err(error) = networks_of(family, folder)
            {
                found.problems.push(format!("{error:#}"));
            }
            for companion in family.companions() {
                if !found.files.iter().any(|file| file.name == *companion) {
                    found.notes.push(format!("no {companion}: the networks cannot drive"));
                // A file that was rejected already gets no second line.
                } else if found.problems.is_empty()
                    && let Err(error) = export::check_companion(family.name(), folder, companion)
                {
                    found.problems.push(format!("{error:#}"));
                }
            }
            if arguments.json {
                print::line(&serde_json::to_string_pretty(&found)?);
            } else {
                print::line(&describe(&found));
            }
            Ok(if found.problems.is_empty() { Outcome::Done } else { Outcome::CheckFailed })
        }
        Verb::Synth(arguments) => {
            let (family, spec) = read_spec(&arguments.config)?;
            let out = &arguments.out;
            let weights = if arguments.sparse {
                family
                    .synthesize(&spec, SynthWeights::Sparse, out, &mut |_, _| {})
                    .with_context(|| writing(out))?;
                "no weights (sparse, zeros)".to_owned()
            } else {
                synth(family, &spec, arguments.seed, out)?;
                format!("random weights (seed {})", arguments.seed)
            };
            print::line(&format!("wrote a checkpoint with {weights} to {}", out.display()));
            Ok(Outcome::Done)
        }
    }
}

/// Builds the networks that `export` writes by default and drops them: a check.
fn networks_of(family: &dyn Family, folder: &Path) -> anyhow::Result<()> {
    family.open(folder)?.build(&Options::default(), &mut |_| {})?;
    Ok(())
}

/// Reads a specification, or the published configuration of a model, and prints the assumptions
/// made.
pub(super) fn read_spec(path: &Path) -> anyhow::Result<(&'static dyn Family, Value)> {
    spec_of(&SpecFile::read(path)?)
}

/// Returns the family and the content of a specification, and prints the assumptions made.
pub(super) fn spec_of(file: &SpecFile) -> anyhow::Result<(&'static dyn Family, Value)> {
    let family = Families::known().of_spec(file)?;
    let spec = family.read_spec(file)?;
    spec.notes.iter().for_each(|text| print::note(&format!("note: {text}")));
    Ok((family, spec.value))
}

/// Formats tables of files and element types, the sizes of the networks, notes and problems.
fn describe(found: &Inspection) -> String {
    let size = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let files: Vec<Vec<String>> = found
        .files
        .iter()
        .map(|file| {
            let tensors = file.tensors.map_or_else(String::new, |tensors| tensors.to_string());
            vec![file.name.clone(), size(file.bytes), tensors]
        })
        .collect();
    let mut parts = vec![
        format!("checkpoint {}", found.folder.display()),
        print::table(&["file", "MB", "tensors"], &files),
    ];
    if !found.dtypes.is_empty() {
        let types: Vec<Vec<String>> = found
            .dtypes
            .iter()
            .map(|(dtype, stored)| {
                vec![dtype.clone(), stored.tensors.to_string(), size(stored.bytes)]
            })
            .collect();
        parts.push(format!(
            "{} tensors, {} parameters\n{}",
            found.tensors,
            found.parameters,
            print::table(&["type", "tensors", "MB"], &types)
        ));
    }
    if !found.networks.is_empty() {
        parts.push(found.networks.join("\n"));
    }
    let lines = |title: &str, texts: &[String]| {
        texts.iter().map(|text| format!("{title}: {text}")).collect::<Vec<_>>().join("\n")
    };
    if !found.notes.is_empty() {
        parts.push(lines("note", &found.notes));
    }
    parts.push(if found.problems.is_empty() {
        "the checkpoint can be exported".to_owned()
    } else {
        format!("{}\nthe checkpoint cannot be exported", lines("problem", &found.problems))
    });
    parts.join("\n\n")
}

/// Writes a checkpoint with a progress bar.
pub(super) fn synth(
    family: &dyn Family,
    spec: &Value,
    seed: u64,
    out: &Path,
) -> anyhow::Result<()> {
    let bar = export::bytes_bar("writing weights");
    family
        .synthesize(spec, SynthWeights::Random { seed }, out, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })
        .with_context(|| writing(out))?;
    bar.finish_and_clear();
    Ok(())
}

/// Returns the context of a write error.
fn writing(out: &Path) -> String {
    format!("writing a checkpoint to {}", out.display())
}
