//! The synchronization that the pool and the handover are built on, in one place so that a model
//! checker can put its own in.

pub(super) use std::sync::{Arc, Mutex};
