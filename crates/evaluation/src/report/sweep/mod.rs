//! What latency costs: figures of a grid of settings, slow latency × fast latency, each driven along
//! the same routes in the same worlds.
//!
//! Every figure is over drives that are finished, and says how many those are. Intervals draw routes
//! with all their drives (`bootstrap.rs`); differences to the setting without latency are over drives
//! that are finished in both, and draw the same routes on both sides.

mod page;
mod section;

pub(super) use section::section;

use super::bootstrap::{CONFIDENCE, Estimate, RESAMPLES, Resamples, Share};
use crate::campaign::log::RouteLog;
use crate::scoring::Record;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tandem_scene::DeadlineVerdict;

/// The format of `sweep.json` that this tandem writes.
pub const FORMAT: u32 = 1;

/// Seed of the draws behind intervals.
const BOOTSTRAP_SEED: u64 = 1;

/// A latency of one axis.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisPoint {
    /// As it was asked for.
    pub latency: String,
    /// Where it lies on the axis, milliseconds: what is fixed as it is, a distribution by its median;
    /// `None` for recordings.
    pub millis: Option<f64>,
}

/// A sweep with all its figures: `sweep.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of tandem.
    pub tandem: String,
    /// Who drove.
    pub driver: String,
    /// What a reader must know before looking at any number.
    pub note: String,
    /// Whose latencies are emulated, if they were recorded.
    pub emulated: Vec<String>,
    /// `overlap` or `busy`.
    pub fast_releases: String,
    /// Seed of the first repetition.
    pub seed: u64,
    /// Routes of every cell.
    pub routes: usize,
    /// Drives of every route.
    pub repetitions: u32,
    /// Drives that are finished, of all cells.
    pub finished: usize,
    /// Drives of all cells.
    pub total: usize,
    /// Draws that an interval rests on.
    pub resamples: usize,
    /// Share of draws that an interval holds.
    pub confidence: f64,
    /// How long after a late or held command an infraction counts as being behind it, milliseconds.
    pub horizon_ms: u64,
    /// Slow latencies.
    pub slow: Vec<AxisPoint>,
    /// Fast latencies.
    pub fast: Vec<AxisPoint>,
    /// Position of the cell without latency, which differences are to; `None` if it was not driven.
    pub base: Option<usize>,
    /// Slow latencies outermost.
    pub cells: Vec<Cell>,
}

/// The figures of one setting.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Its folder.
    pub name: String,
    /// Position of its slow latency.
    pub slow: usize,
    /// Position of its fast latency.
    pub fast: usize,
    /// Drives that are finished: all figures are over these.
    pub finished: usize,
    /// Drives.
    pub total: usize,
    /// Mean driving score, 0 to 100.
    pub driving_score: Option<Estimate>,
    /// Successful drives, percent.
    pub success_rate: Option<Estimate>,
    /// Mean number of collisions of a drive.
    pub collisions_per_drive: Option<Estimate>,
    /// Collisions per kilometer driven.
    pub collisions_per_km: Option<Estimate>,
    /// Against the cell without latency.
    pub difference: Option<Difference>,
    /// Share of ticks whose own inference came after its deadline, or could not begin.
    pub deadline_miss_rate: Option<Estimate>,
    /// Share of ticks at which the command of the tick before was held.
    pub held_share: Option<Estimate>,
    /// How old the prefix (privileged drivers: the scene) was that commands rest on.
    pub age: Option<Age>,
    /// Infractions behind late and held commands, and others.
    pub infractions: InfractionRates,
}

/// How a setting differs from that without latency, drive by drive.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Drives that are finished in both.
    pub pairs: usize,
    /// In mean driving score.
    pub driving_score: Estimate,
    /// In successful drives, percent points.
    pub success_rate: Estimate,
    /// In the mean number of collisions.
    pub collisions_per_drive: Estimate,
}

/// Nearest-rank percentiles over ticks.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// How old the slow expert's view is at the tick whose command rests on it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Age {
    /// Ticks that had one.
    pub ticks_counted: usize,
    /// In milliseconds.
    pub ms: Percentiles,
    /// In ticks.
    pub ticks: Percentiles,
    /// In meters that were driven since.
    pub meters: Percentiles,
}

/// Infractions within the horizon behind a tick that missed its deadline or held its command, and all
/// others that happened at a tick.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InfractionRates {
    /// Infractions within the horizon behind such a tick.
    pub behind: u64,
    /// Time within the horizon behind such ticks, seconds.
    pub behind_s: f64,
    /// All others.
    pub otherwise: u64,
    /// All other time, seconds.
    pub otherwise_s: f64,
    /// `behind` per minute of its time; `None` without any.
    pub behind_per_min: Option<f64>,
    /// `otherwise` per minute of its time, the base rate; `None` without any.
    pub otherwise_per_min: Option<f64>,
}

/// What a sweep needs of one drive.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DriveFigures {
    driving_score: f64,
    is_success: bool,
    collisions: u64,
    driven_m: f64,
    ticks: u64,
    deadline_misses: u64,
    held: u64,
    /// Milliseconds and meters, of each tick that had a prefix.
    ages: Vec<[f32; 2]>,
    behind: u64,
    ticks_behind: u64,
    otherwise: u64,
}

impl DriveFigures {
    /// The figures of a drive with this result and log, whose ticks are `tick` apart.
    pub fn new(record: &Record, log: &RouteLog, tick: Duration, horizon: Duration) -> Self {
        let infractions = &record.infractions;
        let collisions = [
            &infractions.collisions_layout,
            &infractions.collisions_pedestrian,
            &infractions.collisions_vehicle,
        ];
        let driven_m = driven(log);
        let ages = log.ticks.iter().enumerate().filter_map(|(idx, entry)| {
            let age = entry.prefix?.age;
            let ticks = (age.as_secs_f64() / tick.as_secs_f64()).round() as usize;
            let meters = driven_m[idx] - driven_m[idx.saturating_sub(ticks)];
            Some([age.as_secs_f64() as f32 * 1e3, meters as f32])
        });
        let mut figures = Self {
            driving_score: record.scores.score_composed,
            is_success: record.is_success(),
            collisions: collisions.iter().map(|list| list.len() as u64).sum(),
            driven_m: driven_m.last().copied().unwrap_or(0.0),
            ticks: log.ticks.len() as u64,
            deadline_misses: count(log, |entry| entry.deadline != DeadlineVerdict::Met),
            held: count(log, |entry| entry.is_held),
            ages: ages.collect(),
            ..Self::default()
        };
        let is_behind = behind_trouble(log, tick, horizon);
        figures.ticks_behind = is_behind.iter().filter(|is| **is).count() as u64;
        for event in &log.events {
            let idx = event.tick.and_then(|tick| usize::try_from(tick).ok()?.checked_sub(1));
            match idx.and_then(|idx| is_behind.get(idx)) {
                Some(true) => figures.behind += 1,
                Some(false) => figures.otherwise += 1,
                // Recorded when the route was closed: at no tick.
                None => {}
            }
        }
        figures
    }
}

fn count(log: &RouteLog, is: impl Fn(&crate::campaign::log::TickLog) -> bool) -> u64 {
    log.ticks.iter().filter(|entry| is(entry)).count() as u64
}

/// Meters driven until each tick.
fn driven(log: &RouteLog) -> Vec<f64> {
    let mut sum = 0.0;
    let mut last = None;
    log.ticks
        .iter()
        .map(|entry| {
            let place = [entry.x_m, entry.y_m];
            let [x, y] = last.replace(place).unwrap_or(place);
            sum += (place[0] - x).hypot(place[1] - y);
            sum
        })
        .collect()
}

/// Whether each tick is within `horizon` behind one that missed its deadline or held its command.
fn behind_trouble(log: &RouteLog, tick: Duration, horizon: Duration) -> Vec<bool> {
    let ticks = (horizon.as_nanos() / tick.as_nanos().max(1)) as usize;
    let mut last = None;
    log.ticks
        .iter()
        .enumerate()
        .map(|(idx, entry)| {
            if entry.is_held || entry.deadline != DeadlineVerdict::Met {
                last = Some(idx);
            }
            last.is_some_and(|last| idx - last <= ticks)
        })
        .collect()
}

/// The drives of a setting: one list per route, one entry per repetition, `None` where unfinished.
pub type CellDrives = Vec<Vec<Option<DriveFigures>>>;

/// A setting to be counted.
pub struct CellInput {
    /// Its folder.
    pub name: String,
    /// Position of its slow latency.
    pub slow: usize,
    /// Position of its fast latency.
    pub fast: usize,
    /// Its drives.
    pub drives: CellDrives,
}

impl Cell {
    /// The figures of a setting; `base` is that without latency, if there is one. Ticks are `tick`
    /// apart.
    pub fn new(
        input: &CellInput,
        base: Option<&CellDrives>,
        tick: Duration,
        intervals: &mut Intervals,
    ) -> Self {
        let CellInput { name, slow, fast, drives } = input;
        let finished = || drives.iter().flatten().flatten();
        let mut over = |part: fn(&DriveFigures) -> f64, whole: fn(&DriveFigures) -> f64| {
            let shares: Vec<Share> = drives
                .iter()
                .map(|drives| drives.iter().flatten().collect::<Vec<_>>())
                .filter(|drives| !drives.is_empty())
                .map(|drives| share(drives.into_iter(), part, whole))
                .collect();
            intervals.of(shares.len()).estimate(&shares)
        };
        Self {
            name: name.clone(),
            slow: *slow,
            fast: *fast,
            finished: finished().count(),
            total: drives.iter().map(Vec::len).sum(),
            driving_score: over(|drive| drive.driving_score, one),
            success_rate: over(success, one),
            collisions_per_drive: over(collisions, one),
            collisions_per_km: over(collisions, |drive| drive.driven_m / 1e3),
            deadline_miss_rate: over(|drive| drive.deadline_misses as f64, ticks),
            held_share: over(|drive| drive.held as f64, ticks),
            difference: base.and_then(|base| Difference::new(drives, base, intervals)),
            age: Age::new(finished(), tick),
            infractions: InfractionRates::new(finished(), tick),
        }
    }
}

fn one(_: &DriveFigures) -> f64 {
    1.0
}

fn ticks(drive: &DriveFigures) -> f64 {
    drive.ticks as f64
}

fn success(drive: &DriveFigures) -> f64 {
    if drive.is_success { 100.0 } else { 0.0 }
}

fn collisions(drive: &DriveFigures) -> f64 {
    drive.collisions as f64
}

/// What a route's drives add to a figure.
fn share<'a>(
    drives: impl Iterator<Item = &'a DriveFigures>,
    part: fn(&DriveFigures) -> f64,
    whole: fn(&DriveFigures) -> f64,
) -> Share {
    drives.fold(Share::default(), |share, drive| Share {
        part: share.part + part(drive),
        whole: share.whole + whole(drive),
    })
}

impl Difference {
    fn new(ours: &CellDrives, base: &CellDrives, intervals: &mut Intervals) -> Option<Self> {
        let pairs: Vec<Vec<(&DriveFigures, &DriveFigures)>> = ours
            .iter()
            .zip(base)
            .map(|(ours, base)| {
                ours.iter().zip(base).filter_map(|(a, b)| a.as_ref().zip(b.as_ref())).collect()
            })
            .filter(|pairs: &Vec<_>| !pairs.is_empty())
            .collect();
        let mut difference = |part: fn(&DriveFigures) -> f64| {
            let ours: Vec<Share> = pairs
                .iter()
                .map(|pairs| Share::of_mean(pairs.iter().map(|(ours, _)| part(ours))))
                .collect();
            let base: Vec<Share> = pairs
                .iter()
                .map(|pairs| Share::of_mean(pairs.iter().map(|(_, base)| part(base))))
                .collect();
            intervals.of(ours.len()).difference(&ours, &base)
        };
        Some(Self {
            pairs: pairs.iter().map(Vec::len).sum(),
            driving_score: difference(|drive| drive.driving_score)?,
            success_rate: difference(success)?,
            collisions_per_drive: difference(collisions)?,
        })
    }
}

impl Age {
    fn new<'a>(drives: impl Iterator<Item = &'a DriveFigures>, tick: Duration) -> Option<Self> {
        let ages: Vec<[f32; 2]> = drives.flat_map(|drive| drive.ages.iter().copied()).collect();
        let column = |which: usize| {
            let mut values: Vec<f32> = ages.iter().map(|age| age[which]).collect();
            values.sort_unstable_by(f32::total_cmp);
            let rank = |percent: usize| {
                let place = (values.len() * percent).div_ceil(100).checked_sub(1)?;
                Some(f64::from(values[place]))
            };
            Some(Percentiles { p50: rank(50)?, p99: rank(99)? })
        };
        let ms = column(0)?;
        let in_ticks = |millis: f64| millis / 1e3 / tick.as_secs_f64();
        Some(Self {
            ticks_counted: ages.len(),
            ms,
            ticks: Percentiles { p50: in_ticks(ms.p50), p99: in_ticks(ms.p99) },
            meters: column(1)?,
        })
    }
}

impl InfractionRates {
    fn new<'a>(drives: impl Iterator<Item = &'a DriveFigures>, tick: Duration) -> Self {
        let mut rates = Self::default();
        for drive in drives {
            rates.behind += drive.behind;
            rates.behind_s += drive.ticks_behind as f64 * tick.as_secs_f64();
            rates.otherwise += drive.otherwise;
            rates.otherwise_s += (drive.ticks - drive.ticks_behind) as f64 * tick.as_secs_f64();
        }
        let per_min =
            |number: u64, seconds: f64| (seconds > 0.0).then(|| number as f64 / (seconds / 60.0));
        rates.behind_per_min = per_min(rates.behind, rates.behind_s);
        rates.otherwise_per_min = per_min(rates.otherwise, rates.otherwise_s);
        rates
    }
}

/// The draws behind all intervals of a sweep, kept by number of routes.
#[derive(Default)]
pub struct Intervals {
    drawn: Vec<(usize, Resamples)>,
    count: Option<usize>,
}

impl Intervals {
    /// With fewer draws than [`RESAMPLES`].
    pub fn with_resamples(count: usize) -> Self {
        Self { drawn: Vec::new(), count: Some(count) }
    }

    fn of(&mut self, n_routes: usize) -> &Resamples {
        let place = self.drawn.iter().position(|(n, _)| *n == n_routes).unwrap_or_else(|| {
            let resamples = Resamples::new(n_routes, self.resamples(), BOOTSTRAP_SEED);
            self.drawn.push((n_routes, resamples));
            self.drawn.len() - 1
        });
        &self.drawn[place].1
    }

    /// Draws that each interval rests on.
    pub fn resamples(&self) -> usize {
        self.count.unwrap_or(RESAMPLES)
    }

    /// Share of draws that each interval holds.
    pub fn confidence(&self) -> f64 {
        CONFIDENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::log::{LoggedEvent, TickLog};
    use tandem_scene::{Command, PrefixInfo};
    use tandem_timing::StageTimes;

    const TICK: Duration = Duration::from_millis(50);

    /// A log of `n` ticks at 10 m/s whose prefix is two ticks old; ticks `late` (from 0) miss their
    /// deadlines, `held` hold their commands, and events are at ticks `events` (from 1).
    fn log(n: usize, late: &[usize], held: &[usize], events: &[u64]) -> RouteLog {
        let tick = |idx: usize| TickLog {
            time_s: 0.05 * (idx + 1) as f64,
            x_m: 0.5 * idx as f64,
            y_m: 3.0,
            yaw_rad: 0.0,
            speed_mps: 10.0,
            command: Command::default(),
            stages: StageTimes::default(),
            prefix: (idx >= 2).then_some(PrefixInfo { version: 1, age: 2 * TICK }),
            deadline: if late.contains(&idx) {
                DeadlineVerdict::Missed { by: Duration::from_millis(1) }
            } else {
                DeadlineVerdict::Met
            },
            is_held: held.contains(&idx),
        };
        let event = |tick: &u64| LoggedEvent {
            tick: Some(*tick),
            kind: "red_light".into(),
            message: String::new(),
        };
        RouteLog {
            ticks: (0..n).map(tick).collect(),
            events: events.iter().map(event).collect(),
            ..RouteLog::default()
        }
    }

    fn figures(log: &RouteLog, horizon: Duration) -> DriveFigures {
        let identity = crate::scoring::RouteIdentity {
            route_id: "RouteScenario_1_rep0".into(),
            scenario_name: String::new(),
            weather_id: None,
            town_name: "Test".into(),
            save_name: String::new(),
        };
        let mut record = Record::blank(0, &identity);
        record.status = "Completed".into();
        record.scores.score_composed = 80.0;
        record.infractions.collisions_vehicle = vec![String::new(); 2];
        DriveFigures::new(&record, log, TICK, horizon)
    }

    #[test]
    fn a_drive_counts_what_its_log_says() {
        let found = figures(&log(101, &[5, 6], &[6, 7, 8], &[]), Duration::from_secs(1));
        assert_eq!((found.deadline_misses, found.held, found.collisions), (2, 3, 2));
        assert!((found.driven_m - 50.0).abs() < 1e-9);
        assert_eq!(found.ages.len(), 99);
        assert_eq!(found.ages[50], [100.0, 1.0], "two ticks at 10 m/s are a meter");
        assert!(!found.is_success, "it hit somebody");
    }

    #[test]
    fn infractions_are_behind_trouble_up_to_the_horizon() {
        // Trouble at ticks 11 and 12 (from 1), horizon two ticks: ticks 11 to 14 are behind it.
        let log = log(100, &[10], &[11], &[10, 11, 14, 15, 90]);
        let found = figures(&log, 2 * TICK);
        assert_eq!((found.behind, found.otherwise, found.ticks_behind), (2, 3, 4));
        let rates = InfractionRates::new([&found].into_iter(), TICK);
        assert!((rates.behind_s - 0.2).abs() < 1e-9 && (rates.otherwise_s - 4.8).abs() < 1e-9);
        assert!((rates.behind_per_min.unwrap() - 600.0).abs() < 1e-6);
        assert!((rates.otherwise_per_min.unwrap() - 37.5).abs() < 1e-6);
    }

    fn drive(driving_score: f64) -> Option<DriveFigures> {
        Some(DriveFigures { driving_score, ticks: 100, driven_m: 500.0, ..Default::default() })
    }

    fn cell(drives: CellDrives, base: Option<&CellDrives>) -> Cell {
        let input = CellInput { name: "one".into(), slow: 0, fast: 0, drives };
        Cell::new(&input, base, TICK, &mut Intervals::with_resamples(500))
    }

    #[test]
    fn what_is_not_finished_is_counted_and_left_out() {
        let drives =
            vec![vec![drive(100.0), None], vec![None, None], vec![drive(50.0), drive(60.0)]];
        let cell = cell(drives, None);
        assert_eq!((cell.finished, cell.total), (3, 6));
        assert!((cell.driving_score.unwrap().value - 70.0).abs() < 1e-9);
        assert_eq!(cell.difference, None);
        assert_eq!(cell.age, None);
    }

    #[test]
    fn differences_are_over_drives_that_both_settings_finished() {
        let base: CellDrives =
            vec![vec![drive(100.0), drive(90.0)], vec![drive(40.0), None], vec![drive(70.0), None]];
        let ours =
            vec![vec![drive(95.0), drive(85.0)], vec![drive(35.0), drive(0.0)], vec![None, None]];
        let difference = cell(ours, Some(&base)).difference.unwrap();
        assert_eq!(difference.pairs, 3);
        let score = difference.driving_score;
        let ends = [score.value, score.low.unwrap(), score.high.unwrap()];
        assert!(ends.iter().all(|end| (end + 5.0).abs() < 1e-9), "{score:?}");
    }

    #[test]
    fn nothing_finished_is_no_figure() {
        let cell = cell(vec![vec![None], vec![None]], None);
        assert_eq!((cell.finished, cell.total, cell.driving_score), (0, 2, None));
        assert_eq!(cell.infractions, InfractionRates::default());
    }
}
