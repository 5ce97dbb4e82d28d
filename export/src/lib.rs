//! Checkpoint folder in, ONNX network files out.
//!
//! The exporter reads `config.json` and the headers of the safetensors files, checks every tensor
//! that a network needs, and writes one graph per network. The weights of the graphs are external
//! data that point into the checkpoint by offset and length. Needs neither PyTorch nor a GPU.
//!
//! Everything specific to one kind of model is a [`family`]: one folder here (such as [`automot`])
//! and one line in [`registry`].

#[doc(hidden)]
pub use linkme;

pub mod dtype;

pub mod contract;

pub mod options;

pub mod checkpoint;

pub mod synth;

pub mod onnx;

pub mod graph;

pub mod nn;

pub mod spec;

pub mod family;

pub mod automot;

pub mod registry;

pub mod inspection;

pub mod weights;

pub mod summary;

pub mod folder;

pub mod cost;
