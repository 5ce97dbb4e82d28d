//! What is true of the world at a tick: what criteria judge and privileged drivers see.

use super::Pose;
use glam::DVec3;

/// Our vehicle.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EgoState {
    /// `world_from_ego`.
    pub pose: Pose,
    /// Height of the vehicle's origin above the world's zero, meters.
    pub z_m: f64,
    /// Forward speed, m/s.
    pub speed_mps: f64,
    /// Yaw rate, rad/s.
    pub yaw_rate_radps: f64,
    /// Longitudinal acceleration, m/s².
    pub acceleration_mps2: f64,
    /// Half sizes of the bounding box along x, y, z, meters.
    pub extent_m: [f64; 3],
}

/// What kind of thing an actor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ActorKind {
    /// Car, truck, van, motorcycle.
    Vehicle,
    /// Bicycle with rider.
    Bicycle,
    /// Person on foot.
    Pedestrian,
    /// Cone, barrier, building: anything that never moves.
    Static,
}

/// Another actor.
#[derive(Clone, PartialEq, Debug)]
pub struct ActorState {
    /// Identity within a route, from 1.
    pub id: u32,
    /// What it is.
    pub kind: ActorKind,
    /// CARLA's blueprint name, e.g. `vehicle.tesla.model3`; result files print it.
    pub type_id: &'static str,
    /// `world_from_actor`, at the center of the footprint.
    pub pose: Pose,
    /// Height of the bottom of the box above the world's zero, meters.
    pub z_m: f64,
    /// Forward speed, m/s.
    pub speed_mps: f64,
    /// Half sizes of the bounding box along x, y, z, meters.
    pub extent_m: [f64; 3],
}

/// A contact between ego and something else during the last step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Collision {
    /// The other actor, 0 for scenery.
    pub other_id: u32,
    /// Its blueprint name; criteria classify by it.
    pub type_id: &'static str,
}

/// The state that criteria judge, valid until the world's next step.
#[derive(Clone, Debug)]
pub struct WorldState {
    /// Seconds of simulation since the route began.
    pub time_s: f64,
    /// Our vehicle.
    pub ego: EgoState,
    /// Contacts since the last tick.
    pub collisions: Vec<Collision>,
    /// Speeds of the traffic around ego, m/s (the minimum-speed criterion compares with them).
    pub background_speeds_mps: Vec<f64>,
    /// Speed limit at the ego's place, km/h.
    pub speed_limit_kmh: f64,
}

impl EgoState {
    /// Position in the world, meters.
    pub fn location(&self) -> DVec3 {
        self.pose.position.extend(self.z_m)
    }
}
