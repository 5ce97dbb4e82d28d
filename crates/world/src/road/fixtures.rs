//! Routes for tests.

use glam::DVec3;
use tandem_scene::Route;

/// Returns a route through `key_points` without scenarios, for tests.
pub(crate) fn bare_route(id: u32, key_points: Vec<DVec3>) -> Route {
    Route {
        id: id.into(),
        town: "Town00".into(),
        key_points,
        scenarios: Vec::new(),
        weather: vec![tandem_scene::WeatherKeyframe {
            route_percentage: 0.0,
            fields: std::collections::BTreeMap::new(),
        }],
    }
}
