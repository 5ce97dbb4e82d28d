//! A stand-in for NVIDIA's driver, for tests: tandem's CUDA device runs on it without a GPU.
//!
//! The library exports the functions of the CUDA Driver API that `src/device/cuda` calls. It executes
//! copies, memsets, events and graphs on the host, and it is as unkind as the driver's manual allows:
//! work runs only once something waits for it, or in a random order; new memory holds no zeros; memory
//! "may" be waited for is not waited for. It reports what the driver would let pass in silence: use of
//! freed memory, copies that nothing orders, host memory that changes under a pending copy.
//!
//! Each rule names the part of the manual that it rests on: "Manual" is the *CUDA Driver API* of
//! CUDA 13.0, by function. Where the manual is silent, the comment says "assumed", and the strict
//! reading is taken. The stand-in computes nothing: it has no kernels, and no library of NVIDIA's and
//! no engine runs on it.

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
