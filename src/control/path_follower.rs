//! Two PID controllers, for steering along the path and for the speed of the waypoints, whose
//! command [`Recovery`] and then [`SpeedCap`] may override.

use super::{Follower, PathCurve, Recovery, RecoveryConfig};
use crate::scene::{Command, Detour, Plan, Pose, Trajectory, wrap_angle};
use crate::timing::Timestamp;
use arrayvec::ArrayVec;
use std::f64::consts::FRAC_PI_2;

/// Parameters of the speed controller.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LongitudinalConfig {
    /// Throttle per m/s of speed error.
    pub proportional: f64,
    /// Throttle per m/s of mean error in the window.
    pub integral: f64,
    /// Throttle per m/s of change since the previous tick.
    pub derivative: f64,
    /// Upper bound to which errors are clamped, m/s.
    pub max_error_mps: f64,
    pub max_throttle: f64,
    /// Target speed below which the vehicle brakes, m/s.
    pub brake_below_mps: f64,
    /// Ratio of speed to target speed above which the vehicle brakes.
    pub brake_above_ratio: f64,
}

impl Default for LongitudinalConfig {
    /// Returns the values of the AutoMoT release.
    fn default() -> Self {
        Self {
            proportional: 1.75,
            integral: 1.0,
            derivative: 2.0,
            max_error_mps: 1.0,
            max_throttle: 1.0,
            brake_below_mps: 0.4,
            brake_above_ratio: 1.1,
        }
    }
}

/// Parameters of the steering controller. Errors are heading errors divided by π/2.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LateralConfig {
    /// Steer per unit of error.
    pub proportional: f64,
    /// Steer per unit of mean error in the window.
    pub integral: f64,
    /// Steer per unit of change since the previous tick.
    pub derivative: f64,
    /// Steps of lookahead per km/h.
    pub steps_per_kmh: f64,
    /// Steps of lookahead at standstill, before clamping.
    pub steps_at_stand: f64,
    /// Minimum lookahead in steps.
    pub min_steps: f64,
    /// Maximum lookahead in steps.
    pub max_steps: f64,
    /// Length of a step along the path, meters.
    pub step_m: f64,
}

impl Default for LateralConfig {
    /// Returns the values of the release, a lookahead of 2.5 to 10.6 m.
    fn default() -> Self {
        Self {
            proportional: 3.118,
            integral: 0.640_606_798_603_412_4,
            derivative: 1.378_250_889_210_916_7,
            steps_per_kmh: 0.975_532_190_195_415_5,
            steps_at_stand: 1.195,
            min_steps: 24.0,
            max_steps: 105.0,
            step_m: 0.1,
        }
    }
}

/// Applies full brake above a speed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SpeedCap {
    pub above_kmh: f64,
}

impl SpeedCap {
    /// Returns `command`, or full brake with the same steer if the vehicle is too fast.
    pub fn apply(self, command: Command, speed_mps: f64) -> Command {
        if speed_mps * KMH_PER_MPS > self.above_kmh {
            Command { throttle: 0.0, brake: 1.0, ..command }
        } else {
            command
        }
    }
}

impl Default for SpeedCap {
    /// Returns the value of the release.
    fn default() -> Self {
        Self { above_kmh: 35.0 }
    }
}

const KMH_PER_MPS: f64 = 3.6;

/// Parameters of a [`PathFollower`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PathFollowerConfig {
    pub longitudinal: LongitudinalConfig,
    pub lateral: LateralConfig,
    /// Heuristics for a stuck vehicle.
    pub recovery: RecoveryConfig,
    /// `None` disables the speed cap.
    pub speed_cap: Option<SpeedCap>,
}

impl Default for PathFollowerConfig {
    /// Returns the values of the release, with all heuristics enabled.
    fn default() -> Self {
        Self {
            longitudinal: LongitudinalConfig::default(),
            lateral: LateralConfig::default(),
            recovery: RecoveryConfig::default(),
            speed_cap: Some(SpeedCap::default()),
        }
    }
}

impl PathFollowerConfig {
    /// Returns the two controllers without heuristics.
    pub fn bare() -> Self {
        Self { recovery: RecoveryConfig::OFF, speed_cap: None, ..Self::default() }
    }
}

/// Window of the speed controller in ticks, initially filled with zeros.
const SPEED_WINDOW: usize = 20;

/// Window of the steering controller in ticks, initially empty.
const HEADING_WINDOW: usize = 6;

/// Follows one trajectory per tick; keeps the errors of previous ticks.
pub struct PathFollower {
    config: PathFollowerConfig,
    speed_errors: Window<SPEED_WINDOW>,
    heading_errors: Window<HEADING_WINDOW>,
    recovery: Recovery,
}

impl PathFollower {
    /// Creates a follower without previous errors.
    pub fn new(config: PathFollowerConfig) -> Self {
        let mut speed_errors = Window::default();
        for _ in 0..SPEED_WINDOW {
            speed_errors.push(0.0);
        }
        let recovery = Recovery::new(config.recovery);
        Self { config, speed_errors, heading_errors: Window::default(), recovery }
    }

    /// Returns the command of one tick. `trajectory` is in the ego frame of this tick and
    /// [finite](Trajectory::is_finite); `speed_mps` is the speedometer reading. Panics if the
    /// trajectory has no path or fewer than two waypoints, or if its spacing is zero.
    pub fn follow(&mut self, trajectory: &Trajectory, speed_mps: f64) -> Command {
        let (throttle, brake) = self.longitudinal(trajectory, speed_mps);
        let steer = self.steer(&trajectory.path, speed_mps);
        let command = self.recovery.override_command(Command { steer, throttle, brake }, speed_mps);
        self.config.speed_cap.map_or(command, |cap| cap.apply(command, speed_mps))
    }

    /// Returns the state of the heuristics.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Returns throttle and brake.
    fn longitudinal(&mut self, trajectory: &Trajectory, speed_mps: f64) -> (f64, f64) {
        let config = self.config.longitudinal;
        let [first, second, ..] = trajectory.waypoints[..] else {
            panic!("a trajectory of {} waypoints has no speed", trajectory.waypoints.len());
        };
        assert!(!trajectory.spacing.is_zero(), "waypoints without time between them");
        // In 32 bits as in the release, because of the thresholds below.
        let [dx, dy] = [second[0] - first[0], second[1] - first[1]];
        let target_mps =
            f64::from((dx * dx + dy * dy).sqrt()) * (1.0 / trajectory.spacing.as_secs_f64());
        let is_braking = target_mps < config.brake_below_mps
            || speed_mps / target_mps.max(1e-5) > config.brake_above_ratio;
        // The controller is updated at every tick, including those that brake.
        let errors = &mut self.speed_errors;
        errors.push((target_mps - speed_mps).clamp(0.0, config.max_error_mps));
        let throttle = config.proportional * errors.last()
            + config.integral * errors.mean()
            + config.derivative * errors.change();
        if is_braking { (0.0, 1.0) } else { (throttle.clamp(0.0, config.max_throttle), 0.0) }
    }

    fn steer(&mut self, path: &[[f32; 2]], speed_mps: f64) -> f64 {
        let config = self.config.lateral;
        let curve = PathCurve::new(path, config.step_m);
        let steps = (config.steps_per_kmh * speed_mps * KMH_PER_MPS + config.steps_at_stand)
            .clamp(config.min_steps, config.max_steps);
        let [x, y] = curve.point((steps as usize).min(curve.len() - 1));
        let errors = &mut self.heading_errors;
        errors.push(wrap_angle(y.atan2(x)) / FRAC_PI_2);
        let steer = config.proportional * errors.last()
            + config.derivative * errors.change()
            + config.integral * errors.mean();
        (steer.clamp(-1.0, 1.0) * 1000.0).round_ties_even() / 1000.0
    }
}

impl Follower for PathFollower {
    fn begin_tick(&mut self, tick: u64, world_from_ego: &Pose) -> Detour {
        self.recovery.begin_tick(tick, world_from_ego)
    }

    /// Panics as [`PathFollower::follow`] does.
    fn command(
        &mut self,
        plan: &Plan,
        now: Timestamp,
        world_from_ego: &Pose,
        speed_mps: f64,
    ) -> Command {
        self.follow(&plan.at(now, world_from_ego), speed_mps)
    }
}

/// The last `N` values.
#[derive(Default)]
struct Window<const N: usize>(ArrayVec<f64, N>);

impl<const N: usize> Window<N> {
    fn push(&mut self, value: f64) {
        if self.0.is_full() {
            self.0.remove(0);
        }
        self.0.push(value);
    }

    fn last(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// Returns the difference of the last two values, or zero with fewer values.
    fn change(&self) -> f64 {
        match self.0[..] {
            [.., before, last] => last - before,
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn straight(speed_mps: f32) -> Trajectory {
        Trajectory {
            path: (1..=20).map(|index| [index as f32, 0.0]).collect(),
            waypoints: (1..=6).map(|index| [0.5 * speed_mps * index as f32, 0.0]).collect(),
            spacing: Duration::from_millis(500),
        }
    }

    #[track_caller]
    fn check(target_mps: f32, speed_mps: f64, throttle: f64, brake: f64) {
        let command = PathFollower::new(PathFollowerConfig::default())
            .follow(&straight(target_mps), speed_mps);
        assert_eq!(command, Command { steer: 0.0, throttle, brake });
    }

    #[test]
    fn follower_accelerates_coasts_and_brakes() {
        check(5.0, 0.0, 1.0, 0.0);
        check(5.0, 5.2, 0.0, 0.0);
        check(5.0, 5.6, 0.0, 1.0);
        check(0.3, 0.0, 0.0, 1.0);
    }

    #[test]
    fn speed_cap_brakes_and_keeps_steer() {
        let command = Command { steer: 0.3, throttle: 0.7, brake: 0.0 };
        let cap = SpeedCap::default();
        assert_eq!(cap.apply(command, 9.7), command);
        let braking = Command { steer: 0.3, throttle: 0.0, brake: 1.0 };
        assert_eq!(cap.apply(command, 9.8), braking);
    }
}
