//! Synchronization primitives of the pool and the handover, in one file so that a model checker
//! (loom) can replace them.

pub(super) use std::sync::{Arc, Mutex};
