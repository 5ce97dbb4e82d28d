//! IMU and GNSS receiver with the benchmark's noise.

use crate::noise::Noise;
use std::f64::consts::{FRAC_PI_2, TAU};
use tandem_scene::{EgoState, GeoReference, Gnss, Imu};

const GRAVITY_MPS2: f64 = 9.81;
const ACCELEROMETER_DEVIATION_MPS2: [f64; 3] = [0.001, 0.001, 0.015];
const GYROSCOPE_DEVIATION_RADPS: f64 = 0.001;
/// Degrees for latitude and longitude, meters for altitude.
const GNSS_DEVIATION: f64 = 5e-6;

/// Returns the reading of the IMU.
pub(crate) fn imu(ego: &EgoState, noise: &mut Noise) -> Imu {
    let felt = [ego.acceleration_mps2, ego.speed_mps * ego.yaw_rate_radps, GRAVITY_MPS2];
    let turning = [0.0, 0.0, ego.yaw_rate_radps];
    Imu {
        acceleration_mps2: std::array::from_fn(|axis| {
            felt[axis] + noise.normal(ACCELEROMETER_DEVIATION_MPS2[axis])
        }),
        angular_velocity_radps: turning.map(|rate| rate + noise.normal(GYROSCOPE_DEVIATION_RADPS)),
        compass_rad: (ego.pose.yaw_rad + FRAC_PI_2).rem_euclid(TAU),
    }
}

/// Returns the reading of the GNSS receiver.
pub(crate) fn gnss(ego: &EgoState, reference: &GeoReference, noise: &mut Noise) -> Gnss {
    let place = ego.location();
    let (latitude, longitude) = reference.geographic(place.truncate());
    Gnss {
        latitude_deg: latitude + noise.normal(GNSS_DEVIATION),
        longitude_deg: longitude + noise.normal(GNSS_DEVIATION),
        altitude_m: place.z + noise.normal(GNSS_DEVIATION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_scene::Pose;
    use tandem_scene::vehicle::EGO_EXTENT_M;

    #[test]
    fn compass_leads_yaw_by_a_quarter_turn_and_gravity_is_up() {
        for yaw in [-3.0, -1.0, 0.0, 2.0] {
            let ego = EgoState {
                pose: Pose::new(0.0, 0.0, yaw),
                z_m: 0.0,
                speed_mps: 10.0,
                yaw_rate_radps: 0.2,
                acceleration_mps2: 1.0,
                extent_m: EGO_EXTENT_M,
            };
            let imu = imu(&ego, &mut Noise::new(1, 1, 1));
            assert!((0.0..TAU).contains(&imu.compass_rad));
            let back = tandem_scene::wrap_angle(imu.compass_rad - FRAC_PI_2);
            assert!((back - yaw).abs() < 1e-12);
            for (read, felt) in imu.acceleration_mps2.iter().zip([1.0, 2.0, 9.81]) {
                assert!((read - felt).abs() < 0.1);
            }
        }
    }
}
