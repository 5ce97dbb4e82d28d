//! How a file registers its scenario types.

use super::context::{Scenario, ScenarioContext};
use super::parameters::Parameters;
use crate::road::error::RoadError;
use crate::road::layout::{Layout, Side};

/// A scenario that was set up; `None` where the road lacks what the type needs, or the type has
/// no actors of its own.
pub(super) type SetUpResult = Result<Option<Box<dyn Scenario>>, RoadError>;

/// Sets a scenario up whose trigger is at this distance down the road, meters.
pub(super) type SetUp = fn(&Parameters<'_>, f64, &mut ScenarioContext<'_>) -> SetUpResult;

/// A scenario type of the benchmark.
pub(crate) struct ScenarioType {
    /// Name in route files.
    pub(crate) name: &'static str,
    /// The road that the type needs, given the side that its parameter `direction` names.
    pub(crate) layout: fn(Side) -> Layout,
    /// Sets a scenario of this type up.
    pub(super) set_up: SetUp,
    /// When it becomes active.
    pub(super) start: Start,
    /// Parts of the benchmark's scenario that are modeled.
    pub(super) modeled: &'static str,
    /// Parts that are not modeled; empty if there are none.
    pub(super) not_modeled: &'static str,
    /// Values that the type uses, by source.
    pub(super) constants: &'static [Constants],
}

/// When a scenario becomes active.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// When the ego vehicle reaches the trigger point.
    AtTrigger,
    /// With the route: the trigger point is behind the stop line that the scenario's lights rule.
    AtRouteStart,
}

/// Origin of constants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A file of the benchmark's `scenario_runner`, below `srunner`.
    ScenarioRunner(&'static str),
    /// PDM-Lite, the public rule-based expert.
    PdmLite,
    /// This crate.
    Ours,
}

/// Constants of one source: the name there (a description, if they are ours) with the values that
/// the code uses.
pub(super) struct Constants {
    pub(super) source: Source,
    pub(super) values: &'static [(&'static str, &'static [f64])],
}

type Values = &'static [(&'static str, &'static [f64])];

/// Constants of a file in `srunner/scenarios`.
pub(super) const fn from_scenario_runner(file: &'static str, values: Values) -> Constants {
    Constants { source: Source::ScenarioRunner(file), values }
}

/// Constants of PDM-Lite.
pub(super) const fn from_pdm_lite(values: Values) -> Constants {
    Constants { source: Source::PdmLite, values }
}

/// Constants of this crate.
pub(super) const fn ours(values: Values) -> Constants {
    Constants { source: Source::Ours, values }
}

/// The result of setting `scenario` up.
pub(super) fn ready<S: Scenario + 'static>(scenario: S) -> SetUpResult {
    Ok(Some(Box::new(scenario)))
}

/// The same, where the road may lack what the type needs.
pub(super) fn if_possible<S: Scenario + 'static>(scenario: Option<S>) -> SetUpResult {
    Ok(scenario.map(|scenario| Box::new(scenario) as Box<dyn Scenario>))
}
