//! The four networks of AutoMoT as graphs over a checkpoint's tensors, one file each.

pub mod action;
pub mod bev;
pub mod understanding;
pub mod vision;

mod sizes;

pub use names::NETWORKS as NAMES;
pub use sizes::Sizes;

use super::ExportOptions;
use super::checkpoint::Checkpoint;
use super::names;
use crate::family::NetworkError;
use crate::graph::Network;

/// Builds all networks in execution order. Fails if a network does not fit the checkpoint, or the
/// options contradict each other.
pub fn all(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    mut before: impl FnMut(&'static str),
) -> Result<Vec<Network>, NetworkError> {
    let sizes = Sizes::new(checkpoint, options)?;
    let mut networks = Vec::new();
    before(names::vision::NETWORK);
    networks.push(vision::build(checkpoint, options, &sizes)?);
    before(names::understanding::NETWORK);
    networks.extend(understanding::build(checkpoint, options, &sizes)?);
    before(names::bev::NETWORK);
    networks.push(bev::build(checkpoint, options, &sizes)?);
    before(names::action::NETWORK);
    networks.push(action::build(checkpoint, options, &sizes)?);
    Ok(networks)
}
