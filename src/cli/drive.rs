//! Driving routes with one driver: what `eval` and `demo` share.

use super::driver::{DriverFactory, DriverName};
use super::print;
use crate::engine::EngineFolder;
use crate::evaluation::campaign::{Campaign, CampaignSummary, Progress, Provenance};
use crate::evaluation::log::RouteLog;
use crate::evaluation::record::{Record, RouteIdentity};
use crate::evaluation::run::run_route;
use crate::pilot::{Pace, PilotStatistics, RealTimeReport, Run, RunFile};
use crate::scene::{Route, SensorSuite};
use crate::timing::{Stage, StageStatistics};
use crate::world::{EmbeddedWorld, RealTime, World};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Ticks at the start of a route that latency statistics leave out: first runs, caches, page faults.
pub(super) const WARM_UP_TICKS: usize = 40;

/// Routes to drive, and how.
pub(super) struct Drive<'a> {
    /// Where results go.
    pub(super) folder: &'a Path,
    pub(super) routes: &'a [Route],
    /// The route file's bytes, for provenance.
    pub(super) route_file: &'a [u8],
    pub(super) driver: DriverName,
    pub(super) factory: &'a DriverFactory,
    pub(super) run_file: &'a RunFile,
    pub(super) run: &'a Run,
    /// What came of the process's real-time options.
    pub(super) real_time: &'a RealTimeReport,
    pub(super) engine: Option<&'a Path>,
    pub(super) tick_cap: u64,
}

/// What driving came to.
pub(super) struct Driven {
    pub(super) summary: CampaignSummary,
    /// Latencies over all routes, earlier ones included.
    pub(super) statistics: StageStatistics,
    /// What pilots counted on the routes of this call.
    pub(super) pilot: Option<PilotStatistics>,
    /// What came of the real-time options.
    pub(super) real_time: RealTimeReport,
    /// Each finished route's drive, tick by tick.
    pub(super) logs: Vec<(Record, RouteLog)>,
    /// A camera picture taken on the way.
    pub(super) still: Option<Still>,
    /// Routes of the campaign, finished or not.
    pub(super) routes_total: usize,
}

/// A camera picture, RGB.
pub(super) struct Still {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rgb: Vec<u8>,
}

impl Still {
    /// The picture as a PNG file.
    pub(super) fn to_png(&self) -> anyhow::Result<Vec<u8>> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&self.rgb)?;
        Ok(file)
    }
}

/// The tick at which the still is taken.
const STILL_AT: u64 = 40;

impl Drive<'_> {
    /// Drives every route that has no result yet.
    pub(super) fn all(&self, cancel: &AtomicBool) -> anyhow::Result<Driven> {
        let suite = self.factory.sensors();
        let provenance =
            Provenance::new(self.route_file, self.run.seed, self.driver.as_str(), self.settings()?);
        let sensors = sensor_icons(&suite);
        let campaign = Campaign {
            folder: self.folder,
            provenance: &provenance,
            routes: self.routes,
            presets: None,
            sensors: &sensors,
        };
        let bar = ticks_bar();
        let total = self.routes.len();
        let mut progress = |progress: Progress<'_>| match progress {
            Progress::Skipped { record, .. } => {
                bar.println(format!("{} is finished already, kept", record.route_id));
            }
            Progress::Started { index, route } => {
                bar.set_position(0);
                bar.set_length(self.tick_cap);
                let driver = self.driver.as_str();
                bar.set_message(format!("{driver}: route {} ({} of {total})", route.id, index + 1));
            }
            Progress::Finished { record, .. } => bar.println(format!(
                "{}: {}, driving score {:.2}",
                record.route_id, record.status, record.scores.score_composed
            )),
        };
        let mut pilot: Option<PilotStatistics> = None;
        let mut still = None;
        let mut real_time = self.real_time.clone();
        let mut is_first = true;
        let summary = campaign.run(cancel, &mut progress, &mut |route| {
            let world = EmbeddedWorld::new(route, suite, self.run.seed)?;
            let mut driver = self.factory.driver(world.plan())?;
            let mut world: Box<dyn World> = match self.run.pace {
                Pace::Virtual { .. } => Box::new(world),
                Pace::Wall => Box::new(RealTime::new(world)),
            };
            let mut watch = |observation: &crate::scene::Observation, _: &crate::scene::Control| {
                bar.set_position(observation.frame.0);
                if let Some(camera) = &observation.camera
                    && still.is_none()
                    && observation.frame.0 == STILL_AT
                {
                    let (width, height) = (camera.width, camera.height);
                    still = Some(Still { width, height, rgb: camera.rgb.clone() });
                }
            };
            // The driver's threads run by now, and do not inherit what the tick thread is given.
            let tick_thread = self.run.real_time.apply_tick_thread();
            if std::mem::take(&mut is_first) {
                real_time.add(&driver.real_time());
                real_time.add(tick_thread.report());
                real_time.warn();
            }
            let driving = driver.as_driver();
            let outcome = run_route(world.as_mut(), driving, self.tick_cap, cancel, &mut watch);
            drop(tick_thread);
            if let Some(counted) = driver.statistics() {
                pilot.get_or_insert_default().add(&counted);
            }
            Ok(outcome)
        })?;
        bar.finish_and_clear();

        let mut statistics = StageStatistics::new();
        let mut logs = Vec::new();
        for route in self.routes {
            let id = RouteIdentity::new(route, None, 0).route_id;
            let record = summary.table.records().find(|record| record.route_id == id);
            let Some(record) = record else { continue };
            let log = campaign.read_log(&id)?;
            statistics.merge(&log.statistics(WARM_UP_TICKS));
            logs.push((record.clone(), log));
        }
        let routes_total = self.routes.len();
        Ok(Driven { summary, statistics, pilot, real_time, logs, still, routes_total })
    }

    /// Everything beside routes, seed and driver that decides results.
    fn settings(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut settings = BTreeMap::new();
        settings.insert("tick cap".to_owned(), self.tick_cap.to_string());
        settings.insert("run".to_owned(), serde_json::to_string(self.run_file)?);
        settings.insert("routes".to_owned(), {
            let ids: Vec<String> = self.routes.iter().map(|route| route.id.to_string()).collect();
            ids.join(",")
        });
        if let Some(folder) = self.engine {
            let path = folder.join(tandem_export::folder::SUMMARY_FILE);
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let summary: tandem_export::folder::Summary = serde_json::from_str(&text)
                .with_context(|| format!("{} is not an export's summary", path.display()))?;
            settings.insert("checkpoint headers (SHA-256)".to_owned(), summary.headers_sha256);
            for (network, hash) in summary.networks {
                settings.insert(format!("{network} (SHA-256)"), hash);
            }
            for network in EngineFolder::read(folder)?.iter().flat_map(|e| &e.record.networks) {
                let name = format!("{} engine (SHA-256)", network.contract.network);
                settings.insert(name, network.engine.sha256.clone());
            }
        }
        if let Some(backend) = self.factory.backend() {
            settings.insert("back end".to_owned(), backend.to_owned());
        }
        Ok(settings)
    }
}

impl Driven {
    /// The score table and its one-line summary.
    pub(super) fn scores(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .logs
            .iter()
            .map(|(record, _)| {
                vec![
                    record.route_id.clone(),
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
        format!("{}\n{}", print::table(&header, &rows), self.summary.table)
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        let stages: BTreeMap<&str, _> = Stage::ALL
            .into_iter()
            .filter_map(|stage| Some((stage.name(), self.statistics.stage(stage).summary()?)))
            .collect();
        serde_json::json!({
            "results": self.summary.table,
            "is_interrupted": self.summary.is_cancelled,
            "latency": {
                "percentiles": "nearest rank over ticks after warm-up",
                "warm_up_ticks": WARM_UP_TICKS,
                "ticks": self.statistics.ticks(),
                "deadline_misses": self.statistics.deadline_misses(),
                "ticks_without_prefix": self.statistics.ticks_without_prefix(),
                "stages": stages,
                "prefix_age": self.statistics.prefix_age().summary(),
            },
            "pilot": self.pilot,
            "real_time": self.real_time,
        })
    }
}

/// Latencies per stage, for people.
pub(super) fn latency_table(statistics: &StageStatistics) -> String {
    let rows: Vec<Vec<String>> = Stage::ALL
        .into_iter()
        .filter_map(|stage| {
            let summary = statistics.stage(stage).summary()?;
            let misses = match stage {
                Stage::Tick => statistics.deadline_misses().to_string(),
                _ => String::new(),
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
    cancel_saying("stopping after this tick")
}

/// A flag that Ctrl-C sets, saying `what` comes of it; a second Ctrl-C ends the process.
pub(super) fn cancel_saying(what: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        print::note(&format!("\n{what}; press Ctrl-C again to end at once"));
    })
    .context("cannot watch for Ctrl-C")?;
    Ok(cancel)
}

/// The benchmark's name of each declared sensor.
fn sensor_icons(suite: &SensorSuite) -> Vec<String> {
    let camera = suite.camera.map(|_| "carla_camera");
    let lidar = suite.lidar.map(|_| "carla_lidar");
    let always = ["carla_imu", "carla_gnss", "carla_speedometer"];
    camera.into_iter().chain(lidar).chain(always).map(str::to_owned).collect()
}

fn ticks_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} tick {pos}, {per_sec}")
        .expect("the template is a constant");
    let bar = ProgressBar::new(0).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
