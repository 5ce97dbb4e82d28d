//! Lower bounds of the stages' latencies on a device.

use anyhow::Context;
use std::path::Path;
use tandem::model::automot::networks::Contracts;
use tandem_profile::roofline::lower_bound::{LowerBounds, costs, lower_bounds};
use tandem_profile::roofline::peak_rates::{self, PeakRates};

/// Parts of a GPU's name that mark another board than the one with known peak rates.
const OTHER_BOARDS: [&str; 6] = ["pcie", "nvl", "mig", "laptop", "max-q", "40gb"];

/// Lower bounds of a tick, and of prefills with all frames new and with one.
pub(super) struct DeviceBounds {
    pub(super) peak_rates: PeakRates,
    pub(super) all_new: LowerBounds,
    pub(super) one_new: LowerBounds,
}

/// Computes the lower bounds of an engine folder for the peak rates `named`, or else for those of
/// the GPU `gpu`. Fails if the peak rates are not known, or a network cannot be read.
pub(super) fn of_device(
    engine: &Path,
    named: Option<&str>,
    gpu: Option<&str>,
) -> anyhow::Result<DeviceBounds> {
    let name = match (named, gpu) {
        (Some(name), _) => Some(name),
        (None, Some(gpu)) => peak_rates_of(gpu),
        (None, None) => None,
    };
    let name = name.context("the peak rates of this device are not known")?;
    let peak_rates = peak_rates::device(name)
        .with_context(|| format!("the peak rates of device {name:?} are not known"))?;
    let outline = Contracts::read(engine)?.outline(super::FRAME_SPACING_TICKS)?;
    let costs = costs(engine, &outline)?;
    let lower_bounds = |frames| lower_bounds(&costs, &peak_rates, frames);
    Ok(DeviceBounds {
        all_new: lower_bounds(outline.frames)?,
        one_new: lower_bounds(1)?,
        peak_rates,
    })
}

/// Returns the name of a GPU's peak rates; `gpu` is its name in the driver.
fn peak_rates_of(gpu: &str) -> Option<&'static str> {
    let gpu = gpu.to_lowercase();
    if OTHER_BOARDS.iter().any(|board| gpu.contains(board)) {
        return None;
    }
    let words: Vec<&str> = gpu.split([' ', '-']).collect();
    // The names of GeForce cards consist of two words, others of one.
    peak_rates::devices()
        .find(|name| words.contains(name) || words.windows(2).any(|pair| pair.concat() == *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpu_has_the_peak_rates_of_its_own_board_or_none() {
        assert_eq!(peak_rates_of("NVIDIA H100 80GB HBM3"), Some("h100"));
        assert_eq!(peak_rates_of("NVIDIA H200"), Some("h200"));
        assert_eq!(peak_rates_of("NVIDIA A100-SXM4-80GB"), Some("a100"));
        assert_eq!(peak_rates_of("NVIDIA GeForce RTX 4090"), Some("rtx4090"));
        for other in [
            "NVIDIA H100 PCIe",
            "NVIDIA H100 NVL",
            "NVIDIA A100-SXM4-40GB",
            "NVIDIA GeForce RTX 4090 Laptop GPU",
            "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
            "Tesla T4",
        ] {
            assert_eq!(peak_rates_of(other), None, "{other}");
        }
    }
}
