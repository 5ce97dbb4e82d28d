//! Parameters of a scenario, as route files give them.

use crate::noise::Interval;
use crate::road::error::RoadError;
use glam::DVec2;
use tandem_scene::{RouteId, ScenarioSpec};

/// The parameters of one scenario.
pub(crate) struct Parameters<'a> {
    route: &'a RouteId,
    scenario_id: u32,
    spec: &'a ScenarioSpec,
}

impl<'a> Parameters<'a> {
    /// Wraps the parameters of `spec`, scenario number `scenario_id` on `route`.
    pub(crate) fn new(route: &'a RouteId, scenario_id: u32, spec: &'a ScenarioSpec) -> Self {
        Self { route, scenario_id, spec }
    }

    /// Returns the number of the scenario within its route, from 1.
    pub(super) fn scenario_id(&self) -> u32 {
        self.scenario_id
    }

    /// Returns the attribute `value` of `tag`, if present.
    pub(crate) fn text(&self, tag: &str) -> Option<&'a str> {
        self.spec.parameters.get(tag)?.get("value").map(String::as_str)
    }

    /// Returns the number in `tag`, or `otherwise` if absent. A value that is not a
    /// finite number is an error.
    pub(crate) fn number(&self, tag: &str, otherwise: f64) -> Result<f64, RoadError> {
        Ok(self.attribute(tag, "value")?.unwrap_or(otherwise))
    }

    /// Returns the interval in `tag`, or `otherwise` if absent. A bound that is not a
    /// finite number is an error.
    pub(crate) fn range(&self, tag: &str, otherwise: Interval) -> Result<Interval, RoadError> {
        if let Some(value) = self.attribute(tag, "value")? {
            return Ok(Interval { low: value, high: value });
        }
        let from = self.attribute(tag, "from")?.unwrap_or(otherwise.low);
        let to = self.attribute(tag, "to")?.unwrap_or(otherwise.high);
        Ok(Interval { low: from.min(to), high: from.max(to) })
    }

    /// Returns the planar place in `tag`, if present. A coordinate that is not a
    /// finite number is an error.
    pub(crate) fn place(&self, tag: &str) -> Result<Option<DVec2>, RoadError> {
        let (x, y) = (self.attribute(tag, "x")?, self.attribute(tag, "y")?);
        Ok(x.zip(y).map(|(x, y)| DVec2::new(x, y)))
    }

    fn attribute(&self, tag: &str, name: &str) -> Result<Option<f64>, RoadError> {
        let Some(text) = self.spec.parameters.get(tag).and_then(|tag| tag.get(name)) else {
            return Ok(None);
        };
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(RoadError::Parameter {
                route: self.route.clone(),
                scenario: self.spec.name.clone(),
                parameter: format!("{tag} {name}"),
                found: text.clone(),
            }),
        }
    }
}
