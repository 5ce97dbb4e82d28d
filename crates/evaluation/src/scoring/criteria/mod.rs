//! Criteria of the benchmark, one file each, and the judge that evaluates
//! them in the official order.
//!
//! If a world reports no lights, signs or scenarios, their criteria find no violations.

mod blocked;
mod collision;
mod completion;
mod deviation;
mod minimum_speed;
mod outside_lanes;
mod progress;
mod red_light;
mod scenario;
mod stop_sign;
mod timeout;

use super::python::{Number, float_text, round};
use super::statistics::{Infraction, InfractionKind, polyline_length_m};
use blocked::Blocked;
use collision::Collisions;
use completion::Completion;
use deviation::Deviation;
use glam::DVec3;
use minimum_speed::MinimumSpeed;
use outside_lanes::OutsideLanes;
use progress::RouteLine;
use red_light::RedLights;
use scenario::ScenarioRules;
use stop_sign::StopSigns;
use tandem_scene::{Allowances, LaneMap, RoutePlan, WorldState};
use timeout::Timeout;

/// Maximum number of ticks per route in the benchmark (200 s at 20 Hz);
/// the next one ends the route.
pub const TICK_CAP: u64 = 4000;

/// Result of judging one tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TickVerdict {
    Continue,
    Ended(Ending),
}

/// Reason why the judge ended a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The end of the route was reached.
    Completed,
    /// The vehicle left the route.
    Deviated,
    /// The vehicle stood still for too long.
    Blocked,
    /// The route timeout was exceeded.
    TimedOut,
    /// The limit of ticks, [`TICK_CAP`] by default, was exceeded.
    TickCap,
}

/// Final result of judging one drive.
#[derive(Clone, PartialEq, Debug)]
pub struct Judgment {
    /// Percent of the route driven; the integer 100 if the end was reached, `None` without a tick.
    pub completion: Option<Number>,
    /// In the order of the criteria.
    pub infractions: Vec<Infraction>,
    /// True if the route timeout was exceeded.
    pub timed_out: bool,
    /// Length of the dense route, meters.
    pub route_length_m: f64,
}

/// Evaluates all criteria for one drive along one route, tick by tick.
pub struct RouteJudge {
    line: RouteLine,
    ticks: u64,
    tick_cap: u64,
    ending: Option<Ending>,
    timed_out: bool,
    allowances: Allowances,

    completion: Completion,
    outside_lanes: OutsideLanes,
    collisions: Collisions,
    red_lights: RedLights,
    stop_signs: StopSigns,
    minimum_speed: MinimumSpeed,
    deviation: Deviation,
    blocked: Blocked,
    scenario_rules: ScenarioRules,
    timeout: Timeout,

    // One list per criterion, so that the judgment lists them in the order of the criteria.
    excursion: Option<Infraction>,
    contacts: Vec<Infraction>,
    lights_run: Vec<Infraction>,
    signs_run: Vec<Infraction>,
    speeds: Vec<Infraction>,
    lost: Option<Infraction>,
    stuck: Option<Infraction>,
    of_scenarios: Vec<Infraction>,
}

impl RouteJudge {
    /// Creates a judge for one drive along `plan`.
    ///
    /// # Panics
    /// If the plan contains no points.
    pub fn new(plan: &RoutePlan) -> Self {
        Self {
            line: RouteLine::new(plan),
            ticks: 0,
            tick_cap: TICK_CAP,
            ending: None,
            timed_out: false,
            allowances: Allowances::default(),
            completion: Completion::new(),
            outside_lanes: OutsideLanes::new(),
            collisions: Collisions::default(),
            red_lights: RedLights::default(),
            stop_signs: StopSigns::default(),
            minimum_speed: MinimumSpeed::default(),
            deviation: Deviation::default(),
            blocked: Blocked::new(),
            scenario_rules: ScenarioRules::default(),
            timeout: Timeout::new(),
            excursion: None,
            contacts: Vec::new(),
            lights_run: Vec::new(),
            signs_run: Vec::new(),
            speeds: Vec::new(),
            lost: None,
            stuck: None,
            of_scenarios: Vec::new(),
        }
    }

    /// Replaces the limit [`TICK_CAP`].
    pub fn with_tick_cap(mut self, tick_cap: u64) -> Self {
        self.tick_cap = tick_cap;
        self
    }

    /// Judges one tick. Every criterion is evaluated even if an earlier one ends the route.
    ///
    /// # Panics
    /// If an earlier tick ended the route.
    pub fn tick(&mut self, state: &WorldState, lanes: &dyn LaneMap) -> TickVerdict {
        assert!(self.ending.is_none(), "tick {} already ended the route", self.ticks);
        self.ticks += 1;
        if self.ticks > self.tick_cap {
            // The official harness stops before it evaluates the criteria at this tick.
            self.ending = Some(Ending::TickCap);
            return TickVerdict::Ended(Ending::TickCap);
        }
        self.ending = self.evaluate_criteria(state, lanes);
        match self.ending {
            None => TickVerdict::Continue,
            Some(ending) => {
                // The official behavior tree terminates running criteria when it ends. `close`
                // terminates them a second time.
                self.close_criteria(Some(self.ticks));
                TickVerdict::Ended(ending)
            }
        }
    }

    fn evaluate_criteria(&mut self, state: &WorldState, lanes: &dyn LaneMap) -> Option<Ending> {
        let tick = Some(self.ticks);
        let line = &self.line;
        let ego = state.ego.location();

        let Allowances { oncoming_lane, standing } = state.allowances;
        if self.allowances.oncoming_lane != oncoming_lane {
            if oncoming_lane {
                self.outside_lanes.permit_oncoming_lane();
            } else {
                self.outside_lanes.forbid_oncoming_lane();
            }
        }
        if self.allowances.standing != standing {
            if standing { self.blocked.suspend() } else { self.blocked.resume() }
        }
        self.allowances = state.allowances;

        let is_completed = self.completion.tick(line, ego);
        if let Some(excursion) = self.outside_lanes.tick(line, &state.ego, lanes) {
            let kind = InfractionKind::OutsideRouteLanes { percentage: excursion.percentage };
            let tick = self.excursion.as_ref().map_or(tick, |first| first.tick);
            self.excursion = Some(Infraction { kind, message: excursion.message, tick });
        }
        self.collisions.tick(state, |kind, message| {
            self.contacts.push(Infraction { kind, message, tick });
        });
        self.red_lights.tick(state, lanes, |message| {
            self.lights_run.push(Infraction { kind: InfractionKind::RedLight, message, tick });
        });
        if let Some(message) = self.stop_signs.tick(state, lanes) {
            self.signs_run.push(Infraction { kind: InfractionKind::StopSign, message, tick });
        }
        if let Some(message) = self.minimum_speed.tick(line, state) {
            self.speeds.push(Infraction { kind: InfractionKind::MinSpeed, message, tick });
        }
        if let Some(message) = self.deviation.tick(line, ego) {
            let kind = InfractionKind::RouteDeviation;
            self.lost = Some(Infraction { kind, message, tick });
        }
        if let Some(message) = self.blocked.tick(state) {
            let kind = InfractionKind::VehicleBlocked;
            self.stuck = Some(Infraction { kind, message, tick });
        }
        self.scenario_rules.tick(state, &mut |kind, message| {
            self.of_scenarios.push(Infraction { kind, message, tick });
        });
        self.timed_out = self.timeout.tick(line, state);

        if is_completed {
            Some(Ending::Completed)
        } else if self.lost.is_some() {
            Some(Ending::Deviated)
        } else if self.stuck.is_some() {
            Some(Ending::Blocked)
        } else if self.timed_out {
            Some(Ending::TimedOut)
        } else {
            None
        }
    }

    fn close_criteria(&mut self, tick: Option<u64>) {
        if let Some(message) = self.minimum_speed.close(&self.line) {
            self.speeds.push(Infraction { kind: InfractionKind::MinSpeed, message, tick });
        }
        self.scenario_rules.close(&mut |kind, message| {
            self.of_scenarios.push(Infraction { kind, message, tick });
        });
    }

    /// Returns the current route completion, percent.
    pub fn completion(&self) -> Number {
        self.completion.percent()
    }

    /// Returns the current route timeout, seconds.
    pub fn time_limit_s(&self) -> f64 {
        self.timeout.limit_s()
    }

    /// Closes the route, whether or not a criterion has ended it, and returns the final result.
    pub fn close(mut self) -> Judgment {
        // The official harness terminates every criterion once more, so records of routes that a
        // criterion ended contain the last minimum-speed value twice.
        self.close_criteria(None);
        let infractions = self
            .excursion
            .into_iter()
            .chain(self.contacts)
            .chain(self.lights_run)
            .chain(self.signs_run)
            .chain(self.speeds)
            .chain(self.lost)
            .chain(self.stuck)
            .chain(self.of_scenarios)
            .collect();
        Judgment {
            completion: (self.ticks > 0).then(|| self.completion.percent()),
            infractions,
            timed_out: self.timed_out,
            route_length_m: polyline_length_m((0..self.line.len()).map(|i| self.line.point(i))),
        }
    }
}

/// Formats a location as the benchmark's messages do.
fn location_text(location: DVec3) -> String {
    let [x, y, z] = location.to_array().map(|meters| float_text(round(meters, 3)));
    format!("(x={x}, y={y}, z={z})")
}
