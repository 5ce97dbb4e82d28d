//! Benchmarks of tandem. Each prints one line of JSON, or writes it to the given file.

#[cfg(feature = "tensorrt")]
mod engine_build;
mod gpu;
mod host_work;
mod plan_delay;
mod vision_cache;
mod world;

use std::process::ExitCode;

#[expect(clippy::print_stdout, reason = "the program prints its result")]
fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map_or("world", String::as_str) {
        "gpu" => return gpu::run(&arguments[1..]),
        "certificate" => return gpu::certify(&arguments[1..]),
        "world" => world::ticks_per_second()?,
        "host-work" => host_work::run(&arguments[1..])?,
        "plan-delay" => plan_delay::run(&arguments[1..])?,
        "vision-cache" => vision_cache::run()?,
        #[cfg(feature = "tensorrt")]
        "engine-build" => engine_build::run(&arguments[1..])?,
        #[cfg(not(feature = "tensorrt"))]
        "engine-build" => anyhow::bail!("engine-build needs --features tensorrt"),
        other => {
            anyhow::bail!(
                "{other:?} is not a benchmark; expected world, host-work, plan-delay, vision-cache, \
                 engine-build, gpu or certificate"
            )
        }
    };
    println!("{result}");
    Ok(ExitCode::SUCCESS)
}
