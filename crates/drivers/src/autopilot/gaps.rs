//! Crossing, merging and passing: before a stretch of road that others may use, a rollout shows
//! whether it can be driven without contact; if not, the ego vehicle waits in front of it.

use super::forecast::{STEP_S, STEPS};
use super::passages::Detour;
use super::path::{POINTS_PER_M, Path, SPACING_M};
use super::pedals::time_to_cover;
use super::rollout::{Contact, Margin, Rollout, SpeedProfile};
use super::zones::{self, Kind, Zone};
use tandem_scene::vehicle::ego_speed_after_tick;
use tandem_scene::{ActorKind, EgoState, TICK_S};

/// Distance from the ego vehicle's front to the point before which it waits, meters.
pub(super) const STANDSTILL_M: f64 = 0.5;

/// How far past a stretch the rollout continues, points: others may come from behind.
const PAST_ZONE: usize = 15 * POINTS_PER_M;

/// Factor on the speed in bends when hurrying, and after a long wait.
const HURRY: f64 = 1.4;
const MAX_HURRY: f64 = 1.75;

/// Factor on the speed of the slow profile.
const SLOW: f64 = 0.5;

/// Factor on the margin once the decision to go has been made.
const DECIDED_MARGIN: f64 = 0.2;

/// Factor on the margin after a long wait, and the waiting time at which it is reached, seconds.
const IMPATIENT_MARGIN: f64 = 0.2;
const IMPATIENT_AFTER_S: f64 = 40.0;

/// Additional room in front of the ego vehicle for pedestrians and cyclists, points.
const ROOM_FOR_PEDESTRIANS: usize = POINTS_PER_M;

/// Number of ticks for which the oncoming lane is watched before it is used.
const WATCH_TICKS: u32 = 106;

/// On the way into the oncoming lane, stopping is allowed up to this lateral
/// shift of the front, meters.
const MAY_STOP_ASIDE_M: f64 = 1.5;

/// Hardest braking, m/s², with some reserve, and tolerance of the stopping distance, meters.
const HARD_BRAKING_MPS2: f64 = 6.0;
const STOP_TOLERANCE_M: f64 = 0.3;

/// Below this speed the ego vehicle stays where it is instead of choosing the latest contact, m/s.
const MOVING_MPS: f64 = 1.0;

/// Speed next to an obstacle in the oncoming lane, m/s.
const PASSING_MPS: f64 = 50.0 / 3.6;

/// The ego vehicle is back in its lane this long before an oncoming vehicle arrives, seconds.
const BEFORE_ONCOMING_S: f64 = 0.2;

/// State of a stretch that is kept between ticks.
#[derive(Clone, Copy, Debug)]
struct Memory {
    kind: Kind,
    key: usize,
    /// True while the ego vehicle drives through.
    is_going: bool,
    /// Point before which the front waits.
    wait: Option<usize>,
    waited_ticks: u32,
    watched_ticks: u32,
}

/// Decides when to enter stretches that others may use.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    zones: Vec<Zone>,
    memories: Vec<Memory>,
}

impl Gaps {
    /// Finds the stretches that are near enough to check; returns true if there are any.
    pub(super) fn find(&mut self, path: &Path, detours: &[Detour], ego: &EgoState) -> bool {
        let Self { zones, memories } = self;
        zones::find(path, detours, ego, zones);
        let is_same =
            |memory: &Memory, zone: &Zone| memory.kind == zone.kind && memory.key == zone.key;
        memories.retain(|memory| zones.iter().any(|zone| is_same(memory, zone)));
        for zone in zones.iter() {
            if !memories.iter().any(|memory| is_same(memory, zone)) {
                memories.push(Memory {
                    kind: zone.kind,
                    key: zone.key,
                    is_going: false,
                    wait: None,
                    waited_ticks: 0,
                    watched_ticks: 0,
                });
            }
        }
        !zones.is_empty()
    }

    /// Returns how to drive through the stretches that were found, or up to them; `None` if there
    /// are none. `normal` is the profile without them.
    pub(super) fn choose_profile(
        &mut self,
        rollout: &Rollout<'_>,
        normal: &SpeedProfile,
        limit_mps: f64,
    ) -> Option<SpeedProfile> {
        let mut chosen: Option<SpeedProfile> = None;
        for zone in &self.zones {
            let memory = self
                .memories
                .iter_mut()
                .find(|memory| memory.kind == zone.kind && memory.key == zone.key)
                .expect("every zone has a memory");
            let profile = ZoneCheck { zone, rollout, normal, limit_mps }.decide(memory);
            let both = chosen.map_or(profile, |first| SpeedProfile {
                limit_mps: first.limit_mps.min(profile.limit_mps),
                bend_factor: first.bend_factor.min(profile.bend_factor),
                stop: profile.stop,
            });
            chosen = Some(both);
            // Stretches beyond the waiting point do not matter yet.
            if both.stop.is_some() {
                break;
            }
        }
        chosen
    }
}

/// Check of one stretch at one tick.
struct ZoneCheck<'a> {
    zone: &'a Zone,
    rollout: &'a Rollout<'a>,
    normal: &'a SpeedProfile,
    limit_mps: f64,
}

impl ZoneCheck<'_> {
    fn decide(&self, memory: &mut Memory) -> SpeedProfile {
        let path = self.rollout.path;
        if self.zone.watch_from.is_some_and(|from| path.idx() >= from) {
            memory.watched_ticks += 1;
        }
        let is_watched = self.zone.watch_from.is_none() || memory.watched_ticks >= WATCH_TICKS;
        let waited_s = f64::from(memory.waited_ticks) * TICK_S;
        let impatience = (waited_s / IMPATIENT_AFTER_S).min(1.0);
        let full_margin = Margin::Gap(1.0 - (1.0 - IMPATIENT_MARGIN) * impatience);
        let margin = if memory.is_going { Margin::Gap(DECIDED_MARGIN) } else { full_margin };
        let profiles = self.profiles(HURRY + (MAX_HURRY - HURRY) * impatience);
        // The forecast is shorter than a slow drive in the oncoming lane.
        let profiles = match self.zone.kind {
            Kind::OncomingLane => &profiles[..2],
            _ => &profiles[..],
        };
        let may_go = is_watched && (memory.is_going || !self.is_met_by_oncoming());
        if memory.is_going && self.needs_hurry(profiles, full_margin) {
            return profiles[1];
        }
        let mut contacts: [Option<Contact>; 3] = [None; 3];
        for (profile, contact) in profiles.iter().zip(&mut contacts) {
            *contact = self.contact(profile, margin);
            if contact.is_none() && may_go {
                memory.is_going = true;
                return *profile;
            }
        }
        let wait = self.waiting_place(&contacts, margin, memory.wait);
        tracing::trace!(zone = ?self.zone, ?memory, ?contacts, wait, "not free");
        memory.wait = Some(wait);
        memory.waited_ticks += 1;
        let speed_mps = self.rollout.ego.speed_mps;
        let room_m = (wait as f64 - self.front() as f64) * SPACING_M;
        if speed_mps.powi(2) / (2.0 * HARD_BRAKING_MPS2) <= room_m + STOP_TOLERANCE_M {
            memory.is_going = false;
            return self.stop_at(wait);
        }
        let profile = self.longest(profiles);
        memory.is_going = profile.stop.is_none();
        profile
    }

    /// Returns the profiles to try: normal, hurried and slow.
    fn profiles(&self, hurry: f64) -> [SpeedProfile; 3] {
        let normal_mps = self.normal.limit_mps;
        let limit_mps = match self.zone.kind {
            Kind::OncomingLane => PASSING_MPS.min(self.limit_mps),
            _ => normal_mps,
        };
        [
            SpeedProfile { limit_mps, ..*self.normal },
            SpeedProfile { limit_mps: self.limit_mps, bend_factor: hurry, ..*self.normal },
            SpeedProfile { limit_mps: SLOW * normal_mps, ..*self.normal },
        ]
    }

    fn stop_at(&self, stop: usize) -> SpeedProfile {
        SpeedProfile { stop: Some(stop), ..*self.normal }
    }

    /// Returns the path point at the ego vehicle's front.
    fn front(&self) -> usize {
        self.rollout.path.idx() + self.half()
    }

    fn half(&self) -> usize {
        (self.rollout.ego.extent_m[0] / SPACING_M) as usize
    }

    /// Returns the point at which the rollout ends.
    fn until(&self) -> usize {
        (self.zone.to + PAST_ZONE).min(self.rollout.path.last())
    }

    fn contact(&self, profile: &SpeedProfile, margin: Margin) -> Option<Contact> {
        self.rollout.first_contact(profile, self.until(), STEPS, margin)
    }

    /// Returns true if an oncoming vehicle reaches the end of the stretch before the ego vehicle
    /// can at full throttle, so that they meet next to the obstacle: the rule of the public expert.
    fn is_met_by_oncoming(&self) -> bool {
        if self.zone.kind != Kind::OncomingLane {
            return false;
        }
        let Rollout { path, forecast, ego, .. } = self.rollout;
        let distance_m = self.zone.to.saturating_sub(path.idx()) as f64 * SPACING_M;
        let faster = |v: f64| ego_speed_after_tick(v, 1.0, 0.0);
        let target_mps = PASSING_MPS.min(self.limit_mps);
        let passing_s = time_to_cover(distance_m, ego.speed_mps, target_mps, faster);
        let end = self.zone.to.min(path.last());
        let (place, along) = (path.driven()[end], path.direction(end));
        let step = ((passing_s + BEFORE_ONCOMING_S) / STEP_S).min(STEPS as f64) as usize;
        (0..forecast.tracks().len()).any(|track| {
            let (now, then) = (forecast.place(track, 0), forecast.place(track, step));
            let comes = now.forward.dot(along) < 0.0 && (now.center - place).dot(along) > 0.0;
            comes && (then.center - place).dot(along) < 0.0
        })
    }

    /// Returns true if the ego vehicle is in the oncoming lane and only hurrying keeps the margin
    /// of the decision: the end of a moving stretch comes later than predicted.
    fn needs_hurry(&self, profiles: &[SpeedProfile], full_margin: Margin) -> bool {
        self.zone.kind == Kind::OncomingLane
            && self.contact(&profiles[0], full_margin).is_some()
            && self.contact(&profiles[1], Margin::Gap(DECIDED_MARGIN)).is_none()
    }

    /// Returns the point before which the front waits: the start of the stretch, or an earlier one
    /// if pedestrians or cyclists cross before it. In front of a junction the point moves forward
    /// by one per tick, so that space that is free only for a moment is not taken at once.
    fn waiting_place(
        &self,
        contacts: &[Option<Contact>; 3],
        margin: Margin,
        earlier: Option<usize>,
    ) -> usize {
        let Rollout { path, forecast, .. } = self.rollout;
        let crossing = contacts[..2]
            .iter()
            .flatten()
            .filter(|contact| forecast.tracks()[contact.track].kind != ActorKind::Vehicle)
            .filter_map(|contact| {
                let from = path.idx() + 1;
                self.rollout.first_crossed_idx(contact.track, from, self.until(), STEPS, margin)
            })
            .min();
        let wait = crossing.map_or(self.zone.from, |center| {
            self.zone.from.min((center + self.half()).saturating_sub(ROOM_FOR_PEDESTRIANS))
        });
        match self.zone.kind {
            Kind::Junction => earlier.map_or(wait, |earlier| wait.min(earlier + 1)),
            _ => wait,
        }
    }

    /// Called when it is too late to wait: returns the profile with the latest contact.
    fn longest(&self, profiles: &[SpeedProfile]) -> SpeedProfile {
        let lasts = |profile: &SpeedProfile| {
            let contact = self.contact(profile, Margin::Gap(DECIDED_MARGIN));
            contact.map_or(usize::MAX, |contact| contact.step)
        };
        // Stopped face to face with an oncoming vehicle, neither could continue.
        let may_stop = self.zone.kind != Kind::OncomingLane
            || self.rollout.path.aside_m(self.front()).abs() < MAY_STOP_ASIDE_M;
        let mut best = self.stop_at(self.front());
        let mut longest = if may_stop { lasts(&best) } else { 0 };
        let is_moving = self.rollout.ego.speed_mps > MOVING_MPS;
        let (normal_and_hurry, slow) = profiles.split_at(2);
        for profile in slow.iter().chain(normal_and_hurry) {
            let step = lasts(profile);
            if step > longest || (step == longest && is_moving) {
                (longest, best) = (step, *profile);
            }
        }
        best
    }
}
