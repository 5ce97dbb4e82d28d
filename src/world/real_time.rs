//! A world that moves on whether or not it was answered.

use super::{TICK, World};
use crate::scene::{Command, LaneMap, Observation, RoutePlan, WorldState};
use crate::timing::Stopwatch;
use std::sync::Arc;

/// Keeps another world in step with real time: one [`TICK`] of simulation per 50 ms of the host's
/// clock. A command that comes late takes effect late; until then the one before it is held.
pub struct RealTime<W> {
    world: W,
    /// Started when the first observation was given out.
    watch: Option<Stopwatch>,
    /// Ticks of simulation since then.
    ticks: u32,
    held: Command,
    state: WorldState,
    ticks_missed: u64,
}

impl<W: World> RealTime<W> {
    /// Binds `world` to the host's clock, from its first observation on.
    pub fn new(world: W) -> Self {
        let state = world.state().clone();
        Self { world, watch: None, ticks: 0, held: Command::FULL_BRAKE, state, ticks_missed: 0 }
    }

    /// Ticks that went by without an answer.
    pub fn ticks_missed(&self) -> u64 {
        self.ticks_missed
    }

    fn step_once(&mut self, command: &Command) {
        self.world.step(command);
        self.ticks += 1;
        // Contacts of ticks that nobody judged are judged at the next that somebody does.
        let mut collisions = std::mem::take(&mut self.state.collisions);
        self.state.clone_from(self.world.state());
        collisions.append(&mut self.state.collisions);
        self.state.collisions = collisions;
    }
}

impl<W: World> World for RealTime<W> {
    fn observe(&mut self) -> Observation {
        let observation = self.world.observe();
        self.watch.get_or_insert_with(Stopwatch::start);
        observation
    }

    fn step(&mut self, command: &Command) {
        let watch = *self.watch.get_or_insert_with(Stopwatch::start);
        self.state.collisions.clear();
        // The answer to this tick takes effect one tick after its observation.
        while watch.elapsed() >= TICK * (self.ticks + 2) {
            let held = self.held;
            self.step_once(&held);
            self.ticks_missed += 1;
        }
        self.step_once(command);
        self.held = *command;
        watch.sleep_until(TICK * self.ticks);
    }

    fn state(&self) -> &WorldState {
        &self.state
    }

    fn lanes(&self) -> &dyn LaneMap {
        self.world.lanes()
    }

    fn plan(&self) -> &Arc<RoutePlan> {
        self.world.plan()
    }
}
