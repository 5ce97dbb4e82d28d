//! The benchmark's scenario types: what happens on a route besides ordinary traffic.
//!
//! A scenario is set up before the drive, with all actors that exist from the start. It becomes
//! active at the tick at which the ego vehicle reaches its trigger point, and then runs every tick.
//! Each file registers its types with the parts of the benchmark that it models;
//! `docs/scenarios.md` is generated from that.

pub(crate) mod active;
mod blocked;
mod bypass;
pub(crate) mod context;
mod crossings;
mod cut_ins;
mod cyclists;
mod disturbances;
mod door;
mod emergency;
mod flow;
mod highway_cut_in;
mod invasion;
mod junction_flow;
mod light_schedule;
mod obstacles;
mod parameters;
mod parking_exit;
mod plain;
mod priority;
pub(crate) mod registry;
mod run_state;
mod scenario_type;
pub(crate) mod table;
#[cfg(test)]
mod test_bench;
