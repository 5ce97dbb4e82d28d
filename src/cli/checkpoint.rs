//! `tandem checkpoint …`: making checkpoints.

use super::{Outcome, export, print};
use anyhow::Context;
use std::path::{Path, PathBuf};
use tandem_export::synth::{SynthSpec, synthesize, synthesize_sparse};

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Write a checkpoint with random or no weights, in AutoMoT's own format, of any size
    Synth(Synth),
}

#[derive(clap::Args)]
pub(super) struct Synth {
    /// Sizes of the networks, JSON or YAML; see configs/
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Leave the weights out: the file has its full length, takes no disk, and reads as zeros
    #[arg(long, conflicts_with = "seed")]
    sparse: bool,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(verb: &Verb) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Synth(arguments) => {
            let spec = read_spec(&arguments.config)?;
            let out = &arguments.out;
            let weights = if arguments.sparse {
                synthesize_sparse(&spec, out).with_context(|| writing(out))?;
                "all weights left out (zero)".to_owned()
            } else {
                synth(&spec, arguments.seed, out)?;
                format!("random weights (seed {})", arguments.seed)
            };
            print::line(&format!("wrote a checkpoint with {weights} to {}", out.display()));
            Ok(Outcome::Done)
        }
    }
}

/// Reads a specification; YAML includes JSON.
pub(super) fn read_spec(path: &Path) -> anyhow::Result<SynthSpec> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read configuration {}", path.display()))?;
    serde_saphyr::from_str(&text)
        .with_context(|| format!("{} is not a checkpoint configuration", path.display()))
}

/// Writes a checkpoint with a progress bar.
pub(super) fn synth(spec: &SynthSpec, seed: u64, out: &Path) -> anyhow::Result<()> {
    let bar = export::bytes_bar("writing weights");
    synthesize(spec, seed, out, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .with_context(|| writing(out))?;
    bar.finish_and_clear();
    Ok(())
}

/// What is being done when writing fails.
fn writing(out: &Path) -> String {
    format!("writing a checkpoint to {}", out.display())
}
