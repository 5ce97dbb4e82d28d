//! What reports need to know of a model's networks, without knowing its family.

use crate::timing::Stage;
use tandem_export::contract::Contract;

/// The networks of a model folder by the stage that times them.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelOutline {
    /// Stages of networks, those of the slow expert first.
    pub stages: Vec<StageNetworks>,
    /// Camera frames of one refresh.
    pub frames: usize,
    /// Ticks between two of them.
    pub frame_spacing_ticks: u64,
    /// Tokens that a prefix has room for.
    pub prefix_capacity: usize,
}

/// The networks that one stage runs, one after the other.
#[derive(Clone, PartialEq, Debug)]
pub struct StageNetworks {
    /// The stage.
    pub stage: Stage,
    /// When it runs.
    pub runs: Runs,
    /// Contracts of its networks, in order.
    pub networks: Vec<Contract>,
}

/// How often the networks of a stage run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Runs {
    /// Once a tick.
    EachTick,
    /// Once a refresh.
    EachRefresh,
    /// Once for each frame of a refresh that no earlier refresh has read.
    EachNewFrame,
}

impl Runs {
    /// Runs in one tick or refresh with `new_frames` new frames.
    pub fn count(self, new_frames: usize) -> usize {
        match self {
            Self::EachTick | Self::EachRefresh => 1,
            Self::EachNewFrame => new_frames,
        }
    }
}
