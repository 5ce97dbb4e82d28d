//! RegNetY trunks: widths and depths from a table of architectures or from stored tensors.

use super::Network;
use crate::checkpoint::{CheckpointError, TensorEntry};
use std::collections::BTreeMap;
use std::path::Path;

/// Channels after the stem of every RegNetY.
const STEM: usize = 32;

/// The sizes of one convolutional trunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trunk {
    pub in_channels: usize,
    pub stem: usize,
    /// The four stages. Each halves the height and width of the map.
    pub stages: [Stage; 4],
}

/// One stage of a trunk: a sequence of blocks of the same width.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stage {
    /// Channels of the output of each block.
    pub width: usize,
    /// Channels per group of the 3×3 convolutions.
    pub group_width: usize,
    /// Hidden width of the squeeze-excite of each block.
    pub squeezed: Vec<usize>,
}

/// Names, group widths, widths and depths from the model definitions of the timm library.
const ARCHITECTURES: [(&str, usize, [usize; 4], [usize; 4]); 5] = [
    ("regnety_002", 8, [24, 56, 152, 368], [1, 1, 4, 7]),
    ("regnety_004", 8, [48, 104, 208, 440], [1, 3, 6, 6]),
    ("regnety_008", 16, [64, 128, 320, 768], [1, 3, 8, 2]),
    ("regnety_016", 24, [48, 120, 336, 888], [2, 6, 17, 2]),
    ("regnety_032", 24, [72, 216, 576, 1512], [2, 5, 13, 1]),
];

impl Trunk {
    /// Returns the trunk of a named architecture; `None` for an unknown name.
    pub fn of_architecture(name: &str, in_channels: usize) -> Option<Self> {
        let (_, group_width, widths, depths) =
            *ARCHITECTURES.iter().find(|architecture| architecture.0 == name)?;
        let stages = std::array::from_fn(|stage| {
            let width = widths[stage];
            let inputs = if stage == 0 { STEM } else { widths[stage - 1] };
            // A quarter of the block's input; all widths are multiples of eight.
            let mut squeezed = vec![width / 4; depths[stage]];
            squeezed[0] = inputs / 4;
            Stage { width, group_width, squeezed }
        });
        Some(Self { in_channels, stem: STEM, stages })
    }

    /// Names of the supported architectures.
    pub fn architectures() -> impl Iterator<Item = &'static str> {
        ARCHITECTURES.iter().map(|architecture| architecture.0)
    }

    /// Derives the trunk from the shapes of the leading tensors under `prefix`. The caller has
    /// to check the other shapes.
    pub(super) fn of_tensors(
        dir: &Path,
        tensors: &BTreeMap<String, TensorEntry>,
        prefix: &str,
        in_channels: usize,
    ) -> Result<Self, CheckpointError> {
        let dimension = |name: &str, axis: usize| {
            let name = format!("{prefix}{name}");
            let entry = tensors.get(&name).filter(|entry| entry.shape.len() > axis);
            entry.map(|entry| entry.shape[axis]).ok_or_else(|| CheckpointError::MissingTensor {
                dir: dir.into(),
                tensor: name,
                network: Some(Network::Bev.label()),
                shape: Vec::new(),
            })
        };
        let stage = |stage: usize| -> Result<Stage, CheckpointError> {
            let blocks = (1..)
                .take_while(|block| {
                    let name = format!("{prefix}s{stage}.b{block}.conv1.conv.weight");
                    tensors.contains_key(&name)
                })
                .count();
            let squeezed = (1..=blocks.max(1))
                .map(|block| dimension(&format!("s{stage}.b{block}.se.fc1.weight"), 0))
                .collect::<Result<_, _>>()?;
            Ok(Stage {
                width: dimension(&format!("s{stage}.b1.conv1.conv.weight"), 0)?,
                group_width: dimension(&format!("s{stage}.b1.conv2.conv.weight"), 1)?,
                squeezed,
            })
        };
        Ok(Self {
            in_channels,
            stem: dimension("stem.conv.weight", 0)?,
            stages: [stage(1)?, stage(2)?, stage(3)?, stage(4)?],
        })
    }

    /// Channels of the last stage.
    pub fn width(&self) -> usize {
        self.stages[3].width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the table with the published generator of RegNet widths: a line,
    /// quantized to powers of a step.
    #[track_caller]
    fn check(name: &str, first: f64, slope: f64, step: f64, group: usize, depth: usize) {
        let mut stages: Vec<(usize, usize)> = Vec::new();
        for block in 0..depth {
            let power = ((first + slope * block as f64) / first).ln() / step.ln();
            let width = (first * step.powf(power.round()) / 8.0).round() * 8.0;
            let width = (width / group as f64).round_ties_even() as usize * group;
            match stages.last_mut() {
                Some((last, blocks)) if *last == width => *blocks += 1,
                _ => stages.push((width, 1)),
            }
        }
        let trunk = Trunk::of_architecture(name, 3).unwrap();
        let table: Vec<_> =
            trunk.stages.iter().map(|stage| (stage.width, stage.squeezed.len())).collect();
        assert_eq!(table, stages, "{name}");
        assert!(trunk.stages.iter().all(|stage| stage.group_width == group));
    }

    #[test]
    fn table_matches_the_published_generator() {
        check("regnety_002", 24.0, 36.44, 2.49, 8, 13);
        check("regnety_004", 48.0, 27.89, 2.09, 8, 16);
        check("regnety_008", 56.0, 38.84, 2.4, 16, 14);
        check("regnety_016", 48.0, 20.71, 2.65, 24, 27);
        check("regnety_032", 80.0, 42.63, 2.66, 24, 21);
    }

    #[test]
    fn squeeze_width_is_a_quarter_of_the_block_input() {
        let trunk = Trunk::of_architecture("regnety_032", 3).unwrap();
        assert_eq!(trunk.stages[0].squeezed, [8, 18]);
        assert_eq!(trunk.stages[3].squeezed, [144]);
        assert_eq!(Trunk::of_architecture("resnet50", 3), None);
    }
}
