//! Route files, and what the benchmark derives from a route before anybody drives it.

mod bounds;
mod plan;
mod route_file;
mod scenario_types;
mod weather_id;

pub use bounds::LineProblem;
pub use plan::{GeoReferenceError, WeatherGap, geo_reference, is_on_route, thinned, weather_along};
pub use route_file::{
    Problem, RouteFileError, SubsetError, parse_routes, read_routes, select_subset,
};
pub use scenario_types::{SCENARIO_TYPES, left_out};
pub use weather_id::weather_id;
