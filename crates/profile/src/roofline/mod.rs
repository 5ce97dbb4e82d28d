//! Roofline lower bounds of stage times: minimum memory traffic over memory rate, or operations over
//! matrix rate, whichever is longer.
//!
//! A lower bound is a prediction, not a measurement of a network. Its counts are exact
//! ([`tandem_export::cost`]). Its peak rates are a vendor's ([`peak_rates`]) or measured on this
//! machine ([`measure`]), and each result states which.

pub mod lower_bound;
pub mod measure;
pub mod peak_rates;
