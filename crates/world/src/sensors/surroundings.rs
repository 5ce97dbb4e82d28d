//! What sensors can see from where the ego vehicle is: boxes on flat ground, in the ego frame.
//!
//! A car pitches with its road. Sensors here don't; instead the world is sheared so that the plane
//! of the road around the ego vehicle is level. For the grades of roads that is the same to within
//! a percent.

use super::scenery::{Prop, PropKind};
use crate::actors::list::Actors;
use crate::road::Ground;
use crate::road::signals::Signals;
use glam::DVec2;
use tandem_scene::UprightBox;
use tandem_scene::{ActorKind, ActorState, LightColor, Pose, wrap_angle};

/// Boxes farther away than this are not seen, meters.
const HORIZON_M: f64 = 140.0;

/// What a box looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    Vehicle {
        shade: u8,
    },
    /// Somebody on foot or on a bicycle.
    Person {
        shade: u8,
        on_bicycle: bool,
    },
    /// Anything else that a scenario brings, in its color.
    Thing {
        color: [u8; 3],
    },
    /// What a traffic light shows, or a stop sign: it shines or is red by itself.
    Signal {
        color: [u8; 3],
    },
    Prop {
        kind: PropKind,
        shade: u8,
    },
}

/// A box in the ego frame, heights above the ground under the ego vehicle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) shape: UprightBox,
    pub(crate) look: Look,
}

/// The ego vehicle's view of the world: its pose and the plane it stands on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewpoint {
    pose: Pose,
    ground: Ground,
    forward: DVec2,
    uphill: DVec2,
}

impl Viewpoint {
    /// From `pose`, standing on `ground`.
    pub(crate) fn new(pose: Pose, ground: Ground) -> Self {
        let uphill = DVec2::from_angle(ground.heading_rad) * ground.grade;
        Self { pose, ground, forward: pose.forward(), uphill }
    }

    /// A place of the world, in the ego frame.
    pub(crate) fn place(&self, place: DVec2) -> DVec2 {
        self.direction(place - self.pose.position)
    }

    /// A direction of the world, in the ego frame.
    pub(crate) fn direction(&self, direction: DVec2) -> DVec2 {
        DVec2::new(direction.dot(self.forward), direction.dot(self.forward.perp()))
    }

    /// Height above the plane of the ground.
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

fn look_of(actor: &ActorState) -> Look {
    let shade = (actor.id as u8).wrapping_mul(37);
    match actor.kind {
        ActorKind::Vehicle => Look::Vehicle { shade },
        ActorKind::Bicycle => Look::Person { shade, on_bicycle: true },
        ActorKind::Pedestrian => Look::Person { shade, on_bicycle: false },
        ActorKind::Static => Look::Thing {
            color: match actor.type_id {
                "static.prop.trafficcone01" => [226, 92, 28],
                "static.prop.trafficwarning" => [232, 172, 40],
                "static.prop.dirtdebris02" => [92, 76, 60],
                _ => [120, 124, 128],
            },
        },
    }
}

/// Everything in sight, into `seen`.
pub(crate) fn look_around(
    viewpoint: &Viewpoint,
    actors: &Actors,
    signals: &Signals,
    scenery: &[Prop],
    seen: &mut Vec<Seen>,
) {
    seen.clear();
    let actors = actors.others().iter().map(|actor| (UprightBox::of(actor), look_of(actor)));
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
            (post, Look::Thing { color: [70, 72, 74] }),
            (head(at - toward * 0.15, [size, 0.05, size]), Look::Signal { color: shown }),
        ]
    });
    let props =
        scenery.iter().map(|prop| (prop.shape, Look::Prop { kind: prop.kind, shade: prop.shade }));
    for (shape, look) in actors.chain(signals).chain(props) {
        if shape.pose.position.distance_squared(viewpoint.pose.position) < HORIZON_M * HORIZON_M {
            seen.push(Seen { shape: viewpoint.shape(&shape), look });
        }
    }
}
