//! A world tied to real time: it advances even if no command arrives.

use std::sync::Arc;
use tandem_scene::{Command, LaneMap, LaneStrip, Observation, RoutePlan, TICK, World, WorldState};
use tandem_timing::Stopwatch;

/// Runs another world in real time: one [`TICK`] of simulation per 50 ms of host time. A late
/// command takes effect late; until then the previous command is held.
pub struct RealTime<W> {
    world: W,
    /// Started at the first observation.
    watch: Option<Stopwatch>,
    /// Number of ticks since the first observation.
    ticks: u32,
    held: Command,
    state: WorldState,
    ticks_missed: u64,
}

impl<W: World> RealTime<W> {
    /// Wraps `world`; the clock starts at its first observation.
    pub fn new(world: W) -> Self {
        let state = world.state().clone();
        Self { world, watch: None, ticks: 0, held: Command::FULL_BRAKE, state, ticks_missed: 0 }
    }

    fn step_once(&mut self, command: &Command) {
        self.world.step(command);
        self.ticks += 1;
        // Collisions of all ticks in one step are collected, so that the next
        // scoring sees each of them.
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
        // A command takes effect one tick after its observation.
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

    fn ticks_missed(&self) -> u64 {
        self.ticks_missed
    }

    fn lanes(&self) -> &dyn LaneMap {
        self.world.lanes()
    }

    fn lane_strips(&self) -> Vec<LaneStrip> {
        self.world.lane_strips()
    }

    fn plan(&self) -> &Arc<RoutePlan> {
        self.world.plan()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddedWorld;
    use glam::DVec3;
    use tandem_scene::{Collision, Pose, Route, SensorSuite};

    /// Embedded world that records every command and reports one collision per step.
    struct CommandRecorder {
        world: EmbeddedWorld,
        state: WorldState,
        commands: Vec<Command>,
    }

    impl World for CommandRecorder {
        fn observe(&mut self) -> Observation {
            self.world.observe()
        }

        fn step(&mut self, command: &Command) {
            self.world.step(command);
            self.commands.push(*command);
            self.state = self.world.state().clone();
            let other_id = self.commands.len() as u32;
            self.state.collisions = vec![Collision { other_id, type_id: "static.test" }];
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

    fn world() -> RealTime<CommandRecorder> {
        let route = Route {
            id: 1.into(),
            town: "Test".into(),
            key_points: (0..50).map(|i| DVec3::new(f64::from(2 * i), 0.0, 0.0)).collect(),
            scenarios: Vec::new(),
            weather: Vec::new(),
        };
        let world = EmbeddedWorld::new(&route, SensorSuite::default(), 1).unwrap();
        let state = world.state().clone();
        assert_eq!(state.ego.pose, Pose::new(0.0, 0.0, 0.0));
        RealTime::new(CommandRecorder { world, state, commands: Vec::new() })
    }

    #[test]
    fn late_command_keeps_held_command_and_all_collisions() {
        let mut world = world();
        let held = Command { throttle: 0.5, ..Command::default() };
        let late = Command { brake: 1.0, ..Command::default() };
        world.observe();
        world.step(&held);
        let driven = world.world.commands.len();
        world.observe();
        // Even on a loaded machine, at least three ticks pass before this command.
        Stopwatch::start().sleep_until(TICK * 4);
        world.step(&late);
        let commands = &world.world.commands[driven..];
        let (last, missed) = commands.split_last().unwrap();
        assert_eq!(*last, late);
        assert!(missed.len() >= 2 && missed.iter().all(|command| *command == held), "{missed:?}");
        assert_eq!(world.state().collisions.len(), commands.len(), "one contact per step");
        assert!(world.ticks_missed() >= missed.len() as u64);
    }
}
