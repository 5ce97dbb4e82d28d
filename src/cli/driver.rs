//! Where models and worlds meet: a driver by name, made anew for every route.

use super::placement::Placement;
use super::print;
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
    ActionOptions, AutomotAction, AutomotUnderstanding, Networks, Positions, SENSORS,
    UnderstandingOptions,
};
use crate::pilot::{
    Delayed, DeviceName, Pace, Parity, Pilot, PilotStatistics, RealTimeReport, Run,
};
use crate::scene::{Driver, RoutePlan, SensorSuite};
use crate::world::{Autopilot, ConstantSpeed, Idle};
use anyhow::Context;
use std::path::{Path, PathBuf};

/// Slots of a KV cache: one read, one written, one on its way between the two.
const KV_SLOTS: usize = 3;

/// Drivers that `--driver` can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum DriverName {
    /// The AutoMoT model, from an engine folder
    Automot,
    /// A privileged driver: it sees the truth, needs no engine, and drives well
    Autopilot,
    /// Follows the route at one speed and sees nobody: a baseline
    ConstantSpeed,
    /// Never moves: a baseline
    Idle,
}

impl DriverName {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Automot => "automot",
            Self::Autopilot => "autopilot",
            Self::ConstantSpeed => "constant-speed",
            Self::Idle => "idle",
        }
    }
}

/// What makes drivers.
pub(super) enum DriverFactory {
    /// Loaded networks and everything else that routes share.
    Automot(Box<Automot>),
    /// Nothing to share.
    Autopilot,
    /// Nothing to share.
    ConstantSpeed,
    /// Nothing to share.
    Idle,
}

/// AutoMoT, loaded.
pub(super) struct Automot {
    pub(super) networks: Networks,
    tokenizer_file: PathBuf,
    run: Run,
    /// Library and version, for records.
    pub(super) backend: String,
}

/// A driver on its route.
pub(super) enum RouteDriver {
    Automot(Box<Pilot>),
    /// A driver without experts.
    Plain(Box<dyn Driver + Send>),
    /// The same in virtual time.
    Delayed(Box<Delayed>),
}

impl DriverFactory {
    /// Loads what `name` needs.
    pub(super) fn new(name: DriverName, engine: Option<&Path>, run: &Run) -> anyhow::Result<Self> {
        match name {
            DriverName::Autopilot => Ok(Self::Autopilot),
            DriverName::ConstantSpeed => Ok(Self::ConstantSpeed),
            DriverName::Idle => Ok(Self::Idle),
            DriverName::Automot => {
                let folder = engine.context(
                    "driver automot needs --engine DIR, a folder that `tandem export` wrote",
                )?;
                Ok(Self::Automot(Box::new(Automot::load(folder, run, None)?)))
            }
        }
    }

    /// The sensors that the driver wants.
    pub(super) fn sensors(&self) -> SensorSuite {
        match self {
            Self::Automot(_) => SENSORS,
            Self::Autopilot | Self::ConstantSpeed => {
                SensorSuite { truth: true, ..SensorSuite::default() }
            }
            Self::Idle => SensorSuite::default(),
        }
    }

    /// Library and version that run the networks.
    pub(super) fn backend(&self) -> Option<&str> {
        match self {
            Self::Automot(automot) => Some(&automot.backend),
            Self::Autopilot | Self::ConstantSpeed | Self::Idle => None,
        }
    }

    /// A driver at the start of a route, in the time mode of `run`; all else is as `new` was told.
    pub(super) fn driver(&self, plan: &RoutePlan, run: &Run) -> anyhow::Result<RouteDriver> {
        let plain: Box<dyn Driver + Send> = match self {
            Self::Automot(automot) => {
                return Ok(RouteDriver::Automot(Box::new(automot.pilot(plan, run)?)));
            }
            Self::Autopilot => Box::new(Autopilot::new()),
            Self::ConstantSpeed => Box::new(ConstantSpeed::default()),
            Self::Idle => Box::new(Idle),
        };
        Ok(match &run.pace {
            Pace::Virtual(latencies) => {
                RouteDriver::Delayed(Box::new(Delayed::new(plain, latencies.clone(), run)))
            }
            Pace::Lockstep | Pace::Wall => RouteDriver::Plain(plain),
        })
    }
}

impl Automot {
    /// Loads the networks of `folder`, to be run as `run` says; with `operators`, a folder, so that
    /// they measure their operators into it.
    pub(super) fn load(folder: &Path, run: &Run, operators: Option<&Path>) -> anyhow::Result<Self> {
        let Placement { device, lanes, fast, slow } = Placement::of(folder, run, operators)?;
        let networks = Networks::load(folder, &*fast, &*slow)
            .with_context(|| format!("loading engine folder {}", folder.display()))?
            .on(device, lanes);
        if run.real_time.readies_memory() {
            for engine in networks.engines() {
                warm_up(engine).context("running the networks before the first tick")?;
            }
        }
        let name = fast.name();
        let tokenizer_file = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::read(&tokenizer_file)?;
        if run.device != DeviceName::Cpu {
            match GoldenRun::read(folder, &networks)? {
                Some(golden) => golden.pass(&networks, tokenizer)?,
                None => print::note(&format!(
                    "warning: {} has no golden run, so nothing says that its engines answer rightly \
                     on {}; `tandem verify --device {}` makes one",
                    folder.display(),
                    networks.device.name(),
                    run.device
                )),
            }
        }
        Ok(Self { networks, tokenizer_file, run: run.clone(), backend: name })
    }

    /// Both experts at the start of a route.
    pub(super) fn experts(
        &self,
        plan: &RoutePlan,
    ) -> anyhow::Result<(AutomotUnderstanding, AutomotAction)> {
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
        let understanding = AutomotUnderstanding::with_options(&self.networks, tokenizer, options)?;
        let points: Vec<PlanPoint> = plan.points.iter().map(PlanPoint::from).collect();
        let thinned = thin_plan(&points, THINNING_M).into_iter().map(|index| points[index]);
        let planner = RoutePlanner::new(thinned, RoutePlannerConfig::default());
        let positions = match self.run.positions {
            Parity::Release => Positions::ReleaseDrift,
            Parity::Trained => Positions::Trained,
        };
        let frames = understanding.frames_per_prompt();
        let jpeg_quality = self.run.jpeg_quality;
        let options = ActionOptions { positions, jpeg_quality, history_spacing_ticks };
        let action = AutomotAction::new(&self.networks, planner, frames, options)?;
        Ok((understanding, action))
    }

    /// Slots for the prefixes of one driver.
    ///
    /// # Errors
    /// If the device has no memory left for them.
    pub(super) fn slots(&self) -> anyhow::Result<SlotPool> {
        Ok(SlotPool::new(&self.networks.device, self.networks.prefix, KV_SLOTS)?)
    }

    /// A pilot at the start of a route, running as `run` says.
    pub(super) fn pilot(&self, plan: &RoutePlan, run: &Run) -> anyhow::Result<Pilot> {
        let (understanding, action) = self.experts(plan)?;
        Pilot::new(
            run,
            Box::new(understanding),
            Box::new(action),
            Localizer::new(StateFilterConfig::default(), plan.reference),
            PathFollower::new(self.run.heuristics.into()),
            self.slots()?,
        )
        .context("starting the two experts")
    }
}

impl RouteDriver {
    pub(super) fn as_driver(&mut self) -> &mut dyn Driver {
        match self {
            Self::Automot(pilot) => pilot.as_mut(),
            Self::Plain(driver) => driver.as_mut(),
            Self::Delayed(delayed) => delayed.as_mut(),
        }
    }

    /// What came of the real-time options of the driver's own threads.
    pub(super) fn real_time(&self) -> RealTimeReport {
        match self {
            Self::Automot(pilot) => pilot.real_time().clone(),
            Self::Plain(_) | Self::Delayed(_) => RealTimeReport::default(),
        }
    }

    /// What the pilot counted; `None` for drivers without one.
    pub(super) fn statistics(&self) -> Option<PilotStatistics> {
        match self {
            Self::Automot(pilot) => Some(pilot.statistics()),
            Self::Delayed(delayed) => Some(delayed.statistics()),
            Self::Plain(_) => None,
        }
    }
}
