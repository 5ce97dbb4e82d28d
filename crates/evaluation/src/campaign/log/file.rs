//! Log file: JSON with columns of integers.
//!
//! Lengths are in cm, speeds in cm/s, angles in milliradians, pedals in thousandths, simulation
//! time in ms, stage times and the prefix's age in units of 0.1 µs. A column contains the
//! difference of each entry to the previous one, starting from zero, without trailing zeros; its
//! number of entries is stored separately. Values that are not present at every tick are stored in
//! runs. The report's page reads the same JSON.

use super::{
    ActorTrack, GroundBox, LightLog, LoggedEvent, RouteLog, ScenarioLog, SignLog, TickLog,
    TrackRun, WaypointLog, actor_kind_name, color_name, strip_kind_name,
};
use glam::DVec2;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_scene::{
    ActorKind, Command, DeadlineVerdict, LaneStrip, LightColor, PrefixInfo, StripKind,
};
use tandem_timing::{Stage, StageTimes};

/// Version of the format that is written and read. The earliest logs have no version.
pub const FORMAT: u32 = 2;

/// Maximum number of entries of a column that is read, to bound memory; far above any drive.
const MAX_COLUMN: usize = 1 << 20;

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct LogFile {
    format: u32,
    planned: Line,
    strips: Vec<StripEntry>,
    events: Vec<EventEntry>,
    drive: Drive,
    actors: Vec<ActorEntry>,
    lights: Vec<LightEntry>,
    signs: Vec<SignEntry>,
    /// Id, first tick, last tick.
    scenarios: Vec<(u32, u64, u64)>,
    /// Scene, spacing in milliseconds, and x and y of each waypoint.
    waypoints: Vec<(usize, u64, Vec<i64>)>,
}

#[derive(Serialize, Deserialize, Default)]
struct Line {
    points: usize,
    x: Column,
    y: Column,
}

#[derive(Serialize, Deserialize)]
struct StripEntry {
    kind: String,
    width: i64,
    center: Line,
}

#[derive(Serialize, Deserialize)]
struct EventEntry {
    tick: Option<u64>,
    kind: String,
    message: String,
}

#[derive(Serialize, Deserialize, Default)]
struct Drive {
    ticks: usize,
    time: Column,
    x: Column,
    y: Column,
    yaw: Column,
    speed: Column,
    steer: Column,
    throttle: Column,
    brake: Column,
    /// By stage name; unknown names are ignored when reading.
    stages: BTreeMap<String, Runs>,
    prefix_version: Runs,
    prefix_age: Runs,
    late_by: Runs,
    /// 1 at ticks with a held command; absent for drivers that answer at once.
    #[serde(default)]
    held: Runs,
}

#[derive(Serialize, Deserialize)]
struct ActorEntry {
    id: u32,
    kind: String,
    #[serde(rename = "type")]
    type_id: String,
    half: [i64; 2],
    runs: Vec<RunEntry>,
}

#[derive(Serialize, Deserialize)]
struct RunEntry {
    scene: usize,
    scenes: usize,
    x: Column,
    y: Column,
    yaw: Column,
}

/// Center x and y, heading, half sizes.
type BoxEntry = [i64; 5];

#[derive(Serialize, Deserialize)]
struct LightEntry {
    id: u32,
    at: [i64; 2],
    watches: BoxEntry,
    shows: Vec<(u64, String)>,
}

#[derive(Serialize, Deserialize)]
struct SignEntry {
    id: u32,
    at: [i64; 2],
    watches: BoxEntry,
}

/// Differences without trailing zeros.
#[derive(Serialize, Deserialize, Default)]
#[serde(transparent)]
struct Column(Vec<i64>);

impl Column {
    fn of(values: impl Iterator<Item = i64>) -> Self {
        let mut last = 0;
        let mut differences: Vec<i64> =
            values.map(|value| value - std::mem::replace(&mut last, value)).collect();
        while differences.last() == Some(&0) {
            differences.pop();
        }
        Self(differences)
    }

    fn values(&self, count: usize, name: &str) -> Result<Vec<i64>, String> {
        if count > MAX_COLUMN || self.0.len() > count {
            let found = self.0.len();
            return Err(format!("column {name} has {found} differences for {count} entries"));
        }
        let mut value = 0_i64;
        let mut values = Vec::with_capacity(count);
        for difference in &self.0 {
            value = value
                .checked_add(*difference)
                .ok_or_else(|| format!("column {name} exceeds the range of its numbers"))?;
            values.push(value);
        }
        values.resize(count, value);
        Ok(values)
    }
}

/// Column with gaps: `[first entry, number of entries]` of each run, and the concatenated values.
#[derive(Serialize, Deserialize, Default)]
struct Runs {
    runs: Vec<[usize; 2]>,
    values: Vec<u64>,
}

impl Runs {
    fn of(entries: impl Iterator<Item = Option<u64>>) -> Self {
        let mut runs = Self::default();
        for (idx, value) in entries.enumerate() {
            let Some(value) = value else { continue };
            match runs.runs.last_mut() {
                Some([first, count]) if *first + *count == idx => *count += 1,
                _ => runs.runs.push([idx, 1]),
            }
            runs.values.push(value);
        }
        runs
    }

    fn entries(&self, count: usize, name: &str) -> Result<Vec<Option<u64>>, String> {
        let mut entries = vec![None; count];
        let mut values = self.values.iter();
        for &[first, length] in &self.runs {
            let end = first.checked_add(length).filter(|&end| end <= count);
            let end =
                end.ok_or_else(|| format!("column {name} goes beyond its {count} entries"))?;
            for entry in &mut entries[first..end] {
                *entry = values.next().copied();
                if entry.is_none() {
                    return Err(format!("column {name} has fewer values than its runs say"));
                }
            }
        }
        match values.next() {
            None => Ok(entries),
            Some(_) => Err(format!("column {name} has more values than its runs say")),
        }
    }
}

fn hundredths(meters: f64) -> i64 {
    (meters * 100.0).round() as i64
}

fn thousandths(value: f64) -> i64 {
    (value * 1000.0).round() as i64
}

fn meters(hundredths: i64) -> f64 {
    hundredths as f64 / 100.0
}

fn ones(thousandths: i64) -> f64 {
    thousandths as f64 / 1000.0
}

fn tenth_micros(duration: Duration) -> u64 {
    u64::try_from((duration.as_nanos() + 50) / 100).unwrap_or(u64::MAX)
}

fn duration(tenth_micros: u64) -> Duration {
    Duration::from_nanos(tenth_micros.saturating_mul(100))
}

impl Serialize for RouteLog {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        LogFile::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RouteLog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file = LogFile::deserialize(deserializer)?;
        match file.format {
            FORMAT => file.log().map_err(D::Error::custom),
            0 => Err(D::Error::custom(format!(
                "this log has no format version: it was written before format {FORMAT}; drive the \
                 route again to get a log that can be read"
            ))),
            other => Err(D::Error::custom(format!(
                "this log has format {other}, this tandem reads format {FORMAT}: use the tandem \
                 version that wrote it, or drive the route again"
            ))),
        }
    }
}

impl Line {
    fn of(points: impl ExactSizeIterator<Item = [f64; 2]> + Clone) -> Self {
        Self {
            points: points.len(),
            x: Column::of(points.clone().map(|point| hundredths(point[0]))),
            y: Column::of(points.map(|point| hundredths(point[1]))),
        }
    }

    fn points(&self, name: &str) -> Result<Vec<[f64; 2]>, String> {
        let x = self.x.values(self.points, name)?;
        let y = self.y.values(self.points, name)?;
        Ok(x.into_iter().zip(y).map(|(x, y)| [meters(x), meters(y)]).collect())
    }
}

fn box_entry(ground: &GroundBox) -> BoxEntry {
    let [x, y] = ground.center_m.map(hundredths);
    let [half_x, half_y] = ground.half_m.map(hundredths);
    [x, y, thousandths(ground.yaw_rad), half_x, half_y]
}

fn ground_box([x, y, yaw, half_x, half_y]: BoxEntry) -> GroundBox {
    GroundBox {
        center_m: [meters(x), meters(y)],
        yaw_rad: ones(yaw),
        half_m: [meters(half_x), meters(half_y)],
    }
}

impl LogFile {
    fn of(log: &RouteLog) -> Self {
        let strip = |strip: &LaneStrip| StripEntry {
            kind: strip_kind_name(strip.kind).to_owned(),
            width: hundredths(strip.width_m),
            center: Line::of(strip.center_m.iter().map(|point| point.to_array())),
        };
        let event = |event: &LoggedEvent| EventEntry {
            tick: event.tick,
            kind: event.kind.clone(),
            message: event.message.clone(),
        };
        let light = |light: &LightLog| LightEntry {
            id: light.id,
            at: light.position_m.map(hundredths),
            watches: box_entry(&light.trigger),
            shows: light
                .shows
                .iter()
                .map(|(tick, color)| (*tick, color_name(*color).to_owned()))
                .collect(),
        };
        let sign = |sign: &SignLog| SignEntry {
            id: sign.id,
            at: sign.position_m.map(hundredths),
            watches: box_entry(&sign.trigger),
        };
        let waypoints = |planned: &WaypointLog| {
            let numbers = planned.waypoints_m.iter().flatten();
            let spacing = planned.spacing.as_millis() as u64;
            (planned.scene, spacing, numbers.map(|value| hundredths(f64::from(*value))).collect())
        };
        Self {
            format: FORMAT,
            planned: Line::of(log.planned_m.iter().copied()),
            strips: log.strips.iter().map(strip).collect(),
            events: log.events.iter().map(event).collect(),
            drive: Drive::of(&log.ticks),
            actors: log.actors.iter().map(ActorEntry::of).collect(),
            lights: log.lights.iter().map(light).collect(),
            signs: log.signs.iter().map(sign).collect(),
            scenarios: log.scenarios.iter().map(|s| (s.id, s.first_tick, s.last_tick)).collect(),
            waypoints: log.waypoints.iter().map(waypoints).collect(),
        }
    }

    fn log(self) -> Result<RouteLog, String> {
        let strip = |entry: StripEntry| -> Result<LaneStrip, String> {
            Ok(LaneStrip {
                kind: named(&entry.kind, &ALL_STRIPS, strip_kind_name)?,
                width_m: meters(entry.width),
                center_m: entry.center.points("strip")?.into_iter().map(DVec2::from).collect(),
            })
        };
        let light = |entry: LightEntry| -> Result<LightLog, String> {
            let shows = entry.shows.into_iter();
            let shows =
                shows.map(|(tick, name)| Ok((tick, named(&name, &ALL_COLORS, color_name)?)));
            Ok(LightLog {
                id: entry.id,
                position_m: entry.at.map(meters),
                trigger: ground_box(entry.watches),
                shows: shows.collect::<Result<_, String>>()?,
            })
        };
        let sign = |entry: SignEntry| SignLog {
            id: entry.id,
            position_m: entry.at.map(meters),
            trigger: ground_box(entry.watches),
        };
        let waypoints = |(scene, spacing_ms, numbers): (usize, u64, Vec<i64>)| {
            let (points, rest) = numbers.as_chunks::<2>();
            let is_valid = rest.is_empty() && points.len() <= 16;
            is_valid
                .then(|| WaypointLog {
                    scene,
                    spacing: Duration::from_millis(spacing_ms),
                    waypoints_m: points.iter().map(|p| p.map(|v| meters(v) as f32)).collect(),
                })
                .ok_or_else(|| format!("the waypoints of scene {scene} are not up to 16 pairs"))
        };
        let event =
            |EventEntry { tick, kind, message }: EventEntry| LoggedEvent { tick, kind, message };
        let scenario = |(id, first_tick, last_tick): (u32, u64, u64)| ScenarioLog {
            id,
            first_tick,
            last_tick,
        };
        Ok(RouteLog {
            planned_m: self.planned.points("planned")?,
            strips: self.strips.into_iter().map(strip).collect::<Result<_, _>>()?,
            events: self.events.into_iter().map(event).collect(),
            ticks: self.drive.ticks()?,
            actors: self.actors.into_iter().map(ActorEntry::track).collect::<Result<_, _>>()?,
            lights: self.lights.into_iter().map(light).collect::<Result<_, _>>()?,
            signs: self.signs.into_iter().map(sign).collect(),
            scenarios: self.scenarios.into_iter().map(scenario).collect(),
            waypoints: self.waypoints.into_iter().map(waypoints).collect::<Result<_, _>>()?,
        })
    }
}

const ALL_STRIPS: [StripKind; 4] =
    [StripKind::Driving, StripKind::Parking, StripKind::Bicycle, StripKind::Sidewalk];

const ALL_COLORS: [LightColor; 4] =
    [LightColor::Red, LightColor::Yellow, LightColor::Green, LightColor::Off];

const ALL_ACTORS: [ActorKind; 4] =
    [ActorKind::Vehicle, ActorKind::Bicycle, ActorKind::Pedestrian, ActorKind::Static];

/// Returns the one of `all` with this name.
fn named<T: Copy>(name: &str, all: &[T], name_of: fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|one| name_of(*one) == name);
    found.ok_or_else(|| format!("unknown name {name:?}"))
}

impl ActorEntry {
    fn of(track: &ActorTrack) -> Self {
        let run = |run: &TrackRun| RunEntry {
            scene: run.first_scene,
            scenes: run.poses.len(),
            x: Column::of(run.poses.iter().map(|pose| hundredths(pose[0]))),
            y: Column::of(run.poses.iter().map(|pose| hundredths(pose[1]))),
            yaw: Column::of(run.poses.iter().map(|pose| thousandths(pose[2]))),
        };
        Self {
            id: track.id,
            kind: actor_kind_name(track.kind).to_owned(),
            type_id: track.type_id.clone(),
            half: track.half_m.map(hundredths),
            runs: track.runs.iter().map(run).collect(),
        }
    }

    fn track(self) -> Result<ActorTrack, String> {
        let run = |run: RunEntry| -> Result<TrackRun, String> {
            let [x, y] =
                [run.x.values(run.scenes, "actor x")?, run.y.values(run.scenes, "actor y")?];
            let yaw = run.yaw.values(run.scenes, "actor yaw")?;
            let poses = x.into_iter().zip(y).zip(yaw);
            Ok(TrackRun {
                first_scene: run.scene,
                poses: poses.map(|((x, y), yaw)| [meters(x), meters(y), ones(yaw)]).collect(),
            })
        };
        Ok(ActorTrack {
            id: self.id,
            kind: named(&self.kind, &ALL_ACTORS, actor_kind_name)?,
            type_id: self.type_id,
            half_m: self.half.map(meters),
            runs: self.runs.into_iter().map(run).collect::<Result<_, _>>()?,
        })
    }
}

impl Drive {
    fn of(ticks: &[TickLog]) -> Self {
        let column = |value: fn(&TickLog) -> i64| Column::of(ticks.iter().map(value));
        let stage = |stage: Stage| {
            let runs = Runs::of(ticks.iter().map(|tick| tick.stages.took(stage).map(tenth_micros)));
            (!runs.values.is_empty()).then(|| (stage.name().to_owned(), runs))
        };
        let late_by = |tick: &TickLog| match tick.deadline {
            DeadlineVerdict::Met => None,
            DeadlineVerdict::Missed { by } => Some(tenth_micros(by)),
        };
        let prefix = |value: fn(PrefixInfo) -> u64| {
            Runs::of(ticks.iter().map(|tick| tick.prefix.map(value)))
        };
        Self {
            ticks: ticks.len(),
            time: column(|tick| thousandths(tick.time_s)),
            x: column(|tick| hundredths(tick.x_m)),
            y: column(|tick| hundredths(tick.y_m)),
            yaw: column(|tick| thousandths(tick.yaw_rad)),
            speed: column(|tick| hundredths(tick.speed_mps)),
            steer: column(|tick| thousandths(tick.command.steer)),
            throttle: column(|tick| thousandths(tick.command.throttle)),
            brake: column(|tick| thousandths(tick.command.brake)),
            stages: Stage::all().iter().copied().filter_map(stage).collect(),
            prefix_version: prefix(|prefix| prefix.version),
            prefix_age: prefix(|prefix| tenth_micros(prefix.age)),
            late_by: Runs::of(ticks.iter().map(late_by)),
            held: Runs::of(ticks.iter().map(|tick| tick.is_held.then_some(1))),
        }
    }

    fn ticks(&self) -> Result<Vec<TickLog>, String> {
        let count = self.ticks;
        let [time, x, y] = [
            self.time.values(count, "time")?,
            self.x.values(count, "x")?,
            self.y.values(count, "y")?,
        ];
        let [yaw, speed] = [self.yaw.values(count, "yaw")?, self.speed.values(count, "speed")?];
        let steer = self.steer.values(count, "steer")?;
        let [throttle, brake] =
            [self.throttle.values(count, "throttle")?, self.brake.values(count, "brake")?];
        let mut stages = vec![StageTimes::default(); count];
        for (name, runs) in &self.stages {
            let Some(stage) = Stage::named(name) else { continue };
            for (times, took) in stages.iter_mut().zip(runs.entries(count, name)?) {
                if let Some(took) = took {
                    times.set(stage, duration(took));
                }
            }
        }
        let version = self.prefix_version.entries(count, "prefix_version")?;
        let age = self.prefix_age.entries(count, "prefix_age")?;
        let late_by = self.late_by.entries(count, "late_by")?;
        let held = self.held.entries(count, "held")?;
        let tick = |idx: usize| TickLog {
            time_s: ones(time[idx]),
            x_m: meters(x[idx]),
            y_m: meters(y[idx]),
            yaw_rad: ones(yaw[idx]),
            speed_mps: meters(speed[idx]),
            command: Command {
                steer: ones(steer[idx]),
                throttle: ones(throttle[idx]),
                brake: ones(brake[idx]),
            },
            stages: stages[idx],
            prefix: version[idx]
                .zip(age[idx])
                .map(|(version, age)| PrefixInfo { version, age: duration(age) }),
            deadline: late_by[idx]
                .map_or(DeadlineVerdict::Met, |by| DeadlineVerdict::Missed { by: duration(by) }),
            is_held: held[idx].is_some(),
        };
        Ok((0..count).map(tick).collect())
    }
}
