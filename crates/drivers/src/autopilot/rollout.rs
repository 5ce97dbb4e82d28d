//! Rollout of the ego vehicle's next seconds, compared with the forecast.

use super::footprint::Footprint;
use super::forecast::{Forecast, STEPS};
use super::path::{Path, SPACING_M};
use super::pedals::throttle_and_brake;
use super::steering::LateralController;
use glam::DVec2;
use tandem_scene::vehicle::{Motion, ego_after_tick};
use tandem_scene::{ActorKind, Command, EgoState};

/// Ticks per step of the forecast.
const TICKS_PER_STEP: usize = 2;

/// Number of points in which the position is searched after a tick.
const SEARCH_POINTS: usize = 24;

/// Deceleration of a rollout for a stopping point, m/s².
const STOPPING_MPS2: f64 = 4.0;

/// Speeds along the path, and where to stop.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct SpeedProfile {
    /// Upper limit of the speed, m/s.
    pub(super) limit_mps: f64,
    /// Factor on the comfortable speed in bends.
    pub(super) bend_factor: f64,
    /// Point before which the front stops.
    pub(super) stop: Option<usize>,
}

/// A vehicle ahead that is followed during the rollout.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Ahead {
    /// Maximum distance from the ego vehicle's current center to its front, meters.
    pub(super) room_m: f64,
    pub(super) speed_mps: f64,
}

/// How much bodies are enlarged for the overlap test.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Margin {
    /// As in the reference's forecast of the next two seconds: grows with time.
    Growing {
        /// Number of steps of the forecast.
        steps: usize,
        /// Near lane changes of the ego vehicle, others are longer.
        near_lane_change: bool,
    },
    /// For gaps: constant in time, in proportion to this factor.
    Gap(f64),
}

impl Margin {
    fn ego_half_m(self, half_m: DVec2, speed_mps: f64) -> DVec2 {
        match self {
            Self::Growing { .. } if speed_mps >= 5.0 => half_m * DVec2::new(1.3, 1.2),
            Self::Growing { .. } => half_m,
            Self::Gap(share) => half_m + DVec2::new(0.5, 0.2) * share,
        }
    }

    fn other_half_m(self, kind: ActorKind, half_m: DVec2, speed_mps: f64, step: usize) -> DVec2 {
        let on_foot = kind == ActorKind::Pedestrian;
        match self {
            Self::Growing { .. } if on_foot => half_m.max(DVec2::splat(1.5)),
            Self::Growing { steps, near_lane_change } if speed_mps >= 1.0 => {
                let part = step as f64 / steps as f64;
                let longer = if near_lane_change { 2.0 } else { 1.2 };
                half_m * DVec2::new((1.2 * part).max(longer), (1.3 * part).max(1.0))
            }
            Self::Growing { .. } => half_m,
            Self::Gap(share) if on_foot => half_m + DVec2::splat(0.9 * share),
            Self::Gap(share) => half_m + DVec2::new(0.5 + 0.15 * speed_mps, 0.25) * share,
        }
    }
}

/// The first contact with another actor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Contact {
    /// Number of forecast steps from now.
    pub(super) step: usize,
    /// Index of the actor's track in the forecast.
    pub(super) track: usize,
    /// Path point of the ego vehicle at the contact.
    pub(super) idx: usize,
}

/// The ego vehicle and its surroundings at the start of a rollout.
#[derive(Clone, Copy)]
pub(super) struct Rollout<'a> {
    pub(super) path: &'a Path,
    pub(super) forecast: &'a Forecast,
    pub(super) ego: &'a EgoState,
    pub(super) lateral: &'a LateralController,
    pub(super) ahead: Option<Ahead>,
}

impl Rollout<'_> {
    /// Rolls out `profile` for `steps`, or until the center is at `until`, and
    /// returns the first contact.
    pub(super) fn first_contact(
        &self,
        profile: &SpeedProfile,
        until: usize,
        steps: usize,
        margin: Margin,
    ) -> Option<Contact> {
        let half_m = DVec2::new(self.ego.extent_m[0], self.ego.extent_m[1]);
        let mut motion = Motion { pose: self.ego.pose, speed_mps: self.ego.speed_mps };
        let mut lateral = self.lateral.clone();
        let mut idx = self.path.idx();
        let mut driven_m = 0.0;
        for tick in 0..=steps.min(STEPS) * TICKS_PER_STEP {
            if tick % TICKS_PER_STEP == 0 {
                let step = tick / TICKS_PER_STEP;
                let ego_footprint =
                    Footprint::new(&motion.pose, margin.ego_half_m(half_m, motion.speed_mps));
                if let Some(track) = self.touched_track(&ego_footprint, step, margin) {
                    return Some(Contact { step, track, idx });
                }
            }
            if idx >= until {
                return None;
            }
            let time_s = tick as f64 * tandem_scene::TICK_S;
            let target_mps = self.target_mps(profile, idx, half_m.x, driven_m, time_s);
            let (throttle, brake) = throttle_and_brake(target_mps, motion.speed_mps, false);
            let place = &motion.pose;
            let steer = lateral.steer(
                &self.path.driven()[idx..],
                place.position,
                place.yaw_rad,
                motion.speed_mps,
            );
            let brake = f64::from(u8::from(brake));
            driven_m += motion.speed_mps * tandem_scene::TICK_S;
            motion = ego_after_tick(motion, &Command { steer, throttle, brake });
            idx = self.path.nearest_from(idx, SEARCH_POINTS, motion.pose.position);
        }
        None
    }

    fn target_mps(
        &self,
        profile: &SpeedProfile,
        idx: usize,
        half_length_m: f64,
        driven_m: f64,
        time_s: f64,
    ) -> f64 {
        let mut target_mps = profile.limit_mps.min(profile.bend_factor * self.path.bend_mps(idx));
        let braking = |room_m: f64| (2.0 * STOPPING_MPS2 * room_m.max(0.0)).sqrt();
        if let Some(stop) = profile.stop {
            let room_m = (stop as f64 - idx as f64) * SPACING_M - half_length_m;
            target_mps = target_mps.min(braking(room_m));
        }
        if let Some(ahead) = self.ahead {
            let room_m = ahead.room_m + ahead.speed_mps * time_s - driven_m;
            target_mps = target_mps.min(ahead.speed_mps + room_m.max(0.0) / 0.8);
        }
        target_mps
    }

    fn touched_track(
        &self,
        ego_footprint: &Footprint,
        step: usize,
        margin: Margin,
    ) -> Option<usize> {
        self.forecast.tracks().iter().enumerate().position(|(idx, track)| {
            let place = self.forecast.place(idx, step);
            // No body is longer than this, including its margin.
            if place.center.distance_squared(ego_footprint.center) > 20.0 * 20.0 {
                return false;
            }
            let half_m = margin.other_half_m(track.kind, track.half_m, place.speed_mps, step);
            ego_footprint.overlaps(&Footprint {
                center: place.center,
                forward: place.forward,
                half_m,
            })
        })
    }

    /// Returns the first path point from `from` to `to` at which track `track` would touch the
    /// stationary ego vehicle at any time.
    pub(super) fn first_crossed_idx(
        &self,
        track: usize,
        from: usize,
        to: usize,
        steps: usize,
        margin: Margin,
    ) -> Option<usize> {
        /// Distance between the points that are checked.
        const STRIDE: usize = 5;
        let half_m = DVec2::new(self.ego.extent_m[0], self.ego.extent_m[1]);
        let half_m = margin.ego_half_m(half_m, 0.0);
        let other = &self.forecast.tracks()[track];
        (from..to.min(self.path.last())).step_by(STRIDE).find(|&idx| {
            let center = self.path.driven()[idx];
            let ego_footprint = Footprint { center, forward: self.path.direction(idx), half_m };
            (0..=steps.min(STEPS)).any(|step| {
                let place = self.forecast.place(track, step);
                if place.center.distance_squared(center) > 20.0 * 20.0 {
                    return false;
                }
                let half_m = margin.other_half_m(other.kind, other.half_m, place.speed_mps, step);
                ego_footprint.overlaps(&Footprint {
                    center: place.center,
                    forward: place.forward,
                    half_m,
                })
            })
        })
    }
}
