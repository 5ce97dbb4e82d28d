//! Boxes that the sensors can see: on flat ground, in the ego frame.
//!
//! A car pitches with the road; these sensors do not. Instead the world is sheared so that
//! the plane of the road around the ego vehicle is level. For the grades of roads the two
//! agree to within a percent.

use super::scenery::{Prop, PropKind};
use crate::actors::list::Actors;
use crate::road::Ground;
use crate::road::signals::Signals;
use glam::DVec2;
use tandem_scene::UprightBox;
use tandem_scene::{ActorKind, ActorState, LightColor, Pose, wrap_angle};

/// Boxes farther away than this are not visible, meters.
const HORIZON_M: f64 = 140.0;

/// How the camera draws a box.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Appearance {
    Vehicle {
        shade: u8,
    },
    /// A pedestrian or a cyclist.
    Person {
        shade: u8,
        on_bicycle: bool,
    },
    /// Any other object of a scenario, in its own color.
    Object {
        color: [u8; 3],
    },
    /// Lamp of a traffic light (emissive), or a stop sign.
    Signal {
        color: [u8; 3],
    },
    Prop {
        kind: PropKind,
        shade: u8,
    },
}

/// A box in the ego frame; heights are above the ground under the ego vehicle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VisibleBox {
    pub(crate) shape: UprightBox,
    pub(crate) appearance: Appearance,
}

/// The ego vehicle's pose, and the plane of the ground under it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewpoint {
    pose: Pose,
    ground: Ground,
    forward: DVec2,
    uphill: DVec2,
}

impl Viewpoint {
    /// Creates a viewpoint at `pose` on `ground`.
    pub(crate) fn new(pose: Pose, ground: Ground) -> Self {
        let uphill = DVec2::from_angle(ground.heading_rad) * ground.grade;
        Self { pose, ground, forward: pose.forward(), uphill }
    }

    /// Converts a place of the world to the ego frame.
    pub(crate) fn place(&self, place: DVec2) -> DVec2 {
        self.direction(place - self.pose.position)
    }

    /// Converts a direction of the world to the ego frame.
    pub(crate) fn direction(&self, direction: DVec2) -> DVec2 {
        DVec2::new(direction.dot(self.forward), direction.dot(self.forward.perp()))
    }

    /// Returns the height above the plane of the ground, meters.
    pub(crate) fn height_m(&self, place: DVec2, z_m: f64) -> f64 {
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

fn appearance_of(actor: &ActorState) -> Appearance {
    let shade = (actor.id as u8).wrapping_mul(37);
    match actor.kind {
        ActorKind::Vehicle => Appearance::Vehicle { shade },
        ActorKind::Bicycle => Appearance::Person { shade, on_bicycle: true },
        ActorKind::Pedestrian => Appearance::Person { shade, on_bicycle: false },
        ActorKind::Static => Appearance::Object {
            color: match actor.type_id {
                "static.prop.trafficcone01" => [226, 92, 28],
                "static.prop.trafficwarning" => [232, 172, 40],
                "static.prop.dirtdebris02" => [92, 76, 60],
                _ => [120, 124, 128],
            },
        },
    }
}

/// Collects all visible boxes in `visible`.
pub(crate) fn collect_visible(
    viewpoint: &Viewpoint,
    actors: &Actors,
    signals: &Signals,
    scenery: &[Prop],
    visible: &mut Vec<VisibleBox>,
) {
    visible.clear();
    let actors = actors.others().iter().map(|actor| (UprightBox::of(actor), appearance_of(actor)));
    let signals = signals.heads().flat_map(|(place, facing_rad, color)| {
        let head = |position: DVec2, extent_m| UprightBox {
            pose: Pose { position, yaw_rad: facing_rad },
            bottom_m: place.z,
            extent_m,
        };
        let at = place.truncate();
        let toward = DVec2::from_angle(facing_rad).perp();
        let shown = match color {
            Some(LightColor::Red) | None => [232, 24, 20],
            Some(LightColor::Yellow) => [250, 190, 20],
            Some(LightColor::Green) => [24, 214, 90],
            Some(LightColor::Off) => [40, 40, 40],
        };
        let size = if color.is_some() { 0.22 } else { 0.38 };
        let post = UprightBox { bottom_m: place.z - 4.0, ..head(at, [0.07, 0.07, 2.0]) };
        [
            (post, Appearance::Object { color: [70, 72, 74] }),
            (head(at - toward * 0.15, [size, 0.05, size]), Appearance::Signal { color: shown }),
        ]
    });
    let props = scenery
        .iter()
        .map(|prop| (prop.shape, Appearance::Prop { kind: prop.kind, shade: prop.shade }));
    for (shape, appearance) in actors.chain(signals).chain(props) {
        if shape.pose.position.distance_squared(viewpoint.pose.position) < HORIZON_M * HORIZON_M {
            visible.push(VisibleBox { shape: viewpoint.shape(&shape), appearance });
        }
    }
}
