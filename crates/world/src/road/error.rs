//! What keeps a route from becoming a road.

use tandem_scene::RouteId;

/// Why no road can be made of a route.
#[derive(Debug, thiserror::Error)]
pub enum RoadError {
    /// A road needs two different key points.
    #[error("route {route} has {found} different key points, a road needs at least 2")]
    TooFewKeyPoints {
        /// The route.
        route: RouteId,
        /// How many there are.
        found: usize,
    },
    /// A scenario's parameter cannot be read.
    #[error(
        "route {route}: parameter {parameter} of scenario {scenario} is {found:?}, which is no \
         finite number"
    )]
    Parameter {
        /// The route.
        route: RouteId,
        /// The scenario's name.
        scenario: String,
        /// Tag and attribute.
        parameter: String,
        /// What stands there.
        found: String,
    },
    /// The route leads where the map has no lanes.
    #[error(
        "route {route} (town {town}) leads {away_m:.0} m away from every lane of {}: give the map \
         of its town",
        map.display()
    )]
    OffMap {
        /// The route.
        route: RouteId,
        /// Its town.
        town: String,
        /// The map.
        map: std::path::PathBuf,
        /// How far its farthest key point is from a lane.
        away_m: f64,
    },
}
