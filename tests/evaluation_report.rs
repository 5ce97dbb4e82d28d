//! The report of a made-up run: it is one page that needs nothing else and says what it must.
//!
//! The page stays under the build's temporary folder for a look: `report-sample.html`.

#![expect(clippy::unwrap_used, reason = "helpers of a test on made-up data")]

use std::path::Path;
use std::time::Duration;
use tandem::evaluation::Number;
use tandem::evaluation::log::{LoggedEvent, RouteLog, TickLog};
use tandem::evaluation::record::{Record, RouteIdentity};
use tandem::evaluation::report::{Report, ReportRoute, ReportRun, render};
use tandem::evaluation::statistics::{Failure, Infraction, InfractionKind, RouteResult, score};
use tandem::scene::{Command, DeadlineVerdict, PrefixInfo};
use tandem::timing::{Stage, StageTimes};

/// Numbers in 0..1 that look random and are the same on every machine.
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

/// A left turn driven with a slight weave, a stop, refreshes every 0.4 s and now and then a slow tick.
fn made_up_log(seed: u64, ticks: u64, turn_rad: f64) -> RouteLog {
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
    let planned_m = (0..=140).map(|along| place(f64::from(along)).0).collect();
    let (mut along, mut speed, mut age_ms, mut version) = (0.0, 0.0, 0.0, 0);
    let mut log = RouteLog { planned_m, ..RouteLog::default() };
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
        stages.set(Stage::LidarHistogram, millis(0.9 + 0.3 * noise.next()));
        stages.set(Stage::Bev, millis(bev));
        stages.set(Stage::Action, millis(action + slow));
        stages.set(Stage::Control, millis(0.012 + 0.01 * noise.next()));
        stages.set(Stage::Tick, millis(total));
        age_ms += 50.0;
        if tick % 8 == 0 {
            let refresh = 210.0 + 60.0 * noise.next();
            stages.set(Stage::Vision, millis(refresh * 0.3));
            stages.set(Stage::Understanding, millis(refresh * 0.6));
            stages.set(Stage::Patchify, millis(refresh * 0.05));
            stages.set(Stage::Refresh, millis(refresh));
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
            is_held: false,
        });
    }
    log
}

fn made_up_record(id: u32, completion: Number, hit: bool, failure: Option<Failure>) -> Record {
    let identity = RouteIdentity {
        route_id: format!("RouteScenario_{id}_rep0"),
        scenario_name: "ParkedObstacle_1".to_owned(),
        weather_id: None,
        town_name: "Toy <&>".to_owned(),
        save_name: String::new(),
    };
    let infraction = Infraction {
        kind: InfractionKind::CollisionVehicle,
        message:
            "Agent collided against object with type=vehicle.toy and id=4 at (x=70.0, y=2.0, z=0.0)"
                .to_owned(),
        tick: Some(330),
    };
    let mut record = Record::blank(0, &identity);
    let result = RouteResult {
        route_length_m: Some(140.2),
        completion: Some(completion),
        infractions: if hit { vec![infraction] } else { Vec::new() },
        timed_out: false,
        failure,
        duration_game_s: 24.05,
        duration_system_s: 61.2,
    };
    score(&mut record, &result);
    record
}

fn sample_page(routes_total: usize) -> String {
    let mut turn = made_up_log(7, 481, -1.5);
    turn.events.push(LoggedEvent {
        tick: Some(330),
        kind: "collisions_vehicle".to_owned(),
        message:
            "Agent collided against object with type=vehicle.toy and id=4 at (x=70.0, y=2.0, z=0.0)"
                .to_owned(),
    });
    let long = made_up_log(11, 4000, 0.6);
    let still = png_of_stripes();
    let first = made_up_record(24001, Number::Int(100), true, None);
    let second = made_up_record(24002, Number::Float(63.2), false, Some(Failure::TickCap));
    let facts = [
        ("tandem", "0.1.0 (commit 0123abc)"),
        ("Driver", "made-up <script>alert(1)</script>"),
        ("Seed", "7"),
        ("Route file", "made-up.xml, SHA-256 ffff24b3a2b8"),
        ("Back end", "onnxruntime, CPU"),
        ("CPU", "made-up, 2 cores"),
        ("GPU", "none"),
        ("Kernel", "Linux 6.1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    render(&Report {
        title: "tandem demo: two routes of the embedded world",
        note: "Random weights: this run shows the chain, not skill. Scores of the embedded world are not CARLA scores.",
        facts: &facts,
        runs: &[ReportRun {
            driver: "test",
            routes: &[
                ReportRoute { record: &first, log: &turn, still_png: Some(&still) },
                ReportRoute { record: &second, log: &long, still_png: None },
            ],
            routes_total,
            warm_up_ticks: 20,
            tick_budget: Some(Duration::from_millis(50)),
        }],
    })
}

/// 960 × 180 pixels of sky and road.
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

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = sample_page(5);
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-sample.html"), &page)
        .unwrap();
    for outside in ["http://", "https://", "<script", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "the page refers to {outside:?}");
    }
    assert!(!page.contains("{{"), "a piece is missing");
    assert!(
        !page.contains("NaN") && !page.contains("inf\""),
        "a drawing has a number that is none"
    );
}

#[test]
fn the_page_says_what_its_numbers_rest_on() {
    let page = sample_page(5);
    for words in [
        "Random weights: this run shows the chain, not skill.",
        "2 / 5 routes finished",
        "2 / 5 routes finished, the rest as 0",
        "3 of 5 routes are not finished",
        "nearest-rank",
        "without the first 20 ticks",
        "made-up &lt;script&gt;",
        "Toy &lt;&amp;&gt;",
        "data:image/png;base64,iVBORw0KGgo",
    ] {
        assert!(page.contains(words), "the page lacks {words:?}");
    }
}

#[test]
fn a_run_without_routes_or_stages_still_has_a_page() {
    let page = render(&Report {
        title: "nothing",
        note: "",
        facts: &[],
        runs: &[ReportRun {
            driver: "test",
            routes: &[],
            routes_total: 3,
            warm_up_ticks: 0,
            tick_budget: None,
        }],
    });
    assert!(page.contains("0 / 3 routes finished"));
    let empty = RouteLog::default();
    let record = made_up_record(1, Number::Int(0), false, Some(Failure::AgentCrashed));
    let page = render(&Report {
        title: "a crash at once",
        note: "",
        facts: &[],
        runs: &[ReportRun {
            driver: "test",
            routes: &[ReportRoute { record: &record, log: &empty, still_png: None }],
            routes_total: 1,
            warm_up_ticks: 0,
            tick_budget: None,
        }],
    });
    assert!(page.contains("Nothing was driven.") && page.contains("ticks were not timed"));
    assert!(!page.contains("Age of the prefix"));
}
