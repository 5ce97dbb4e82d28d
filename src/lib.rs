//! tandem: a real-time runtime for driving vision-language-action models whose two experts work
//! at two rates on one KV cache.
//!
//! Modules are listed so that each uses only those above it; `tests/module_order.rs` holds them
//! to it. `ARCHITECTURE.md` draws the whole.

pub mod tensor;

pub mod timing;

pub mod process;

pub mod device;

pub mod engine;

pub mod kv_cache;

pub mod roofline;

pub mod scene;

pub mod model;

pub mod control;

pub mod pilot;

mod page;

pub mod profile;

pub mod world;

pub mod evaluation;

pub mod cli;
