//! Pose estimation from noisy readings with an unscented Kalman filter over a bicycle model.
//!
//! The measurement is the state itself. Position is noisy, yaw and speed are not, so in effect the
//! filter smooths the position. Sigma points are 1e-5 standard deviations from the mean and their
//! weights are of order 1e10: the filter needs 64-bit floats, with which it resolves about a
//! millimeter.

use crate::scene::{Command, Pose, wrap_angle};
use nalgebra::{Matrix4, Vector4};

/// State estimated by the filter.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct VehicleState {
    /// `world_from_ego`.
    pub pose: Pose,
    /// Forward speed.
    pub speed_mps: f64,
}

/// Parameters of a [`StateFilter`]. Variances are of x, y (m²), yaw (rad²), speed (m²/s²).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StateFilterConfig {
    pub tick_s: f64,
    pub initial_variance: [f64; 4],
    pub measurement_variance: [f64; 4],
    pub process_variance: [f64; 4],
    /// Spread of the sigma points in standard deviations.
    pub alpha: f64,
    /// Additional weight of the central sigma point in the covariance.
    pub beta: f64,
    /// Secondary spread parameter.
    pub kappa: f64,
}

impl Default for StateFilterConfig {
    /// Returns the values of the AutoMoT release.
    fn default() -> Self {
        Self {
            tick_s: 0.05,
            initial_variance: [0.5, 0.5, 1e-6, 1e-6],
            measurement_variance: [0.5, 0.5, 1e-15, 1e-15],
            process_variance: [1e-4, 1e-4, 1e-3, 1e-3],
            alpha: 1e-5,
            beta: 2.0,
            kappa: 0.0,
        }
    }
}

/// Error returned when the estimate is degenerate; continue with [`StateFilter::restart`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterError {
    #[error("the covariance is not positive definite")]
    NotPositiveDefinite,
    #[error("the innovation covariance is singular")]
    Singular,
}

/// Number of state variables.
const DIMENSIONS: f64 = 4.0;

/// Index of the yaw in the state vector.
const YAW: usize = 2;

/// The filter. Its first update starts from its reading.
pub struct StateFilter {
    config: StateFilterConfig,
    started: bool,
    mean: Vector4<f64>,
    covariance: Matrix4<f64>,
    predicted: Vector4<f64>,
}

/// The mean, then one point in each direction, then their mirror images.
type SigmaPoints = [Vector4<f64>; 9];

impl StateFilter {
    /// Creates a filter without a reading.
    pub fn new(config: StateFilterConfig) -> Self {
        Self {
            config,
            started: false,
            mean: Vector4::zeros(),
            covariance: Matrix4::from_diagonal(&config.initial_variance.into()),
            predicted: Vector4::zeros(),
        }
    }

    /// Resets the filter; the next update starts from its reading.
    pub fn restart(&mut self) {
        *self = Self::new(self.config);
    }

    /// Predicts the estimate one tick ahead under `last_command`, the command of the previous tick,
    /// corrects it by `reading` and returns it. The yaw is not wrapped. Fails if the covariance is
    /// degenerate; the estimate is then unchanged.
    pub fn update(
        &mut self,
        reading: &VehicleState,
        last_command: &Command,
    ) -> Result<VehicleState, FilterError> {
        let reading = to_vector(reading);
        let mean = if self.started { self.mean } else { reading };
        let sigma = sigma_points(&self.config, &mean, &self.covariance)?.map(|point| {
            to_vector(&predict_motion(&to_state(&point), last_command, self.config.tick_s))
        });

        let [mean_weights, covariance_weights] = weights(&self.config);
        let predicted = weighted_mean(&sigma, &mean_weights);
        let spread = |center: &Vector4<f64>, noise: [f64; 4]| {
            sigma.iter().zip(covariance_weights).fold(
                Matrix4::zeros(),
                |sum: Matrix4<f64>, (point, weight)| {
                    let offset = difference(point, center);
                    sum + weight * offset * offset.transpose()
                },
            ) + Matrix4::from_diagonal(&noise.into())
        };
        // The measurement is the state, so the sigma points are the predicted measurements.
        let prior = spread(&predicted, self.config.process_variance);
        let innovation = spread(&predicted, self.config.measurement_variance);
        let cross = spread(&predicted, [0.0; 4]);
        let gain = cross * innovation.try_inverse().ok_or(FilterError::Singular)?;

        self.started = true;
        self.predicted = predicted;
        self.mean = predicted + gain * difference(&reading, &predicted);
        self.covariance = prior - gain * innovation * gain.transpose();
        Ok(to_state(&self.mean))
    }

    /// Returns the estimate before the last correction.
    pub fn predicted(&self) -> VehicleState {
        to_state(&self.predicted)
    }

    /// Returns the covariance of x, y, yaw, speed after the last correction, row by row.
    pub fn covariance(&self) -> [[f64; 4]; 4] {
        self.covariance.transpose().into()
    }
}

fn to_vector(state: &VehicleState) -> Vector4<f64> {
    let Pose { position, yaw_rad } = state.pose;
    Vector4::new(position.x, position.y, yaw_rad, state.speed_mps)
}

fn to_state(vector: &Vector4<f64>) -> VehicleState {
    let [x, y, yaw_rad, speed_mps] = (*vector).into();
    VehicleState { pose: Pose::new(x, y, yaw_rad), speed_mps }
}

/// Returns `a − b` with the yaw wrapped.
fn difference(a: &Vector4<f64>, b: &Vector4<f64>) -> Vector4<f64> {
    let mut difference = a - b;
    difference[YAW] = wrap_angle(difference[YAW]);
    difference
}

/// Scaling parameter λ, with `n + λ = α²(n + κ)`.
fn lambda(config: &StateFilterConfig) -> f64 {
    config.alpha.powi(2) * (DIMENSIONS + config.kappa) - DIMENSIONS
}

/// Returns the weights of the sigma points in the mean and in the covariance.
fn weights(config: &StateFilterConfig) -> [[f64; 9]; 2] {
    let lambda = lambda(config);
    let mut mean = [0.5 / (DIMENSIONS + lambda); 9];
    let mut covariance = mean;
    mean[0] = lambda / (DIMENSIONS + lambda);
    covariance[0] = mean[0] + (1.0 - config.alpha.powi(2) + config.beta);
    [mean, covariance]
}

fn sigma_points(
    config: &StateFilterConfig,
    mean: &Vector4<f64>,
    covariance: &Matrix4<f64>,
) -> Result<SigmaPoints, FilterError> {
    let root = ((DIMENSIONS + lambda(config)) * covariance)
        .cholesky()
        .ok_or(FilterError::NotPositiveDefinite)?
        .unpack();
    let mut points = [*mean; 9];
    for direction in 0..4 {
        let offset = root.column(direction).into_owned();
        points[1 + direction] = difference(mean, &-offset);
        points[5 + direction] = difference(mean, &offset);
    }
    Ok(points)
}

fn weighted_mean(points: &SigmaPoints, weights: &[f64; 9]) -> Vector4<f64> {
    let mut mean = Vector4::zeros();
    let (mut sin, mut cos) = (0.0, 0.0);
    for (point, &weight) in points.iter().zip(weights) {
        mean += weight * point;
        sin += weight * point[YAW].sin();
        cos += weight * point[YAW].cos();
    }
    mean[YAW] = sin.atan2(cos);
    mean
}

// Bicycle model, identified for the vehicle of the benchmark.
const FRONT_WHEELBASE_M: f64 = -0.090_769_015;
const REAR_WHEELBASE_M: f64 = 1.417_827_5;
const STEER_GAIN_RAD: f64 = 0.368_483_36;
const BRAKE_MPS2: f64 = -4.952_399;
const THROTTLE_MPS2: f64 = 0.563_383_7;

/// Predicts the state after `tick_s` seconds. Braking is binary, and the
/// speed does not become negative.
pub fn predict_motion(state: &VehicleState, command: &Command, tick_s: f64) -> VehicleState {
    let VehicleState { pose, speed_mps } = *state;
    let slip_rad = (REAR_WHEELBASE_M / (FRONT_WHEELBASE_M + REAR_WHEELBASE_M)
        * (STEER_GAIN_RAD * command.steer).tan())
    .atan();
    let acceleration_mps2 =
        if command.brake != 0.0 { BRAKE_MPS2 } else { THROTTLE_MPS2 * command.throttle };
    let course_rad = pose.yaw_rad + slip_rad;
    VehicleState {
        pose: Pose::new(
            pose.position.x + speed_mps * course_rad.cos() * tick_s,
            pose.position.y + speed_mps * course_rad.sin() * tick_s,
            pose.yaw_rad + speed_mps / REAR_WHEELBASE_M * slip_rad.sin() * tick_s,
        ),
        speed_mps: (speed_mps + acceleration_mps2 * tick_s).max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_is_averaged_at_standstill() {
        let mut filter = StateFilter::new(StateFilterConfig::default());
        let mut estimate = VehicleState::default();
        for tick in 0..200 {
            let x = if tick % 2 == 0 { 0.9 } else { 1.1 };
            let reading = VehicleState { pose: Pose::new(x, 2.0, 0.5), speed_mps: 0.0 };
            estimate = filter.update(&reading, &Command::FULL_BRAKE).unwrap();
        }
        assert!((estimate.pose.position.x - 1.0).abs() < 0.02, "{estimate:?}");
        assert!((estimate.pose.yaw_rad - 0.5).abs() < 1e-9, "{estimate:?}");
    }

    #[test]
    fn sigma_points_reproduce_covariance() {
        let config = StateFilterConfig { alpha: 1.0, ..StateFilterConfig::default() };
        let spread = Matrix4::new(
            2.0, 0.9, 0.3, -0.4, 0.9, 1.5, 0.1, 0.2, 0.3, 0.1, 0.8, 0.0, -0.4, 0.2, 0.0, 1.1,
        );
        let mean = Vector4::new(10.0, -3.0, 0.2, 4.0);
        let points = sigma_points(&config, &mean, &spread).unwrap();
        let [_, weights] = weights(&config);
        let found = points.iter().zip(weights).fold(Matrix4::zeros(), |sum, (point, weight)| {
            let offset = difference(point, &mean);
            sum + weight * offset * offset.transpose()
        });
        assert!((found - spread).abs().max() < 1e-12, "{found}");
    }

    #[test]
    fn yaw_across_pi_is_followed_the_short_way() {
        let mut filter = StateFilter::new(StateFilterConfig::default());
        let reading = |yaw| VehicleState { pose: Pose::new(0.0, 0.0, yaw), speed_mps: 0.0 };
        filter.update(&reading(3.13), &Command::FULL_BRAKE).unwrap();
        let turned = filter.update(&reading(-3.13), &Command::FULL_BRAKE).unwrap();
        let expected = 2.0 * std::f64::consts::PI - 3.13;
        assert!((turned.pose.yaw_rad - expected).abs() < 1e-9, "{turned:?}");
    }

    #[test]
    fn nan_reading_fails_next_update_until_restart() {
        let mut filter = StateFilter::new(StateFilterConfig::default());
        let reading = VehicleState { pose: Pose::new(3.0, 4.0, 0.0), speed_mps: 5.0 };
        let broken = VehicleState { speed_mps: f64::NAN, ..reading };
        let command = Command::default();
        filter.update(&broken, &command).unwrap();
        filter.update(&reading, &command).unwrap_err();
        filter.restart();
        let restarted = filter.update(&reading, &command).unwrap();
        assert!((restarted.speed_mps - 5.0).abs() < 1e-9);
    }
}
