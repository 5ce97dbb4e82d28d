//! A driver of your own in the embedded world: the autopilot, limited to 5 m/s.
//!
//! ```sh
//! cargo run --release --example custom_driver -- routes/demo.xml
//! ```

#![expect(clippy::print_stdout, reason = "examples print")]

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use tandem::scene::{Command, Control, DriveError, Driver, Observation, SensorSuite};
use tandem_drivers::Autopilot;
use tandem_evaluation::campaign::run_route;
use tandem_evaluation::routes::parse_routes;
use tandem_evaluation::scoring::TICK_CAP;
use tandem_world::EmbeddedWorld;

/// Speed above which the driver brakes, m/s.
const LIMIT_MPS: f64 = 5.0;

struct Cautious {
    autopilot: Autopilot,
}

impl Driver for Cautious {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        let control = self.autopilot.drive(observation)?;
        if observation.speed_mps < LIMIT_MPS {
            return Ok(control);
        }
        let command = Command { throttle: 0.0, brake: 0.3, ..control.command };
        Ok(Control { command, ..control })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let file = file.ok_or("usage: custom_driver ROUTE_FILE")?;
    let routes = parse_routes(fs::read(&file)?, &file.display().to_string())?;
    for route in &routes {
        // The autopilot needs the true state of the world; a driver that does not leaves it out.
        let sensors = SensorSuite { truth: true, ..SensorSuite::default() };
        let mut world = EmbeddedWorld::new(route, sensors, 0)?;
        let mut driver = Cautious { autopilot: Autopilot::new() };
        let cancel = AtomicBool::new(false);
        let mut top_speed_mps = 0.0_f64;
        let outcome =
            run_route(&mut world, &mut driver, TICK_CAP, &cancel, &mut |observation, _| {
                top_speed_mps = top_speed_mps.max(observation.speed_mps);
            });
        println!(
            "route {}: {:?} after {:.1} s of simulation, at most {top_speed_mps:.1} m/s",
            route.id, outcome.end, outcome.duration_game_s
        );
    }
    Ok(())
}
