//! Where roads meet.

use super::layout::LANE_WIDTH_M;
use super::route_line::bridge;
use super::station::Station;
use super::track::Track;
use glam::{DVec2, DVec3};
use std::f64::consts::PI;
use tandem_scene::{Pose, wrap_angle};

/// A turn by more than this leaves the road that goes straight on, radians.
const TURN_RAD: f64 = PI / 4.0;

/// A junction longer than this has no cross street: a merge or an exit of a motorway, meters.
const LONGEST_CROSSING_M: usize = 45;

/// Length of roads that meet the route's, meters.
const ARM_M: usize = 110;

/// A road that meets at a junction, as our vehicle sees it where it enters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arm {
    Behind,
    Left,
    Ahead,
    Right,
}

/// The line between the two directions of a road that leaves a junction, outward, a point a meter.
#[derive(Clone, Debug)]
struct Road {
    divider: Vec<(Pose, f64)>,
    has_inbound: bool,
}

/// A junction of the route.
#[derive(Clone, Debug)]
pub(crate) struct Junction {
    /// The last station before it.
    pub(crate) entry: usize,
    /// The first station behind it.
    pub(crate) exit: usize,
    /// By [`Arm`].
    arms: [Option<Road>; 4],
    exit_arm: Arm,
}

impl Junction {
    /// The first junction along `stations`; `divider_m` is where our lanes begin, meters to the
    /// right of the road's center line. `has_opposite` says if the road has oncoming lanes.
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

        // Roads that the route does not take, straight.
        let straight = |(start, z_m): (Pose, f64), first: usize| {
            let at = |step: usize| start.position + start.forward() * (first + step) as f64;
            existing((0..ARM_M).map(|step| (Pose { position: at(step), ..start }, z_m)).collect())
        };
        match exit_arm {
            Arm::Ahead if length < LONGEST_CROSSING_M => {
                let middle = &stations[(entry + exit) / 2];
                let quarter = PI / 2.0;
                // Roads begin outside the one that they cross.
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

    /// The road that the route leaves by.
    pub(crate) fn exit_arm(&self) -> Arm {
        self.exit_arm
    }

    /// Where the road `arm` begins, and its heading away from the junction.
    pub(crate) fn mouth(&self, arm: Arm) -> Option<(Pose, f64)> {
        Some(self.arms[arm as usize].as_ref()?.divider[0])
    }

    /// The dividers of the roads that the route does not take, outward, a point a meter.
    pub(crate) fn side_roads(&self) -> impl Iterator<Item = &[(Pose, f64)]> {
        let taken = [Arm::Behind as usize, self.exit_arm as usize];
        let roads = self.arms.iter().enumerate().filter(move |(arm, _)| !taken.contains(arm));
        roads.filter_map(|(_, road)| Some(road.as_ref()?.divider.as_slice()))
    }

    /// The way from far out on one road to far out on another, on the lanes beside the dividers.
    pub(crate) fn through(&self, from: Arm, to: Arm) -> Option<Track> {
        let (inbound, outbound) =
            (self.arms[from as usize].as_ref()?, self.arms[to as usize].as_ref()?);
        if !inbound.has_inbound && from != Arm::Behind {
            return None;
        }
        let beside = |&(pose, z_m): &(Pose, f64), sign: f64| {
            (pose.position + pose.right() * (sign * LANE_WIDTH_M / 2.0)).extend(z_m)
        };
        // Toward the junction, lanes lie on the other side of the divider.
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
