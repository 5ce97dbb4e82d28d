//! Crossing, merging and going around: before a stretch of road that others may use, we look whether
//! all of it can be driven without touching anybody, and wait in front of it if not.

use super::forecast::STEPS;
use super::passages::Detour;
use super::path::{POINTS_PER_M, Path, SPACING_M};
use super::rollout::{Contact, Course, Margin, Rollout};
use crate::scene::{ActorKind, EgoState, PassageReason};

/// A stretch is looked at from this far on, and from farther away where we need longer to stop.
const VIEW_M: f64 = 25.0;
const VIEW_BRAKING_MPS2: f64 = 3.0;

/// How far behind a stretch the look goes on, points: others may come from behind.
const AFTERWARDS: usize = 15 * POINTS_PER_M;

/// In a hurry we drive bends at this multiple of their speed, and at more after having waited long.
const HURRY: f64 = 1.4;
const GREAT_HURRY: f64 = 1.75;

/// And slowly at this share of the speed.
const SLOW: f64 = 0.5;

/// Margin of a decision that has been made, compared to making it.
const DECIDED_MARGIN: f64 = 0.2;

/// Who waits is content with less: this share of the margin after so many seconds.
const IMPATIENT_MARGIN: f64 = 0.2;
const IMPATIENT_AFTER_S: f64 = 40.0;

/// What people on foot and on bicycles get in front of us beyond the margin, points.
const ROOM_FOR_PEOPLE: usize = POINTS_PER_M;

/// Who is farther beside the path than this has to come onto it first, meters, and looks so far
/// along it, points.
const OFF_PATH_M: f64 = 1.2;
const ONTO_PATH: usize = 25 * POINTS_PER_M;

/// Who wants to use the oncoming lane watches it for so long, from so far before the obstacle on.
const WATCH_TICKS: u32 = 106;
const WATCH_FROM: usize = 27 * POINTS_PER_M;

/// On the way into the oncoming lane we may still stop with our front aside this much, meters.
const MAY_STOP_ASIDE_M: f64 = 1.5;

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
    OntoPath,
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
    /// It has to be watched for a while, from this point on.
    watch_from: Option<usize>,
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
    watched_ticks: u32,
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
    /// Finds the stretches that are near enough to be looked at; true if there are any.
    pub(super) fn find(&mut self, path: &Path, detours: &[Detour], ego: &EgoState) -> bool {
        let view_m = VIEW_M.max(10.0 + ego.speed_mps.powi(2) / (2.0 * VIEW_BRAKING_MPS2));
        let view = path.idx() + (view_m / SPACING_M) as usize;
        let aside_m = path.aside_of(ego.pose.position);
        self.zones.clear();
        let junctions = path.junctions().iter().map(|range| Zone {
            kind: Kind::Junction,
            key: range.start,
            from: range.start,
            to: range.end + 5 * POINTS_PER_M,
            watch_from: None,
        });
        let lane_changes = path.lane_changes().iter().map(|range| Zone {
            kind: Kind::LaneChange,
            key: range.start,
            from: range.start,
            to: range.end + 3 * POINTS_PER_M,
            watch_from: None,
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
            let watch_from = (kind == Kind::OncomingLane)
                .then(|| detour.shift.full.start.saturating_sub(WATCH_FROM));
            Some(Zone { kind, key: detour.key as usize, from: all.start, to, watch_from })
        });
        let ours = path.idx();
        let onto_path = (aside_m.abs() > OFF_PATH_M).then_some(Zone {
            kind: Kind::OntoPath,
            key: 0,
            from: ours,
            to: ours + ONTO_PATH - AFTERWARDS,
            watch_from: None,
        });
        self.zones.extend(
            junctions
                .chain(lane_changes)
                .chain(detours)
                .chain(onto_path)
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
                        watched_ticks: 0,
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
    let waited_s = f64::from(memory.waited_ticks) * crate::world::TICK_S;
    let impatience = (waited_s / IMPATIENT_AFTER_S).min(1.0);
    let share = match memory.is_going {
        true => DECIDED_MARGIN,
        false => 1.0 - (1.0 - IMPATIENT_MARGIN) * impatience,
    };
    let hurry = HURRY + (GREAT_HURRY - HURRY) * impatience;
    let margin = Margin::Gap(share);
    let passing_mps = match zone.kind {
        Kind::OncomingLane => PASSING_MPS.min(limit_mps),
        _ => normal.limit_mps,
    };
    let courses = [
        Course { limit_mps: passing_mps, ..*normal },
        Course { limit_mps, bend_factor: hurry, ..*normal },
        Course { limit_mps: SLOW * normal.limit_mps, ..*normal },
    ];
    if zone.watch_from.is_some_and(|from| path.idx() >= from) {
        memory.watched_ticks += 1;
    }
    let has_watched = zone.watch_from.is_none() || memory.watched_ticks >= WATCH_TICKS;
    let mut contacts: [Option<Contact>; 3] = [None; 3];
    for (course, contact) in courses.iter().zip(&mut contacts) {
        *contact = rollout.first_contact(course, until, STEPS, margin);
        if contact.is_none() && has_watched {
            memory.is_going = true;
            return *course;
        }
    }
    // Where the ways of people whom we would touch cross ours. Vehicles do not come to our lane
    // before the junction.
    let is_vehicle =
        |contact: &&Contact| rollout.forecast.tracks()[contact.track].kind == ActorKind::Vehicle;
    let crossing = contacts[..2]
        .iter()
        .flatten()
        .filter(|contact| !is_vehicle(contact))
        .filter_map(|contact| {
            rollout.way_crosses(contact.track, path.idx() + 1, until, STEPS, margin)
        })
        .min();
    tracing::trace!(?zone, ?memory, ?contacts, ?crossing, "not free");
    // From the entry we come with a running start.
    let nearest = crossing
        .map_or(zone.from, |center| zone.from.min((center + half).saturating_sub(ROOM_FOR_PEOPLE)));
    // What people leave free for a moment is not taken at once.
    let wait = match zone.kind {
        Kind::Junction => memory.wait.map_or(nearest, |earlier| nearest.min(earlier + 1)),
        _ => nearest,
    };
    let surely = Margin::Gap(DECIDED_MARGIN);
    let stop_at = |wait: usize| Course { stop: Some(wait), ..*normal };
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
    // Face to face with an oncoming vehicle nobody would get on.
    let may_stop = zone.kind != Kind::OncomingLane || path.aside_m(front).abs() < MAY_STOP_ASIDE_M;
    let mut best = (if may_stop { lasts(&stop) } else { 0 }, stop);
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
