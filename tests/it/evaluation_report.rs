//! The report page of synthetic drives in a browser: it loads without errors and requests, replays,
//! filters, sorts, and opens the drive and tick of its address.
//!
//! Page and screenshots stay in the temporary folder of the build as `report-*`.

use crate::browser::Browser;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem::model::automot::stages;
use tandem::scene::{
    ActorKind, Command, DeadlineVerdict, LaneStrip, LightColor, PrefixInfo, StripKind,
};
use tandem::timing::{Stage, StageTimes};
use tandem_evaluation::campaign::log::{
    ActorTrack, GroundBox, LightLog, LoggedEvent, RouteLog, TickLog, TrackRun, WaypointLog,
};
use tandem_evaluation::report::sweep::Sweep;
use tandem_evaluation::report::{Report, ReportRun, render};
use tandem_evaluation::scoring::{
    Failure, Infraction, InfractionKind, Number, Record, RouteIdentity, RouteResult, score,
};

/// Pseudorandom numbers in 0..1, equal on every machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }
}

fn millis(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1e3)
}

/// Log of a turn: the vehicle weaves slightly and stops at a light, with a prefill every 0.4 s,
/// occasional slow ticks, an oncoming car, a pedestrian and a parked car.
fn synthetic_log(seed: u64, ticks: u64, turn_rad: f64) -> RouteLog {
    let mut noise = Noise(seed);
    let place = |along: f64| {
        let curve = ((along - 60.0) / 25.0).clamp(0.0, 1.0) * turn_rad;
        let radius = 25.0 / turn_rad;
        let turned = [60.0 + radius * curve.sin(), radius * (1.0 - curve.cos())];
        let beyond = (along - 85.0).max(0.0);
        let start = along.min(60.0);
        let [x, y] = if along < 60.0 { [start, 0.0] } else { turned };
        ([x + beyond * curve.cos(), y + beyond * curve.sin()], curve)
    };
    let planned_m: Vec<_> = (0..=140).map(|along| place(f64::from(along)).0).collect();
    let (mut along, mut speed, mut age_ms, mut version) = (0.0, 0.0, 0.0, 0);
    let center_m = planned_m.iter().copied().map(Into::into).collect();
    let mut log = RouteLog {
        strips: vec![LaneStrip { kind: StripKind::Driving, width_m: 3.5, center_m }],
        planned_m,
        ..RouteLog::default()
    };
    for tick in 1..=ticks {
        let time_s = tick as f64 * 0.05;
        let target: f64 = if (9.0..13.0).contains(&time_s) { 0.0 } else { 8.5 };
        let pull: f64 = target - speed;
        speed = f64::max(speed + pull.clamp(-0.25, 0.12), 0.0);
        along += speed * 0.05;
        let ([x, y], yaw_rad) = place(along);
        let aside = 0.5 * (along / 9.0).sin();

        let mut stages = StageTimes::default();
        let (bev, action) = (4.1 + noise.next(), 11.0 + 3.0 * noise.next());
        let slow = if noise.next() > 0.985 { 30.0 + 25.0 * noise.next() } else { 0.0 };
        let total = 1.3 + bev + action + slow;
        stages.set(stages::LIDAR_HISTOGRAM, millis(0.9 + 0.3 * noise.next()));
        stages.set(stages::BEV, millis(bev));
        stages.set(stages::ACTION, millis(action + slow));
        stages.set(Stage::CONTROL, millis(0.012 + 0.01 * noise.next()));
        stages.set(Stage::TICK, millis(total));
        age_ms += 50.0;
        if tick % 8 == 0 {
            let refresh = 210.0 + 60.0 * noise.next();
            stages.set(stages::VISION, millis(refresh * 0.3));
            stages.set(stages::UNDERSTANDING, millis(refresh * 0.6));
            stages.set(stages::PATCHIFY, millis(refresh * 0.05));
            stages.set(Stage::PREFILL, millis(refresh));
            (age_ms, version) = (refresh, version + 1);
        }
        let late = total - 50.0;
        log.ticks.push(TickLog {
            time_s,
            x_m: x - aside * yaw_rad.sin(),
            y_m: y + aside * yaw_rad.cos(),
            yaw_rad,
            speed_mps: speed,
            command: Command { steer: 0.0, throttle: 0.4, brake: 0.0 },
            stages,
            prefix: (version > 0).then(|| PrefixInfo { version, age: millis(age_ms) }),
            deadline: if late > 0.0 {
                DeadlineVerdict::Missed { by: millis(late) }
            } else {
                DeadlineVerdict::Met
            },
            is_held: tick % 50 == 0,
        });
    }
    let scenes = log.scenes();
    let actor = |id, kind, half_m, poses: Vec<[f64; 3]>| ActorTrack {
        id,
        kind,
        type_id: "vehicle.toy".to_owned(),
        half_m,
        runs: vec![TrackRun { first_scene: 0, poses }],
    };
    log.actors = vec![
        actor(
            1,
            ActorKind::Vehicle,
            [2.3, 0.95],
            (0..scenes).map(|s| [90.0 - 0.6 * s as f64, -3.5, std::f64::consts::PI]).collect(),
        ),
        actor(
            2,
            ActorKind::Pedestrian,
            [0.25, 0.25],
            (0..scenes).map(|s| [40.0, 8.0 - 0.08 * s as f64, -1.57]).collect(),
        ),
        actor(3, ActorKind::Static, [2.4, 1.0], vec![[20.0, 3.2, 0.0]; scenes]),
    ];
    log.lights = vec![LightLog {
        id: 7,
        position_m: [64.0, 5.0],
        trigger: GroundBox { center_m: [58.0, 0.0], yaw_rad: 0.0, half_m: [0.5, 1.7] },
        shows: vec![(1, LightColor::Green), (150, LightColor::Red), (260, LightColor::Green)],
    }];
    log.waypoints = (0..scenes)
        .map(|scene| WaypointLog {
            scene,
            spacing: Duration::from_millis(250),
            waypoints_m: (1..=8).map(|i| [2.0 * i as f32, 0.1 * i as f32]).collect(),
        })
        .collect();
    log
}

const HIT: &str =
    "Agent collided against object with type=vehicle.toy and id=4 at (x=70.0, y=2.0, z=0.0)";
const RAN: &str = "Agent ran a red light 7 at (x=64.0, y=5.0, z=0.0)";

fn synthetic_record(
    id: u32,
    scenario: &str,
    completion: Number,
    infractions: &[Infraction],
    failure: Option<Failure>,
) -> Record {
    let identity = RouteIdentity {
        route_id: format!("RouteScenario_{id}_rep0"),
        scenario_name: scenario.to_owned(),
        weather_id: None,
        town_name: "Toy <&>".to_owned(),
        save_name: String::new(),
    };
    let result = RouteResult {
        route_length_m: Some(140.2),
        completion: Some(completion),
        infractions: infractions.to_vec(),
        timed_out: false,
        failure,
        duration_game_s: 24.05,
        duration_system_s: 61.2,
    };
    Record::blank(0, &identity).with(score(&result))
}

fn infraction(kind: InfractionKind, message: &str, tick: u64) -> Infraction {
    Infraction { kind, message: message.to_owned(), tick: Some(tick) }
}

fn sample_page(drives_total: usize) -> String {
    let event = |kind: &str, message: &str, tick| LoggedEvent {
        tick: Some(tick),
        kind: kind.to_owned(),
        message: message.to_owned(),
    };
    let mut turn = synthetic_log(7, 481, -1.5);
    turn.events = vec![event("collisions_vehicle", HIT, 330), event("red_light", RAN, 170)];
    let mut long = synthetic_log(11, 4000, 0.6);
    long.events = vec![event("collisions_vehicle", HIT, 90)];
    let first = synthetic_record(
        24001,
        "ParkedObstacle_1",
        Number::Int(100),
        &[
            infraction(InfractionKind::CollisionVehicle, HIT, 330),
            infraction(InfractionKind::RedLight, RAN, 170),
        ],
        None,
    );
    let second = synthetic_record(
        24002,
        "T_Junction_1",
        Number::Float(63.2),
        &[infraction(InfractionKind::CollisionVehicle, HIT, 90)],
        Some(Failure::TickCap),
    );
    let facts = [
        ("tandem", "0.1.0 (commit 0123abc)"),
        ("Driver", "made-up <script>alert(1)</script>"),
        ("Seed", "7"),
        ("GPU", "none"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut run = ReportRun::new("test", drives_total, 20, Some(Duration::from_millis(50)));
    run.add(first, Some(&turn), Some(&png_of_stripes()));
    run.add(second, Some(&long), None);
    render(&Report {
        title: "two routes of the embedded world",
        note: "Random weights: this run tests the software, not the driving. Scores of the embedded world are not CARLA scores.",
        facts: &facts,
        runs: &[run],
        sweep: None,
    })
}

/// PNG image of 960 × 180 pixels of sky and road.
fn png_of_stripes() -> Vec<u8> {
    let (width, height) = (960u32, 180u32);
    let pixel = |x: u32, y: u32| {
        let is_road = y > 90 && x.abs_diff(480) < (y - 90) * 5;
        let sky = [150 + (y / 3) as u8, 190, 230];
        let ground = if is_road { [90, 90, 95] } else { [95, 140, 80] };
        if y <= 90 { sky } else { ground }
    };
    let rows = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y)));
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&rows.collect::<Vec<u8>>()).unwrap();
    writer.finish().unwrap();
    file
}

/// Writes the sample page to a file per test.
fn page_file(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("report-{name}.html"));
    std::fs::write(&file, sample_page(5)).unwrap();
    file
}

fn picture_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("report-{name}.png"))
}

/// The rendered map as text.
const MAP: &str = "document.getElementById('map').toDataURL()";

const LABEL: &str = "document.getElementById('tick-label').textContent";

const SHOWN: &str =
    "[...document.querySelectorAll('.filters tbody tr')].filter(r => !r.hidden).length";

#[test]
fn page_states_the_basis_of_its_numbers() {
    let page = sample_page(5);
    for fragment in [
        "Random weights: this run tests the software, not the driving.",
        "2 / 5 routes finished",
        "2 / 5 routes finished, the rest as 0",
        "3 of 5 routes are not finished",
        "10000 bootstrap resamples of routes (seed 1)",
        "42 of the benchmark’s 44 types have no route",
        "nearest-rank",
        "without the first 20 ticks",
        "made-up &lt;script&gt;",
        "Toy &lt;&amp;&gt;",
        "data:image/png;base64,iVBORw0KGgo",
    ] {
        assert!(page.contains(fragment), "the page lacks {fragment:?}");
    }
    assert!(page.len() < 8 << 20, "{} bytes", page.len());
}

#[test]
fn page_loads_without_errors_or_requests() {
    let Some(mut browser) = Browser::start() else { return };
    let file = page_file("loads");
    browser.show_as(1280, 900, "light");
    browser.open(&file, "");
    browser.wait_for("document.documentElement.dataset.ready");
    browser.wait_for("document.querySelectorAll('.chart .main-svg').length >= 2");
    assert_eq!(browser.errors(), Vec::<String>::new());
    let own = format!("file://{}", file.display());
    let foreign: Vec<String> = browser
        .requests()
        .into_iter()
        .filter(|url| *url != own && !url.starts_with("data:") && !url.starts_with("blob:"))
        .filter(|url| url != "about:blank")
        .collect();
    assert_eq!(foreign, Vec::<String>::new());
    let loaded = browser.value("performance.getEntriesByType('resource').length");
    assert_eq!(loaded, json!(0));
    browser.picture(&picture_file("light"), 0, 1280, 3600);

    for (width, scheme) in [(390, "light"), (390, "dark"), (1280, "dark")] {
        browser.show_as(width, 900, scheme);
        browser.open(&file, "#24001/0/200");
        browser.wait_for("document.documentElement.dataset.ready");
        browser.wait_for("document.querySelectorAll('.chart .main-svg').length >= 2");
        // The page is not wider than its window.
        let overhang = browser
            .value("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(overhang, json!(0), "at {width} px, {scheme}");
        browser.picture(&picture_file(&format!("{scheme}-{width}")), 0, width, 3600);
    }
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn replay_is_scrubbed_stepped_and_played() {
    let Some(mut browser) = Browser::start() else { return };
    browser.show_as(1280, 900, "light");
    browser.open(&page_file("scrubs"), "");
    browser.wait_for("document.documentElement.dataset.ready");
    assert_eq!(browser.value(LABEL), json!("tick 1 of 481 · 0.05 s · 0.12 m/s"));
    let at_start = browser.value(MAP);
    browser.value(
        "(() => { const s = document.getElementById('scrub'); s.value = 240; \
         s.dispatchEvent(new Event('input')); })()",
    );
    let label = browser.value(LABEL);
    assert!(label.as_str().unwrap().starts_with("tick 240 of 481 · 12.00 s"), "{label}");
    let in_the_middle = browser.value(MAP);
    assert_ne!(at_start, in_the_middle, "the map is unchanged");
    let facts = browser.value("document.getElementById('now').textContent");
    for fragment in ["prefixversion 30", "bev", "action", "actors near3"] {
        assert!(facts.as_str().unwrap().contains(fragment), "{facts} lacks {fragment}");
    }

    browser.value("document.getElementById('map').focus()");
    browser.press("ArrowRight");
    assert!(browser.value(LABEL).as_str().unwrap().starts_with("tick 241 "));
    browser.press("End");
    assert!(browser.value(LABEL).as_str().unwrap().starts_with("tick 481 "));
    browser.press("Home");
    assert!(browser.value(LABEL).as_str().unwrap().starts_with("tick 1 "));
    assert_eq!(browser.value(MAP), at_start, "the map of the same tick differs");
    browser.value("document.getElementById('play').click()");
    browser.wait_for(&format!("!({LABEL}).startsWith('tick 1 ')"));
    browser.value("document.getElementById('play').click()");
    browser.wait_for("document.getElementById('play').textContent === 'Play'");
    // The address is updated when the replay stops.
    browser.wait_for(&format!("location.hash === '#24001/0/' + ({LABEL}).split(' ')[1]"));
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn address_opens_its_drive_at_its_tick() {
    let Some(mut browser) = Browser::start() else { return };
    browser.show_as(1280, 900, "light");
    let file = page_file("links");
    browser.open(&file, "#24002/0/3120");
    browser.wait_for("document.documentElement.dataset.ready === '#24002/0/3120'");
    assert!(browser.value(LABEL).as_str().unwrap().starts_with("tick 3120 of 4000 · 156.00 s"));
    // An infraction links to the tick at which it was recorded.
    browser.value("document.querySelector('.filters a[href=\"#24001/0/330\"]').click()");
    browser.wait_for("document.documentElement.dataset.ready === '#24001/0/330'");
    assert!(browser.value(LABEL).as_str().unwrap().starts_with("tick 330 of 481"));
    let happening = browser.value("document.getElementById('happening').textContent");
    assert_eq!(happening, json!(HIT));
    // A tick beyond the end opens the last one.
    browser.value("location.hash = '#24001/0/999999'");
    browser.wait_for("document.documentElement.dataset.ready === '#24001/0/481'");
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn filters_hide_rows_and_headers_sort() {
    let Some(mut browser) = Browser::start() else { return };
    browser.show_as(1280, 900, "light");
    browser.open(&page_file("filters"), "");
    browser.wait_for("document.documentElement.dataset.ready");
    let filter = |browser: &mut Browser, name: &str, value: &str| {
        browser.value(&format!(
            "(() => {{ const f = document.querySelector('[data-filter=\"{name}\"]'); \
             f.value = '{value}'; f.dispatchEvent(new Event('input')); }})()"
        ));
        browser.value(SHOWN)
    };
    assert_eq!(browser.value(SHOWN), json!(3));
    assert_eq!(filter(&mut browser, "kind", "collisions_vehicle"), json!(2));
    assert_eq!(filter(&mut browser, "scenario", "T_Junction"), json!(1));
    assert_eq!(filter(&mut browser, "kind", ""), json!(1));
    assert_eq!(filter(&mut browser, "scenario", ""), json!(3));
    assert_eq!(filter(&mut browser, "text", "RED LIGHT 7"), json!(1));
    let count = browser.value("document.querySelector('[data-count]').textContent");
    assert_eq!(count, json!("1 of 3 shown"));

    let first = "document.querySelector('#routes-0 + .card tbody tr').cells[0].textContent";
    let sort = "document.querySelectorAll('#routes-0 + .card th button')[6].click()";
    browser.value(sort);
    assert_eq!(browser.value(first), json!("24002"), "63.2 × 0.6 is less than 60 × 0.7");
    browser.value(sort);
    assert_eq!(browser.value(first), json!("24001"));
    assert_eq!(browser.errors(), Vec::<String>::new());
}

/// A sweep of two slow and two fast latencies; one cell has no score.
fn synthetic_sweep() -> Sweep {
    let point = |millis: f64| json!({"latency": millis.to_string(), "millis": millis});
    let cell = |slow: usize, fast: usize, score: Option<f64>| {
        let estimate =
            score.map(|value| json!({"value": value, "low": value - 3.0, "high": value + 5.0}));
        json!({
            "name": format!("{slow}-{fast}"), "slow": slow, "fast": fast, "finished": 3,
            "total": 3, "driving_score": estimate, "success_rate": estimate,
            "collisions_per_drive": null, "collisions_per_km": null, "difference": null,
            "deadline_miss_rate": null, "held_share": null, "age": null,
            "infractions": {"behind": 0, "behind_s": 0.0, "otherwise": 0, "otherwise_s": 0.0,
                "behind_per_min": null, "otherwise_per_min": null},
        })
    };
    let cells =
        [cell(0, 0, Some(90.0)), cell(0, 1, Some(80.0)), cell(1, 0, Some(70.0)), cell(1, 1, None)];
    let sweep = json!({
        "format": 1, "tandem": "0.1.0", "driver": "<autopilot>", "note": "", "emulated": ["emulated hardware: toy"],
        "fast_releases": "overlap", "seed": 1, "routes": 3, "repetitions": 1, "finished": 12,
        "total": 12, "resamples": 10_000, "confidence": 0.95, "horizon_ms": 2000,
        "slow": [point(0.0), point(400.0)], "fast": [point(0.0), point(50.0)], "base": 0,
        "cells": cells,
    });
    serde_json::from_value(sweep).unwrap()
}

#[test]
fn sweep_is_drawn_with_its_intervals() {
    let run = ReportRun::new("test", 3, 0, None);
    let sweep = synthetic_sweep();
    let runs = [run];
    let report = Report { title: "", note: "", facts: &[], runs: &runs, sweep: Some(&sweep) };
    let page = render(&report);
    assert!(page.contains("&lt;autopilot&gt;: 12 / 12 drives finished, 3 routes"));
    assert!(page.contains("emulated hardware: toy"));
    let Some(mut browser) = Browser::start() else { return };
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-sweep.html");
    std::fs::write(&file, page).unwrap();
    browser.show_as(1280, 900, "light");
    browser.open(&file, "");
    // Without values for collisions, there are two charts of two curves with three points each.
    browser.wait_for("document.querySelectorAll('.chart .main-svg').length >= 2");
    let count = |browser: &mut Browser, what: &str| {
        browser.value(&format!("document.querySelectorAll('{what}').length"))
    };
    assert_eq!(count(&mut browser, ".chart"), json!(2));
    assert_eq!(count(&mut browser, ".chart .trace.scatter"), json!(4));
    assert_eq!(count(&mut browser, ".chart .errorbar"), json!(6));
    assert_eq!(browser.errors(), Vec::<String>::new());
    browser.picture(&picture_file("sweep"), 0, 1280, 1200);
}

#[test]
fn run_without_drives_stages_or_ticks_has_a_page() {
    let render_run = |run: ReportRun| {
        render(&Report { title: "nothing", note: "", facts: &[], runs: &[run], sweep: None })
    };
    let empty = render_run(ReportRun::new("test", 3, 0, None));
    assert!(empty.contains("0 / 3 routes finished") && empty.contains("No drive is finished."));
    let mut run = ReportRun::new("test", 1, 0, None);
    let crashed = synthetic_record(1, "", Number::Int(0), &[], Some(Failure::AgentCrashed));
    run.add(crashed, Some(&RouteLog::default()), None);
    let crashed = render_run(run);
    assert!(crashed.contains("ticks were not timed") && crashed.contains("No stage was timed."));
    let Some(mut browser) = Browser::start() else { return };
    for (name, page, note) in
        [("empty", &empty, ""), ("crashed", &crashed, "This drive has no ticks.")]
    {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("report-{name}.html"));
        std::fs::write(&file, page).unwrap();
        browser.open(&file, "");
        if !note.is_empty() {
            browser.wait_for("document.documentElement.dataset.ready");
            let found = browser.value("document.getElementById('no-replay').textContent");
            assert_eq!(found, json!(note));
        }
    }
    assert_eq!(browser.errors(), Vec::<String>::new());
}
