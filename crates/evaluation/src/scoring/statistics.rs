//! Scores of a drive and the fields of its record.
//!
//! Rules and number formats are those of the benchmark's statistics manager.

use super::python::{Number, round};
use super::record::{Infractions, MIN_SPEED_KEY, Meta, Scored, Scores};
use glam::DVec3;
use std::fmt;

/// Kind of infraction: the rule that was violated.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum InfractionKind {
    CollisionPedestrian,
    /// Collision with a vehicle, bicycles included.
    CollisionVehicle,
    /// Collision with a static object.
    CollisionLayout,
    /// Crossed the stop line at a red light.
    RedLight,
    /// Passed a stop sign without stopping.
    StopSign,
    /// Drove outside the lanes or against traffic; at most one per route.
    OutsideRouteLanes {
        /// Share of the distance driven, percent.
        percentage: f64,
    },
    /// Average speed over a twentieth of the route. Recorded at any speed, never penalized.
    MinSpeed,
    YieldEmergencyVehicle,
    ScenarioTimeout,
    /// Left the route, which ends it.
    RouteDeviation,
    /// Stood still for too long, which ends the route.
    VehicleBlocked,
}

impl InfractionKind {
    /// Returns the key of the list of this kind in a record.
    pub fn key(self) -> &'static str {
        match self {
            Self::CollisionPedestrian => "collisions_pedestrian",
            Self::CollisionVehicle => "collisions_vehicle",
            Self::CollisionLayout => "collisions_layout",
            Self::RedLight => "red_light",
            Self::StopSign => "stop_infraction",
            Self::OutsideRouteLanes { .. } => "outside_route_lanes",
            Self::MinSpeed => MIN_SPEED_KEY,
            Self::YieldEmergencyVehicle => "yield_emergency_vehicle_infractions",
            Self::ScenarioTimeout => "scenario_timeouts",
            Self::RouteDeviation => "route_dev",
            Self::VehicleBlocked => "vehicle_blocked",
        }
    }

    /// Returns the factor of the infraction penalty.
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

    /// Returns the list of messages of this kind.
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

    /// Returns the failure text in the status; `None` for kinds that do not end a route.
    fn failure(self) -> Option<&'static str> {
        match self {
            Self::RouteDeviation => Some("Agent deviated from the route"),
            Self::VehicleBlocked => Some("Agent got blocked"),
            _ => None,
        }
    }
}

/// Recorded violation of a rule.
#[derive(Clone, PartialEq, Debug)]
pub struct Infraction {
    pub kind: InfractionKind,
    /// Message text of the benchmark, as in the record.
    pub message: String,
    /// Tick of the violation, from 1; `None` if it was recorded when the route was closed.
    pub tick: Option<u64>,
}

/// Returns the product of the factors of `infractions`, in their order.
pub fn infraction_penalty(infractions: &[Infraction]) -> f64 {
    infractions.iter().map(|infraction| infraction.kind.factor()).product()
}

/// Returns route completion (0 to 100) × infraction penalty, at least 0, unrounded.
pub fn driving_score(route_completion: f64, infractions: &[Infraction]) -> f64 {
    (route_completion * infraction_penalty(infractions)).max(0.0)
}

/// Input from which a record is computed.
#[derive(Clone, PartialEq, Debug)]
pub struct RouteResult {
    /// Length of the dense route, meters; `None` if the route could not be loaded.
    pub route_length_m: Option<f64>,
    /// Route completion, percent; `None` if no tick was judged.
    pub completion: Option<Number>,
    /// In the order of the criteria.
    pub infractions: Vec<Infraction>,
    /// True if the route exceeded its route timeout.
    pub timed_out: bool,
    /// Reason why the loop ended the route; `None` if a criterion ended it.
    pub failure: Option<Failure>,
    /// Simulation time driven, seconds.
    pub duration_game_s: f64,
    /// Wall time of the drive, seconds.
    pub duration_system_s: f64,
}

/// Reason why a route ended without a criterion; displayed with the benchmark's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// More ticks than the benchmark allows.
    TickCap,
    /// The driver returned an error.
    AgentCrashed,
    /// The driver could not be built.
    AgentSetUp,
    /// The driver requested sensors that are not allowed.
    SensorsInvalid,
    /// The world or its process crashed.
    SimulationCrashed,
    /// The drive exceeded the user's wall-time limit. Tandem only: no
    /// official tool has such a limit.
    WallTimeLimit,
}

impl Failure {
    /// All variants in declaration order.
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

/// Computes the outcome part of a drive's record.
pub fn score(result: &RouteResult) -> Scored {
    rescore(result, &[])
}

/// Computes the outcome part again for a drive that was scored before, as a live view
/// does. All lists are rebuilt except `route_timeout`, which is appended to
/// `route_timeouts`, as in the official tool.
pub fn rescore(result: &RouteResult, route_timeouts: &[String]) -> Scored {
    let mut infractions =
        Infractions { route_timeout: route_timeouts.to_vec(), ..Infractions::default() };
    let mut failure = result.failure.map(|failure| failure.to_string());
    if result.timed_out {
        infractions.route_timeout.push("Route timeout.".to_owned());
        failure = Some("Agent timed out".to_owned());
    }
    for infraction in &result.infractions {
        infraction.kind.list(&mut infractions).push(infraction.message.clone());
        if let Some(text) = infraction.kind.failure() {
            failure = Some(text.to_owned());
        }
    }
    let completion = result.completion.unwrap_or(Number::Float(0.0));
    let status = if completion.value() >= 100.0 {
        String::from(if infractions.count() == 0 { "Perfect" } else { "Completed" })
    } else {
        failure.map_or("Failed".to_owned(), |reason| format!("Failed - {reason}"))
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

/// Returns the length of the line through `points`, meters.
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
        /// Lane departures may exceed 100 % and make the penalty negative. There is at most one per
        /// route, so the clamp at 0 keeps the score from rising.
        #[test]
        fn infraction_never_raises_the_score(
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
