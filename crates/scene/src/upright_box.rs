//! Upright boxes with a heading, the shape of all objects except the road.

use crate::{ActorState, Pose};
use glam::DVec2;

/// Upright box with a heading.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct UprightBox {
    /// `outer_from_box`, at the center of the footprint.
    pub pose: Pose,
    /// Height of the bottom above the world's zero, meters.
    pub bottom_m: f64,
    /// Half sizes along x, y, z, meters.
    pub extent_m: [f64; 3],
}

impl UprightBox {
    /// Returns the bounding box of `actor` in the world frame.
    pub fn of(actor: &ActorState) -> Self {
        Self { pose: actor.pose, bottom_m: actor.z_m, extent_m: actor.extent_m }
    }

    /// Returns the height of the top, meters.
    pub fn top_m(&self) -> f64 {
        self.bottom_m + 2.0 * self.extent_m[2]
    }

    /// Returns the radius of the circle around the footprint, meters.
    pub fn radius_m(&self) -> f64 {
        self.extent_m[0].hypot(self.extent_m[1])
    }

    /// Returns the distance from `place` to the footprint, zero inside, meters.
    pub fn distance_m(&self, place: DVec2) -> f64 {
        footprint_distance_m(&self.pose, self.extent_m, place)
    }
}

/// Returns the distance (meters) from `place` to a rectangle of half sizes `extent_m`, zero inside.
pub fn footprint_distance_m(pose: &Pose, extent_m: [f64; 3], place: DVec2) -> f64 {
    let inside = pose.inverse_apply(place).abs() - DVec2::new(extent_m[0], extent_m[1]);
    inside.max(DVec2::ZERO).length()
}

/// Returns true if two footprints overlap, by the separating axis theorem.
pub fn footprints_overlap(a: &UprightBox, b: &UprightBox) -> bool {
    let between = b.pose.position - a.pose.position;
    if between.length() > a.radius_m() + b.radius_m() {
        return false;
    }
    let reach = |of: &UprightBox, axis: DVec2| {
        of.extent_m[0] * of.pose.forward().dot(axis).abs()
            + of.extent_m[1] * of.pose.right().dot(axis).abs()
    };
    [a.pose.forward(), a.pose.right(), b.pose.forward(), b.pose.right()]
        .into_iter()
        .all(|axis| between.dot(axis).abs() <= reach(a, axis) + reach(b, axis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(x: f64, y: f64, yaw_rad: f64, length: f64, width: f64) -> UprightBox {
        UprightBox {
            pose: Pose::new(x, y, yaw_rad),
            bottom_m: 0.0,
            extent_m: [length / 2.0, width / 2.0, 1.0],
        }
    }

    #[test]
    fn overlap_matches_the_reference_at_overlapping_heights() {
        let text = include_str!("../../../tests/data/bench2drive/pdm_lite_reference.json");
        let reference: serde_json::Value = serde_json::from_str(text).unwrap();
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let read = |side: &serde_json::Value| {
            let extent = [0, 1, 2].map(|axis| number(&side["half_extent"][axis]));
            let (center, yaw) = (&side["center"], number(&side["yaw_deg"]).to_radians());
            let pose = Pose::new(number(&center[0]), number(&center[1]), yaw);
            UprightBox { pose, bottom_m: number(&center[2]) - extent[2], extent_m: extent }
        };
        for sample in reference["obb_intersection"].as_array().unwrap() {
            let (a, b) = (read(&sample["a"]), read(&sample["b"]));
            let heights_overlap = a.bottom_m <= b.top_m() && b.bottom_m <= a.top_m();
            let expected = sample["intersect"].as_bool().unwrap();
            assert_eq!(heights_overlap && footprints_overlap(&a, &b), expected, "{sample}");
        }
    }

    #[test]
    fn rotated_box_overlaps_along_its_diagonal() {
        let square = flat(0.0, 0.0, 0.0, 2.0, 2.0);
        assert!(!footprints_overlap(&square, &flat(2.2, 0.0, 0.0, 2.0, 2.0)));
        assert!(footprints_overlap(&square, &flat(2.2, 0.0, 0.785, 2.0, 2.0)));
    }

    #[test]
    fn distance_is_measured_from_the_side() {
        let car = flat(10.0, 0.0, std::f64::consts::FRAC_PI_2, 4.0, 2.0);
        assert!((car.distance_m(DVec2::new(13.0, 0.0)) - 2.0).abs() < 1e-12);
        assert_eq!(car.distance_m(DVec2::new(10.0, 1.9)), 0.0);
    }
}
