//! Planar poses and angles.

use glam::DVec2;
use std::f64::consts::PI;

/// Planar pose, read as `outer_from_body`: `pose.apply(point_in_body)` is in the outer frame.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Pose {
    /// Position in the outer frame, meters.
    pub position: DVec2,
    /// Heading in the outer frame, radians, clockwise seen from above (y is right of x).
    pub yaw_rad: f64,
}

impl Pose {
    /// Creates a pose at `(x, y)` meters with heading `yaw_rad`.
    pub fn new(x: f64, y: f64, yaw_rad: f64) -> Self {
        Self { position: DVec2::new(x, y), yaw_rad }
    }

    /// Returns the unit vector along the body's x axis.
    pub fn forward(&self) -> DVec2 {
        DVec2::from_angle(self.yaw_rad)
    }

    /// Returns the unit vector along the body's y axis (to the right).
    pub fn right(&self) -> DVec2 {
        self.forward().perp()
    }

    /// Transforms a point from the body frame to the outer frame.
    pub fn apply(&self, point_in_body: DVec2) -> DVec2 {
        self.position + self.forward().rotate(point_in_body)
    }

    /// Transforms a point from the outer frame to the body frame.
    pub fn inverse_apply(&self, point_in_outer: DVec2) -> DVec2 {
        let offset = point_in_outer - self.position;
        DVec2::new(offset.dot(self.forward()), offset.dot(self.right()))
    }
}

/// Wraps an angle to (−π, π].
pub fn wrap_angle(angle_rad: f64) -> f64 {
    let wrapped = angle_rad.rem_euclid(2.0 * PI);
    if wrapped > PI { wrapped - 2.0 * PI } else { wrapped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_of_heading_x_is_positive_y() {
        let car = Pose::new(10.0, 5.0, 0.0);
        assert_eq!(car.apply(DVec2::new(2.0, 1.0)), DVec2::new(12.0, 6.0));
    }

    #[test]
    fn apply_inverts_inverse_apply() {
        let car = Pose::new(-3.0, 7.0, 2.1);
        let point = DVec2::new(11.0, -4.0);
        assert!((car.apply(car.inverse_apply(point)) - point).length() < 1e-12);
    }

    #[test]
    fn angles_wrap_into_the_half_open_interval() {
        assert!((wrap_angle(1.5 * PI) + 0.5 * PI).abs() < 1e-12);
        assert!((wrap_angle(-1.5 * PI) - 0.5 * PI).abs() < 1e-12);
        assert_eq!(wrap_angle(PI), PI);
    }
}
