//! What verbs that drive campaigns have in common: which routes, who drives, in how many processes.

use super::drive::{Drive, Tally, Variant, cancel_on_interrupt, sensor_icons};
use super::driver::{DriverFactory, DriverName};
use super::identity;
use super::maps::TownMaps;
use super::print;
use super::progress::ProgressLines;
use super::workers::{Event, Message, Ready, Told, supervise};
use anyhow::{Context, bail};
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tandem::pilot::{Pace, RealTimeOptions, Run, RunFile};
use tandem::scene::Route;
use tandem_evaluation::campaign::{Campaign, MOST_REPETITIONS, Progress, Shard, Unit, units};
use tandem_evaluation::routes::parse_routes;
use tandem_evaluation::scoring::TICK_CAP;

/// Ticks between two lines in which a worker says where it is.
const TICKS_PER_LINE: u64 = 20;

/// What every score of the embedded world is printed with.
pub(super) const NOTE: &str = "Scores of the embedded world are not CARLA scores.";

#[derive(clap::Args)]
pub(super) struct CampaignArguments {
    /// Route file in the Bench2Drive XML format
    #[arg(long, value_name = "FILE")]
    pub(super) routes: PathBuf,
    /// Folder that `tandem build` or `tandem export` wrote (driver automot)
    #[arg(long, value_name = "DIR")]
    engine: Option<PathBuf>,
    /// Who drives
    #[arg(long, value_enum)]
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
    Worker(Told),
    /// The one that the user started, which starts them.
    Supervisor {
        /// Set when it is to stop.
        cancel: Arc<AtomicBool>,
    },
}

/// The routes of a campaign, read.
pub(super) struct RoutesToDrive {
    bytes: Vec<u8>,
    pub(super) routes: Vec<Route>,
    pub(super) maps: TownMaps,
}

impl CampaignArguments {
    /// The run file, or every key's default.
    pub(super) fn run_file(&self) -> anyhow::Result<RunFile> {
        Ok(self.run.as_deref().map(RunFile::read).transpose()?.unwrap_or_default())
    }

    /// Reads routes, finds their maps, and checks that each route can be driven.
    pub(super) fn read_routes(&self) -> anyhow::Result<RoutesToDrive> {
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

    /// What to drive, in every one of `variants`.
    pub(super) fn drive<'a>(
        &'a self,
        read: &'a RoutesToDrive,
        variants: &'a [Variant],
    ) -> Drive<'a> {
        Drive {
            folder: &self.out,
            routes: &read.routes,
            repetitions: self.repetitions,
            shard: self.shard,
            route_file: &read.bytes,
            driver: self.driver,
            variants,
            engine: self.engine.as_deref(),
            maps: &read.maps,
            tick_cap: self.tick_cap,
            motion: None,
        }
    }

    /// Which process of the campaign this is. Asked first, so that it can be ended from then on.
    pub(super) fn role(&self) -> anyhow::Result<Role> {
        if self.worker {
            return Ok(Role::Worker(Told::listen()?));
        }
        Ok(Role::Supervisor { cancel: cancel_on_interrupt()? })
    }

    /// How many workers to have.
    pub(super) fn jobs(&self, run: &Run) -> anyhow::Result<usize> {
        let is_alone = self.driver == DriverName::Automot || run.pace == Pace::Wall;
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

/// Drives in worker processes what is left. Returns what the first one told and what was counted;
/// `None` if it was interrupted before a driver was loaded.
pub(super) fn drive_with_workers(
    drive: &Drive<'_>,
    jobs: usize,
    asked: &CampaignArguments,
    cancel: &AtomicBool,
) -> anyhow::Result<Option<(Ready, Tally)>> {
    if let Some(folder) = drive.engine {
        identity::prepare(folder);
    }
    let limit = asked.route_timeout.map(|seconds| Duration::from_secs(seconds.into()));
    let units = units(drive.variants.len(), drive.repetitions, drive.routes.len()).count();
    let mut ready: Option<Ready> = None;
    let mut tally = Tally::default();
    let mut lines = ProgressLines::new(units);
    supervise(jobs, limit, cancel, &mut |event| {
        if let Event::Ready(told) = event {
            let campaign = drive.campaign(&told.settings, &told.sensors);
            drive.check(&campaign)?;
            campaign.open()?;
            if asked.take_over {
                match campaign.take_over()? {
                    0 => {}
                    taken => print::note(&format!("{taken} claims of other machines are void now")),
                }
            }
            lines = ProgressLines::new(campaign.units().count());
            lines.kept(campaign.units().filter(|&unit| campaign.record(unit).is_some()).count());
            ready = Some(told);
            return Ok(());
        }
        let told = ready.as_ref().expect("the first event says that a worker is ready");
        let campaign = drive.campaign(&told.settings, &told.sensors);
        match event {
            Event::Ready(_) => {}
            Event::Died { worker, unit, how } => match campaign.record(unit) {
                // It died between its result and its word that there is one.
                Some(record) => lines.finished(worker, &record, took_s(&campaign, unit)),
                None => {
                    campaign.note_crash(unit, &how)?;
                    lines.died(worker, &campaign.route_id(unit), &how);
                }
            },
            Event::TimedOut { worker, unit } => match campaign.record(unit) {
                Some(record) => lines.finished(worker, &record, took_s(&campaign, unit)),
                None => {
                    let limit = asked.route_timeout.expect("without a limit nothing times out");
                    let how = format!("the drive took longer than --route-timeout {limit}");
                    campaign.note_timeout(unit, &how)?;
                    lines.timed_out(worker, &campaign.route_id(unit), &how);
                }
            },
            Event::Told { worker, message } => match message {
                Message::Started { unit } => {
                    let id = campaign.route_id(unit);
                    let name = match drive.variants {
                        [_] => id,
                        many => format!("{} {id}", many[unit.setting].name),
                    };
                    lines.started(worker, &name);
                }
                Message::Tick { tick } => lines.tick(worker, tick),
                Message::Finished { unit, pilot } => {
                    if let Some(counted) = pilot {
                        tally.pilot.get_or_insert_default().add(&counted);
                    }
                    if let Some(record) = campaign.record(unit) {
                        lines.finished(worker, &record, took_s(&campaign, unit));
                    }
                }
                Message::RealTime(report) => tally.real_time = report,
                Message::Ended(share) => tally.share = share,
                Message::Ready(_) | Message::Failed { .. } => {}
            },
        }
        Ok(())
    })?;
    lines.clear();
    let Some(ready) = ready else {
        print::note("interrupted before the driver was loaded: nothing was driven");
        return Ok(None);
    };
    let campaign = drive.campaign(&ready.settings, &ready.sensors);
    tally.counts = lines.counts();
    // What a worker was stopped at, and what died with the last one, is left.
    let is_left = |unit| campaign.record(unit).is_none();
    tally.share.elsewhere.retain(|held| is_left(held.unit));
    let left = campaign.units().filter(|&unit| is_left(unit)).count();
    tally.share.is_cancelled = left > tally.share.elsewhere.len();
    Ok(Some((ready, tally)))
}

fn took_s(campaign: &Campaign<'_>, unit: Unit) -> f64 {
    campaign.wall_time(unit).map_or(0.0, |wall| wall.took_s)
}

/// One of the processes of `--jobs`.
pub(super) fn work(drive: &Drive<'_>, told: &Told) -> anyhow::Result<()> {
    let mut real_time = drive.run().real_time.apply_process();
    let factory = DriverFactory::new(drive.driver, drive.engine, drive.run())?;
    let (settings, sensors) = (drive.settings(&factory)?, sensor_icons(&factory.sensors()));
    let backend = factory.backend().map(str::to_owned);
    told.ready(Ready { settings: settings.clone(), sensors: sensors.clone(), backend });
    if told.cancel().load(Ordering::Relaxed) {
        // The start was refused: the result folder stays as it is.
        return Ok(());
    }
    let campaign = drive.campaign(&settings, &sensors);
    let mut is_first = true;
    let counted = Cell::new(None);
    let share = campaign.drive(
        told.cancel(),
        &mut |progress| match progress {
            Progress::Kept { .. } => {}
            Progress::Started { unit, .. } => told.tell(&Message::Started { unit }),
            Progress::Finished { unit, .. } => {
                told.tell(&Message::Finished { unit, pilot: counted.take() });
            }
        },
        &mut |work| {
            let mut tick = |tick: u64| {
                if tick.is_multiple_of(TICKS_PER_LINE) {
                    told.tell(&Message::Tick { tick });
                }
            };
            let (outcome, done) = drive.one(work, &factory, told.cancel(), &mut tick)?;
            counted.set(done.pilot);
            if std::mem::take(&mut is_first) {
                real_time.add(&done.real_time);
                real_time.warn();
                told.tell(&Message::RealTime(real_time.clone()));
            }
            Ok(outcome)
        },
    )?;
    told.tell(&Message::Ended(share));
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
