//! `tandem checkpoint …`: making checkpoints and looking at them.

use super::{Outcome, export, print};
use anyhow::Context;
use std::path::{Path, PathBuf};
use tandem::model::automot::tokenizer::Tokenizer;
use tandem_export::automot::Checkpoint;
use tandem_export::automot::checkpoint::{AutomotConfig, Inspection, inspect};
use tandem_export::automot::synth::{SynthSpec, synthesize, synthesize_sparse};
use tandem_export::automot::{ExportOptions, networks};
use tandem_export::folder::TOKENIZER_FILE;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Write a checkpoint with random or no weights, in AutoMoT's own format, of any size
    Synth(Synth),
    /// Print what a checkpoint holds and whether it can be exported; exits with 1 if it cannot
    Inspect(Inspect),
}

#[derive(clap::Args)]
pub(super) struct Inspect {
    /// Checkpoint folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct Synth {
    /// Sizes of the networks, JSON or YAML (see configs/), or the config.json of a Qwen3-VL or AutoMoT
    /// checkpoint or its folder
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
        Verb::Inspect(arguments) => {
            let mut found = inspect(&arguments.folder)?;
            if found.problems.is_empty()
                && let Err(error) = networks_of(&arguments.folder)
            {
                found.problems.push(format!("{error:#}"));
            }
            if found.files.iter().any(|file| file.name == TOKENIZER_FILE) {
                let loaded = Tokenizer::read(&arguments.folder.join(TOKENIZER_FILE));
                // A tokenizer that was refused already needs no second line.
                if let Err(error) = loaded
                    && found.problems.is_empty()
                {
                    found.problems.push(format!("{:#}", anyhow::Error::new(error)));
                }
            } else {
                found.notes.push(format!("no {TOKENIZER_FILE}: the networks cannot drive"));
            }
            if arguments.json {
                print::line(&serde_json::to_string_pretty(&found)?);
            } else {
                print::line(&describe(&found));
            }
            Ok(if found.problems.is_empty() { Outcome::Done } else { Outcome::CheckFailed })
        }
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

/// Builds the networks that `export` writes by default, and drops them.
fn networks_of(folder: &Path) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(folder)?;
    networks::all(&checkpoint, &ExportOptions::default(), |_| {})?;
    Ok(())
}

/// Reads a specification (YAML includes JSON) or the `config.json` of a published model, and prints
/// what was assumed about the latter.
pub(super) fn read_spec(path: &Path) -> anyhow::Result<SynthSpec> {
    let path = if path.is_dir() { &path.join("config.json") } else { path };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read configuration {}", path.display()))?;
    if SynthSpec::is_published(&text) {
        let (spec, notes) = SynthSpec::of_published(path)?;
        notes.iter().for_each(|text| print::note(&format!("note: {text}")));
        return Ok(spec);
    }
    serde_saphyr::from_str(&text)
        .with_context(|| format!("{} is not a checkpoint configuration", path.display()))
}

/// Tables of files and element types, then the sizes of the networks, notes and problems.
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
    if let Some(config) = &found.config {
        parts.push(describe_config(config));
    }
    let lines = |title: &str, texts: &[String]| {
        texts.iter().map(|text| format!("{title}: {text}")).collect::<Vec<_>>().join("\n")
    };
    if !found.notes.is_empty() {
        parts.push(lines("note", &found.notes));
    }
    parts.push(if found.problems.is_empty() {
        "it can be exported".to_owned()
    } else {
        format!("{}\nit cannot be exported", lines("problem", &found.problems))
    });
    parts.join("\n\n")
}

fn describe_config(config: &AutomotConfig) -> String {
    let AutomotConfig { text, vision, mot, bev, .. } = config;
    [
        format!(
            "vision tower: {} blocks of {}, {} heads, patches of {} pixels, deepstack after {:?}",
            vision.depth,
            vision.hidden_size,
            vision.num_heads,
            vision.patch_size,
            vision.deepstack_visual_indexes
        ),
        format!(
            "understanding expert: {} layers of {}, {} query and {} key heads of {}, vocabulary of \
             {}, rope theta {}",
            text.num_hidden_layers,
            text.hidden_size,
            text.num_attention_heads,
            text.num_key_value_heads,
            text.head_dim,
            text.vocab_size,
            text.rope_theta
        ),
        format!(
            "action expert: {} query and {} key heads, {} decision, {} route and {} waypoint queries",
            mot.num_attention_heads,
            mot.num_key_value_heads,
            mot.reasoning_tokens,
            mot.route_tokens,
            mot.waypoint_tokens
        ),
        format!(
            "BEV encoder: {} and {}, picture {}x{}, LiDAR histogram {}x{} of {} channels",
            bev.image_architecture,
            bev.lidar_architecture,
            bev.image_size[0],
            bev.image_size[1],
            bev.lidar_size[0],
            bev.lidar_size[1],
            bev.lidar_channels
        ),
    ]
    .join("\n")
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
