//! Cross sections of the road.

use super::nearest::NearestGrid;
use super::route_line::LinePoint;
use super::track::headings;
use glam::{DVec2, Vec3Swizzles};
use tandem_scene::Pose;

/// Length of the straight road before the route's start and beyond its end, meters.
const EXTENSION_M: (usize, usize) = (60, 150);

/// Extensions end where they would be closer than this to another part of the route, meters.
const EXTENSION_CLEARANCE_M: f64 = 14.0;

/// A cross section of the road; there is one per meter.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Station {
    /// On the center line of the lane in which the route starts.
    pub(crate) pose: Pose,
    pub(crate) z_m: f64,
    pub(crate) is_junction: bool,
    /// Position of the route, meters to the right of `pose`.
    pub(crate) route_aside_m: f64,
}

impl Station {
    /// Returns the place `aside_m` to the right of the center line.
    pub(crate) fn aside(&self, aside_m: f64) -> DVec2 {
        self.pose.position + self.pose.right() * aside_m
    }
}

/// Returns the road id of each station: roads count from 1, junctions from 1001; each
/// junction starts a new road.
pub(super) fn road_ids(stations: &[Station]) -> Vec<i32> {
    let mut changes = 0;
    let mut was_junction = stations[0].is_junction;
    let mut road_id = |station: &Station| {
        changes += i32::from(station.is_junction != was_junction);
        was_junction = station.is_junction;
        if was_junction { 1001 + changes / 2 } else { 1 + changes / 2 }
    };
    stations.iter().map(&mut road_id).collect()
}

/// Returns the cross sections along the route. Lane changes are removed, so that the road runs
/// straight where the route changes lanes.
pub(super) fn route_stations(line: &[LinePoint]) -> Vec<Station> {
    let places: Vec<DVec2> = line.iter().map(|point| point.position.xy()).collect();
    // Lane changes are on straight road, where the heading a few meters away is the road's.
    let route_headings = headings(&places);
    let last = line.len() - 1;
    let is_straight = |idx: &usize| {
        let around = idx.saturating_sub(2)..=(idx + 2).min(last);
        !line[around].iter().any(|point| point.command.is_lane_change())
    };
    let heading_beside =
        |idx: usize| route_headings[(0..=idx).rev().find(is_straight).unwrap_or(idx)];
    let centers: Vec<DVec2> = (0..line.len())
        .map(|idx| {
            let heading = DVec2::from_angle(heading_beside(idx));
            places[idx] - heading.perp() * line[idx].aside_m
        })
        .collect();
    headings(&centers)
        .into_iter()
        .enumerate()
        .map(|(idx, yaw_rad)| Station {
            pose: Pose { position: centers[idx], yaw_rad },
            z_m: line[idx].position.z,
            is_junction: line[idx].is_junction,
            route_aside_m: line[idx].aside_m,
        })
        .collect()
}

/// Returns the road before the start and beyond the end, straight and level.
pub(super) fn extensions(along: &[Station], route: &NearestGrid) -> (Vec<Station>, Vec<Station>) {
    let clear = |place: DVec2, from: DVec2| {
        let nearest = route.nearest(place).map(|idx| along[idx].pose.position);
        let gap_to_own_end = place.distance(from);
        nearest.is_none_or(|nearest| {
            place.distance(nearest) >= EXTENSION_CLEARANCE_M.min(gap_to_own_end - 0.5)
        })
    };
    let extend = |from: &Station, toward: f64, length: usize| {
        let station = Station { is_junction: false, ..*from };
        (1..=length)
            .map(|step| from.pose.position + from.pose.forward() * toward * step as f64)
            .take_while(|&place| clear(place, from.pose.position))
            .map(|position| Station { pose: Pose { position, ..station.pose }, ..station })
            .collect::<Vec<_>>()
    };
    let mut before = extend(&along[0], -1.0, EXTENSION_M.0);
    before.reverse();
    (before, extend(&along[along.len() - 1], 1.0, EXTENSION_M.1))
}
