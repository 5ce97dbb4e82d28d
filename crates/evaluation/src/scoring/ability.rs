//! Multi-ability: success by what routes demand of a driver.

use super::merge::FoundRecord;
use super::rule::Rule;
use glam::DVec3;
use tandem_scene::{Route, RouteId, RoutePlan};

/// What a route may demand. A scenario type may demand several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ability {
    /// Getting past obstacles.
    Overtaking,
    /// Entering and crossing traffic.
    Merging,
    /// Stopping for what appears suddenly.
    EmergencyBrake,
    /// Making way.
    GiveWay,
    /// Obeying lights and signs.
    TrafficSigns,
}

impl Ability {
    /// All of them, in the order of the official file.
    pub const ALL: [Self; 5] =
        [Self::Overtaking, Self::Merging, Self::EmergencyBrake, Self::GiveWay, Self::TrafficSigns];

    /// The key of the official file.
    pub fn key(self) -> &'static str {
        match self {
            Self::Overtaking => "Overtaking",
            Self::Merging => "Merging",
            Self::EmergencyBrake => "Emergency_Brake",
            Self::GiveWay => "Give_Way",
            Self::TrafficSigns => "Traffic_Signs",
        }
    }

    /// The scenario types that demand it, sorted.
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

    pub(crate) fn is_demanded_by(self, scenario_type: &str) -> bool {
        self.scenario_types().contains(&scenario_type)
    }
}

/// How obeying signs is counted; the release that does it so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SignRule {
    /// 0.0.3: every route counts twice, once by success and once by its signs. Published tables follow
    /// this rule, the one of 0.0.4 too.
    Release003,
    /// 0.0.4: a route counts once, by success or by its signs.
    #[default]
    Release004,
}

/// Where on its dense route a route enters its first junction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FirstJunction {
    /// Number of the first point in a junction, counted from 1; `None` if there is no junction.
    pub point: Option<usize>,
    /// How many points the dense route has.
    pub points: usize,
}

/// Two consecutive key points farther apart than this have a junction between them, meters.
const JUNCTION_GAP_M: f64 = 12.0;

impl FirstJunction {
    /// A reading of key points alone, for want of a map: one point per meter, and junctions wherever
    /// key points are more than 12 m apart, which is how official routes cross them.
    pub fn of_key_points(key_points: &[DVec3]) -> Self {
        let mut points = 0_usize;
        let mut point = None;
        for pair in key_points.windows(2) {
            let gap_m = pair[0].distance(pair[1]);
            if point.is_none() && gap_m > JUNCTION_GAP_M {
                point = Some(points.saturating_add(1));
            }
            // Key points may be as far apart as numbers go.
            points = points.saturating_add((gap_m.floor() as usize).saturating_add(1));
        }
        Self { point, points }
    }

    /// Of a dense route on the lanes of a map, as the official tool finds it.
    pub fn of_plan(plan: &RoutePlan) -> Self {
        let first = plan.points.iter().position(|point| point.is_junction);
        Self { point: first.map(|idx| idx + 1), points: plan.points.len() }
    }
}

/// How many points behind the entry of a junction a route must have come for its signs to count.
const POINTS_BEYOND_SIGN: usize = 8;

/// Abilities of one run.
#[derive(Clone, PartialEq, Debug)]
pub struct Abilities {
    /// By ability, 0 to 1, in the order of [`Ability::ALL`]; `None` for a group without routes, which
    /// only the corrected rule lets pass.
    pub ratios: [Option<f64>; 5],
    /// Routes that each ratio rests on.
    pub routes: [usize; 5],
    /// Mean of the ratios there are; `None` without any.
    pub mean: Option<f64>,
    /// Scenario type and id of every route without a record. The official file calls them crashed.
    pub missing: Vec<(String, RouteId)>,
}

/// Abilities can't be computed by the official rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AbilityError {
    /// No route of a group has a record.
    #[error(
        "no route of group {group} has a record, and the official rule divides by their number: \
         finish one, or use the corrected rule"
    )]
    EmptyGroup {
        /// The official key of the group.
        group: &'static str,
    },
    /// A route that demands obeying signs has no junction.
    #[error(
        "route {route_id} demands obeying signs but no junction was found on it, which the official \
         rule needs: use the corrected rule"
    )]
    NoJunction {
        /// The file's number.
        route_id: RouteId,
    },
}

/// Computes abilities over `routes`, of whose records the first of each route counts. A route's first
/// scenario says what it demands.
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
    // Town by town, as the official tool reads maps: the order of the missing.
    let mut routes: Vec<&Route> = routes.iter().collect();
    routes.sort_by(|left, right| left.town.cmp(&right.town));
    let mut missing = Vec::new();
    // Per ability: what counts, and what it is divided by.
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
        for (place, ability) in Ability::ALL.into_iter().enumerate() {
            if !ability.is_demanded_by(kind) {
                continue;
            }
            routes_of[place] += 1;
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
            counts[place].0 += points as f64;
            counts[place].1 += f64::from(weight);
        }
    }
    let mut ratios = [None; 5];
    for (place, (points, weight)) in counts.into_iter().enumerate() {
        if weight > 0.0 {
            ratios[place] = Some(points / weight);
        } else if rule == Rule::Official {
            return Err(AbilityError::EmptyGroup { group: Ability::ALL[place].key() });
        }
    }
    let known: Vec<f64> = ratios.iter().flatten().copied().collect();
    let mean = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
    Ok(Abilities { ratios, routes: routes_of, mean, missing })
}

/// True if a route got past its first junction without running a light or a stop sign.
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
