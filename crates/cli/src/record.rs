//! `tandem record`: drives a route with the autopilot and records a model's sensors, or recovers a
//! truncated recording.

use super::drive::cancel_on_interrupt;
use super::maps::TownMaps;
use super::{Outcome, print};
use anyhow::{Context, anyhow, bail};
use clap::builder::PossibleValuesParser;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use tandem::runtime::{families, family};
use tandem::scene::{Control, Observation, SensorSuite, World};
use tandem::timing::Timestamp;
use tandem_drivers::Autopilot;
use tandem_evaluation::campaign::{RouteEnd, run_route};
use tandem_evaluation::routes::parse_routes;
use tandem_evaluation::scoring::TICK_CAP;
use tandem_recording::{Loss, RecordingError, RecordingWriter, recover};
use tandem_world::EmbeddedWorld;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem record --routes routes/demo.xml --out demo.mcap
  tandem record --recover .demo.mcap.x1y2.part --out recovered.mcap")]
pub(super) struct Arguments {
    /// Route file in the Bench2Drive XML format; required without --recover
    #[arg(long, value_name = "FILE", required_unless_present = "recover")]
    routes: Option<PathBuf>,
    /// Recording to write (MCAP). While recording, the data is in .FILE.mcap.RANDOM.part in the
    /// same folder; if tandem is killed, that file stays until FILE.mcap is recorded again
    #[arg(long, value_name = "FILE.mcap")]
    out: PathBuf,
    /// Instead of driving, copy the complete ticks of a truncated or damaged recording, up to the
    /// damage; exit code 1 if data is lost
    #[arg(
        long,
        value_name = "PARTIAL",
        conflicts_with_all = ["routes", "route", "map", "ticks", "seed"]
    )]
    recover: Option<PathBuf>,
    /// Id of the route [default: the first route of the file]
    #[arg(long, value_name = "ID")]
    route: Option<String>,
    /// OpenDRIVE map of the route's town, or a folder with TOWN.xodr
    #[arg(long, value_name = "FILE|DIR")]
    map: Option<PathBuf>,
    /// Maximum number of recorded ticks
    #[arg(long, default_value_t = TICK_CAP, value_parser = clap::value_parser!(u64).range(1..))]
    ticks: u64,
    /// Seed of the embedded world
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Model family that defines the recorded sensors
    #[arg(long, value_name = "FAMILY", default_value = "automot", value_parser = PossibleValuesParser::new(families()))]
    model: String,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    match (&arguments.recover, &arguments.routes) {
        (Some(partial), _) => recover_from(partial, arguments),
        (None, Some(routes)) => drive(routes, arguments),
        (None, None) => bail!("give the route to record with --routes"),
    }
}

fn drive(routes: &Path, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let bytes = std::fs::read(routes)
        .with_context(|| format!("cannot read route file {}", routes.display()))?;
    let routes = parse_routes(&bytes, &routes.display().to_string())?;
    let route = match arguments.route.as_deref() {
        None => routes.first(),
        Some(id) => routes.iter().find(|route| route.id.as_str() == id),
    };
    let Some(route) = route else {
        let ids: Vec<String> = routes.iter().map(|route| route.id.to_string()).collect();
        bail!("the route file does not contain this route; it contains {}", ids.join(", "));
    };
    let suite = SensorSuite { truth: true, ..family(&arguments.model)?.sensors(None)? };
    let maps = TownMaps::find(arguments.map.as_deref(), std::slice::from_ref(route))?;
    let mut world = EmbeddedWorld::on(route, suite.clone(), arguments.seed, maps.of(route)?)?;
    let mut writer = RecordingWriter::create(&arguments.out, world.plan(), &suite)?;

    let cancel = cancel_on_interrupt()?;
    let mut ticks = 0_u64;
    let mut failed = None;
    let mut keep = |observation: &Observation, _: &Control| {
        // The evaluation ends a route one tick after its last one.
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
        return Err(unfinished(error, writer, ticks));
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
            "{ticks} ticks of route {} with camera, LiDAR, IMU, GNSS and speed in {} ({} MB, {} MB per \
             tick)",
            route.id,
            arguments.out.display(),
            print::megabytes(bytes),
            print::three_digits(bytes as f64 / 1e6 / ticks.max(1) as f64),
        ));
    }
    if is_interrupted {
        print::note("interrupted: the recording ends with the last complete tick");
        return Ok(Outcome::CheckFailed);
    }
    Ok(Outcome::Done)
}

/// Returns the error of a recording that could not be finished; its complete ticks are kept.
fn unfinished(error: RecordingError, writer: RecordingWriter, ticks: u64) -> anyhow::Error {
    if ticks == 0 {
        return error.into();
    }
    match writer.leave() {
        Ok(part) => anyhow!(
            "{error}; recover the {ticks} complete ticks with `tandem record --recover {} --out …`",
            part.display()
        ),
        Err(_) => error.into(),
    }
}

fn recover_from(partial: &Path, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let recovery = recover(partial, &arguments.out)?;
    let (tick, time_s) = match recovery.last {
        Some((frame, time)) => (frame.0, time.since(Timestamp::ZERO).as_secs_f64()),
        None => (0, 0.0),
    };
    if arguments.json {
        let lost = recovery.loss.as_ref().map(|loss| {
            serde_json::json!({
                "after_tick": tick,
                "after_byte": loss.kept_bytes,
                "bytes": loss.total_bytes,
                "reason": loss.reason,
            })
        });
        let report = serde_json::json!({
            "recording": arguments.out,
            "recovered_from": partial,
            "ticks": recovery.ticks,
            "last_tick": tick,
            "bytes": recovery.bytes,
            "lost": lost,
        });
        print::line(&serde_json::to_string_pretty(&report)?);
    } else {
        print::line(&format!(
            "{} ticks of {} in {} ({} MB), the last is tick {tick} at {time_s:.2} s",
            recovery.ticks,
            partial.display(),
            arguments.out.display(),
            print::megabytes(recovery.bytes),
        ));
    }
    let Some(Loss { reason, kept_bytes, total_bytes }) = recovery.loss else {
        return Ok(Outcome::Done);
    };
    print::note(&format!(
        "lost: all data after tick {tick} ({time_s:.2} s), from byte {kept_bytes} of {total_bytes}: \
         {reason}"
    ));
    Ok(Outcome::CheckFailed)
}
