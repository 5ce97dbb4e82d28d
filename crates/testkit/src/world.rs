//! The embedded world on the routes of this repository.

use crate::ROOT;
use std::path::Path;
use tandem_evaluation::routes::read_routes;
use tandem_scene::{Route, SensorSuite};
use tandem_world::EmbeddedWorld;

/// Reads the routes of `routes/NAME`.
#[track_caller]
pub fn routes(name: &str) -> Vec<Route> {
    read_routes(&Path::new(ROOT).join("routes").join(name)).unwrap()
}

/// Returns a world at the start of the first route of `routes/demo.xml`.
#[track_caller]
pub fn demo_world(sensors: SensorSuite, seed: u64) -> EmbeddedWorld {
    EmbeddedWorld::new(&routes("demo.xml")[0], sensors, seed).unwrap()
}
