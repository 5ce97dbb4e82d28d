//! Latency sweep: figures of a grid of settings, slow latency × fast latency, on the same
//! routes in the same worlds.
//!
//! Figures are computed over finished drives and reported with their number. Intervals are
//! bootstrap intervals over routes (`bootstrap.rs`). Differences to the setting without latency are
//! computed over drives that are finished in both settings, with the same resampled routes.

mod page;
mod section;

pub(super) use section::section;

use super::bootstrap::{CONFIDENCE, Estimate, RESAMPLES, Resamples, RouteTotals};
use crate::campaign::log::RouteLog;
use crate::scoring::Record;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tandem_scene::DeadlineVerdict;

/// Version of the format of `sweep.json`.
pub const FORMAT: u32 = 1;

/// Seed of the bootstrap over routes.
const BOOTSTRAP_SEED: u64 = 1;

/// Latency on one axis of the grid.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisPoint {
    /// Text of the latency on the command line.
    pub latency: String,
    /// Position on the axis, milliseconds: the value of a fixed latency, the median of a
    /// distribution; `None` for recorded latencies.
    pub millis: Option<f64>,
}

/// Sweep with all figures: the file `sweep.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    pub format: u32,
    /// Version of tandem that wrote the file.
    pub tandem: String,
    pub driver: String,
    /// Caveat that is printed above the figures.
    pub note: String,
    /// Hardware on which emulated latencies were recorded; empty without recorded latencies.
    pub emulated: Vec<String>,
    /// Mode of the fast stage: `overlap` or `busy`.
    pub fast_releases: String,
    /// Seed of the first repetition.
    pub seed: u64,
    pub routes: usize,
    /// Drives per route and cell.
    pub repetitions: u32,
    /// Number of finished drives of all cells.
    pub finished: usize,
    /// Number of drives of all cells.
    pub total: usize,
    /// Number of bootstrap resamples.
    pub resamples: usize,
    /// Confidence level of intervals.
    pub confidence: f64,
    /// Time after a late or held command within which an infraction is
    /// attributed to it, milliseconds.
    pub horizon_ms: u64,
    pub slow: Vec<AxisPoint>,
    pub fast: Vec<AxisPoint>,
    /// Index of the cell without latency, the base of differences; `None` if it was not driven.
    pub base: Option<usize>,
    /// Row by row: slow latencies outermost.
    pub cells: Vec<Cell>,
}

/// Figures of one setting, over its finished drives.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Name of the setting's folder.
    pub name: String,
    /// Index of its slow latency.
    pub slow: usize,
    /// Index of its fast latency.
    pub fast: usize,
    /// Number of finished drives.
    pub finished: usize,
    pub total: usize,
    /// Mean driving score, 0 to 100.
    pub driving_score: Option<Estimate>,
    /// Successful drives, percent.
    pub success_rate: Option<Estimate>,
    /// Mean number of collisions per drive.
    pub collisions_per_drive: Option<Estimate>,
    /// Collisions per kilometer driven.
    pub collisions_per_km: Option<Estimate>,
    /// Difference to the cell without latency.
    pub difference: Option<Difference>,
    /// Share of ticks with an inference that missed its deadline or could not begin.
    pub deadline_miss_rate: Option<Estimate>,
    /// Share of ticks at which the command of the previous tick was held.
    pub held_share: Option<Estimate>,
    /// Age of the prefix KV cache (of the scene, for privileged drivers) that
    /// commands were computed from.
    pub age: Option<Age>,
    /// Rates of infractions shortly after late and held commands, and of others.
    pub infractions: InfractionRates,
}

/// Paired difference of a setting to the one without latency.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Number of drives that are finished in both settings.
    pub pairs: usize,
    /// Difference of the mean driving scores.
    pub driving_score: Estimate,
    /// Difference of the success rates, percentage points.
    pub success_rate: Estimate,
    /// Difference of the mean numbers of collisions.
    pub collisions_per_drive: Estimate,
}

/// Nearest-rank percentiles over ticks.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
}

/// Age of the slow expert's input at the ticks that apply commands computed from it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Age {
    /// Number of ticks with an age.
    pub ticks_counted: usize,
    pub ms: Percentiles,
    pub ticks: Percentiles,
    /// Distance driven since the capture, meters.
    pub meters: Percentiles,
}

/// Infractions within the horizon after a tick that missed its deadline or held its command, and
/// all other infractions that occurred at a tick.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InfractionRates {
    /// Number of infractions within the horizon after such a tick.
    pub behind: u64,
    /// Time within the horizon after such ticks, seconds.
    pub behind_s: f64,
    /// Number of all other infractions.
    pub otherwise: u64,
    pub otherwise_s: f64,
    /// `behind` per minute of `behind_s`; `None` if that is 0.
    pub behind_per_min: Option<f64>,
    /// `otherwise` per minute of `otherwise_s`, the base rate; `None` if that is 0.
    pub otherwise_per_min: Option<f64>,
}

/// Figures of one drive that a sweep aggregates.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DriveFigures {
    driving_score: f64,
    is_success: bool,
    collisions: u64,
    driven_m: f64,
    ticks: u64,
    deadline_misses: u64,
    held: u64,
    /// Age in milliseconds and in meters driven, of each tick with a prefix.
    ages: Vec<[f32; 2]>,
    behind: u64,
    ticks_behind: u64,
    otherwise: u64,
}

impl DriveFigures {
    /// Computes the figures of a drive from its result and log; `tick` is the tick period.
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
        let is_affected = within_horizon(log, tick, horizon);
        figures.ticks_behind = is_affected.iter().filter(|is| **is).count() as u64;
        for event in &log.events {
            let idx = event.tick.and_then(|tick| usize::try_from(tick).ok()?.checked_sub(1));
            match idx.and_then(|idx| is_affected.get(idx)) {
                Some(true) => figures.behind += 1,
                Some(false) => figures.otherwise += 1,
                // Recorded when the route was closed, not at a tick.
                None => {}
            }
        }
        figures
    }
}

fn count(log: &RouteLog, is: impl Fn(&crate::campaign::log::TickLog) -> bool) -> u64 {
    log.ticks.iter().filter(|entry| is(entry)).count() as u64
}

/// Returns the distance driven until each tick, meters.
fn driven(log: &RouteLog) -> Vec<f64> {
    let mut sum = 0.0;
    let mut last = None;
    log.ticks
        .iter()
        .map(|entry| {
            let position = [entry.x_m, entry.y_m];
            let [x, y] = last.replace(position).unwrap_or(position);
            sum += (position[0] - x).hypot(position[1] - y);
            sum
        })
        .collect()
}

/// Returns whether each tick is within `horizon` after one that missed its
/// deadline or held its command.
fn within_horizon(log: &RouteLog, tick: Duration, horizon: Duration) -> Vec<bool> {
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

/// Drives of a setting: one list per route, one entry per repetition, `None` if unfinished.
pub type CellDrives = Vec<Vec<Option<DriveFigures>>>;

/// Setting and drives from which a [`Cell`] is computed.
pub struct CellInput {
    /// Name of the setting's folder.
    pub name: String,
    /// Index of its slow latency.
    pub slow: usize,
    /// Index of its fast latency.
    pub fast: usize,
    pub drives: CellDrives,
}

impl Cell {
    /// Computes the figures of a setting. `base` are the drives of the setting without latency, if
    /// it was driven; `tick` is the tick period.
    pub fn new(
        input: &CellInput,
        base: Option<&CellDrives>,
        tick: Duration,
        intervals: &mut Intervals,
    ) -> Self {
        let CellInput { name, slow, fast, drives } = input;
        let finished = || drives.iter().flatten().flatten();
        let mut over = |numerator: fn(&DriveFigures) -> f64,
                        denominator: fn(&DriveFigures) -> f64| {
            let route_totals: Vec<RouteTotals> = drives
                .iter()
                .map(|drives| drives.iter().flatten().collect::<Vec<_>>())
                .filter(|drives| !drives.is_empty())
                .map(|drives| totals(drives.into_iter(), numerator, denominator))
                .collect();
            intervals.of(route_totals.len()).estimate(&route_totals)
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

/// Sums the contributions of a route's drives to a figure.
fn totals<'a>(
    drives: impl Iterator<Item = &'a DriveFigures>,
    numerator: fn(&DriveFigures) -> f64,
    denominator: fn(&DriveFigures) -> f64,
) -> RouteTotals {
    drives.fold(RouteTotals::default(), |sum, drive| RouteTotals {
        numerator: sum.numerator + numerator(drive),
        denominator: sum.denominator + denominator(drive),
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
        let mut difference = |numerator: fn(&DriveFigures) -> f64| {
            let ours: Vec<RouteTotals> = pairs
                .iter()
                .map(|pairs| RouteTotals::of_mean(pairs.iter().map(|(ours, _)| numerator(ours))))
                .collect();
            let base: Vec<RouteTotals> = pairs
                .iter()
                .map(|pairs| RouteTotals::of_mean(pairs.iter().map(|(_, base)| numerator(base))))
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
                let idx = (values.len() * percent).div_ceil(100).checked_sub(1)?;
                Some(f64::from(values[idx]))
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

/// Bootstrap resamples for all intervals of a sweep, cached by number of routes.
#[derive(Default)]
pub struct Intervals {
    cached: Vec<(usize, Resamples)>,
    count: Option<usize>,
}

impl Intervals {
    /// Uses `count` resamples instead of [`RESAMPLES`].
    pub fn with_resamples(count: usize) -> Self {
        Self { cached: Vec::new(), count: Some(count) }
    }

    fn of(&mut self, n_routes: usize) -> &Resamples {
        let idx = self.cached.iter().position(|(n, _)| *n == n_routes).unwrap_or_else(|| {
            let resamples = Resamples::new(n_routes, self.resamples(), BOOTSTRAP_SEED);
            self.cached.push((n_routes, resamples));
            self.cached.len() - 1
        });
        &self.cached[idx].1
    }

    /// Returns the number of resamples.
    pub fn resamples(&self) -> usize {
        self.count.unwrap_or(RESAMPLES)
    }

    /// Returns the confidence level of intervals.
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

    /// Log of `n` ticks at 10 m/s with a prefix that is two ticks old. Ticks `late`
    /// (from 0) miss their deadlines, ticks `held` hold their commands, and events occur
    /// at ticks `events` (from 1).
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
    fn drive_figures_are_computed_from_the_log() {
        let found = figures(&log(101, &[5, 6], &[6, 7, 8], &[]), Duration::from_secs(1));
        assert_eq!((found.deadline_misses, found.held, found.collisions), (2, 3, 2));
        assert!((found.driven_m - 50.0).abs() < 1e-9);
        assert_eq!(found.ages.len(), 99);
        assert_eq!(found.ages[50], [100.0, 1.0], "two ticks at 10 m/s are a meter");
        assert!(!found.is_success, "a drive with collisions");
    }

    #[test]
    fn infractions_are_attributed_up_to_the_horizon() {
        // Tick 11 (from 1) is late and tick 12 held; with a horizon of two
        // ticks, 11 to 14 are affected.
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
    fn unfinished_drives_are_counted_but_not_averaged() {
        let drives =
            vec![vec![drive(100.0), None], vec![None, None], vec![drive(50.0), drive(60.0)]];
        let cell = cell(drives, None);
        assert_eq!((cell.finished, cell.total), (3, 6));
        assert!((cell.driving_score.unwrap().value - 70.0).abs() < 1e-9);
        assert_eq!(cell.difference, None);
        assert_eq!(cell.age, None);
    }

    #[test]
    fn differences_use_drives_finished_in_both_settings() {
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
    fn cell_without_finished_drives_has_no_figures() {
        let cell = cell(vec![vec![None], vec![None]], None);
        assert_eq!((cell.finished, cell.total, cell.driving_score), (0, 2, None));
        assert_eq!(cell.infractions, InfractionRates::default());
    }
}
