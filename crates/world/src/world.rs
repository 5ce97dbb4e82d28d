//! The embedded world: one road with its scenarios, traffic and all sensors. It runs on one
//! core, faster than real time.
//!
//! It needs only a route file: no map and no simulator. The same seed gives the same bytes.
//! docs/embedded-world.md and docs/scenarios.md list its simplifications.

use crate::actors::follower::is_flat;
use crate::actors::list::Actors;
use crate::actors::traffic::Traffic;
use crate::noise::{Noise, Purpose};
use crate::road::Road;
use crate::road::error::RoadError;
use crate::road::signals::Signals;
use crate::road::street_map::StreetMap;
use crate::scenarios::active::{ActiveScenario, set_up};
use crate::scenarios::context::{Effects, TickState};
use crate::scenarios::registry::layout_of;
use crate::sensors::camera::Camera;
use crate::sensors::inertial;
use crate::sensors::lidar::Lidar;
use crate::sensors::palette::Palette;
use crate::sensors::scenery::{Prop, scenery};
use crate::sensors::visibility::{Viewpoint, VisibleBox, collect_visible};
use std::sync::Arc;
use tandem_scene::vehicle::{EGO_EXTENT_M, Motion, ego_after_tick};
use tandem_scene::{
    Allowances, Cameras, Collision, Command, EgoState, FrameId, LaneMap, LaneStrip, Observation,
    Pose, Route, RoutePlan, SensorSuite, TICK, TICK_S, Truth, World, WorldState, wrap_angle,
};
use tandem_scene::{UprightBox, footprints_overlap};
use tandem_timing::Timestamp;

/// A route with its scenarios and traffic at one tick.
pub struct EmbeddedWorld {
    seed: u64,
    road: Road,
    actors: Actors,
    traffic: Traffic,
    signals: Signals,
    scenarios: Vec<ActiveScenario>,
    effects: Effects,
    scenery: Vec<Prop>,
    frame: FrameId,
    state: WorldState,
    truth: bool,
    cameras: Cameras<Camera>,
    lidar: Option<Lidar>,
    visible: Vec<VisibleBox>,
}

impl EmbeddedWorld {
    /// Builds the world of `route` at frame 1, with the ego vehicle at rest at the start. `suite`
    /// selects the sensors; `seed` and the route determine everything random.
    ///
    /// # Errors
    /// Returns an error if no road can be built from the route.
    pub fn new(route: &Route, suite: SensorSuite, seed: u64) -> Result<Self, RoadError> {
        Self::on(route, suite, seed, None)
    }

    /// Like [`new`](Self::new), on the lanes of `map` if one is given.
    ///
    /// # Errors
    /// Returns an error if no road can be built from the route, or if the
    /// route leaves the map's lanes.
    pub fn on(
        route: &Route,
        suite: SensorSuite,
        seed: u64,
        map: Option<&Arc<StreetMap>>,
    ) -> Result<Self, RoadError> {
        let road = Road::on(route, layout_of(route), map)?;
        let seed = Noise::new(seed, route.id.seed(), 0).bits();
        let ego = start_of(&road);
        let mut actors = Actors::new(&ego);
        let sub_seed = |purpose: Purpose| Noise::new(seed, purpose as u64, 0).bits();
        let tick_state =
            TickState { road: &road, ego, ego_along_m: road.along(ego.pose.position), time_s: 0.0 };
        let scenarios = set_up(route, &tick_state, &mut actors, sub_seed(Purpose::Scenarios))?;
        let traffic = Traffic::new(&road, &mut actors, sub_seed(Purpose::Traffic));
        let palette = Palette::new(route.weather.first());
        let state = WorldState {
            time_s: 0.0,
            ego,
            actors: Vec::new(),
            collisions: Vec::new(),
            background_speeds_mps: Vec::new(),
            speed_limit_kmh: road.layout().speed_limit_kmh,
            traffic_lights: Vec::new(),
            stop_signs: Vec::new(),
            scenarios: Vec::new(),
            allowances: Allowances::default(),
        };
        let mut world = Self {
            seed,
            cameras: suite.cameras.map(|_, spec| Camera::new(*spec, &road, palette)),
            lidar: suite.lidar.map(Lidar::new),
            truth: suite.truth,
            scenery: scenery(&road, &mut Noise::new(seed, Purpose::Scenery as u64, 0)),
            signals: road.signals(),
            road,
            actors,
            traffic,
            scenarios,
            effects: Effects::default(),
            frame: FrameId(0),
            state,
            visible: Vec::new(),
        };
        world.step(&Command::FULL_BRAKE);
        Ok(world)
    }

    fn noise(&self, purpose: Purpose) -> Noise {
        Noise::new(self.seed, purpose as u64, self.frame.0)
    }

    fn time(&self) -> Timestamp {
        Timestamp::after(TICK * self.frame.0 as u32)
    }

    /// Adds the control noise of the running scenarios to `command`.
    fn disturbed(&self, command: &Command) -> Command {
        let Some(disturbance) = self.effects.control_noise else { return *command };
        let mut noise = self.noise(Purpose::Control);
        let throttle = disturbance.throttle + noise.normal(disturbance.throttle_deviation);
        let steer = disturbance.steer + noise.normal(disturbance.steer_deviation);
        Command { throttle: command.throttle + throttle, steer: command.steer + steer, ..*command }
    }

    fn move_ego(&mut self, command: &Command) {
        let command = checked(&self.disturbed(&checked(command)));
        let ego = &mut self.state.ego;
        let before = Motion { pose: ego.pose, speed_mps: ego.speed_mps };
        let after = ego_after_tick(before, &command);
        ego.acceleration_mps2 = (after.speed_mps - before.speed_mps) / TICK_S;
        ego.yaw_rate_radps = wrap_angle(after.pose.yaw_rad - before.pose.yaw_rad) / TICK_S;
        ego.pose = Pose { yaw_rad: wrap_angle(after.pose.yaw_rad), ..after.pose };
        ego.speed_mps = after.speed_mps;
        ego.z_m = self.road.ground(ego.pose.position).z_m;
    }

    fn move_others(&mut self) {
        let ego = self.state.ego;
        self.actors.set_ego(&ego);
        let tick_state = TickState {
            road: &self.road,
            ego,
            ego_along_m: self.road.along(ego.pose.position),
            time_s: self.state.time_s,
        };
        self.effects = Effects::default();
        for scenario in &mut self.scenarios {
            scenario.tick(&tick_state, &mut self.actors, &mut self.effects);
        }
        self.traffic.advance(&mut self.actors, &ego, self.effects.traffic);
        self.signals.show(self.state.time_s, self.effects.lights);
        let state = &mut self.state;
        state.traffic_lights.clear();
        state.traffic_lights.extend(self.signals.judged_lights());
        state.stop_signs.clear();
        state.stop_signs.extend_from_slice(self.signals.signs());
        state.scenarios.clone_from(&self.effects.running);
        state.allowances = self.effects.allowances;
    }

    fn find_collisions(&mut self) {
        let ego = &self.state.ego;
        let shape = UprightBox { pose: ego.pose, bottom_m: ego.z_m, extent_m: ego.extent_m };
        let actors = self.actors.others().iter().filter_map(|actor| {
            (!is_flat(actor) && footprints_overlap(&shape, &UprightBox::of(actor)))
                .then_some(Collision { other_id: actor.id, type_id: actor.type_id })
        });
        let scenery = self.scenery.iter().filter_map(|prop| {
            let low = prop.shape.bottom_m < shape.top_m();
            (low && footprints_overlap(&shape, &prop.shape))
                .then_some(Collision { other_id: 0, type_id: prop.type_id() })
        });
        self.state.collisions.clear();
        self.state.collisions.extend(actors.chain(scenery));
    }
}

/// Initial state of the ego vehicle: at the start of the route, or in the parking strip next to it.
fn start_of(road: &Road) -> EgoState {
    let start = road.plan().points[0];
    let on_route = Pose { position: start.position.truncate(), yaw_rad: start.heading_rad };
    let parked = road.parking_aside_m().filter(|_| road.layout().starts_parked);
    let pose = parked.map_or(on_route, |aside_m| {
        let position = on_route.position + on_route.right() * aside_m;
        Pose { position, ..on_route }
    });
    EgoState {
        pose,
        z_m: start.position.z,
        speed_mps: 0.0,
        yaw_rate_radps: 0.0,
        acceleration_mps2: 0.0,
        extent_m: EGO_EXTENT_M,
    }
}

/// Clamps the command to its bounds; NaN becomes zero.
fn checked(command: &Command) -> Command {
    let bounded = |value: f64, low| if value.is_nan() { 0.0 } else { value.clamp(low, 1.0) };
    Command {
        steer: bounded(command.steer, -1.0),
        throttle: bounded(command.throttle, 0.0),
        brake: bounded(command.brake, 0.0),
    }
}

impl World for EmbeddedWorld {
    fn observe(&mut self) -> Observation {
        let (frame, time) = (self.frame, self.time());
        let ego = self.state.ego;
        let viewpoint = Viewpoint::new(ego.pose, self.road.ground(ego.pose.position));
        if !self.cameras.is_empty() || self.lidar.is_some() {
            collect_visible(
                &viewpoint,
                &self.actors,
                &self.signals,
                &self.scenery,
                &mut self.visible,
            );
        }
        let road = &self.road;
        let station = (!self.cameras.is_empty()).then(|| road.nearest_station(ego.pose.position));
        let station = station.unwrap_or_default();
        let cameras = self.cameras.map_mut(|_, camera| {
            camera.render(frame, time, road, &viewpoint, station, &self.visible)
        });
        let noise = self.noise(Purpose::Lidar);
        let lidar = self.lidar.as_mut().map(|lidar| lidar.sweep(frame, &self.visible, noise));
        let truth = self.truth.then(|| {
            Arc::new(Truth {
                ego,
                actors: self.actors.others().to_vec(),
                plan: Arc::clone(self.road.plan()),
                speed_limit_mps: self.state.speed_limit_kmh / 3.6,
                stop_lines: self.signals.stop_lines().collect(),
                passages: self.effects.passages.clone(),
            })
        });
        Observation {
            frame,
            time,
            cameras,
            lidar,
            imu: inertial::imu(&ego, &mut self.noise(Purpose::Imu)),
            gnss: inertial::gnss(&ego, &self.road.plan().reference, &mut self.noise(Purpose::Gnss)),
            speed_mps: ego.speed_mps,
            truth,
        }
    }

    fn step(&mut self, command: &Command) {
        self.move_ego(command);
        self.frame.0 += 1;
        self.state.time_s = self.time().as_secs_f64();
        self.move_others();
        self.find_collisions();
        self.state.actors.clear();
        self.state.actors.extend_from_slice(self.actors.others());
        self.state.background_speeds_mps.clear();
        self.state.background_speeds_mps.extend(self.traffic.speeds_mps());
    }

    fn state(&self) -> &WorldState {
        &self.state
    }

    fn lanes(&self) -> &dyn LaneMap {
        &self.road
    }

    fn lane_strips(&self) -> Vec<LaneStrip> {
        self.road.strips()
    }

    fn plan(&self) -> &Arc<RoutePlan> {
        self.road.plan()
    }
}
