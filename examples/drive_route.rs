//! Drives the first route of a route file with an engine folder, in the embedded world.
//!
//! ```sh
//! cargo run --release --example drive_route -- ENGINE_DIR routes/demo.xml
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "examples print")]

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use tandem::pilot::{Run, RunFile};
use tandem::runtime::Loaded;
use tandem::scene::World;
use tandem_evaluation::campaign::run_route;
use tandem_evaluation::routes::parse_routes;
use tandem_evaluation::scoring::{InfractionKind, TICK_CAP};
use tandem_world::EmbeddedWorld;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [engine, route_file] = arguments.as_slice() else {
        return Err("usage: drive_route ENGINE_DIR ROUTE_FILE".into());
    };
    // Default options: lockstep, on the CPU.
    let run = Run::try_from(&RunFile::default())?;
    let model = Loaded::open(engine, &run, &mut |note| eprintln!("{note}"))?;

    let routes = parse_routes(fs::read(route_file)?, &route_file.display().to_string())?;
    let route = routes.first().ok_or("the file has no route")?;
    let mut world = EmbeddedWorld::new(route, model.sensors(), run.seed)?;
    let mut pilot = model.pilot(world.plan(), &run)?;

    let cancel = AtomicBool::new(false);
    let outcome = run_route(&mut world, &mut pilot, TICK_CAP, &cancel, &mut |_, _| {});
    // Minimum-speed values are recorded with the infractions, but cost no score.
    let infractions = outcome.judgment.infractions.iter();
    let infractions =
        infractions.filter(|infraction| !matches!(infraction.kind, InfractionKind::MinSpeed));
    println!(
        "route {}: {:?} after {:.1} s of simulation, {} % completed, {} infractions, {} prefills",
        route.id,
        outcome.end,
        outcome.duration_game_s,
        outcome.judgment.completion.map_or(0.0, |percent| percent.value()),
        infractions.count(),
        pilot.statistics().refreshes_published,
    );
    Ok(())
}
