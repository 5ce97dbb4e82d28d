//! Log of a drive tick by tick, with the vehicle's surroundings, for replays in reports.
//!
//! Files store integers: lengths in centimeters, angles in milliradians, stage times in units of
//! 0.1 µs (`file.rs`). In memory values are not rounded.

mod file;

pub use file::FORMAT;

use crate::scoring::{Infraction, InfractionKind, TICK_CAP};
use arrayvec::ArrayVec;
use glam::{DVec2, Vec3Swizzles};
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_scene::{
    ActorKind, ActorState, Command, Control, DeadlineVerdict, LaneStrip, LightColor, PrefixInfo,
    RoutePlan, StripKind, TriggerVolume, WorldState,
};
use tandem_timing::{StageStatistics, StageTimes};

/// Number of ticks per scene: scenes are recorded at 10 Hz, from the first tick on.
pub const TICKS_PER_SCENE: usize = 2;

/// Largest distance of a recorded actor's center from the ego vehicle, meters.
pub const ACTOR_RADIUS_M: f64 = 80.0;

/// Largest deviation of simplified lane strips, meters.
const STRIP_TOLERANCE_M: f64 = 0.03;

/// State and command of one tick.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TickLog {
    pub time_s: f64,
    /// Ego position in the world, meters.
    pub x_m: f64,
    /// Ego position in the world, meters.
    pub y_m: f64,
    /// Ego heading in the world, radians.
    pub yaw_rad: f64,
    /// Forward speed.
    pub speed_mps: f64,
    pub command: Command,
    /// Durations of the driver's stages.
    pub stages: StageTimes,
    /// Prefix KV cache that the command was computed from.
    pub prefix: Option<PrefixInfo>,
    pub deadline: DeadlineVerdict,
    /// True if the command of the previous tick was applied again, because
    /// no newer one was available.
    pub is_held: bool,
}

/// Infraction as shown in a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggedEvent {
    /// Tick of the infraction, from 1; `None` if it was recorded when the route was closed.
    pub tick: Option<u64>,
    /// Key of its list in the record, e.g. `collisions_vehicle`.
    pub kind: String,
    /// Message text of the record.
    pub message: String,
}

/// Track of another actor, in all scenes in which it was near.
#[derive(Clone, PartialEq, Debug)]
pub struct ActorTrack {
    pub id: u32,
    pub kind: ActorKind,
    /// Blueprint name of CARLA.
    pub type_id: String,
    /// Half length and half width, meters.
    pub half_m: [f64; 2],
    /// Runs of consecutive scenes, in order.
    pub runs: Vec<TrackRun>,
}

/// Poses of an actor in consecutive scenes, which count from 0.
#[derive(Clone, PartialEq, Debug)]
pub struct TrackRun {
    pub first_scene: usize,
    /// x, y in meters and heading in radians, one per scene.
    pub poses: Vec<[f64; 3]>,
}

/// Oriented rectangle on the road.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GroundBox {
    /// Center in the world, meters.
    pub center_m: [f64; 2],
    /// Heading of its x axis in the world, radians.
    pub yaw_rad: f64,
    /// Half sizes along its x and y, meters.
    pub half_m: [f64; 2],
}

/// Traffic light and its colors over time.
#[derive(Clone, PartialEq, Debug)]
pub struct LightLog {
    pub id: u32,
    /// Position of its pole, meters.
    pub position_m: [f64; 2],
    /// Trigger volume on the road.
    pub trigger: GroundBox,
    /// Ticks (from 1) at which the color changed, with the new color.
    pub shows: Vec<(u64, LightColor)>,
}

/// Stop sign and its trigger volume.
#[derive(Clone, PartialEq, Debug)]
pub struct SignLog {
    pub id: u32,
    /// Position of its pole, meters.
    pub position_m: [f64; 2],
    /// Trigger volume in which to stop.
    pub trigger: GroundBox,
}

/// Ticks during which a scenario ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScenarioLog {
    pub id: u32,
    /// First tick at which the world reported it, from 1.
    pub first_tick: u64,
    /// Last tick at which the world reported it.
    pub last_tick: u64,
}

/// Waypoints that the driver planned at a scene, from 0.
#[derive(Clone, PartialEq, Debug)]
pub struct WaypointLog {
    pub scene: usize,
    /// Time between waypoints; the first one is one spacing ahead.
    pub spacing: Duration,
    /// In the ego frame of the scene, meters.
    pub waypoints_m: ArrayVec<[f32; 2], 16>,
}

/// Log of a drive with all data that a report shows.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RouteLog {
    /// Dense route in the world frame, meters.
    pub planned_m: Vec<[f64; 2]>,
    /// Lane strips that the world provides.
    pub strips: Vec<LaneStrip>,
    /// Infractions without minimum-speed values, of which every route has about twenty.
    pub events: Vec<LoggedEvent>,
    /// One per tick that the driver answered, in order.
    pub ticks: Vec<TickLog>,
    /// In the order of their first scene.
    pub actors: Vec<ActorTrack>,
    /// In the order in which they were first near.
    pub lights: Vec<LightLog>,
    /// In the order in which they were first near.
    pub signs: Vec<SignLog>,
    /// Scenarios with their own criteria, in the order of their first tick.
    pub scenarios: Vec<ScenarioLog>,
    /// In the order of scenes; empty if the driver reports no waypoints.
    pub waypoints: Vec<WaypointLog>,
}

impl RouteLog {
    /// Returns statistics of stage times from tick `warm_up` on, counted from 0.
    pub fn statistics(&self, warm_up: usize) -> StageStatistics {
        let mut statistics = StageStatistics::new();
        for tick in self.ticks.iter().skip(warm_up) {
            let is_late = tick.deadline != DeadlineVerdict::Met;
            statistics.record(&tick.stages, tick.prefix.map(|prefix| prefix.age), is_late);
        }
        statistics
    }

    /// Returns tick number `tick`, counted from 1.
    pub fn tick(&self, tick: u64) -> Option<&TickLog> {
        self.ticks.get(usize::try_from(tick).ok()?.checked_sub(1)?)
    }

    /// Returns the number of scenes.
    pub fn scenes(&self) -> usize {
        self.ticks.len().div_ceil(TICKS_PER_SCENE)
    }
}

/// Records the log of a drive.
pub struct LogRecorder {
    log: RouteLog,
    /// By actor id: index of its newest track, and its last scene.
    tracks: BTreeMap<u32, (usize, usize)>,
}

impl LogRecorder {
    /// Creates an empty log with capacity for the longest drive.
    pub fn new(plan: &RoutePlan, strips: &[LaneStrip]) -> Self {
        let ticks = usize::try_from(TICK_CAP + 1).expect("4001 fits any usize");
        let strip = |strip: &LaneStrip| LaneStrip {
            center_m: simplified(&strip.center_m, STRIP_TOLERANCE_M),
            ..strip.clone()
        };
        let log = RouteLog {
            planned_m: plan.points.iter().map(|p| p.position.xy().to_array()).collect(),
            strips: strips.iter().map(strip).collect(),
            ticks: Vec::with_capacity(ticks),
            ..RouteLog::default()
        };
        Self { log, tracks: BTreeMap::new() }
    }

    /// Adds the tick of `state`, with the driver's answer `control` and the applied `command`.
    pub fn tick(&mut self, state: &WorldState, command: Command, control: &Control) {
        let idx = self.log.ticks.len();
        self.log.ticks.push(TickLog {
            time_s: state.time_s,
            x_m: state.ego.pose.position.x,
            y_m: state.ego.pose.position.y,
            yaw_rad: state.ego.pose.yaw_rad,
            speed_mps: state.ego.speed_mps,
            command,
            stages: control.report.times(),
            prefix: control.report.prefix,
            deadline: control.report.deadline,
            is_held: control.report.is_held,
        });
        self.record_rules(idx as u64 + 1, state);
        if idx.is_multiple_of(TICKS_PER_SCENE) {
            self.record_scene(idx / TICKS_PER_SCENE, state, control);
        }
    }

    /// Returns the log with the judge's infractions.
    pub fn finish(mut self, infractions: &[Infraction]) -> RouteLog {
        let events = infractions.iter().filter(|event| event.kind != InfractionKind::MinSpeed);
        self.log.events = events
            .map(|event| LoggedEvent {
                tick: event.tick,
                kind: event.kind.key().to_owned(),
                message: event.message.clone(),
            })
            .collect();
        self.log
    }

    fn record_rules(&mut self, tick: u64, state: &WorldState) {
        for light in &state.traffic_lights {
            let lights = &mut self.log.lights;
            let known = lights.iter().position(|known| known.id == light.id);
            let idx = known.unwrap_or_else(|| {
                lights.push(LightLog {
                    id: light.id,
                    position_m: light.position.xy().to_array(),
                    trigger: GroundBox::of(&light.trigger),
                    shows: Vec::new(),
                });
                lights.len() - 1
            });
            let shows = &mut lights[idx].shows;
            if shows.last().is_none_or(|(_, color)| *color != light.color) {
                shows.push((tick, light.color));
            }
        }
        for sign in &state.stop_signs {
            if !self.log.signs.iter().any(|known| known.id == sign.id) {
                self.log.signs.push(SignLog {
                    id: sign.id,
                    position_m: sign.position.xy().to_array(),
                    trigger: GroundBox::of(&sign.trigger),
                });
            }
        }
        for scenario in &state.scenarios {
            let runs = &mut self.log.scenarios;
            let running =
                runs.iter_mut().find(|run| run.id == scenario.id && run.last_tick + 1 == tick);
            match running {
                Some(run) => run.last_tick = tick,
                None => {
                    runs.push(ScenarioLog { id: scenario.id, first_tick: tick, last_tick: tick });
                }
            }
        }
    }

    fn record_scene(&mut self, scene: usize, state: &WorldState, control: &Control) {
        let ego = state.ego.pose.position;
        for actor in &state.actors {
            if actor.pose.position.distance_squared(ego) <= ACTOR_RADIUS_M * ACTOR_RADIUS_M {
                self.record_actor(scene, actor);
            }
        }
        if let Some(trajectory) = &control.report.trajectory {
            self.log.waypoints.push(WaypointLog {
                scene,
                spacing: trajectory.spacing,
                waypoints_m: trajectory.waypoints.clone(),
            });
        }
    }

    fn record_actor(&mut self, scene: usize, actor: &ActorState) {
        let tracks = &mut self.log.actors;
        let half_m = [actor.extent_m[0], actor.extent_m[1]];
        // An id that is reused for a different kind, type or size is another actor.
        let known = self.tracks.get(&actor.id).copied().filter(|&(track, _)| {
            let known = &tracks[track];
            known.half_m == half_m && known.kind == actor.kind && known.type_id == actor.type_id
        });
        let pose = [actor.pose.position.x, actor.pose.position.y, actor.pose.yaw_rad];
        let run = TrackRun { first_scene: scene, poses: Vec::new() };
        let track = match known {
            Some((track, last_scene)) => {
                if last_scene + 1 != scene {
                    tracks[track].runs.push(run);
                }
                track
            }
            None => {
                tracks.push(ActorTrack {
                    id: actor.id,
                    kind: actor.kind,
                    type_id: actor.type_id.to_owned(),
                    half_m,
                    runs: vec![run],
                });
                tracks.len() - 1
            }
        };
        let run = tracks[track].runs.last_mut().expect("a track has a run");
        run.poses.push(pose);
        self.tracks.insert(actor.id, (track, scene));
    }
}

impl GroundBox {
    fn of(volume: &TriggerVolume) -> Self {
        Self {
            center_m: volume.center.xy().to_array(),
            yaw_rad: volume.yaw_rad,
            half_m: [volume.extent_m[0], volume.extent_m[1]],
        }
    }
}

/// Returns the name in files and pages.
pub(crate) fn actor_kind_name(kind: ActorKind) -> &'static str {
    match kind {
        ActorKind::Vehicle => "vehicle",
        ActorKind::Bicycle => "bicycle",
        ActorKind::Pedestrian => "pedestrian",
        ActorKind::Static => "static",
    }
}

/// Returns the name in files and pages.
pub(crate) fn color_name(color: LightColor) -> &'static str {
    match color {
        LightColor::Red => "red",
        LightColor::Yellow => "yellow",
        LightColor::Green => "green",
        LightColor::Off => "off",
    }
}

/// Returns the name in files and pages.
pub(crate) fn strip_kind_name(kind: StripKind) -> &'static str {
    match kind {
        StripKind::Driving => "driving",
        StripKind::Parking => "parking",
        StripKind::Bicycle => "bicycle",
        StripKind::Sidewalk => "sidewalk",
    }
}

/// Simplifies a line so that removed points are at most `tolerance_m` from
/// it (Ramer–Douglas–Peucker).
fn simplified(points: &[DVec2], tolerance_m: f64) -> Vec<DVec2> {
    let Some(last) = points.len().checked_sub(1).filter(|&last| last > 0) else {
        return points.to_vec();
    };
    let mut is_kept = vec![false; points.len()];
    is_kept[0] = true;
    is_kept[last] = true;
    let mut sections = vec![(0, last)];
    while let Some((from, to)) = sections.pop() {
        let (start, along) = (points[from], points[to] - points[from]);
        let distance = |point: DVec2| {
            let part = (point - start).dot(along) / along.length_squared().max(1e-12);
            point.distance(start + along * part.clamp(0.0, 1.0))
        };
        let farthest = (from + 1..to)
            .map(|idx| (idx, distance(points[idx])))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, distance_m)| *distance_m > tolerance_m);
        if let Some((idx, _)) = farthest {
            is_kept[idx] = true;
            sections.extend([(from, idx), (idx, to)]);
        }
    }
    points.iter().zip(is_kept).filter_map(|(&point, kept)| kept.then_some(point)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simplified_line_keeps_corners_only() {
        let line = [(0.0, 0.0), (1.0, 0.01), (2.0, 0.0), (3.0, 0.0), (3.0, 5.0)];
        let kept = simplified(&line.map(|(x, y)| DVec2::new(x, y)), 0.03);
        let expected = [(0.0, 0.0), (3.0, 0.0), (3.0, 5.0)];
        assert_eq!(kept, expected.map(|(x, y)| DVec2::new(x, y)));
        assert!(simplified(&[], 0.1).is_empty());
    }
}
