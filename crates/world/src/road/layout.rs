//! What a road is like beside the route: as its scenarios need it, since route files do not say.

use tandem_scene::{Route, ScenarioSpec};

/// Width of driving lanes, meters.
pub(crate) const LANE_WIDTH_M: f64 = 3.5;

/// Width of the parking strip, meters.
pub(crate) const PARKING_WIDTH_M: f64 = 2.5;

/// A side of the road, as the route runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Left,
    Right,
}

/// What rules the route's junction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    /// Nothing but right of way.
    Uncontrolled,
    /// A stop sign for our road.
    StopSign,
    /// Lights for every road.
    Lights,
}

/// Lanes beside the route's own, and what rules there.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Layout {
    /// Further lanes of our direction, left of the route.
    pub(crate) left: usize,
    /// Further lanes of our direction, right of the route.
    pub(crate) right: usize,
    /// Lanes of the opposite direction.
    pub(crate) opposite: usize,
    /// Where vehicles are parked.
    pub(crate) parking: Option<Side>,
    /// Speed limit, km/h.
    pub(crate) speed_limit_kmh: f64,
    /// What rules the first junction.
    pub(super) control: Control,
    /// True on motorways and open road: no houses.
    pub(crate) is_rural: bool,
    /// True if ordinary traffic drives in our direction.
    pub(crate) traffic_ahead: bool,
    /// True if ordinary traffic comes toward us.
    pub(crate) traffic_oncoming: bool,
    /// True if ordinary traffic drives in the lanes of our direction beside ours.
    pub(crate) traffic_beside: bool,
    /// True if our vehicle starts parked.
    pub(crate) starts_parked: bool,
    /// Where nobody is parked, from and to, meters from the route's start.
    pub(super) free_of_parked_m: (f64, f64),
}

impl Default for Layout {
    /// A street of a town: one lane each way, and vehicles parked on the right.
    fn default() -> Self {
        Self {
            left: 0,
            right: 0,
            opposite: 1,
            parking: Some(Side::Right),
            speed_limit_kmh: 50.0,
            control: Control::Uncontrolled,
            is_rural: false,
            traffic_ahead: true,
            traffic_oncoming: true,
            traffic_beside: false,
            starts_parked: false,
            free_of_parked_m: (0.0, 0.0),
        }
    }
}

impl Layout {
    /// The layout for `route`, by the type of its first scenario.
    pub(crate) fn of(route: &Route) -> Self {
        route.scenarios.first().map_or_else(Self::default, Self::of_scenario)
    }

    /// True if nobody may be parked `from_start_m` down the route.
    pub(crate) fn keeps_free(&self, from_start_m: f64) -> bool {
        (self.free_of_parked_m.0..self.free_of_parked_m.1).contains(&from_start_m)
    }

    fn of_scenario(scenario: &ScenarioSpec) -> Self {
        let direction = scenario.parameters.get("direction").and_then(|tag| tag.get("value"));
        let is_left = direction.is_some_and(|side| side == "left");
        let street = Self::default();
        // Scenarios with parked vehicles bring those that matter themselves.
        let cleared = Self { free_of_parked_m: (-30.0, 110.0), traffic_ahead: false, ..street };
        let bare = Self { parking: None, ..street };
        let junction = Self { traffic_ahead: false, traffic_oncoming: false, ..bare };
        let lights = Self { control: Control::Lights, ..junction };
        let motorway = Self { opposite: 0, is_rural: true, speed_limit_kmh: 80.0, ..junction };
        let interurban = Self { opposite: 1, ..motorway };
        match scenario.kind.as_str() {
            "Accident" | "ConstructionObstacle" | "ParkedObstacle" | "HazardAtSideLane" => {
                Self { left: 1, traffic_ahead: false, traffic_beside: true, ..bare }
            }
            "AccidentTwoWays"
            | "ConstructionObstacleTwoWays"
            | "ParkedObstacleTwoWays"
            | "HazardAtSideLaneTwoWays" => {
                Self { traffic_ahead: false, traffic_oncoming: false, ..bare }
            }
            "VehicleOpensDoorTwoWays" => Self { traffic_oncoming: false, ..cleared },
            "InvadingTurn" => Self { traffic_ahead: false, traffic_oncoming: false, ..bare },
            "StaticCutIn" if is_left => Self { left: 1, traffic_ahead: false, ..bare },
            "StaticCutIn" => Self { right: 1, traffic_ahead: false, ..bare },
            "YieldToEmergencyVehicle" => Self { right: 1, traffic_ahead: false, ..bare },
            "ParkingCutIn" if is_left => Self { parking: Some(Side::Left), opposite: 0, ..cleared },
            "ParkingCutIn" | "ParkingCrossingPedestrian" => cleared,
            "DynamicObjectCrossing" => Self { traffic_ahead: false, ..bare },
            "ParkingExit" => Self { starts_parked: true, traffic_oncoming: false, ..cleared },
            "SequentialLaneChange" => {
                Self { traffic_oncoming: false, traffic_beside: true, ..bare }
            }
            "HardBreakRoute" | "ControlLoss" => bare,
            "HighwayCutIn" => Self { left: 1, traffic_beside: true, ..motorway },
            "EnterActorFlow"
            | "HighwayExit"
            | "MergerIntoSlowTraffic"
            | "MergerIntoSlowTrafficV2" => motorway,
            "InterurbanActorFlow" | "InterurbanAdvancedActorFlow" => interurban,
            "SignalizedJunctionLeftTurn"
            | "SignalizedJunctionRightTurn"
            | "SignalizedJunctionLeftTurnEnterFlow"
            | "CrossingBicycleFlow"
            | "OppositeVehicleRunningRedLight"
            | "VanillaSignalizedTurnEncounterGreenLight"
            | "VanillaSignalizedTurnEncounterRedLight" => lights,
            "VanillaNonSignalizedTurnEncounterStopsign" => {
                Self { control: Control::StopSign, ..junction }
            }
            "NonSignalizedJunctionLeftTurn"
            | "NonSignalizedJunctionRightTurn"
            | "NonSignalizedJunctionLeftTurnEnterFlow"
            | "OppositeVehicleTakingPriority"
            | "BlockedIntersection"
            | "PedestrianCrossing"
            | "VehicleTurningRoute"
            | "VehicleTurningRoutePedestrian" => junction,
            "T_Junction" | "VanillaNonSignalizedTurn" => {
                Self { traffic_ahead: true, traffic_oncoming: false, ..bare }
            }
            _ => street,
        }
    }
}
