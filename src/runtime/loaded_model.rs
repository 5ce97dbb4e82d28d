//! Loaded models of any family.

use super::StartError;
use super::standalone_expert::{SlowExpert, StandaloneExpert};
use crate::control::{Localizer, StateFilterConfig};
use crate::engine::Engine;
use crate::model::{Family, FamilyError, Perception};
use crate::pilot::{Pilot, PilotStatistics, RealTimeReport, Run};
use crate::scene::{Driver, RoutePlan};
use std::path::Path;
use std::sync::Arc;

/// Number of KV slots: one read by action steps, one written by the
/// prefill, one published in between.
pub const KV_SLOTS: usize = 3;

/// A [`Pilot`] of any family.
pub trait ModelDriver: Driver {
    /// Returns the counters of the route.
    fn statistics(&self) -> PilotStatistics;

    /// Returns the outcome of the real-time options of the slow expert's thread.
    fn real_time(&self) -> &RealTimeReport;
}

impl<P: Perception> ModelDriver for Pilot<P> {
    fn statistics(&self) -> PilotStatistics {
        Pilot::statistics(self)
    }

    fn real_time(&self) -> &RealTimeReport {
        Pilot::real_time(self)
    }
}

/// A loaded model of any family.
pub trait LoadedModel {
    /// Returns every engine in the order in which they run.
    fn engines(&self) -> Vec<&Arc<dyn Engine>>;

    /// Repeats the golden run of `folder`; returns false if it has none. Fails if the file is
    /// damaged or of other networks, or an output exceeds its limit.
    fn pass_golden_run(&self, folder: &Path) -> Result<bool, FamilyError>;

    /// Creates a driver at the start of a route.
    fn pilot(&self, plan: &RoutePlan, run: &Run) -> Result<Box<dyn ModelDriver>, StartError>;

    /// Creates the slow expert without a pilot, at the start of a route.
    fn slow_expert(&self, plan: &RoutePlan) -> Result<Box<dyn SlowExpert>, StartError>;
}

/// Implements [`LoadedModel`] for a [`Family`].
pub(super) struct Adapter<F>(pub(super) F);

impl<F: Family> LoadedModel for Adapter<F> {
    fn engines(&self) -> Vec<&Arc<dyn Engine>> {
        self.0.engines()
    }

    fn pass_golden_run(&self, folder: &Path) -> Result<bool, FamilyError> {
        self.0.pass_golden_run(folder)
    }

    fn pilot(&self, plan: &RoutePlan, run: &Run) -> Result<Box<dyn ModelDriver>, StartError> {
        let localizer = Localizer::new(StateFilterConfig::default(), plan.reference);
        let pilot = Pilot::new(run, self.0.experts(plan)?, localizer, self.0.slots(KV_SLOTS)?);
        Ok(Box::new(pilot.map_err(StartError::Pilot)?))
    }

    fn slow_expert(&self, plan: &RoutePlan) -> Result<Box<dyn SlowExpert>, StartError> {
        Ok(Box::new(StandaloneExpert::new(self.0.experts(plan)?, self.0.slots(KV_SLOTS)?)))
    }
}
