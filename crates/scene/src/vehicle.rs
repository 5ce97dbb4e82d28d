//! Motion model of the ego vehicle: a kinematic bicycle with fitted pedals (`bench2drive.md` 7).

use crate::{Command, Pose, TICK_S};

/// Half sizes of the ego vehicle, a Lincoln MKZ, meters.
pub const EGO_EXTENT_M: [f64; 3] = [2.45, 1.06, 0.75];

const FRONT_AXLE_M: f64 = -0.090769015;
/// Distance from the vehicle's center to its rear axle, meters.
pub const REAR_AXLE_M: f64 = 1.4178275;
const WHEEL_ANGLE_PER_STEER_RAD: f64 = 0.36848336;

/// Coefficients of v¹…v⁷ of the speed after one tick of braking, km/h.
const BRAKING: [f64; 7] = [
    9.31711370e-3,
    8.20967431e-2,
    -2.83832427e-3,
    5.06587474e-5,
    -4.90357228e-7,
    2.44419284e-9,
    -4.91381935e-12,
];

/// Upper end of the fitted range of the braking polynomial, km/h; it is not valid above.
const BRAKING_FITTED_TO_KMH: f64 = 120.0;

/// Throttle below this value does not change the speed.
const THROTTLE_THRESHOLD: f64 = 0.3;

/// Pose and speed of the vehicle.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Motion {
    /// `world_from_ego`; the heading is not wrapped.
    pub pose: Pose,
    /// Forward speed, not negative, m/s.
    pub speed_mps: f64,
}

/// Returns the motion of the ego vehicle one tick later. A brake value between 0 and 1 scales the
/// deceleration of full braking linearly, because the fit covers only no and full braking.
pub fn ego_after_tick(motion: Motion, command: &Command) -> Motion {
    let slip_rad = slip_rad(command.steer);
    let Motion { pose: Pose { position, yaw_rad }, speed_mps: v } = motion;
    let (sin, cos) = (yaw_rad + slip_rad).sin_cos();
    Motion {
        pose: Pose::new(
            position.x + v * cos * TICK_S,
            position.y + v * sin * TICK_S,
            yaw_rad + v / REAR_AXLE_M * slip_rad.sin() * TICK_S,
        ),
        speed_mps: ego_speed_after_tick(v, command.throttle, command.brake),
    }
}

/// Returns the slip angle, between heading and direction of motion, radians.
pub fn slip_rad(steer: f64) -> f64 {
    let wheel_rad = WHEEL_ANGLE_PER_STEER_RAD * steer;
    (REAR_AXLE_M / (FRONT_AXLE_M + REAR_AXLE_M) * wheel_rad.tan()).atan()
}

/// Returns the speed of the ego vehicle one tick later, m/s.
pub fn ego_speed_after_tick(speed_mps: f64, throttle: f64, brake: f64) -> f64 {
    let v = speed_mps * 3.6;
    if brake <= 0.0 {
        return driven_kmh(v, throttle.clamp(0.0, 1.0)).max(0.0) / 3.6;
    }
    (v + brake.min(1.0) * (braked_kmh(v) - v)).max(0.0) / 3.6
}

fn driven_kmh(v: f64, u: f64) -> f64 {
    if u < THROTTLE_THRESHOLD {
        return v;
    }
    0.963873001 * v + 4.37535692e-4 * v.powi(2) - 0.380192912 * u
        + 1.74950069 * u.powi(2)
        + 0.0916787414 * v * u
        - 0.0705461530 * v * u.powi(2)
        - 1.05996152e-3 * v.powi(2) * u
        + 6.71079346e-4 * v.powi(2) * u.powi(2)
}

fn braked_kmh(v: f64) -> f64 {
    let fitted = v.min(BRAKING_FITTED_TO_KMH);
    let polynomial = |v: f64| BRAKING.iter().rev().fold(0.0, |sum, c| (sum + c) * v);
    (v - fitted) + polynomial(fitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bicycle_model_matches_the_reference() {
        let text = include_str!("../../../tests/data/bench2drive/pdm_lite_reference.json");
        let reference: serde_json::Value = serde_json::from_str(text).unwrap();
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let samples = reference["bicycle_ego_one_step"].as_array().unwrap();
        assert_eq!(samples.len(), 24);
        for sample in samples {
            let (at, action) = (&sample["location"], &sample["action"]);
            let before = Motion {
                pose: Pose::new(number(&at[0]), number(&at[1]), number(&sample["heading"])),
                speed_mps: number(&sample["speed"]),
            };
            let command = Command {
                steer: number(&action[0]),
                throttle: number(&action[1]),
                brake: number(&action[2]),
            };
            let after = ego_after_tick(before, &command);
            let to = &sample["next_location"];
            for (found, expected) in [
                (after.pose.position.x, number(&to[0])),
                (after.pose.position.y, number(&to[1])),
                (after.pose.yaw_rad, number(&sample["next_heading"])),
                (after.speed_mps, number(&sample["next_speed"])),
            ] {
                assert!((found - expected).abs() < 1e-9, "{found} {expected}: {sample}");
            }
        }
    }

    #[test]
    fn half_braking_is_between_coasting_and_full_braking() {
        for tenth_kmh in 0..2000 {
            let v = f64::from(tenth_kmh) / 36.0;
            let full = ego_speed_after_tick(v, 0.0, 1.0);
            let half = ego_speed_after_tick(v, 0.0, 0.5);
            assert!(full <= half && half <= v, "{v}: {half} {full}");
        }
    }

    #[test]
    fn braked_car_stays_and_full_throttle_moves_it() {
        let standing = Motion { pose: Pose::default(), speed_mps: 0.0 };
        assert_eq!(ego_after_tick(standing, &Command::FULL_BRAKE), standing);
        let throttle = Command { throttle: 1.0, ..Command::default() };
        assert!(ego_after_tick(standing, &throttle).speed_mps > 0.2);
    }
}
