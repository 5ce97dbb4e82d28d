//! Campaigns on a straight road with a point mass as vehicle: files written, drives skipped,
//! folders refused.

use glam::DVec3;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tandem::scene::{
    Allowances, Cameras, Command, Control, DriveError, Driver, EgoState, FrameId, GeoReference,
    Gnss, Imu, LaneMap, LanePoint, Observation, Pose, RoadOption, Route, RoutePlan, RoutePoint,
    WeatherKeyframe, World, WorldState,
};
use tandem::timing::{Span, Stage, Timestamp};
use tandem_evaluation::campaign::{
    CRASHES_ALLOWED, Campaign, CampaignError, CampaignSummary, DriveTask, Progress, Provenance,
    RecordedTime, Remaining, RouteEnd, RouteOutcome, Setting, Shard, run_route,
};
use tandem_evaluation::scoring::{Checkpoint, Ending, TICK_CAP};
use tandem_world::RealTime;

/// A world with one lane along x.
struct StraightRoad {
    plan: Arc<RoutePlan>,
    state: WorldState,
    frame: u64,
    /// Commands of all steps.
    commands: Arc<Mutex<Vec<Command>>>,
}

impl StraightRoad {
    fn new(length_m: u32) -> Self {
        let points = (0..=length_m)
            .map(|x| RoutePoint {
                position: DVec3::new(f64::from(x), 0.0, 0.0),
                heading_rad: 0.0,
                command: RoadOption::LaneFollow,
                is_junction: false,
            })
            .collect();
        let ego = EgoState {
            pose: Pose::new(0.5, 0.0, 0.0),
            z_m: 0.0,
            speed_mps: 0.0,
            yaw_rate_radps: 0.0,
            acceleration_mps2: 0.0,
            extent_m: [2.4, 0.9, 0.7],
        };
        Self {
            plan: Arc::new(RoutePlan { points, reference: GeoReference::default() }),
            state: WorldState {
                time_s: 0.05,
                ego,
                actors: Vec::new(),
                collisions: Vec::new(),
                background_speeds_mps: Vec::new(),
                speed_limit_kmh: 50.0,
                traffic_lights: Vec::new(),
                stop_signs: Vec::new(),
                scenarios: Vec::new(),
                allowances: Allowances::default(),
            },
            frame: 1,
            commands: Arc::default(),
        }
    }
}

impl LaneMap for StraightRoad {
    fn driving_lane(&self, place: DVec3) -> LanePoint {
        LanePoint {
            position: DVec3::new(place.x, 0.0, 0.0),
            heading_rad: 0.0,
            width_m: 3.5,
            road_id: 1,
            lane_id: -1,
            is_junction: false,
        }
    }

    fn parking_lane(&self, _place: DVec3) -> Option<LanePoint> {
        None
    }
}

impl World for StraightRoad {
    fn observe(&mut self) -> Observation {
        Observation {
            frame: FrameId(self.frame),
            time: Timestamp::after(Duration::from_millis(50 * self.frame)),
            cameras: Cameras::NONE,
            lidar: None,
            imu: Imu::default(),
            gnss: Gnss::default(),
            speed_mps: self.state.ego.speed_mps,
            truth: None,
        }
    }

    fn step(&mut self, command: &Command) {
        self.commands.lock().unwrap().push(*command);
        let ego = &mut self.state.ego;
        ego.speed_mps = (ego.speed_mps + (command.throttle - command.brake) * 0.2).max(0.0);
        ego.pose.position.x += ego.speed_mps * 0.05;
        self.frame += 1;
        self.state.time_s = self.frame as f64 * 0.05;
    }

    fn state(&self) -> &WorldState {
        &self.state
    }

    fn lanes(&self) -> &dyn LaneMap {
        self
    }

    fn plan(&self) -> &Arc<RoutePlan> {
        &self.plan
    }
}

/// Driver with a constant throttle that fails or returns NaN at a frame.
#[derive(Clone, Copy)]
struct Pedal {
    throttle: f64,
    fails_at: Option<u64>,
    nan_at: Option<u64>,
}

impl Pedal {
    const DOWN: Self = Self { throttle: 1.0, fails_at: None, nan_at: None };
}

impl Driver for Pedal {
    fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
        let frame = observation.frame.0;
        if self.fails_at == Some(frame) {
            return Err(DriveError { frame, source: "no image".into() });
        }
        let mut control = Control::default();
        control.command.throttle =
            if self.nan_at == Some(frame) { f64::NAN } else { self.throttle };
        let (stage, start_ns, took_ns) = (Stage::TICK, 0, 3_000_000);
        control.report.spans.push(Span { stage, start_ns, took_ns });
        Ok(control)
    }
}

fn drive(mut driver: Pedal, length_m: u32) -> RouteOutcome {
    let mut world = StraightRoad::new(length_m);
    run_route(&mut world, &mut driver, TICK_CAP, &AtomicBool::new(false), &mut |_, _| {})
}

/// Drives with full throttle until `stop`, which is called with each frame, ends the drive. Returns
/// the commands that the world received; they are the same in real time.
fn commands_until(
    in_real_time: bool,
    stop: &mut dyn FnMut(u64, &AtomicBool) -> Result<(), DriveError>,
) -> Vec<Command> {
    struct Until<'a> {
        stop: &'a mut dyn FnMut(u64, &AtomicBool) -> Result<(), DriveError>,
        cancel: &'a AtomicBool,
    }
    impl Driver for Until<'_> {
        fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
            (self.stop)(observation.frame.0, self.cancel)?;
            let mut pedal = Pedal::DOWN;
            pedal.drive(observation)
        }
    }
    let road = StraightRoad::new(300);
    let commands = Arc::clone(&road.commands);
    let mut world: Box<dyn World> =
        if in_real_time { Box::new(RealTime::new(road)) } else { Box::new(road) };
    let cancel = AtomicBool::new(false);
    let mut driver = Until { stop, cancel: &cancel };
    let drive = AssertUnwindSafe(|| {
        run_route(world.as_mut(), &mut driver, TICK_CAP, &cancel, &mut |_, _| {})
    });
    // The commands show how the drive ended.
    let _ = catch_unwind(drive);
    commands.lock().unwrap().clone()
}

#[test]
fn last_command_of_a_drive_is_full_brake() {
    let at_frame_5 = |frame: u64| frame == 5;
    for in_real_time in [false, true] {
        let after_error = commands_until(in_real_time, &mut |frame, _| match at_frame_5(frame) {
            true => Err(DriveError { frame, source: "no image".into() }),
            false => Ok(()),
        });
        let after_panic = commands_until(in_real_time, &mut |frame, _| {
            assert!(!at_frame_5(frame), "the driver panics");
            Ok(())
        });
        let after_signal = commands_until(in_real_time, &mut |frame, cancel| {
            cancel.store(at_frame_5(frame), Ordering::Relaxed);
            Ok(())
        });
        for commands in [after_error, after_panic, after_signal] {
            let (last, before) = commands.split_last().unwrap();
            assert_eq!(*last, Command::FULL_BRAKE);
            assert!(before.iter().any(|command| command.throttle == 1.0), "{before:?}");
        }
    }
}

#[test]
fn final_brake_is_not_part_of_the_result() {
    let failed = drive(Pedal { fails_at: Some(100), ..Pedal::DOWN }, 300);
    assert_eq!(failed.duration_game_s, 5.0);
    assert_eq!(failed.log.ticks.len(), 99);
    assert_eq!(failed.safety.answers_not_finite, 0);
    let not_finite = drive(Pedal { nan_at: Some(100), ..Pedal::DOWN }, 300);
    assert_eq!(not_finite.duration_game_s, 5.0);
    assert_eq!(not_finite.safety.answers_not_finite, 1);
}

#[test]
fn constant_throttle_reaches_the_end() {
    let outcome = drive(Pedal::DOWN, 60);
    assert_eq!(outcome.end, RouteEnd::Judged(Ending::Completed));
    assert_eq!(outcome.log.ticks.len() as f64 * 0.05, outcome.duration_game_s);
    assert_eq!(outcome.log.planned_m.len(), 61);
    assert_eq!(
        outcome.log.statistics(10).stage(Stage::TICK).count() as usize,
        outcome.log.ticks.len() - 10
    );
}

#[test]
fn failing_driver_is_recorded_as_crashed() {
    let outcome = drive(Pedal { fails_at: Some(100), ..Pedal::DOWN }, 300);
    let message = "the driver failed at frame 100: no image".to_owned();
    assert_eq!(outcome.end, RouteEnd::DriverFailed(message));
    assert_eq!(outcome.log.ticks.len(), 99);
    let result = outcome.result().unwrap();
    assert_eq!(result.failure.unwrap().to_string(), "Agent crashed");
    assert!(result.completion.unwrap().value() > 10.0);
}

#[test]
fn command_that_is_nan_is_a_driver_failure() {
    let outcome = drive(Pedal { nan_at: Some(7), ..Pedal::DOWN }, 300);
    assert!(matches!(outcome.end, RouteEnd::DriverFailed(_)));
    assert_eq!(outcome.log.ticks.len(), 6);
}

#[test]
fn standing_driver_is_blocked() {
    let outcome = drive(Pedal { throttle: 0.0, ..Pedal::DOWN }, 60);
    assert_eq!(outcome.end, RouteEnd::Judged(Ending::Blocked));
    assert_eq!(outcome.log.events.len(), 1);
}

#[test]
fn route_of_more_than_4000_ticks_is_cut_off() {
    let mut world = StraightRoad::new(100);
    struct Creep;
    impl Driver for Creep {
        fn drive(&mut self, observation: &Observation) -> Result<Control, DriveError> {
            let mut control = Control::default();
            control.command.throttle = if observation.speed_mps < 0.15 { 0.5 } else { 0.0 };
            Ok(control)
        }
    }
    let outcome =
        run_route(&mut world, &mut Creep, TICK_CAP, &AtomicBool::new(false), &mut |_, _| {});
    assert_eq!(outcome.end, RouteEnd::Judged(Ending::TickCap));
    assert!((outcome.duration_game_s - 200.05).abs() < 1e-9);
    assert_eq!(outcome.result().unwrap().failure.unwrap().to_string(), "TickRuntime");
}

fn routes(ids: &[u32]) -> Vec<Route> {
    ids.iter()
        .map(|&id| Route {
            id: id.into(),
            town: "Toy".to_owned(),
            key_points: vec![DVec3::ZERO, DVec3::X],
            scenarios: Vec::new(),
            weather: vec![WeatherKeyframe { route_percentage: 0.0, fields: BTreeMap::new() }],
        })
        .collect()
}

fn number(route: &Route) -> u32 {
    route.id.as_str().parse().unwrap()
}

fn setting(name: &str, seed: u64) -> Setting {
    let values = BTreeMap::from([("pedal".to_owned(), name.to_owned())]);
    Setting {
        name: name.to_owned(),
        provenance: Provenance::new(b"route file", seed, "pedal", values),
    }
}

fn over(folder: &Path, settings: &[Setting], routes: &[Route]) -> Campaign {
    Campaign {
        folder: folder.to_owned(),
        settings: settings.to_vec(),
        repetitions: 1,
        routes: routes.to_vec(),
        shard: Shard::ALL,
        recorded_time: RecordedTime::Simulated,
        sensors: Vec::new(),
        motion: None,
    }
}

type Driven = Result<RouteOutcome, Box<dyn std::error::Error + Send + Sync>>;

fn drive_to_the_end(_: DriveTask<'_>) -> Driven {
    Ok(drive(Pedal::DOWN, 60))
}

/// Runs a campaign in `folder` and returns the routes that were driven. The campaign is cancelled
/// during the drive of the route `stop_before`.
fn campaign(
    folder: &Path,
    ids: &[u32],
    seed: u64,
    stop_before: Option<u32>,
) -> (Result<CampaignSummary, CampaignError>, Vec<u32>) {
    let (settings, routes) = ([setting("down", seed)], routes(ids));
    let sensors = vec!["carla_imu".to_owned()];
    let campaign = Campaign { sensors, ..over(folder, &settings, &routes) };
    let cancel = AtomicBool::new(false);
    let mut driven = Vec::new();
    let summary = campaign.run(&cancel, &mut |_: Progress<'_>| {}, &mut |work| {
        if stop_before == Some(number(work.route)) {
            cancel.store(true, Ordering::Relaxed);
        }
        driven.push(number(work.route));
        let mut world = StraightRoad::new(60);
        Ok(run_route(&mut world, &mut Pedal::DOWN.clone(), TICK_CAP, &cancel, &mut |_, _| {}))
    });
    (summary, driven)
}

/// Names and bytes of every file below a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            let below = self::files(&path).into_iter();
            files.extend(below.map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            files.insert(name.to_owned(), std::fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn cancelled_campaign_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (summary, driven) = campaign(folder.path(), &[3, 1, 2], 7, Some(1));
    let summary = summary.unwrap();
    assert_eq!((driven, summary.remaining.is_cancelled), (vec![3, 1], true));
    let table = summary.tables[0].to_string();
    assert!(table.starts_with("1 / 3 routes finished"), "{table}");

    let (summary, driven) = campaign(folder.path(), &[3, 1, 2], 7, None);
    let summary = summary.unwrap();
    assert_eq!((driven, summary.remaining), (vec![1, 2], Remaining::default()));
    assert_eq!(summary.tables[0].driving_score, 100.0);
    assert_eq!(summary.tables[0].success_rate, 1.0);
}

#[test]
fn damaged_result_is_driven_again() {
    let folder = tempfile::tempdir().unwrap();
    campaign(folder.path(), &[1, 2], 7, None).0.unwrap();
    let file = folder.path().join("routes/RouteScenario_2_rep0.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let checkpoint: Checkpoint = serde_json::from_str(&text).unwrap();
    assert_eq!((checkpoint.entry_status.as_str(), checkpoint.eligible), ("Finished", true));
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    // Files that a killed writer leaves.
    let leftovers =
        ["routes/.RouteScenario_2_rep0.json", "claims/.RouteScenario_1_rep0.0", ".run.json"]
            .map(|name| folder.path().join(format!("{name}.abcdefghijkl.part")));
    for leftover in &leftovers {
        std::fs::write(leftover, "{").unwrap();
    }
    let (_, driven) = campaign(folder.path(), &[1, 2], 7, None);
    assert_eq!(driven, [2]);
    assert!(leftovers.iter().all(|leftover| !leftover.exists()));
    assert_eq!(std::fs::read_dir(folder.path().join("routes")).unwrap().count(), 2);
}

#[test]
fn folder_of_other_settings_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    campaign(folder.path(), &[1], 7, None).0.unwrap();
    let (refused, driven) = campaign(folder.path(), &[1], 8, None);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("seed is 8, the folder has 7"), "{message}");
    assert!(driven.is_empty(), "{driven:?}");
    let message = campaign(folder.path(), &[1, 2], 7, None).0.unwrap_err().to_string();
    assert!(message.contains("routes is 2 (1,2), the folder has 1 (1)"), "{message}");
}

#[test]
fn two_campaigns_with_one_seed_write_the_same_bytes() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = folders.each_ref().map(|folder| {
        campaign(folder.path(), &[3, 1], 7, None).0.unwrap();
        let mut files = files(folder.path());
        files.retain(|name, _| !name.starts_with("wall/"));
        files
    });
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "logs/RouteScenario_1_rep0.json",
            "logs/RouteScenario_3_rep0.json",
            "merged.json",
            "routes/RouteScenario_1_rep0.json",
            "routes/RouteScenario_3_rep0.json",
            "run.json",
        ]
    );
    assert_eq!(first, second);
}

#[test]
fn settings_share_the_seeds_of_repetitions() {
    let folder = tempfile::tempdir().unwrap();
    let (settings, routes) = ([setting("fast=0", 7), setting("fast=100", 7)], routes(&[1, 2]));
    let campaign = Campaign { repetitions: 3, ..over(folder.path(), &settings, &routes) };
    let mut seeds: BTreeMap<usize, Vec<(u32, u64)>> = BTreeMap::new();
    let summary = campaign.run(&AtomicBool::new(false), &mut |_| {}, &mut |work| {
        let seeds = seeds.entry(work.unit.setting).or_default();
        seeds.push((work.unit.repetition, work.seed));
        drive_to_the_end(work)
    });
    let tables: Vec<String> = summary.unwrap().tables.iter().map(ToString::to_string).collect();
    assert_eq!(tables.len(), 2);
    assert!(tables[1].starts_with("6 / 6 drives (2 routes, 3 times each) finished"), "{tables:?}");
    assert_eq!(seeds[&0], seeds[&1]);
    let distinct: BTreeSet<u64> = seeds[&0].iter().map(|(_, seed)| *seed).collect();
    assert_eq!((distinct.len(), distinct.contains(&7)), (3, true), "{seeds:?}");
    for setting in ["fast=0", "fast=100"] {
        let routes = folder.path().join(setting).join("routes");
        assert!(routes.join("RouteScenario_2_rep2.json").is_file());
        assert_eq!(std::fs::read_dir(routes).unwrap().count(), 6);
    }
    let twice = [settings[0].clone(), settings[0].clone()];
    let message = over(folder.path(), &twice, &routes).open().unwrap_err().to_string();
    assert!(message.contains("fast=0"), "{message}");
    let none = Campaign { repetitions: 0, ..campaign }.open().unwrap_err().to_string();
    assert!(none.contains("no repetitions"), "{none}");
}

#[test]
fn concurrent_campaigns_drive_every_unit_once() {
    let folder = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = (1..=20).collect();
    let (settings, routes) = ([setting("down", 7)], routes(&ids));
    let campaign = over(folder.path(), &settings, &routes);
    let (cancel, driven) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let remaining = campaign.drive(&cancel, &mut |_| {}, &mut |work| {
                    driven.lock().unwrap().push(number(work.route));
                    drive_to_the_end(work)
                });
                assert_eq!(remaining.unwrap(), Remaining::default());
                // Every campaign waited for the others.
                assert_eq!(campaign.table(0).unwrap().finished, 20);
            });
        }
    });
    let mut driven = driven.into_inner().unwrap();
    driven.sort_unstable();
    assert_eq!(driven, ids);
    assert_eq!(std::fs::read_dir(folder.path().join("claims")).unwrap().count(), 0);
}

#[test]
fn shards_in_one_folder_cover_every_drive() {
    let folder = tempfile::tempdir().unwrap();
    let (settings, routes) = ([setting("down", 7)], routes(&[1, 2, 3, 4, 5]));
    let mut finished = Vec::new();
    for shard in ["2/3", "1/3", "3/3"] {
        let shard = shard.parse().unwrap();
        let campaign = Campaign { shard, ..over(folder.path(), &settings, &routes) };
        let cancel = AtomicBool::new(false);
        let summary = campaign.run(&cancel, &mut |_| {}, &mut drive_to_the_end).unwrap();
        assert_eq!(summary.remaining, Remaining::default());
        assert_eq!(summary.tables[0].total(), 5);
        finished.push(summary.tables[0].finished);
    }
    assert_eq!(finished, [2, 4, 5]);
}

#[test]
fn drive_that_kills_processes_is_recorded_as_crashed() {
    let folder = tempfile::tempdir().unwrap();
    let (settings, routes) = ([setting("down", 7)], routes(&[1, 2]));
    let campaign = over(folder.path(), &settings, &routes);
    campaign.open().unwrap();
    let unit = campaign.units().nth(1).unwrap();
    campaign.note_crash(unit, "signal: 9 (SIGKILL)").unwrap();
    assert!(campaign.crashes(unit) < CRASHES_ALLOWED);
    campaign.note_crash(unit, "signal: 9 (SIGKILL)").unwrap();
    let mut driven = Vec::new();
    let summary = campaign.run(&AtomicBool::new(false), &mut |_| {}, &mut |work| {
        driven.push(number(work.route));
        drive_to_the_end(work)
    });
    assert_eq!(driven, [1]);
    assert_eq!(summary.unwrap().tables[0].finished, 2);
    let record = campaign.record(unit).unwrap();
    assert_eq!(record.status, "Failed - Simulation crashed");
    assert_eq!(record.scores.score_composed, 0.0);
    assert!(campaign.read_log(unit).unwrap().ticks.is_empty());
    let file = folder.path().join("routes/RouteScenario_2_rep0.json");
    let text = std::fs::read_to_string(file).unwrap();
    let checkpoint: Checkpoint = serde_json::from_str(&text).unwrap();
    assert!(!checkpoint.eligible);
}

#[test]
fn unit_is_released_if_its_driver_cannot_start() {
    let folder = tempfile::tempdir().unwrap();
    let (settings, routes) = ([setting("down", 7)], routes(&[1]));
    let campaign = over(folder.path(), &settings, &routes);
    let cancel = AtomicBool::new(false);
    let refused = campaign.run(&cancel, &mut |_| {}, &mut |_| Err("no driver".into()));
    assert_eq!(refused.unwrap_err().to_string(), "cannot drive route 1");
    let summary = campaign.run(&cancel, &mut |_| {}, &mut drive_to_the_end).unwrap();
    assert_eq!(summary.tables[0].finished, 1);
}

#[test]
fn log_survives_write_and_read() {
    let folder = tempfile::tempdir().unwrap();
    campaign(folder.path(), &[5], 7, None).0.unwrap();
    let (settings, routes) = ([setting("down", 7)], routes(&[5]));
    let campaign = over(folder.path(), &settings, &routes);
    let unit = campaign.units().next().unwrap();
    let (read, driven) = (campaign.read_log(unit).unwrap(), drive(Pedal::DOWN, 60));
    assert!(campaign.wall_time(unit).is_some());
    assert_eq!(read.planned_m, driven.log.planned_m);
    assert_eq!(read.ticks.len(), driven.log.ticks.len());
    for (read, driven) in read.ticks.iter().zip(&driven.log.ticks) {
        assert_eq!(read.stages, driven.stages);
        // Files round to centimeters.
        assert!((read.x_m - driven.x_m).abs() < 0.0051, "{} vs. {}", read.x_m, driven.x_m);
    }
}
