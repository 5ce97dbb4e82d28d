//! A fake CUDA driver for tests: tandem's CUDA device runs on it without a GPU.
//!
//! The library exports the functions of the CUDA Driver API that `src/device/cuda` calls. It executes
//! copies, memsets, events and graphs on the host, with the worst behavior that the driver's manual
//! allows: work runs only when something waits for it, or in a random order; new memory is not zeroed;
//! a wait that "may" happen does not happen. It reports errors that the driver does not detect: use of
//! freed memory, unordered copies, writes of the host to memory of a pending copy.
//!
//! Each rule names its source: "Manual" is the *CUDA Driver API* of CUDA 13.0, by function. Where the
//! manual does not specify the behavior, the comment has "assumed", and the strictest interpretation
//! is implemented. The driver has no kernels, so no NVIDIA library and no engine runs on it.

#![expect(unsafe_code, reason = "exports C functions, and copies memory that callers name")]

pub mod abi;
mod access;
mod capture;
mod clock;
mod code;
mod config;
mod context;
mod driver;
mod event;
mod graph;
mod green;
mod host_watch;
mod memory;
mod random;
mod report;
mod stream;
mod work;

pub use code::Code;

#[cfg(test)]
mod tests;
