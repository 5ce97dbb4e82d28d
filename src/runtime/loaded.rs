//! A loaded engine folder, and the drivers made from it.

use super::{Notes, OpenError, Placement, StartError};
use crate::control::{Localizer, PathFollower, StateFilterConfig};
use crate::engine::warm_up;
use crate::kv_cache::SlotPool;
use crate::model::automot::golden::GoldenRun;
use crate::model::automot::planner::{
    PlanPoint, RoutePlanner, RoutePlannerConfig, THINNING_M, thin_plan,
};
use crate::model::automot::tokenizer::Tokenizer;
use crate::model::automot::tokens::InstructionMask;
use crate::model::automot::{
    AutomotAction, AutomotPerception, AutomotUnderstanding, Networks, PerceptionOptions, Positions,
    SENSORS, UnderstandingOptions,
};
use crate::model::{Delays, Experts};
use crate::pilot::{DeviceName, Parity, Pilot, Run};
use crate::scene::{RoutePlan, SensorSuite};
use std::path::{Path, PathBuf};
use tandem_export::folder::TOKENIZER_FILE;

/// Slots of a KV cache: one read by action steps, one written by the prefill, one in between.
pub const KV_SLOTS: usize = 3;

/// A loaded engine folder.
pub struct Loaded {
    networks: Networks,
    tokenizer_file: PathBuf,
    run: Run,
    backend: String,
}

impl Loaded {
    /// Loads the networks of `folder`, which `tandem export` or `tandem build` wrote, to be run as
    /// `run` says: its device, threads, cores, and the model's options.
    ///
    /// # Errors
    /// A file, a library or the device is missing, the folder was built for another machine, or its
    /// golden run has other answers than this device gives.
    pub fn open(folder: &Path, run: &Run, notes: &mut Notes<'_>) -> Result<Self, OpenError> {
        Self::on(Placement::of(folder, run, None, notes)?, folder, run, notes)
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
        Self::on(Placement::of(folder, run, Some(operators), notes)?, folder, run, notes)
    }

    fn on(
        placement: Placement,
        folder: &Path,
        run: &Run,
        notes: &mut Notes<'_>,
    ) -> Result<Self, OpenError> {
        let Placement { device, lanes, fast, slow } = placement;
        let networks = Networks::load(folder, &*fast, &*slow)
            .map_err(|source| OpenError::Networks {
                folder: folder.to_owned(),
                source: Box::new(source),
            })?
            .on(device, lanes);
        if run.real_time.readies_memory() {
            for engine in networks.engines() {
                warm_up(engine).map_err(OpenError::WarmUp)?;
            }
        }
        let tokenizer_file = folder.join(TOKENIZER_FILE);
        let tokenizer = Tokenizer::read(&tokenizer_file)?;
        if run.device != DeviceName::Cpu {
            match GoldenRun::read(folder, &networks)? {
                Some(golden) => golden.pass(&networks, tokenizer)?,
                None => notes(&format!(
                    "warning: {} has no golden run, so nothing says that its engines answer rightly \
                     on {}; `tandem verify --device {}` makes one",
                    folder.display(),
                    networks.device.name(),
                    run.device
                )),
            }
        }
        Ok(Self { networks, tokenizer_file, run: run.clone(), backend: fast.name() })
    }

    /// The loaded networks.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Library and version that run the action expert, as records name them.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// The sensors that the model reads.
    pub fn sensors(&self) -> SensorSuite {
        SENSORS
    }

    /// The model's parts at the start of a route.
    ///
    /// # Errors
    /// The tokenizer is gone, or the device has no memory left.
    pub fn experts(&self, plan: &RoutePlan) -> Result<Experts<AutomotPerception>, StartError> {
        let tokenizer = Tokenizer::read(&self.tokenizer_file)?;
        let history_spacing_ticks = self.run.history_spacing_ticks;
        let instruction_mask = match self.run.instruction_mask {
            Parity::Release => InstructionMask::Causal,
            Parity::Trained => InstructionMask::Full,
        };
        let options = UnderstandingOptions {
            instruction_mask,
            history_spacing_ticks,
            ..UnderstandingOptions::default()
        };
        let understanding = AutomotUnderstanding::with_options(&self.networks, tokenizer, options)
            .map_err(Box::new)?;
        let points: Vec<PlanPoint> = plan.points.iter().map(PlanPoint::from).collect();
        let thinned = thin_plan(&points, THINNING_M).into_iter().map(|index| points[index]);
        let planner = RoutePlanner::new(thinned, RoutePlannerConfig::default());
        let positions = match self.run.positions {
            Parity::Release => Positions::ReleaseDrift,
            Parity::Trained => Positions::Trained,
        };
        let frames = understanding.frames_per_prompt();
        let jpeg_quality = self.run.jpeg_quality;
        let options = PerceptionOptions { jpeg_quality, history_spacing_ticks };
        let perception =
            AutomotPerception::new(&self.networks, planner, frames, options).map_err(Box::new)?;
        let action = AutomotAction::new(&self.networks, positions).map_err(Box::new)?;
        Ok(Experts {
            perception,
            understanding: Box::new(understanding),
            action: Box::new(action),
            follower: Box::new(PathFollower::new(self.run.heuristics.into())),
            delays: Delays::Command,
        })
    }

    /// [`KV_SLOTS`] slots for the prefixes of one driver.
    ///
    /// # Errors
    /// The device has no memory left for them.
    pub fn slots(&self) -> Result<SlotPool, StartError> {
        Ok(SlotPool::new(&self.networks.device, self.networks.prefix, KV_SLOTS)?)
    }

    /// A driver at the start of a route, in the time mode of `run`; the model's options are those that
    /// the folder was opened with.
    ///
    /// # Errors
    /// The device has no memory left, or a thread cannot be started.
    pub fn pilot(
        &self,
        plan: &RoutePlan,
        run: &Run,
    ) -> Result<Pilot<AutomotPerception>, StartError> {
        Pilot::new(
            run,
            self.experts(plan)?,
            Localizer::new(StateFilterConfig::default(), plan.reference),
            self.slots()?,
        )
        .map_err(StartError::Pilot)
    }
}
