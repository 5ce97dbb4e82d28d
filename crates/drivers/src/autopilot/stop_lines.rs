//! Lights and stop signs.

use super::car_following::Lead;
use super::path::{Path, SPACING_M};
use tandem_scene::{LightColor, StopCause, StopLine, Truth};

/// A stop sign counts as obeyed by standing, slower than this, this close to its line, for so many
/// ticks.
const STANDING_MPS: f64 = 0.1;
const AT_SIGN_M: f64 = 3.0;
const STANDING_TICKS: u32 = 10;

/// A sign this far away wants to be obeyed anew, meters.
const FORGOTTEN_M: f64 = 10.0;

/// Braking that a yellow light is worth, and the hardest that a red one can ask for, m/s².
const YELLOW_BRAKING_MPS2: f64 = 5.0;
const HARDEST_BRAKING_MPS2: f64 = 6.5;

/// From our center to a light's line when we stand before it, meters.
const STANDSTILL_AT_LIGHT_M: f64 = 6.0;

/// From our front to a sign's line when we stand before it, meters.
const STANDSTILL_AT_SIGN_M: f64 = 0.6;

/// Which signs were obeyed.
#[derive(Debug, Default)]
pub(super) struct StopLines {
    obeyed: Vec<u32>,
    stood_ticks: u32,
}

impl StopLines {
    /// The nearest line ahead that asks to stop.
    pub(super) fn lead(&mut self, truth: &Truth, path: &Path) -> Option<Lead> {
        let half_m = truth.ego.extent_m[0];
        let speed_mps = truth.ego.speed_mps;
        let gap_m =
            |line: &StopLine| (path.of_plan(line.plan_idx) as f64 - path.idx() as f64) * SPACING_M;
        self.stood_ticks = if speed_mps < STANDING_MPS { self.stood_ticks + 1 } else { 0 };
        for line in truth.stop_lines.iter().filter(|line| line.cause == StopCause::Sign) {
            let front_m = gap_m(line) - half_m;
            if front_m.abs() > FORGOTTEN_M {
                self.obeyed.retain(|&id| id != line.id);
            } else if self.stood_ticks >= STANDING_TICKS
                && front_m.abs() < AT_SIGN_M
                && !self.obeyed.contains(&line.id)
            {
                self.obeyed.push(line.id);
            }
        }
        truth
            .stop_lines
            .iter()
            .filter(|line| match line.cause {
                StopCause::Light(LightColor::Red) => {
                    // It is our rear that must not cross.
                    let room_m = gap_m(line) + half_m;
                    speed_mps.powi(2) < 2.0 * HARDEST_BRAKING_MPS2 * room_m
                }
                StopCause::Light(LightColor::Yellow) => {
                    let room_m = gap_m(line) - half_m;
                    speed_mps.powi(2) < 2.0 * YELLOW_BRAKING_MPS2 * room_m
                }
                // One that shows nothing asks nothing.
                StopCause::Light(LightColor::Green | LightColor::Off) => false,
                StopCause::Sign => {
                    !self.obeyed.contains(&line.id) && gap_m(line) - half_m > -AT_SIGN_M
                }
            })
            .map(|line| Lead {
                gap_m: gap_m(line),
                length_m: 0.0,
                speed_mps: 0.0,
                standstill_m: match line.cause {
                    StopCause::Light(_) => STANDSTILL_AT_LIGHT_M,
                    StopCause::Sign => half_m + STANDSTILL_AT_SIGN_M,
                },
                headway_s: 0.1,
            })
            .min_by(|a, b| a.gap_m.total_cmp(&b.gap_m))
    }
}
