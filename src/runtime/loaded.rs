//! A loaded engine folder, which creates drivers.

use super::loaded_model::{LoadedModel, ModelDriver};
use super::placement::place;
use super::registry::family_of;
use super::standalone_expert::SlowExpert;
use super::{Notes, OpenError, StartError};
use crate::engine::{Engine, warm_up};
use crate::model::ModelBlock;
use crate::pilot::{DeviceName, Run};
use crate::scene::{RoutePlan, SensorSuite};
use std::path::Path;
use std::sync::Arc;

/// A loaded engine folder.
pub struct Loaded {
    model: Box<dyn LoadedModel>,
    block: ModelBlock,
    sensors: SensorSuite,
    backend: String,
}

impl Loaded {
    /// Loads the networks of `folder`, written by `tandem export` or `tandem build`, with the
    /// device, threads, cores and model options of `run`.
    ///
    /// # Errors
    /// A file, a library or the device is missing, the options are not those of the folder's
    /// model family, the folder was built for another machine, or the outputs on this device
    /// differ from the golden run.
    pub fn open(folder: &Path, run: &Run, notes: &mut Notes<'_>) -> Result<Self, OpenError> {
        Self::load(folder, run, None, notes)
    }

    /// Like [`Loaded::open`], and writes the time of every operator to the folder `operators` (CPU
    /// only; the networks run slower).
    pub fn open_measuring(
        folder: &Path,
        run: &Run,
        operators: &Path,
        notes: &mut Notes<'_>,
    ) -> Result<Self, OpenError> {
        Self::load(folder, run, Some(operators), notes)
    }

    fn load(
        folder: &Path,
        run: &Run,
        operators: Option<&Path>,
        notes: &mut Notes<'_>,
    ) -> Result<Self, OpenError> {
        let family = family_of(folder)?;
        let block = family.complete(run.model.as_ref())?;
        let sensors = family.sensors(Some(&block))?;
        let placement = place(folder, run, operators, notes)?;
        let (device, backend) = (placement.device.name(), placement.fast.name());
        let model = family.load(folder, placement, Some(&block))?;
        if run.real_time.prepares_memory() {
            for engine in model.engines() {
                warm_up(engine).map_err(OpenError::WarmUp)?;
            }
        }
        if run.device != DeviceName::Cpu
            && !model.pass_golden_run(folder).map_err(OpenError::Golden)?
        {
            notes(&format!(
                "warning: {} has no golden run, so the outputs of its engines on {device} are not \
                 verified; `tandem verify --device {}` creates one",
                folder.display(),
                run.device
            ));
        }
        Ok(Self { model, block, sensors, backend })
    }

    /// Returns the engines in the order in which they run.
    pub fn engines(&self) -> Vec<&Arc<dyn Engine>> {
        self.model.engines()
    }

    /// Returns library and version that run the action expert, as written to result files.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Returns the model family and every option that it was loaded with.
    pub fn options(&self) -> &ModelBlock {
        &self.block
    }

    /// Returns the sensors that the model reads.
    pub fn sensors(&self) -> SensorSuite {
        self.sensors.clone()
    }

    /// Creates a driver at the start of a route, in the time mode of `run`; the model
    /// options are those that the folder was opened with. Fails if the device is out of
    /// memory or a thread cannot be spawned.
    pub fn pilot(&self, plan: &RoutePlan, run: &Run) -> Result<Box<dyn ModelDriver>, StartError> {
        self.model.pilot(plan, run)
    }

    /// Creates the slow expert without a pilot, at the start of a route. Fails if
    /// the device is out of memory.
    pub fn slow_expert(&self, plan: &RoutePlan) -> Result<Box<dyn SlowExpert>, StartError> {
        self.model.slow_expert(plan)
    }
}
