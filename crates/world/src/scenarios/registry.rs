//! All scenario types, collected from the files that register them.

use super::scenario_type::ScenarioType;
use super::{
    blocked, crossings, cut_ins, cyclists, disturbances, door, emergency, highway_cut_in, invasion,
    junction_flow, light_schedule, obstacles, parking_exit, plain, priority,
};
use crate::road::layout::{Layout, Side};
use tandem_scene::Route;

/// Types registered by each file.
const FILES: [&[ScenarioType]; 15] = [
    obstacles::TYPES,
    cyclists::TYPES,
    door::TYPES,
    cut_ins::TYPES,
    crossings::TYPES,
    priority::TYPES,
    blocked::TYPES,
    disturbances::TYPES,
    emergency::TYPES,
    invasion::TYPES,
    parking_exit::TYPES,
    junction_flow::TYPES,
    highway_cut_in::TYPES,
    light_schedule::TYPES,
    plain::TYPES,
];

/// Returns all scenario types, file by file.
pub(super) fn types() -> impl Iterator<Item = &'static ScenarioType> {
    FILES.into_iter().flatten()
}

/// Returns the type with this name in route files.
pub(super) fn find(name: &str) -> Option<&'static ScenarioType> {
    types().find(|registered| registered.name == name)
}

/// Returns the road layout for the first scenario of `route`; an ordinary
/// street if its type is unknown.
pub(crate) fn layout_of(route: &Route) -> Layout {
    let Some(spec) = route.scenarios.first() else { return Layout::STREET };
    let direction = spec.parameters.get("direction").and_then(|tag| tag.get("value"));
    let side = match direction.map(String::as_str) {
        Some("left") => Side::Left,
        _ => Side::Right,
    };
    find(&spec.kind).map_or(Layout::STREET, |registered| (registered.layout)(side))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn all_44_benchmark_types_are_registered_once() {
        let names: Vec<&str> = types().map(|registered| registered.name).collect();
        assert_eq!(names.len(), 44);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 44);
    }
}
