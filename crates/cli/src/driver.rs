//! Where models and worlds meet: a driver by name, made anew for every route.

use super::print;
use anyhow::Context;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use std::path::Path;
use tandem::pilot::{Delayed, Pace, PilotStatistics, RealTimeReport, Run, RunFile};
use tandem::runtime::{self, Loaded, ModelDriver};
use tandem::scene::{Driver, RoutePlan, SensorSuite};
use tandem_drivers::{Autopilot, ConstantSpeed, Idle};

/// Drivers that `--driver` can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DriverName {
    /// A model of this family, from an engine folder.
    Model(&'static str),
    Autopilot,
    ConstantSpeed,
    Idle,
}

/// Drivers that are not models, with their help.
const PLAIN: [(DriverName, &str); 3] = [
    (
        DriverName::Autopilot,
        "A privileged driver: it sees the truth, needs no engine, and drives well",
    ),
    (DriverName::ConstantSpeed, "Follows the route at one speed and sees nobody: a baseline"),
    (DriverName::Idle, "Never moves: a baseline"),
];

impl DriverName {
    /// Parser of `--driver`.
    pub(super) fn parser() -> impl TypedValueParser<Value = Self> {
        let models = runtime::families().into_iter().map(|family| {
            PossibleValue::new(family).help(format!("The model {family}, from an engine folder"))
        });
        let plain = PLAIN.map(|(driver, help)| PossibleValue::new(driver.as_str()).help(help));
        PossibleValuesParser::new(models.chain(plain))
            .map(|name| Self::named(&name).expect("only these names were offered"))
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Model(family) => family,
            Self::Autopilot => "autopilot",
            Self::ConstantSpeed => "constant-speed",
            Self::Idle => "idle",
        }
    }

    /// The driver that results name, if it is one of these.
    pub(super) fn named(name: &str) -> Option<Self> {
        let models = runtime::families().into_iter().map(Self::Model);
        let plain = PLAIN.map(|(driver, _)| driver);
        models.chain(plain).find(|driver| driver.as_str() == name)
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
        matches!(self, Self::Model(_))
    }

    /// Checks the model's options of `file` and, where a model drives, writes out those that have
    /// their defaults, so that records name all of them.
    pub(super) fn complete(self, file: &mut RunFile) -> anyhow::Result<()> {
        match (self, &file.model) {
            (Self::Model(family), block) => {
                file.model = Some(runtime::family(family)?.complete(block.as_ref())?);
            }
            (_, Some(block)) => runtime::check(block)?,
            (_, None) => {}
        }
        Ok(())
    }
}

/// What makes drivers.
pub(super) enum DriverFactory {
    /// Loaded networks and everything else that routes share.
    Model(Box<Loaded>),
    /// Nothing to share.
    Autopilot,
    /// Nothing to share.
    ConstantSpeed,
    /// Nothing to share.
    Idle,
}

/// A driver on its route.
pub(super) enum RouteDriver {
    Model(Box<dyn ModelDriver>),
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
            DriverName::Model(family) => {
                let folder = engine.with_context(|| {
                    format!(
                        "driver {family} needs --engine DIR, a folder that `tandem export` wrote"
                    )
                })?;
                Ok(Self::Model(Box::new(Loaded::open(folder, run, &mut print::note)?)))
            }
        }
    }

    /// The sensors that the driver wants.
    pub(super) fn sensors(&self) -> SensorSuite {
        match self {
            Self::Model(model) => model.sensors(),
            Self::Autopilot | Self::ConstantSpeed => {
                SensorSuite { truth: true, ..SensorSuite::default() }
            }
            Self::Idle => SensorSuite::default(),
        }
    }

    /// Library and version that run the networks.
    pub(super) fn backend(&self) -> Option<&str> {
        match self {
            Self::Model(model) => Some(model.backend()),
            Self::Autopilot | Self::ConstantSpeed | Self::Idle => None,
        }
    }

    /// A driver at the start of a route, in the time mode of `run`; all else is as `new` was told.
    pub(super) fn driver(&self, plan: &RoutePlan, run: &Run) -> anyhow::Result<RouteDriver> {
        let plain: Box<dyn Driver + Send> = match self {
            Self::Model(model) => return Ok(RouteDriver::Model(model.pilot(plan, run)?)),
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
            Self::Model(pilot) => &mut **pilot,
            Self::Plain(driver) => driver.as_mut(),
            Self::Delayed(delayed) => delayed.as_mut(),
        }
    }

    /// What came of the real-time options of the driver's own threads.
    pub(super) fn real_time(&self) -> RealTimeReport {
        match self {
            Self::Model(pilot) => pilot.real_time().clone(),
            Self::Plain(_) | Self::Delayed(_) => RealTimeReport::default(),
        }
    }

    /// What the pilot counted; `None` for drivers without one.
    pub(super) fn statistics(&self) -> Option<PilotStatistics> {
        match self {
            Self::Model(pilot) => Some(pilot.statistics()),
            Self::Delayed(delayed) => Some(delayed.statistics()),
            Self::Plain(_) => None,
        }
    }
}
