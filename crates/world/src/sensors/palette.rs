//! Colors of the world, by weather.

use tandem_scene::WeatherKeyframe;

/// An 8-bit color: red, green, blue.
pub(super) type Rgb = [u8; 3];

/// Colors of the world under one weather.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Palette {
    pub(super) zenith: Rgb,
    /// Sky at the horizon; distant objects fade into this color.
    pub(super) haze: Rgb,
    pub(super) grass: Rgb,
    pub(super) sidewalk: Rgb,
    pub(crate) asphalt: Rgb,
    pub(super) shadow: Rgb,
    pub(super) white_paint: Rgb,
    pub(super) yellow_paint: Rgb,
    /// Factor on every color that is not emissive.
    brightness: f32,
    /// Distance over which colors fade by a factor of e, meters.
    visibility_m: f32,
}

impl Palette {
    /// Returns the colors under `weather`; a missing field has the value of a fair day.
    pub(crate) fn new(weather: Option<&WeatherKeyframe>) -> Self {
        let field = |name: &str, fair: f64| {
            weather.and_then(|weather| weather.fields.get(name)).copied().unwrap_or(fair) as f32
        };
        let sun_deg = field("sun_altitude_angle", 60.0);
        let clouds = (field("cloudiness", 20.0) / 100.0).clamp(0.0, 1.0);
        let wet = (field("wetness", 0.0).max(field("precipitation_deposits", 0.0)) / 100.0)
            .clamp(0.0, 1.0);
        let fog = (field("fog_density", 0.0) / 100.0).clamp(0.0, 1.0);
        let day = ((sun_deg + 12.0) / 40.0).clamp(0.0, 1.0);
        let brightness = (0.4 + 0.6 * day) * (1.0 - 0.15 * clouds);
        let sky = |clear: Rgb, cloudy: Rgb| scaled(mix(clear, cloudy, clouds), 0.12 + 0.88 * day);
        let lit = |color: Rgb| scaled(color, brightness);
        let asphalt = lit(mix([104, 103, 102], [66, 68, 72], wet));
        Self {
            zenith: sky([72, 122, 196], [150, 156, 164]),
            haze: sky([190, 209, 228], [198, 201, 205]),
            grass: lit([88, 116, 62]),
            sidewalk: lit([158, 154, 147]),
            asphalt,
            shadow: scaled(asphalt, 0.55),
            white_paint: lit([228, 228, 222]),
            yellow_paint: lit([222, 176, 52]),
            brightness,
            visibility_m: 420.0 / (1.0 + 8.0 * fog + 0.6 * clouds),
        }
    }

    /// Returns `color` under this light.
    pub(super) fn lit(&self, color: Rgb, shading: f32) -> Rgb {
        scaled(color, self.brightness * shading)
    }

    /// Returns `color` as it appears from `distance_m`.
    pub(super) fn faded(&self, color: Rgb, distance_m: f32) -> Rgb {
        mix(color, self.haze, 1.0 - (-distance_m / self.visibility_m).exp())
    }
}

/// Interpolates from `a` to `b` by the fraction `part`.
pub(super) fn mix(a: Rgb, b: Rgb, part: f32) -> Rgb {
    std::array::from_fn(|idx| {
        let (a, b) = (f32::from(a[idx]), f32::from(b[idx]));
        (a + (b - a) * part + 0.5) as u8
    })
}

fn scaled(color: Rgb, factor: f32) -> Rgb {
    color.map(|channel| (f32::from(channel) * factor).min(255.0) as u8)
}
