//! The AutoMoT model family.

pub mod names;
