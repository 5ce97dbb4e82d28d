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
    /// Acceleration along its heading, m/s².
    pub acceleration_mps2: f64,
    /// Yaw rate, rad/s.
    pub yaw_rate_radps: f64,
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

/// What a traffic light shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LightColor {
    /// Stop.
    Red,
    /// About to turn red; crossing is no violation.
    Yellow,
    /// Go.
    Green,
    /// Nothing.
    Off,
}

/// The box on the road that a light or sign watches.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TriggerVolume {
    /// Center in the world, meters.
    pub center: DVec3,
    /// Heading of the box's x axis in the world, radians.
    pub yaw_rad: f64,
    /// Half sizes along the box's x, y, z, meters.
    pub extent_m: [f64; 3],
}

/// A traffic light.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TrafficLight {
    /// Identity within a route, from 1.
    pub id: u32,
    /// Place of its pole in the world, meters; result files print it.
    pub position: DVec3,
    /// What it shows.
    pub color: LightColor,
    /// Its x axis lies across the lanes that the light is for.
    pub trigger: TriggerVolume,
}

/// A stop sign.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StopSign {
    /// Identity within a route, from 1.
    pub id: u32,
    /// Place of its pole in the world, meters; result files print it.
    pub position: DVec3,
    /// Where a vehicle has to stand still once.
    pub trigger: TriggerVolume,
}

/// A scenario that runs, as far as it has rules of its own. A world drops it from its state at the
/// tick that it ends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ScenarioState {
    /// Identity within a route, from 1.
    pub id: u32,
    /// Whether it has run for longer than it may.
    pub is_timed_out: bool,
    /// `world_from_vehicle` of the one to give way to.
    pub emergency_vehicle: Option<Pose>,
    /// Whether it judges collisions for itself, beside the route's own judgment.
    pub judges_collisions: bool,
}

/// What scenarios let the ego vehicle do that it may not do otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allowances {
    /// Drive in the oncoming lane, around an obstacle in its own.
    pub oncoming_lane: bool,
    /// Stand for as long as it likes.
    pub standing: bool,
}

/// The state that criteria judge, valid until the world's next step.
#[derive(Clone, Debug)]
pub struct WorldState {
    /// Seconds of simulation since the route began.
    pub time_s: f64,
    /// Our vehicle.
    pub ego: EgoState,
    /// Everybody and everything else that can move or be moved, nearest or not.
    pub actors: Vec<ActorState>,
    /// Contacts since the last tick.
    pub collisions: Vec<Collision>,
    /// Speeds of the traffic around ego, m/s (the minimum-speed criterion compares with them).
    pub background_speeds_mps: Vec<f64>,
    /// Speed limit at the ego's place, km/h.
    pub speed_limit_kmh: f64,
    /// Traffic lights whose trigger volume is within 15 m of the ego vehicle, and as many others as
    /// the world likes.
    pub traffic_lights: Vec<TrafficLight>,
    /// Stop signs, as traffic lights.
    pub stop_signs: Vec<StopSign>,
    /// The scenarios that run and have rules of their own.
    pub scenarios: Vec<ScenarioState>,
    /// What they allow.
    pub allowances: Allowances,
}

impl EgoState {
    /// Position in the world, meters.
    pub fn location(&self) -> DVec3 {
        self.pose.position.extend(self.z_m)
    }
}
