//! Description of a model's networks for reports, independent of the family.

use crate::timing::Stage;
use tandem_export::contract::Contract;

/// The networks of a model folder by the stage that times them.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelOutline {
    /// Stages with networks, those of the slow expert first.
    pub stages: Vec<StageNetworks>,
    /// Number of camera frames in a prompt.
    pub frames: usize,
    /// Ticks between two frames of a prompt.
    pub frame_spacing_ticks: u64,
    /// Maximum number of tokens in a prefix.
    pub prefix_capacity: usize,
}

/// Networks that one stage runs in sequence.
#[derive(Clone, PartialEq, Debug)]
pub struct StageNetworks {
    pub stage: Stage,
    pub runs: Runs,
    pub networks: Vec<Contract>,
}

/// Rate at which the networks of a stage run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Runs {
    /// Once per tick.
    EachTick,
    /// Once per prefill.
    EachPrefill,
    /// Once for each frame that no earlier prefill has encoded.
    EachNewFrame,
}

impl Runs {
    /// Returns the number of runs in one tick or prefill with `new_frames` new frames.
    pub fn count(self, new_frames: usize) -> usize {
        match self {
            Self::EachTick | Self::EachPrefill => 1,
            Self::EachNewFrame => new_frames,
        }
    }
}
