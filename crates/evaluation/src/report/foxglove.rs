//! Writes drives as MCAP files for Foxglove, with Foxglove's well-known schemas encoded as JSON.
//!
//! Foxglove's world is right-handed: x points east, y north, z up, and headings are
//! counterclockwise. So y and headings change their sign. Times are simulation times.
//!
//! | topic | schema | messages |
//! |---|---|---|
//! | `/tf` | `foxglove.FrameTransform` | `map` to `ego`, one per tick |
//! | `/ego` | `foxglove.PoseInFrame` | the ego vehicle in `map`, one per tick |
//! | `/map` | `foxglove.SceneUpdate` | roads and planned route, one, first |
//! | `/scene` | `foxglove.SceneUpdate` | ego, actors, lights and waypoints, one per scene |
//! | `/log` | `foxglove.Log` | infractions |
//! | `/command` | `tandem.Command` | one per tick |
//! | `/stages` | `tandem.StageTimes` | one per tick that was timed |
//! | `/prefix` | `tandem.Prefix` | one per tick that had a prefix KV cache |

use crate::campaign::log::{
    ActorTrack, LightLog, RouteLog, TICKS_PER_SCENE, TickLog, actor_kind_name,
};
use mcap::records::MessageHeader;
use mcap::{Compression, McapError, WriteOptions, Writer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use tandem_files::AtomicFile;
use tandem_recording::write_error_message;
use tandem_scene::{ActorKind, DeadlineVerdict, LightColor, StripKind, TICK_S};

/// Error returned when an MCAP file can't be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path:?}: {reason}")]
pub struct McapWriteError {
    path: PathBuf,
    reason: String,
}

/// Length, width and height of the ego vehicle's bounding box, meters.
const EGO_SIZE_M: [f64; 3] = [4.9, 2.13, 1.5];

/// Returns height in meters and RGB color of the box drawn for an actor.
fn box_style(kind: ActorKind) -> (f64, [f64; 3]) {
    match kind {
        ActorKind::Vehicle => (1.5, [0.94, 0.64, 0.23]),
        ActorKind::Bicycle => (1.7, [0.18, 0.62, 0.47]),
        ActorKind::Pedestrian => (1.8, [0.84, 0.25, 0.62]),
        ActorKind::Static => (1.0, [0.52, 0.51, 0.48]),
    }
}

/// Writes `log` atomically to `path`. Returns the number of messages.
pub fn write_mcap(path: &Path, log: &RouteLog) -> Result<u64, McapWriteError> {
    let options = WriteOptions::new().compression(Some(Compression::Lz4)).profile("");
    let write = || -> Result<u64, McapError> {
        let file = BufWriter::new(AtomicFile::create(path)?);
        let mut out = Output::new(Writer::with_options(file, options)?)?;
        out.drive(log)?;
        out.writer.finish()?;
        let file = out.writer.into_inner().into_inner().map_err(io::IntoInnerError::into_error)?;
        file.publish()?;
        Ok(out.messages)
    };
    write().map_err(|error| McapWriteError {
        path: path.to_owned(),
        reason: write_error_message(&error),
    })
}

/// Returns topic, schema name and JSON schema of every channel.
fn channels() -> [(&'static str, &'static str, Value); 8] {
    let number = || json!({"type": "number"});
    let text = || json!({"type": "string"});
    let object = |fields: Value| json!({"type": "object", "properties": fields});
    let list = |items: Value| json!({"type": "array", "items": items});
    let time = || object(json!({"sec": {"type": "integer"}, "nsec": {"type": "integer"}}));
    let vector = || object(json!({"x": number(), "y": number(), "z": number()}));
    let rotation = || object(json!({"x": number(), "y": number(), "z": number(), "w": number()}));
    let pose = || object(json!({"position": vector(), "orientation": rotation()}));
    let color = || object(json!({"r": number(), "g": number(), "b": number(), "a": number()}));
    let solid = || object(json!({"pose": pose(), "size": vector(), "color": color()}));
    let line = object(json!({
        "type": {"type": "integer"}, "pose": pose(), "thickness": number(),
        "scale_invariant": {"type": "boolean"}, "points": list(vector()), "color": color(),
        "colors": list(color()), "indices": list(json!({"type": "integer"})),
    }));
    let entity = object(json!({
        "timestamp": time(), "frame_id": text(), "id": text(), "lifetime": time(),
        "frame_locked": {"type": "boolean"},
        "metadata": list(object(json!({"key": text(), "value": text()}))),
        "arrows": list(object(json!({}))), "cubes": list(solid()), "spheres": list(solid()),
        "cylinders": list(object(json!({}))), "lines": list(line),
        "triangles": list(object(json!({}))), "texts": list(object(json!({}))),
        "models": list(object(json!({}))),
    }));
    let deletion = object(json!({"timestamp": time(), "type": {"type": "integer"}, "id": text()}));
    let scene = object(json!({"deletions": list(deletion), "entities": list(entity)}));
    let transform = object(json!({
        "timestamp": time(), "parent_frame_id": text(), "child_frame_id": text(),
        "translation": vector(), "rotation": rotation(),
    }));
    let posed = object(json!({"timestamp": time(), "frame_id": text(), "pose": pose()}));
    let log_entry = object(json!({
        "timestamp": time(), "level": {"type": "integer"}, "message": text(), "name": text(),
        "file": text(), "line": {"type": "integer"},
    }));
    let command = object(json!({
        "timestamp": time(), "steer": number(), "throttle": number(), "brake": number(),
        "speed_mps": number(), "is_held": {"type": "boolean"}, "late_by_ms": number(),
    }));
    let stages = json!({"type": "object", "properties": {"timestamp": time()},
        "additionalProperties": number()});
    let prefix = object(json!({
        "timestamp": time(), "version": {"type": "integer"}, "age_ms": number(),
    }));
    [
        ("/tf", "foxglove.FrameTransform", transform),
        ("/ego", "foxglove.PoseInFrame", posed),
        ("/map", "foxglove.SceneUpdate", scene.clone()),
        ("/scene", "foxglove.SceneUpdate", scene),
        ("/log", "foxglove.Log", log_entry),
        ("/command", "tandem.Command", command),
        ("/stages", "tandem.StageTimes", stages),
        ("/prefix", "tandem.Prefix", prefix),
    ]
}

struct Output {
    writer: Writer<BufWriter<AtomicFile>>,
    ids: BTreeMap<&'static str, u16>,
    messages: u64,
}

impl Output {
    fn new(mut writer: Writer<BufWriter<AtomicFile>>) -> Result<Self, McapError> {
        let mut ids = BTreeMap::new();
        let mut schemas: BTreeMap<&str, u16> = BTreeMap::new();
        for (topic, name, schema) in channels() {
            let id = match schemas.get(name) {
                Some(id) => *id,
                None => {
                    let text = schema.to_string();
                    let id = writer.add_schema(name, "jsonschema", text.as_bytes())?;
                    schemas.insert(name, id);
                    id
                }
            };
            ids.insert(topic, writer.add_channel(id, topic, "json", &BTreeMap::new())?);
        }
        Ok(Self { writer, ids, messages: 0 })
    }

    fn put(&mut self, topic: &str, time_s: f64, message: &Value) -> Result<(), McapError> {
        let time_ns = (time_s * 1e9).round() as u64;
        let header = MessageHeader {
            channel_id: self.ids[topic],
            sequence: self.messages as u32,
            log_time: time_ns,
            publish_time: time_ns,
        };
        self.messages += 1;
        self.writer.write_to_known_channel(&header, message.to_string().as_bytes())
    }

    fn drive(&mut self, log: &RouteLog) -> Result<(), McapError> {
        let start_s = log.ticks.first().map_or(0.0, |tick| tick.time_s);
        self.put("/map", start_s, &map(log, start_s))?;
        let actors = Scenes::new(log);
        for (idx, tick) in log.ticks.iter().enumerate() {
            self.tick(tick)?;
            if idx.is_multiple_of(TICKS_PER_SCENE) {
                let scene = actors.update(log, idx);
                self.put("/scene", tick.time_s, &scene)?;
            }
            let number = idx as u64 + 1;
            for event in log.events.iter().filter(|event| event.tick == Some(number)) {
                self.put(
                    "/log",
                    tick.time_s,
                    &log_message(tick.time_s, &event.kind, &event.message),
                )?;
            }
        }
        // Events that were recorded when the route was closed.
        let end_s = log.ticks.last().map_or(TICK_S, |tick| tick.time_s);
        let count = log.ticks.len() as u64;
        let is_closing = |tick: Option<u64>| tick.is_none_or(|tick| tick == 0 || tick > count);
        for event in log.events.iter().filter(|event| is_closing(event.tick)) {
            self.put("/log", end_s, &log_message(end_s, &event.kind, &event.message))?;
        }
        Ok(())
    }

    fn tick(&mut self, tick: &TickLog) -> Result<(), McapError> {
        let at = tick.time_s;
        let position = vector([tick.x_m, tick.y_m, 0.0]);
        let rotation = rotation(tick.yaw_rad);
        self.put(
            "/tf",
            at,
            &json!({"timestamp": stamp(at), "parent_frame_id": "map", "child_frame_id": "ego",
                "translation": position, "rotation": rotation}),
        )?;
        self.put(
            "/ego",
            at,
            &json!({"timestamp": stamp(at), "frame_id": "map",
                "pose": {"position": position, "orientation": rotation}}),
        )?;
        let late_by_ms = match tick.deadline {
            DeadlineVerdict::Met => 0.0,
            DeadlineVerdict::Missed { by } => by.as_secs_f64() * 1e3,
        };
        self.put(
            "/command",
            at,
            &json!({"timestamp": stamp(at), "steer": tick.command.steer,
                "throttle": tick.command.throttle, "brake": tick.command.brake,
                "speed_mps": tick.speed_mps, "is_held": tick.is_held, "late_by_ms": late_by_ms}),
        )?;
        let mut stages = Map::new();
        for (stage, took) in tick.stages.iter() {
            let name = format!("{}_ms", stage.name().replace([' ', '-'], "_"));
            stages.insert(name, json!(took.as_secs_f64() * 1e3));
        }
        if !stages.is_empty() {
            stages.insert("timestamp".to_owned(), stamp(at));
            self.put("/stages", at, &Value::Object(stages))?;
        }
        if let Some(prefix) = tick.prefix {
            let age_ms = prefix.age.as_secs_f64() * 1e3;
            let message =
                json!({"timestamp": stamp(at), "version": prefix.version, "age_ms": age_ms});
            self.put("/prefix", at, &message)?;
        }
        Ok(())
    }
}

fn stamp(time_s: f64) -> Value {
    let nanos = (time_s * 1e9).round() as u64;
    json!({"sec": nanos / 1_000_000_000, "nsec": nanos % 1_000_000_000})
}

/// Converts a position of the left-handed world.
fn vector([x, y, z]: [f64; 3]) -> Value {
    json!({"x": x, "y": if y == 0.0 { 0.0 } else { -y }, "z": z})
}

/// Converts a heading of the left-handed world to a quaternion.
fn rotation(yaw_rad: f64) -> Value {
    let half = -yaw_rad / 2.0;
    json!({"x": 0.0, "y": 0.0, "z": half.sin(), "w": half.cos()})
}

fn color([r, g, b]: [f64; 3], a: f64) -> Value {
    json!({"r": r, "g": g, "b": b, "a": a})
}

fn log_message(time_s: f64, kind: &str, message: &str) -> Value {
    // Level 4 is `ERROR`.
    json!({"timestamp": stamp(time_s), "level": 4, "message": message, "name": kind, "file": "",
        "line": 0})
}

/// Creates an entity with the given primitives and no others.
fn entity(time_s: f64, id: &str, primitives: &[(&str, Value)], metadata: &[(&str, &str)]) -> Value {
    let metadata = metadata.iter().map(|(key, value)| json!({"key": key, "value": value}));
    let mut entity = json!({
        "timestamp": stamp(time_s), "frame_id": "map", "id": id,
        "lifetime": {"sec": 0, "nsec": 0}, "frame_locked": false,
        "metadata": metadata.collect::<Vec<_>>(),
        "arrows": [], "cubes": [], "spheres": [], "cylinders": [], "lines": [], "triangles": [],
        "texts": [], "models": [],
    });
    for (kind, primitive) in primitives {
        entity[*kind] = primitive.clone();
    }
    entity
}

/// Creates a line with a width on the ground.
fn ribbon(
    points: impl Iterator<Item = [f64; 2]>,
    width_m: f64,
    z_m: f64,
    color: Value,
) -> (&'static str, Value) {
    let points: Vec<Value> = points.map(|[x, y]| vector([x, y, z_m])).collect();
    let line = json!({
        "type": 0, "pose": {"position": vector([0.0; 3]), "orientation": rotation(0.0)},
        "thickness": width_m, "scale_invariant": false, "points": points, "color": color,
        "colors": [], "indices": [],
    });
    ("lines", json!([line]))
}

/// Creates the scene of roads and planned route.
fn map(log: &RouteLog, time_s: f64) -> Value {
    let mut entities = Vec::new();
    for (idx, strip) in log.strips.iter().enumerate() {
        let gray = match strip.kind {
            StripKind::Driving => 0.35,
            StripKind::Parking => 0.28,
            StripKind::Bicycle => 0.4,
            StripKind::Sidewalk => 0.5,
        };
        let points = strip.center_m.iter().map(|point| point.to_array());
        // A gap of 10 cm on both sides marks the edges of the lane.
        let width_m = (strip.width_m - 0.2).max(0.1);
        let line = ribbon(points, width_m, -0.1, color([gray; 3], 1.0));
        entities.push(entity(time_s, &format!("strip {idx}"), &[line], &[]));
    }
    let planned = log.planned_m.iter().copied();
    let route = ribbon(planned, 0.6, -0.05, color([0.3, 0.6, 0.95], 0.7));
    entities.push(entity(time_s, "planned route", &[route], &[]));
    json!({"deletions": [], "entities": entities})
}

/// Visible actors by scene of the log.
struct Scenes {
    /// By scene: index of the track and pose.
    scenes: Vec<Vec<(usize, [f64; 3])>>,
}

impl Scenes {
    fn new(log: &RouteLog) -> Self {
        let mut scenes = vec![Vec::new(); log.scenes()];
        for (idx, track) in log.actors.iter().enumerate() {
            for run in &track.runs {
                let scenes = scenes.iter_mut().skip(run.first_scene);
                for (scene, pose) in scenes.zip(&run.poses) {
                    scene.push((idx, *pose));
                }
            }
        }
        Self { scenes }
    }

    fn update(&self, log: &RouteLog, idx: usize) -> Value {
        let tick = &log.ticks[idx];
        let at = tick.time_s;
        let ego = cube([tick.x_m, tick.y_m, tick.yaw_rad], EGO_SIZE_M, [0.16, 0.47, 0.84]);
        let mut entities = vec![entity(at, "ego", &[ego], &[])];
        for (track, pose) in &self.scenes[idx / TICKS_PER_SCENE] {
            entities.push(actor(at, &log.actors[*track], *pose));
        }
        for light in &log.lights {
            entities.extend(lamp(at, light, idx as u64 + 1));
        }
        let scene = idx / TICKS_PER_SCENE;
        if let Ok(found) = log.waypoints.binary_search_by_key(&scene, |planned| planned.scene) {
            let (sin, cos) = tick.yaw_rad.sin_cos();
            let dots = log.waypoints[found].waypoints_m.iter().map(|point| {
                let [x, y] = point.map(f64::from);
                let center = [tick.x_m + cos * x - sin * y, tick.y_m + sin * x + cos * y, 0.3];
                ball(center, 0.5, [0.85, 0.35, 0.12])
            });
            let spheres = ("spheres", Value::Array(dots.collect()));
            entities.push(entity(at, "waypoints", &[spheres], &[]));
        }
        // Type 1 deletes all entities; the current ones follow.
        json!({"deletions": [{"timestamp": stamp(at), "type": 1, "id": ""}], "entities": entities})
    }
}

fn cube([x, y, yaw]: [f64; 3], size_m: [f64; 3], rgb: [f64; 3]) -> (&'static str, Value) {
    let [length, width, height] = size_m;
    let cube = json!({
        "pose": {"position": vector([x, y, height / 2.0]), "orientation": rotation(yaw)},
        "size": {"x": length, "y": width, "z": height}, "color": color(rgb, 1.0),
    });
    ("cubes", json!([cube]))
}

fn ball(center: [f64; 3], diameter_m: f64, rgb: [f64; 3]) -> Value {
    json!({
        "pose": {"position": vector(center), "orientation": rotation(0.0)},
        "size": {"x": diameter_m, "y": diameter_m, "z": diameter_m}, "color": color(rgb, 1.0),
    })
}

fn actor(time_s: f64, track: &ActorTrack, pose: [f64; 3]) -> Value {
    let (height_m, rgb) = box_style(track.kind);
    let [half_length, half_width] = track.half_m;
    let cube = cube(pose, [2.0 * half_length, 2.0 * half_width, height_m], rgb);
    let metadata = [("kind", actor_kind_name(track.kind)), ("type", track.type_id.as_str())];
    entity(time_s, &format!("actor {}", track.id), &[cube], &metadata)
}

/// Creates the entity of a light; `None` before its first color.
fn lamp(time_s: f64, light: &LightLog, tick: u64) -> Option<Value> {
    let (_, shows) = light.shows.iter().rfind(|(from, _)| *from <= tick)?;
    let rgb = match shows {
        LightColor::Red => [0.9, 0.2, 0.17],
        LightColor::Yellow => [0.94, 0.7, 0.0],
        LightColor::Green => [0.13, 0.7, 0.36],
        LightColor::Off => [0.5; 3],
    };
    let [x, y] = light.position_m;
    let sphere = ("spheres", json!([ball([x, y, 4.0], 1.0, rgb)]));
    Some(entity(time_s, &format!("light {}", light.id), &[sphere], &[]))
}
