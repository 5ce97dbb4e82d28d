//! Ids of weather presets. A record contains the id of the preset that equals its route's weather.

use tandem_scene::Route;

/// Fields that are compared, in the order of the values in [`PRESETS`].
const FIELDS: [&str; 8] = [
    "cloudiness",
    "precipitation",
    "precipitation_deposits",
    "wetness",
    "wind_intensity",
    "sun_azimuth_angle",
    "sun_altitude_angle",
    "fog_density",
];

/// Id and values of every preset of the official harness: percent, and degrees for the sun.
const PRESETS: [(&str, [f64; FIELDS.len()]); 23] = [
    ("0", [5.0, 0.0, 0.0, 0.0, 10.0, -1.0, 90.0, 2.0]),
    ("1", [5.0, 0.0, 0.0, 0.0, 10.0, -1.0, 15.0, 2.0]),
    ("2", [20.0, 30.0, 50.0, 0.0, 30.0, -1.0, 45.0, 3.0]),
    ("3", [60.0, 60.0, 60.0, 0.0, 60.0, -1.0, 45.0, 3.0]),
    ("5", [80.0, 0.0, 50.0, 20.0, 10.0, -1.0, 45.0, 3.0]),
    ("6", [5.0, 0.0, 50.0, 0.0, 10.0, -1.0, 15.0, 10.0]),
    ("7", [5.0, 0.0, 0.0, 0.0, 10.0, -1.0, 45.0, 2.0]),
    ("8", [100.0, 100.0, 90.0, 0.0, 100.0, -1.0, 45.0, 7.0]),
    ("9", [70.0, 60.0, 60.0, 0.0, 60.0, -1.0, 45.0, 50.0]),
    ("10", [40.0, 100.0, 90.0, 0.0, 100.0, -1.0, 0.0, 7.0]),
    ("11", [100.0, 60.0, 60.0, 0.0, 60.0, -1.0, 45.0, 50.0]),
    ("12", [5.0, 0.0, 0.0, 0.0, 10.0, -1.0, 45.0, 50.0]),
    ("13", [5.0, 0.0, 0.0, 0.0, 10.0, -1.0, 15.0, 50.0]),
    ("14", [100.0, 100.0, 50.0, 50.0, 100.0, -1.0, 45.0, 10.0]),
    ("15", [100.0, 50.0, 100.0, 80.0, 80.0, -1.0, 45.0, 10.0]),
    ("18", [40.0, 0.0, 50.0, 0.0, 10.0, -1.0, 15.0, 2.0]),
    ("19", [40.0, 0.0, 50.0, 0.0, 10.0, -1.0, -90.0, 2.0]),
    ("20", [60.0, 30.0, 50.0, 60.0, 30.0, -1.0, -90.0, 3.0]),
    ("21", [100.0, 100.0, 90.0, 100.0, 100.0, -1.0, -90.0, 3.0]),
    ("22", [5.0, 0.0, 0.0, 0.0, 10.0, -1.0, -90.0, 60.0]),
    ("23", [80.0, 60.0, 60.0, 80.0, 60.0, -1.0, -90.0, 60.0]),
    ("25", [100.0, 100.0, 90.0, 100.0, 100.0, -1.0, -90.0, 100.0]),
    ("26", [50.0, 0.0, 0.0, 0.0, 0.0, 0.0, 70.0, 0.0]),
];

/// Returns the id of the first preset with the eight values of the route's first weather, as in the
/// official harness; `None` if no preset has them.
pub fn weather_id(route: &Route) -> Option<&'static str> {
    let fields = &route.weather.first()?.fields;
    let is_equal = |values: &[f64; FIELDS.len()]| {
        FIELDS.iter().zip(values).all(|(name, value)| fields.get(*name) == Some(value))
    };
    PRESETS.iter().find(|(_, values)| is_equal(values)).map(|(id, _)| *id)
}
