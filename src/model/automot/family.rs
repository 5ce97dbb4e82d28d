//! AutoMoT as a [`Family`].

use super::accuracy::{comparable, compare};
use super::golden::{GoldenError, GoldenRun};
use super::networks::{Contracts, Networks, NetworksError};
use super::planner::{PlanPoint, RoutePlanner, RoutePlannerConfig, THINNING_M, thin_plan};
use super::recording::{Recording, record};
use super::tokenizer::Tokenizer;
use super::tokens::InstructionMask;
use super::understanding::SetupError;
use super::{
    AutomotAction, AutomotOptions, AutomotPerception, AutomotUnderstanding, PerceptionOptions,
    Positions, ReferenceBehavior, UnderstandingOptions, sensors,
};
use crate::control::PathFollower;
use crate::device::DeviceError;
use crate::engine::{Engine, read_network};
use crate::kv_cache::SlotPool;
use crate::model::verification::{Comparison, Limits, RecordingInputs};
use crate::model::{Experts, Family, FamilyError, ModelOutline, OptionsError, Placement};
use crate::scene::{RoutePlan, SensorSuite};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tandem_export::automot::NAME;
use tandem_export::folder::TOKENIZER_FILE;

/// Loaded networks of AutoMoT, with the tokenizer and options for driving.
pub struct Automot {
    networks: Networks,
    tokenizer_file: PathBuf,
    options: AutomotOptions,
}

/// Error returned when two folders cannot be compared.
#[derive(Debug, thiserror::Error)]
enum FoldersError {
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the two folders have different tokenizers, so their prompts would differ")]
    Tokenizers,
}

impl Automot {
    /// Returns the loaded networks.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    fn tokenizer(&self) -> Result<Tokenizer, FamilyError> {
        Tokenizer::read(&self.tokenizer_file).map_err(FamilyError::new)
    }
}

impl Family for Automot {
    const NAME: &'static str = NAME;

    type Options = AutomotOptions;
    type Perception = AutomotPerception;
    type Recording = Recording;

    fn check(options: &AutomotOptions) -> Result<(), OptionsError> {
        options.check()
    }

    fn sensors(_: &AutomotOptions) -> SensorSuite {
        sensors()
    }

    fn outline(folder: &Path, options: &AutomotOptions) -> Result<ModelOutline, FamilyError> {
        Ok(Contracts::read(folder)?.outline(options.history_spacing_ticks as u64)?)
    }

    fn load(
        folder: &Path,
        placement: Placement,
        options: AutomotOptions,
    ) -> Result<Self, FamilyError> {
        let Placement { device, streams, fast, slow } = placement;
        let networks = Networks::load(folder, &*fast, &*slow)?.on(device, streams);
        let model = Self { networks, tokenizer_file: folder.join(TOKENIZER_FILE), options };
        model.tokenizer()?;
        Ok(model)
    }

    fn engines(&self) -> Vec<&Arc<dyn Engine>> {
        self.networks.engines().collect()
    }

    fn slots(&self, count: usize) -> Result<SlotPool, DeviceError> {
        SlotPool::new(&self.networks.device, self.networks.prefix, count)
    }

    fn experts(&self, plan: &RoutePlan) -> Result<Experts<AutomotPerception>, FamilyError> {
        let history_spacing_ticks = self.options.history_spacing_ticks;
        let instruction_mask = match self.options.instruction_mask {
            ReferenceBehavior::Release => InstructionMask::Causal,
            ReferenceBehavior::Trained => InstructionMask::Full,
        };
        let options = UnderstandingOptions {
            instruction_mask,
            history_spacing_ticks,
            ..UnderstandingOptions::default()
        };
        let understanding =
            AutomotUnderstanding::with_options(&self.networks, self.tokenizer()?, options)?;
        let points: Vec<PlanPoint> = plan.points.iter().map(PlanPoint::from).collect();
        let thinned = thin_plan(&points, THINNING_M).into_iter().map(|index| points[index]);
        let planner = RoutePlanner::new(thinned, RoutePlannerConfig::default());
        let positions = match self.options.positions {
            ReferenceBehavior::Release => Positions::ReleaseDrift,
            ReferenceBehavior::Trained => Positions::Trained,
        };
        let frames = understanding.frames_per_prompt();
        let jpeg_quality = self.options.jpeg_quality;
        let options = PerceptionOptions { jpeg_quality, history_spacing_ticks };
        Ok(Experts {
            perception: AutomotPerception::new(&self.networks, planner, frames, options)?,
            understanding: Box::new(understanding),
            action: Box::new(AutomotAction::new(&self.networks, positions)?),
            follower: Box::new(PathFollower::new(self.options.heuristics.into())),
            delays: self.options.latency_delays,
        })
    }

    fn check_companion(name: &str, file: &Path) -> Result<(), FamilyError> {
        if name == TOKENIZER_FILE {
            Tokenizer::read(file).map_err(FamilyError::new)?;
        }
        Ok(())
    }

    fn comparable(engine: &Path, reference: &Path) -> Result<(), FamilyError> {
        let folders = [engine, reference].map(|folder| {
            let networks = Contracts::read(folder)?;
            for contract in networks.iter() {
                // Also checks the built engine, before anything is run.
                read_network(folder, &contract.network).map_err(NetworksError::from)?;
            }
            let path = folder.join(TOKENIZER_FILE);
            let tokenizer = std::fs::read(&path)
                .map_err(|source| FamilyError::new(FoldersError::Read { path, source }))?;
            Ok::<_, FamilyError>((networks.merged(), tokenizer))
        });
        let [engine, reference] = folders;
        let ((engine, tokenizer), (reference, other)) = (engine?, reference?);
        comparable(engine.each_ref(), reference.each_ref()).map_err(FamilyError::new)?;
        if tokenizer != other {
            return Err(FamilyError::new(FoldersError::Tokenizers));
        }
        Ok(())
    }

    fn record(
        &self,
        inputs: RecordingInputs,
        done: &mut dyn FnMut(),
    ) -> Result<Recording, FamilyError> {
        record(&self.networks, self.tokenizer()?, inputs, done).map_err(FamilyError::new)
    }

    fn compare(
        engine: &Recording,
        reference: &Recording,
    ) -> Result<Box<dyn Comparison>, FamilyError> {
        let comparison = compare(engine, reference).map_err(FamilyError::new)?;
        Ok(Box::new(comparison))
    }

    fn golden_run(
        reference: &Recording,
        inputs: RecordingInputs,
        limits: Limits,
        graphs_sha256: BTreeMap<String, String>,
    ) -> Vec<u8> {
        let run = GoldenRun::of(reference, inputs, limits, graphs_sha256);
        serde_json::to_vec(&run).expect("a struct of numbers is serializable")
    }

    fn pass_golden_run(&self, folder: &Path) -> Result<bool, FamilyError> {
        let Some(golden) = GoldenRun::read(folder, &self.networks)? else { return Ok(false) };
        golden.pass(&self.networks, self.tokenizer()?)?;
        Ok(true)
    }
}

impl From<NetworksError> for FamilyError {
    fn from(error: NetworksError) -> Self {
        let rebuild = error.rebuild().cloned();
        Self::new(error).with_rebuild(rebuild.as_ref())
    }
}

impl From<SetupError> for FamilyError {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Networks(error) => error.into(),
            SetupError::Tokenizer(error) => Self::new(error),
        }
    }
}

impl From<GoldenError> for FamilyError {
    fn from(error: GoldenError) -> Self {
        Self::new(error)
    }
}
