//! Dense route with cumulative lengths, and the ego vehicle's progress along it.

use glam::DVec3;
use tandem_scene::RoutePlan;

/// Dense route with the length up to each point.
pub(super) struct RouteLine {
    points: Vec<DVec3>,
    forwards: Vec<DVec3>,
    /// 3-D length from the start to each point, meters.
    accumulated_m: Vec<f64>,
}

impl RouteLine {
    /// Panics if the plan has no point.
    pub(super) fn new(plan: &RoutePlan) -> Self {
        assert!(!plan.points.is_empty(), "a route plan without points");
        let points: Vec<_> = plan.points.iter().map(|point| point.position).collect();
        // Route points have no slope, so the forward vector is horizontal.
        let forward = |heading_rad: f64| DVec3::new(heading_rad.cos(), heading_rad.sin(), 0.0);
        let forwards = plan.points.iter().map(|point| forward(point.heading_rad)).collect();
        let mut accumulated_m = vec![0.0];
        let mut length_m = 0.0;
        for pair in points.windows(2) {
            length_m += pair[0].distance(pair[1]);
            accumulated_m.push(length_m);
        }
        Self { points, forwards, accumulated_m }
    }

    pub(super) fn point(&self, index: usize) -> DVec3 {
        self.points[index]
    }

    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    /// Returns the length from the start to point `index`, meters.
    pub(super) fn length_to_m(&self, index: usize) -> f64 {
        self.accumulated_m[index]
    }

    /// Returns the length of the route, meters.
    pub(super) fn length_m(&self) -> f64 {
        self.accumulated_m[self.len() - 1]
    }

    pub(super) fn end(&self) -> DVec3 {
        self.points[self.len() - 1]
    }

    /// Returns the points of `current ..= current + window` that `position` has passed, in
    /// ascending order; the last one is the new index. A point is passed when `position` is in
    /// front of it. Later points count even if an earlier one has not been passed.
    pub(super) fn passed(
        &self,
        current: usize,
        window: usize,
        position: DVec3,
    ) -> impl Iterator<Item = usize> {
        let end = (current + window + 1).min(self.len());
        (current..end)
            .filter(move |&index| (position - self.points[index]).dot(self.forwards[index]) > 0.0)
    }
}
