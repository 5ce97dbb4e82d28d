//! All actors, including the ego vehicle.

use super::blueprints::Blueprint;
use tandem_scene::vehicle::EGO_EXTENT_M;
use tandem_scene::{ActorKind, ActorState, EgoState, Pose, TICK_S, wrap_angle};

/// Actor id of the ego vehicle.
pub(crate) const EGO: u32 = 0;

/// All actors. Each is moved by one owner: traffic or a scenario.
#[derive(Debug)]
pub(crate) struct Actors {
    actors: Vec<ActorState>,
    ego: ActorState,
    next_id: u32,
}

impl Actors {
    /// Creates a list with only the ego vehicle.
    pub(crate) fn new(ego: &EgoState) -> Self {
        let mut actors = Self { actors: Vec::new(), ego: body_of(ego), next_id: 1 };
        actors.set_ego(ego);
        actors
    }

    /// Updates the state of the ego vehicle.
    pub(crate) fn set_ego(&mut self, ego: &EgoState) {
        self.ego = body_of(ego);
    }

    /// Returns all actors except the ego vehicle.
    pub(crate) fn others(&self) -> &[ActorState] {
        &self.actors
    }

    /// Returns all actors, the ego vehicle first with id [`EGO`].
    pub(crate) fn all(&self) -> impl Iterator<Item = &ActorState> {
        std::iter::once(&self.ego).chain(&self.actors)
    }

    /// Adds an actor and returns its id.
    pub(crate) fn spawn(
        &mut self,
        blueprint: &Blueprint,
        pose: Pose,
        z_m: f64,
        speed_mps: f64,
    ) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        self.actors.push(ActorState {
            id,
            kind: blueprint.kind,
            type_id: blueprint.type_id,
            pose,
            z_m,
            speed_mps,
            acceleration_mps2: 0.0,
            yaw_rate_radps: 0.0,
            extent_m: blueprint.extent_m,
        });
        id
    }

    /// Returns the actor `id` if it still exists.
    pub(crate) fn get(&self, id: u32) -> Option<&ActorState> {
        // Ids increase along the list.
        self.actors.binary_search_by_key(&id, |actor| actor.id).ok().map(|idx| &self.actors[idx])
    }

    pub(crate) fn remove(&mut self, id: u32) {
        self.actors.retain(|actor| actor.id != id);
    }

    /// Moves an actor to its pose at the next tick.
    pub(crate) fn move_to(&mut self, id: u32, pose: Pose, z_m: f64, speed_mps: f64) {
        let Ok(idx) = self.actors.binary_search_by_key(&id, |actor| actor.id) else { return };
        let actor = &mut self.actors[idx];
        actor.acceleration_mps2 = (speed_mps - actor.speed_mps) / TICK_S;
        actor.yaw_rate_radps = wrap_angle(pose.yaw_rad - actor.pose.yaw_rad) / TICK_S;
        (actor.pose, actor.z_m, actor.speed_mps) = (pose, z_m, speed_mps);
    }
}

fn body_of(ego: &EgoState) -> ActorState {
    ActorState {
        id: EGO,
        kind: ActorKind::Vehicle,
        type_id: "vehicle.lincoln.mkz_2020",
        pose: ego.pose,
        z_m: ego.z_m,
        speed_mps: ego.speed_mps,
        acceleration_mps2: ego.acceleration_mps2,
        yaw_rate_radps: ego.yaw_rate_radps,
        extent_m: EGO_EXTENT_M,
    }
}
