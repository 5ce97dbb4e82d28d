//! Opens an engine folder and drives with it.
//!
//! [`Loaded::open`] places the networks of a folder on the device that the run names, loads them
//! through that device's back ends, warms them up, and on a GPU repeats the folder's golden run
//! before anything is driven. [`Loaded::pilot`] then makes a [`Pilot`](crate::pilot::Pilot) for a
//! route; any number of routes share the loaded networks.

mod error;
mod loaded;
mod placement;

pub use error::{OpenError, StartError};
pub use loaded::{KV_SLOTS, Loaded};
pub use placement::Placement;

/// Receives progress messages and warnings, one line each.
pub type Notes<'a> = dyn FnMut(&str) + 'a;
