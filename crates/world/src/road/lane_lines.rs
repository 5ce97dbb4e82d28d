//! Lanes of a map as lines in space: nearest-lane search and shortest paths along lanes.
//!
//! Lines run in the direction of traffic, in world coordinates. They are sampled from the exact
//! surface that the map reader provides, one lane section at a time: the reader's own center lines
//! bend at the end of a section to the lane offset of the next one.

use super::grid::Grid;
use super::open_drive::OpenDrive;
use glam::{DVec2, DVec3, Vec3Swizzles};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use xodr::{Direction, Lane, LaneId, LanePosition, Layer, Point};

/// Maximum distance between two points of a line, meters along the road.
const STEP_M: f64 = 2.0;

/// Minimum distance to which a curve is subdivided, meters along the road.
const SHORTEST_STEP_M: f64 = 0.05;

/// Maximum deviation of a line from its lane's center between two points, meters.
const DEVIATION_M: f64 = 0.005;

/// Distance before the end of a lane section at which the section's own
/// records are evaluated, meters.
const SECTION_END_M: f64 = 1e-6;

/// Two points closer than this along the road but farther apart in space are
/// a gap in the lane, meters.
const GAP_M: f64 = 0.01;

/// Lanes at most this much farther away than the nearest one may be on the
/// level of the place, meters.
const LEVEL_REACH_M: f64 = 8.0;

/// Lanes whose heights differ by less are on one level, meters: slopes over [`LEVEL_REACH_M`],
/// superelevation and lane heights differ by less, roads above each other by more.
const LEVEL_M: f64 = 2.0;

/// A place farther than this from every lane has no level, meters.
const NO_LEVEL_M: f64 = 50.0;

/// Lanes whose centers are this close to the nearest one are candidates as well, meters.
const AMBIGUOUS_M: f64 = 0.5;

/// Length of a lane change, and its extra cost in the path search, meters.
const LANE_CHANGE_M: f64 = 10.0;
const LANE_CHANGE_COST_M: f64 = 30.0;

/// Center line of a lane within one lane section.
pub(super) struct LaneLine {
    pub(crate) id: LaneId,
    points: Vec<DVec3>,
    /// Road station of each point, meters; empty if the reader gave no exact places.
    stations_m: Vec<f64>,
    /// Planar length up to each point, without gaps, meters.
    along_m: Vec<f64>,
    /// Direction at each point, of unit length in the plane.
    directions: Vec<DVec2>,
}

/// Planar projection of a place onto the nearest point of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Projection {
    /// Index of the line in its collection.
    pub(crate) line: usize,
    /// Meters along the line.
    pub(crate) along_m: f64,
    /// Planar distance from the place, meters.
    pub(crate) away_m: f64,
    /// Height of the place above the line, meters.
    pub(super) above_m: f64,
}

/// A point of a line with its direction.
pub(super) struct OnLine {
    pub(crate) position: DVec3,
    /// Direction of traffic, of unit length.
    pub(crate) direction: DVec2,
    /// Meters from the start of the road; `None` if the reader gave no exact places.
    pub(super) station_m: Option<f64>,
}

impl LaneLine {
    fn new(map: &OpenDrive, lane: &Lane) -> Self {
        let exact = sample(map, lane);
        let reader_points =
            || lane.center.points().iter().map(|&point| in_world(point, map.origin)).collect();
        let (mut stations_m, mut points): (Vec<f64>, Vec<DVec3>) = match exact {
            Some(samples) => samples.into_iter().unzip(),
            None => (Vec::new(), reader_points()),
        };
        if lane.direction == Direction::Backward {
            stations_m.reverse();
            points.reverse();
        }
        let mut line =
            Self { id: lane.id, along_m: vec![0.0], directions: Vec::new(), points, stations_m };
        let mut steps = Vec::with_capacity(line.points.len() - 1);
        for piece in 0..line.points.len() - 1 {
            let step = (line.points[piece + 1] - line.points[piece]).xy();
            let step = if line.is_gap(piece) { DVec2::ZERO } else { step };
            line.along_m.push(line.along_m[piece] + step.length());
            steps.push(step.normalize_or_zero());
        }
        let fallback = steps.iter().copied().find(|step| *step != DVec2::ZERO).unwrap_or(DVec2::X);
        let mut last = fallback;
        for point in 0..line.points.len() {
            let before = point.checked_sub(1).map_or(DVec2::ZERO, |piece| steps[piece]);
            let after = steps.get(point).copied().unwrap_or_default();
            last = (before + after).normalize_or(last);
            line.directions.push(last);
        }
        line
    }

    /// Returns true if there is a gap between point `piece` and the next.
    fn is_gap(&self, piece: usize) -> bool {
        let [Some(from), Some(to)] = [piece, piece + 1].map(|point| self.stations_m.get(point))
        else {
            return false;
        };
        let step_m = self.points[piece].distance(self.points[piece + 1]);
        (from - to).abs() <= 2.0 * SECTION_END_M && step_m > GAP_M
    }

    pub(crate) fn length_m(&self) -> f64 {
        self.along_m[self.along_m.len() - 1]
    }

    /// Returns the point `along_m` from the line's start, or its end.
    pub(crate) fn at(&self, along_m: f64) -> OnLine {
        let last = self.points.len() - 2;
        let piece = self.along_m.partition_point(|&reached_m| reached_m <= along_m);
        let piece = piece.saturating_sub(1).min(last);
        let length_m = self.along_m[piece + 1] - self.along_m[piece];
        let part = ((along_m - self.along_m[piece]) / length_m.max(1e-9)).clamp(0.0, 1.0);
        let between = |values: &[f64]| values[piece] + (values[piece + 1] - values[piece]) * part;
        let (from, to) = (self.directions[piece], self.directions[piece + 1]);
        OnLine {
            position: self.points[piece].lerp(self.points[piece + 1], part),
            direction: from.lerp(to, part).normalize_or(from),
            station_m: (!self.stations_m.is_empty()).then(|| between(&self.stations_m)),
        }
    }

    /// Projects `place` onto `piece` in the plane.
    fn projection(&self, line: usize, piece: usize, place: DVec3) -> Projection {
        let (a, b) = (self.points[piece], self.points[piece + 1]);
        let step = (b - a).xy();
        let part = (place - a).xy().dot(step) / step.length_squared().max(1e-12);
        let part = part.clamp(0.0, 1.0);
        let found = a.lerp(b, part);
        Projection {
            line,
            along_m: self.along_m[piece] + (self.along_m[piece + 1] - self.along_m[piece]) * part,
            away_m: found.xy().distance(place.xy()),
            above_m: place.z - found.z,
        }
    }

    /// Projects `place` onto the line in the plane.
    fn project(&self, line: usize, place: DVec3) -> Projection {
        let projections = (0..self.points.len() - 1)
            .filter(|&piece| !self.is_gap(piece))
            .map(|piece| self.projection(line, piece, place));
        projections
            .min_by(|a, b| a.away_m.total_cmp(&b.away_m))
            .unwrap_or_else(|| self.projection(line, 0, place))
    }

    /// Returns the points from `from_m` to `to_m`, both included.
    fn stretch(&self, from_m: f64, to_m: f64) -> impl Iterator<Item = DVec3> + '_ {
        let inner = self
            .along_m
            .iter()
            .zip(&self.points)
            .filter(move |(along_m, _)| (from_m + 1e-3..to_m - 1e-3).contains(*along_m));
        let ends = [from_m, to_m].map(|along_m| self.at(along_m).position);
        [ends[0]].into_iter().chain(inner.map(|(_, &point)| point)).chain([ends[1]])
    }
}

/// Samples the center of `lane` as pairs of road station and place; `None` if the reader has no
/// exact surface for the lane.
fn sample(map: &OpenDrive, lane: &Lane) -> Option<Vec<(f64, DVec3)>> {
    let on = map.network.road_lane(lane.id)?;
    let road = map.network.road(on.road)?;
    let stations = map.stations.get(road.od_id())?;
    let start_m = *stations.sections_m.get(on.section)?;
    let end_m =
        stations.sections_m.get(on.section + 1).map_or(road.length(), |end| end.min(road.length()));
    let at = |station_m: f64| {
        let place = LanePosition { lane: lane.id, s: station_m, offset: 0.0 };
        Some((station_m, in_world(map.network.lane_point(place)?, map.origin)))
    };
    // A record is valid up to the next, so both sides of each change are
    // sampled and a step remains one.
    let inside = |station_m: &&f64| **station_m > start_m + 1e-4 && **station_m < end_m - 1e-4;
    let changes = stations.offsets_m.iter().filter(inside);
    let mut knots = vec![start_m];
    knots.extend(changes.flat_map(|&change_m| [change_m - SECTION_END_M, change_m]));
    knots.push(end_m - SECTION_END_M);
    let mut samples = vec![at(start_m)?];
    for knot in &knots[1..] {
        refine(&at, samples[samples.len() - 1], at(*knot)?, &mut samples)?;
    }
    Some(samples)
}

/// Appends places after `from` up to and including `to`, as many as the
/// curve between them requires.
fn refine(
    at: &dyn Fn(f64) -> Option<(f64, DVec3)>,
    from: (f64, DVec3),
    to: (f64, DVec3),
    samples: &mut Vec<(f64, DVec3)>,
) -> Option<()> {
    let middle = at((from.0 + to.0) / 2.0)?;
    let length_m = to.0 - from.0;
    let is_straight = middle.1.distance((from.1 + to.1) / 2.0) <= DEVIATION_M;
    if length_m > STEP_M || (!is_straight && length_m > SHORTEST_STEP_M) {
        refine(at, from, middle, samples)?;
        return refine(at, middle, to, samples);
    }
    samples.push(to);
    Some(())
}

/// The center lines of many lanes.
pub(super) struct LaneLines {
    lines: Vec<LaneLine>,
    by_lane: HashMap<LaneId, usize>,
    /// Line and piece of each item in the grid.
    pieces: Vec<(u32, u32)>,
    grid: Grid,
}

impl LaneLines {
    /// Builds the lines of the permanent lanes of `map` that `wanted` accepts.
    pub(crate) fn new(map: &OpenDrive, wanted: impl Fn(&Lane) -> bool) -> Self {
        let chosen = map.network.lanes().iter().filter(|lane| lane.layer == Layer::Permanent);
        let lines: Vec<LaneLine> =
            chosen.filter(|lane| wanted(lane)).map(|lane| LaneLine::new(map, lane)).collect();
        let by_lane = lines.iter().enumerate().map(|(idx, line)| (line.id, idx)).collect();
        let (mut pieces, mut boxes) = (Vec::new(), Vec::new());
        for (idx, line) in lines.iter().enumerate() {
            for piece in (0..line.points.len() - 1).filter(|&piece| !line.is_gap(piece)) {
                let (a, b) = (line.points[piece].xy(), line.points[piece + 1].xy());
                pieces.push((idx as u32, piece as u32));
                boxes.push((a.min(b), a.max(b)));
            }
        }
        Self { grid: Grid::new(&boxes), lines, by_lane, pieces }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn line(&self, idx: usize) -> &LaneLine {
        &self.lines[idx]
    }

    /// Returns the index of the line of `lane`.
    pub(super) fn of_lane(&self, lane: LaneId) -> Option<usize> {
        self.by_lane.get(&lane).copied()
    }

    fn projection(&self, item: u32, place: DVec3) -> Projection {
        let (line, piece) = self.pieces[item as usize];
        self.lines[line as usize].projection(line as usize, piece as usize, place)
    }

    /// Returns the line nearest to `place` among those that `accept` accepts. Planar distances are
    /// compared, so that an inexact height does not move the result along a slope; where roads are
    /// above each other, only those on the level nearest to the height of `place` count.
    pub(crate) fn nearest(
        &self,
        place: DVec3,
        accept: impl Fn(&LaneLine) -> bool,
    ) -> Option<Projection> {
        if !place.is_finite() {
            return None;
        }
        let item = self.grid.nearest(place.xy(), |item| {
            let line = self.pieces[item as usize].0;
            let away_m = || self.projection(item, place).away_m;
            accept(&self.lines[line as usize]).then(|| away_m().powi(2))
        })?;
        let nearest = self.projection(item, place);
        if nearest.away_m > NO_LEVEL_M || nearest.above_m.abs() <= LEVEL_M / 2.0 {
            return Some(nearest);
        }
        let mut projections = self.within_reach(place, nearest.away_m + LEVEL_REACH_M);
        projections.retain(|projection| accept(&self.lines[projection.line]));
        let level_m = projections
            .iter()
            .map(|projection| projection.above_m.abs())
            .fold(f64::INFINITY, f64::min);
        projections.retain(|projection| projection.above_m.abs() <= level_m + LEVEL_M);
        projections.into_iter().min_by(|a, b| a.away_m.total_cmp(&b.away_m))
    }

    /// Returns the lines that `place` may refer to: the nearest one, and those parallel to it.
    fn candidates(&self, place: DVec3) -> Vec<Projection> {
        let Some(nearest) = self.nearest(place, |_| true) else { return Vec::new() };
        let mut projections = self.within_reach(place, nearest.away_m + AMBIGUOUS_M);
        projections.retain(|projection| (projection.above_m - nearest.above_m).abs() <= LEVEL_M);
        projections
    }

    /// Returns the nearest point of each line within `reach_m` of `place` in the plane,
    /// in the order of the lines.
    fn within_reach(&self, place: DVec3, reach_m: f64) -> Vec<Projection> {
        let mut projections: Vec<Projection> = Vec::new();
        self.grid.within(place.xy(), reach_m, |item| {
            let projection = self.projection(item, place);
            if projection.away_m > reach_m {
                return;
            }
            match projections.iter_mut().find(|known| known.line == projection.line) {
                Some(known) if known.away_m <= projection.away_m => {}
                Some(known) => *known = projection,
                None => projections.push(projection),
            }
        });
        projections.sort_by_key(|projection| projection.line);
        projections
    }

    /// Returns the shortest path along lanes from `from` to `to`, from lane center to lane center;
    /// `None` if there is none of at most `longest_m`.
    pub(crate) fn lane_path(
        &self,
        network: &xodr::RoadNetwork,
        from: DVec3,
        to: DVec3,
        longest_m: f64,
    ) -> Option<Vec<DVec3>> {
        let goals = self.candidates(to);
        let mut visits: Vec<Visit> = Vec::new();
        let mut open = BinaryHeap::new();
        let mut closed = HashSet::new();
        let add = |visits: &mut Vec<Visit>, open: &mut BinaryHeap<_>, visit: Visit| {
            if visit.cost_m <= longest_m {
                open.push(Reverse((Cost(visit.cost_m), visits.len())));
                visits.push(visit);
            }
        };
        for projection in self.candidates(from) {
            let visit = Visit {
                line: projection.line,
                from_m: projection.along_m,
                ..Visit::start(projection.away_m)
            };
            add(&mut visits, &mut open, visit);
        }
        while let Some(Reverse((_, idx))) = open.pop() {
            let here = visits[idx];
            if here.to_m.is_some() {
                return Some(self.path(&visits, idx));
            }
            if here.before.is_some() && !closed.insert(here.line) {
                continue;
            }
            for goal in
                goals.iter().filter(|goal| goal.line == here.line && goal.along_m >= here.from_m)
            {
                let cost_m = here.cost_m + (goal.along_m - here.from_m) + goal.away_m;
                add(&mut visits, &mut open, Visit { to_m: Some(goal.along_m), cost_m, ..here });
            }
            let line = &self.lines[here.line];
            let Some(lane) = network.lane(line.id) else { continue };
            let rest_m = line.length_m() - here.from_m;
            for next in lane.successors.iter().filter_map(|&id| self.of_lane(id)) {
                let visit = Visit { line: next, cost_m: here.cost_m + rest_m, ..Visit::after(idx) };
                add(&mut visits, &mut open, visit);
            }
            let driven_m = rest_m.min(LANE_CHANGE_M);
            let beside = line.at(here.from_m + driven_m).position;
            for next in lane.neighbors.iter().filter_map(|&id| self.of_lane(id)) {
                let from_m = self.lines[next].project(next, beside).along_m;
                let cost_m = here.cost_m + driven_m + LANE_CHANGE_COST_M;
                let visit =
                    Visit { line: next, from_m, cost_m, changes: true, ..Visit::after(idx) };
                add(&mut visits, &mut open, visit);
            }
        }
        None
    }

    /// Returns the points of a chain of visits.
    fn path(&self, visits: &[Visit], last: usize) -> Vec<DVec3> {
        let mut chain: Vec<&Visit> = std::iter::successors(Some(&visits[last]), |visit| {
            visit.before.map(|before| &visits[before])
        })
        .collect();
        chain.reverse();
        let mut path: Vec<DVec3> = Vec::new();
        for (visit, next) in chain.iter().zip(chain[1..].iter().map(Some).chain([None])) {
            let line = &self.lines[visit.line];
            let to_m = match next {
                // A lane change goes straight to the other lane.
                Some(next) if next.changes => visit.from_m,
                _ => visit.to_m.unwrap_or_else(|| line.length_m()),
            };
            path.extend(line.stretch(visit.from_m, to_m));
        }
        path.dedup_by(|next, last| next.xy().distance(last.xy()) < 1e-3);
        path
    }
}

/// A lane on a path, entered at `from_m`.
#[derive(Clone, Copy)]
struct Visit {
    line: usize,
    from_m: f64,
    /// Where the path ends on this lane; `None` if it continues.
    to_m: Option<f64>,
    cost_m: f64,
    /// True if it is entered from the adjacent lane.
    changes: bool,
    before: Option<usize>,
}

impl Visit {
    fn start(cost_m: f64) -> Self {
        Self { line: 0, from_m: 0.0, to_m: None, cost_m, changes: false, before: None }
    }

    fn after(before: usize) -> Self {
        Self { before: Some(before), ..Self::start(0.0) }
    }
}

/// Cost in meters, ordered for the heap.
#[derive(Clone, Copy, PartialEq)]
struct Cost(f64);

impl Eq for Cost {}

impl Ord for Cost {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Cost {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Converts a place of the map reader to world coordinates, whose y axis points south.
pub(super) fn in_world(point: Point, origin: DVec2) -> DVec3 {
    DVec3::new(f64::from(point.x) + origin.x, -(f64::from(point.y) + origin.y), f64::from(point.z))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A straight road from `from` (file coordinates) at `heading_rad`; `inside` holds profiles and
    /// lanes.
    fn road(id: &str, from: (f64, f64), heading_rad: f64, length_m: f64, inside: &str) -> String {
        format!(
            "<road id='{id}' length='{length_m}' junction='-1'><planView><geometry s='0' x='{}' y='{}' \
             hdg='{heading_rad}' length='{length_m}'><line/></geometry></planView>{inside}</road>",
            from.0, from.1
        )
    }

    fn slope(base_m: f64, grade: f64) -> String {
        format!(
            "<elevationProfile><elevation s='0' a='{base_m}' b='{grade}' c='0' d='0'/></elevationProfile>"
        )
    }

    fn lane(id: i32, kind: &str, width_m: f64, inside: &str) -> String {
        format!(
            "<lane id='{id}' type='{kind}'><width sOffset='0' a='{width_m}' b='0' c='0' d='0'/>{inside}\
             </lane>"
        )
    }

    /// One lane section from `start_m` on with lanes on the right, from the center outward.
    fn section(start_m: f64, right: &str) -> String {
        format!(
            "<laneSection s='{start_m}'><center><lane id='0' type='none'/></center><right>{right}\
             </right></laneSection>"
        )
    }

    /// Two driving lanes of 3.5 m on the right.
    fn two_lanes() -> String {
        let lanes = lane(-1, "driving", 3.5, "") + &lane(-2, "driving", 3.5, "");
        format!("<lanes>{}</lanes>", section(0.0, &lanes))
    }

    fn read(roads: &str) -> (OpenDrive, LaneLines) {
        let text = format!("<OpenDRIVE><header revMajor='1' revMinor='6'/>{roads}</OpenDRIVE>");
        let map = OpenDrive::read(&text).unwrap();
        let lines = LaneLines::new(&map, |lane| lane.kind.is_drivable());
        (map, lines)
    }

    /// Returns the OpenDRIVE ids of the road and the lane of a line.
    fn ids(map: &OpenDrive, lines: &LaneLines, projection: &Projection) -> (String, i32) {
        let on = map.network.road_lane(lines.line(projection.line).id).unwrap();
        (map.network.road(on.road).unwrap().od_id().to_owned(), on.od_id)
    }

    proptest! {
        /// On any slope and at any height, with any error of the given height, the point
        /// found is next to the place.
        #[test]
        fn slopes_do_not_move_places_along_a_lane(
            base_m in -400.0..4000.0, grade in -0.2..0.2, x in 1.0..199.0, aside_m in -1.6..1.6_f64,
            error_m in prop_oneof![Just(0.0), -5.0..5.0, -4000.0..4000.0],
        ) {
            let inside = slope(base_m, grade) + &two_lanes();
            let (map, lines) = read(&road("1", (0.0, 0.0), 0.0, 200.0, &inside));
            let height_m = base_m + grade * x;
            let place = DVec3::new(x, 1.75 + aside_m, height_m + error_m);
            let projection = lines.nearest(place, |_| true).unwrap();
            prop_assert_eq!(ids(&map, &lines, &projection), ("1".to_owned(), -1));
            let found = lines.line(projection.line).at(projection.along_m).position;
            prop_assert!(found.distance(DVec3::new(x, 1.75, height_m)) < 0.005, "{}", found);
            prop_assert!((projection.above_m - error_m).abs() < 0.005 && (projection.away_m - aside_m.abs()).abs() < 0.002);
        }

        /// Where a road crosses above another, the height of the place selects the road.
        #[test]
        fn bridge_is_distinct_from_the_road_below(
            ground_m in -50.0..500.0, clearance_m in 3.5..30.0, angle_rad in 0.4..2.7, grade in -0.08..0.08,
            aside in (-3.0..3.0, -3.0..3.0), error_m in -0.7..0.7,
        ) {
            let low = road("low", (0.0, 0.0), 0.0, 200.0, &(slope(ground_m, 0.0) + &two_lanes()));
            let start = (100.0 - 60.0 * f64::cos(angle_rad), -60.0 * f64::sin(angle_rad));
            let base_m = ground_m + clearance_m - 60.0 * grade;
            let high = road("high", start, angle_rad, 120.0, &(slope(base_m, grade) + &two_lanes()));
            let (map, lines) = read(&(low + &high));
            let place = DVec3::new(100.0 + aside.0, aside.1, 0.0);
            for (id, height_m) in [("low", ground_m), ("high", ground_m + clearance_m)] {
                let projection = lines.nearest(place.with_z(height_m + error_m), |_| true).unwrap();
                prop_assert_eq!(ids(&map, &lines, &projection).0, id);
                prop_assert!(projection.away_m < 8.0 && projection.above_m.abs() < 2.0, "{:?}", projection);
            }
        }

        /// Superelevation, crossfall and lane heights raise lanes; the lane under a place is found
        /// at the height of its surface.
        #[test]
        fn tilted_road_keeps_its_lanes(
            roll_rad in -0.12..0.12_f64, fall_rad in -0.05..0.05_f64, raised_m in 0.0..0.2_f64, base_m in 0.0..900.0_f64,
            number in 1..3_i32, aside_m in -1.6..1.6_f64,
        ) {
            let lateral = format!(
                "<lateralProfile><superelevation s='0' a='{roll_rad}' b='0' c='0' d='0'/><crossfall \
                 side='both' s='0' a='{fall_rad}' b='0' c='0' d='0'/></lateralProfile>"
            );
            let height = format!("<height sOffset='0' inner='{raised_m}' outer='{raised_m}'/>");
            let lanes = lane(-1, "driving", 3.5, &height) + &lane(-2, "driving", 3.5, &height);
            let lanes = format!("<lanes>{}</lanes>", section(0.0, &lanes));
            let inside = slope(base_m, 0.03) + &lateral + &lanes;
            let (map, lines) = read(&road("1", (0.0, 0.0), 0.0, 200.0, &inside));
            let t_m: f64 = -3.5 * (f64::from(number) - 0.5);
            let place = DVec3::new(80.0, -t_m * roll_rad.cos() + 0.98 * aside_m, base_m + 2.4);
            let projection = lines.nearest(place, |_| true).unwrap();
            prop_assert_eq!(ids(&map, &lines, &projection).1, -number);
            let found = lines.line(projection.line).at(projection.along_m).position;
            let height_m = base_m + 2.4 + t_m * roll_rad.sin() - t_m.abs() * fall_rad.tan() + raised_m;
            prop_assert!((found.z - height_m).abs() < 0.05, "{} {}", found.z, height_m);
        }

        /// Lanes that are renumbered where the lane offset steps by a lane width continue
        /// straight, whether offset and section begin at the same place, at two places that
        /// differ by rounding, in the last centimeters of the road, or with records that a later
        /// one at the same place replaces.
        #[test]
        fn lane_offset_applies_to_its_own_section(
            starts in proptest::collection::vec(0.02..19.98, 1..5),
            at_the_end in proptest::collection::vec(0.003..0.06, 0..4),
            rounding_m in prop_oneof![Just(0.0), -1e-9..1e-9, -0.004..0.004],
            is_repeated: bool,
        ) {
            let mut starts: Vec<f64> = starts.into_iter().chain(at_the_end.into_iter().map(|m| 20.0 - m)).collect();
            starts.push(0.0);
            starts.sort_by(f64::total_cmp);
            starts.dedup_by(|next, last| *next - *last < 0.012);
            let (mut offsets, mut sections) = (String::new(), String::new());
            for (idx, start_m) in starts.iter().enumerate() {
                let offset = |at_m: f64, a: f64| format!("<laneOffset s='{at_m}' a='{a}' b='0' c='0' d='0'/>");
                let at_m = (start_m + rounding_m).max(0.0);
                if is_repeated {
                    offsets += &offset(at_m, -40.0);
                }
                offsets += &offset(at_m, 3.5 * idx as f64);
                let lanes: String = (0..=idx as i32)
                    .map(|inner| lane(-1 - inner, if inner == idx as i32 { "driving" } else { "none" }, 3.5, ""))
                    .collect();
                sections += &section(*start_m, &lanes);
            }
            let lanes = format!("<lanes>{offsets}{sections}</lanes>");
            let (_, lines) = read(&road("1", (0.0, 0.0), 0.0, 20.0, &lanes));
            prop_assert_eq!(lines.lines.len(), starts.len());
            let mut length_m = 0.0;
            for line in &lines.lines {
                length_m += line.length_m();
                for point in &line.points {
                    prop_assert!((point.y - 1.75).abs() < 0.001, "{:?} {:?}", point, starts);
                }
            }
            prop_assert!((length_m - 20.0).abs() < 0.001, "{}", length_m);
        }

        /// A lane offset that is a cubic polynomial moves its lane along that polynomial, from where
        /// its record begins.
        #[test]
        fn cubic_lane_offset_is_followed(begin_m in 5.0..15.0_f64, c in -0.02..0.02, d in -6e-4..6e-4) {
            let offsets = format!(
                "<laneOffset s='0' a='1' b='0' c='0' d='0'/>\
                 <laneOffset s='{begin_m}' a='1' b='0' c='{c}' d='{d}'/>"
            );
            let lanes = format!("<lanes>{offsets}{}</lanes>", section(0.0, &lane(-1, "driving", 3.0, "")));
            let (_, lines) = read(&road("1", (0.0, 0.0), 0.0, 35.0, &lanes));
            for step in 1..34 {
                let x = f64::from(step);
                let on_m = (x - begin_m).max(0.0);
                let center = 0.5 - (c * on_m * on_m + d * on_m.powi(3));
                let projection = lines.nearest(DVec3::new(x, center, 0.0), |_| true).unwrap();
                prop_assert!(projection.away_m < 0.006, "{} {:?}", x, projection);
            }
        }

        /// A map far from its origin is as exact as one at its origin.
        #[test]
        fn coordinates_far_from_the_origin_stay_exact(
            east_m in prop_oneof![1e5..1e6, -1e7..1e7_f64], north_m in prop_oneof![1e5..1e6, -1e7..1e7_f64],
            heading_rad in -3.0..3.0_f64, along_m in 0.0..200.0_f64,
        ) {
            let inside = slope(12.5, 0.04) + &two_lanes();
            let (_, lines) = read(&road("1", (east_m, north_m), heading_rad, 200.0, &inside));
            let (sine, cosine) = f64::sin_cos(heading_rad);
            let east = east_m + along_m * cosine + 1.75 * sine;
            let north = north_m + along_m * sine - 1.75 * cosine;
            let center = DVec3::new(east, -north, 12.5 + 0.04 * along_m);
            let projection = lines.nearest(center, |_| true).unwrap();
            let found = lines.line(projection.line).at(projection.along_m).position;
            prop_assert!(found.distance(center) < 1e-3, "{}", found - center);
            let direction = lines.line(projection.line).at(projection.along_m).direction;
            prop_assert!(direction.distance(DVec2::new(cosine, -sine)) < 1e-3);
        }
    }

    #[test]
    fn lane_jump_within_a_section_is_a_gap() {
        let offsets = "<laneOffset s='0' a='0' b='0' c='0' d='0'/>\
                       <laneOffset s='10' a='3.5' b='0' c='0' d='0'/>";
        let lanes =
            format!("<lanes>{offsets}{}</lanes>", section(0.0, &lane(-1, "driving", 3.5, "")));
        let (_, lines) = read(&road("1", (0.0, 0.0), 0.0, 20.0, &lanes));
        assert!((lines.lines[0].length_m() - 20.0).abs() < 1e-3);
        // The middle of the jump is on no lane.
        let projection = lines.nearest(DVec3::new(10.0, 0.0, 0.0), |_| true).unwrap();
        assert!((projection.away_m - 1.75).abs() < 0.01, "{projection:?}");
    }
}
