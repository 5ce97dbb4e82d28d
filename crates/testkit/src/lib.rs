//! Fixtures that the tests of several crates share.
//!
//! A fixture that cannot be created panics, which fails the test that asked for it.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be created fails its test")]

pub mod allocations;
pub mod automot;
pub mod latency_file;
pub mod planner;
pub mod poll;
pub mod scripted;
pub mod world;

/// Root folder of the workspace.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
