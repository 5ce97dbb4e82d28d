//! AutoMoT checkpoints with random weights, and networks exported from them.

use std::path::{Path, PathBuf};
use tandem_export::automot::synth;
use tandem_export::automot::{Checkpoint, ExportOptions};
use tandem_export::folder::export_networks;
use tandem_export::summary::Summary;

/// `configs/tiny.json`: four layers, a small vocabulary, frames of the full size.
pub const TINY: &str = include_str!("../../../configs/tiny.json");

/// `configs/soak.json`: two layers and small frames, so that a tick takes milliseconds.
pub const SOAK: &str = include_str!("../../../configs/soak.json");

/// Writes a checkpoint of the configuration `spec` (JSON) with random weights to `folder`.
#[track_caller]
pub fn synthesize(spec: &str, seed: u64, folder: &Path) -> Checkpoint {
    let spec = serde_json::from_str(spec).unwrap();
    synth::synthesize(&spec, seed, folder, |_, _| {}).unwrap();
    Checkpoint::open(folder).unwrap()
}

/// Returns options for two small frames per prompt, which keep runs short.
pub fn small_frames() -> ExportOptions {
    ExportOptions { frame_size: [64, 96], frames: 2, ..ExportOptions::default() }
}

/// Exports the networks of `checkpoint` to `folder`.
#[track_caller]
pub fn export(checkpoint: &Checkpoint, options: &ExportOptions, folder: &Path) -> Summary {
    export_networks(checkpoint, options, folder, &mut |_| {}).unwrap()
}

/// Synthesizes the configuration `spec` to `root/checkpoint` and exports its networks with default
/// options to `root/networks`, which is returned.
#[track_caller]
pub fn networks(spec: &str, root: &Path) -> PathBuf {
    let networks = root.join("networks");
    let checkpoint = synthesize(spec, 1, &root.join("checkpoint"));
    export(&checkpoint, &ExportOptions::default(), &networks);
    networks
}
