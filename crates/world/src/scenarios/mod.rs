//! What happens on a route besides ordinary traffic: the benchmark's scenario types.
//!
//! A scenario is set up before the drive begins, with everybody who is there from the start. It is
//! active from the tick that the ego vehicle comes to its trigger point, and from then on it is
//! asked at every tick. ARCHITECTURE.md lists what is modeled of each type.

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
mod priority;
#[cfg(test)]
mod rehearsal;
mod tenure;
