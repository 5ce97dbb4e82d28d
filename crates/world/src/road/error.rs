//! Errors from building a road.

use tandem_scene::RouteId;

/// Error returned when no road can be built from a route.
#[derive(Debug, thiserror::Error)]
pub enum RoadError {
    /// The route has fewer than two distinct key points.
    #[error("route {route} has {found} distinct key points, a road needs at least 2")]
    TooFewKeyPoints { route: RouteId, found: usize },
    /// A parameter of a scenario is not a finite number.
    #[error(
        "route {route}: parameter {parameter} of scenario {scenario} is {found:?}, which is not \
         a finite number"
    )]
    Parameter {
        route: RouteId,
        scenario: String,
        /// Tag and attribute of the parameter in the route file.
        parameter: String,
        found: String,
    },
    /// The route is not on the lanes of the map.
    #[error(
        "route {route} (town {town}) leads {away_m:.0} m away from every lane of {}: use the map \
         of its town",
        map.display()
    )]
    OffMap {
        route: RouteId,
        town: String,
        map: std::path::PathBuf,
        /// Largest distance of a key point from the lanes, meters.
        away_m: f64,
    },
}
