//! Drives in the embedded world, with and without the autopilot.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use glam::{DVec2, DVec3};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tandem_drivers::Autopilot;
use tandem_scene::{
    CameraId, CameraSpec, Cameras, Collision, Command, Driver, FrameId, LidarSpec, Observation,
    Route, SensorSuite, TICK, WeatherKeyframe, World, wrap_angle,
};
use tandem_timing::Timestamp;
use tandem_world::EmbeddedWorld;

const DEMO: &str = include_str!("../../../routes/demo.xml");
const BENDS: &str = include_str!("../../../routes/bends.xml");
const STRAIGHT: &str = include_str!("../../../routes/straight.xml");

fn all_sensors() -> SensorSuite {
    SensorSuite {
        cameras: Cameras::one(
            CameraId::FRONT,
            CameraSpec {
                position_m: [-1.5, 0.0, 2.0],
                yaw_rad: 0.0,
                width: 1024,
                height: 512,
                fov_deg: 110.0,
            },
        ),
        lidar: Some(LidarSpec {
            position_m: [0.0, 0.0, 2.5],
            yaw_rad: -std::f64::consts::FRAC_PI_2,
        }),
        truth: true,
    }
}

const TRUTH_ONLY: SensorSuite = SensorSuite { cameras: Cameras::NONE, lidar: None, truth: true };

/// Reads the few elements of a route file that a world needs.
fn routes_in(text: &str) -> Vec<Route> {
    let document = roxmltree::Document::parse(text).unwrap();
    let is_route = |node: &roxmltree::Node<'_, '_>| node.has_tag_name("route");
    document
        .descendants()
        .filter(is_route)
        .map(|route| {
            let number = |node: roxmltree::Node<'_, '_>, name: &str| -> f64 {
                node.attribute(name).unwrap().parse().unwrap()
            };
            let all = |tag: &'static str| route.descendants().filter(move |n| n.has_tag_name(tag));
            Route {
                id: route.attribute("id").unwrap().into(),
                town: route.attribute("town").unwrap().into(),
                key_points: all("position")
                    .map(|at| DVec3::new(number(at, "x"), number(at, "y"), number(at, "z")))
                    .collect(),
                scenarios: Vec::new(),
                weather: all("weather")
                    .map(|weather| WeatherKeyframe {
                        route_percentage: number(weather, "route_percentage"),
                        fields: weather
                            .attributes()
                            .map(|field| (field.name().into(), field.value().parse().unwrap()))
                            .collect::<BTreeMap<_, _>>(),
                    })
                    .collect(),
            }
        })
        .collect()
}

/// Returns the official routes, if the benchmark's data are next to the repository.
#[expect(clippy::disallowed_methods, reason = "a test may look for data that is not in the tree")]
fn official_routes() -> Vec<Route> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/bench2drive");
    let folder = std::env::var("TANDEM_BENCH2DRIVE").map_or(beside, PathBuf::from);
    match std::fs::read_to_string(folder.join("routes/bench2drive220.xml")) {
        Ok(text) => routes_in(&text),
        Err(error) => {
            eprintln!("skipped, no official routes in {}: {error}", folder.display());
            Vec::new()
        }
    }
}

/// Outcome of a drive, by the rules of the criteria.
#[derive(Debug, Default)]
struct Outcome {
    arrived: bool,
    collisions: Vec<Collision>,
    outside_m: f64,
    wrong_way_m: f64,
    seconds: f64,
    farthest_aside_m: f64,
}

impl Outcome {
    fn is_clean(&self) -> bool {
        self.arrived
            && self.collisions.is_empty()
            && self.outside_m == 0.0
            && self.wrong_way_m == 0.0
    }
}

fn drive(route: &Route, suite: SensorSuite, seed: u64) -> Outcome {
    let mut world = EmbeddedWorld::new(route, suite, seed).unwrap();
    let mut autopilot = Autopilot::new();
    let mut outcome = Outcome::default();
    let end = world.plan().points[world.plan().points.len() - 1];
    for _ in 0..4000 {
        let control = autopilot.drive(&world.observe()).unwrap();
        let before = world.state().ego.pose.position;
        world.step(&control.command);
        let state = world.state();
        let place = state.ego.pose.position;
        let driven_m = place.distance(before);
        outcome.collisions.extend(&state.collisions);
        let lane = world.lanes().driving_lane(state.ego.location());
        let from_center = |lane: tandem_scene::LanePoint| {
            (lane.position.truncate().distance(place), lane.width_m)
        };
        let nearest = world
            .lanes()
            .parking_lane(state.ego.location())
            .into_iter()
            .chain([lane])
            .map(from_center);
        let (away_m, width_m) = nearest.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        if away_m > width_m / 2.0 + 0.5 {
            outcome.outside_m += driven_m;
        }
        let against = wrap_angle(lane.heading_rad - state.ego.pose.yaw_rad).abs() > 2.1;
        if against && !lane.is_junction {
            outcome.wrong_way_m += driven_m;
        }
        let plan = world.plan().points.iter().map(|point| point.position.truncate());
        let aside_m = plan.map(|point| point.distance(place)).fold(f64::INFINITY, f64::min);
        outcome.farthest_aside_m = outcome.farthest_aside_m.max(aside_m);
        let beyond = place - end.position.truncate();
        if beyond.dot(DVec2::from_angle(end.heading_rad)) > 0.0 && beyond.length() < 10.0 {
            outcome.arrived = true;
            break;
        }
    }
    outcome.seconds = world.state().time_s;
    outcome
}

fn bytes_of(observation: &Observation) -> Vec<u8> {
    let mut bytes = observation.frame.0.to_le_bytes().to_vec();
    let imu = &observation.imu;
    let numbers = imu.acceleration_mps2.iter().chain(&imu.angular_velocity_radps).chain([
        &imu.compass_rad,
        &observation.gnss.latitude_deg,
        &observation.gnss.longitude_deg,
        &observation.gnss.altitude_m,
        &observation.speed_mps,
    ]);
    bytes.extend(numbers.flat_map(|number| number.to_le_bytes()));
    for (_, camera) in observation.cameras.iter() {
        bytes.extend(&camera.rgb);
    }
    if let Some(lidar) = &observation.lidar {
        bytes.extend(lidar.points.iter().flatten().flat_map(|number| number.to_le_bytes()));
    }
    bytes
}

/// Returns a hash of all sensor readings in 100 ticks of a fixed drive.
fn hash_of_100_ticks(seed: u64) -> Vec<u8> {
    let mut world = EmbeddedWorld::new(&routes_in(DEMO)[0], all_sensors(), seed).unwrap();
    let mut hash = Sha256::new();
    for tick in 0..100 {
        hash.update(bytes_of(&world.observe()));
        world.step(&Command { steer: 0.001 * f64::from(tick), throttle: 0.5, brake: 0.0 });
    }
    hash.finalize().to_vec()
}

#[test]
fn sensor_bytes_depend_on_the_seed() {
    let first = hash_of_100_ticks(1);
    assert_eq!(first, hash_of_100_ticks(1));
    assert_ne!(first, hash_of_100_ticks(2));
}

#[test]
fn observing_twice_gives_the_same_readings() {
    let mut world = EmbeddedWorld::new(&routes_in(DEMO)[0], all_sensors(), 4).unwrap();
    world.step(&Command::default());
    let first = bytes_of(&world.observe());
    assert_eq!(first, bytes_of(&world.observe()));
}

#[test]
fn disabled_sensors_change_neither_motion_nor_other_sensors() {
    let route = &routes_in(DEMO)[0];
    let mut full = EmbeddedWorld::new(route, all_sensors(), 9).unwrap();
    let mut blind = EmbeddedWorld::new(route, SensorSuite::default(), 9).unwrap();
    for _ in 0..60 {
        let (seeing, unseeing) = (full.observe(), blind.observe());
        assert_eq!((seeing.imu, seeing.gnss), (unseeing.imu, unseeing.gnss));
        assert!(
            unseeing.cameras.is_empty() && unseeing.lidar.is_none() && unseeing.truth.is_none()
        );
        let command = Command { steer: 0.05, throttle: 0.7, brake: 0.0 };
        full.step(&command);
        blind.step(&command);
        assert_eq!(full.state().ego, blind.state().ego);
        assert_eq!(full.state().actors, blind.state().actors);
    }
}

#[test]
fn first_observation_is_frame_one_at_50_ms() {
    let mut world = EmbeddedWorld::new(&routes_in(STRAIGHT)[0], all_sensors(), 1).unwrap();
    let first = world.observe();
    assert_eq!((first.frame, first.time), (FrameId(1), Timestamp::after(TICK)));
    assert_eq!(world.state().time_s, 0.05);
    assert_eq!(first.speed_mps, 0.0);
    world.step(&Command::default());
    assert_eq!(world.observe().time, Timestamp::after(TICK * 2));
}

#[test]
fn contact_is_a_collision_in_every_tick() {
    let mut world = EmbeddedWorld::new(&routes_in(STRAIGHT)[0], TRUTH_ONLY, 1).unwrap();
    let mut contacts = Vec::new();
    for _ in 0..400 {
        // Full throttle toward the parking strip.
        let steer = if world.state().time_s < 3.0 { 0.02 } else { 0.0 };
        world.step(&Command { steer, throttle: 1.0, brake: 0.0 });
        contacts.extend(world.state().collisions.clone());
    }
    assert!(!contacts.is_empty());
    let same = contacts.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(same > 0, "a contact lasts for more than a tick: {contacts:?}");
}

#[test]
fn nan_command_does_not_move_the_vehicle() {
    let mut world = EmbeddedWorld::new(&routes_in(STRAIGHT)[0], TRUTH_ONLY, 1).unwrap();
    let before = world.state().ego;
    world.step(&Command { steer: f64::NAN, throttle: f64::NAN, brake: f64::NAN });
    assert_eq!(world.state().ego, before);
}

#[test]
fn autopilot_without_ground_truth_is_an_error() {
    let route = &routes_in(STRAIGHT)[0];
    let mut world = EmbeddedWorld::new(route, SensorSuite::default(), 1).unwrap();
    assert!(Autopilot::new().drive(&world.observe()).is_err());
}

#[test]
fn autopilot_drives_own_routes_without_infractions() {
    for route in [DEMO, STRAIGHT, BENDS].into_iter().flat_map(routes_in) {
        for seed in 0..12 {
            let outcome = drive(&route, TRUTH_ONLY, seed);
            assert!(outcome.is_clean(), "route {} seed {seed}: {outcome:?}", route.id);
            assert!(outcome.farthest_aside_m < 1.0, "route {}: {outcome:?}", route.id);
        }
    }
}

/// Public runs report lengths of 52.3, 103.1 and 222.7 m (minimum, median, maximum), 23,342 m in
/// total; they drive on the real maps' lanes.
#[test]
fn official_routes_have_the_reported_lengths() {
    let mut lengths: Vec<f64> = Vec::new();
    for route in official_routes() {
        let world = EmbeddedWorld::new(&route, SensorSuite::default(), 0).unwrap();
        let points = &world.plan().points;
        for pair in points.windows(2) {
            let step = pair[0].position.distance(pair[1].position);
            let turned = wrap_angle(pair[1].heading_rad - pair[0].heading_rad).abs();
            assert!(step < 1.6 && step > 0.3, "route {}: step {step}", route.id);
            assert!(turned < 0.45, "route {}: turn {turned}", route.id);
        }
        let steps = points.windows(2).map(|pair| pair[0].position.distance(pair[1].position));
        lengths.push(steps.sum());
    }
    lengths.sort_by(f64::total_cmp);
    if let [least, .., most] = lengths[..] {
        let (median, sum) = (lengths[lengths.len() / 2], lengths.iter().sum::<f64>());
        assert!((sum / 23342.0 - 1.0).abs() < 0.003, "{sum}");
        for (found, reported) in [(least, 52.3), (median, 103.1), (most, 222.7)] {
            assert!((found - reported).abs() < 1.5, "{found} {reported}");
        }
    }
}

#[test]
fn autopilot_drives_official_routes_without_infractions() {
    for route in official_routes().iter().step_by(9) {
        let outcome = drive(route, TRUTH_ONLY, 0);
        assert!(outcome.is_clean(), "route {}: {outcome:?}", route.id);
    }
}

#[test]
#[ignore = "slow: drives all 220 routes five times and prints the outcomes"]
fn autopilot_drives_all_official_routes() {
    let routes = official_routes();
    for seed in 0..5 {
        let mut clean = 0;
        for route in &routes {
            let outcome = drive(route, TRUTH_ONLY, seed);
            clean += usize::from(outcome.is_clean());
            if !outcome.is_clean() || outcome.farthest_aside_m > 1.2 {
                eprintln!("seed {seed} route {}: {outcome:?}", route.id);
            }
        }
        eprintln!("seed {seed}: {clean} of {} without fault", routes.len());
    }
}

#[test]
#[ignore = "writes images for inspection"]
fn images() {
    let folder = std::env::temp_dir();
    let own_routes = [DEMO, BENDS].into_iter().flat_map(routes_in);
    let official = official_routes()
        .into_iter()
        .filter(|route| ["17563", "2050", "2390", "3072"].contains(&route.id.as_str()));
    for route in own_routes.chain(official) {
        let mut world = EmbeddedWorld::new(&route, all_sensors(), 1).unwrap();
        let mut autopilot = Autopilot::new();
        for tick in 0..700 {
            let observation = world.observe();
            if tick % 50 == 0 {
                let camera = observation.camera(CameraId::FRONT).unwrap();
                let path = folder.join(format!("tandem_{}_{tick}.png", route.id));
                let file = std::fs::File::create(path).unwrap();
                let mut encoder = png::Encoder::new(file, camera.width, camera.height);
                encoder.set_color(png::ColorType::Rgb);
                encoder.write_header().unwrap().write_image_data(&camera.rgb).unwrap();
            }
            let command = autopilot.drive(&observation).unwrap().command;
            world.step(&command);
        }
    }
}

#[test]
fn camera_images_do_not_depend_on_other_cameras() {
    let route = &routes_in(DEMO)[0];
    let spec = |yaw_deg: f64, [width, height]: [u32; 2]| CameraSpec {
        position_m: [0.4, 0.0, 1.6],
        yaw_rad: yaw_deg.to_radians(),
        width,
        height,
        fov_deg: 100.0,
    };
    let named = [
        ("left", spec(-70.0, [64, 48])),
        ("front", spec(0.0, [96, 40])),
        ("rear", spec(180.0, [32, 32])),
    ];
    let mut suite = SensorSuite { cameras: Cameras::NONE, ..all_sensors() };
    for (name, spec) in named {
        suite.cameras.insert(CameraId::named(name), spec).unwrap();
    }
    let mut together = EmbeddedWorld::new(route, suite.clone(), 3).unwrap();
    let mut alone = suite.cameras.map(|id, spec| {
        let suite = SensorSuite { cameras: Cameras::one(id, *spec), ..all_sensors() };
        EmbeddedWorld::new(route, suite, 3).unwrap()
    });
    let mut autopilot = Autopilot::new();
    for tick in 0..40 {
        let observation = together.observe();
        let command = autopilot.drive(&observation).unwrap().command;
        together.step(&command);
        let seen = alone.map_mut(|_, world| {
            let seen = world.observe();
            world.step(&command);
            seen
        });
        for ((id, world), (name, spec)) in seen.iter().zip(named) {
            assert_eq!(id, CameraId::named(name));
            let (image, single) = (observation.camera(id).unwrap(), world.camera(id).unwrap());
            assert_eq!((image.width, image.height), (spec.width, spec.height));
            assert!(image.rgb == single.rgb, "camera {id}, tick {tick}");
            assert_eq!(
                observation.lidar.as_ref().unwrap().points,
                world.lidar.as_ref().unwrap().points
            );
        }
        let images = observation.cameras.map(|_, picture| picture.rgb.clone());
        assert_ne!(images.get(CameraId::FRONT), images.get(CameraId::named("left")));
    }
}
