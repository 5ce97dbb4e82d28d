//! The AutoMoT model family.

pub mod checkpoint;
pub mod names;
pub mod networks;
pub mod sizes;
pub mod synth;

mod family;
mod options;

pub use checkpoint::Checkpoint;
pub use family::{AUTOMOT, Automot};
pub use options::ExportOptions;

/// Name of the family in summaries and contracts.
pub const NAME: &str = "automot";
