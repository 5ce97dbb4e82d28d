//! Static scenery next to the road: houses, trees and lamps, all clear of the route.

use crate::noise::Noise;
use crate::road::Road;
use crate::road::junction::Junction;
use crate::road::lane::Edges;
use glam::DVec2;
use tandem_scene::UprightBox;

/// Minimum distance of scenery from the edges of the road, meters.
const OFF_ROAD_M: f64 = 1.0;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PropKind {
    House,
    Trunk,
    Crown,
    Lamp,
}

/// A static object next to the road.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prop {
    pub(crate) kind: PropKind,
    pub(crate) shape: UprightBox,
    /// Selects one of the colors of its kind.
    pub(super) shade: u8,
}

impl Prop {
    /// Returns the blueprint name that collisions with it report.
    pub(crate) fn type_id(&self) -> &'static str {
        match self.kind {
            PropKind::House => "static.building",
            PropKind::Trunk | PropKind::Crown => "static.vegetation",
            PropKind::Lamp => "static.pole",
        }
    }
}

/// Left or right side of the road.
#[derive(Clone, Copy)]
struct Side {
    /// Edge of the road, meters to the right of the road's center line.
    edge_m: f64,
    /// 1 on the right, −1 on the left.
    outward: f64,
}

/// Places scenery along both sides of `road`.
pub(crate) fn scenery(road: &Road, noise: &mut Noise) -> Vec<Prop> {
    let mut props = Vec::new();
    let (left, right) = sides(road);
    for side in [left, right] {
        if !road.layout().is_rural {
            place_houses(road, side, noise, &mut props);
        }
        place_trees_and_lamps(road, side, noise, &mut props);
    }
    props
}

fn sides(road: &Road) -> (Side, Side) {
    let Edges { left_m, right_m } = road.edges();
    (Side { edge_m: left_m, outward: -1.0 }, Side { edge_m: right_m, outward: 1.0 })
}

fn place_houses(road: &Road, side: Side, noise: &mut Noise, props: &mut Vec<Prop>) {
    let end_m = (road.stations().len() - 1) as f64;
    let mut along_m = noise.between(2.0, 12.0);
    while along_m < end_m - 2.0 {
        let half_length = noise.between(4.0, 9.0);
        let extent_m = [half_length, noise.between(4.0, 6.0), noise.between(2.5, 6.5)];
        let setback_m = noise.between(6.0, 11.0) + extent_m[1];
        let (pose, z_m) =
            road.pose_at(along_m + half_length, side.edge_m + side.outward * setback_m);
        let shade = noise.bits() as u8;
        // Foundations extend below the ground, for houses on a slope.
        let shape = UprightBox { pose, bottom_m: z_m - 1.0, extent_m };
        if noise.unit() < 0.7 && has_room(road, &shape, 8.0) {
            props.push(Prop { kind: PropKind::House, shape, shade });
        }
        along_m += 2.0 * half_length + noise.between(2.0, 14.0);
    }
}

fn place_trees_and_lamps(road: &Road, side: Side, noise: &mut Noise, props: &mut Vec<Prop>) {
    let end_m = (road.stations().len() - 1) as f64;
    let mut along_m = noise.between(2.0, 10.0);
    while along_m < end_m - 2.0 {
        let (pose, z_m) = road.pose_at(along_m, side.edge_m + side.outward * 3.6);
        let shade = noise.bits() as u8;
        let prop = |kind, bottom_m, extent_m| Prop {
            kind,
            shape: UprightBox { pose, bottom_m, extent_m },
            shade,
        };
        if noise.unit() < 0.3 {
            let lamp = prop(PropKind::Lamp, z_m, [0.1, 0.1, 3.2]);
            if has_room(road, &lamp.shape, 5.0) {
                props.push(lamp);
            }
        } else {
            let (half_trunk, half_crown) = (noise.between(1.0, 1.5), noise.between(1.1, 1.8));
            let crown = prop(PropKind::Crown, z_m + 2.0 * half_trunk, [half_crown; 3]);
            // Room for the crown implies room for the trunk.
            if has_room(road, &crown.shape, 4.0) {
                props.push(crown);
                props.push(prop(PropKind::Trunk, z_m, [0.18, 0.18, half_trunk]));
            }
        }
        along_m += noise.between(9.0, 22.0);
    }
}

/// Returns true if `shape` is off the road and its side roads, and at least `margin_m` from the
/// route: the road may return to the same place.
fn has_room(road: &Road, shape: &UprightBox, margin_m: f64) -> bool {
    let away = |place: DVec2| shape.distance_m(place) >= margin_m;
    let (left, right) = sides(road);
    let across = [left.edge_m, 0.0, right.edge_m];
    road.plan().points.iter().all(|point| away(point.position.truncate()))
        && road
            .junction()
            .into_iter()
            .flat_map(Junction::side_roads)
            .flatten()
            .step_by(2)
            .all(|(pose, _)| away(pose.position))
        && road.stations().iter().all(|station| {
            across.iter().all(|&aside_m| shape.distance_m(station.aside(aside_m)) >= OFF_ROAD_M)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::road::fixtures::bare_route;
    use glam::DVec3;

    #[test]
    fn scenery_stays_clear_of_the_road() {
        let key_points = (0..101).map(|i| DVec3::new(2.0 * f64::from(i), 0.0, 0.0)).collect();
        let road = Road::new(&bare_route(1, key_points)).unwrap();
        for seed in 0..20 {
            let props = scenery(&road, &mut Noise::new(seed, 1, 0));
            let n = |kind| props.iter().filter(|prop| prop.kind == kind).count();
            assert!(n(PropKind::House) > 5 && n(PropKind::Lamp) > 1, "{seed}");
            assert_eq!(n(PropKind::Trunk), n(PropKind::Crown));
            for Prop { shape, .. } in &props {
                // The road reaches from -5.25 to 4.25.
                let beside = DVec2::new(shape.pose.position.x, 0.0);
                assert!(shape.distance_m(beside) > 4.25, "{shape:?}");
            }
        }
    }
}
