//! Rectangles on the ground with a fast overlap test.

use glam::DVec2;
use tandem_scene::Pose;

/// A rectangle on the ground with a heading.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Footprint {
    pub(super) center: DVec2,
    /// Unit vector along the length.
    pub(super) forward: DVec2,
    /// Half length and half width, meters.
    pub(super) half_m: DVec2,
}

impl Footprint {
    /// Returns the footprint of a body at `pose` with these half sizes.
    pub(super) fn new(pose: &Pose, half_m: DVec2) -> Self {
        Self { center: pose.position, forward: pose.forward(), half_m }
    }

    /// Returns true if the two overlap: no axis of either separates them.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let between = other.center - self.center;
        let near_m = self.half_m.element_sum() + other.half_m.element_sum();
        if between.length_squared() > near_m * near_m {
            return false;
        }
        let reach = |of: &Self, axis: DVec2| {
            of.half_m.x * of.forward.dot(axis).abs() + of.half_m.y * of.forward.perp_dot(axis).abs()
        };
        [self.forward, self.forward.perp(), other.forward, other.forward.perp()]
            .into_iter()
            .all(|axis| between.dot(axis).abs() <= reach(self, axis) + reach(other, axis))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{number, samples};
    use super::*;

    #[test]
    fn planar_overlap_matches_the_reference() {
        let read = |side: &serde_json::Value| {
            let extent = [0, 1, 2].map(|axis| number(&side["half_extent"][axis]));
            let (center, yaw) = (&side["center"], number(&side["yaw_deg"]).to_radians());
            let pose = Pose::new(number(&center[0]), number(&center[1]), yaw);
            let z = number(&center[2]);
            let footprint = Footprint::new(&pose, DVec2::new(extent[0], extent[1]));
            (footprint, z - extent[2]..=z + extent[2])
        };
        let samples = samples("obb_intersection");
        assert_eq!(samples.len(), 60);
        for sample in samples {
            let ((a, height_a), (b, height_b)) = (read(&sample["a"]), read(&sample["b"]));
            let heights_overlap =
                height_a.start() <= height_b.end() && height_b.start() <= height_a.end();
            let expected = sample["intersect"].as_bool().unwrap();
            assert_eq!(heights_overlap && a.overlaps(&b), expected, "{sample}");
        }
    }
}
