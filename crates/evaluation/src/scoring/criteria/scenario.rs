//! Criteria of scenarios, evaluated from the tick at which a scenario starts to its end.

use super::collision::Collisions;
use crate::scoring::statistics::InfractionKind;
use tandem_scene::{ScenarioState, WorldState};

/// Criteria of the running scenarios.
#[derive(Default)]
pub(super) struct ScenarioRules {
    running: Vec<Running>,
}

/// Criteria of one running scenario.
struct Running {
    id: u32,
    collisions: Collisions,
    is_in_the_way: bool,
    is_timed_out: bool,
}

impl ScenarioRules {
    /// Evaluates this tick. Calls `report` for each violation.
    pub(super) fn tick(
        &mut self,
        state: &WorldState,
        report: &mut impl FnMut(InfractionKind, String),
    ) {
        let is_over = |rules: &Running| state.scenarios.iter().all(|now| now.id != rules.id);
        for over in self.running.extract_if(.., |rules| is_over(rules)) {
            over.close(report);
        }
        for scenario in &state.scenarios {
            let known = self.running.iter().position(|rules| rules.id == scenario.id);
            let idx = known.unwrap_or_else(|| {
                self.running.push(Running::new(scenario.id));
                self.running.len() - 1
            });
            self.running[idx].tick(scenario, state, report);
        }
    }

    /// Ends all scenarios, as at the end of the route. A second call does nothing.
    pub(super) fn close(&mut self, report: &mut impl FnMut(InfractionKind, String)) {
        for over in self.running.drain(..) {
            over.close(report);
        }
    }
}

impl Running {
    fn new(id: u32) -> Self {
        Self { id, collisions: Collisions::default(), is_in_the_way: false, is_timed_out: false }
    }

    fn tick(
        &mut self,
        scenario: &ScenarioState,
        state: &WorldState,
        report: &mut impl FnMut(InfractionKind, String),
    ) {
        if scenario.judges_collisions {
            self.collisions.tick(state, &mut *report);
        }
        if let Some(vehicle) = scenario.emergency_vehicle {
            let to_ego = state.ego.pose.position - vehicle.position;
            self.is_in_the_way = vehicle.forward().dot(to_ego) > 0.0;
        }
        self.is_timed_out |= scenario.is_timed_out;
    }

    /// Ends the scenario. Yielding and timeouts are judged by the state at its end.
    fn close(self, report: &mut impl FnMut(InfractionKind, String)) {
        if self.is_in_the_way {
            let message = "Agent failed to yield to an emergency vehicle".to_owned();
            report(InfractionKind::YieldEmergencyVehicle, message);
        }
        if self.is_timed_out {
            report(InfractionKind::ScenarioTimeout, "Agent timed out a scenario".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_scene::{Allowances, Collision, EgoState, Pose};

    fn state(scenarios: Vec<ScenarioState>, collisions: Vec<Collision>) -> WorldState {
        WorldState {
            time_s: 1.0,
            ego: EgoState {
                pose: Pose::new(10.0, 0.0, 0.0),
                z_m: 0.0,
                speed_mps: 5.0,
                yaw_rate_radps: 0.0,
                acceleration_mps2: 0.0,
                extent_m: [2.4, 0.9, 0.7],
            },
            actors: Vec::new(),
            collisions,
            background_speeds_mps: Vec::new(),
            speed_limit_kmh: 50.0,
            traffic_lights: Vec::new(),
            stop_signs: Vec::new(),
            scenarios,
            allowances: Allowances::default(),
        }
    }

    fn scenario(emergency_x_m: Option<f64>) -> ScenarioState {
        ScenarioState {
            id: 1,
            is_timed_out: false,
            emergency_vehicle: emergency_x_m.map(|x| Pose::new(x, 0.0, 0.0)),
            judges_collisions: emergency_x_m.is_none(),
        }
    }

    #[test]
    fn yielding_is_judged_once_when_the_scenario_ends() {
        for (last_x_m, expected) in [(0.0, 1), (20.0, 0)] {
            let mut rules = ScenarioRules::default();
            let mut found = Vec::new();
            let mut report = |kind, _| found.push(kind);
            rules.tick(&state(vec![scenario(Some(5.0))], Vec::new()), &mut report);
            rules.tick(&state(vec![scenario(Some(last_x_m))], Vec::new()), &mut report);
            rules.tick(&state(Vec::new(), Vec::new()), &mut report);
            rules.close(&mut report);
            assert_eq!(found, vec![InfractionKind::YieldEmergencyVehicle; expected]);
        }
    }

    #[test]
    fn collisions_count_only_while_a_scenario_judges_them() {
        let contact = Collision { other_id: 3, type_id: "walker.pedestrian.0001" };
        let mut rules = ScenarioRules::default();
        let mut found = Vec::new();
        let mut report = |kind, _| found.push(kind);
        rules.tick(&state(vec![scenario(Some(0.0))], vec![contact]), &mut report);
        rules.tick(&state(vec![scenario(None)], vec![contact]), &mut report);
        rules.tick(&state(Vec::new(), vec![contact]), &mut report);
        assert_eq!(
            found,
            [InfractionKind::CollisionPedestrian, InfractionKind::YieldEmergencyVehicle]
        );
    }
}
