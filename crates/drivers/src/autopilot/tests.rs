//! The autopilot in small hand-made scenes; its vehicle moves by the bicycle model.

use super::*;
use glam::DVec2;
use proptest::prelude::*;
use std::f64::consts::{FRAC_PI_2, PI};
use std::sync::Arc;
use tandem_scene::vehicle::{EGO_EXTENT_M, Motion, ego_after_tick};
use tandem_scene::{
    ActorState, EgoState, GeoReference, LightColor, Passage, PassageReason, Pose, RoadOption,
    RoutePlan, RoutePoint, StopCause, StopLine, TICK_S,
};

/// Scenes that each property test samples; a drive takes a while.
const CASES: u32 = 16;

/// Returns a plan with a point every meter on straight pieces between `corners`.
pub(super) fn plan_through(corners: &[DVec2]) -> Arc<RoutePlan> {
    let mut points = Vec::new();
    for pair in corners.windows(2) {
        let n = pair[0].distance(pair[1]).ceil() as usize;
        points.extend((0..n).map(|i| pair[0].lerp(pair[1], i as f64 / n as f64)));
    }
    points.push(corners[corners.len() - 1]);
    let points = points
        .iter()
        .map(|place| RoutePoint {
            position: place.extend(0.0),
            heading_rad: 0.0,
            command: RoadOption::LaneFollow,
            is_junction: false,
        })
        .collect();
    Arc::new(RoutePlan { points, reference: GeoReference::default() })
}

/// Returns a plan of `meters` along x from the origin.
pub(super) fn straight_plan(meters: usize) -> Arc<RoutePlan> {
    plan_through(&[DVec2::ZERO, DVec2::new(meters as f64, 0.0)])
}

/// Like [`straight_plan`], with a junction from `from` to `to`.
fn crossing_plan(meters: usize, from: usize, to: usize) -> Arc<RoutePlan> {
    let mut plan = (*straight_plan(meters)).clone();
    for point in &mut plan.points[from..to] {
        point.is_junction = true;
        point.command = RoadOption::Straight;
    }
    Arc::new(plan)
}

pub(super) fn car(id: u32, x: f64, y: f64, speed_mps: f64) -> ActorState {
    ActorState {
        id,
        kind: ActorKind::Vehicle,
        type_id: "vehicle.tesla.model3",
        pose: Pose::new(x, y, 0.0),
        z_m: 0.0,
        speed_mps,
        acceleration_mps2: 0.0,
        yaw_rate_radps: 0.0,
        extent_m: [2.4, 1.0, 0.75],
    }
}

fn turned(actor: ActorState, yaw_rad: f64) -> ActorState {
    ActorState { pose: Pose { yaw_rad, ..actor.pose }, ..actor }
}

/// Ground truth with the ego vehicle at the start of the plan.
pub(super) fn truth_on(plan: &Arc<RoutePlan>, speed_mps: f64, actors: Vec<ActorState>) -> Truth {
    let (a, b) = (plan.points[0].position.truncate(), plan.points[1].position.truncate());
    Truth {
        ego: EgoState {
            pose: Pose { position: a, yaw_rad: (b - a).to_angle() },
            z_m: 0.0,
            speed_mps,
            yaw_rate_radps: 0.0,
            acceleration_mps2: 0.0,
            extent_m: EGO_EXTENT_M,
        },
        actors,
        plan: Arc::clone(plan),
        speed_limit_mps: 50.0 / 3.6,
        stop_lines: Vec::new(),
        passages: Vec::new(),
    }
}

/// Drives for `ticks`, with every actor going straight at its speed; calls `inspect` at every tick.
fn drive(truth: &mut Truth, ticks: usize, mut inspect: impl FnMut(usize, &mut Truth)) {
    let mut autopilot = Autopilot::new();
    for tick in 0..ticks {
        inspect(tick, truth);
        let command = autopilot.command(truth);
        move_ego(truth, &command);
        for actor in &mut truth.actors {
            actor.pose.position += actor.pose.forward() * actor.speed_mps * TICK_S;
        }
    }
}

/// Moves the ego vehicle by one tick of `command`.
pub(super) fn move_ego(truth: &mut Truth, command: &Command) {
    let before = Motion { pose: truth.ego.pose, speed_mps: truth.ego.speed_mps };
    let after = ego_after_tick(before, command);
    (truth.ego.pose, truth.ego.speed_mps) = (after.pose, after.speed_mps);
}

#[track_caller]
pub(super) fn assert_no_contact(truth: &Truth) {
    let half = |extent: [f64; 3]| DVec2::new(extent[0], extent[1]);
    let ego = footprint::Footprint::new(&truth.ego.pose, half(truth.ego.extent_m));
    for actor in &truth.actors {
        let other = footprint::Footprint::new(&actor.pose, half(actor.extent_m));
        assert!(!ego.overlaps(&other), "ego {:?} touches {actor:?}", truth.ego.pose);
    }
}

#[test]
fn free_road_is_driven_at_a_fraction_of_the_limit() {
    let mut truth = truth_on(&straight_plan(300), 0.0, Vec::new());
    drive(&mut truth, 300, |_, _| {});
    assert!((truth.ego.speed_mps - 0.72 * 50.0 / 3.6).abs() < 0.3, "{}", truth.ego.speed_mps);
    assert!(truth.ego.pose.position.y.abs() < 0.05);
}

#[test]
fn stops_behind_a_standing_car() {
    let mut truth = truth_on(&straight_plan(300), 10.0, vec![car(1, 60.0, 0.3, 0.0)]);
    drive(&mut truth, 400, |_, truth| assert_no_contact(truth));
    let gap_m = 60.0 - 2.4 - EGO_EXTENT_M[0] - truth.ego.pose.position.x;
    assert!((1.0..8.0).contains(&gap_m) && truth.ego.speed_mps < 0.1, "{gap_m}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn stops_before_a_red_light_from_any_speed(speed_mps in 0.0..13.9f64, room_m in 0.0..30.0f64) {
        let stopping_m = speed_mps.powi(2) / (2.0 * 6.0);
        let line = (stopping_m + room_m + EGO_EXTENT_M[0] + 2.0).ceil() as usize;
        let mut truth = truth_on(&straight_plan(200), speed_mps, Vec::new());
        truth.stop_lines.push(StopLine {
            id: 1,
            plan_idx: line,
            cause: StopCause::Light(LightColor::Red),
        });
        let mut front = 0.0;
        drive(&mut truth, 300, |_, truth| {
            front = truth.ego.pose.position.x + truth.ego.extent_m[0];
        });
        prop_assert!(front <= line as f64 + 1e-9, "{front} {line}");
        prop_assert!(truth.ego.speed_mps < 0.1);
    }

    #[test]
    fn never_touches_a_flow_that_does_not_yield(
        speed_mps in 8.0..16.0f64, gap_m in 24.0..50.0f64, phase_m in 0.0..50.0f64,
        from_left in any::<bool>(),
    ) {
        let side = if from_left { -1.0 } else { 1.0 };
        let plan = crossing_plan(120, 40, 60);
        let flow = (0..40)
            .map(|nth| {
                let y = side * (phase_m + 20.0 + (gap_m + 4.8) * f64::from(nth));
                turned(car(nth + 1, 50.0 + side, y, speed_mps), -side * FRAC_PI_2)
            })
            .collect();
        let mut truth = truth_on(&plan, 8.0, flow);
        let mut arrived = false;
        drive(&mut truth, 1200, |_, truth| {
            assert_no_contact(truth);
            arrived |= truth.ego.pose.position.x > 70.0;
        });
        prop_assert!(arrived, "{}", truth.ego.pose.position.x);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn never_meets_oncoming_traffic_beside_an_obstacle(
        speed_mps in 8.0..14.0f64, first_m in 60.0..200.0f64, gaps_m in prop::collection::vec(18.0..110.0f64, 5),
    ) {
        let mut x = first_m;
        let oncoming = gaps_m.iter().zip(2..).map(|(gap_m, id)| {
            x += gap_m;
            turned(car(id, x, -3.5, speed_mps), PI)
        });
        let mut truth = obstacle(PassageReason::ObstacleBesideOncomingLane, oncoming.collect());
        let mut arrived = false;
        drive(&mut truth, 1200, |_, truth| {
            arrived |= truth.ego.pose.position.x > 120.0;
            if !arrived {
                assert_no_contact(truth);
            }
        });
        prop_assert!(arrived);
    }
}

#[test]
fn green_lights_are_driven_through() {
    let mut truth = truth_on(&straight_plan(200), 8.0, Vec::new());
    let line = |color| StopLine { id: 1, plan_idx: 60, cause: StopCause::Light(color) };
    truth.stop_lines.push(line(LightColor::Red));
    drive(&mut truth, 500, |tick, truth| {
        if tick == 200 {
            assert!(truth.ego.speed_mps < 0.1);
            truth.stop_lines[0] = line(LightColor::Green);
        }
    });
    assert!(truth.ego.pose.position.x > 100.0);
}

#[test]
fn stop_sign_is_obeyed_once() {
    let mut truth = truth_on(&straight_plan(200), 8.0, Vec::new());
    truth.stop_lines.push(StopLine { id: 1, plan_idx: 60, cause: StopCause::Sign });
    let mut stood = false;
    drive(&mut truth, 400, |_, truth| {
        let front = truth.ego.pose.position.x + truth.ego.extent_m[0];
        stood |= truth.ego.speed_mps < 0.1 && (57.0..=60.0).contains(&front);
    });
    assert!(stood && truth.ego.pose.position.x > 100.0, "{:?}", truth.ego.pose);
}

/// A car stands 60 m ahead; `reason` determines the lane on the left.
fn obstacle(reason: PassageReason, others: Vec<ActorState>) -> Truth {
    let mut actors = vec![car(1, 60.0, 0.5, 0.0)];
    actors.extend(others);
    let mut truth = truth_on(&straight_plan(250), 8.0, actors);
    truth.passages.push(Passage { plan_range: 57..63, aside_m: -3.5, reason, actors: vec![1] });
    truth
}

#[test]
fn obstacle_is_passed_in_the_free_lane() {
    let mut truth = obstacle(PassageReason::ObstacleBesideFreeLane, Vec::new());
    drive(&mut truth, 300, |_, truth| assert_no_contact(truth));
    let at = truth.ego.pose.position;
    assert!(at.x > 100.0 && at.y.abs() < 0.2, "{at}");
}

#[test]
fn waits_for_oncoming_traffic_before_using_its_lane() {
    let oncoming =
        (0..5).map(|nth| turned(car(2 + nth, 80.0 + 25.0 * f64::from(nth), -3.5, 12.0), PI));
    let mut truth = obstacle(PassageReason::ObstacleBesideOncomingLane, oncoming.collect());
    let mut stood = false;
    drive(&mut truth, 600, |_, truth| {
        assert_no_contact(truth);
        stood |= truth.ego.speed_mps < 1.0;
    });
    assert!(stood && truth.ego.pose.position.x > 100.0, "{:?}", truth.ego.pose);
}

#[test]
fn crossing_pedestrian_is_let_pass() {
    let mut pedestrian = turned(car(1, 40.0, 5.0, 1.5), -FRAC_PI_2);
    pedestrian.kind = ActorKind::Pedestrian;
    pedestrian.extent_m = [0.2, 0.2, 0.9];
    let mut truth = truth_on(&straight_plan(200), 10.0, vec![pedestrian]);
    drive(&mut truth, 400, |_, truth| assert_no_contact(truth));
    assert!(truth.ego.pose.position.x > 80.0);
}

#[test]
fn does_not_brake_for_a_vehicle_from_behind() {
    let mut truth = truth_on(&straight_plan(400), 10.0, vec![car(1, -30.0, 0.0, 13.0)]);
    drive(&mut truth, 400, |_, truth| assert_no_contact(truth));
}

#[test]
fn near_yellow_light_is_driven_through() {
    let mut truth = truth_on(&straight_plan(200), 10.0, Vec::new());
    let cause = StopCause::Light(LightColor::Yellow);
    truth.stop_lines.push(StopLine { id: 1, plan_idx: 8, cause });
    drive(&mut truth, 40, |_, truth| assert!(truth.ego.speed_mps > 8.0));
}

#[test]
fn parked_ego_waits_until_its_lane_is_free() {
    let others = vec![
        car(1, 9.0, 3.0, 0.0),
        car(2, -9.0, 3.0, 0.0),
        car(3, 0.0, 0.0, 4.0),
        car(4, -30.0, 0.0, 10.0),
    ];
    let mut truth = truth_on(&straight_plan(200), 0.0, others);
    truth.ego.pose.position.y = 3.0;
    drive(&mut truth, 400, |tick, truth| {
        assert_no_contact(truth);
        assert!(tick > 40 || truth.ego.pose.position.x < 1.0);
    });
    let at = truth.ego.pose.position;
    assert!(at.x > 60.0 && at.y.abs() < 0.3, "{at}");
}

#[test]
fn moving_cyclists_are_passed() {
    let mut bicycle = car(1, 45.0, 0.9, 3.0);
    bicycle.kind = ActorKind::Bicycle;
    bicycle.extent_m = [0.8, 0.2, 0.9];
    let mut truth = truth_on(&straight_plan(300), 8.0, vec![bicycle]);
    drive(&mut truth, 500, |_, truth| {
        assert_no_contact(truth);
        let at = truth.actors[0].pose.position.x as usize;
        truth.passages = vec![Passage {
            plan_range: at.min(298)..(at + 1).min(299),
            aside_m: -2.1,
            reason: PassageReason::ObstacleBesideOncomingLane,
            actors: vec![1],
        }];
    });
    assert!(truth.ego.pose.position.x > truth.actors[0].pose.position.x + 10.0);
}

#[test]
fn gives_way_to_vehicles_from_behind_and_to_invaders() {
    for (reason, aside_m) in [(PassageReason::GiveWay, 3.5), (PassageReason::OncomingInvades, 0.8)]
    {
        let mut truth = truth_on(&straight_plan(200), 8.0, Vec::new());
        truth.passages = vec![Passage { plan_range: 40..80, aside_m, reason, actors: vec![9] }];
        drive(&mut truth, 400, |_, truth| {
            let at = truth.ego.pose.position;
            if (45.0..75.0).contains(&at.x) {
                assert!((at.y - aside_m).abs() < 0.3, "{reason:?}: {at}");
            }
        });
        assert!(truth.ego.pose.position.y.abs() < 0.1);
    }
}

#[test]
fn same_scene_gives_the_same_drive() {
    let run = || {
        let oncoming = turned(car(2, 140.0, -3.5, 12.0), PI);
        let mut truth = obstacle(PassageReason::ObstacleBesideOncomingLane, vec![oncoming]);
        let mut places = Vec::new();
        drive(&mut truth, 300, |_, truth| places.push(truth.ego.pose));
        places
    };
    assert_eq!(run(), run());
}

#[test]
fn plan_is_the_driven_line_at_the_target_speed() {
    let plan = straight_plan(200);
    let mut truth = truth_on(&plan, 8.0, Vec::new());
    truth.speed_limit_mps = 10.0;
    let trajectory = Autopilot::new().plan(&truth);
    let close =
        |found: &[f32; 2], x: f64| (f64::from(found[0]) - x).abs() < 0.02 && found[1] == 0.0;
    assert!((1..).zip(&trajectory.path).all(|(m, point)| close(point, f64::from(m))));
    // 72 % of the limit, every half second.
    assert!((1..).zip(&trajectory.waypoints).all(|(n, point)| close(point, 3.6 * f64::from(n))));
    assert_eq!((trajectory.path.len(), trajectory.waypoints.len()), (20, 8));

    let mut truth = truth_on(&plan, 8.0, vec![car(1, 9.0, 0.0, 0.0)]);
    truth.speed_limit_mps = 10.0;
    let trajectory = Autopilot::new().plan(&truth);
    let [first, second, ..] = trajectory.waypoints[..] else { panic!("{trajectory:?}") };
    assert!(second[0] - first[0] < 3.0, "a car blocks the lane: {trajectory:?}");
}
