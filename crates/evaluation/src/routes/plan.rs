//! Data that the harness derives from a dense route before an agent drives it: geographic
//! coordinates, the downsampled plan, the scenarios that are kept, and the weather along the route.

use crate::scoring::{Rule, polyline_length_m};
use glam::DVec3;
use roxmltree::Document;
use std::collections::BTreeMap;
use tandem_scene::{GeoReference, RoutePlan, TriggerPoint, WeatherKeyframe};

/// A scenario is kept if a route point is horizontally nearer to its trigger than this and the
/// trigger is less than this above the point, meters.
const TRIGGER_REACH_M: f64 = 2.0;
/// Largest difference of the headings of trigger and route point, degrees.
const TRIGGER_ANGLE_DEG: f64 = 10.0;

/// Reads the `geoReference` of an OpenDRIVE document; missing values are CARLA's defaults.
///
/// # Errors
/// If `open_drive` is not well-formed XML, or `+lat_0` or `+lon_0` is not a finite number.
pub fn geo_reference(open_drive: &str) -> Result<GeoReference, GeoReferenceError> {
    let document = Document::parse(open_drive)?;
    let mut reference = GeoReference::default();
    let nodes = document.descendants().filter(|node| node.has_tag_name("geoReference"));
    for token in nodes.filter_map(|node| node.text()).flat_map(str::split_whitespace) {
        let target = match token.split_once('=') {
            Some(("+lat_0", degrees)) => Some((&mut reference.latitude_deg, degrees)),
            Some(("+lon_0", degrees)) => Some((&mut reference.longitude_deg, degrees)),
            _ => None,
        };
        if let Some((target, degrees)) = target {
            let number = degrees.parse().ok().filter(|number: &f64| number.is_finite());
            *target =
                number.ok_or_else(|| GeoReferenceError::NotANumber { token: token.to_owned() })?;
        }
    }
    Ok(reference)
}

/// Error in the `geoReference` of an OpenDRIVE document.
#[derive(Debug, thiserror::Error)]
pub enum GeoReferenceError {
    #[error("the OpenDRIVE document is not well-formed XML")]
    Xml(#[from] roxmltree::Error),
    /// A token of the projection is not a number.
    #[error("{token:?} in the geoReference, expected a finite number of degrees")]
    NotANumber { token: String },
}

/// Returns the indices of the points of `plan` that an agent receives: the first, the last, every
/// change of maneuver, and one after each `spacing_m` of skipped points.
pub fn downsampled(plan: &RoutePlan, spacing_m: f64) -> Vec<usize> {
    let points = &plan.points;
    let mut kept = Vec::new();
    let mut skipped_m = 0.0;
    for (index, point) in points.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| points[before]);
        let is_new_maneuver = before.is_none_or(|before| {
            before.command != point.command && !before.command.is_lane_change()
        });
        let is_last = index + 1 == points.len();
        if point.command.is_lane_change() || is_new_maneuver || skipped_m > spacing_m || is_last {
            kept.push(index);
            skipped_m = 0.0;
        } else if let Some(before) = before {
            skipped_m += point.position.distance(before.position);
        }
    }
    kept
}

/// True if the harness keeps a scenario with this trigger: a point of the route is below it and has
/// its direction. A trigger may be any distance below the route.
pub fn is_on_route(plan: &RoutePlan, trigger: &TriggerPoint) -> bool {
    plan.points.iter().any(|point| {
        let offset = trigger.position - point.position;
        let turn_deg = (trigger.yaw_deg - point.heading_rad.to_degrees()).rem_euclid(360.0);
        offset.truncate().length() < TRIGGER_REACH_M
            && offset.z < TRIGGER_REACH_M
            && !(TRIGGER_ANGLE_DEG..=360.0 - TRIGGER_ANGLE_DEG).contains(&turn_deg)
    })
}

/// Error returned when weather keyframes do not cover the route. The official
/// harness raises an exception here.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error(
    "weather goes from {from} % to {to} % of the route, expected 0 % to 100 %: add keyframes, or \
     use the corrected rule, which uses the nearest one"
)]
pub struct WeatherGap {
    /// Route percentage of the first keyframe.
    pub from: f64,
    /// Route percentage of the last keyframe.
    pub to: f64,
}

/// Returns the weather at each of `points`, interpolated by distance along the route. `keyframes`
/// must be sorted by percentage. Each point has the fields of the keyframe before it.
///
/// # Errors
/// If the keyframes do not cover 0 to 100 %; [`Rule::Corrected`] uses the nearest one instead.
///
/// # Panics
/// If `keyframes` contains no keyframe.
pub fn weather_along(
    keyframes: &[WeatherKeyframe],
    points: &[DVec3],
    rule: Rule,
) -> Result<Vec<BTreeMap<String, f64>>, WeatherGap> {
    let (first, last) = (&keyframes[0], &keyframes[keyframes.len() - 1]);
    let is_covered = first.route_percentage == 0.0 && last.route_percentage == 100.0;
    if rule == Rule::Official && !is_covered {
        return Err(WeatherGap { from: first.route_percentage, to: last.route_percentage });
    }
    let length_m = polyline_length_m(points.iter().copied());
    let at = |percentage: f64| -> BTreeMap<String, f64> {
        let next = keyframes.partition_point(|frame| frame.route_percentage <= percentage);
        let before = &keyframes[next.saturating_sub(1)];
        let Some(after) = keyframes.get(next) else { return before.fields.clone() };
        let span = after.route_percentage - before.route_percentage;
        let share = if span > 0.0 { (percentage - before.route_percentage) / span } else { 0.0 };
        let mix = |name: &String, from: f64| {
            let to = after.fields.get(name).copied().unwrap_or(from);
            from + (to - from) * share
        };
        before.fields.iter().map(|(name, &from)| (name.clone(), mix(name, from))).collect()
    };
    let mut driven_m = 0.0;
    let mut last_point = points.first().copied();
    Ok(points
        .iter()
        .map(|&point| {
            driven_m += last_point.map_or(0.0, |last| last.distance(point));
            last_point = Some(point);
            at(if length_m > 0.0 { driven_m / length_m * 100.0 } else { 0.0 })
        })
        .collect())
}
