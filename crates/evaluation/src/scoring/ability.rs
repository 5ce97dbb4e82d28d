//! Multi-ability score: success rates by the driving skills that routes require.

use super::merge::FoundRecord;
use super::rule::Rule;
use glam::DVec3;
use tandem_scene::{Route, RouteId, RoutePlan};

/// Driving skill that a scenario type requires. A type may require several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ability {
    Overtaking,
    Merging,
    EmergencyBrake,
    GiveWay,
    TrafficSigns,
}

impl Ability {
    /// All abilities, in the order of the official file.
    pub const ALL: [Self; 5] =
        [Self::Overtaking, Self::Merging, Self::EmergencyBrake, Self::GiveWay, Self::TrafficSigns];

    /// Returns the key in the official file.
    pub fn key(self) -> &'static str {
        match self {
            Self::Overtaking => "Overtaking",
            Self::Merging => "Merging",
            Self::EmergencyBrake => "Emergency_Brake",
            Self::GiveWay => "Give_Way",
            Self::TrafficSigns => "Traffic_Signs",
        }
    }

    /// Returns the scenario types that require this ability, sorted.
    pub fn scenario_types(self) -> &'static [&'static str] {
        match self {
            Self::Overtaking => &[
                "Accident",
                "AccidentTwoWays",
                "ConstructionObstacle",
                "ConstructionObstacleTwoWays",
                "HazardAtSideLane",
                "HazardAtSideLaneTwoWays",
                "ParkedObstacle",
                "ParkedObstacleTwoWays",
                "VehicleOpensDoorTwoWays",
            ],
            Self::Merging => &[
                "CrossingBicycleFlow",
                "EnterActorFlow",
                "HighwayCutIn",
                "HighwayExit",
                "InterurbanActorFlow",
                "InterurbanAdvancedActorFlow",
                "MergerIntoSlowTraffic",
                "MergerIntoSlowTrafficV2",
                "NonSignalizedJunctionLeftTurn",
                "NonSignalizedJunctionLeftTurnEnterFlow",
                "NonSignalizedJunctionRightTurn",
                "ParkingExit",
                "SequentialLaneChange",
                "SignalizedJunctionLeftTurn",
                "SignalizedJunctionLeftTurnEnterFlow",
                "SignalizedJunctionRightTurn",
            ],
            Self::EmergencyBrake => &[
                "BlockedIntersection",
                "ControlLoss",
                "DynamicObjectCrossing",
                "HardBreakRoute",
                "OppositeVehicleRunningRedLight",
                "OppositeVehicleTakingPriority",
                "ParkingCrossingPedestrian",
                "ParkingCutIn",
                "PedestrianCrossing",
                "StaticCutIn",
                "VehicleTurningRoute",
                "VehicleTurningRoutePedestrian",
            ],
            Self::GiveWay => &["InvadingTurn", "YieldToEmergencyVehicle"],
            Self::TrafficSigns => &[
                "BlockedIntersection",
                "CrossingBicycleFlow",
                "EnterActorFlow",
                "NonSignalizedJunctionLeftTurn",
                "NonSignalizedJunctionLeftTurnEnterFlow",
                "NonSignalizedJunctionRightTurn",
                "OppositeVehicleRunningRedLight",
                "OppositeVehicleTakingPriority",
                "PedestrianCrossing",
                "SignalizedJunctionLeftTurn",
                "SignalizedJunctionLeftTurnEnterFlow",
                "SignalizedJunctionRightTurn",
                "T_Junction",
                "VanillaNonSignalizedTurn",
                "VanillaNonSignalizedTurnEncounterStopsign",
                "VanillaSignalizedTurnEncounterGreenLight",
                "VanillaSignalizedTurnEncounterRedLight",
                "VehicleTurningRoute",
                "VehicleTurningRoutePedestrian",
            ],
        }
    }

    pub(crate) fn is_required_by(self, scenario_type: &str) -> bool {
        self.scenario_types().contains(&scenario_type)
    }
}

/// Rule for counting traffic-sign routes, named by the release of the official tool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SignRule {
    /// Release 0.0.3: every route counts twice, once by success and once by obeying its signs. All
    /// published tables follow this rule, that of release 0.0.4 included.
    Release003,
    /// Release 0.0.4: a route counts once, by success or by obeying its signs.
    #[default]
    Release004,
}

/// Point of the dense route at which the first junction begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FirstJunction {
    /// Number of the first point in a junction, from 1; `None` without a junction.
    pub point: Option<usize>,
    /// Number of points of the dense route.
    pub points: usize,
}

/// Consecutive key points farther apart than this are assumed to have a
/// junction between them, meters.
const JUNCTION_GAP_M: f64 = 12.0;

impl FirstJunction {
    /// Estimates the first junction from key points where no map is available: one dense point per
    /// meter, and a junction wherever key points are more than 12 m apart, as in official routes.
    pub fn of_key_points(key_points: &[DVec3]) -> Self {
        let mut points = 0_usize;
        let mut point = None;
        for pair in key_points.windows(2) {
            let gap_m = pair[0].distance(pair[1]);
            if point.is_none() && gap_m > JUNCTION_GAP_M {
                point = Some(points.saturating_add(1));
            }
            // Saturates, because the distance of key points is not bounded.
            points = points.saturating_add((gap_m.floor() as usize).saturating_add(1));
        }
        Self { point, points }
    }

    /// Finds the first junction of a dense route on the lanes of a map, as the official tool does.
    pub fn of_plan(plan: &RoutePlan) -> Self {
        let first = plan.points.iter().position(|point| point.is_junction);
        Self { point: first.map(|idx| idx + 1), points: plan.points.len() }
    }
}

/// Number of points beyond the junction entry that must have been driven for signs to count.
const POINTS_BEYOND_SIGN: usize = 8;

/// Success ratio of each ability in one run.
#[derive(Clone, PartialEq, Debug)]
pub struct Abilities {
    /// By ability, 0 to 1, in the order of [`Ability::ALL`]; `None` for a group without routes,
    /// which only the corrected rule permits.
    pub ratios: [Option<f64>; 5],
    /// Number of routes in each ratio.
    pub routes: [usize; 5],
    /// Mean of the available ratios; `None` without any ratio.
    pub mean: Option<f64>,
    /// Scenario type and id of every route without a record. The official file calls them crashed.
    pub missing: Vec<(String, RouteId)>,
}

/// Error returned when abilities can't be computed by the official rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AbilityError {
    #[error(
        "no route of group {group} has a record, and the official rule divides by their number: \
         finish one, or use the corrected rule"
    )]
    EmptyGroup { group: &'static str },
    #[error(
        "route {route_id} requires obeying signs, but no junction was found on it, which the \
         official rule needs: use the corrected rule"
    )]
    NoJunction { route_id: RouteId },
}

/// Computes abilities over `routes`. The first record of each route counts. The type of a route's
/// first scenario determines which abilities it requires.
///
/// # Errors
/// Where the official tool fails, unless the rule is [`Rule::Corrected`].
pub fn abilities(
    routes: &[Route],
    records: &[FoundRecord],
    first_junction: &dyn Fn(&Route) -> FirstJunction,
    signs: SignRule,
    rule: Rule,
) -> Result<Abilities, AbilityError> {
    // By town, because the official tool reads map after map: this is the order of `missing`.
    let mut routes: Vec<&Route> = routes.iter().collect();
    routes.sort_by(|left, right| left.town.cmp(&right.town));
    let mut missing = Vec::new();
    // Per ability: points and divisor.
    let mut counts = [(0.0, 0.0); 5];
    let mut routes_of = [0; 5];
    for route in routes {
        let kind = route.scenarios.first().map_or("", |scenario| scenario.kind.as_str());
        let id = route.id.as_str();
        let record = records.iter().find(|record| record.route() == id);
        if record.is_none() {
            missing.push((kind.to_owned(), route.id.clone()));
            if rule == Rule::Official {
                continue;
            }
        }
        for (idx, ability) in Ability::ALL.into_iter().enumerate() {
            if !ability.is_required_by(kind) {
                continue;
            }
            routes_of[idx] += 1;
            let is_success = record.is_some_and(|record| record.is_success);
            let obeys = || match record {
                Some(record) => obeys_signs(route, record, first_junction(route), rule),
                None => Ok(false),
            };
            let (points, weight) = if ability != Ability::TrafficSigns {
                (usize::from(is_success), 1)
            } else if signs == SignRule::Release003 {
                (usize::from(is_success) + usize::from(obeys()?), 2)
            } else {
                (usize::from(is_success || obeys()?), 1)
            };
            counts[idx].0 += points as f64;
            counts[idx].1 += f64::from(weight);
        }
    }
    let mut ratios = [None; 5];
    for (idx, (points, weight)) in counts.into_iter().enumerate() {
        if weight > 0.0 {
            ratios[idx] = Some(points / weight);
        } else if rule == Rule::Official {
            return Err(AbilityError::EmptyGroup { group: Ability::ALL[idx].key() });
        }
    }
    let known: Vec<f64> = ratios.iter().flatten().copied().collect();
    let mean = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
    Ok(Abilities { ratios, routes: routes_of, mean, missing })
}

/// True if a route was driven past its first junction without running a red light or a stop sign.
fn obeys_signs(
    route: &Route,
    record: &FoundRecord,
    junction: FirstJunction,
    rule: Rule,
) -> Result<bool, AbilityError> {
    let point = match junction.point {
        Some(point) => point,
        None if rule == Rule::Corrected => junction.points,
        None => return Err(AbilityError::NoJunction { route_id: route.id.clone() }),
    };
    let needed = (point + POINTS_BEYOND_SIGN) as f64 / junction.points as f64;
    let is_past = record.score_route.unwrap_or(0.0) / 100.0 > needed;
    let has_run = |key| !record.infractions(key).is_empty();
    Ok(is_past && !has_run("stop_infraction") && !has_run("red_light"))
}
