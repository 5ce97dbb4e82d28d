//! Single drives of a campaign: world, driver and the files of a drive.

use super::driver::{DriverFactory, DriverName};
use super::ending;
use super::latency::{Timed, schedule_file};
use super::maps::TownMaps;
use super::print;
use super::progress::{Counts, ProgressLines};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tandem::pilot::{Pace, PilotStatistics, RealTimeReport, Run, RunFile, Schedule};
use tandem::scene::{Control, Observation, SensorSuite, World};
use tandem_evaluation::campaign::{
    Campaign, DriveResult, DriveTask, Event, Provenance, RecordedTime, RouteEnd, RouteOutcome,
    Setting, Unit, run_route,
};
use tandem_evaluation::scoring::route_id;
use tandem_world::{EmbeddedWorld, RealTime};

/// How the routes of a campaign are driven.
#[derive(Clone, Copy)]
pub(super) struct Drive<'a> {
    /// Content of the route file, for provenance.
    pub(super) route_file: &'a [u8],
    pub(super) driver: DriverName,
    /// One or more variants, which differ in latencies only and share the loaded networks.
    pub(super) variants: &'a [Variant],
    pub(super) engine: Option<&'a Path>,
    pub(super) maps: &'a TownMaps,
    pub(super) tick_cap: u64,
}

/// A run file with its latencies: one setting of the campaign.
pub(super) struct Variant {
    /// Name of the setting's folder, if the campaign has several.
    pub(super) name: String,
    pub(super) file: RunFile,
    pub(super) timed: Timed,
}

impl Variant {
    /// Validates `file` and reads the recordings that it names.
    pub(super) fn new(name: &str, file: RunFile) -> anyhow::Result<Self> {
        let timed = Timed::new(&file)?;
        Ok(Self { name: name.to_owned(), file, timed })
    }
}

/// Report of a drive in addition to its outcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DriveReport {
    /// `None` for drivers without a pilot, and for cancelled drives.
    pilot: Option<PilotStatistics>,
    /// Result of the real-time options; `Some` for the first drive of a process only.
    real_time: Option<RealTimeReport>,
}

/// Progress lines and counts of the drives of this command.
pub(super) struct Tally {
    lines: ProgressLines,
    pub(super) pilot: Option<PilotStatistics>,
    pub(super) real_time: RealTimeReport,
}

impl Tally {
    /// Creates the tally of `total` drives; opening the campaign corrects the number.
    pub(super) fn new(total: usize) -> Self {
        let (pilot, real_time) = (None, RealTimeReport::default());
        Self { lines: ProgressLines::new(total), pilot, real_time }
    }

    /// Shows and counts one event.
    pub(super) fn handle(&mut self, campaign: &Campaign, event: Event<DriveReport>) {
        match event {
            Event::Opened { kept, taken_over } => {
                if taken_over > 0 {
                    print::note(&format!("took over {taken_over} claims of other machines"));
                }
                self.lines = ProgressLines::new(campaign.units().count());
                self.lines.kept(kept);
            }
            Event::Started { worker, unit } => {
                let id = campaign.route_id(unit);
                let name = match &campaign.settings[..] {
                    [_] => id,
                    many => format!("{} {id}", many[unit.setting].name),
                };
                self.lines.started(worker, &name);
            }
            Event::Tick { worker, tick } => self.lines.tick(worker, tick),
            Event::Report(report) => {
                if let Some(counted) = report.pilot {
                    self.pilot.get_or_insert_default().add(&counted);
                }
                if let Some(real_time) = report.real_time {
                    self.real_time = real_time;
                }
            }
            Event::Finished { worker, record, took_s } => {
                self.lines.finished(worker, &record, took_s);
            }
            Event::Died { worker, unit, how } => {
                self.lines.died(worker, &campaign.route_id(unit), &how);
            }
            Event::TimedOut { worker, unit, note } => {
                self.lines.timed_out(worker, &campaign.route_id(unit), &note);
            }
        }
    }

    /// Clears the progress lines.
    pub(super) fn clear(&mut self) {
        self.lines.clear();
    }

    pub(super) fn counts(&self) -> Counts {
        self.lines.counts()
    }
}

/// File in the result folder with the camera image of the first drive at tick [`STILL_AT`].
pub(super) const STILL_FILE: &str = "still.png";
const STILL_AT: u64 = 40;

impl<'a> Drive<'a> {
    /// Checks that every drive left in the shard has the latencies that it replays; roads were
    /// checked when routes were read. Called before anything is written to the result folder, so a
    /// refused start leaves it unchanged.
    pub(super) fn check(&self, campaign: &Campaign) -> anyhow::Result<()> {
        for unit in campaign.units().filter(|&unit| campaign.record(unit).is_none()) {
            let route = &campaign.routes[unit.route];
            let timed = &self.variants[unit.setting].timed;
            timed
                .for_drive(timed.run.seed, &route.id, unit.repetition)
                .with_context(|| format!("cannot drive route {}", route.id))?;
        }
        Ok(())
    }

    /// Returns a function that makes single drives of `campaign`. `real_time` is the result of the
    /// process's real-time options.
    pub(super) fn driving<'b>(
        &'b self,
        campaign: &'b Campaign,
        factory: &'b DriverFactory,
        cancel: &'b AtomicBool,
        mut real_time: RealTimeReport,
    ) -> impl FnMut(DriveTask<'_>, &mut dyn FnMut(u64)) -> DriveResult<DriveReport> + 'b {
        let mut is_first = true;
        move |task, on_tick| {
            let (outcome, pilot, of_threads) =
                self.drive_unit(campaign, task, factory, cancel, on_tick)?;
            let real_time = std::mem::take(&mut is_first).then(|| {
                real_time.add(&of_threads);
                real_time.warn();
                real_time.clone()
            });
            let pilot = pilot.filter(|_| outcome.end != RouteEnd::Cancelled);
            Ok((outcome, DriveReport { pilot, real_time }))
        }
    }

    /// Makes one drive and calls `on_tick` at every tick. Also returns the pilot's counters and the
    /// result of the real-time options of the drive's threads.
    fn drive_unit(
        &self,
        campaign: &Campaign,
        task: DriveTask<'_>,
        factory: &DriverFactory,
        cancel: &AtomicBool,
        on_tick: &mut dyn FnMut(u64),
    ) -> anyhow::Result<(RouteOutcome, Option<PilotStatistics>, RealTimeReport)> {
        let Unit { setting, repetition, .. } = task.unit;
        let run = self.variants[setting].timed.for_drive(task.seed, &task.route.id, repetition)?;
        let map = self.maps.of(task.route)?;
        let world = EmbeddedWorld::on(task.route, factory.sensors(), task.seed, map)?;
        let mut driver = factory.driver(world.plan(), &run)?;
        let mut world: Box<dyn World> = match run.pace {
            Pace::Lockstep | Pace::Virtual(_) => Box::new(world),
            Pace::Wall => Box::new(RealTime::new(world)),
        };
        let is_first = task.unit == Unit { setting: 0, repetition: 0, route: 0 };
        let mut still = None;
        let mut schedule = Schedule::default();
        let mut watch = |observation: &Observation, control: &Control| {
            on_tick(observation.frame.0);
            schedule.add(&control.report);
            if is_first && observation.frame.0 == STILL_AT {
                still = observation
                    .cameras
                    .first()
                    .map(|camera| (camera.width, camera.height, camera.rgb.clone()));
            }
        };
        // The driver's threads are running already, so they do not inherit the tick thread's
        // settings.
        let tick_thread = run.real_time.apply_tick_thread();
        let mut real_time = driver.real_time();
        real_time.add(tick_thread.report());
        let driving = driver.as_driver();
        let outcome = run_route(world.as_mut(), driving, self.tick_cap, cancel, &mut watch);
        drop(tick_thread);
        if !schedule.is_empty() && outcome.end != RouteEnd::Cancelled {
            let folder = campaign.setting_folder(setting);
            schedule.write(&schedule_file(&folder, &route_id(&task.route.id, repetition)))?;
        }
        if let Some((width, height, rgb)) = still {
            print::write_file(&campaign.folder.join(STILL_FILE), &png_of(width, height, &rgb)?)?;
        }
        let pilot = driver
            .statistics()
            .map(|counted| PilotStatistics { ticks_unanswered: world.ticks_missed(), ..counted });
        Ok((outcome, pilot, real_time))
    }

    /// Returns the clock of the times in the records of these drives.
    pub(super) fn recorded_time(&self) -> RecordedTime {
        match self.run().pace {
            Pace::Lockstep | Pace::Virtual(_) => RecordedTime::Simulated,
            Pace::Wall => RecordedTime::Wall,
        }
    }

    /// Returns the run of the first variant; the others differ from it in latencies only.
    pub(super) fn run(&self) -> &'a Run {
        &self.variants[0].timed.run
    }

    /// Returns the settings of the campaign, in the order of the variants.
    pub(super) fn settings(&self, factory: &DriverFactory) -> anyhow::Result<Vec<Setting>> {
        let driver = self.driver.as_str();
        let engine = self.engine_values(factory.backend())?;
        let setting = |variant: &Variant| -> anyhow::Result<Setting> {
            let mut values = engine.clone();
            values.insert("tick cap".to_owned(), self.tick_cap.to_string());
            values.insert("run".to_owned(), serde_json::to_string(&variant.file)?);
            values.extend(variant.timed.provenance.clone());
            if !variant.timed.emulated.is_empty() {
                values.insert("hardware".to_owned(), variant.timed.emulated.join("; "));
            }
            let seed = variant.timed.run.seed;
            let provenance = Provenance::new(self.route_file, seed, driver, values);
            Ok(Setting { name: variant.name.clone(), provenance })
        };
        self.variants.iter().map(setting).collect()
    }

    /// Returns the settings from maps, engine folder and library that affect results.
    fn engine_values(&self, backend: Option<&str>) -> anyhow::Result<BTreeMap<String, String>> {
        let mut settings = BTreeMap::new();
        if let Some(folder) = self.engine {
            settings = super::identity::of(folder)?;
        }
        if let Some(backend) = backend {
            settings.insert("back end".to_owned(), backend.to_owned());
        }
        settings.extend(self.maps.provenance());
        Ok(settings)
    }
}

/// Returns a flag that Ctrl-C sets, for loops that read it at every tick.
pub(super) fn cancel_on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    ending::cancel_on_signal("stopping after this tick")
}

/// Returns the benchmark's name of each declared sensor.
pub(super) fn sensor_icons(suite: &SensorSuite) -> Vec<String> {
    let cameras = suite.cameras.iter().map(|_| "carla_camera");
    let lidar = suite.lidar.map(|_| "carla_lidar");
    let always = ["carla_imu", "carla_gnss", "carla_speedometer"];
    cameras.chain(lidar).chain(always).map(str::to_owned).collect()
}

fn png_of(width: u32, height: u32, rgb: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(rgb)?;
    Ok(file)
}
