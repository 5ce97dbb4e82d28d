//! Driving routes with one driver: what `eval` and `demo` share.

use super::driver::{DriverFactory, DriverName};
use super::latency::{Timed, schedule_file};
use super::maps::TownMaps;
use super::print;
use super::progress::{Counts, ProgressLines};
use super::{Outcome, ending};
use anyhow::Context;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tandem::pilot::{Pace, PilotStatistics, RealTimeReport, Run, RunFile, Schedule};
use tandem::scene::{Control, Observation, Route, SensorSuite, World};
use tandem::timing::{Stage, StageStatistics};
use tandem_evaluation::campaign::{
    Campaign, HeldElsewhere, Progress, Provenance, RecordedTime, RouteEnd, RouteOutcome, Setting,
    Shard, Share, Unit, Work, run_route, units,
};
use tandem_evaluation::scoring::{MergedTable, Record, Safety, route_id};
use tandem_files::shortened;
use tandem_world::{EmbeddedWorld, RealTime};

/// Ticks at the start of a route that latency statistics leave out: first runs, caches, page faults.
pub(super) const WARM_UP_TICKS: usize = 40;

/// Routes to drive, and how.
#[derive(Clone, Copy)]
pub(super) struct Drive<'a> {
    /// Where results go.
    pub(super) folder: &'a Path,
    pub(super) routes: &'a [Route],
    /// Drives of every route.
    pub(super) repetitions: u32,
    /// Which of all drives to make.
    pub(super) shard: Shard,
    /// The route file's bytes, for provenance.
    pub(super) route_file: &'a [u8],
    pub(super) driver: DriverName,
    /// What is run: one or more; all share what loads the networks.
    pub(super) variants: &'a [Variant],
    pub(super) engine: Option<&'a Path>,
    /// Real geometry.
    pub(super) maps: &'a TownMaps,
    pub(super) tick_cap: u64,
    /// Where to keep every drive's motion.
    pub(super) motion: Option<&'a Path>,
}

/// One way to run: a setting of the campaign.
pub(super) struct Variant {
    /// Its folder, where there are several.
    pub(super) name: String,
    pub(super) file: RunFile,
    pub(super) timed: Timed,
}

impl Variant {
    /// Checks `file` and reads what it names.
    pub(super) fn new(name: &str, file: RunFile) -> anyhow::Result<Self> {
        let timed = Timed::new(&file)?;
        Ok(Self { name: name.to_owned(), file, timed })
    }
}

/// What driving came to.
pub(super) struct Driven {
    pub(super) table: MergedTable,
    /// Whether it was stopped before the last drive.
    pub(super) is_cancelled: bool,
    /// Drives that processes of other machines may be at.
    pub(super) elsewhere: Vec<HeldElsewhere>,
    pub(super) counts: Counts,
    /// Latencies over all drives, earlier ones included.
    pub(super) statistics: StageStatistics,
    /// What pilots counted on the drives of this call.
    pub(super) pilot: Option<PilotStatistics>,
    /// What came of the real-time options.
    pub(super) real_time: RealTimeReport,
    /// Verdicts of finished drives.
    pub(super) records: Vec<Record>,
    /// Drives of the campaign, finished or not.
    pub(super) drives_total: usize,
}

/// What a call counts while it drives.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) share: Share,
    pub(super) counts: Counts,
    pub(super) pilot: Option<PilotStatistics>,
    pub(super) real_time: RealTimeReport,
}

/// The first drive's camera picture at its 40th tick, beside the results.
pub(super) const STILL_FILE: &str = "still.png";
const STILL_AT: u64 = 40;

/// What one drive leaves beside its outcome.
pub(super) struct Counted {
    pub(super) pilot: Option<PilotStatistics>,
    /// What came of the real-time options of the drive's threads.
    pub(super) real_time: RealTimeReport,
}

impl<'a> Drive<'a> {
    /// Drives, in this process, everything that has no result yet.
    pub(super) fn all(
        &self,
        factory: &DriverFactory,
        real_time: &RealTimeReport,
        cancel: &AtomicBool,
    ) -> anyhow::Result<Driven> {
        let (settings, sensors) = (self.settings(factory)?, sensor_icons(&factory.sensors()));
        let campaign = self.campaign(&settings, &sensors);
        self.check(&campaign)?;
        let mut tally = Tally { real_time: real_time.clone(), ..Tally::default() };
        let lines = RefCell::new(ProgressLines::new(campaign.units().count()));
        let mut is_first = true;
        let share = campaign.drive(
            cancel,
            &mut |progress| match progress {
                Progress::Kept { .. } => lines.borrow_mut().kept(1),
                Progress::Started { unit, .. } => {
                    lines.borrow_mut().started(0, &campaign.route_id(unit));
                }
                Progress::Finished { unit, record } => {
                    let took_s = campaign.wall_time(unit).map_or(0.0, |wall| wall.took_s);
                    lines.borrow_mut().finished(0, record, took_s);
                }
            },
            &mut |work| {
                let mut tick = |tick| lines.borrow_mut().tick(0, tick);
                let (outcome, counted) = self.one(work, factory, cancel, &mut tick)?;
                if std::mem::take(&mut is_first) {
                    tally.real_time.add(&counted.real_time);
                    tally.real_time.warn();
                }
                if let Some(counted) = counted.pilot {
                    tally.pilot.get_or_insert_default().add(&counted);
                }
                Ok(outcome)
            },
        )?;
        let mut lines = lines.into_inner();
        lines.clear();
        (tally.share, tally.counts) = (share, lines.counts());
        self.collect(&campaign, tally)
    }

    /// Checks that every drive of the shard that is left has the latencies that it replays; roads
    /// were checked when routes were read. Called before the result folder is written to, so that a
    /// start that is refused leaves nothing in it.
    pub(super) fn check(&self, campaign: &Campaign<'_>) -> anyhow::Result<()> {
        for unit in campaign.units().filter(|&unit| campaign.record(unit).is_none()) {
            let route = &self.routes[unit.route];
            let timed = &self.variants[unit.setting].timed;
            timed
                .for_drive(timed.run.seed, &route.id, unit.repetition)
                .with_context(|| format!("cannot drive route {}", route.id))?;
        }
        Ok(())
    }

    /// One drive; `tick` hears of every tick.
    pub(super) fn one(
        &self,
        work: Work<'_>,
        factory: &DriverFactory,
        cancel: &AtomicBool,
        tick: &mut dyn FnMut(u64),
    ) -> anyhow::Result<(RouteOutcome, Counted)> {
        let Unit { setting, repetition, .. } = work.unit;
        let run = self.variants[setting].timed.for_drive(work.seed, &work.route.id, repetition)?;
        let map = self.maps.of(work.route)?;
        let world = EmbeddedWorld::on(work.route, factory.sensors(), work.seed, map)?;
        let mut driver = factory.driver(world.plan(), &run)?;
        let mut world: Box<dyn World> = match run.pace {
            Pace::Lockstep | Pace::Virtual(_) => Box::new(world),
            Pace::Wall => Box::new(RealTime::new(world)),
        };
        let is_first = work.unit == Unit { setting: 0, repetition: 0, route: 0 };
        let mut still = None;
        let mut schedule = Schedule::default();
        let mut watch = |observation: &Observation, control: &Control| {
            tick(observation.frame.0);
            schedule.note(&control.report);
            if is_first && observation.frame.0 == STILL_AT {
                still = observation
                    .camera
                    .as_ref()
                    .map(|camera| (camera.width, camera.height, camera.rgb.clone()));
            }
        };
        // The driver's threads run by now, and do not inherit what the tick thread is given.
        let tick_thread = run.real_time.apply_tick_thread();
        let mut real_time = driver.real_time();
        real_time.add(tick_thread.report());
        let driving = driver.as_driver();
        let outcome = run_route(world.as_mut(), driving, self.tick_cap, cancel, &mut watch);
        drop(tick_thread);
        if !schedule.is_empty() && outcome.end != RouteEnd::Cancelled {
            let folder = match self.variants {
                [_] => self.folder.to_owned(),
                many => self.folder.join(&many[setting].name),
            };
            schedule.write(&schedule_file(&folder, &route_id(&work.route.id, repetition)))?;
        }
        if let Some((width, height, rgb)) = still {
            print::whole_file(&self.folder.join(STILL_FILE), &png_of(width, height, &rgb)?)?;
        }
        let pilot = driver
            .statistics()
            .map(|counted| PilotStatistics { ticks_unanswered: world.ticks_missed(), ..counted });
        Ok((outcome, Counted { pilot, real_time }))
    }

    /// The campaign that this is.
    pub(super) fn campaign(self, settings: &'a [Setting], sensors: &'a [String]) -> Campaign<'a> {
        Campaign {
            folder: self.folder,
            settings,
            repetitions: self.repetitions,
            routes: self.routes,
            shard: self.shard,
            recorded_time: match self.run().pace {
                Pace::Lockstep | Pace::Virtual(_) => RecordedTime::Simulated,
                Pace::Wall => RecordedTime::Wall,
            },
            sensors,
            motion: self.motion,
        }
    }

    /// What the folder holds when driving has ended, whoever drove it.
    pub(super) fn collect(&self, campaign: &Campaign<'_>, tally: Tally) -> anyhow::Result<Driven> {
        let table = campaign.table(0)?;
        let mut statistics = StageStatistics::new();
        let mut records = Vec::new();
        for unit in units(1, self.repetitions, self.routes.len()) {
            let id = campaign.route_id(unit);
            let record = table.records().find(|record| record.route_id == id);
            let Some(record) = record else { continue };
            let log = campaign.read_log(unit)?;
            statistics.merge(&log.statistics(WARM_UP_TICKS));
            records.push(record.clone());
        }
        Ok(Driven {
            drives_total: table.total(),
            table,
            is_cancelled: tally.share.is_cancelled,
            elsewhere: tally.share.elsewhere,
            counts: tally.counts,
            statistics,
            pilot: tally.pilot,
            real_time: tally.real_time,
            records,
        })
    }

    /// The first way to run; others differ from it in latencies alone.
    pub(super) fn run(&self) -> &'a Run {
        &self.variants[0].timed.run
    }

    /// What is run, in the order of the variants.
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

    /// What maps, the engine's folder and its library add to all that decides results.
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

impl Driven {
    /// The score table and its one-line summary.
    pub(super) fn scores(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .records
            .iter()
            .map(|record| {
                vec![
                    shortened(&record.route_id),
                    record.status.clone(),
                    format!("{:.2}", record.scores.score_route.value()),
                    format!("{:.3}", record.scores.score_penalty),
                    format!("{:.2}", record.scores.score_composed),
                    record.num_infractions.to_string(),
                    format!("{:.1}", record.meta.duration_game),
                ]
            })
            .collect();
        let header = ["route", "status", "completion", "penalty", "score", "infractions", "game s"];
        let mut notes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for record in &self.records {
            for note in &record.notes {
                notes.entry(note).or_default().push(shortened(&record.route_id));
            }
        }
        let notes = notes.iter().fold(String::new(), |out, (note, routes)| {
            format!("{out}{}: {note}\n", routes.join(", "))
        });
        format!("{}\n{notes}{}", print::table(&header, &rows), self.table)
    }

    /// What scores do not show of drives that have something to show, as a table.
    pub(super) fn safety_table(&self) -> Option<String> {
        let with = self.records.iter().filter_map(|record| Some((record, record.safety?)));
        let rows: Vec<Vec<String>> = with
            .map(|(record, safety)| {
                let counts = [
                    safety.commands_held,
                    safety.answers_not_finite,
                    safety.prefills_failed,
                    safety.filter_restarts,
                ];
                let ages = [safety.oldest_prefix_s, safety.oldest_camera_s, safety.oldest_lidar_s];
                let counts = counts.map(|count| count.to_string());
                let ages = ages.map(|age| format!("{age:.2}"));
                [&[record.route_id.clone()][..], &counts, &ages].concat()
            })
            .collect();
        let header = [
            "route",
            "held",
            "not finite",
            "prefills failed",
            "filter restarts",
            "oldest prefix s",
            "camera s",
            "LiDAR s",
        ];
        (!rows.is_empty()).then(|| print::table(&header, &rows))
    }

    /// The same over all drives.
    pub(super) fn safety(&self) -> Safety {
        total_safety(&self.records)
    }

    /// Where the results come from, and which drives ended by a failure of software, in one line.
    pub(super) fn origins(&self) -> String {
        let Counts { kept, driven, workers_died } = self.counts;
        let (crashed, failed) = (self.ended("Simulation crashed"), self.ended("Agent crashed"));
        let others = self.table.finished.saturating_sub(kept + driven);
        let timed_out = match self.ended("Wall-time limit") {
            0 => String::new(),
            drives => format!(", {drives} ended by --route-timeout"),
        };
        format!(
            "{driven} driven now, {kept} kept from before, {others} by other processes; \
             {workers_died} workers died now; of all, {crashed} given up after crashes of workers, \
             {failed} ended by a failure of the driver{timed_out}"
        )
    }

    fn ended(&self, words: &str) -> usize {
        self.records.iter().filter(|record| record.status.contains(words)).count()
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        let stages: BTreeMap<&str, _> = Stage::all()
            .iter()
            .copied()
            .filter_map(|stage| Some((stage.name(), self.statistics.stage(stage).summary()?)))
            .collect();
        serde_json::json!({
            "results": self.table,
            "campaign": {
                "finished": self.table.finished,
                "total": self.table.total(),
                "kept": self.counts.kept,
                "driven": self.counts.driven,
                "workers_died": self.counts.workers_died,
                "simulation_crashed": self.ended("Simulation crashed"),
                "driver_failed": self.ended("Agent crashed"),
                "wall_time_limit": self.ended("Wall-time limit"),
                "held_elsewhere": self.elsewhere.iter().map(|h| &h.route_id).collect::<Vec<_>>(),
            },
            "is_interrupted": self.is_cancelled,
            "latency": {
                "percentiles": "nearest rank over ticks after warm-up",
                "warm_up_ticks": WARM_UP_TICKS,
                "ticks": self.statistics.ticks(),
                "deadline_misses": self.statistics.deadline_misses(),
                "ticks_without_prefix": self.statistics.ticks_without_prefix(),
                "stages": stages,
                "prefix_age": self.statistics.prefix_age().summary(),
            },
            "safety": self.safety(),
            "pilot": self.pilot,
            "real_time": self.real_time,
        })
    }
}

/// Counts and greatest ages over all of `records`.
pub(super) fn total_safety(records: &[Record]) -> Safety {
    let mut total = Safety::default();
    records.iter().filter_map(|record| record.safety).for_each(|safety| total.add(&safety));
    total
}

/// Says which faults of a model drives were made with, if there were any. Their scores are those of a
/// broken model, not of a bad driver.
pub(super) fn check_safety(safety: &Safety) -> Outcome {
    match safety.faults() {
        None => Outcome::Done,
        Some(faults) => {
            print::note(&format!(
                "check failed: {faults}: these scores are those of a broken model; look at its weights \
                 (tandem verify) and at the sensors' readings"
            ));
            Outcome::CheckFailed
        }
    }
}

/// Latencies per stage, for people.
pub(super) fn latency_table(statistics: &StageStatistics) -> String {
    let rows: Vec<Vec<String>> = Stage::all()
        .iter()
        .copied()
        .filter_map(|stage| {
            let summary = statistics.stage(stage).summary()?;
            let misses = if stage == Stage::TICK {
                statistics.deadline_misses().to_string()
            } else {
                String::new()
            };
            let [p50, p99, max] = [summary.p50_ns, summary.p99_ns, summary.max_ns].map(millis);
            Some(vec![stage.name().to_owned(), summary.count.to_string(), p50, p99, max, misses])
        })
        .collect();
    format!(
        "{}\nmilliseconds, nearest rank, the first {WARM_UP_TICKS} ticks of each route left out",
        print::table(&["stage", "count", "p50", "p99", "max", "misses"], &rows)
    )
}

/// Age of the prefix that ticks acted on, in one line.
pub(super) fn prefix_age_line(statistics: &StageStatistics) -> String {
    let without = statistics.ticks_without_prefix();
    match statistics.prefix_age().summary() {
        None => "no tick had a prefix".to_owned(),
        Some(age) => format!(
            "prefix age: p50 {} ms, p99 {} ms, max {} ms over {} ticks; {without} ticks without a prefix",
            millis(age.p50_ns),
            millis(age.p99_ns),
            millis(age.max_ns),
            age.count
        ),
    }
}

fn millis(nanos: u64) -> String {
    format!("{:.3}", nanos as f64 / 1e6)
}

/// A flag that Ctrl-C sets, for loops that look at it every tick.
pub(super) fn cancel_on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    ending::cancel_on_signal("stopping after this tick")
}

/// The benchmark's name of each declared sensor.
pub(super) fn sensor_icons(suite: &SensorSuite) -> Vec<String> {
    let camera = suite.camera.map(|_| "carla_camera");
    let lidar = suite.lidar.map(|_| "carla_lidar");
    let always = ["carla_imu", "carla_gnss", "carla_speedometer"];
    camera.into_iter().chain(lidar).chain(always).map(str::to_owned).collect()
}

fn png_of(width: u32, height: u32, rgb: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(rgb)?;
    Ok(file)
}
