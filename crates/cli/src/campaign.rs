//! Arguments and execution of a campaign, shared by the verbs that drive: routes, driver,
//! processes.

use super::drive::{Drive, Tally, Variant, cancel_on_interrupt, sensor_icons};
use super::driver::{DriverFactory, DriverName};
use super::maps::TownMaps;
use super::{Outcome, ending, identity, print, workers};
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tandem::pilot::{Pace, RealTimeOptions, Run, RunFile};
use tandem::scene::Route;
use tandem_evaluation::campaign::{
    Campaign, CampaignPlan, DriveLimit, Driven, MAX_REPETITIONS, Ready, Remaining, Shard, Start,
    Worker, Workers, drive_with_workers, units,
};
use tandem_evaluation::routes::parse_routes;
use tandem_evaluation::scoring::TICK_CAP;

/// Note that is printed with every score of the embedded world.
pub(super) const NOTE: &str = "Scores of the embedded world are not CARLA scores.";

#[derive(clap::Args)]
pub(super) struct CampaignArguments {
    /// Route file in the Bench2Drive XML format
    #[arg(long, value_name = "FILE")]
    pub(super) routes: PathBuf,
    /// Engine folder or network folder of the model, from `tandem build` or `tandem export`
    #[arg(long, value_name = "DIR")]
    engine: Option<PathBuf>,
    /// Driver: a model or a baseline
    #[arg(long, value_parser = DriverName::parser())]
    pub(super) driver: DriverName,
    /// Result folder; finished drives in it are kept
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Run file (YAML): clock, periods, seed, device, threads; configs/run.yaml has all keys
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// OpenDRIVE map of the routes' town, or a folder with TOWN.xodr for each of their towns;
    /// without it, lanes are generated from the route
    #[arg(long, value_name = "FILE|DIR")]
    map: Option<PathBuf>,
    /// Drive only these routes, comma-separated ids
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    pub(super) only: Vec<String>,
    /// Maximum number of ticks per route
    #[arg(long, default_value_t = TICK_CAP, value_name = "TICKS")]
    tick_cap: u64,
    /// Number of drives per route, each in a world with a different seed
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_REPETITIONS)))]
    pub(super) repetitions: u32,
    /// Number of routes driven in parallel, each in its own process [default: the number of cores
    /// for drivers without networks unless the clock is `wall`, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Drive only this shard of all drives, 1/N to N/N; merge separate folders with `tandem merge`
    #[arg(long, value_name = "I/N", default_value_t = Shard::ALL)]
    shard: Shard,
    /// Maximum wall time per drive; then the drive is recorded as failed
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    route_timeout: Option<u32>,
    /// Also drive the routes claimed by processes of other machines; use only if those are dead
    #[arg(long)]
    take_over: bool,
    /// Run as one of the processes of --jobs
    #[arg(long, hide = true)]
    worker: bool,
}

/// Role of this process in a campaign.
pub(super) enum Role {
    /// One of the processes of `--jobs`.
    Worker(Worker),
    /// The process that the user started. It starts the workers and stops when `cancel` is set.
    Supervisor { cancel: Arc<AtomicBool> },
}

/// Result of this process's part of a campaign.
pub(super) enum Execution {
    /// The supervisor has driven everything that it could.
    Driven(Box<DrivenCampaign>),
    /// Nothing is left to do: a worker has ended, or nothing was driven.
    Ended(Outcome),
}

/// A campaign that this command has driven.
pub(super) struct DrivenCampaign {
    pub(super) campaign: Campaign,
    pub(super) remaining: Remaining,
    /// Library and version that run the networks.
    pub(super) backend: Option<String>,
    pub(super) tally: Tally,
    pub(super) maps: TownMaps,
}

/// Routes of a campaign with their maps.
struct RoutesToDrive {
    /// Content of the route file.
    bytes: Vec<u8>,
    routes: Vec<Route>,
    maps: TownMaps,
}

impl CampaignArguments {
    /// Returns the run file, or the default of every key, with all options of the model.
    pub(super) fn run_file(&self) -> anyhow::Result<RunFile> {
        let mut file = match &self.run {
            Some(path) => RunFile::read(path, &mut self.notes())?,
            None => RunFile::default(),
        };
        self.driver.complete(&mut file)?;
        Ok(file)
    }

    /// Returns a printer of notes. A worker prints none, as its supervisor prints them.
    fn notes(&self) -> impl FnMut(&str) + use<> {
        let is_worker = self.worker;
        move |text| {
            if !is_worker {
                print::note(text);
            }
        }
    }

    /// Reads the routes, finds their maps, and checks that each route can be driven.
    fn read_routes(&self) -> anyhow::Result<RoutesToDrive> {
        let bytes = std::fs::read(&self.routes)
            .with_context(|| format!("cannot read route file {}", self.routes.display()))?;
        let routes = parse_routes(&bytes, &self.routes.display().to_string())?;
        let routes = select(routes, &self.only)?;
        let maps = TownMaps::find(self.map.as_deref(), &routes)?;
        // The supervisor has checked the routes of its workers.
        if !self.worker {
            maps.check(&routes)?;
        }
        let maps = maps.without_warnings();
        Ok(RoutesToDrive { bytes, routes, maps })
    }

    /// Describes how to drive each of `variants`.
    fn drive<'a>(
        &'a self,
        route_file: &'a [u8],
        maps: &'a TownMaps,
        variants: &'a [Variant],
    ) -> Drive<'a> {
        Drive {
            route_file,
            driver: self.driver,
            variants,
            engine: self.engine.as_deref(),
            maps,
            tick_cap: self.tick_cap,
        }
    }

    /// Returns the plan of the campaign. Each drive's motion is written to the folder `motion`, if
    /// any.
    fn plan(&self, drive: &Drive<'_>, routes: Vec<Route>, motion: Option<PathBuf>) -> CampaignPlan {
        CampaignPlan {
            folder: self.out.clone(),
            repetitions: self.repetitions,
            routes,
            shard: self.shard,
            recorded_time: drive.recorded_time(),
            motion,
        }
    }

    /// Executes this process's part of the campaign: a worker drives, and the supervisor starts
    /// workers for the drives that are left.
    pub(super) fn execute(
        &self,
        role: Role,
        variants: &[Variant],
        motion: Option<PathBuf>,
    ) -> anyhow::Result<Execution> {
        let RoutesToDrive { bytes, routes, maps } = self.read_routes()?;
        let drive = self.drive(&bytes, &maps, variants);
        let plan = self.plan(&drive, routes, motion);
        let cancel = match role {
            Role::Worker(worker) => {
                if let Err(error) = work(&drive, plan, &worker) {
                    worker.fail(error.as_ref());
                }
                // A worker that reported an error has not crashed.
                return Ok(Execution::Ended(Outcome::Done));
            }
            Role::Supervisor { cancel } => cancel,
        };
        let jobs = self.jobs(drive.run())?;
        let Some((driven, tally)) = self.supervise(&drive, plan, jobs, &cancel)? else {
            print::note("interrupted before the driver was loaded: nothing was driven");
            return Ok(Execution::Ended(Outcome::CheckFailed));
        };
        let Driven { campaign, ready, remaining } = driven;
        let backend = ready.backend;
        let driven = DrivenCampaign { campaign, remaining, backend, tally, maps };
        Ok(Execution::Driven(Box::new(driven)))
    }

    /// Starts worker processes for the drives that are left. Returns `None` if it was interrupted
    /// before a driver was loaded.
    fn supervise(
        &self,
        drive: &Drive<'_>,
        plan: CampaignPlan,
        jobs: usize,
        cancel: &AtomicBool,
    ) -> anyhow::Result<Option<(Driven, Tally)>> {
        if let Some(folder) = drive.engine {
            identity::prepare(folder);
        }
        let drive_limit = self.route_timeout.map(|seconds| DriveLimit {
            after: Duration::from_secs(seconds.into()),
            note: format!("the drive took longer than --route-timeout {seconds}"),
        });
        let workers = Workers {
            count: jobs,
            command: &workers::command,
            drive_limit,
            on_text: &print::note,
            time_to_stop: ending::TIME_FOR_WORKERS,
        };
        let start =
            Start { check: &mut |campaign| Ok(drive.check(campaign)?), take_over: self.take_over };
        let drives = units(drive.variants.len(), plan.repetitions, plan.routes.len()).count();
        let mut tally = Tally::new(drives);
        let driven = drive_with_workers(plan, &workers, start, cancel, &mut |campaign, event| {
            tally.handle(campaign, event);
        })
        .map_err(workers::with_reason)?;
        tally.clear();
        Ok(driven.map(|driven| (driven, tally)))
    }

    /// Determines the role of this process. Called first, because it installs the signal handlers.
    pub(super) fn role(&self) -> anyhow::Result<Role> {
        if self.worker {
            return Ok(Role::Worker(workers::become_worker()?));
        }
        Ok(Role::Supervisor { cancel: cancel_on_interrupt()? })
    }

    /// Returns the number of worker processes.
    fn jobs(&self, run: &Run) -> anyhow::Result<usize> {
        let is_sequential = !self.driver.runs_in_parallel() || run.pace == Pace::Wall;
        let jobs = match self.jobs {
            Some(jobs) => usize::from(jobs),
            None if is_sequential => 1,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        if jobs > 1 && run.real_time != RealTimeOptions::default() {
            bail!(
                "the run file's real_time block assigns cores, priority or memory to one process, \
                 but --jobs is {jobs}: remove the block, or give --jobs 1"
            );
        }
        Ok(jobs)
    }
}

/// Drives as one of the processes of `--jobs`.
fn work(drive: &Drive<'_>, plan: CampaignPlan, worker: &Worker) -> anyhow::Result<()> {
    let real_time = drive.run().real_time.apply_process();
    let factory = DriverFactory::new(drive.driver, drive.engine, drive.run())?;
    let (settings, sensors) = (drive.settings(&factory)?, sensor_icons(&factory.sensors()));
    let backend = factory.backend().map(str::to_owned);
    let campaign = plan.with(settings.clone(), sensors.clone());
    if worker.wait_to_begin(Ready { settings, sensors, backend }) {
        worker.drive(
            &campaign,
            &mut drive.driving(&campaign, &factory, worker.cancel(), real_time),
        )?;
    }
    // Otherwise the supervisor refused to start, and the result folder is unchanged.
    Ok(())
}

fn select(routes: Vec<Route>, only: &[String]) -> anyhow::Result<Vec<Route>> {
    if only.is_empty() {
        return Ok(routes);
    }
    let is_in_file = |id: &str| routes.iter().any(|route| route.id.as_str() == id);
    if let Some(missing) = only.iter().find(|id| !is_in_file(id)) {
        bail!("the route file has no route {missing:?}");
    }
    Ok(routes.into_iter().filter(|route| only.iter().any(|id| route.id.as_str() == id)).collect())
}
