//! Measures the stages of the control loop of an engine folder, at 20 Hz and in real time.
//!
//! ```sh
//! cargo run --release --example profile_loop -- ENGINE_DIR routes/demo.xml
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "examples print")]

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use tandem::pilot::{Pace, Run, RunFile};
use tandem::runtime::Loaded;
use tandem::scene::{Driver, Observation, SensorSuite, World};
use tandem::timing::Stage;
use tandem_drivers::Autopilot;
use tandem_evaluation::routes::parse_routes;
use tandem_profile::{LoopOptions, PhaseName, Replay, run_loop};
use tandem_world::EmbeddedWorld;

/// Observations that are replayed: 10 s at 20 Hz.
const OBSERVATIONS: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [engine, route_file] = arguments.as_slice() else {
        return Err("usage: profile_loop ENGINE_DIR ROUTE_FILE".into());
    };
    let run = Run { pace: Pace::Wall, ..Run::try_from(&RunFile::default())? };
    let model = Loaded::open(engine, &run, &mut |note| eprintln!("{note}"))?;

    // Sensor readings, recorded before anything is timed while the autopilot drives.
    let routes = parse_routes(fs::read(route_file)?, &route_file.display().to_string())?;
    let route = routes.first().ok_or("the file has no route")?;
    let sensors = SensorSuite { truth: true, ..model.sensors() };
    let mut world = EmbeddedWorld::new(route, sensors, run.seed)?;
    let mut autopilot = Autopilot::new();
    let mut observations = Vec::with_capacity(OBSERVATIONS);
    for _ in 0..OBSERVATIONS {
        let observation = world.observe();
        world.step(&autopilot.drive(&observation)?.command);
        observations.push(Observation { truth: None, ..observation });
    }

    let mut pilot = model.pilot(world.plan(), &run)?;
    let options = LoopOptions {
        name: PhaseName::Paced,
        period: run.tick,
        budget: run.act_budget,
        warm_up: 20,
        ticks: 200,
    };
    let cancel = AtomicBool::new(false);
    let mut replay = Replay::new(observations);
    let phase = run_loop(&mut pilot, &mut replay, &options, &cancel, &mut |_| {})?.phase;

    println!("{:24}{:>8}{:>12}{:>12}", "stage", "count", "p50 ms", "p99 ms");
    for &stage in Stage::all() {
        if let Some(summary) = phase.statistics.stage(stage).summary() {
            let [p50, p99] = [summary.p50_ns, summary.p99_ns].map(|ns| ns as f64 / 1e6);
            println!("{:24}{:>8}{p50:>12.3}{p99:>12.3}", stage.name(), summary.count);
        }
    }
    println!("{} deadline misses", phase.statistics.deadline_misses());
    Ok(())
}
