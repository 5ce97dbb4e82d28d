//! What verbs that drive campaigns have in common: which routes, who drives, in how many processes.

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
    Campaign, CampaignPlan, DriveLimit, Driven, MOST_REPETITIONS, Ready, Shard, Share, Start,
    Worker, Workers, drive_with_workers, units,
};
use tandem_evaluation::routes::parse_routes;
use tandem_evaluation::scoring::TICK_CAP;

/// What every score of the embedded world is printed with.
pub(super) const NOTE: &str = "Scores of the embedded world are not CARLA scores.";

#[derive(clap::Args)]
pub(super) struct CampaignArguments {
    /// Route file in the Bench2Drive XML format
    #[arg(long, value_name = "FILE")]
    pub(super) routes: PathBuf,
    /// Folder that `tandem build` or `tandem export` wrote, if a model drives
    #[arg(long, value_name = "DIR")]
    engine: Option<PathBuf>,
    /// Who drives
    #[arg(long, value_parser = DriverName::parser())]
    pub(super) driver: DriverName,
    /// Folder for results; finished drives in it are kept and not driven again
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Run file (YAML): clock, periods, seed, threads; see configs/
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// OpenDRIVE map of the routes' town, or a folder with TOWN.xodr for each of their towns: real
    /// lanes instead of ones made from the route alone
    #[arg(long, value_name = "FILE|DIR")]
    map: Option<PathBuf>,
    /// Only these routes of the file, comma-separated ids
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    pub(super) only: Vec<String>,
    /// End a route after so many ticks
    #[arg(long, default_value_t = TICK_CAP, value_name = "TICKS")]
    tick_cap: u64,
    /// Drive every route so often, each time in a world with a seed of its own
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_REPETITIONS)))]
    pub(super) repetitions: u32,
    /// Drive so many routes at once, in a process each [default: the number of cores for drivers
    /// without networks in virtual time, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Drive only this part of all drives, INDEX/COUNT from 1/COUNT to COUNT/COUNT; shards may have
    /// one folder or one each (`tandem merge`)
    #[arg(long, value_name = "I/N", default_value_t = Shard::WHOLE)]
    shard: Shard,
    /// End a route's drive after so many seconds of real time and record it as failed
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    route_timeout: Option<u32>,
    /// Drive also what processes of other machines have claimed: say so only if they are dead
    #[arg(long)]
    take_over: bool,
    /// Be one of the processes of --jobs
    #[arg(long, hide = true)]
    worker: bool,
}

/// A process of a campaign.
pub(super) enum Role {
    /// One of the processes of `--jobs`.
    Worker(Worker),
    /// The one that the user started, which starts them.
    Supervisor {
        /// Set when it is to stop.
        cancel: Arc<AtomicBool>,
    },
}

/// What became of a campaign's process.
pub(super) enum Execution {
    /// Everything was driven that could be.
    Driven(Box<DrivenCampaign>),
    /// Nothing is left to do: a worker has ended, or nothing was driven.
    Over(Outcome),
}

/// A campaign as far as it was driven.
pub(super) struct DrivenCampaign {
    pub(super) campaign: Campaign,
    /// What is left.
    pub(super) share: Share,
    /// Library and version that run the networks.
    pub(super) backend: Option<String>,
    pub(super) tally: Tally,
    pub(super) maps: TownMaps,
}

/// The routes of a campaign, read.
struct RoutesToDrive {
    bytes: Vec<u8>,
    routes: Vec<Route>,
    maps: TownMaps,
}

impl CampaignArguments {
    /// The run file, or every key's default, with every option of the model.
    pub(super) fn run_file(&self) -> anyhow::Result<RunFile> {
        let mut file = match &self.run {
            Some(path) => RunFile::read(path, &mut self.notes())?,
            None => RunFile::default(),
        };
        self.driver.complete(&mut file)?;
        Ok(file)
    }

    /// Prints notes, unless the process that started this one does.
    fn notes(&self) -> impl FnMut(&str) + use<> {
        let is_worker = self.worker;
        move |text| {
            if !is_worker {
                print::note(text);
            }
        }
    }

    /// Reads routes, finds their maps, and checks that each route can be driven.
    fn read_routes(&self) -> anyhow::Result<RoutesToDrive> {
        let bytes = std::fs::read(&self.routes)
            .with_context(|| format!("cannot read route file {}", self.routes.display()))?;
        let routes = parse_routes(&bytes, &self.routes.display().to_string())?;
        let routes = select(routes, &self.only)?;
        let maps = TownMaps::find(self.map.as_deref(), &routes)?;
        // Workers are started for routes that were checked.
        if !self.worker {
            maps.check(&routes)?;
        }
        let maps = maps.without_warnings();
        Ok(RoutesToDrive { bytes, routes, maps })
    }

    /// How to drive every one of `variants`.
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

    /// What to drive. Each drive's motion goes to `motion`, if that is a folder.
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

    /// Does this process's part of the campaign: a worker drives, and the process that the user
    /// started has workers drive what is left.
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
                // A worker that said why it cannot go on has not crashed.
                return Ok(Execution::Over(Outcome::Done));
            }
            Role::Supervisor { cancel } => cancel,
        };
        let jobs = self.jobs(drive.run())?;
        let Some((driven, tally)) = self.supervise(&drive, plan, jobs, &cancel)? else {
            print::note("interrupted before the driver was loaded: nothing was driven");
            return Ok(Execution::Over(Outcome::CheckFailed));
        };
        let Driven { campaign, ready, share } = driven;
        let backend = ready.backend;
        let driven = DrivenCampaign { campaign, share, backend, tally, maps };
        Ok(Execution::Driven(Box::new(driven)))
    }

    /// Has worker processes drive what is left. Returns `None` if it was interrupted before a driver
    /// was loaded.
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
            tally.hear(campaign, event);
        })
        .map_err(workers::explained)?;
        tally.clear();
        Ok(driven.map(|driven| (driven, tally)))
    }

    /// Which process of the campaign this is. Asked first, so that it can be ended from then on.
    pub(super) fn role(&self) -> anyhow::Result<Role> {
        if self.worker {
            return Ok(Role::Worker(workers::become_worker()?));
        }
        Ok(Role::Supervisor { cancel: cancel_on_interrupt()? })
    }

    /// How many workers to have.
    fn jobs(&self, run: &Run) -> anyhow::Result<usize> {
        let is_alone = !self.driver.may_run_beside_others() || run.pace == Pace::Wall;
        let jobs = match self.jobs {
            Some(jobs) => usize::from(jobs),
            None if is_alone => 1,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        if jobs > 1 && run.real_time != RealTimeOptions::default() {
            bail!(
                "the run file's real_time block gives cores, priority or memory to one process, \
                 and {jobs} would get the same: leave the block out, or say --jobs 1"
            );
        }
        Ok(jobs)
    }
}

/// Drives, as one of the processes of `--jobs`.
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
    // Else the start was refused: the result folder stays as it is.
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
