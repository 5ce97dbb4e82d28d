//! Steering toward a point ahead on the path.

use arrayvec::ArrayVec;
use glam::DVec2;
use std::f64::consts::FRAC_PI_2;
use tandem_scene::wrap_angle;

/// Steers toward a point ahead on the path.
#[derive(Clone, Debug, Default)]
pub struct LateralController {
    /// Last heading errors, in quarter turns, newest last.
    errors: ArrayVec<f64, 6>,
}

impl LateralController {
    /// Returns the steering of a vehicle at `place` with `heading_rad`; `path` begins next to it
    /// and has ten points per meter.
    pub fn steer(&mut self, path: &[DVec2], place: DVec2, heading_rad: f64, speed_mps: f64) -> f64 {
        let look_ahead = 0.9755321901954155 * (speed_mps * 3.6) + 1.9152884533402488;
        let idx = look_ahead.clamp(24.0, 105.0) as usize;
        let aim = path[idx.min(path.len() - 1)] - place;
        let error = wrap_angle(aim.to_angle() - heading_rad) / FRAC_PI_2;
        let change = self.errors.last().map_or(0.0, |last| error - last);
        if self.errors.is_full() {
            self.errors.remove(0);
        }
        self.errors.push(error);
        let mean = self.errors.iter().sum::<f64>() / self.errors.len() as f64;
        let steer =
            3.118357247806046 * error + 1.3782508892109167 * change + 0.6406067986034124 * mean;
        steer.clamp(-1.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{number, samples};
    use super::*;

    #[test]
    fn steering_matches_the_reference() {
        for sequence in samples("lateral_pid_sequences") {
            let (amplitude, frequency) =
                (number(&sequence["amplitude"]), number(&sequence["frequency"]));
            let path: Vec<DVec2> = (0..400)
                .map(|i| {
                    let i = f64::from(i);
                    DVec2::new(0.1 * i, amplitude * (0.01 * i * frequency).sin() * 0.1 * i)
                })
                .collect();
            let mut controller = LateralController::default();
            for step in sequence["steps"].as_array().unwrap() {
                let start = step["route_start_index"].as_u64().unwrap() as usize;
                let at = &step["position"];
                let steer = controller.steer(
                    &path[start..],
                    DVec2::new(number(&at[0]), number(&at[1])),
                    number(&step["heading"]),
                    number(&step["speed"]),
                );
                assert!((steer - number(&step["steer"])).abs() < 1e-9, "{steer}: {step}");
            }
        }
    }
}
