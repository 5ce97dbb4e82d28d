//! Throttle and brake for a target speed, and the time that a distance takes with them.

use tandem_scene::TICK_S;

/// Returns the throttle, and whether to brake, for a target speed: a linear
/// regression fitted to the vehicle.
pub fn throttle_and_brake(target_mps: f64, speed_mps: f64, hazard: bool) -> (f64, bool) {
    if target_mps < 1e-5 || hazard {
        return (0.0, true);
    }
    let target = target_mps.max(1.0 / 3.6) * 3.6;
    let speed = speed_mps * 3.6;
    let error = target - speed;
    if error > 1.89 {
        return (1.0, false);
    }
    if speed / target > 1.031266635497984 {
        return (0.0, true);
    }
    let (s, c) = (speed / 100.0, error.max(0.0) / 100.0);
    let throttle = 1.1990342347353184 * s - 0.8057602384167799 * s * s
        + 1.710818710950062 * 100.0 * c
        + 0.921890257450335 * c * c
        + 1.556497522998393 * s * c
        - 0.7013479734904027 * s * s * c;
    (throttle.clamp(0.0, 1.0), false)
}

/// Returns the time to cover `distance_m` from `speed_mps` on, at full throttle up to `target_mps`,
/// seconds. `faster` returns the speed after a tick of full throttle, m/s.
pub fn time_to_cover(
    distance_m: f64,
    speed_mps: f64,
    target_mps: f64,
    faster: impl Fn(f64) -> f64,
) -> f64 {
    /// Maximum speed of any vehicle, m/s.
    const FASTEST_MPS: f64 = 120.0 / 3.6;
    /// Longer times count as infinite, seconds.
    const LONGEST_S: f64 = 60.0;
    let (mut left_m, mut time_s, mut v) = (distance_m, 0.0, speed_mps);
    while left_m >= v * TICK_S {
        if time_s > LONGEST_S {
            return f64::INFINITY;
        }
        left_m -= v * TICK_S;
        time_s += TICK_S;
        v = faster(v).min(target_mps).min(FASTEST_MPS);
    }
    time_s + left_m / v
}

#[cfg(test)]
mod tests {
    use super::super::reference::{number, samples};
    use super::*;

    #[test]
    fn pedals_match_the_reference() {
        let samples = samples("longitudinal_linear_regression");
        assert_eq!(samples.len(), 60);
        for sample in samples {
            let (target, speed) = (&sample["target_speed"], &sample["current_speed"]);
            let hazard = sample["hazard_brake"].as_bool().unwrap();
            let (throttle, brake) = throttle_and_brake(number(target), number(speed), hazard);
            assert!((throttle - number(&sample["throttle"])).abs() < 1e-9, "{throttle}: {sample}");
            assert_eq!(brake, sample["brake"].as_bool().unwrap(), "{sample}");
        }
    }

    /// The reference accelerates by a cubic of its own, three times as fast as the vehicle can;
    /// only the summation is compared.
    #[test]
    fn time_to_cover_matches_the_reference() {
        let faster = |v: f64| {
            let x = v * 3.6 / 120.0;
            let gain = 1.0850652 + 0.24444733 * x - 0.34674139 * x.powi(2) + 0.06045216 * x.powi(3);
            v + gain.max(0.0)
        };
        let samples = samples("min_time_for_distance");
        assert_eq!(samples.len(), 20);
        for sample in samples {
            let [distance, speed, target] =
                ["distance", "ego_speed", "target_speed"].map(|key| number(&sample[key]));
            let found = time_to_cover(distance, speed, target, faster);
            assert!((found - number(&sample["time"])).abs() < 1e-9, "{found}: {sample}");
        }
    }

    #[test]
    fn stationary_vehicle_never_arrives() {
        assert_eq!(time_to_cover(1.0, 0.0, 5.0, |v| v), f64::INFINITY);
    }
}
