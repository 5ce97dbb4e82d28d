//! The AutoMoT model family.

pub mod names;

pub mod sizes;
