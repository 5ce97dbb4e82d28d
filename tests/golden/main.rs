//! Comparison of AutoMoT's networks and of its understanding expert with the golden vectors.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod bf16;
mod expert;
mod f16;
mod networks;
mod vectors;
