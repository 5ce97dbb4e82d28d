//! Traffic lights and stop signs ahead.

use super::car_following::Lead;
use super::path::{Path, SPACING_M};
use tandem_scene::{LightColor, StopCause, StopLine, Truth};

/// A stop sign is obeyed by standing (slower than this) this close to its
/// line, for this many ticks.
const STANDING_MPS: f64 = 0.1;
const AT_SIGN_M: f64 = 3.0;
const STANDING_TICKS: u32 = 10;

/// A sign farther away than this has to be obeyed again, meters.
const RESET_M: f64 = 10.0;

/// Maximum deceleration for a yellow light, and for a red one, m/s².
const YELLOW_BRAKING_MPS2: f64 = 5.0;
const HARDEST_BRAKING_MPS2: f64 = 6.5;

/// Distance from the ego vehicle's center to a light's line when it stands there, meters.
const STANDSTILL_AT_LIGHT_M: f64 = 6.0;

/// Distance from the ego vehicle's front to a sign's line when it stands there, meters.
const STANDSTILL_AT_SIGN_M: f64 = 0.6;

/// The stop signs that were obeyed.
#[derive(Debug, Default)]
pub(super) struct StopLines {
    obeyed: Vec<u32>,
    stood_ticks: u32,
}

impl StopLines {
    /// Returns the nearest line ahead that requires a stop.
    pub(super) fn lead(&mut self, truth: &Truth, path: &Path) -> Option<Lead> {
        let half_m = truth.ego.extent_m[0];
        let speed_mps = truth.ego.speed_mps;
        let gap_m =
            |line: &StopLine| (path.of_plan(line.plan_idx) as f64 - path.idx() as f64) * SPACING_M;
        self.stood_ticks = if speed_mps < STANDING_MPS { self.stood_ticks + 1 } else { 0 };
        for line in truth.stop_lines.iter().filter(|line| line.cause == StopCause::Sign) {
            let front_m = gap_m(line) - half_m;
            if front_m.abs() > RESET_M {
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
                    // The rear of the vehicle must not cross the line.
                    let room_m = gap_m(line) + half_m;
                    speed_mps.powi(2) < 2.0 * HARDEST_BRAKING_MPS2 * room_m
                }
                StopCause::Light(LightColor::Yellow) => {
                    let room_m = gap_m(line) - half_m;
                    speed_mps.powi(2) < 2.0 * YELLOW_BRAKING_MPS2 * room_m
                }
                // A light that is off requires nothing.
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
