//! Real geometry: the lanes of an OpenDRIVE file.
//!
//! The file's y axis points north, the world's points south. Lanes are found in space: by distance
//! in the plane, and by height where roads are above each other.

use super::error::RoadError;
use super::lane_lines::{Foot, LaneLine, LaneLines, in_world};
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

/// A route whose points are farther than this from every lane belongs to another map, meters.
const FARTHEST_M: f64 = 6.0;

/// Key points that are farther than this above or below the lanes are reported, meters.
const OTHER_HEIGHT_M: f64 = 5.0;

/// A way between two key points that is longer than this many times their distance is a detour.
const LONGEST_WAY: f64 = 2.5;

/// No vehicle turns by this much from one meter to the next, degrees: the lanes of the map do not
/// fit together.
const SHARPEST_DEG: f64 = 75.0;

/// A light or stop sign this close to a junction's entry rules it, meters in the plane and up.
const SIGNAL_NEAR_M: f64 = 25.0;
const SIGNAL_HEIGHT_M: f64 = 12.0;

/// Lanes on the way ahead of a place at most; lanes of a broken map may lead in circles of no length.
const MOST_LANES_AHEAD: usize = 1000;

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
    /// It is not text in its encoding.
    #[error("cannot read the map {}", file.display())]
    Encoding {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: EncodingError,
    },
    /// It is not an OpenDRIVE file.
    #[error("{} is not a valid OpenDRIVE map", file.display())]
    Parse {
        /// Which.
        file: PathBuf,
        /// What the reader reports.
        #[source]
        source: Box<OpenDriveError>,
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
    /// Reads an OpenDRIVE file.
    ///
    /// # Errors
    /// If it cannot be read, is something else, or has no driving lane.
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

    /// The same map without warnings about routes, where another process gives them.
    pub fn without_warnings(self) -> Self {
        Self { warns: false, ..self }
    }

    /// Where it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// SHA-256 of the file, hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Checks that `route` is on this map.
    pub(crate) fn check(&self, route: &Route) -> Result<(), RoadError> {
        let feet = || route.key_points.iter().map(|&place| self.nearest(place));
        let away_m =
            feet().map(|foot| foot.map_or(f64::INFINITY, |foot| foot.away_m)).fold(0.0, f64::max);
        if away_m > FARTHEST_M {
            return Err(RoadError::OffMap {
                route: route.id.clone(),
                town: route.town.clone(),
                map: self.file.clone(),
                away_m,
            });
        }
        let above_m = feet().flatten().map(|foot| foot.above_m.abs()).fold(0.0, f64::max);
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

    /// The way along lanes from `from` to `to`, both included; `None` where there is no direct one
    /// that can be driven.
    pub(crate) fn way(&self, from: DVec3, to: DVec3) -> Option<Vec<DVec3>> {
        let distance_m = from.xy().distance(to.xy());
        let lanes = self.driving.way(&self.map.network, from, to, LONGEST_WAY * distance_m)?;
        let mut way = vec![from];
        // The way begins and ends with its lanes' nearest points, which the key points replace.
        way.extend(lanes.into_iter().filter(|place| {
            place.xy().distance(from.xy()) > 0.3 && place.xy().distance(to.xy()) > 0.3
        }));
        way.push(to);
        let Some((place, turn_deg)) = sharpest_turn(&way).filter(|turn| turn.1 > SHARPEST_DEG)
        else {
            return Some(way);
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

    /// The height of the lane nearest to `place`, meters, and whether that lane is in a junction;
    /// `None` where no lane is near.
    pub(crate) fn under(&self, place: DVec3) -> Option<(f64, bool)> {
        let foot = self.nearest(place).filter(|foot| foot.away_m <= FARTHEST_M)?;
        let line = self.driving.line(foot.line);
        Some((line.at(foot.along_m).position.z, self.is_junction(line)))
    }

    /// What the map has beside the lane where `route` begins, on top of what its scenario asks for.
    pub(crate) fn layout(&self, route: &Route, asked: Layout) -> Layout {
        let Some(foot) = route.key_points.first().and_then(|&start| self.nearest(start)) else {
            return asked;
        };
        let network = &self.map.network;
        let line = self.driving.line(foot.line);
        let Some(own) = network.road_lane(line.id) else { return asked };
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
            .along_baked(line, foot.along_m)
            .and_then(|along_m| network.speed_limit_at(line.id, along_m));
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

    /// The driving lane nearest to `place`.
    fn nearest(&self, place: DVec3) -> Option<Foot> {
        self.driving.nearest(place, |_| true)
    }

    fn is_junction(&self, line: &LaneLine) -> bool {
        let at = self.map.network.road_lane(line.id);
        let road = at.and_then(|at| self.map.network.road(at.road));
        road.is_some_and(|road| road.junction().is_some())
    }

    /// Where on the reader's own line a place is, for what the reader knows by that number.
    fn along_baked(&self, line: &LaneLine, along_m: f64) -> Option<f32> {
        let station_m = line.at(along_m).station_m?;
        let place = LanePosition { lane: line.id, s: station_m, offset: 0.0 };
        self.map.network.centerline_s(place)
    }

    fn lane_point(&self, line: &LaneLine, along_m: f64) -> LanePoint {
        let on = line.at(along_m);
        let at = self.map.network.road_lane(line.id);
        let lane = self.map.network.lane(line.id);
        let width_m = lane.map_or(LANE_WIDTH_M as f32, |lane| {
            self.along_baked(line, along_m).map_or(lane.width, |along_m| lane.width_at(along_m))
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

/// Warns of roads that the reader left out.
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

/// A map behind the road of a route: its lanes are what criteria ask about.
#[derive(Debug)]
pub(super) struct MappedLanes(pub(crate) Arc<StreetMap>);

impl LaneMap for MappedLanes {
    fn driving_lane(&self, place: DVec3) -> LanePoint {
        let foot =
            self.0.nearest(place).expect("a map has driving lanes and a world finite places");
        self.0.lane_point(self.0.driving.line(foot.line), foot.along_m)
    }

    fn parking_lane(&self, place: DVec3) -> Option<LanePoint> {
        let parking = &self.0.parking;
        let foot = parking.nearest(place, |_| true)?;
        (foot.away_m < 3.0 * LANE_WIDTH_M)
            .then(|| self.0.lane_point(parking.line(foot.line), foot.along_m))
    }

    fn ahead(&self, lane: &LanePoint, distance_m: f64) -> Option<LanePoint> {
        let (network, lines) = (&self.0.map.network, &self.0.driving);
        // Lanes overlap in junctions: the one that was found before is meant.
        let is_same = |line: &LaneLine| {
            let at = network.road_lane(line.id);
            at.is_some_and(|at| (at.road.0 as i32, at.od_id) == (lane.road_id, lane.lane_id))
        };
        let near = lines.nearest(lane.position, is_same).filter(|foot| foot.away_m < LANE_WIDTH_M);
        let foot = near.or_else(|| self.0.nearest(lane.position))?;
        let (mut idx, mut along_m) = (foot.line, foot.along_m + distance_m);
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
