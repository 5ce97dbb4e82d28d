//! Pose of the vehicle from noisy readings: an unscented Kalman filter over a bicycle model.
//!
//! The measurement is the state itself, but position is noisy and yaw and speed are not, so the
//! filter in effect smooths the position. Sigma points lie 1e-5 of a deviation off the mean and
//! their weights are of order 1e10: it needs 64-bit floats, and these leave it about a millimeter.

use crate::scene::{Command, Pose, wrap_angle};
use nalgebra::{Matrix4, Vector4};

/// What the filter estimates.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct VehicleState {
    /// `world_from_ego`.
    pub pose: Pose,
    /// Forward speed, m/s.
    pub speed_mps: f64,
}

/// Noise and step of a [`StateFilter`]. Variances are of x, y (m²), yaw (rad²), speed (m²/s²).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StateFilterConfig {
    /// Time between two ticks, seconds.
    pub tick_s: f64,
    /// Variance at the start.
    pub initial_variance: [f64; 4],
    /// Variance of a reading.
    pub measurement_variance: [f64; 4],
    /// Variance that a tick adds.
    pub process_variance: [f64; 4],
    /// Spread of the sigma points, in deviations.
    pub alpha: f64,
    /// Extra weight of the middle sigma point in the covariance.
    pub beta: f64,
    /// Secondary spread.
    pub kappa: f64,
}

impl Default for StateFilterConfig {
    /// The release's numbers.
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

/// The estimate broke down; [`StateFilter::restart`] begins anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterError {
    /// Sigma points need a covariance that is positive definite.
    #[error("the covariance is not positive definite")]
    NotPositiveDefinite,
    /// The innovation covariance has no inverse.
    #[error("the innovation covariance is singular")]
    Singular,
}

/// Number of state variables, as a weight.
const DIMENSIONS: f64 = 4.0;

/// Index of the angle among x, y, yaw, speed.
const YAW: usize = 2;

/// The filter. Its first update starts at the reading it is given.
pub struct StateFilter {
    config: StateFilterConfig,
    started: bool,
    mean: Vector4<f64>,
    covariance: Matrix4<f64>,
    predicted: Vector4<f64>,
}

/// The mean, then a point in each direction, then their mirror images.
type SigmaPoints = [Vector4<f64>; 9];

impl StateFilter {
    /// A filter that has not seen a reading.
    pub fn new(config: StateFilterConfig) -> Self {
        Self {
            config,
            started: false,
            mean: Vector4::zeros(),
            covariance: Matrix4::from_diagonal(&config.initial_variance.into()),
            predicted: Vector4::zeros(),
        }
    }

    /// Forgets everything: the next update starts at its reading.
    pub fn restart(&mut self) {
        *self = Self::new(self.config);
    }

    /// Moves the estimate on by one tick under `last_command`, the one sent at the tick before,
    /// corrects it by `reading` and returns it. The yaw returned is not wrapped.
    ///
    /// # Errors
    /// If the covariance has degenerated; the estimate is then unchanged.
    pub fn update(
        &mut self,
        reading: &VehicleState,
        last_command: &Command,
    ) -> Result<VehicleState, FilterError> {
        let reading = to_vector(reading);
        let mean = if self.started { self.mean } else { reading };
        let sigma = sigma_points(&self.config, &mean, &self.covariance)?
            .map(|point| to_vector(&move_on(&to_state(&point), last_command, self.config.tick_s)));

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
        // The reading is the state, so the points predict it as they are.
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

    /// The estimate before the last correction.
    pub fn predicted(&self) -> VehicleState {
        to_state(&self.predicted)
    }

    /// Covariance of x, y, yaw, speed after the last correction, row by row.
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

/// `a − b`, with the angle wrapped.
fn difference(a: &Vector4<f64>, b: &Vector4<f64>) -> Vector4<f64> {
    let mut difference = a - b;
    difference[YAW] = wrap_angle(difference[YAW]);
    difference
}

/// Scaled sigma points: `n + λ = α²(n + κ)`.
fn lambda(config: &StateFilterConfig) -> f64 {
    config.alpha.powi(2) * (DIMENSIONS + config.kappa) - DIMENSIONS
}

/// Weights of the sigma points in the mean and in the covariance.
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

// The bicycle, as identified for the vehicle of the benchmark.
const FRONT_WHEELBASE_M: f64 = -0.090_769_015;
const REAR_WHEELBASE_M: f64 = 1.417_827_5;
const STEER_GAIN_RAD: f64 = 0.368_483_36;
const BRAKE_MPS2: f64 = -4.952_399;
const THROTTLE_MPS2: f64 = 0.563_383_7;

/// Where a vehicle is `tick_s` seconds on. The brake is on or off, and it never drives backwards.
pub fn move_on(state: &VehicleState, command: &Command, tick_s: f64) -> VehicleState {
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
    fn standing_still_it_averages_the_position() {
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
    fn the_sigma_points_spread_as_the_covariance_says() {
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
    fn a_yaw_that_crosses_the_back_is_followed_the_short_way() {
        let mut filter = StateFilter::new(StateFilterConfig::default());
        let reading = |yaw| VehicleState { pose: Pose::new(0.0, 0.0, yaw), speed_mps: 0.0 };
        filter.update(&reading(3.13), &Command::FULL_BRAKE).unwrap();
        let turned = filter.update(&reading(-3.13), &Command::FULL_BRAKE).unwrap();
        let expected = 2.0 * std::f64::consts::PI - 3.13;
        assert!((turned.pose.yaw_rad - expected).abs() < 1e-9, "{turned:?}");
    }

    #[test]
    fn a_broken_reading_is_an_error_at_the_next_tick_and_a_restart_heals_it() {
        let mut filter = StateFilter::new(StateFilterConfig::default());
        let reading = VehicleState { pose: Pose::new(3.0, 4.0, 0.0), speed_mps: 5.0 };
        let broken = VehicleState { speed_mps: f64::NAN, ..reading };
        let command = Command::default();
        filter.update(&broken, &command).unwrap();
        filter.update(&reading, &command).unwrap_err();
        filter.restart();
        let healed = filter.update(&reading, &command).unwrap();
        assert!((healed.speed_mps - 5.0).abs() < 1e-9);
    }
}
