//! The route as a path with ten points per meter, shifted laterally where needed.

use glam::{DVec2, DVec3, Vec3Swizzles};
use std::ops::Range;
use std::sync::Arc;
use tandem_scene::{Pose, RoutePlan, wrap_angle};

/// Number of path points per meter.
pub(super) const POINTS_PER_M: usize = 10;

/// Distance between two points, meters.
pub(super) const SPACING_M: f64 = 0.1;

/// Length of the straight path before the route's start and beyond its end, meters.
const EXTENSION_M: usize = 50;

/// A longer junction is a merge or an exit, meters.
const LONGEST_CROSSING_M: usize = 45;

/// Number of points, from the last position on, in which the current position is searched.
const SEARCH_POINTS: usize = 40;

/// Farther than this from the path a place is not in its lane, meters.
const OFF_M: f64 = 1.2;

/// Lateral acceleration in bends, and deceleration before them, m/s².
const BEND_LATERAL_MPS2: f64 = 2.5;
const BEND_BRAKING_MPS2: f64 = 2.5;

/// Lateral acceleration where the path shifts, m/s².
const ASIDE_LATERAL_MPS2: f64 = 4.5;

/// Points over which a shift grows before its full part, and shrinks after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Blend {
    pub(super) before: usize,
    pub(super) after: usize,
}

impl Blend {
    /// Creates a blend of equal length on both sides.
    pub(super) const fn both(points: usize) -> Self {
        Self { before: points, after: points }
    }
}

/// A lateral shift of part of the path.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Shift {
    /// Points that are shifted in full.
    pub(super) full: Range<usize>,
    /// Points over which the shift grows and shrinks around them.
    pub(super) blend: Blend,
    /// Full shift, meters to the right.
    pub(super) aside_m: f64,
}

impl Shift {
    /// Returns the shift of point `idx`, meters to the right.
    fn at(&self, idx: usize) -> f64 {
        let share = if idx < self.full.start {
            1.0 - (self.full.start - idx) as f64 / self.blend.before.max(1) as f64
        } else if idx > self.full.end {
            1.0 - (idx - self.full.end) as f64 / self.blend.after.max(1) as f64
        } else {
            1.0
        };
        self.aside_m * cosine_blend(share.max(0.0))
    }

    /// Returns the range of points that are shifted at all.
    pub(super) fn reach(&self) -> Range<usize> {
        self.full.start.saturating_sub(self.blend.before)..self.full.end + self.blend.after
    }
}

/// Cosine blend from 0 at 0 to 1 at 1, with zero slope at both ends.
fn cosine_blend(share: f64) -> f64 {
    (1.0 - (std::f64::consts::PI * share).cos()) / 2.0
}

/// Properties of a point from the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PointFlags {
    is_junction: bool,
    is_lane_change: bool,
}

/// The route as the autopilot uses it.
#[derive(Debug)]
pub(crate) struct Path {
    plan: Arc<RoutePlan>,
    /// Center of the route's lane at each point.
    center: Vec<DVec2>,
    /// Direction of the center line at each point.
    forward: Vec<DVec2>,
    flags: Vec<PointFlags>,
    junctions: Vec<Range<usize>>,
    lane_changes: Vec<Range<usize>>,
    /// First path point of each plan point.
    of_plan: Vec<usize>,
    shifts: Vec<Shift>,
    /// The driven line: the center displaced by the shifts.
    driven: Vec<DVec2>,
    /// Speed that bends allow at each point of the driven line, m/s.
    bend_mps: Vec<f64>,
    idx: usize,
}

impl Path {
    /// Builds the path of `plan`, with the ego vehicle at its start.
    pub(crate) fn new(plan: &Arc<RoutePlan>) -> Self {
        let places: Vec<DVec3> = plan.points.iter().map(|point| point.position).collect();
        let sampled = supersample(&extended(&places));
        let source =
            |nearest: usize| nearest.saturating_sub(EXTENSION_M).min(plan.points.len() - 1);
        let mut of_plan = vec![usize::MAX; places.len()];
        for (idx, &(_, nearest)) in sampled.iter().enumerate() {
            let first = &mut of_plan[source(nearest)];
            if nearest >= EXTENSION_M {
                *first = idx.min(*first);
            }
        }
        for idx in 1..of_plan.len() {
            if of_plan[idx] == usize::MAX {
                of_plan[idx] = of_plan[idx - 1];
            }
        }
        let center: Vec<DVec2> = sampled.iter().map(|(place, _)| place.xy()).collect();
        let last = center.len() - 1;
        let forward = (0..=last)
            .map(|idx| {
                let (from, to) = (idx.saturating_sub(POINTS_PER_M), (idx + POINTS_PER_M).min(last));
                (center[to] - center[from]).normalize_or(DVec2::X)
            })
            .collect();
        let flags: Vec<PointFlags> = sampled
            .iter()
            .map(|&(_, nearest)| {
                let point = &plan.points[source(nearest)];
                PointFlags {
                    is_junction: point.is_junction,
                    is_lane_change: point.command.is_lane_change(),
                }
            })
            .collect();
        let mut path = Self {
            plan: Arc::clone(plan),
            driven: center.clone(),
            bend_mps: vec![0.0; center.len()],
            center,
            forward,
            junctions: runs(&flags, |mark| mark.is_junction),
            lane_changes: runs(&flags, |mark| mark.is_lane_change),
            flags,
            idx: of_plan[0],
            of_plan,
            shifts: Vec::new(),
        };
        path.limit_bends();
        path
    }

    /// Returns true if this is the path of `plan`.
    pub(crate) fn is_of(&self, plan: &Arc<RoutePlan>) -> bool {
        Arc::ptr_eq(&self.plan, plan)
    }

    /// Replaces all shifts; where they overlap, the largest applies.
    pub(super) fn set_shifts(&mut self, shifts: &[Shift]) {
        if self.shifts == shifts {
            return;
        }
        self.shifts.clear();
        self.shifts.extend_from_slice(shifts);
        self.driven.copy_from_slice(&self.center);
        for idx in 0..self.center.len() {
            let aside_m = self.aside_m(idx);
            if aside_m != 0.0 {
                self.driven[idx] += self.forward[idx].perp() * aside_m;
            }
        }
        self.limit_bends();
    }

    /// Returns how far the driven line is to the right of the center at `idx`, meters.
    pub(super) fn aside_m(&self, idx: usize) -> f64 {
        self.shifts
            .iter()
            .map(|shift| shift.at(idx))
            .fold(0.0, |most: f64, aside| if aside.abs() > most.abs() { aside } else { most })
    }

    /// Moves the current position to the nearest of the next points.
    pub(crate) fn advance(&mut self, place: DVec2) {
        self.idx = self.nearest_from(self.idx, SEARCH_POINTS, place);
    }

    /// Returns the driven point nearest to `place` among the `n` from `from` on.
    pub(super) fn nearest_from(&self, from: usize, n: usize, place: DVec2) -> usize {
        let end = (from + n).min(self.driven.len() - 1);
        let distance = |idx: &usize| self.driven[*idx].distance_squared(place);
        (from..end).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(from)
    }

    /// Returns true if `place`, next to the current point, is too far from the
    /// driven line to be in its lane.
    pub(super) fn is_off(&self, place: DVec2) -> bool {
        let aside_m = self.direction(self.idx).perp_dot(place - self.driven[self.idx]);
        aside_m.abs() > OFF_M
    }

    /// Returns the index of the current point.
    pub(crate) fn idx(&self) -> usize {
        self.idx
    }

    pub(super) fn last(&self) -> usize {
        self.center.len() - 1
    }

    /// Returns the path point of the plan point `plan_idx`.
    pub(super) fn of_plan(&self, plan_idx: usize) -> usize {
        self.of_plan[plan_idx.min(self.of_plan.len() - 1)]
    }

    /// Returns the line to be driven.
    pub(crate) fn driven(&self) -> &[DVec2] {
        &self.driven
    }

    /// Returns the direction of the driven line at `idx`.
    pub(super) fn direction(&self, idx: usize) -> DVec2 {
        let (from, to) = (idx.saturating_sub(5), (idx + 5).min(self.last()));
        (self.driven[to] - self.driven[from]).normalize_or(self.forward[idx])
    }

    /// Returns the center of the route's lane at `idx`, and its direction.
    pub(super) fn center(&self, idx: usize) -> (DVec2, DVec2) {
        (self.center[idx], self.forward[idx])
    }

    /// Returns the speed that bends allow at `idx`, m/s.
    pub(super) fn bend_mps(&self, idx: usize) -> f64 {
        self.bend_mps[idx]
    }

    /// Returns true if `predicate` holds anywhere in `range`.
    fn any(&self, range: Range<usize>, predicate: impl Fn(&PointFlags) -> bool) -> bool {
        let end = range.end.min(self.flags.len());
        self.flags[range.start.min(end)..end].iter().step_by(POINTS_PER_M / 2).any(predicate)
    }

    /// Returns true if a junction overlaps `range`.
    pub(super) fn has_junction(&self, range: Range<usize>) -> bool {
        self.any(range, |mark| mark.is_junction)
    }

    /// Returns true if a lane change overlaps `range`.
    pub(super) fn has_lane_change(&self, range: Range<usize>) -> bool {
        self.any(range, |mark| mark.is_lane_change)
    }

    /// Returns the stretches inside junctions, in order.
    pub(super) fn junctions(&self) -> &[Range<usize>] {
        &self.junctions
    }

    /// Returns true if `idx` is inside a junction that is too long for a
    /// crossing: a merge or an exit.
    pub(super) fn is_merge(&self, idx: usize) -> bool {
        self.junctions
            .iter()
            .any(|range| range.contains(&idx) && range.len() > LONGEST_CROSSING_M * POINTS_PER_M)
    }

    /// Returns the stretches of lane changes, in order.
    pub(super) fn lane_changes(&self) -> &[Range<usize>] {
        &self.lane_changes
    }

    /// Locates `pose` relative to the driven line from `range.start` to `range.end`: the nearest
    /// point, the distance to its right (meters), and the heading relative to the line (radians).
    /// Returns `None` if the pose is beyond an end of the range.
    pub(super) fn locate(&self, pose: &Pose, range: Range<usize>) -> Option<(usize, f64, f64)> {
        let end = range.end.min(self.driven.len());
        let distance = |idx: &usize| self.driven[*idx].distance_squared(pose.position);
        let coarse = (range.start..end)
            .step_by(POINTS_PER_M)
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        let from = coarse.saturating_sub(POINTS_PER_M).max(range.start);
        let idx = (from..(coarse + POINTS_PER_M).min(end))
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        let along = self.direction(idx);
        let offset = pose.position - self.driven[idx];
        if offset.dot(along).abs() > 1.0 && (idx <= range.start + 1 || idx + 2 >= end) {
            return None;
        }
        Some((idx, along.perp_dot(offset), wrap_angle(pose.yaw_rad - along.to_angle())))
    }

    /// Computes at each point the speed at which the bends ahead can be driven comfortably.
    fn limit_bends(&mut self) {
        let reach = 2 * POINTS_PER_M;
        let last = self.last();
        let goes_aside = |idx: usize| {
            self.shifts.iter().any(|shift| {
                let all = shift.reach();
                all.contains(&idx)
                    && !(shift.full.start + reach..shift.full.end.saturating_sub(reach))
                        .contains(&idx)
            })
        };
        let points = &self.driven;
        for idx in 0..=last {
            let (a, b, c) =
                (points[idx.saturating_sub(reach)], points[idx], points[(idx + reach).min(last)]);
            let turned = (b - a).angle_to(c - b).abs();
            let lateral = if goes_aside(idx) { ASIDE_LATERAL_MPS2 } else { BEND_LATERAL_MPS2 };
            self.bend_mps[idx] = (lateral * a.distance(c) / 2.0 / turned.max(1e-6)).sqrt();
        }
        for idx in (0..last).rev() {
            let braking = self.bend_mps[idx + 1].powi(2) + 2.0 * BEND_BRAKING_MPS2 * SPACING_M;
            self.bend_mps[idx] = self.bend_mps[idx].min(braking.sqrt());
        }
    }
}

/// Returns the stretches of points for which `predicate` holds, with gaps of less than a meter closed.
fn runs(flags: &[PointFlags], predicate: impl Fn(&PointFlags) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (idx, _) in flags.iter().enumerate().filter(|(_, mark)| predicate(mark)) {
        match runs.last_mut() {
            Some(run) if idx <= run.end + POINTS_PER_M => run.end = idx,
            _ => runs.push(idx..idx),
        }
    }
    runs
}

/// Returns `points` with straight extensions at both ends, a point every meter.
fn extended(points: &[DVec3]) -> Vec<DVec3> {
    let last = points.len() - 1;
    let step = |from: usize, to: usize| (points[to] - points[from]).with_z(0.0).normalize_or_zero();
    let (back, onward) = (step(1, 0), step(last - 1, last));
    let before = (1..=EXTENSION_M).rev().map(|meters| points[0] + back * meters as f64);
    let after = (1..=EXTENSION_M).map(|meters| points[last] + onward * meters as f64);
    before.chain(points.iter().copied()).chain(after).collect()
}

/// Returns points a tenth of a meter apart on the line through `points`, each with the index of the
/// nearest of those. They are taken from a grid of a hundred parts per piece, as in the reference.
fn supersample(points: &[DVec3]) -> Vec<(DVec3, usize)> {
    const PARTS: usize = 100;
    let mut sampled = Vec::with_capacity(points.len() * (POINTS_PER_M + 1));
    sampled.push((points[0], 0));
    let (mut before, mut before_idx) = (points[0], 0.0_f64);
    let mut driven_m = 0.0;
    for (piece, pair) in points.windows(2).enumerate() {
        for part in 1..=PARTS {
            let at = (piece * PARTS + part) as f64 * (1.0 / PARTS as f64);
            let point = pair[0] + (pair[1] - pair[0]) * (at - piece as f64);
            driven_m += before.distance(point);
            if driven_m >= SPACING_M {
                sampled.push((before, (before_idx - 0.5).ceil().max(0.0) as usize));
                driven_m -= SPACING_M;
            }
            (before, before_idx) = (point, at);
        }
    }
    sampled
}

#[cfg(test)]
mod tests {
    use super::super::reference::{number, reference, samples};
    use super::super::tests::{plan_through, straight_plan};
    use super::*;

    #[test]
    fn path_sampling_matches_the_reference() {
        let sample = &reference()["route_supersampling"];
        let point = |value: &serde_json::Value| {
            DVec3::new(number(&value[0]), number(&value[1]), number(&value[2]))
        };
        let points: Vec<DVec3> = sample["points"].as_array().unwrap().iter().map(point).collect();
        let found = supersample(&points);
        assert_eq!(found.len() as u64, sample["count"].as_u64().unwrap());
        let check = |found: &[(DVec3, usize)], expected: &serde_json::Value| {
            let expected = expected.as_array().unwrap();
            assert_eq!(found.len(), expected.len());
            for ((place, _), expected) in found.iter().zip(expected) {
                assert!(place.distance(point(expected)) < 1e-9, "{place} {expected}");
            }
        };
        check(&found[..12], &sample["first_12"]);
        check(&found[found.len() - 5..], &sample["last_5"]);
        let commands = sample["commands"].as_array().unwrap();
        let found: Vec<_> = found.iter().map(|&(_, nearest)| commands[nearest].clone()).collect();
        assert_eq!(&found, sample["commands_out"].as_array().unwrap());
    }

    #[test]
    fn blends_match_the_reference() {
        for sample in samples("smooth_transition") {
            assert!((cosine_blend(number(&sample[0])) - number(&sample[1])).abs() < 1e-9);
        }
    }

    #[test]
    fn shift_returns_to_the_center() {
        let mut path = Path::new(&straight_plan(100));
        let (from, to) = (path.of_plan(40), path.of_plan(60));
        path.set_shifts(&[Shift {
            full: from..to,
            blend: Blend { before: 80, after: 40 },
            aside_m: -3.5,
        }]);
        assert_eq!(path.driven()[path.of_plan(30)].y, 0.0);
        assert!((path.driven()[from - 40].y + 1.75).abs() < 1e-9);
        assert!((path.driven()[path.of_plan(50)].y + 3.5).abs() < 1e-9);
        assert_eq!(path.driven()[path.of_plan(66)].y, 0.0);
        assert!(path.bend_mps(from - 60) < 8.0);
        path.set_shifts(&[]);
        assert_eq!(path.driven()[path.of_plan(50)].y, 0.0);
    }

    #[test]
    fn every_plan_point_has_a_path_point() {
        let plan = plan_through(&[DVec2::ZERO, DVec2::new(30.4, 0.0), DVec2::new(30.4, 25.0)]);
        let path = Path::new(&plan);
        for (idx, point) in plan.points.iter().enumerate() {
            let place = path.driven()[path.of_plan(idx)];
            assert!(place.distance(point.position.xy()) < 0.7, "{idx}: {place}");
        }
    }

    #[test]
    fn pose_is_located_relative_to_the_path() {
        let path = Path::new(&straight_plan(100));
        let around = path.of_plan(20)..path.of_plan(80);
        let (idx, aside_m, turned_rad) =
            path.locate(&Pose::new(50.0, 2.0, 0.3), around.clone()).unwrap();
        assert!((path.driven()[idx].x - 50.0).abs() < 0.1);
        assert!((aside_m - 2.0).abs() < 1e-9 && (turned_rad - 0.3).abs() < 1e-9);
        assert_eq!(path.locate(&Pose::new(5.0, 0.0, 0.0), around), None);
    }
}
