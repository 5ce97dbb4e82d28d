//! Route files, and the data that the benchmark derives from a route before it is driven.

mod bounds;
mod error;
mod plan;
mod route_file;
mod scenario_types;
mod subset;
mod weather_id;

pub use bounds::LineProblem;
pub use error::{Problem, RouteFileError};
pub use plan::{
    GeoReferenceError, WeatherGap, downsampled, geo_reference, is_on_route, weather_along,
};
pub use route_file::{parse_routes, read_routes};
pub use scenario_types::{SCENARIO_TYPES, unsupported_scenarios};
pub use subset::{SubsetError, select_subset};
pub use weather_id::weather_id;
