//! Real geometry: the lanes of an OpenDRIVE file.
//!
//! The file's y axis points north, the world's points south: every place is mirrored on its way in
//! and out. Places are found in the plane, so where roads cross above each other the nearer line
//! counts.

use super::layout::{Control, Layout, Side};
use super::road::LANE_WIDTH_M;
use crate::scene::{LaneMap, LanePoint, Route, wrap_angle};
use glam::{DVec2, DVec3};
use sha2::{Digest, Sha256};
use std::f64::consts::PI;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xodr::{Direction, Lane, LaneId, LaneType, Point, RoadNetwork, SpeedLimit};

/// A route whose points are farther than this from every lane belongs to another map, meters.
const FARTHEST_M: f64 = 6.0;

/// A way between two key points that is longer than this many times their distance is a detour.
const LONGEST_WAY: f64 = 2.5;

/// A light or stop sign this close to a junction's entry rules it, meters.
const SIGNAL_NEAR_M: f64 = 25.0;

/// OpenDRIVE's number for traffic lights, and the German one for stop signs, which CARLA's maps use.
const TRAFFIC_LIGHT: &str = "1000001";
const STOP_SIGN: &str = "206";

/// Why a map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The file cannot be read.
    #[error("cannot read the map {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not an OpenDRIVE file.
    #[error("{} is no OpenDRIVE map: {reason}", file.display())]
    Parse {
        /// Which.
        file: PathBuf,
        /// What the reader says.
        reason: String,
    },
    /// It has no lane to drive in.
    #[error("the map {} has no driving lane", file.display())]
    Empty {
        /// Which.
        file: PathBuf,
    },
}

/// The lanes of a map.
pub struct StreetMap {
    network: RoadNetwork,
    file: PathBuf,
    sha256: String,
}

impl fmt::Debug for StreetMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreetMap({})", self.file.display())
    }
}

impl StreetMap {
    /// Reads an OpenDRIVE file.
    ///
    /// # Errors
    /// If it cannot be read, is something else, or has no driving lane.
    pub fn read(file: &Path) -> Result<Self, MapError> {
        let path = || file.to_owned();
        let bytes =
            std::fs::read(file).map_err(|source| MapError::Read { file: path(), source })?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| MapError::Parse { file: path(), reason: error.to_string() })?;
        let network = xodr::load_str(text)
            .map_err(|error| MapError::Parse { file: path(), reason: error.to_string() })?;
        if network.driving_lanes().next().is_none() {
            return Err(MapError::Empty { file: path() });
        }
        let digest = Sha256::digest(&bytes);
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { network, file: path(), sha256 })
    }

    /// Where it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// SHA-256 of the file, hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The key point of `route` that is farthest from every lane of the map, meters, if that is so
    /// far that the route belongs to another one.
    pub(super) fn misses(&self, route: &Route) -> Option<f64> {
        let away = |place: &DVec3| {
            self.nearest(place.truncate()).map_or(f64::INFINITY, |(_, point)| {
                point.position.truncate().distance(place.truncate())
            })
        };
        let farthest_m = route.key_points.iter().map(away).fold(0.0, f64::max);
        (farthest_m > FARTHEST_M).then_some(farthest_m)
    }

    /// The way along lanes from `from` to `to`, both included; `None` where there is no direct one.
    pub(super) fn way(&self, from: DVec3, to: DVec3) -> Option<Vec<DVec3>> {
        let route = self.network.route(in_file(from), in_file(to))?;
        let mut way = vec![from];
        way.extend(route.into_iter().map(in_world));
        // The route begins and ends with its lanes' nearest points, which the key points replace.
        let step = (to - from).truncate();
        way.retain(|place| {
            let part = (*place - from).truncate();
            *place == from || (part.length() > 0.3 && place.distance(to) > 0.3)
        });
        way.push(to);
        let length_m: f64 =
            way.windows(2).map(|pair| pair[0].truncate().distance(pair[1].truncate())).sum();
        (length_m < LONGEST_WAY * step.length()).then_some(way)
    }

    /// True if the nearest lane at `place` lies in a junction.
    pub(super) fn is_junction(&self, place: DVec2) -> bool {
        self.nearest(place).is_some_and(|(_, point)| point.is_junction)
    }

    /// What the map has beside the lane where `route` begins, on top of what its scenario asks for.
    pub(super) fn layout(&self, route: &Route, asked: Layout) -> Layout {
        let Some((id, _)) = route.key_points.first().and_then(|at| self.nearest(at.truncate()))
        else {
            return asked;
        };
        let Some(own) = self.network.road_lane(id) else { return asked };
        let beside = |lane: &&Lane| {
            let at = self.network.road_lane(lane.id);
            at.is_some_and(|at| at.road == own.road && at.section == own.section)
        };
        let number = |lane: &Lane| self.network.road_lane(lane.id).map_or(0, |at| at.od_id);
        let section: Vec<(i32, LaneType)> = self
            .network
            .lanes()
            .iter()
            .filter(beside)
            .map(|lane| (number(lane), lane.kind))
            .collect();
        let count = |wanted: &dyn Fn(i32) -> bool| {
            section.iter().filter(|(od_id, kind)| kind.is_drivable() && wanted(*od_id)).count()
        };
        let same = |od_id: i32| od_id.signum() == own.od_id.signum();
        let parking = section.iter().find(|(_, kind)| *kind == LaneType::Parking);
        let limit = self.network.lane(id).and_then(|lane| {
            let at = lane.center.project(in_file(route.key_points[0])).s;
            self.network.speed_limit_at(id, at)
        });
        Layout {
            left: count(&|od_id| same(od_id) && od_id.abs() < own.od_id.abs()),
            right: count(&|od_id| same(od_id) && od_id.abs() > own.od_id.abs()),
            opposite: count(&|od_id| !same(od_id)),
            parking: parking
                .map(|(od_id, _)| if same(*od_id) { Side::Right } else { Side::Left })
                .or(asked.parking),
            speed_limit_kmh: match limit {
                Some(SpeedLimit::Max(mps)) => f64::from(mps) * 3.6,
                Some(SpeedLimit::Unlimited) | None => asked.speed_limit_kmh,
            },
            ..asked
        }
    }

    /// What stands at a junction that is entered at `place`.
    pub(super) fn control_at(&self, place: DVec2) -> Option<Control> {
        let near = |kind: &str| {
            self.network.signals().iter().any(|signal| {
                signal.kind == kind
                    && in_world(signal.position).truncate().distance(place) < SIGNAL_NEAR_M
            })
        };
        if near(TRAFFIC_LIGHT) {
            Some(Control::Lights)
        } else if near(STOP_SIGN) {
            Some(Control::StopSign)
        } else {
            None
        }
    }

    /// The driving lane nearest to `place`.
    fn nearest(&self, place: DVec2) -> Option<(LaneId, LanePoint)> {
        let (id, found) = self.network.nearest_lane(in_file(place.extend(0.0)))?;
        let lane = self.network.lane(id)?;
        Some((id, self.lane_point(lane, f64::from(found.s))))
    }

    fn lane_point(&self, lane: &Lane, along_m: f64) -> LanePoint {
        let pose = lane.center.pose_at(along_m as f32);
        let along_rad = -f64::from(pose.heading.y).atan2(f64::from(pose.heading.x));
        let turned_rad = if lane.direction == Direction::Backward { PI } else { 0.0 };
        let at = self.network.road_lane(lane.id);
        let road = at.and_then(|at| self.network.road(at.road));
        LanePoint {
            position: in_world(pose.position),
            heading_rad: wrap_angle(along_rad + turned_rad),
            width_m: f64::from(lane.width_at(along_m as f32)),
            road_id: at.map_or(0, |at| at.road.0 as i32),
            lane_id: at.map_or(0, |at| at.od_id),
            is_junction: road.is_some_and(|road| road.junction().is_some()),
        }
    }
}

/// A map behind the road of a route: its lanes are what criteria ask about.
#[derive(Debug)]
pub(super) struct MappedLanes(pub(super) Arc<StreetMap>);

impl LaneMap for MappedLanes {
    fn driving_lane(&self, place: DVec2) -> LanePoint {
        let (_, point) = self.0.nearest(place).expect("a map has driving lanes");
        point
    }

    fn parking_lane(&self, place: DVec2) -> Option<LanePoint> {
        let parking = self.0.network.lanes().iter().filter(|lane| lane.kind == LaneType::Parking);
        parking
            .map(|lane| {
                let found = lane.center.project(in_file(place.extend(0.0)));
                (in_world(found.point).truncate().distance(place), lane, found.s)
            })
            .filter(|(away_m, ..)| *away_m < 3.0 * LANE_WIDTH_M)
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, lane, along_m)| self.0.lane_point(lane, f64::from(along_m)))
    }

    fn ahead(&self, lane: &LanePoint, distance_m: f64) -> Option<LanePoint> {
        let network = &self.0.network;
        let (mut id, found) = network.nearest_lane(in_file(lane.position))?;
        let mut along_m = f64::from(found.s);
        let mut left_m = distance_m;
        loop {
            let here = network.lane(id)?;
            let length_m = f64::from(here.center.length());
            let (room_m, sign) = match here.direction {
                Direction::Backward => (along_m, -1.0),
                Direction::Forward | Direction::Both => (length_m - along_m, 1.0),
            };
            if left_m <= room_m {
                return Some(self.0.lane_point(here, along_m + sign * left_m));
            }
            left_m -= room_m;
            let next = network.lane(*here.successors.first()?)?;
            id = next.id;
            along_m = match next.direction {
                Direction::Backward => f64::from(next.center.length()),
                Direction::Forward | Direction::Both => 0.0,
            };
        }
    }
}

fn in_file(place: DVec3) -> Point {
    Point::new(place.x as f32, -place.y as f32, place.z as f32)
}

fn in_world(point: Point) -> DVec3 {
    DVec3::new(f64::from(point.x), -f64::from(point.y), f64::from(point.z))
}

#[cfg(test)]
mod tests {
    use super::super::road::{Road, bare_route};
    use super::*;
    use crate::world::RoadError;
    use std::f64::consts::FRAC_PI_2;

    /// 50 m east, a right turn of radius 12 m in a junction with lights, 50 m south. Lanes of 3.2 m
    /// each way, a parking lane on the first road's right, 60 km/h. OpenDRIVE's y is north.
    fn corner_map() -> String {
        let lane = |id: i32, kind: &str, width: f64, next: i32| {
            format!(
                "<lane id='{id}' type='{kind}' level='false'><link><predecessor id='{next}'/>\
                 <successor id='{next}'/></link><width sOffset='0' a='{width}' b='0' c='0' d='0'/></lane>"
            )
        };
        let road = |id: u32,
                    junction: i32,
                    link: &str,
                    geometry: &str,
                    length: f64,
                    parking: bool| {
            let right = lane(-1, "driving", 3.2, -1)
                + &if parking { lane(-2, "parking", 2.5, -2) } else { String::new() };
            format!(
                "<road name='' length='{length}' id='{id}' junction='{junction}'><link>{link}</link>\
                 <type s='0' type='town'><speed max='60' unit='km/h'/></type>\
                 <planView>{geometry}</planView><lanes><laneSection s='0'><left>{}</left>\
                 <center><lane id='0' type='none' level='false'/></center><right>{right}</right>\
                 </laneSection></lanes><signals>{}</signals></road>",
                lane(1, "driving", 3.2, 1),
                if id == 1 {
                    "<signal s='48' t='-5' id='1' name='' dynamic='yes' orientation='+' zOffset='4' \
                     country='OpenDRIVE' type='1000001' subtype='-1' value='-1'/>"
                } else {
                    ""
                },
            )
        };
        let arc_m = 12.0 * FRAC_PI_2;
        let straight = |x: f64, y: f64, hdg: f64| {
            format!("<geometry s='0' x='{x}' y='{y}' hdg='{hdg}' length='50'><line/></geometry>")
        };
        let arc = format!(
            "<geometry s='0' x='50' y='0' hdg='0' length='{arc_m}'><arc curvature='{}'/></geometry>",
            -1.0 / 12.0
        );
        let one = road(
            1,
            -1,
            "<successor elementType='junction' elementId='100'/>",
            &straight(0.0, 0.0, 0.0),
            50.0,
            true,
        );
        let turn = road(
            10,
            100,
            "<predecessor elementType='road' elementId='1' contactPoint='end'/>\
             <successor elementType='road' elementId='2' contactPoint='start'/>",
            &arc,
            arc_m,
            false,
        );
        let two = road(
            2,
            -1,
            "<predecessor elementType='junction' elementId='100'/>",
            &straight(62.0, -12.0, -FRAC_PI_2),
            50.0,
            false,
        );
        format!(
            "<OpenDRIVE><header revMajor='1' revMinor='4'/>{one}{turn}{two}\
             <junction id='100' name=''><connection id='0' incomingRoad='1' connectingRoad='10' \
             contactPoint='start'><laneLink from='-1' to='-1'/></connection></junction></OpenDRIVE>"
        )
    }

    fn read(text: &str) -> Result<StreetMap, MapError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Corner.xodr");
        std::fs::write(&file, text).unwrap();
        StreetMap::read(&file)
    }

    /// Key points in the middle of lane -1, the junction left out as in official files.
    fn right_turn() -> Route {
        let east = (1..25).map(|i| DVec3::new(2.0 * f64::from(i), 1.6, 0.0));
        let south = (1..24).map(|i| DVec3::new(60.4, 12.0 + 2.0 * f64::from(i), 0.0));
        bare_route(7, east.chain(south).collect())
    }

    #[test]
    fn the_way_across_a_junction_is_that_of_its_lane() {
        let map = Arc::new(read(&corner_map()).unwrap());
        let road = Road::on(&right_turn(), Some(&map)).unwrap();
        let center = DVec2::new(50.0, 12.0);
        let bend: Vec<_> = road.plan().points.iter().filter(|point| point.is_junction).collect();
        assert!(bend.len() > 14, "{}", bend.len());
        for point in bend {
            // The lane is 1.6 m inside the reference line, whose radius is 12 m.
            let radius_m = point.position.truncate().distance(center);
            assert!((radius_m - 10.4).abs() < 0.05, "{point:?} {radius_m}");
        }
    }

    #[test]
    fn lanes_limits_and_lights_are_the_maps() {
        let map = Arc::new(read(&corner_map()).unwrap());
        let road = Road::on(&right_turn(), Some(&map)).unwrap();
        let layout = road.layout();
        assert_eq!((layout.left, layout.right, layout.opposite), (0, 0, 1));
        assert_eq!((layout.parking, layout.control), (Some(Side::Right), Control::Lights));
        assert!((layout.speed_limit_kmh - 60.0).abs() < 1e-3);
        let own = road.driving_lane(DVec2::new(20.0, 1.2));
        assert!((own.position.y - 1.6).abs() < 1e-4 && own.heading_rad.abs() < 1e-6, "{own:?}");
        assert_eq!((own.lane_id, own.is_junction), (-1, false));
        assert!((own.width_m - 3.2).abs() < 1e-6);
        let opposite = road.driving_lane(DVec2::new(20.0, -1.2));
        assert!((opposite.position.y + 1.6).abs() < 1e-4 && opposite.lane_id == 1);
        assert!((opposite.heading_rad.abs() - PI).abs() < 1e-6, "{opposite:?}");
        let parking = road.parking_lane(DVec2::new(20.0, 4.0)).unwrap();
        assert!((parking.position.y - 4.45).abs() < 1e-4, "{parking:?}");
        assert!(road.parking_lane(DVec2::new(60.4, 60.0)).is_none());
    }

    #[test]
    fn ahead_of_a_lane_is_its_successor() {
        let map = MappedLanes(Arc::new(read(&corner_map()).unwrap()));
        let here = map.driving_lane(DVec2::new(45.0, 1.6));
        let in_turn = map.ahead(&here, 6.0).unwrap();
        assert!(in_turn.is_junction && in_turn.heading_rad > 0.05, "{in_turn:?}");
        let beyond = map.ahead(&here, 40.0).unwrap();
        assert!((beyond.heading_rad - FRAC_PI_2).abs() < 1e-3 && !beyond.is_junction);
        assert!(map.ahead(&here, 500.0).is_none());
    }

    #[test]
    fn a_route_of_another_town_and_a_file_that_is_no_map_are_told() {
        let map = Arc::new(read(&corner_map()).unwrap());
        let mut route = right_turn();
        for point in &mut route.key_points {
            point.x += 900.0;
        }
        let error = Road::on(&route, Some(&map)).unwrap_err();
        assert!(matches!(error, RoadError::OffMap { route: 7, away_m, .. } if away_m > 800.0));
        assert!(matches!(read("<routes/>"), Err(MapError::Parse { .. } | MapError::Empty { .. })));
        assert!(matches!(read("not XML"), Err(MapError::Parse { .. })));
        let absent = StreetMap::read(Path::new("no/such.xodr")).unwrap_err();
        assert!(absent.to_string().contains("no/such.xodr"), "{absent}");
    }
}
