//! All actors, and the ego vehicle as they see it.

use super::catalogue::Model;
use tandem_scene::vehicle::EGO_EXTENT_M;
use tandem_scene::{ActorKind, ActorState, EgoState, Pose, TICK_S, wrap_angle};

/// Our vehicle's number among the others.
pub(crate) const EGO: u32 = 0;

/// All actors. Each belongs to one owner, traffic or a scenario, who moves it.
#[derive(Debug)]
pub(crate) struct Actors {
    actors: Vec<ActorState>,
    ego: ActorState,
    next_id: u32,
}

impl Actors {
    /// The ego vehicle alone.
    pub(crate) fn new(ego: &EgoState) -> Self {
        let mut actors = Self { actors: Vec::new(), ego: body_of(ego), next_id: 1 };
        actors.set_ego(ego);
        actors
    }

    /// Where our vehicle is now.
    pub(crate) fn set_ego(&mut self, ego: &EgoState) {
        self.ego = body_of(ego);
    }

    /// All actors but the ego vehicle.
    pub(crate) fn others(&self) -> &[ActorState] {
        &self.actors
    }

    /// All actors, the ego vehicle first under the number [`EGO`].
    pub(crate) fn all(&self) -> impl Iterator<Item = &ActorState> {
        std::iter::once(&self.ego).chain(&self.actors)
    }

    /// Adds an actor and returns its number.
    pub(crate) fn spawn(&mut self, model: &Model, pose: Pose, z_m: f64, speed_mps: f64) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        self.actors.push(ActorState {
            id,
            kind: model.kind,
            type_id: model.type_id,
            pose,
            z_m,
            speed_mps,
            acceleration_mps2: 0.0,
            yaw_rate_radps: 0.0,
            extent_m: model.extent_m,
        });
        id
    }

    /// The actor with number `id`, if it is still there.
    pub(crate) fn get(&self, id: u32) -> Option<&ActorState> {
        // Numbers go up along the list.
        self.actors.binary_search_by_key(&id, |actor| actor.id).ok().map(|idx| &self.actors[idx])
    }

    /// Removes an actor.
    pub(crate) fn remove(&mut self, id: u32) {
        self.actors.retain(|actor| actor.id != id);
    }

    /// Moves an actor to its pose of the next tick.
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
