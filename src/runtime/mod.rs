//! Opens an engine folder and creates drivers from it.
//!
//! [`Loaded::open`] opens the device of the run, loads the networks of a folder with the back ends
//! of that device, warms them up and, on a GPU, repeats the folder's golden run. The model family
//! is read from the folder's `export.json`; [`FAMILIES`] lists the supported ones.
//! [`Loaded::pilot`] creates a [`Pilot`](crate::pilot::Pilot) for a route; any number of routes
//! share the loaded networks.

mod error;
mod loaded;
mod loaded_model;
mod placement;
mod registry;
mod standalone_expert;
mod verify;

pub use error::{BlockError, FamilyNameError, OpenError, StartError};
pub use loaded::Loaded;
pub use loaded_model::{KV_SLOTS, LoadedModel, ModelDriver};
pub use placement::place;
pub use registry::{
    FAMILIES, Registered, RuntimeFamily, check, families, family, family_of, verify,
};
pub use standalone_expert::SlowExpert;
pub use verify::{Side, Verification, VerifyError, VerifyOptions};

/// Receives progress messages and warnings, one line each.
pub type Notes<'a> = dyn FnMut(&str) + 'a;
