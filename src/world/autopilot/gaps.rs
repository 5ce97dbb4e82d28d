//! Crossing, merging and going around: before a stretch of road that others may use, we look whether
//! all of it can be driven without touching anybody, and wait in front of it if not.

use super::forecast::STEPS;
use super::passages::Detour;
use super::path::{POINTS_PER_M, Path, SPACING_M};
use super::rollout::{Contact, Course, Margin, Rollout};
use crate::scene::PassageReason;

/// A stretch is looked at from this far on, and from farther away where we need longer to stop.
const VIEW_M: f64 = 25.0;
const VIEW_BRAKING_MPS2: f64 = 3.0;

/// How far behind a stretch the look goes on, points: others may come from behind.
const AFTERWARDS: usize = 15 * POINTS_PER_M;

/// In a hurry we drive bends at this multiple of their speed.
const HURRY: f64 = 1.4;

/// And slowly at this share of the speed.
const SLOW: f64 = 0.5;

/// Margin of a decision that has been made, compared to making it.
const DECIDED_MARGIN: f64 = 0.35;

/// Who waits is content with less: this share of the margin after so many seconds.
const IMPATIENT_MARGIN: f64 = 0.4;
const IMPATIENT_AFTER_S: f64 = 30.0;

/// Who waits before a junction for longer goes as close to those who cross as he may, ticks.
const CLOSER_AFTER_TICKS: u32 = 600;

/// From our front to the place that we wait before, meters.
const STANDSTILL_M: f64 = 0.5;

/// The hardest that we can brake, m/s², with some reserve.
const HARD_BRAKING_MPS2: f64 = 6.0;

/// Speed beside an obstacle in the oncoming lane, m/s.
const PASSING_MPS: f64 = 50.0 / 3.6;

/// What a stretch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Junction,
    LaneChange,
    IntoFreeLane,
    OncomingLane,
}

/// A stretch that others may use.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Zone {
    kind: Kind,
    /// Tells it from others of its kind.
    key: usize,
    /// Our front waits before this point at the latest, unless others cross farther on.
    from: usize,
    /// It is behind us when our center is here.
    to: usize,
}

/// What we know of a stretch from earlier ticks.
#[derive(Clone, Copy, Debug)]
struct Memory {
    kind: Kind,
    key: usize,
    /// We are going through.
    is_going: bool,
    /// Our front waits before this point.
    wait: Option<usize>,
    waited_ticks: u32,
}

/// What to do about the stretches ahead.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Advice {
    /// No stretch is near.
    None,
    /// Drive like this; the way is free, or is the best there is.
    Drive(Course),
}

/// Decides about stretches that others may use.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    zones: Vec<Zone>,
    memories: Vec<Memory>,
}

impl Gaps {
    /// True if a stretch is near enough to be looked at.
    pub(super) fn find(&mut self, path: &Path, detours: &[Detour], speed_mps: f64) -> bool {
        let view_m = VIEW_M.max(10.0 + speed_mps.powi(2) / (2.0 * VIEW_BRAKING_MPS2));
        let view = path.idx() + (view_m / SPACING_M) as usize;
        self.zones.clear();
        let junctions = path.junctions().iter().map(|range| Zone {
            kind: Kind::Junction,
            key: range.start,
            from: range.start,
            to: range.end + 5 * POINTS_PER_M,
        });
        let lane_changes = path.lane_changes().iter().map(|range| Zone {
            kind: Kind::LaneChange,
            key: range.start,
            from: range.start,
            to: range.end + 3 * POINTS_PER_M,
        });
        let detours = detours.iter().filter_map(|detour| {
            let all = detour.shift.reach();
            let (kind, to) = match detour.reason {
                PassageReason::ObstacleBesideFreeLane => {
                    (Kind::IntoFreeLane, detour.shift.full.start)
                }
                PassageReason::ObstacleBesideOncomingLane => {
                    (Kind::OncomingLane, detour.shift.full.end + detour.shift.blend.1 / 2)
                }
                PassageReason::OncomingInvades | PassageReason::GiveWay => return None,
            };
            Some(Zone { kind, key: detour.key as usize, from: all.start, to })
        });
        let ours = path.idx();
        self.zones.extend(
            junctions
                .chain(lane_changes)
                .chain(detours)
                .filter(|zone| zone.from < view && zone.to > ours),
        );
        self.zones.sort_unstable_by_key(|zone| zone.from);
        let zones = &self.zones;
        self.memories.retain(|memory| {
            zones.iter().any(|zone| zone.kind == memory.kind && zone.key == memory.key)
        });
        !self.zones.is_empty()
    }

    /// How to drive through or up to the stretches that were found. `normal` is what we would do
    /// without them.
    pub(super) fn advise(
        &mut self,
        rollout: &Rollout<'_>,
        normal: &Course,
        limit_mps: f64,
    ) -> Advice {
        let mut advice = Advice::None;
        for idx in 0..self.zones.len() {
            let zone = self.zones[idx];
            let memory = match self
                .memories
                .iter_mut()
                .position(|memory| memory.kind == zone.kind && memory.key == zone.key)
            {
                Some(at) => &mut self.memories[at],
                None => {
                    self.memories.push(Memory {
                        kind: zone.kind,
                        key: zone.key,
                        is_going: false,
                        wait: None,
                        waited_ticks: 0,
                    });
                    self.memories.last_mut().expect("one was just pushed")
                }
            };
            let course = decide(&zone, memory, rollout, normal, limit_mps);
            advice = match advice {
                // The course of the first stretch ends where it makes us wait.
                Advice::Drive(first) if first.stop.is_some() => Advice::Drive(first),
                Advice::Drive(first) if course.stop.is_none() => Advice::Drive(Course {
                    limit_mps: first.limit_mps.min(course.limit_mps),
                    bend_factor: first.bend_factor.min(course.bend_factor),
                    stop: None,
                }),
                _ => Advice::Drive(course),
            };
        }
        advice
    }
}

fn decide(
    zone: &Zone,
    memory: &mut Memory,
    rollout: &Rollout<'_>,
    normal: &Course,
    limit_mps: f64,
) -> Course {
    let path = rollout.path;
    let ego = rollout.ego;
    let until = (zone.to + AFTERWARDS).min(path.last());
    let half = (ego.extent_m[0] / SPACING_M) as usize;
    let front = path.idx() + half;
    let share = if memory.is_going {
        DECIDED_MARGIN
    } else {
        let waited_s = f64::from(memory.waited_ticks) * crate::world::TICK_S;
        1.0 - (1.0 - IMPATIENT_MARGIN) * (waited_s / IMPATIENT_AFTER_S).min(1.0)
    };
    let margin = Margin::Gap(share);
    let passing_mps = match zone.kind {
        Kind::OncomingLane => PASSING_MPS.min(limit_mps),
        _ => normal.limit_mps,
    };
    let courses = [
        Course { limit_mps: passing_mps, ..*normal },
        Course { limit_mps, bend_factor: HURRY, ..*normal },
        Course { limit_mps: SLOW * normal.limit_mps, ..*normal },
    ];
    let mut contacts: [Option<Contact>; 3] = [None; 3];
    for (course, contact) in courses.iter().zip(&mut contacts) {
        *contact = rollout.first_contact(course, until, STEPS, margin);
        if contact.is_none() {
            memory.is_going = true;
            return *course;
        }
    }
    // Where the ways of those whom we would touch cross ours.
    let crossing = contacts[..2]
        .iter()
        .flatten()
        .filter_map(|contact| {
            rollout.way_crosses(contact.track, path.idx() + 1, until, STEPS, margin)
        })
        .min();
    tracing::trace!(?zone, ?memory, ?contacts, ?crossing, "not free");
    // From the entry we come with a running start; who waits for long goes closer.
    let goes_closer = memory.waited_ticks > CLOSER_AFTER_TICKS && zone.kind == Kind::Junction;
    let nearest =
        crossing.filter(|_| goes_closer).map_or(zone.from, |center| (center + half).max(zone.from));
    // What others leave free for a moment is not taken at once.
    let mut wait = memory.wait.map_or(nearest, |earlier| nearest.min(earlier + 1));
    let surely = Margin::Gap(DECIDED_MARGIN);
    let stop_at = |wait: usize| Course { stop: Some(wait), ..*normal };
    if wait > zone.from && rollout.first_contact(&stop_at(wait), until, STEPS, surely).is_some() {
        wait = zone.from;
    }
    memory.wait = Some(wait);
    memory.waited_ticks += 1;
    let room_m = (wait as f64 - front as f64) * SPACING_M;
    if ego.speed_mps.powi(2) / (2.0 * HARD_BRAKING_MPS2) <= room_m + 0.3 {
        memory.is_going = false;
        return stop_at(wait);
    }
    // Too late to wait: the way that goes well for longest.
    let lasts = |course: &Course| {
        let contact = rollout.first_contact(course, until, STEPS, surely);
        contact.map_or(usize::MAX, |contact| contact.step)
    };
    let stop = stop_at(front);
    let mut best = (lasts(&stop), stop);
    for course in [courses[2], courses[0], courses[1]] {
        let step = lasts(&course);
        if step > best.0 || (step == best.0 && ego.speed_mps > 1.0) {
            best = (step, course);
        }
    }
    memory.is_going = best.1.stop.is_none();
    best.1
}

/// What the wait before a stretch keeps free in front of us, meters.
pub(super) fn standstill_m() -> f64 {
    STANDSTILL_M
}
