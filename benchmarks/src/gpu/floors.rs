//! The least time that the stages can take on a device.

use anyhow::Context;
use std::path::Path;
use tandem::model::automot::networks::Contracts;
use tandem_profile::roofline::ceilings::{self, Ceilings};
use tandem_profile::roofline::floor::{Floors, costs, floors};

/// Words in a GPU's name that say it is another board than the one whose ceilings are known.
const OTHER_BOARDS: [&str; 6] = ["pcie", "nvl", "mig", "laptop", "max-q", "40gb"];

/// Floors of a tick and of refreshes with all frames new and with one.
pub(super) struct Known {
    pub(super) ceilings: Ceilings,
    pub(super) all_new: Floors,
    pub(super) one_new: Floors,
}

/// Floors of an engine folder under the ceilings of that name, or of the GPU of that name.
///
/// # Errors
/// If no such ceilings are known, or a network cannot be read.
pub(super) fn known(
    engine: &Path,
    named: Option<&str>,
    gpu: Option<&str>,
) -> anyhow::Result<Known> {
    let name = match (named, gpu) {
        (Some(name), _) => Some(name),
        (None, Some(gpu)) => ceilings_of(gpu),
        (None, None) => None,
    };
    let name = name.context("no ceilings are known for this device")?;
    let ceilings = ceilings::device(name)
        .with_context(|| format!("no device {name:?} is among the known ceilings"))?;
    let outline = Contracts::read(engine)?.outline(super::FRAME_SPACING_TICKS)?;
    let costs = costs(engine, &outline)?;
    let floors = |frames| floors(&costs, &ceilings, frames);
    Ok(Known { all_new: floors(outline.frames)?, one_new: floors(1)?, ceilings })
}

/// Name of the ceilings of a GPU, by the name that its driver gives.
fn ceilings_of(gpu: &str) -> Option<&'static str> {
    let gpu = gpu.to_lowercase();
    if OTHER_BOARDS.iter().any(|board| gpu.contains(board)) {
        return None;
    }
    let words: Vec<&str> = gpu.split([' ', '-']).collect();
    // Names of GeForce cards are two words, those of the others one.
    ceilings::devices()
        .find(|name| words.contains(name) || words.windows(2).any(|pair| pair.concat() == *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_has_the_ceilings_of_its_own_board_or_none() {
        assert_eq!(ceilings_of("NVIDIA H100 80GB HBM3"), Some("h100"));
        assert_eq!(ceilings_of("NVIDIA H200"), Some("h200"));
        assert_eq!(ceilings_of("NVIDIA A100-SXM4-80GB"), Some("a100"));
        assert_eq!(ceilings_of("NVIDIA GeForce RTX 4090"), Some("rtx4090"));
        for other in [
            "NVIDIA H100 PCIe",
            "NVIDIA H100 NVL",
            "NVIDIA A100-SXM4-40GB",
            "NVIDIA GeForce RTX 4090 Laptop GPU",
            "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
            "Tesla T4",
        ] {
            assert_eq!(ceilings_of(other), None, "{other}");
        }
    }
}
