//! Baseline drivers, to compare scores with.

use super::autopilot::path::Path;
use super::autopilot::{LateralController, throttle_and_brake};
use tandem_scene::{Command, Control, DriveError, Driver, Observation, TickReport};

/// Speed of [`ConstantSpeed`], m/s.
const SPEED_MPS: f64 = 8.0;

/// A driver that never moves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Idle;

/// Follows the route at one speed and ignores everything else: vehicles, pedestrians and lights.
#[derive(Debug, Default)]
pub struct ConstantSpeed {
    path: Option<Path>,
    lateral: LateralController,
}

impl Driver for Idle {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        Ok(control(observation, Command::FULL_BRAKE))
    }
}

impl Driver for ConstantSpeed {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        let Some(truth) = &observation.truth else {
            return Err(DriveError {
                frame: observation.frame.0,
                source: "the constant-speed driver needs ground truth for its route: enable it in \
                         the sensor suite"
                    .into(),
            });
        };
        let path = match self.path.take() {
            Some(path) if path.is_of(&truth.plan) => self.path.insert(path),
            _ => {
                self.lateral = LateralController::default();
                self.path.insert(Path::new(&truth.plan))
            }
        };
        let ego = &truth.ego;
        path.advance(ego.pose.position);
        let (throttle, brake) = throttle_and_brake(SPEED_MPS, ego.speed_mps, false);
        let steer = self.lateral.steer(
            &path.driven()[path.idx()..],
            ego.pose.position,
            ego.pose.yaw_rad,
            ego.speed_mps,
        );
        let brake = f64::from(u8::from(brake));
        Ok(control(observation, Command { steer, throttle, brake }))
    }
}

fn control(observation: &Observation, command: Command) -> Control {
    let report = TickReport { frame: observation.frame, ..TickReport::default() };
    Control { command, report }
}
