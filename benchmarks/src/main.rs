//! Benchmarks of tandem.

fn main() {}
