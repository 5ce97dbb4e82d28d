//! Drivers by name. A new driver is created for every route.

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

/// Drivers that are not models, with their help texts.
const PLAIN: [(DriverName, &str); 3] = [
    (
        DriverName::Autopilot,
        "Privileged driver that reads the true state of the world and needs no engine",
    ),
    (DriverName::ConstantSpeed, "Baseline: follows the route at constant speed, ignores traffic"),
    (DriverName::Idle, "Baseline: never moves"),
];

impl DriverName {
    /// Returns the parser of `--driver`.
    pub(super) fn parser() -> impl TypedValueParser<Value = Self> {
        let models = runtime::families().into_iter().map(|family| {
            PossibleValue::new(family).help(format!("Model {family}, from an engine folder"))
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

    /// Returns the driver of this name, as results name it.
    pub(super) fn named(name: &str) -> Option<Self> {
        let models = runtime::families().into_iter().map(Self::Model);
        let plain = PLAIN.map(|(driver, _)| driver);
        models.chain(plain).find(|driver| driver.as_str() == name)
    }

    /// True if its ticks have a latency budget.
    pub(super) fn has_tick_budget(self) -> bool {
        self.is_model()
    }

    /// True if its drives run in parallel by default. Networks use all cores, so models do not.
    pub(super) fn runs_in_parallel(self) -> bool {
        !self.is_model()
    }

    fn is_model(self) -> bool {
        matches!(self, Self::Model(_))
    }

    /// Validates the model's options in `file`. If a model drives, also fills in the defaults, so
    /// that records contain all options.
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

/// Creates drivers, with everything that the routes share.
pub(super) enum DriverFactory {
    Model(Box<Loaded>),
    Autopilot,
    ConstantSpeed,
    Idle,
}

/// Driver of one route, created by [`DriverFactory::driver`].
pub(super) enum RouteDriver {
    Model(Box<dyn ModelDriver>),
    /// A driver that is not a model.
    Plain(Box<dyn Driver + Send>),
    /// A driver that is not a model, in virtual time.
    Delayed(Box<Delayed>),
}

impl DriverFactory {
    /// Loads the networks of `name`, if it is a model.
    pub(super) fn new(name: DriverName, engine: Option<&Path>, run: &Run) -> anyhow::Result<Self> {
        match name {
            DriverName::Autopilot => Ok(Self::Autopilot),
            DriverName::ConstantSpeed => Ok(Self::ConstantSpeed),
            DriverName::Idle => Ok(Self::Idle),
            DriverName::Model(family) => {
                let folder = engine.with_context(|| {
                    format!(
                        "driver {family} needs --engine DIR, a folder written by `tandem export`"
                    )
                })?;
                Ok(Self::Model(Box::new(Loaded::open(folder, run, &mut print::note)?)))
            }
        }
    }

    /// Returns the sensors that the driver requires.
    pub(super) fn sensors(&self) -> SensorSuite {
        match self {
            Self::Model(model) => model.sensors(),
            Self::Autopilot | Self::ConstantSpeed => {
                SensorSuite { truth: true, ..SensorSuite::default() }
            }
            Self::Idle => SensorSuite::default(),
        }
    }

    /// Returns the name and version of the library that runs the networks.
    pub(super) fn backend(&self) -> Option<&str> {
        match self {
            Self::Model(model) => Some(model.backend()),
            Self::Autopilot | Self::ConstantSpeed | Self::Idle => None,
        }
    }

    /// Creates a driver for a route, in the time mode of `run`.
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

    /// Returns the result of the real-time options of the driver's threads.
    pub(super) fn real_time(&self) -> RealTimeReport {
        match self {
            Self::Model(pilot) => pilot.real_time().clone(),
            Self::Plain(_) | Self::Delayed(_) => RealTimeReport::default(),
        }
    }

    /// Returns the pilot's counters; `None` for drivers without a pilot.
    pub(super) fn statistics(&self) -> Option<PilotStatistics> {
        match self {
            Self::Model(pilot) => Some(pilot.statistics()),
            Self::Delayed(delayed) => Some(delayed.statistics()),
            Self::Plain(_) => None,
        }
    }
}
