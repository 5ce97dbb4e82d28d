//! Car following: the intelligent driver model, integrated over one tick.

use tandem_scene::TICK_S;

/// An object from which to keep a distance.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Lead {
    /// Distance from the ego vehicle's center to the object's center, meters.
    pub gap_m: f64,
    /// Length subtracted from the gap, meters.
    pub length_m: f64,
    /// Speed of the object along the ego vehicle's path, m/s.
    pub speed_mps: f64,
    /// Gap to keep at standstill, meters.
    pub standstill_m: f64,
    /// Additional gap per speed, seconds.
    pub headway_s: f64,
}

/// Returns the speed that the intelligent driver model reaches one tick later, m/s.
///
/// The equation is stiff far above the desired speed (friction grows with v⁴), so the steps of the
/// classical Runge–Kutta method follow its time constant: about a hundred at worst.
pub fn idm_target_speed(desired_mps: f64, ego_mps: f64, lead: &Lead) -> f64 {
    const ACCELERATION_MPS2: f64 = 24.0;
    const LONGEST_STEP_S: f64 = 1e-3;
    let deceleration_mps2: f64 = if ego_mps > 6.02 { 3.72 } else { 8.7 };
    let brake = 2.0 * (ACCELERATION_MPS2 * deceleration_mps2).sqrt();
    let slope = |time_s: f64, driven_m: f64, v: f64| {
        let gap_m = (lead.gap_m + time_s * lead.speed_mps - driven_m - lead.length_m).max(0.1);
        let wanted_m = lead.standstill_m + v * lead.headway_s + v * (v - lead.speed_mps) / brake;
        ACCELERATION_MPS2 * (1.0 - (v / desired_mps).powi(4) - (wanted_m / gap_m).powi(2))
    };
    let (mut time_s, mut driven_m, mut v) = (0.0, 0.0, ego_mps);
    while time_s < TICK_S - 1e-12 {
        let per_s = 4.0 * ACCELERATION_MPS2 * v.powi(3) / desired_mps.powi(4);
        let h = LONGEST_STEP_S.min(0.25 / per_s.max(1.0)).min(TICK_S - time_s);
        let half = h / 2.0;
        // The position changes by the speed, the speed by the slope.
        let (x1, v1) = (v, slope(time_s, driven_m, v));
        let (x2, v2) = (v + half * v1, slope(time_s + half, driven_m + half * x1, v + half * v1));
        let (x3, v3) = (v + half * v2, slope(time_s + half, driven_m + half * x2, v + half * v2));
        let (x4, v4) = (v + h * v3, slope(time_s + h, driven_m + h * x3, v + h * v3));
        time_s += h;
        driven_m += h / 6.0 * (x1 + 2.0 * x2 + 2.0 * x3 + x4);
        v += h / 6.0 * (v1 + 2.0 * v2 + 2.0 * v3 + v4);
        if v < 0.0 {
            return 0.0;
        }
    }
    v
}

#[cfg(test)]
mod tests {
    use super::super::reference::{number, samples};
    use super::*;
    use proptest::prelude::*;

    /// The samples come from an adaptive solver with an error of some mm/s.
    #[test]
    fn car_following_matches_the_reference() {
        let samples = samples("idm_target_speed");
        assert_eq!(samples.len(), 60);
        for sample in samples {
            let lead = Lead {
                gap_m: number(&sample["distance_to_leading_actor"]),
                length_m: number(&sample["leading_actor_length"]),
                speed_mps: number(&sample["leading_actor_speed"]),
                standstill_m: number(&sample["s0"]),
                headway_s: number(&sample["T"]),
            };
            let (desired, ego) = (number(&sample["desired_speed"]), number(&sample["ego_speed"]));
            let found = idm_target_speed(desired, ego, &lead);
            assert!((found - number(&sample["target_speed"])).abs() < 5e-3, "{found}: {sample}");
        }
    }

    proptest! {
        #[test]
        fn no_acceleration_toward_a_standing_leader(
            ego_mps in 0.5..20.0f64, desired_mps in 1.0..20.0f64, gap_m in 0.0..4.0f64,
        ) {
            let lead = Lead {
                gap_m: gap_m + 4.8,
                length_m: 4.8,
                speed_mps: 0.0,
                standstill_m: 4.0,
                headway_s: 0.25,
            };
            prop_assert!(idm_target_speed(desired_mps, ego_mps, &lead) < ego_mps);
        }
    }
}
