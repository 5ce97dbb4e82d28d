//! Route files, and what the benchmark derives from a route before anybody drives it.

mod bounds;
mod error;
mod plan;
mod route_file;
mod scenario_types;
mod subset;
mod weather_id;

pub use bounds::LineProblem;
pub use error::{Problem, RouteFileError};
pub use plan::{GeoReferenceError, WeatherGap, geo_reference, is_on_route, thinned, weather_along};
pub use route_file::{parse_routes, read_routes};
pub use scenario_types::{SCENARIO_TYPES, left_out};
pub use subset::{SubsetError, select_subset};
pub use weather_id::weather_id;
