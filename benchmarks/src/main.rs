//! Benchmarks of tandem. Each prints one line of JSON.

mod world;

#[expect(clippy::print_stdout, reason = "printing is what this program is for")]
fn main() -> anyhow::Result<()> {
    println!("{}", world::ticks_per_second()?);
    Ok(())
}
