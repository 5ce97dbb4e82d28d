//! The road of a route: a corridor of lanes along the line through its key points.
//!
//! It needs no map. The road is as wide as the route and its scenarios require ([`Layout`]): the
//! lanes of the route, further lanes next to them, opposite lanes on the left, and a parking strip.

pub(crate) mod error;
#[cfg(test)]
pub(crate) mod fixtures;
mod grid;
pub(crate) mod junction;
pub(crate) mod lane;
mod lane_lines;
pub(crate) mod layout;
#[cfg(test)]
mod map_tests;
mod nearest;
mod open_drive;
pub(crate) mod route_line;
pub(crate) mod signals;
pub(crate) mod station;
pub(crate) mod street_map;
pub(crate) mod track;

use error::RoadError;
use glam::{DVec2, DVec3, Vec3Swizzles};
use junction::Junction;
use lane::{Edges, Lane, edges, lanes};
use layout::{LANE_WIDTH_M, Layout};
use nearest::NearestGrid;
use route_line::{dense_line, plan};
use signals::Signals;
use station::{Station, extensions, road_ids, route_stations};
use std::f64::consts::PI;
use std::sync::Arc;
use street_map::{MappedLanes, StreetMap};
use tandem_scene::{LaneMap, LanePoint, LaneStrip, Pose, Route, RoutePlan, StripKind, wrap_angle};
use track::Track;

/// Ground around a place: a plane that rises along the road.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Ground {
    /// Height at the place, meters.
    pub(crate) z_m: f64,
    /// Rise per meter in the road's direction.
    pub(crate) grade: f64,
    /// Direction of the road, radians.
    pub(crate) heading_rad: f64,
}

/// The road of a route, with its lanes and its junction.
#[derive(Debug)]
pub(crate) struct Road {
    layout: Layout,
    map: Option<MappedLanes>,
    stations: Vec<Station>,
    road_ids: Vec<i32>,
    junction: Option<Junction>,
    route_start: usize,
    route_end: usize,
    driving: Vec<Lane>,
    parking: Option<Lane>,
    edges: Edges,
    route_track: Arc<Track>,
    oncoming_track: Option<Arc<Track>>,
    driving_points: NearestGrid,
    parking_points: NearestGrid,
    parking_stations: Vec<u32>,
    route_points: NearestGrid,
    plan: Arc<RoutePlan>,
}

impl Road {
    /// Builds the road of a route through a street, without a map.
    #[cfg(test)]
    pub(crate) fn new(route: &Route) -> Result<Self, RoadError> {
        Self::on(route, Layout::STREET, None)
    }

    /// Builds the road of `route` with the cross section `layout`. A `map` overrides the path
    /// across junctions, the number of lanes, the speed limit, the control of the junction, and the
    /// lanes that the criteria query.
    ///
    /// # Errors
    /// Returns an error if the route has fewer than two distinct key points,
    /// or leaves the map's lanes.
    pub(crate) fn on(
        route: &Route,
        layout: Layout,
        map: Option<&Arc<StreetMap>>,
    ) -> Result<Self, RoadError> {
        if let Some(map) = map {
            map.check(route)?;
        }
        let line = dense_line(&route.id, &route.key_points, map.map(|map| &**map))?;
        let plan = Arc::new(plan(&line));
        let route_points =
            NearestGrid::new(plan.points.iter().map(|point| point.position.xy()).collect());
        let along = route_stations(&line);
        let (before, after) = extensions(&along, &route_points);
        let (route_start, route_end) = (before.len(), before.len() + along.len() - 1);
        let stations: Vec<Station> = before.into_iter().chain(along).chain(after).collect();
        let mut layout = layout;
        if let Some(map) = map {
            layout = map.layout(route, layout);
            let entry = stations.iter().position(|station| station.is_junction);
            let entry =
                entry.map(|first| stations[first].pose.position.extend(stations[first].z_m));
            layout.control =
                entry.and_then(|place| map.control_at(place)).unwrap_or(layout.control);
        }
        let (driving, parking) = lanes(&line, &layout);
        let edges = edges(&driving, parking.as_ref());

        let place = |lane: &Lane, station: &Station| station.aside(lane.aside_m);
        let driving_points = NearestGrid::new(
            driving
                .iter()
                .flat_map(|lane| stations.iter().map(move |station| place(lane, station)))
                .collect(),
        );
        let parking_stations: Vec<u32> = (0..stations.len())
            .filter(|&station| !stations[station].is_junction)
            .map(|station| station as u32)
            .collect();
        let parking_points = NearestGrid::new(
            parking
                .iter()
                .flat_map(|parking| {
                    parking_stations
                        .iter()
                        .map(|&station| place(parking, &stations[station as usize]))
                })
                .collect(),
        );
        let first_own = driving.iter().find(|lane| lane.with_route());
        let divider_m = first_own.map_or(0.0, |lane| lane.aside_m) - LANE_WIDTH_M / 2.0;
        let along = |aside_m: &dyn Fn(&Station) -> f64| -> Vec<DVec3> {
            let place = |station: &Station| station.aside(aside_m(station)).extend(station.z_m);
            stations.iter().map(place).collect()
        };
        let route_track = Arc::new(Track::new(&along(&|station| station.route_aside_m)));
        let nearest_oncoming = driving.iter().rfind(|lane| !lane.with_route());
        let oncoming_track = nearest_oncoming.map(|lane| {
            let mut line = along(&|_| lane.aside_m);
            line.reverse();
            Arc::new(Track::new(&line))
        });
        Ok(Self {
            road_ids: road_ids(&stations),
            junction: Junction::first(&stations, divider_m, layout.opposite > 0),
            layout,
            map: map.map(|map| MappedLanes(Arc::clone(map))),
            edges,
            route_track,
            oncoming_track,
            stations,
            route_start,
            route_end,
            driving,
            parking,
            driving_points,
            parking_points,
            parking_stations,
            route_points,
            plan,
        })
    }

    /// Returns the dense route plan.
    pub(crate) fn plan(&self) -> &Arc<RoutePlan> {
        &self.plan
    }

    /// Returns the cross sections, one per meter, from before the start to beyond the end.
    pub(crate) fn stations(&self) -> &[Station] {
        &self.stations
    }

    /// Returns the stations at which the route starts and ends.
    pub(crate) fn route_stations(&self) -> (usize, usize) {
        (self.route_start, self.route_end)
    }

    /// Returns the cross section that the road was built with.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the first junction of the route.
    pub(crate) fn junction(&self) -> Option<&Junction> {
        self.junction.as_ref()
    }

    /// Returns the lights and signs of the first junction.
    pub(crate) fn signals(&self) -> Signals {
        Signals::new(self.layout.control, self.junction(), |along_m| self.plan_idx(along_m))
    }

    /// Returns the edges of the asphalt.
    pub(crate) fn edges(&self) -> Edges {
        self.edges
    }

    /// Returns the route's own line with its lane changes, extended before
    /// its start and beyond its end.
    pub(crate) fn route_track(&self) -> Arc<Track> {
        Arc::clone(&self.route_track)
    }

    /// Returns the nearest oncoming lane in its direction of travel.
    pub(crate) fn oncoming_track(&self) -> Option<Arc<Track>> {
        self.oncoming_track.clone()
    }

    /// Returns a line in the route's direction, `aside_m` to the right of the road's center line.
    pub(crate) fn lane_track(&self, aside_m: f64) -> Arc<Track> {
        let place = |station: &Station| station.aside(aside_m).extend(station.z_m);
        Arc::new(Track::new(&self.stations.iter().map(place).collect::<Vec<_>>()))
    }

    /// Returns the index of the plan point next to station `along_m`.
    pub(crate) fn plan_idx(&self, along_m: f64) -> usize {
        let idx = along_m.round().max(0.0) as usize;
        idx.saturating_sub(self.route_start).min(self.plan.points.len() - 1)
    }

    /// Returns the driving lanes from left to right.
    pub(crate) fn driving_lanes(&self) -> &[Lane] {
        &self.driving
    }

    pub(crate) fn parking(&self) -> Option<&Lane> {
        self.parking.as_ref()
    }

    /// Returns the center of the parking strip, meters to the right of the center line.
    pub(crate) fn parking_aside_m(&self) -> Option<f64> {
        Some(self.parking()?.aside_m)
    }

    /// Returns every lane and side road, for drawings. Side roads are as wide as two lanes.
    pub(crate) fn strips(&self) -> Vec<LaneStrip> {
        let driving = |width_m, center_m| LaneStrip { kind: StripKind::Driving, width_m, center_m };
        let mut strips: Vec<LaneStrip> = self
            .junction()
            .into_iter()
            .flat_map(Junction::side_roads)
            .map(|road| {
                let divider = road.iter().map(|(pose, _)| pose.position);
                driving(2.0 * LANE_WIDTH_M, divider.collect())
            })
            .collect();
        // No vehicle parks inside a junction.
        if let Some(parking) = self.parking() {
            let beside = self.stations.split(|station| station.is_junction);
            strips.extend(beside.filter(|piece| piece.len() > 1).map(|piece| LaneStrip {
                kind: StripKind::Parking,
                width_m: parking.width_m,
                center_m: piece.iter().map(|at| at.aside(parking.aside_m)).collect(),
            }));
        }
        strips.extend(self.driving.iter().map(|lane| {
            let mut center: Vec<DVec2> =
                self.stations.iter().map(|at| at.aside(lane.aside_m)).collect();
            if !lane.with_route() {
                center.reverse();
            }
            driving(lane.width_m, center)
        }));
        strips
    }

    /// Returns the distance from `place` to the nearest point of the route, meters.
    pub(crate) fn distance_to_route_m(&self, place: DVec2) -> f64 {
        self.route_points
            .nearest(place)
            .map_or(f64::INFINITY, |idx| self.plan.points[idx].position.xy().distance(place))
    }

    /// Returns the station nearest to `place`, by the center lines of all lanes.
    pub(crate) fn nearest_station(&self, place: DVec2) -> usize {
        self.nearest_driving(place).1
    }

    /// Returns how far along the road `place` is, as in [`Road::pose_at`], meters.
    pub(crate) fn along(&self, place: DVec2) -> f64 {
        let idx = self.nearest_station(place);
        idx as f64 + self.stations[idx].pose.inverse_apply(place).x
    }

    /// Returns how far the route is to the right of the center line at `along_m`, meters.
    pub(crate) fn route_aside_m(&self, along_m: f64) -> f64 {
        let (idx, part) = self.piece(along_m);
        let (a, b) = (self.stations[idx].route_aside_m, self.stations[idx + 1].route_aside_m);
        a + (b - a) * part
    }

    /// Returns the station before `along_m` and the fraction of the step to the next one.
    fn piece(&self, along_m: f64) -> (usize, f64) {
        let last = self.stations.len() - 1;
        let along_m = along_m.clamp(0.0, last as f64);
        let idx = (along_m as usize).min(last - 1);
        (idx, along_m - idx as f64)
    }

    /// Returns the pose at `along_m` meters along the road (stations count meters) and `aside_m` to
    /// the right, heading along the road, and the height there.
    pub(crate) fn pose_at(&self, along_m: f64, aside_m: f64) -> (Pose, f64) {
        let (idx, part) = self.piece(along_m);
        let (a, b) = (&self.stations[idx], &self.stations[idx + 1]);
        let turn = wrap_angle(b.pose.yaw_rad - a.pose.yaw_rad);
        let place = a.aside(aside_m).lerp(b.aside(aside_m), part);
        let pose = Pose { position: place, yaw_rad: a.pose.yaw_rad + turn * part };
        (pose, a.z_m + (b.z_m - a.z_m) * part)
    }

    /// Returns the ground around `place`.
    pub(crate) fn ground(&self, place: DVec2) -> Ground {
        let (lane_idx, station) = self.nearest_driving(place);
        let point = self.refine(&self.driving[lane_idx], station, place);
        let low = station.saturating_sub(5);
        let high = (station + 5).min(self.stations.len() - 1);
        let (a, b) = (&self.stations[low], &self.stations[high]);
        Ground {
            z_m: point.position.z,
            grade: (b.z_m - a.z_m) / a.pose.position.distance(b.pose.position),
            heading_rad: self.stations[station].pose.yaw_rad,
        }
    }

    fn nearest_driving(&self, place: DVec2) -> (usize, usize) {
        let idx = self.driving_points.nearest(place).expect("a road has lanes and stations");
        (idx / self.stations.len(), idx % self.stations.len())
    }

    /// Projects `place` onto the two pieces of `lane` that meet at `station`.
    fn refine(&self, lane: &Lane, station: usize, place: DVec2) -> LanePoint {
        let first = station.saturating_sub(1);
        let last = (station + 1).min(self.stations.len() - 1);
        let (from, part, _) = (first..last)
            .map(|from| {
                let a = self.stations[from].aside(lane.aside_m);
                let b = self.stations[from + 1].aside(lane.aside_m);
                let piece = b - a;
                let part = (place - a).dot(piece) / piece.length_squared().max(1e-12);
                let part = part.clamp(0.0, 1.0);
                (from, part, (a + piece * part).distance_squared(place))
            })
            .min_by(|a, b| a.2.total_cmp(&b.2))
            .expect("a road has at least two stations");
        let (pose, z_m) = self.pose_at(from as f64 + part, lane.aside_m);
        let turned = if lane.with_route() { 0.0 } else { PI };
        LanePoint {
            position: pose.position.extend(z_m),
            heading_rad: wrap_angle(pose.yaw_rad + turned),
            width_m: lane.width_m,
            road_id: self.road_ids[station],
            lane_id: lane.lane_id,
            is_junction: self.stations[station].is_junction,
        }
    }
}

impl LaneMap for Road {
    fn driving_lane(&self, place: DVec3) -> LanePoint {
        if let Some(map) = &self.map {
            return map.driving_lane(place);
        }
        let place = place.xy();
        let (lane_idx, station) = self.nearest_driving(place);
        self.refine(&self.driving[lane_idx], station, place)
    }

    fn parking_lane(&self, place: DVec3) -> Option<LanePoint> {
        if let Some(map) = &self.map {
            return map.parking_lane(place);
        }
        let place = place.xy();
        let idx = self.parking_points.nearest(place)?;
        let station = self.parking_stations[idx] as usize;
        Some(self.refine(self.parking.as_ref()?, station, place))
    }

    fn ahead(&self, lane: &LanePoint, distance_m: f64) -> Option<LanePoint> {
        if let Some(map) = &self.map {
            return map.ahead(lane, distance_m);
        }
        let step = lane.position.xy() + DVec2::from_angle(lane.heading_rad) * distance_m;
        let found = self.driving_lane(step.extend(lane.position.z));
        let advanced = (found.position - lane.position).xy();
        (advanced.dot(step - lane.position.xy()) > 0.5 * distance_m * distance_m).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::bare_route;
    use super::*;
    use proptest::prelude::*;
    use tandem_scene::RoadOption;

    /// 40 m east, a right turn, 40 m south, with a grade of 5 %.
    fn right_turn() -> Road {
        let east = (0..21).map(|i| DVec2::new(2.0 * f64::from(i), 0.0));
        let south = (0..21).map(|i| DVec2::new(55.0, 15.0 + 2.0 * f64::from(i)));
        let key_points = east.chain(south).map(|p| p.extend(0.05 * (p.x + p.y))).collect();
        Road::new(&bare_route(1, key_points)).unwrap()
    }

    fn nearest_by_search(road: &Road, place: DVec2) -> f64 {
        let mut best = f64::INFINITY;
        for lane in road.driving_lanes() {
            for pair in road.stations().windows(2) {
                let (a, b) = (pair[0].aside(lane.aside_m), pair[1].aside(lane.aside_m));
                let part = (place - a).dot(b - a) / (b - a).length_squared();
                best = best.min((a + (b - a) * part.clamp(0.0, 1.0)).distance(place));
            }
        }
        best
    }

    proptest! {
        /// Pieces are about a meter long. The nearest of their ends is not always an end of the
        /// nearest piece, which costs less than a centimeter within the road.
        #[test]
        fn nearest_lane_is_found(x in -80.0..230.0, y in -40.0..220.0) {
            let (road, place) = (right_turn(), DVec2::new(x, y));
            let found = road.driving_lane(place.extend(0.0)).position.xy().distance(place);
            let best = nearest_by_search(&road, place);
            prop_assert!(found >= best - 1e-9 && found < best + 0.05, "{} {}", found, best);
        }
    }

    #[test]
    fn lanes_are_adjacent_and_have_a_direction() {
        let road = right_turn();
        let own = road.driving_lane(DVec3::new(20.0, 0.4, 0.0));
        assert_eq!((own.lane_id, own.is_junction, own.road_id), (-1, false, 1));
        assert!(own.heading_rad.abs() < 1e-9 && own.position.y.abs() < 1e-9);
        let opposite = road.driving_lane(DVec3::new(20.0, -3.0, 0.0));
        assert_eq!(opposite.lane_id, 1);
        assert!((opposite.heading_rad.abs() - std::f64::consts::PI).abs() < 1e-9);
        let parking = road.parking_lane(DVec3::new(20.0, 3.0, 0.0)).unwrap();
        assert_eq!((parking.position.y, parking.width_m), (3.0, 2.5));
        assert!((own.position.z - 1.0).abs() < 1e-9);
        assert!((road.ground(DVec2::new(20.0, 0.0)).grade - 0.05).abs() < 1e-9);
        assert!(road.driving_lane(DVec3::new(50.0, 4.0, 0.0)).is_junction);
        assert_eq!(road.driving_lane(DVec3::new(55.0, 30.0, 0.0)).road_id, 2);
    }

    #[test]
    fn lane_change_widens_the_road_without_bending_it() {
        let key_points =
            (0..24).map(|i| DVec3::new(5.0 * f64::from(i), if i < 8 { 0.0 } else { -3.5 }, 0.0));
        let road = Road::new(&bare_route(2, key_points.collect())).unwrap();
        let lanes: Vec<i32> = road.driving_lanes().iter().map(|lane| lane.lane_id).collect();
        assert_eq!(lanes, [1, -1, -2]);
        for station in road.stations() {
            assert!(station.pose.position.y.abs() < 1e-9, "{station:?}");
        }
        let before = road.driving_lane(DVec3::new(10.0, 0.0, 0.0));
        let after = road.driving_lane(DVec3::new(100.0, -3.5, 0.0));
        assert_eq!((before.lane_id, after.lane_id), (-2, -1));
        let commands = road.plan().points.iter().map(|point| point.command);
        assert!(commands.clone().any(|command| command == RoadOption::ChangeLaneLeft));
    }
}
