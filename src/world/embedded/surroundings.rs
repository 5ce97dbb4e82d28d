//! What sensors can see from where the ego vehicle is: boxes on flat ground, in the ego frame.
//!
//! A car pitches with its road. Sensors here don't; instead the world is sheared so that the plane
//! of the road around the ego vehicle is level. For the grades of roads that is the same to within
//! a percent.

use super::boxes::UprightBox;
use super::road::Ground;
use super::scenery::{Prop, PropKind};
use super::traffic::Traffic;
use crate::scene::{Pose, wrap_angle};
use glam::DVec2;

/// Boxes farther away than this are not seen, meters.
const HORIZON_M: f64 = 140.0;

/// What a box looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    Vehicle { shade: u8 },
    Prop { kind: PropKind, shade: u8 },
}

/// A box in the ego frame, heights above the ground under the ego vehicle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) shape: UprightBox,
    pub(super) look: Look,
}

/// The ego vehicle's view of the world: its pose and the plane it stands on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Viewpoint {
    pose: Pose,
    ground: Ground,
    forward: DVec2,
    uphill: DVec2,
}

impl Viewpoint {
    /// From `pose`, standing on `ground`.
    pub(super) fn new(pose: Pose, ground: Ground) -> Self {
        let uphill = DVec2::from_angle(ground.heading_rad) * ground.grade;
        Self { pose, ground, forward: pose.forward(), uphill }
    }

    /// A place of the world, in the ego frame.
    pub(super) fn place(&self, place: DVec2) -> DVec2 {
        self.direction(place - self.pose.position)
    }

    /// A direction of the world, in the ego frame.
    pub(super) fn direction(&self, direction: DVec2) -> DVec2 {
        DVec2::new(direction.dot(self.forward), direction.dot(self.forward.perp()))
    }

    /// Height above the plane of the ground.
    pub(super) fn height_m(&self, place: DVec2, z_m: f64) -> f64 {
        z_m - self.ground.z_m - (place - self.pose.position).dot(self.uphill)
    }

    fn shape(&self, shape: &UprightBox) -> UprightBox {
        let place = shape.pose.position;
        UprightBox {
            pose: Pose {
                position: self.place(place),
                yaw_rad: wrap_angle(shape.pose.yaw_rad - self.pose.yaw_rad),
            },
            bottom_m: self.height_m(place, shape.bottom_m),
            extent_m: shape.extent_m,
        }
    }
}

/// Everything in sight, into `seen`.
pub(super) fn look_around(
    viewpoint: &Viewpoint,
    traffic: &Traffic,
    scenery: &[Prop],
    seen: &mut Vec<Seen>,
) {
    seen.clear();
    let vehicles = traffic.actors().iter().map(|actor| {
        let shade = (actor.id as u8).wrapping_mul(37);
        (UprightBox::of(actor), Look::Vehicle { shade })
    });
    let props =
        scenery.iter().map(|prop| (prop.shape, Look::Prop { kind: prop.kind, shade: prop.shade }));
    for (shape, look) in vehicles.chain(props) {
        if shape.pose.position.distance_squared(viewpoint.pose.position) < HORIZON_M * HORIZON_M {
            seen.push(Seen { shape: viewpoint.shape(&shape), look });
        }
    }
}
