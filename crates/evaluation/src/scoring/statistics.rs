//! Scores: what a drive is worth, and what its record says.
//!
//! The rules are those of the benchmark's statistics manager, number formats included.

use super::python::{Number, round};
use super::record::{Infractions, Meta, Scored, Scores};
use glam::DVec3;
use std::fmt;

/// What kind of rule was broken.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum InfractionKind {
    /// Hit a person on foot.
    CollisionPedestrian,
    /// Hit a vehicle, bicycles included.
    CollisionVehicle,
    /// Hit something that never moves.
    CollisionLayout,
    /// Crossed a stop line at red.
    RedLight,
    /// Passed a stop sign without a stop.
    StopSign,
    /// Drove beside the lanes or against traffic; one per route.
    OutsideRouteLanes {
        /// Distance driven so, in percent of the distance driven.
        percentage: f64,
    },
    /// Average speed over a twentieth of the route; recorded even when it is high, never penalized.
    MinSpeed,
    /// Did not make way for an emergency vehicle.
    YieldEmergencyVehicle,
    /// A scenario took too long.
    ScenarioTimeout,
    /// Left the route; ends it.
    RouteDeviation,
    /// Stood too long; ends the route.
    VehicleBlocked,
}

impl InfractionKind {
    /// The key of its list in a record.
    pub fn key(self) -> &'static str {
        match self {
            Self::CollisionPedestrian => "collisions_pedestrian",
            Self::CollisionVehicle => "collisions_vehicle",
            Self::CollisionLayout => "collisions_layout",
            Self::RedLight => "red_light",
            Self::StopSign => "stop_infraction",
            Self::OutsideRouteLanes { .. } => "outside_route_lanes",
            Self::MinSpeed => "min_speed_infractions",
            Self::YieldEmergencyVehicle => "yield_emergency_vehicle_infractions",
            Self::ScenarioTimeout => "scenario_timeouts",
            Self::RouteDeviation => "route_dev",
            Self::VehicleBlocked => "vehicle_blocked",
        }
    }

    /// What the driving score is multiplied with.
    pub fn factor(self) -> f64 {
        match self {
            Self::CollisionPedestrian => 0.5,
            Self::CollisionVehicle => 0.6,
            Self::CollisionLayout => 0.65,
            Self::RedLight => 0.7,
            Self::StopSign => 0.8,
            Self::OutsideRouteLanes { percentage } => 1.0 - percentage / 100.0,
            Self::YieldEmergencyVehicle | Self::ScenarioTimeout => 0.7,
            Self::MinSpeed | Self::RouteDeviation | Self::VehicleBlocked => 1.0,
        }
    }

    /// The list of its messages.
    fn list(self, infractions: &mut Infractions) -> &mut Vec<String> {
        match self {
            Self::CollisionPedestrian => &mut infractions.collisions_pedestrian,
            Self::CollisionVehicle => &mut infractions.collisions_vehicle,
            Self::CollisionLayout => &mut infractions.collisions_layout,
            Self::RedLight => &mut infractions.red_light,
            Self::StopSign => &mut infractions.stop_infraction,
            Self::OutsideRouteLanes { .. } => &mut infractions.outside_route_lanes,
            Self::MinSpeed => &mut infractions.min_speed_infractions,
            Self::YieldEmergencyVehicle => &mut infractions.yield_emergency_vehicle_infractions,
            Self::ScenarioTimeout => &mut infractions.scenario_timeouts,
            Self::RouteDeviation => &mut infractions.route_dev,
            Self::VehicleBlocked => &mut infractions.vehicle_blocked,
        }
    }

    /// What it says about why the route failed, if it ends routes.
    fn failure(self) -> Option<&'static str> {
        match self {
            Self::RouteDeviation => Some("Agent deviated from the route"),
            Self::VehicleBlocked => Some("Agent got blocked"),
            _ => None,
        }
    }
}

/// A recorded violation.
#[derive(Clone, PartialEq, Debug)]
pub struct Infraction {
    /// Which rule.
    pub kind: InfractionKind,
    /// The benchmark's words for it, as the record prints them.
    pub message: String,
    /// The tick it was recorded at, from 1; `None` if it was recorded when the route was closed.
    pub tick: Option<u64>,
}

/// Product of the factors of `infractions`, in their order.
pub fn infraction_penalty(infractions: &[Infraction]) -> f64 {
    infractions.iter().map(|infraction| infraction.kind.factor()).product()
}

/// Route completion (0 to 100) times infraction penalty, at least 0, unrounded.
pub fn driving_score(route_completion: f64, infractions: &[Infraction]) -> f64 {
    (route_completion * infraction_penalty(infractions)).max(0.0)
}

/// Everything that a record is computed from.
#[derive(Clone, PartialEq, Debug)]
pub struct RouteResult {
    /// Length of the dense route, meters; `None` if the route could not be loaded.
    pub route_length_m: Option<f64>,
    /// Route completion, percent; `None` if it was never judged.
    pub completion: Option<Number>,
    /// Violations in the order of their criteria.
    pub infractions: Vec<Infraction>,
    /// Whether the route took longer than its route timeout.
    pub timed_out: bool,
    /// Why the loop ended the route, if no criterion did.
    pub failure: Option<Failure>,
    /// Simulation time driven, seconds.
    pub duration_game_s: f64,
    /// Wall time that took, seconds.
    pub duration_system_s: f64,
}

/// Why a route ended without a criterion asking for it, in the benchmark's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// More ticks than the benchmark allows.
    TickCap,
    /// The driver failed.
    AgentCrashed,
    /// The driver could not be built.
    AgentSetUp,
    /// The driver asked for sensors that are not allowed.
    SensorsInvalid,
    /// The world failed.
    SimulationCrashed,
    /// The drive took longer than the user allowed. Ours: no official tool has such a limit.
    WallTimeLimit,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::TickCap,
        Self::AgentCrashed,
        Self::AgentSetUp,
        Self::SensorsInvalid,
        Self::SimulationCrashed,
        Self::WallTimeLimit,
    ];
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TickCap => "TickRuntime",
            Self::AgentCrashed => "Agent crashed",
            Self::AgentSetUp => "Agent couldn't be set up",
            Self::SensorsInvalid => "Agent's sensors were invalid",
            Self::SimulationCrashed => "Simulation crashed",
            Self::WallTimeLimit => "Wall-time limit",
        })
    }
}

/// What a drive comes to.
pub fn score(result: &RouteResult) -> Scored {
    score_again(result, &[])
}

/// As [`score`], of a drive that was scored before, as a live view does. All lists are made anew but
/// `route_timeout`, which grows from what it was: so does the official one.
pub fn score_again(result: &RouteResult, route_timeouts: &[String]) -> Scored {
    let mut infractions =
        Infractions { route_timeout: route_timeouts.to_vec(), ..Infractions::default() };
    let mut failure = result.failure.map(|failure| failure.to_string());
    if result.timed_out {
        infractions.route_timeout.push("Route timeout.".to_owned());
        failure = Some("Agent timed out".to_owned());
    }
    for infraction in &result.infractions {
        infraction.kind.list(&mut infractions).push(infraction.message.clone());
        if let Some(words) = infraction.kind.failure() {
            failure = Some(words.to_owned());
        }
    }
    let completion = result.completion.unwrap_or(Number::Float(0.0));
    let status = if completion.value() >= 100.0 {
        String::from(if infractions.count() == 0 { "Perfect" } else { "Completed" })
    } else {
        failure.map_or("Failed".to_owned(), |why| format!("Failed - {why}"))
    };
    let length = result.route_length_m;
    Scored {
        status,
        infractions,
        scores: Scores {
            score_route: completion.rounded(6),
            score_penalty: round(infraction_penalty(&result.infractions), 6),
            score_composed: round(driving_score(completion.value(), &result.infractions), 6),
        },
        meta: Meta {
            route_length: length.map_or(Number::Int(0), |m| Number::Float(round(m, 3))),
            duration_game: round(result.duration_game_s, 3),
            duration_system: round(result.duration_system_s, 3),
        },
    }
}

/// Length of the line through `points`, meters.
pub fn polyline_length_m(points: impl IntoIterator<Item = DVec3>) -> f64 {
    let mut length = 0.0;
    let mut points = points.into_iter();
    let Some(mut last) = points.next() else { return length };
    for point in points {
        length += last.distance(point);
        last = point;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn infraction(kind: InfractionKind) -> Infraction {
        Infraction { kind, message: String::new(), tick: None }
    }

    fn any_kind_but_lanes() -> impl Strategy<Value = InfractionKind> {
        prop::sample::select(vec![
            InfractionKind::CollisionPedestrian,
            InfractionKind::CollisionVehicle,
            InfractionKind::CollisionLayout,
            InfractionKind::RedLight,
            InfractionKind::StopSign,
            InfractionKind::MinSpeed,
            InfractionKind::YieldEmergencyVehicle,
            InfractionKind::ScenarioTimeout,
            InfractionKind::RouteDeviation,
            InfractionKind::VehicleBlocked,
        ])
    }

    proptest! {
        /// Lane departures may exceed 100 % and make the penalty negative; there is at most one per
        /// route, so the clamp at 0 keeps the score from rising.
        #[test]
        fn an_infraction_never_raises_the_score(
            completion in 0.0..=100.0,
            kinds in prop::collection::vec(any_kind_but_lanes(), 0..12),
            lanes in prop::option::of(0.0..300.0),
            added in any_kind_but_lanes(),
            added_lanes in 0.0..300.0,
        ) {
            let mut infractions: Vec<_> = kinds.into_iter().map(infraction).collect();
            let without_lanes = driving_score(completion, &infractions);
            let one = infraction(InfractionKind::OutsideRouteLanes { percentage: added_lanes });
            infractions.push(one);
            prop_assert!(driving_score(completion, &infractions) <= without_lanes);
            infractions.pop();
            if let Some(percentage) = lanes {
                infractions.push(infraction(InfractionKind::OutsideRouteLanes { percentage }));
            }
            let before = driving_score(completion, &infractions);
            infractions.push(infraction(added));
            prop_assert!(driving_score(completion, &infractions) <= before);
        }
    }

    #[test]
    fn factors_multiply() {
        let both = [
            infraction(InfractionKind::CollisionVehicle),
            infraction(InfractionKind::OutsideRouteLanes { percentage: 25.0 }),
        ];
        assert_eq!(driving_score(80.0, &both), 80.0 * (0.6 * 0.75));
        assert_eq!(driving_score(80.0, &[]), 80.0);
    }
}
