//! Registration of scenario types.

use super::context::{Scenario, ScenarioContext};
use super::parameters::Parameters;
use crate::road::error::RoadError;
use crate::road::layout::{Layout, Side};

/// A scenario after its set-up; `None` if the road lacks what the type needs, or if the
/// type has no actors of its own.
pub(super) type SetUpResult = Result<Option<Box<dyn Scenario>>, RoadError>;

/// Sets up a scenario whose trigger is at this distance along the road, meters.
pub(super) type SetUp = fn(&Parameters<'_>, f64, &mut ScenarioContext<'_>) -> SetUpResult;

/// A scenario type of the benchmark.
pub(crate) struct ScenarioType {
    pub(crate) name: &'static str,
    /// Returns the road that the type needs, given the side in its parameter `direction`.
    pub(crate) layout: fn(Side) -> Layout,
    pub(super) set_up: SetUp,
    pub(super) start: Start,
    /// Parts of the benchmark's scenario that are modeled.
    pub(super) modeled: &'static str,
    /// Parts that are not modeled; may be empty.
    pub(super) not_modeled: &'static str,
    /// Constants that the type uses, by source.
    pub(super) constants: &'static [Constants],
}

/// When a scenario becomes active.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// When the ego vehicle reaches the trigger point.
    AtTrigger,
    /// At the start of the route: the trigger point is after the stop line of the scenario's
    /// lights.
    AtRouteStart,
}

/// Source from which constants are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A file of the benchmark's `scenario_runner`, relative to `srunner`.
    ScenarioRunner(&'static str),
    /// PDM-Lite, the public rule-based expert.
    PdmLite,
    /// Values that this crate chooses.
    Tandem,
}

/// Constants of one source: each with its name there (a description, for those of this crate) and
/// the values that the code uses.
pub(super) struct Constants {
    pub(super) source: Source,
    pub(super) values: &'static [(&'static str, &'static [f64])],
}

type Values = &'static [(&'static str, &'static [f64])];

/// Returns constants of a file in `srunner/scenarios`.
pub(super) const fn from_scenario_runner(file: &'static str, values: Values) -> Constants {
    Constants { source: Source::ScenarioRunner(file), values }
}

/// Returns constants of PDM-Lite.
pub(super) const fn from_pdm_lite(values: Values) -> Constants {
    Constants { source: Source::PdmLite, values }
}

/// Returns constants of this crate.
pub(super) const fn from_tandem(values: Values) -> Constants {
    Constants { source: Source::Tandem, values }
}

/// Returns the result of setting up `scenario`.
pub(super) fn ready<S: Scenario + 'static>(scenario: S) -> SetUpResult {
    Ok(Some(Box::new(scenario)))
}

/// Like [`ready`], for a type that some roads do not support.
pub(super) fn if_possible<S: Scenario + 'static>(scenario: Option<S>) -> SetUpResult {
    Ok(scenario.map(|scenario| Box::new(scenario) as Box<dyn Scenario>))
}
