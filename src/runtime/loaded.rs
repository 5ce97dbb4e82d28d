//! An engine folder whose networks are loaded, and the drivers that it makes.

use super::loaded_model::{LoadedModel, ModelDriver};
use super::placement::place;
use super::registry::family_of;
use super::slow_alone::SlowExpert;
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
    /// Loads the networks of `folder`, which `tandem export` or `tandem build` wrote, to be run as
    /// `run` says: its device, threads, cores, and the model's options.
    ///
    /// # Errors
    /// A file, a library or the device is missing, the options are not those of the folder's model
    /// family, the folder was built for another machine, or its golden run has other answers than this
    /// device gives.
    pub fn open(folder: &Path, run: &Run, notes: &mut Notes<'_>) -> Result<Self, OpenError> {
        Self::load(folder, run, None, notes)
    }

    /// The same, measuring the time of every operator into the folder `operators` (CPU only; runs are
    /// slower).
    ///
    /// # Errors
    /// As [`Loaded::open`]; the profile cannot be written.
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
        if run.real_time.readies_memory() {
            for engine in model.engines() {
                warm_up(engine).map_err(OpenError::WarmUp)?;
            }
        }
        if run.device != DeviceName::Cpu
            && !model.pass_golden_run(folder).map_err(OpenError::Golden)?
        {
            notes(&format!(
                "warning: {} has no golden run, so nothing says that its engines answer rightly on \
                 {device}; `tandem verify --device {}` makes one",
                folder.display(),
                run.device
            ));
        }
        Ok(Self { model, block, sensors, backend })
    }

    /// The engines of the networks, in the order in which they run.
    pub fn engines(&self) -> Vec<&Arc<dyn Engine>> {
        self.model.engines()
    }

    /// Library and version that run the action expert, as records name them.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// The model's family and every option that it was loaded with.
    pub fn options(&self) -> &ModelBlock {
        &self.block
    }

    /// The sensors that the model reads.
    pub fn sensors(&self) -> SensorSuite {
        self.sensors.clone()
    }

    /// A driver at the start of a route, in the time mode of `run`; the model's options are those that
    /// the folder was opened with.
    ///
    /// # Errors
    /// The device has no memory left, or a thread cannot be started.
    pub fn pilot(&self, plan: &RoutePlan, run: &Run) -> Result<Box<dyn ModelDriver>, StartError> {
        self.model.pilot(plan, run)
    }

    /// The slow expert alone, at the start of a route.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn slow_expert(&self, plan: &RoutePlan) -> Result<Box<dyn SlowExpert>, StartError> {
        self.model.slow_expert(plan)
    }
}
