//! Smoothness: share of a drive's windows of 20 samples in which accelerations, jerks and yaw rates
//! stay within comfort bounds.

use super::python_json;
use super::rule::Rule;
use glam::DVec2;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::f64::consts::TAU;
use tandem_scene::EgoState;

/// Samples of a complete window.
const WINDOW: usize = 20;
/// Largest number of samples of the smoothing filter.
const FILTER: usize = 7;
/// Smallest number of samples for fitting a quadratic.
const MIN_SAMPLES: usize = 3;
/// Time step of derivatives in the official tool, seconds.
const OFFICIAL_STEP_S: f64 = 0.1;
/// Time step of the simulation, seconds.
const TICK_S: f64 = 0.05;

/// Lower and upper bounds, in the order of the fields of [`Series`].
const BOUNDS: [(f64, f64); 6] =
    [(-4.05, 2.40), (-4.89, 4.89), (-8.37, 8.37), (-4.13, 4.13), (-1.93, 1.93), (-0.95, 0.95)];

/// Motion at one step in the world frame, with the keys of the official tool. Accelerations are in
/// m/s², and `forward_vector` and `right_vector` are unit vectors.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct MotionSample {
    #[serde(deserialize_with = "vector")]
    pub acceleration: [f64; 3],
    /// Degrees/s, as reported by CARLA.
    #[serde(deserialize_with = "vector")]
    pub angular_velocity: [f64; 3],
    #[serde(deserialize_with = "vector")]
    pub forward_vector: [f64; 3],
    #[serde(deserialize_with = "vector")]
    pub right_vector: [f64; 3],
    /// Meters; not used for scores.
    #[serde(default, skip_deserializing)]
    pub location: [f64; 3],
    /// Roll, pitch and yaw, degrees; not used for scores.
    #[serde(default, skip_deserializing)]
    pub rotation: [f64; 3],
}

/// Reads three numbers and ignores further ones. Null represents a number that is not finite.
fn vector<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f64; 3], D::Error> {
    let numbers = Vec::<Option<f64>>::deserialize(deserializer)?;
    match numbers[..] {
        [x, y, z, ..] => Ok([x, y, z].map(|number| number.unwrap_or(f64::NAN))),
        _ => Err(D::Error::invalid_length(numbers.len(), &"three numbers")),
    }
}

impl MotionSample {
    /// Returns what an inertial unit without noise measures: acceleration along the heading and, in
    /// a bend, toward its center.
    pub fn of(ego: &EgoState) -> Self {
        let level = |in_plane: DVec2| in_plane.extend(0.0).to_array();
        let (forward, right) = (ego.pose.forward(), ego.pose.right());
        let aside_mps2 = ego.speed_mps * ego.yaw_rate_radps;
        Self {
            acceleration: level(forward * ego.acceleration_mps2 + right * aside_mps2),
            angular_velocity: [0.0, 0.0, ego.yaw_rate_radps.to_degrees()],
            forward_vector: level(forward),
            right_vector: level(right),
            location: ego.pose.position.extend(ego.z_m).to_array(),
            rotation: [0.0, 0.0, ego.pose.yaw_rad.to_degrees()],
        }
    }
}

/// Motion log of a drive, one sample per step.
#[derive(Clone, PartialEq, Debug)]
pub struct MotionLog {
    /// Step number and sample, in file order.
    samples: Vec<(i64, MotionSample)>,
}

impl Serialize for MotionLog {
    /// Writes the format of `metric_info.json`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.samples.iter().map(|(step, sample)| (step.to_string(), sample)))
    }
}

/// Error returned when smoothness can't be computed.
#[derive(Debug, thiserror::Error)]
pub enum SmoothnessError {
    #[error(
        "not a metric_info.json: expected step numbers with acceleration, angular_velocity, \
             forward_vector and right_vector of three numbers each"
    )]
    Format(#[from] serde_json::Error),
    #[error("not a metric_info.json: {key:?} is not a step number")]
    Step { key: String },
    #[error("{found} motion samples, expected at least 3: the agent must log every tick")]
    TooFew { found: usize },
}

impl MotionLog {
    /// Creates a log of one sample per tick; step numbers start at 1.
    pub fn of_ticks(samples: &[MotionSample]) -> Self {
        Self { samples: (1..).zip(samples.iter().copied()).collect() }
    }

    /// Parses the text of a `metric_info.json`.
    ///
    /// # Errors
    /// If the text has another format.
    pub fn parse(text: &str) -> Result<Self, SmoothnessError> {
        let steps = Map::<String, Value>::deserialize(python_json::parse(text)?)?;
        let samples = steps.into_iter().map(|(key, value)| {
            let step = key.parse().ok().ok_or(SmoothnessError::Step { key })?;
            Ok((step, MotionSample::deserialize(value)?))
        });
        Ok(Self { samples: samples.collect::<Result<_, SmoothnessError>>()? })
    }

    /// Returns the windows that are judged. An incomplete last window is dropped
    /// unless it is the only one.
    ///
    /// # Errors
    /// If there are fewer than three samples.
    pub fn windows(&self, rule: Rule) -> Result<Vec<Series>, SmoothnessError> {
        let found = self.samples.len();
        if found < MIN_SAMPLES {
            return Err(SmoothnessError::TooFew { found });
        }
        let mut samples = self.samples.clone();
        let mut step_s = OFFICIAL_STEP_S;
        if rule == Rule::Corrected {
            samples.sort_by_key(|(step, _)| *step);
            let steps = samples[found - 1].0 - samples[0].0;
            step_s = TICK_S * steps as f64 / (found - 1) as f64;
        }
        let samples: Vec<MotionSample> = samples.into_iter().map(|(_, sample)| sample).collect();
        let windows = samples.chunks(WINDOW).filter(|w| w.len() == WINDOW || found < WINDOW);
        Ok(windows.map(|window| Series::new(window, step_s, rule)).collect())
    }

    /// Returns the share of windows within all bounds, 0 to 1, or an error as
    /// [`windows`](Self::windows).
    pub fn smoothness(&self, rule: Rule) -> Result<f64, SmoothnessError> {
        let windows = self.windows(rule)?;
        let passed = windows.iter().filter(|window| window.verdicts().iter().all(|ok| *ok));
        Ok(passed.count() as f64 / windows.len() as f64)
    }
}

/// Smoothed series of one window, one value per sample.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// Acceleration along the vehicle, m/s².
    pub longitudinal: Vec<f64>,
    /// Acceleration across the vehicle, m/s².
    pub lateral: Vec<f64>,
    /// Derivative of the acceleration's magnitude, m/s³.
    pub magnitude_jerk: Vec<f64>,
    /// Derivative of the longitudinal acceleration, m/s³.
    pub longitudinal_jerk: Vec<f64>,
    /// Equal to the yaw rate by the official rule, otherwise in rad/s².
    pub yaw_acceleration: Vec<f64>,
    /// In degrees/s by the official rule, otherwise in rad/s.
    pub yaw_rate: Vec<f64>,
}

impl Series {
    fn new(window: &[MotionSample], step_s: f64, rule: Rule) -> Self {
        let along = |axis: fn(&MotionSample) -> [f64; 3]| {
            let project = |sample: &MotionSample| {
                let (axis, measured) = (axis(sample), sample.acceleration);
                measured[0] * axis[0] + measured[1] * axis[1]
            };
            smoothed(&window.iter().map(project).collect::<Vec<_>>())
        };
        let longitudinal = along(|sample| sample.forward_vector);
        let magnitudes = window.iter().map(|s| s.acceleration[0].hypot(s.acceleration[1]));
        let magnitude = smoothed(&magnitudes.collect::<Vec<_>>());
        let rates = window.iter().map(|sample| match rule {
            Rule::Official => sample.angular_velocity[2],
            Rule::Corrected => sample.angular_velocity[2].to_radians(),
        });
        let mut rates: Vec<f64> = rates.collect();
        if rule == Rule::Official {
            unwrap_as_angles(&mut rates);
        }
        let yaw_rate = smoothed(&rates);
        Self {
            magnitude_jerk: derivative(&magnitude, step_s),
            longitudinal_jerk: derivative(&longitudinal, step_s),
            longitudinal,
            lateral: along(|sample| sample.right_vector),
            yaw_acceleration: match rule {
                Rule::Official => yaw_rate.clone(),
                Rule::Corrected => derivative(&yaw_rate, step_s),
            },
            yaw_rate,
        }
    }

    /// Returns, in the order of the fields, whether all values of a series
    /// are strictly within bounds.
    pub fn verdicts(&self) -> [bool; 6] {
        let series = [
            &self.longitudinal,
            &self.lateral,
            &self.magnitude_jerk,
            &self.longitudinal_jerk,
            &self.yaw_acceleration,
            &self.yaw_rate,
        ];
        std::array::from_fn(|idx| {
            let (low, high) = BOUNDS[idx];
            series[idx].iter().all(|value| *value > low && *value < high)
        })
    }
}

/// Removes jumps of full turns as if rates were angles, as in the official tool.
fn unwrap_as_angles(rates: &mut [f64]) {
    let mut turns = 0.0;
    let mut last = None;
    for rate in rates {
        let raw = *rate;
        turns += last.map_or(0.0, |last: f64| ((raw - last) / TAU).round_ties_even());
        last = Some(raw);
        *rate = raw - TAU * turns;
    }
}

/// Savitzky–Golay filter: replaces every value by the quadratic fit to its neighborhood.
fn smoothed(values: &[f64]) -> Vec<f64> {
    fitted(values, |fit, offset| fit[0] + offset * (fit[1] + offset * fit[2]))
}

/// Returns the slopes of the same quadratics, per second.
fn derivative(values: &[f64], step_s: f64) -> Vec<f64> {
    fitted(values, |fit, offset| (fit[1] + 2.0 * offset * fit[2]) / step_s)
}

/// Evaluates, at each sample, the least-squares quadratic of the window around it; near the ends,
/// of the first or last window. Offsets are in samples from the middle of the window.
fn fitted(values: &[f64], at: impl Fn([f64; 3], f64) -> f64) -> Vec<f64> {
    let length = values.len().min(FILTER);
    let count = length as f64;
    let middle = (count - 1.0) / 2.0;
    let offsets = || (0..length).map(|idx| idx as f64 - middle);
    let second: f64 = offsets().map(|offset| offset.powi(2)).sum();
    let fourth: f64 = offsets().map(|offset| offset.powi(4)).sum();
    let fit = |start: usize| {
        let window = || offsets().zip(&values[start..start + length]);
        let zeroth: f64 = window().map(|(_, value)| value).sum();
        let first: f64 = window().map(|(offset, value)| offset * value).sum();
        let squares: f64 = window().map(|(offset, value)| offset * offset * value).sum();
        let curve = (count * squares - second * zeroth) / (count * fourth - second.powi(2));
        [(zeroth - curve * second) / count, first / second, curve]
    };
    (0..values.len())
        .map(|idx| {
            let start = idx.saturating_sub(length / 2).min(values.len() - length);
            at(fit(start), (idx - start) as f64 - middle)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_scene::Pose;

    #[test]
    fn right_bend_accelerates_to_the_right() {
        // 10 m/s on a circle of 50 m radius, and 1 m/s² more each second, heading south.
        let ego = EgoState {
            pose: Pose::new(3.0, 4.0, std::f64::consts::FRAC_PI_2),
            z_m: 0.5,
            speed_mps: 10.0,
            yaw_rate_radps: 0.2,
            acceleration_mps2: 1.0,
            extent_m: [2.0, 1.0, 0.7],
        };
        let sample = MotionSample::of(&ego);
        // Right of south (y) is west (-x).
        let expected = [-2.0, 1.0, 0.0];
        for (found, expected) in sample.acceleration.into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{sample:?}");
        }
        assert!((sample.angular_velocity[2] - 11.459).abs() < 1e-3);
        let log = MotionLog::of_ticks(&[sample; 3]);
        let text = serde_json::to_string(&log).unwrap();
        assert!(text.starts_with("{\"1\":{\"acceleration\":["), "{text}");
        for key in ["\"location\":[3.0,4.0,0.5]", "\"rotation\":[0.0,0.0,90.0]"] {
            assert!(text.contains(key), "{text}");
        }
        let read = MotionLog::parse(&text).unwrap();
        assert_eq!(
            read.smoothness(Rule::Official).unwrap(),
            log.smoothness(Rule::Official).unwrap()
        );
    }

    #[test]
    fn logs_without_locations_or_with_non_finite_numbers_are_read() {
        let step = |acceleration: &str| {
            format!(
                "{{\"acceleration\":[{acceleration},0,0],\"angular_velocity\":[0,0,0,1],\
                 \"forward_vector\":[1,0,0],\"right_vector\":[0,1,0]}}"
            )
        };
        for (acceleration, expected) in [("0", 1.0), ("NaN", 0.0), ("-Infinity", 0.0)] {
            let steps = [step("0"), step(acceleration), step("0")];
            let text = format!("{{\"0\":{},\"1\":{},\"2\":{}}}", steps[0], steps[1], steps[2]);
            let log = MotionLog::parse(&text).unwrap();
            assert_eq!(log.smoothness(Rule::Official).unwrap(), expected, "{acceleration}");
        }
    }
}
