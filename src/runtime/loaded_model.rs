//! A loaded model of any family.

use super::StartError;
use super::slow_alone::{SlowAlone, SlowExpert};
use crate::control::{Localizer, StateFilterConfig};
use crate::engine::Engine;
use crate::model::{Family, FamilyError, Perception};
use crate::pilot::{Pilot, PilotStatistics, RealTimeReport, Run};
use crate::scene::{Driver, RoutePlan};
use std::path::Path;
use std::sync::Arc;

/// Slots of a KV cache: one read by action steps, one written by the prefill, one in between.
pub const KV_SLOTS: usize = 3;

/// A [`Pilot`] of any family.
pub trait ModelDriver: Driver {
    /// Returns what was counted so far.
    fn statistics(&self) -> PilotStatistics;

    /// Returns what came of the real-time options of the slow expert's thread.
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

/// A loaded model, whatever its family's types.
pub trait LoadedModel {
    /// Every engine, in the order in which they run.
    fn engines(&self) -> Vec<&Arc<dyn Engine>>;

    /// Drives the golden run of `folder`. Returns false if it has none.
    ///
    /// # Errors
    /// The file is damaged or of other networks, or an answer is past its limit.
    fn pass_golden_run(&self, folder: &Path) -> Result<bool, FamilyError>;

    /// A driver at the start of a route.
    ///
    /// # Errors
    /// The device has no memory left, or a thread cannot be started.
    fn pilot(&self, plan: &RoutePlan, run: &Run) -> Result<Box<dyn ModelDriver>, StartError>;

    /// The slow expert at the start of a route, without the fast one.
    ///
    /// # Errors
    /// The device has no memory left.
    fn slow_expert(&self, plan: &RoutePlan) -> Result<Box<dyn SlowExpert>, StartError>;
}

/// Makes a [`Family`] a [`LoadedModel`].
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
        Ok(Box::new(SlowAlone::new(self.0.experts(plan)?, self.0.slots(KV_SLOTS)?)))
    }
}
