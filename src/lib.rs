//! A real-time runtime for vision-language-action (VLA) driving models with two experts that run at
//! different rates on one KV cache: a large *understanding expert* prefills a prefix KV cache, and
//! a small *action expert* reads the latest complete prefix at every control tick.
//!
//! ```text
//!  every tick   observation ─► BEV encoder ─► action step ─► path follower ─► command
//!  (20 Hz)           │                             ▲
//!                    │                             │ latest sealed prefix KV cache
//!                    ▼                             │
//!  every n-th   frame history ─► vision tower ─► prefill     (own thread, own stream)
//!  tick
//! ```
//!
//! - [`runtime::Loaded`] opens an engine folder, written by `tandem export` or `tandem build`, and
//!   creates a [`pilot::Pilot`] for a route.
//! - [`pilot`] is the control loop, [`model`] the two experts of each model family, [`kv_cache`]
//!   the prefix KV cache, [`engine`] the back ends, [`device`] memory, streams and events.
//! - [`scene::Driver`] and [`scene::World`] are the two sides of a closed loop.
//!
//! Other crates: `tandem-world` (an embedded simulator), `tandem-evaluation` (runs routes, scores
//! them by the rules of Bench2Drive and stores results) and `tandem-profile` (measures every stage
//! of a tick).
//!
//! ```no_run
//! use std::{path::Path, sync::atomic::AtomicBool};
//! use tandem::pilot::{Run, RunFile};
//! use tandem::runtime::Loaded;
//! use tandem::scene::World;
//! use tandem_evaluation::{campaign::run_route, routes::parse_routes, scoring::TICK_CAP};
//! use tandem_world::EmbeddedWorld;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let run = Run::try_from(&RunFile::default())?;
//! let model = Loaded::open(Path::new("engines/tiny"), &run, &mut |note| eprintln!("{note}"))?;
//!
//! let routes = parse_routes(std::fs::read("routes/demo.xml")?, "routes/demo.xml")?;
//! let mut world = EmbeddedWorld::new(&routes[0], model.sensors(), run.seed)?;
//! let mut pilot = model.pilot(world.plan(), &run)?;
//!
//! let cancel = AtomicBool::new(false);
//! let outcome = run_route(&mut world, &mut pilot, TICK_CAP, &cancel, &mut |_, _| {});
//! println!("{:?} after {:.1} s", outcome.end, outcome.duration_game_s);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/` contains this program, one that profiles the loop, and one with its own driver.
//!
//! Each module below uses only modules above it, as `tests/it/module_order.rs` checks.
//! `ARCHITECTURE.md` describes the design.

pub use tandem_scene as scene;
pub use tandem_timing as timing;

mod sync;

pub mod tensor;

pub mod process;

pub mod device;

pub mod engine;

pub mod kv_cache;

pub mod control;

pub mod model;

pub mod pilot;

pub mod runtime;
