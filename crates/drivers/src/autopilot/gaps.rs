//! Crossing, merging and going around: before a stretch of road that others may use, we look whether
//! all of it can be driven without touching anybody, and wait in front of it if not.

use super::forecast::{STEP_S, STEPS};
use super::passages::Detour;
use super::path::{POINTS_PER_M, Path, SPACING_M};
use super::pedals::time_to_cover;
use super::rollout::{Contact, Course, Margin, Rollout};
use super::zones::{self, Kind, Zone};
use tandem_scene::vehicle::ego_speed_after_tick;
use tandem_scene::{ActorKind, EgoState, TICK_S};

/// From our front to the place that we wait before, meters.
pub(super) const STANDSTILL_M: f64 = 0.5;

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

/// Who wants to use the oncoming lane watches it for so long.
const WATCH_TICKS: u32 = 106;

/// On the way into the oncoming lane we may still stop with our front aside this much, meters.
const MAY_STOP_ASIDE_M: f64 = 1.5;

/// The hardest that we can brake, m/s², with some reserve, and what is as good as there, meters.
const HARD_BRAKING_MPS2: f64 = 6.0;
const AS_GOOD_AS_THERE_M: f64 = 0.3;

/// Slower than this we stay where we are rather than touch somebody as late as possible, m/s.
const MOVING_MPS: f64 = 1.0;

/// Speed beside an obstacle in the oncoming lane, m/s.
const PASSING_MPS: f64 = 50.0 / 3.6;

/// We are back in our lane so long before an oncoming vehicle comes, seconds.
const BEFORE_ONCOMING_S: f64 = 0.2;

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

/// Decides about stretches that others may use.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    zones: Vec<Zone>,
    memories: Vec<Memory>,
}

impl Gaps {
    /// Finds the stretches that are near enough to be looked at; true if there are any.
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

    /// How to drive through or up to the stretches that were found, `None` if there is none.
    /// `normal` is what we would do without them.
    pub(super) fn advise(
        &mut self,
        rollout: &Rollout<'_>,
        normal: &Course,
        limit_mps: f64,
    ) -> Option<Course> {
        let mut advice: Option<Course> = None;
        for zone in &self.zones {
            let memory = self
                .memories
                .iter_mut()
                .find(|memory| memory.kind == zone.kind && memory.key == zone.key)
                .expect("every stretch that was found has its memory");
            let course = Look { zone, rollout, normal, limit_mps }.decide(memory);
            let both = advice.map_or(course, |first| Course {
                limit_mps: first.limit_mps.min(course.limit_mps),
                bend_factor: first.bend_factor.min(course.bend_factor),
                stop: course.stop,
            });
            advice = Some(both);
            // What lies beyond the place where we wait does not matter yet.
            if both.stop.is_some() {
                break;
            }
        }
        advice
    }
}

/// A look at one stretch at one tick.
struct Look<'a> {
    zone: &'a Zone,
    rollout: &'a Rollout<'a>,
    normal: &'a Course,
    limit_mps: f64,
}

impl Look<'_> {
    fn decide(&self, memory: &mut Memory) -> Course {
        let path = self.rollout.path;
        if self.zone.watch_from.is_some_and(|from| path.idx() >= from) {
            memory.watched_ticks += 1;
        }
        let is_watched = self.zone.watch_from.is_none() || memory.watched_ticks >= WATCH_TICKS;
        let waited_s = f64::from(memory.waited_ticks) * TICK_S;
        let impatience = (waited_s / IMPATIENT_AFTER_S).min(1.0);
        let full_margin = Margin::Gap(1.0 - (1.0 - IMPATIENT_MARGIN) * impatience);
        let margin = if memory.is_going { Margin::Gap(DECIDED_MARGIN) } else { full_margin };
        let courses = self.courses(HURRY + (GREAT_HURRY - HURRY) * impatience);
        // The forecast ends before a slow drive in the oncoming lane does.
        let courses = match self.zone.kind {
            Kind::OncomingLane => &courses[..2],
            _ => &courses[..],
        };
        let may_go = is_watched && (memory.is_going || !self.is_met_by_oncoming());
        if memory.is_going && self.needs_hurry(courses, full_margin) {
            return courses[1];
        }
        let mut contacts: [Option<Contact>; 3] = [None; 3];
        for (course, contact) in courses.iter().zip(&mut contacts) {
            *contact = self.contact(course, margin);
            if contact.is_none() && may_go {
                memory.is_going = true;
                return *course;
            }
        }
        let wait = self.waiting_place(&contacts, margin, memory.wait);
        tracing::trace!(zone = ?self.zone, ?memory, ?contacts, wait, "not free");
        memory.wait = Some(wait);
        memory.waited_ticks += 1;
        let speed_mps = self.rollout.ego.speed_mps;
        let room_m = (wait as f64 - self.front() as f64) * SPACING_M;
        if speed_mps.powi(2) / (2.0 * HARD_BRAKING_MPS2) <= room_m + AS_GOOD_AS_THERE_M {
            memory.is_going = false;
            return self.stop_at(wait);
        }
        let course = self.longest(courses);
        memory.is_going = course.stop.is_none();
        course
    }

    /// How we might go through: as always, in a hurry, slowly.
    fn courses(&self, hurry: f64) -> [Course; 3] {
        let normal_mps = self.normal.limit_mps;
        let limit_mps = match self.zone.kind {
            Kind::OncomingLane => PASSING_MPS.min(self.limit_mps),
            _ => normal_mps,
        };
        [
            Course { limit_mps, ..*self.normal },
            Course { limit_mps: self.limit_mps, bend_factor: hurry, ..*self.normal },
            Course { limit_mps: SLOW * normal_mps, ..*self.normal },
        ]
    }

    fn stop_at(&self, stop: usize) -> Course {
        Course { stop: Some(stop), ..*self.normal }
    }

    /// The point of the path at our front.
    fn front(&self) -> usize {
        self.rollout.path.idx() + self.half()
    }

    fn half(&self) -> usize {
        (self.rollout.ego.extent_m[0] / SPACING_M) as usize
    }

    /// Where the look ends.
    fn until(&self) -> usize {
        (self.zone.to + AFTERWARDS).min(self.rollout.path.last())
    }

    fn contact(&self, course: &Course, margin: Margin) -> Option<Contact> {
        self.rollout.first_contact(course, self.until(), STEPS, margin)
    }

    /// True if an oncoming vehicle comes to where the stretch ends before we can be there at full
    /// throttle, and so meets us beside the obstacle: the rule of the public expert.
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

    /// Returns true if we are in the oncoming lane and only a hurry keeps the margin of the decision:
    /// the end of a stretch that moves comes later than was predicted.
    fn needs_hurry(&self, courses: &[Course], full_margin: Margin) -> bool {
        self.zone.kind == Kind::OncomingLane
            && self.contact(&courses[0], full_margin).is_some()
            && self.contact(&courses[1], Margin::Gap(DECIDED_MARGIN)).is_none()
    }

    /// The point that our front waits before. From the beginning of the stretch we come with a
    /// running start; people may cross before it, and what they leave free for a moment is not taken
    /// at once.
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
                self.rollout.way_crosses(contact.track, from, self.until(), STEPS, margin)
            })
            .min();
        let wait = crossing.map_or(self.zone.from, |center| {
            self.zone.from.min((center + self.half()).saturating_sub(ROOM_FOR_PEOPLE))
        });
        match self.zone.kind {
            Kind::Junction => earlier.map_or(wait, |earlier| wait.min(earlier + 1)),
            _ => wait,
        }
    }

    /// It is too late to wait: the course that goes well for longest.
    fn longest(&self, courses: &[Course]) -> Course {
        let lasts = |course: &Course| {
            let contact = self.contact(course, Margin::Gap(DECIDED_MARGIN));
            contact.map_or(usize::MAX, |contact| contact.step)
        };
        // Face to face with an oncoming vehicle nobody would get on.
        let may_stop = self.zone.kind != Kind::OncomingLane
            || self.rollout.path.aside_m(self.front()).abs() < MAY_STOP_ASIDE_M;
        let mut best = self.stop_at(self.front());
        let mut longest = if may_stop { lasts(&best) } else { 0 };
        let is_moving = self.rollout.ego.speed_mps > MOVING_MPS;
        let (normal_and_hurry, slow) = courses.split_at(2);
        for course in slow.iter().chain(normal_and_hurry) {
            let step = lasts(course);
            if step > longest || (step == longest && is_moving) {
                (longest, best) = (step, *course);
            }
        }
        best
    }
}
