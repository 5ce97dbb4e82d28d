//! Road geometry from the lanes of an OpenDRIVE file.
//!
//! The file's y axis points north, the world's points south. Lanes are found by planar distance,
//! and by height where roads are above each other.

use super::error::RoadError;
use super::lane_lines::{LaneLine, LaneLines, Projection, in_world};
use super::layout::{Control, LANE_WIDTH_M, Layout, Side};
use super::open_drive::{OpenDrive, OpenDriveError};
use glam::{DVec3, Vec3Swizzles};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tandem_scene::{LaneMap, LanePoint, Route, sharpest_turn};
use tandem_xml::{EncodingError, decode};
use xodr::{Lane, LanePosition, LaneType, SpeedLimit, Warning};

/// A route with points farther than this from every lane belongs to another map, meters.
const FARTHEST_M: f64 = 6.0;

/// Key points that are farther than this above or below the lanes are reported, meters.
const OTHER_HEIGHT_M: f64 = 5.0;

/// A path between two key points longer than this multiple of their distance is a detour.
const LONGEST_WAY: f64 = 2.5;

/// A larger change of heading from one meter to the next means that the lanes of the map do
/// not fit together, degrees.
const SHARPEST_DEG: f64 = 75.0;

/// A light or stop sign within these distances of a junction's entry controls it, meters
/// in the plane and in height.
const SIGNAL_NEAR_M: f64 = 25.0;
const SIGNAL_HEIGHT_M: f64 = 12.0;

/// Maximum number of lanes that are followed ahead of a place; lanes of a broken map may
/// form loops of zero length.
const MOST_LANES_AHEAD: usize = 1000;

/// OpenDRIVE's signal type of traffic lights, and the German one of stop
/// signs, which CARLA's maps use.
const TRAFFIC_LIGHT: &str = "1000001";
const STOP_SIGN: &str = "206";

/// Error returned when a map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The file of the map cannot be read.
    #[error("cannot read the map {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file is not valid text in its encoding.
    #[error("cannot read the map {}", file.display())]
    Encoding {
        file: PathBuf,
        #[source]
        source: EncodingError,
    },
    /// The file is not an OpenDRIVE map.
    #[error("{} is not a valid OpenDRIVE map", file.display())]
    Parse {
        file: PathBuf,
        #[source]
        source: Box<OpenDriveError>,
    },
    /// The map has no driving lane.
    #[error("the map {} has no driving lane", file.display())]
    Empty { file: PathBuf },
}

/// The driving and parking lanes of an OpenDRIVE map.
pub struct StreetMap {
    map: OpenDrive,
    driving: LaneLines,
    parking: LaneLines,
    file: PathBuf,
    sha256: String,
    warns: bool,
}

impl fmt::Debug for StreetMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreetMap({})", self.file.display())
    }
}

impl StreetMap {
    /// Reads the lanes of an OpenDRIVE file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a map, or has no driving lane.
    pub fn read(file: &Path) -> Result<Self, MapError> {
        let path = || file.to_owned();
        let bytes =
            std::fs::read(file).map_err(|source| MapError::Read { file: path(), source })?;
        let text = decode(&bytes).map_err(|source| MapError::Encoding { file: path(), source })?;
        let map = OpenDrive::read(&text)
            .map_err(|source| MapError::Parse { file: path(), source: Box::new(source) })?;
        report_skipped(file, &map);
        let driving = LaneLines::new(&map, |lane| lane.kind.is_drivable());
        if driving.is_empty() {
            return Err(MapError::Empty { file: path() });
        }
        let parking = LaneLines::new(&map, |lane| lane.kind == LaneType::Parking);
        let digest = Sha256::digest(&bytes);
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { map, driving, parking, file: path(), sha256, warns: true })
    }

    /// Suppresses warnings about routes, for maps whose warnings another process reports.
    pub fn without_warnings(self) -> Self {
        Self { warns: false, ..self }
    }

    /// Returns the path that the map was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the SHA-256 of the file in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Checks that `route` is on this map.
    pub(crate) fn check(&self, route: &Route) -> Result<(), RoadError> {
        let projections = || route.key_points.iter().map(|&place| self.nearest(place));
        let away_m = projections()
            .map(|projection| projection.map_or(f64::INFINITY, |projection| projection.away_m))
            .fold(0.0, f64::max);
        if away_m > FARTHEST_M {
            return Err(RoadError::OffMap {
                route: route.id.clone(),
                town: route.town.clone(),
                map: self.file.clone(),
                away_m,
            });
        }
        let above_m =
            projections().flatten().map(|projection| projection.above_m.abs()).fold(0.0, f64::max);
        if above_m > OTHER_HEIGHT_M && self.warns {
            tracing::warn!(
                route = %route.id,
                map = %self.file.display(),
                above_m = format!("{above_m:.1}"),
                "key points are above or below the lanes of the map; the heights of the map are used"
            );
        }
        Ok(())
    }

    /// Returns the path along lanes from `from` to `to`, both included; `None` if there is no
    /// direct path that can be driven.
    pub(crate) fn lane_path(&self, from: DVec3, to: DVec3) -> Option<Vec<DVec3>> {
        let distance_m = from.xy().distance(to.xy());
        let lanes =
            self.driving.lane_path(&self.map.network, from, to, LONGEST_WAY * distance_m)?;
        let mut lane_path = vec![from];
        // The key points replace the nearest points of the lanes at both ends of the path.
        lane_path.extend(lanes.into_iter().filter(|place| {
            place.xy().distance(from.xy()) > 0.3 && place.xy().distance(to.xy()) > 0.3
        }));
        lane_path.push(to);
        let Some((place, turn_deg)) =
            sharpest_turn(&lane_path).filter(|turn| turn.1 > SHARPEST_DEG)
        else {
            return Some(lane_path);
        };
        if self.warns {
            tracing::warn!(
                map = %self.file.display(),
                x = format!("{:.1}", place.x),
                y = format!("{:.1}", place.y),
                turn_deg = format!("{turn_deg:.0}"),
                "lanes of the map do not fit together; the route crosses the junction in an arc"
            );
        }
        None
    }

    /// Returns the height of the lane nearest to `place`, meters, and whether that lane is in a
    /// junction; `None` if no lane is near.
    pub(crate) fn under(&self, place: DVec3) -> Option<(f64, bool)> {
        let projection =
            self.nearest(place).filter(|projection| projection.away_m <= FARTHEST_M)?;
        let line = self.driving.line(projection.line);
        Some((line.at(projection.along_m).position.z, self.is_junction(line)))
    }

    /// Returns `layout` with the lanes, the parking side and the speed limit that the
    /// map has where `route` begins.
    pub(crate) fn layout(&self, route: &Route, layout: Layout) -> Layout {
        let Some(projection) = route.key_points.first().and_then(|&start| self.nearest(start))
        else {
            return layout;
        };
        let network = &self.map.network;
        let line = self.driving.line(projection.line);
        let Some(own) = network.road_lane(line.id) else { return layout };
        let beside = |lane: &&Lane| {
            let at = network.road_lane(lane.id);
            at.is_some_and(|at| at.road == own.road && at.section == own.section)
        };
        let number = |lane: &Lane| network.road_lane(lane.id).map_or(0, |at| at.od_id);
        let section: Vec<(i32, LaneType)> =
            network.lanes().iter().filter(beside).map(|lane| (number(lane), lane.kind)).collect();
        let count = |wanted: &dyn Fn(i32) -> bool| {
            section.iter().filter(|(od_id, kind)| kind.is_drivable() && wanted(*od_id)).count()
        };
        let same = |od_id: i32| od_id.signum() == own.od_id.signum();
        let parking = section.iter().find(|(_, kind)| *kind == LaneType::Parking);
        let limit = self
            .along_reader_line(line, projection.along_m)
            .and_then(|along_m| network.speed_limit_at(line.id, along_m));
        Layout {
            left: count(&|od_id| same(od_id) && od_id.abs() < own.od_id.abs()),
            right: count(&|od_id| same(od_id) && od_id.abs() > own.od_id.abs()),
            opposite: count(&|od_id| !same(od_id)),
            parking: parking
                .map(|(od_id, _)| if same(*od_id) { Side::Right } else { Side::Left })
                .or(layout.parking),
            speed_limit_kmh: match limit {
                Some(SpeedLimit::Max(mps)) => f64::from(mps) * 3.6,
                Some(SpeedLimit::Unlimited) | None => layout.speed_limit_kmh,
            },
            ..layout
        }
    }

    /// Returns the control of a junction that is entered at `place`, if the map has signals there.
    pub(super) fn control_at(&self, place: DVec3) -> Option<Control> {
        let near = |kind: &str| {
            self.map.network.signals().iter().any(|signal| {
                let away = in_world(signal.position, self.map.origin) - place;
                signal.kind == kind
                    && away.xy().length() < SIGNAL_NEAR_M
                    && away.z.abs() < SIGNAL_HEIGHT_M
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

    /// Projects `place` onto the nearest driving lane.
    fn nearest(&self, place: DVec3) -> Option<Projection> {
        self.driving.nearest(place, |_| true)
    }

    fn is_junction(&self, line: &LaneLine) -> bool {
        let at = self.map.network.road_lane(line.id);
        let road = at.and_then(|at| self.map.network.road(at.road));
        road.is_some_and(|road| road.junction().is_some())
    }

    /// Converts a position on the line to the coordinate of the reader's own
    /// line, which its queries take.
    fn along_reader_line(&self, line: &LaneLine, along_m: f64) -> Option<f32> {
        let station_m = line.at(along_m).station_m?;
        let place = LanePosition { lane: line.id, s: station_m, offset: 0.0 };
        self.map.network.centerline_s(place)
    }

    fn lane_point(&self, line: &LaneLine, along_m: f64) -> LanePoint {
        let on = line.at(along_m);
        let at = self.map.network.road_lane(line.id);
        let lane = self.map.network.lane(line.id);
        let width_m = lane.map_or(LANE_WIDTH_M as f32, |lane| {
            self.along_reader_line(line, along_m)
                .map_or(lane.width, |along_m| lane.width_at(along_m))
        });
        LanePoint {
            position: on.position,
            heading_rad: on.direction.to_angle(),
            width_m: f64::from(width_m),
            road_id: at.map_or(0, |at| at.road.0 as i32),
            lane_id: at.map_or(0, |at| at.od_id),
            is_junction: self.is_junction(line),
        }
    }
}

/// Warns about roads that the reader skipped.
fn report_skipped(file: &Path, map: &OpenDrive) {
    let skipped: Vec<&str> = map
        .provenance
        .warnings
        .iter()
        .filter_map(|warning| match warning {
            Warning::RoadSkipped { road_id, .. } => Some(road_id.as_str()),
            _ => None,
        })
        .collect();
    if !skipped.is_empty() {
        tracing::warn!(
            map = %file.display(),
            roads = skipped.len(),
            first = skipped[0],
            "roads of the map cannot be read and are left out"
        );
    }
}

/// Lane map of a route on a map: the criteria query the map's lanes.
#[derive(Debug)]
pub(super) struct MappedLanes(pub(crate) Arc<StreetMap>);

impl LaneMap for MappedLanes {
    fn driving_lane(&self, place: DVec3) -> LanePoint {
        let projection =
            self.0.nearest(place).expect("the map has driving lanes and the place is finite");
        self.0.lane_point(self.0.driving.line(projection.line), projection.along_m)
    }

    fn parking_lane(&self, place: DVec3) -> Option<LanePoint> {
        let parking = &self.0.parking;
        let projection = parking.nearest(place, |_| true)?;
        (projection.away_m < 3.0 * LANE_WIDTH_M)
            .then(|| self.0.lane_point(parking.line(projection.line), projection.along_m))
    }

    fn ahead(&self, lane: &LanePoint, distance_m: f64) -> Option<LanePoint> {
        let (network, lines) = (&self.0.map.network, &self.0.driving);
        // Lanes overlap in junctions: prefer the lane that was found before.
        let is_same = |line: &LaneLine| {
            let at = network.road_lane(line.id);
            at.is_some_and(|at| (at.road.0 as i32, at.od_id) == (lane.road_id, lane.lane_id))
        };
        let near = lines
            .nearest(lane.position, is_same)
            .filter(|projection| projection.away_m < LANE_WIDTH_M);
        let projection = near.or_else(|| self.0.nearest(lane.position))?;
        let (mut idx, mut along_m) = (projection.line, projection.along_m + distance_m);
        for _ in 0..MOST_LANES_AHEAD {
            let line = lines.line(idx);
            if along_m <= line.length_m() {
                return Some(self.0.lane_point(line, along_m));
            }
            along_m -= line.length_m();
            idx = lines.of_lane(*network.lane(line.id)?.successors.first()?)?;
        }
        None
    }
}
