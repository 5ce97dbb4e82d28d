//! Measures the effect of the fast expert's latency if it delays commands, and if it delays plans.
//!
//! The model is scripted: its action expert plans like the autopilot, from the true state at its
//! tick, and the path follower of the AutoMoT release follows the plan, without heuristics. The
//! settings differ only in the delay, which is constant, in virtual time.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tandem::control::{PathFollower, PathFollowerConfig};
use tandem::model::DelayedOutput;
use tandem::pilot::{ClockName, LatencySpec, Pace, Run, RunFile};
use tandem::scene::{Command, Control, Observation, Route, World};
use tandem_evaluation::campaign::{RouteEnd, run_route};
use tandem_evaluation::routes::read_routes;
use tandem_evaluation::scoring::{Scored, TICK_CAP, score};
use tandem_testkit::planner;
use tandem_world::EmbeddedWorld;

/// Latencies of the fast expert, milliseconds.
const FAST_MS: [f64; 3] = [0.0, 100.0, 200.0];

const SEED: u64 = 0;

/// Drives the routes of a file with each latency in both modes. Fails if the arguments are not one
/// route file, the file cannot be read, or a drive fails.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<Value> {
    let [file] = arguments else { bail!("plan-delay ROUTES.xml") };
    let routes = read_routes(Path::new(file))?;
    let mut settings = Vec::new();
    for fast_ms in FAST_MS {
        for delays in [DelayedOutput::Command, DelayedOutput::Plan] {
            let drives = routes
                .iter()
                .map(|route| {
                    drive(route, fast_ms, delays).with_context(|| format!("route {}", route.id))
                })
                .collect::<anyhow::Result<Vec<_>>>()?;
            eprintln!("{fast_ms} ms, {delays:?}: driving score {:.2}", mean(&drives, |d| d.score));
            settings.push(summary(fast_ms, delays, &drives, routes.len()));
        }
    }
    Ok(json!({
        "bench": "plan-delay",
        "note": "Scores of the embedded world are not CARLA scores. The planner is privileged.",
        "seed": SEED,
        "routes": routes.iter().map(|route| route.id.to_string()).collect::<Vec<_>>(),
        "settings": settings,
    }))
}

/// Result and tracking errors of one drive.
struct Drive {
    score: f64,
    completion: f64,
    is_success: bool,
    status: String,
    ticks: u64,
    /// Sum over ticks of the difference to the command of the same tick without latency.
    steer_error: f64,
    pedal_error: f64,
}

fn drive(route: &Route, fast_ms: f64, delays: DelayedOutput) -> anyhow::Result<Drive> {
    let run = Run::try_from(&RunFile {
        clock: ClockName::Virtual,
        slow_latency: LatencySpec::Fixed(0.0),
        fast_latency: LatencySpec::Fixed(fast_ms),
        warm_up_ticks: 0,
        seed: SEED,
        ..RunFile::default()
    })?;
    let pace = match &run.pace {
        Pace::Virtual(latencies) => Pace::Virtual(latencies.for_drive(SEED, &route.id, None)),
        pace => pace.clone(),
    };
    let run = Run { pace, ..run };
    let mut world = EmbeddedWorld::new(route, planner::PLANNER_SENSORS, SEED)?;
    let follower = || PathFollower::new(PathFollowerConfig::bare());
    let reference = world.plan().reference;
    let mut pilot = planner::planner(&run, reference, Box::new(follower()), delays, 1)?;

    let mut without_latency = follower();
    let (mut ticks, mut steer_error, mut pedal_error) = (0, 0.0, 0.0);
    let mut watch = |observation: &Observation, control: &Control| {
        let Some(planned) = &control.report.trajectory else { return };
        let expected = without_latency.follow(planned, observation.speed_mps);
        let pedals = |command: &Command| command.throttle - command.brake;
        steer_error += (control.command.steer - expected.steer).abs();
        pedal_error += (pedals(&control.command) - pedals(&expected)).abs();
        ticks += 1;
    };
    let cancel = AtomicBool::new(false);
    let outcome = run_route(&mut world, &mut pilot, TICK_CAP, &cancel, &mut watch);
    if let RouteEnd::DriverFailed(reason) = &outcome.end {
        bail!("{reason}");
    }
    let Scored { status, infractions, scores, .. } =
        score(&outcome.result().context("the drive was canceled")?);
    let is_clean =
        |(key, list): (&str, &[String])| key == "min_speed_infractions" || list.is_empty();
    Ok(Drive {
        score: scores.score_composed,
        completion: scores.score_route.value(),
        is_success: matches!(status.as_str(), "Completed" | "Perfect")
            && infractions.lists().all(is_clean),
        status,
        ticks,
        steer_error,
        pedal_error,
    })
}

fn mean(drives: &[Drive], of: impl Fn(&Drive) -> f64) -> f64 {
    drives.iter().map(of).sum::<f64>() / drives.len() as f64
}

fn summary(fast_ms: f64, delays: DelayedOutput, drives: &[Drive], total: usize) -> Value {
    let ticks: u64 = drives.iter().map(|drive| drive.ticks).sum();
    let per_tick = |of: fn(&Drive) -> f64| drives.iter().map(of).sum::<f64>() / ticks as f64;
    let column = |of: fn(&Drive) -> Value| drives.iter().map(of).collect::<Vec<_>>();
    let rounded = |value: f64| (value * 1e4).round() / 1e4;
    let completed = drives.iter().filter(|drive| !drive.status.starts_with("Failed")).count();
    json!({
        "fast_ms": fast_ms,
        "delays": delays,
        "finished": drives.len(),
        "total": total,
        "driving_score": rounded(mean(drives, |drive| drive.score)),
        "success_rate": rounded(mean(drives, |drive| f64::from(u8::from(drive.is_success)))),
        "route_completion": rounded(mean(drives, |drive| drive.completion)),
        "completed": completed,
        "ticks": ticks,
        "mean_steer_difference": rounded(per_tick(|drive| drive.steer_error)),
        "mean_pedal_difference": rounded(per_tick(|drive| drive.pedal_error)),
        "by_route": {
            "driving_score": column(|drive| json!(drive.score)),
            "is_success": column(|drive| json!(u8::from(drive.is_success))),
            "status": column(|drive| json!(drive.status)),
            "ticks": column(|drive| json!(drive.ticks)),
        },
    })
}
