//! Where models and worlds meet: a driver by name, made anew for every route.

use super::print;
use anyhow::Context;
use clap::ValueEnum;
use std::path::Path;
use tandem::model::automot::AutomotPerception;
use tandem::pilot::{Delayed, Pace, Pilot, PilotStatistics, RealTimeReport, Run};
use tandem::runtime::Loaded;
use tandem::scene::{Driver, RoutePlan, SensorSuite};
use tandem_drivers::{Autopilot, ConstantSpeed, Idle};

/// Drivers that `--driver` can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
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

    /// The driver that results name, if it is one of these.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|driver| driver.as_str() == name)
    }

    /// Whether its ticks are measured against a budget.
    pub(super) fn has_tick_budget(self) -> bool {
        self.is_model()
    }

    /// Whether drives of it may run at once by default: networks use all cores.
    pub(super) fn may_run_beside_others(self) -> bool {
        !self.is_model()
    }

    /// Whether networks of an engine folder drive.
    fn is_model(self) -> bool {
        match self {
            Self::Automot => true,
            Self::Autopilot | Self::ConstantSpeed | Self::Idle => false,
        }
    }
}

/// What makes drivers.
pub(super) enum DriverFactory {
    /// Loaded networks and everything else that routes share.
    Automot(Box<Loaded>),
    /// Nothing to share.
    Autopilot,
    /// Nothing to share.
    ConstantSpeed,
    /// Nothing to share.
    Idle,
}

/// A driver on its route.
pub(super) enum RouteDriver {
    Automot(Box<Pilot<AutomotPerception>>),
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
                Ok(Self::Automot(Box::new(Loaded::open(folder, run, &mut print::note)?)))
            }
        }
    }

    /// The sensors that the driver wants.
    pub(super) fn sensors(&self) -> SensorSuite {
        match self {
            Self::Automot(automot) => automot.sensors(),
            Self::Autopilot | Self::ConstantSpeed => {
                SensorSuite { truth: true, ..SensorSuite::default() }
            }
            Self::Idle => SensorSuite::default(),
        }
    }

    /// Library and version that run the networks.
    pub(super) fn backend(&self) -> Option<&str> {
        match self {
            Self::Automot(automot) => Some(automot.backend()),
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
