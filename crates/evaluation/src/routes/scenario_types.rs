//! Scenario types of Bench2Drive, all of which the embedded world supports.

use std::collections::BTreeMap;
use tandem_files::shortened;
use tandem_scene::Route;

/// All 44 scenario types of Bench2Drive, sorted by name.
pub const SCENARIO_TYPES: [&str; 44] = [
    "Accident",
    "AccidentTwoWays",
    "BlockedIntersection",
    "ConstructionObstacle",
    "ConstructionObstacleTwoWays",
    "ControlLoss",
    "CrossingBicycleFlow",
    "DynamicObjectCrossing",
    "EnterActorFlow",
    "HardBreakRoute",
    "HazardAtSideLane",
    "HazardAtSideLaneTwoWays",
    "HighwayCutIn",
    "HighwayExit",
    "InterurbanActorFlow",
    "InterurbanAdvancedActorFlow",
    "InvadingTurn",
    "MergerIntoSlowTraffic",
    "MergerIntoSlowTrafficV2",
    "NonSignalizedJunctionLeftTurn",
    "NonSignalizedJunctionLeftTurnEnterFlow",
    "NonSignalizedJunctionRightTurn",
    "OppositeVehicleRunningRedLight",
    "OppositeVehicleTakingPriority",
    "ParkedObstacle",
    "ParkedObstacleTwoWays",
    "ParkingCrossingPedestrian",
    "ParkingCutIn",
    "ParkingExit",
    "PedestrianCrossing",
    "SequentialLaneChange",
    "SignalizedJunctionLeftTurn",
    "SignalizedJunctionLeftTurnEnterFlow",
    "SignalizedJunctionRightTurn",
    "StaticCutIn",
    "T_Junction",
    "VanillaNonSignalizedTurn",
    "VanillaNonSignalizedTurnEncounterStopsign",
    "VanillaSignalizedTurnEncounterGreenLight",
    "VanillaSignalizedTurnEncounterRedLight",
    "VehicleOpensDoorTwoWays",
    "VehicleTurningRoute",
    "VehicleTurningRoutePedestrian",
    "YieldToEmergencyVehicle",
];

/// Returns a note for the record that lists the scenarios of `route` whose types are not in
/// [`SCENARIO_TYPES`]; `None` without such scenarios. The route is driven without them, as the
/// official harness drives a route without the scenarios that it cannot build.
pub fn unsupported_scenarios(route: &Route) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for scenario in &route.scenarios {
        if !SCENARIO_TYPES.contains(&scenario.kind.as_str()) {
            *counts.entry(&scenario.kind).or_default() += 1;
        }
    }
    let kinds: Vec<String> =
        counts.into_iter().map(|(kind, count)| format!("{count} {}", shortened(kind))).collect();
    (!kinds.is_empty()).then(|| {
        format!(
            "driven without scenarios of types that are not among the {} of Bench2Drive: {}",
            SCENARIO_TYPES.len(),
            kinds.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::parse_routes;
    use crate::scoring::Ability;

    #[test]
    fn unsupported_scenarios_are_counted_by_type() {
        let scenarios: String = ["EnterActorFlowV2", "Accident", "EnterActorFlowV2", "RoadBlocked"]
            .map(|kind| format!("<scenario name=\"a\" type=\"{kind}\"/>"))
            .concat();
        let text = format!(
            "<routes><route id=\"1\" town=\"T\"><waypoints><position x=\"0\" y=\"0\" z=\"0\"/>\
             <position x=\"9\" y=\"0\" z=\"0\"/></waypoints><scenarios>{scenarios}</scenarios>\
             </route></routes>"
        );
        let mut routes = parse_routes(&text, "f.xml").unwrap();
        let note = unsupported_scenarios(&routes[0]).unwrap();
        assert!(note.ends_with("2 EnterActorFlowV2, 1 RoadBlocked"), "{note}");
        routes[0].scenarios.retain(|scenario| scenario.kind == "Accident");
        assert_eq!(unsupported_scenarios(&routes[0]), None);
    }

    #[test]
    fn scenario_types_are_sorted_and_unique() {
        assert!(SCENARIO_TYPES.is_sorted_by(|left, right| left < right));
    }

    #[test]
    fn every_scenario_type_requires_an_ability() {
        for kind in SCENARIO_TYPES {
            assert!(Ability::ALL.into_iter().any(|ability| ability.is_required_by(kind)), "{kind}");
        }
        for ability in Ability::ALL {
            for kind in ability.scenario_types() {
                assert!(SCENARIO_TYPES.contains(kind), "{kind}");
            }
        }
    }
}
