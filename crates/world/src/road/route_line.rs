//! Converts the key points of a route file to a line with a point about every meter.
//!
//! Route files omit junctions: there is one long gap between two key points. An arc tangent to the
//! road on both sides closes it.

use super::error::RoadError;
use super::street_map::StreetMap;
use super::track::headings;
use glam::{DVec2, DVec3, Vec3Swizzles};
use tandem_scene::{GeoReference, RoadOption, Route, RouteId, RoutePlan, RoutePoint};

/// A longer gap between key points is a junction, meters. (Key points are 2 m apart, 5 to 6 m on
/// roads with lane changes; gaps of junctions start at 16 m.)
const JUNCTION_GAP_M: f64 = 8.0;

/// A lateral step of this size between two straight pieces is a lane change, meters.
const LANE_CHANGE_M: f64 = 1.0;

/// Change of heading from which a junction is a turn, degrees.
const TURN_DEG: f64 = 35.0;

/// Key points closer than this are merged, meters.
const REPEATED_M: f64 = 0.05;

/// A point of the dense line.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinePoint {
    pub(crate) position: DVec3,
    pub(crate) command: RoadOption,
    pub(crate) is_junction: bool,
    /// Lateral offset by lane changes since the start of the route, meters to the right.
    pub(crate) aside_m: f64,
}

/// Returns the line through `key_points`, straight between neighbors and curved across gaps, with a
/// point every meter. A `map` closes gaps along its lanes and provides heights and junctions.
pub(super) fn dense_line(
    route: &RouteId,
    key_points: &[DVec3],
    map: Option<&StreetMap>,
) -> Result<Vec<LinePoint>, RoadError> {
    let mut keys: Vec<DVec3> = Vec::with_capacity(key_points.len());
    for &point in key_points {
        if keys.last().is_none_or(|last| last.xy().distance(point.xy()) > REPEATED_M) {
            keys.push(point);
        }
    }
    if keys.len() < 2 {
        return Err(RoadError::TooFewKeyPoints { route: route.clone(), found: keys.len() });
    }
    let mut line = resample(&polyline(&keys, map));
    if let Some(map) = map {
        for point in &mut line {
            let (height_m, is_junction) =
                map.under(point.position).unwrap_or((point.position.z, false));
            (point.position.z, point.is_junction) = (height_m, is_junction);
        }
    }
    Ok(line)
}

/// Returns the dense route plan along `line`.
pub(super) fn plan(line: &[LinePoint]) -> RoutePlan {
    let places: Vec<DVec2> = line.iter().map(|point| point.position.xy()).collect();
    let points = line
        .iter()
        .zip(headings(&places))
        .map(|(point, heading_rad)| RoutePoint {
            position: point.position,
            heading_rad,
            command: point.command,
            is_junction: point.is_junction,
        })
        .collect();
    RoutePlan { points, reference: GeoReference::default() }
}

impl StreetMap {
    /// Returns the dense route plan on the map's lanes.
    ///
    /// # Errors
    /// Returns an error if the route has fewer than two distinct key points,
    /// or leaves the map's lanes.
    pub fn plan(&self, route: &Route) -> Result<RoutePlan, RoadError> {
        self.check(route)?;
        Ok(plan(&dense_line(&route.id, &route.key_points, Some(self))?))
    }
}

/// Returns the direction of the piece from key point `from` on, unless it is a gap.
fn piece(keys: &[DVec3], from: Option<usize>) -> Option<DVec2> {
    let from = from?;
    let step = keys.get(from + 1)?.xy() - keys[from].xy();
    (step.length() <= JUNCTION_GAP_M).then(|| step.normalize())
}

/// Returns the key points with gaps filled in; `command`, `is_junction` and `aside_m` belong to the
/// piece that ends at the point.
fn polyline(keys: &[DVec3], map: Option<&StreetMap>) -> Vec<LinePoint> {
    let start = LinePoint {
        position: keys[0],
        command: RoadOption::LaneFollow,
        is_junction: false,
        aside_m: 0.0,
    };
    let mut line = vec![start];
    let mut aside_m = 0.0;
    for to in 1..keys.len() {
        let (a, b) = (keys[to - 1], keys[to]);
        let step = b.xy() - a.xy();
        let before = piece(keys, to.checked_sub(2));
        let after = piece(keys, Some(to));
        if step.length() > JUNCTION_GAP_M {
            let along = step.normalize();
            let (entry, exit) = (before.unwrap_or(along), after.unwrap_or(along));
            let command = turn(entry, exit);
            let bridged = || bridge(a.xy(), entry, b.xy(), exit);
            let mapped = map.and_then(|map| map.lane_path(a, b));
            let curve = mapped.map_or_else(bridged, |lane_path| {
                lane_path.iter().map(|place| place.xy()).collect()
            });
            let total: f64 = curve.windows(2).map(|pair| pair[0].distance(pair[1])).sum();
            let mut driven = 0.0;
            for pair in curve.windows(2) {
                driven += pair[0].distance(pair[1]);
                let position = pair[1].extend(a.z + (b.z - a.z) * driven / total);
                line.push(LinePoint { position, command, is_junction: true, aside_m });
            }
        } else {
            let mut command = RoadOption::LaneFollow;
            if let (Some(before), Some(after)) = (before, after) {
                let sideways = (before + after).normalize_or_zero().perp_dot(step);
                if sideways.abs() > LANE_CHANGE_M && before.dot(after) > 0.9 {
                    aside_m += sideways;
                    command = if sideways > 0.0 {
                        RoadOption::ChangeLaneRight
                    } else {
                        RoadOption::ChangeLaneLeft
                    };
                }
            }
            line.push(LinePoint { position: b, command, is_junction: false, aside_m });
        }
    }
    line
}

fn turn(entry: DVec2, exit: DVec2) -> RoadOption {
    let turned_deg = entry.angle_to(exit).to_degrees();
    if turned_deg.abs() < TURN_DEG {
        RoadOption::Straight
    } else if turned_deg > 0.0 {
        RoadOption::Right
    } else {
        RoadOption::Left
    }
}

/// Returns a curve from `a` to `b` that leaves along `entry` and arrives along `exit` (unit
/// vectors), with points closer than a meter.
///
/// Where the two tangents intersect, the curve is an arc with a straight piece on the
/// longer side, like a lane through a junction; otherwise (offset or nearly straight)
/// it is a cubic Hermite curve.
pub(crate) fn bridge(a: DVec2, entry: DVec2, b: DVec2, exit: DVec2) -> Vec<DVec2> {
    let chord = b - a;
    let sine = entry.perp_dot(exit);
    let (from_a, from_b) = (chord.perp_dot(exit) / sine, entry.perp_dot(chord) / sine);
    let tangents_meet = sine.abs() > 0.1 && from_a > 0.5 && from_b > 0.5;
    if !tangents_meet {
        return hermite(a, entry * chord.length(), b, exit * chord.length());
    }
    let leg = from_a.min(from_b);
    let (arc_start, arc_end) = (a + entry * (from_a - leg), b - exit * (from_b - leg));
    let angle = entry.angle_to(exit).abs();
    let arc_chord = arc_start.distance(arc_end);
    // Tangents of this length make the cubic follow a circle to within millimeters.
    let tangent = arc_chord * 2.0 * (angle / 4.0).tan() / (angle / 2.0).sin();
    let mut curve = vec![a];
    curve.extend(hermite(arc_start, entry * tangent, arc_end, exit * tangent));
    curve.push(b);
    curve.dedup_by(|next, last| next.distance(*last) < 1e-6);
    curve
}

fn hermite(a: DVec2, from_a: DVec2, b: DVec2, into_b: DVec2) -> Vec<DVec2> {
    let n = (a.distance(b) * 2.0).ceil().max(2.0) as usize;
    (0..=n)
        .map(|i| {
            let t = i as f64 / n as f64;
            let (t2, t3) = (t * t, t * t * t);
            a * (2.0 * t3 - 3.0 * t2 + 1.0)
                + from_a * (t3 - 2.0 * t2 + t)
                + b * (3.0 * t2 - 2.0 * t3)
                + into_b * (t3 - t2)
        })
        .collect()
}

/// Samples `line` every meter, and adds its end.
fn resample(line: &[LinePoint]) -> Vec<LinePoint> {
    let mut points = vec![LinePoint { command: line[1].command, ..line[0] }];
    let mut wanted_m = 1.0;
    let mut start_m = 0.0;
    for pair in line.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let length = a.position.xy().distance(b.position.xy());
        while wanted_m <= start_m + length {
            let part = (wanted_m - start_m) / length;
            points.push(LinePoint {
                position: a.position.lerp(b.position, part),
                aside_m: a.aside_m + (b.aside_m - a.aside_m) * part,
                ..b
            });
            wanted_m += 1.0;
        }
        start_m += length;
    }
    let (end, last) = (line[line.len() - 1], points[points.len() - 1]);
    if last.position.xy().distance(end.position.xy()) < 0.5 && points.len() > 2 {
        points.pop();
    }
    points.push(end);
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::FRAC_PI_2;

    fn straight(from: DVec2, along: DVec2, n: usize) -> Vec<DVec3> {
        (0..n).map(|i| (from + along * 2.0 * i as f64).extend(0.0)).collect()
    }

    #[test]
    fn gap_is_closed_by_an_arc_of_constant_radius() {
        let curve = bridge(DVec2::ZERO, DVec2::X, DVec2::new(10.0, 10.0), DVec2::Y);
        for point in curve {
            let radius = point.distance(DVec2::new(0.0, 10.0));
            assert!((radius - 10.0).abs() < 0.005, "{point} {radius}");
        }
    }

    #[test]
    fn only_the_right_turn_is_a_junction_with_its_command() {
        let mut keys = straight(DVec2::ZERO, DVec2::X, 11);
        keys.extend(straight(DVec2::new(35.0, 15.0), DVec2::Y, 11));
        let line = dense_line(&1.into(), &keys, None).unwrap();
        for point in &line {
            let beside_a_key_point = keys.iter().any(|key| key.distance(point.position) <= 1.1);
            assert_eq!(point.is_junction, point.command == RoadOption::Right);
            assert!(point.is_junction || beside_a_key_point, "{point:?}");
        }
        let length = 20.0 + 15.0 * FRAC_PI_2 + 20.0;
        assert!((line.len() as f64 - length).abs() < 2.0, "{} {length}", line.len());
        for pair in line.windows(2) {
            let step = pair[0].position.distance(pair[1].position);
            assert!((0.4..1.5).contains(&step), "{step}");
        }
    }

    #[test]
    fn lateral_step_between_straight_pieces_is_a_lane_change() {
        let mut keys: Vec<DVec3> =
            (0..6).map(|i| DVec3::new(5.0 * f64::from(i), 0.0, 0.0)).collect();
        keys.extend((6..12).map(|i| DVec3::new(5.0 * f64::from(i), -3.5, 0.0)));
        let line = dense_line(&1.into(), &keys, None).unwrap();
        let changes = line.iter().filter(|point| point.command == RoadOption::ChangeLaneLeft);
        assert!((5..=7).contains(&changes.count()));
        assert!((line[line.len() - 1].aside_m + 3.5).abs() < 1e-9);
        assert!(line.iter().all(|point| !point.is_junction));
    }

    #[test]
    fn repeated_key_points_are_merged() {
        let mut keys = straight(DVec2::ZERO, DVec2::X, 5);
        keys.insert(3, keys[3]);
        let line = dense_line(&2790.into(), &keys, None).unwrap();
        assert!(line.iter().all(|point| point.position.is_finite()));
        assert!(matches!(
            dense_line(&1.into(), &[DVec3::ONE, DVec3::ONE], None),
            Err(RoadError::TooFewKeyPoints { found: 1, .. })
        ));
    }
}
