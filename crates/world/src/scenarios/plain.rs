//! Types without actors of their own: a road with ordinary traffic.

use super::scenario_type::{ScenarioType, Start};
use crate::road::layout::{Control, Layout};

pub(super) const TYPES: &[ScenarioType] = &[
    ScenarioType {
        layout: |_| Layout { traffic_oncoming: false, traffic_beside: true, ..Layout::BARE },
        modeled: "lanes across which the route changes, with traffic",
        not_modeled: "",
        ..plain("SequentialLaneChange")
    },
    ScenarioType {
        modeled: "a turn, vehicles ahead",
        not_modeled: "cross traffic",
        ..plain("T_Junction")
    },
    ScenarioType {
        modeled: "a turn, vehicles ahead",
        not_modeled: "cross traffic",
        ..plain("VanillaNonSignalizedTurn")
    },
    ScenarioType {
        layout: |_| Layout { control: Control::StopSign, ..Layout::JUNCTION },
        modeled: "a stop sign for the ego vehicle",
        not_modeled: "cross traffic",
        ..plain("VanillaNonSignalizedTurnEncounterStopsign")
    },
];

const fn plain(name: &'static str) -> ScenarioType {
    ScenarioType {
        name,
        layout: |_| Layout { traffic_oncoming: false, ..Layout::BARE },
        set_up: |_, _, _| Ok(None),
        start: Start::AtTrigger,
        modeled: "",
        not_modeled: "",
        constants: &[],
    }
}
