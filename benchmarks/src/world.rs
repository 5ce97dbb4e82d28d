//! Ticks per second of the embedded world, by sensor suite.

use anyhow::Context;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::f64::consts::FRAC_PI_2;
use tandem::scene::{
    CameraId, CameraSpec, Cameras, Command, Driver, LidarSpec, Route, SensorSuite, World,
};
use tandem::timing::Stopwatch;
use tandem_drivers::Autopilot;
use tandem_world::EmbeddedWorld;

/// Number of ticks per measurement: 30 s of simulation.
const TICKS: usize = 600;

/// Number of measurements per suite, interleaved.
const RUNS: usize = 5;

/// Replays one drive with each sensor suite and returns the ticks per second. Fails if the world or
/// the autopilot fails.
pub(crate) fn ticks_per_second() -> anyhow::Result<Value> {
    let route = winding_road();
    let commands = recorded_drive(&route)?;
    let camera = CameraSpec {
        position_m: [-1.5, 0.0, 2.0],
        yaw_rad: 0.0,
        width: 1024,
        height: 512,
        fov_deg: 110.0,
    };
    let lidar = LidarSpec { position_m: [0.0, 0.0, 2.5], yaw_rad: -FRAC_PI_2 };
    let cameras = Cameras::one(CameraId::FRONT, camera);
    let none = SensorSuite::default();
    let suites = [
        ("none", none.clone()),
        ("truth", SensorSuite { truth: true, ..none.clone() }),
        ("camera", SensorSuite { cameras: cameras.clone(), ..none.clone() }),
        ("lidar", SensorSuite { lidar: Some(lidar), ..none }),
        ("all", SensorSuite { cameras, lidar: Some(lidar), truth: true }),
    ];
    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..RUNS {
        for (name, suite) in suites.clone() {
            rates.entry(name).or_default().push(rate(&route, suite, &commands)?.round());
        }
    }
    Ok(json!({ "bench": "world", "ticks": TICKS, "runs": RUNS, "ticks_per_second": rates }))
}

fn rate(route: &Route, suite: SensorSuite, commands: &[Command]) -> anyhow::Result<f64> {
    let mut world = EmbeddedWorld::new(route, suite, 1).context("building the road")?;
    world.observe();
    let stopwatch = Stopwatch::start();
    for command in commands {
        std::hint::black_box(world.observe());
        world.step(command);
    }
    Ok(commands.len() as f64 / stopwatch.elapsed().as_secs_f64())
}

fn recorded_drive(route: &Route) -> anyhow::Result<Vec<Command>> {
    let suite = SensorSuite { truth: true, ..SensorSuite::default() };
    let mut world = EmbeddedWorld::new(route, suite, 1).context("building the road")?;
    let mut autopilot = Autopilot::new();
    (0..TICKS)
        .map(|_| {
            let command = autopilot.drive(&world.observe())?.command;
            world.step(&command);
            Ok(command)
        })
        .collect()
}

/// Returns a road of 350 m with a bend to each side, with key points 2 m apart.
pub(crate) fn winding_road() -> Route {
    let (mut x, mut y, mut heading) = (0.0_f64, 0.0_f64, 0.0_f64);
    let key_points = (0..176)
        .map(|idx| {
            let place = glam::DVec3::new(x, y, 0.01 * x);
            heading += match idx {
                30..60 => 1.0 / 30.0,
                90..130 => -1.0 / 30.0,
                _ => 0.0,
            };
            x += 2.0 * heading.cos();
            y += 2.0 * heading.sin();
            place
        })
        .collect();
    Route {
        id: 1.into(),
        town: "Bench".into(),
        key_points,
        scenarios: Vec::new(),
        weather: Vec::new(),
    }
}
