//! Opens an engine folder and drives with it.
//!
//! [`Loaded::open`] places the networks of a folder on the device that the run names, loads them
//! through that device's back ends, warms them up, and on a GPU repeats the folder's golden run
//! before anything is driven. Which model family the folder is of stands in its `export.json`;
//! [`FAMILIES`] lists those that can be run. [`Loaded::pilot`] then makes a [`Pilot`](crate::pilot::Pilot) for a
//! route; any number of routes share the loaded networks.

mod error;
mod loaded;
mod loaded_model;
mod placement;
mod registry;
mod slow_alone;
mod verify;

pub use error::{BlockError, OpenError, StartError, UnknownFamily};
pub use loaded::Loaded;
pub use loaded_model::{KV_SLOTS, LoadedModel, ModelDriver};
pub use placement::place;
pub use registry::{
    FAMILIES, Registered, RuntimeFamily, check, families, family, family_of, verify,
};
pub use slow_alone::SlowExpert;
pub use verify::{Side, Verification, VerifyError, VerifyOptions};

/// Receives progress messages and warnings, one line each.
pub type Notes<'a> = dyn FnMut(&str) + 'a;
