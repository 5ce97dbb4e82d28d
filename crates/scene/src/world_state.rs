//! True state of the world at a tick, for criteria and privileged drivers.

use super::Pose;
use glam::DVec3;

/// State of the ego vehicle.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EgoState {
    /// Pose in the world, `world_from_ego`.
    pub pose: Pose,
    /// Height of the vehicle's origin above the world's zero, meters.
    pub z_m: f64,
    /// Forward speed.
    pub speed_mps: f64,
    pub yaw_rate_radps: f64,
    /// Longitudinal acceleration, m/s².
    pub acceleration_mps2: f64,
    /// Half sizes of the bounding box along x, y, z, meters.
    pub extent_m: [f64; 3],
}

/// Kind of an actor, by how it moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ActorKind {
    /// Car, truck, van, motorcycle.
    Vehicle,
    Bicycle,
    Pedestrian,
    /// Cone, barrier, building and other objects that never move.
    Static,
}

/// State of an actor other than the ego vehicle.
#[derive(Clone, PartialEq, Debug)]
pub struct ActorState {
    /// Unique within a route, from 1.
    pub id: u32,
    pub kind: ActorKind,
    /// CARLA's blueprint name, e.g. `vehicle.tesla.model3`; written to result files.
    pub type_id: &'static str,
    /// `world_from_actor`, at the center of the footprint.
    pub pose: Pose,
    /// Height of the bottom of the box above the world's zero, meters.
    pub z_m: f64,
    /// Forward speed.
    pub speed_mps: f64,
    /// Acceleration along the heading, m/s².
    pub acceleration_mps2: f64,
    pub yaw_rate_radps: f64,
    /// Half sizes of the bounding box along x, y, z, meters.
    pub extent_m: [f64; 3],
}

/// Contact of the ego vehicle with another object during the last step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Collision {
    /// Id of the other actor, 0 for scenery.
    pub other_id: u32,
    /// Blueprint name of the other object, by which criteria classify it.
    pub type_id: &'static str,
}

/// Color that a traffic light shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LightColor {
    Red,
    /// Crossing is not a violation.
    Yellow,
    Green,
    Off,
}

/// Box on the road to which a light or sign applies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TriggerVolume {
    /// Center in the world frame, meters.
    pub center: DVec3,
    /// Heading of the box's x axis in the world frame, radians.
    pub yaw_rad: f64,
    /// Half sizes along the box's x, y, z, meters.
    pub extent_m: [f64; 3],
}

/// State of a traffic light, with its trigger volume.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TrafficLight {
    /// Unique within a route, from 1.
    pub id: u32,
    /// Position of its pole in the world frame, meters; written to result files.
    pub position: DVec3,
    pub color: LightColor,
    /// Its x axis is across the lanes to which the light applies.
    pub trigger: TriggerVolume,
}

/// A stop sign, with its trigger volume.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StopSign {
    /// Unique within a route, from 1.
    pub id: u32,
    /// Position of its pole in the world frame, meters; written to result files.
    pub position: DVec3,
    /// Area in which a vehicle has to stop once.
    pub trigger: TriggerVolume,
}

/// A running scenario with rules of its own. A world removes it from its state when it ends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ScenarioState {
    /// Unique within a route, from 1.
    pub id: u32,
    pub is_timed_out: bool,
    /// `world_from_vehicle` of the emergency vehicle to give way to.
    pub emergency_vehicle: Option<Pose>,
    /// True if it evaluates collisions itself, in addition to the route's criterion.
    pub judges_collisions: bool,
}

/// Exceptions to the rules that scenarios grant to the ego vehicle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allowances {
    /// Driving in the oncoming lane, around an obstacle in the ego lane.
    pub oncoming_lane: bool,
    /// Standing for an unlimited time.
    pub standing: bool,
}

/// State that criteria evaluate, valid until the next step of the world.
#[derive(Clone, Debug)]
pub struct WorldState {
    /// Simulation time since the start of the route, seconds.
    pub time_s: f64,
    pub ego: EgoState,
    /// All other actors that can move or be moved, at any distance.
    pub actors: Vec<ActorState>,
    pub collisions: Vec<Collision>,
    /// Speeds of the traffic around the ego vehicle, m/s, for the minimum-speed criterion.
    pub background_speeds_mps: Vec<f64>,
    /// Speed limit at the ego vehicle, km/h.
    pub speed_limit_kmh: f64,
    /// Traffic lights whose trigger volume is within 15 m of the ego vehicle; may contain others.
    pub traffic_lights: Vec<TrafficLight>,
    /// Stop signs, selected like traffic lights.
    pub stop_signs: Vec<StopSign>,
    /// Running scenarios that have rules of their own.
    pub scenarios: Vec<ScenarioState>,
    pub allowances: Allowances,
}

impl EgoState {
    /// Returns the position in the world frame, meters.
    pub fn location(&self) -> DVec3 {
        self.pose.position.extend(self.z_m)
    }
}
