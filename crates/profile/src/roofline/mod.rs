//! The least time that a stage can take on a device: what it must move over how fast memory is, and
//! what it must compute over how fast matrix units are, whichever is longer.
//!
//! A floor is a prediction and never a measurement of a network. Its counts are exact
//! ([`tandem_export::cost`]); its ceilings are a vendor's ([`ceilings`]) or were measured on this
//! machine ([`measure`]), and every floor says which.

pub mod ceilings;
pub mod floor;
pub mod measure;
