//! `tandem checkpoint …`: making checkpoints.

use super::{Outcome, export, print};
use anyhow::Context;
use std::path::{Path, PathBuf};
use tandem_export::synth::{SynthSpec, synthesize};

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Write a checkpoint with random weights, in AutoMoT's own format, of any size
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
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(verb: &Verb) -> anyhow::Result<Outcome> {
    match verb {
        Verb::Synth(arguments) => {
            let spec = read_spec(&arguments.config)?;
            synth(&spec, arguments.seed, &arguments.out)?;
            print::line(&format!(
                "wrote a checkpoint with random weights (seed {}) to {}",
                arguments.seed,
                arguments.out.display()
            ));
            Ok(Outcome::Done)
        }
    }
}

/// Reads a specification; YAML includes JSON.
fn read_spec(path: &Path) -> anyhow::Result<SynthSpec> {
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
    .with_context(|| format!("writing a checkpoint to {}", out.display()))?;
    bar.finish_and_clear();
    Ok(())
}
