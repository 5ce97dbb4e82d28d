//! The junction of a route, and the tracks through it.

use super::layout::LANE_WIDTH_M;
use super::route_line::bridge;
use super::station::Station;
use super::track::Track;
use glam::{DVec2, DVec3};
use std::f64::consts::PI;
use tandem_scene::{Pose, wrap_angle};

/// A larger change of heading is a turn, radians.
const TURN_RAD: f64 = PI / 4.0;

/// A longer junction has no cross street: it is a merge or an exit of a motorway, meters.
const LONGEST_CROSSING_M: usize = 45;

/// Length of the other roads at a junction, meters.
const ARM_M: usize = 110;

/// A road at a junction, as seen from the ego vehicle at the entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arm {
    Behind,
    Left,
    Ahead,
    Right,
}

/// A road that leaves a junction: the line between its two directions,
/// outward, one point per meter.
#[derive(Clone, Debug)]
struct Road {
    divider: Vec<(Pose, f64)>,
    has_inbound: bool,
}

/// The first junction of a route.
#[derive(Clone, Debug)]
pub(crate) struct Junction {
    /// Last station before the junction.
    pub(crate) entry: usize,
    /// First station after the junction.
    pub(crate) exit: usize,
    /// Roads at the junction, indexed by [`Arm`].
    arms: [Option<Road>; 4],
    exit_arm: Arm,
}

impl Junction {
    /// Finds the first junction along `stations`. `divider_m` is the left edge of the
    /// route's lanes, meters to the right of the road's center line; `has_opposite` is true
    /// if the road has oncoming lanes.
    pub(crate) fn first(stations: &[Station], divider_m: f64, has_opposite: bool) -> Option<Self> {
        let begin = stations.iter().position(|station| station.is_junction)?;
        let length = stations[begin..].iter().take_while(|station| station.is_junction).count();
        let (entry, exit) = (begin.checked_sub(1)?, begin + length);
        if exit >= stations.len() {
            return None;
        }
        let turned_rad = wrap_angle(stations[exit].pose.yaw_rad - stations[entry].pose.yaw_rad);
        let exit_arm = if turned_rad > TURN_RAD {
            Arm::Right
        } else if turned_rad < -TURN_RAD {
            Arm::Left
        } else {
            Arm::Ahead
        };
        let divider = |station: &Station, turned_rad: f64| {
            let yaw_rad = station.pose.yaw_rad + turned_rad;
            (Pose { position: station.aside(divider_m), yaw_rad }, station.z_m)
        };
        let existing = |divider| Some(Road { divider, has_inbound: true });
        let mut arms = [const { None }; 4];
        let behind = stations[..=entry].iter().rev().map(|station| divider(station, PI));
        arms[Arm::Behind as usize] = existing(behind.take(ARM_M).collect());
        let onward = stations[exit..].iter().map(|station| divider(station, 0.0));
        arms[exit_arm as usize] =
            Some(Road { divider: onward.collect(), has_inbound: has_opposite });

        // Roads that the route does not take are straight.
        let straight = |(start, z_m): (Pose, f64), first: usize| {
            let at = |step: usize| start.position + start.forward() * (first + step) as f64;
            existing((0..ARM_M).map(|step| (Pose { position: at(step), ..start }, z_m)).collect())
        };
        match exit_arm {
            Arm::Ahead if length < LONGEST_CROSSING_M => {
                let middle = &stations[(entry + exit) / 2];
                let quarter = PI / 2.0;
                // Cross streets begin outside the road that they cross.
                let mouth = length / 2;
                for (arm, turned_rad) in [(Arm::Left, -quarter), (Arm::Right, quarter)] {
                    arms[arm as usize] = straight(divider(middle, turned_rad), mouth);
                }
            }
            Arm::Left | Arm::Right => {
                let opposite = if exit_arm == Arm::Left { Arm::Right } else { Arm::Left };
                arms[Arm::Ahead as usize] =
                    straight(divider(&stations[entry], 0.0), length * 2 / 3);
                arms[opposite as usize] = straight(divider(&stations[exit], PI), length * 2 / 3);
            }
            _ => {}
        }
        Some(Self { entry, exit, arms, exit_arm })
    }

    /// Returns the road by which the route leaves.
    pub(crate) fn exit_arm(&self) -> Arm {
        self.exit_arm
    }

    /// Returns the junction end of the road `arm`: its pose, heading away from
    /// the junction, and its height.
    pub(crate) fn mouth(&self, arm: Arm) -> Option<(Pose, f64)> {
        Some(self.arms[arm as usize].as_ref()?.divider[0])
    }

    /// Returns the dividers of the roads that the route does not take,
    /// outward, one point per meter.
    pub(crate) fn side_roads(&self) -> impl Iterator<Item = &[(Pose, f64)]> {
        let taken = [Arm::Behind as usize, self.exit_arm as usize];
        let roads = self.arms.iter().enumerate().filter(move |(arm, _)| !taken.contains(arm));
        roads.filter_map(|(_, road)| Some(road.as_ref()?.divider.as_slice()))
    }

    /// Returns the track from the far end of one road to the far end of another, on the
    /// lanes next to the dividers.
    pub(crate) fn through(&self, from: Arm, to: Arm) -> Option<Track> {
        let (inbound, outbound) =
            (self.arms[from as usize].as_ref()?, self.arms[to as usize].as_ref()?);
        if !inbound.has_inbound && from != Arm::Behind {
            return None;
        }
        let beside = |&(pose, z_m): &(Pose, f64), sign: f64| {
            (pose.position + pose.right() * (sign * LANE_WIDTH_M / 2.0)).extend(z_m)
        };
        // Inbound lanes are on the other side of the divider.
        let mut line: Vec<DVec3> =
            inbound.divider.iter().rev().map(|point| beside(point, -1.0)).collect();
        let start = line[line.len() - 1];
        let entering = -inbound.divider[0].0.forward();
        let onward = outbound.divider.iter().map(|point| beside(point, 1.0));
        let onward: Vec<DVec3> = onward.collect();
        let leaving = outbound.divider[0].0.forward();
        let flat = |place: DVec3| DVec2::new(place.x, place.y);
        let curve = bridge(flat(start), entering, flat(onward[0]), leaving);
        let n = curve.len() as f64;
        line.extend(curve[1..].iter().enumerate().map(|(idx, place)| {
            place.extend(start.z + (onward[0].z - start.z) * (idx + 1) as f64 / n)
        }));
        line.extend(&onward[1..]);
        Some(Track::new(&line))
    }
}
