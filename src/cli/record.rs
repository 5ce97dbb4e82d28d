//! `tandem record`: drive a route with the autopilot and keep what AutoMoT's sensors saw.

use super::drive::cancel_on_interrupt;
use super::maps::TownMaps;
use super::{Outcome, print};
use crate::evaluation::criteria::TICK_CAP;
use crate::evaluation::routes::parse_routes;
use crate::evaluation::run::{RouteEnd, run_route};
use crate::model::automot::SENSORS;
use crate::scene::{Control, Observation, SensorSuite};
use crate::world::{Autopilot, EmbeddedWorld, RecordingWriter, World};
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Route file in the Bench2Drive XML format
    #[arg(long, value_name = "FILE")]
    routes: PathBuf,
    /// Recording to write (MCAP)
    #[arg(long, value_name = "FILE.mcap")]
    out: PathBuf,
    /// Id of the route, if not the first of the file
    #[arg(long, value_name = "ID")]
    route: Option<String>,
    /// OpenDRIVE map of the route's town, or a folder with TOWN.xodr
    #[arg(long, value_name = "FILE|DIR")]
    map: Option<PathBuf>,
    /// End after so many ticks, if the route does not end before
    #[arg(long, default_value_t = TICK_CAP, value_parser = clap::value_parser!(u64).range(1..))]
    ticks: u64,
    /// Seed of the world's randomness
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let bytes = std::fs::read(&arguments.routes)
        .with_context(|| format!("cannot read route file {}", arguments.routes.display()))?;
    let routes = parse_routes(&bytes, &arguments.routes.display().to_string())?;
    let route = match arguments.route.as_deref() {
        None => routes.first(),
        Some(id) => routes.iter().find(|route| route.id.as_str() == id),
    };
    let Some(route) = route else {
        let ids: Vec<String> = routes.iter().map(|route| route.id.to_string()).collect();
        bail!("the route file has no such route, only {}", ids.join(", "));
    };
    let suite = SensorSuite { truth: true, ..SENSORS };
    let maps = TownMaps::find(arguments.map.as_deref(), std::slice::from_ref(route))?;
    let mut world = EmbeddedWorld::on(route, suite, arguments.seed, maps.of(route)?)?;
    let mut writer = RecordingWriter::create(&arguments.out, world.plan(), &suite)?;

    let cancel = cancel_on_interrupt()?;
    let mut ticks = 0_u64;
    let mut failed = None;
    let mut keep = |observation: &Observation, _: &Control| {
        // The judge ends a route at the tick behind its last one.
        if ticks == arguments.ticks {
            return;
        }
        match writer.write(observation) {
            Ok(()) => ticks += 1,
            Err(error) => {
                failed.get_or_insert(error);
                cancel.store(true, Ordering::Relaxed);
            }
        }
    };
    let driven = run_route(&mut world, &mut Autopilot::new(), arguments.ticks, &cancel, &mut keep);
    if let Some(error) = failed {
        return Err(error.into());
    }
    let bytes = writer.finish()?;
    let is_interrupted = driven.end == RouteEnd::Cancelled;
    if arguments.json {
        let report = serde_json::json!({
            "recording": arguments.out,
            "route": route.id,
            "seed": arguments.seed,
            "ticks": ticks,
            "bytes": bytes,
            "is_interrupted": is_interrupted,
        });
        print::line(&serde_json::to_string_pretty(&report)?);
    } else {
        print::line(&format!(
            "{ticks} ticks of route {} with camera, LiDAR, IMU, GNSS and speed in {} ({:.1} MB, {:.2} MB a tick)",
            route.id,
            arguments.out.display(),
            bytes as f64 / 1e6,
            bytes as f64 / 1e6 / ticks.max(1) as f64,
        ));
    }
    if is_interrupted {
        print::note("interrupted: the recording ends with the last whole tick");
        return Ok(Outcome::CheckFailed);
    }
    Ok(Outcome::Done)
}
