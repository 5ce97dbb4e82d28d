//! Checkpoint folder in, ONNX network files out.
//!
//! The exporter reads `config.json` and the headers of the safetensors files, checks every tensor
//! that a network needs, and writes one graph per network whose weights are external data that
//! point into the checkpoint by offset and length. It needs neither PyTorch nor a GPU.

pub mod dtype;

pub mod contract;

pub mod checkpoint;

pub mod synth;

pub mod onnx;

pub mod graph;

pub mod networks;

pub mod automot;

pub mod weights;

pub mod summary;

pub mod folder;

pub mod cost;
