//! Budgets: limits in a file that a profile is checked against.
//!
//! Shares of late ticks and percentiles of the response refer to all due ticks: a skipped tick is
//! late, and slower than any tick that ran.
//!
//! A limit that the profile cannot answer (the stage did not run, or too few ticks for the
//! percentile) counts as not kept.

use super::due_ticks::DueResponse;
use super::latency_file::{LatencyFile, Phase, PhaseName};
use super::sample_size::{VALUES_BEYOND, values_needed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem::timing::{LONGEST, LatencyHistogram, Percentile, Stage};
use tandem_files::shortened_error;
use tandem_page::significant;

/// Content of a budget file; `configs/budget.yaml` is a commented example.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Phase to which the limits apply.
    #[serde(default = "paced")]
    pub phase: PhaseName,
    /// Limits by the name of the stage.
    #[serde(default)]
    pub stages: BTreeMap<String, Limits>,
    /// Deadline of a tick, and allowed share of late ticks.
    pub deadline: Option<Deadline>,
    /// Allowed share of skipped ticks among all due ticks, 0 to 1.
    pub skipped_share: Option<f64>,
    /// Limits on the time between the starts of prefills.
    pub refresh_period: Option<RefreshPeriod>,
    /// Limits on the age of the prefixes that ticks act on.
    pub prefix_age: Option<Limits>,
    /// Limit on the time from loading to the first control with a prefix, milliseconds.
    pub first_control_ms: Option<f64>,
}

fn paced() -> PhaseName {
    PhaseName::Paced
}

/// Limits on one latency, milliseconds; at least one must be set.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    pub max_ms: Option<f64>,
}

/// A tick is late if its control comes more than `ms` after its due instant (in phases that keep
/// real time) or after its observation. A skipped tick is late for any `ms`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    pub ms: f64,
    /// Allowed share of late ticks among all due ticks, 0 to 1; with 0 any number of ticks suffices.
    pub late_share: f64,
}

/// Limits on the time between the starts of prefills.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshPeriod {
    pub ms: f64,
    /// A prefill is late if it starts more than the period plus this after the
    /// previous one, milliseconds.
    pub tolerance_ms: f64,
    /// Allowed share of late prefills, 0 to 1.
    pub late_share: f64,
}

/// A value with its unit, as limit or as result.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    Ms(f64),
    /// Share of a total, from 0 to 1.
    Share(f64),
    /// A tick that was due and skipped, which counts as longer than any time.
    Skipped,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Four digits are the resolution of the histograms.
            Self::Ms(ms) => write!(f, "{} ms", significant(*ms, 4)),
            Self::Share(share) => write!(f, "{:.3} %", share * 100.0),
            Self::Skipped => f.write_str("skipped"),
        }
    }
}

/// Result of checking one limit.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Verdict {
    pub what: String,
    pub limit: Quantity,
    /// Measured value; `None` if it could not be determined.
    pub found: Option<Quantity>,
    /// Number of ticks, prefills or runs of the stage that were measured.
    pub count: u64,
    /// True if there were enough values and the measured value does not exceed the limit.
    pub is_kept: bool,
    /// Reason why the limit cannot be checked. Such a limit counts as not kept.
    pub cannot_tell: Option<String>,
}

/// Error returned when a budget file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    #[error("cannot read budget file {path:?}: {source}; configs/budget.yaml is an example")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("budget file {path:?}: {reason}")]
    Content {
        path: PathBuf,
        /// Problem and its position in the file.
        reason: String,
    },
}

impl Budget {
    /// Reads and validates a budget file.
    ///
    /// # Errors
    /// If it cannot be read, is not YAML, has an unknown key or stage, contains no limit, or
    /// has a number out of range.
    pub fn read(path: &Path) -> Result<Self, BudgetError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| BudgetError::Read { path: path.to_owned(), source })?;
        let content = |reason: String| BudgetError::Content {
            path: path.to_owned(),
            reason: shortened_error(reason),
        };
        let budget: Self =
            serde_saphyr::from_str(&text).map_err(|error| content(error.to_string()))?;
        budget.validate().map_err(content)?;
        Ok(budget)
    }

    fn validate(&self) -> Result<(), String> {
        let is_empty = self.stages.is_empty()
            && self.deadline.is_none()
            && self.skipped_share.is_none()
            && self.refresh_period.is_none()
            && self.prefix_age.is_none()
            && self.first_control_ms.is_none();
        if is_empty {
            return Err("it limits nothing; configs/budget.yaml is an example".to_owned());
        }
        for (name, limits) in &self.stages {
            if Stage::named(name).is_none() {
                let names: Vec<&str> = Stage::all().iter().copied().map(Stage::name).collect();
                return Err(format!("unknown stage {name:?}; stages are {}", names.join(", ")));
            }
            limits.validate(&format!("stages.{name}"))?;
        }
        if let Some(age) = &self.prefix_age {
            age.validate("prefix_age")?;
        }
        if let Some(deadline) = self.deadline {
            latency("deadline.ms", deadline.ms)?;
            share("deadline.late_share", deadline.late_share)?;
        }
        if let Some(skipped) = self.skipped_share {
            share("skipped_share", skipped)?;
        }
        if let Some(period) = self.refresh_period {
            latency("refresh_period.ms", period.ms)?;
            if !(0.0..=longest_ms()).contains(&period.tolerance_ms) {
                let found = period.tolerance_ms;
                return Err(format!(
                    "refresh_period.tolerance_ms is {found}; it must be 0 to {} ms",
                    longest_ms()
                ));
            }
            share("refresh_period.late_share", period.late_share)?;
        }
        match self.first_control_ms {
            Some(ms) if !(ms > 0.0 && ms.is_finite()) => {
                Err(format!("first_control_ms is {ms}; it must be above 0"))
            }
            _ => Ok(()),
        }
    }

    /// Checks every limit against `file`, in the order of the loop.
    pub fn check(&self, file: &LatencyFile) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let phase = file.phase(self.phase);
        let no_phase = || format!("the profile has no phase {:?}", self.phase.title());
        for &stage in Stage::all() {
            let Some(limits) = self.stages.get(stage.name()) else { continue };
            for limit in limits.given() {
                verdicts.push(match phase {
                    Some(phase) => check_stage(phase, stage, &limit),
                    None => limit.unknown(stage.name(), 0, no_phase()),
                });
            }
        }
        if let Some(deadline) = self.deadline {
            let claim = Claim {
                what: format!("ticks later than {} ms", deadline.ms),
                limit: Quantity::Share(deadline.late_share),
            };
            verdicts.push(match phase {
                Some(phase) => check_deadline(claim, deadline, phase, file.run.act_budget_millis),
                None => claim.unknown(0, no_phase()),
            });
        }
        if let Some(share) = self.skipped_share {
            let what = "ticks skipped".to_owned();
            let claim = Claim { what, limit: Quantity::Share(share) };
            verdicts.push(match phase {
                Some(phase) if phase.name == PhaseName::Paced => {
                    claim.share(phase.ticks_skipped, phase.ticks_due(), "due ticks")
                }
                Some(phase) => {
                    let why = format!("no tick is due {}", phase.name.title());
                    claim.unknown(phase.statistics.ticks(), why)
                }
                None => claim.unknown(0, no_phase()),
            });
        }
        if let Some(period) = self.refresh_period {
            let claim = Claim {
                what: format!(
                    "prefills later than {} + {} ms after the last",
                    period.ms, period.tolerance_ms
                ),
                limit: Quantity::Share(period.late_share),
            };
            verdicts.push(match phase {
                Some(phase) => check_period(claim, period, phase),
                None => claim.unknown(0, no_phase()),
            });
        }
        for limit in self.prefix_age.iter().flat_map(Limits::given) {
            verdicts.push(match phase {
                Some(phase) => check_prefix_age(phase, &limit),
                None => limit.unknown(PREFIX_AGE, 0, no_phase()),
            });
        }
        if let Some(limit_ms) = self.first_control_ms {
            let what = "time to the first control".to_owned();
            let claim = Claim { what, limit: Quantity::Ms(limit_ms) };
            verdicts.push(match file.first_control {
                Some(first) => claim
                    .found(Quantity::Ms(millis(first.load_ns.saturating_add(first.loop_ns))), 1),
                None => claim.unknown(0, "the profile did not measure it".to_owned()),
            });
        }
        verdicts
    }
}

const PREFIX_AGE: &str = "prefix age";

/// One limit of [`Limits`], by percentile.
struct Limit {
    name: &'static str,
    percentile: Option<Percentile>,
    limit_ms: f64,
}

impl Limits {
    fn given(&self) -> impl Iterator<Item = Limit> + use<> {
        [
            ("p50", Some(Percentile::P50), self.p50_ms),
            ("p90", Some(Percentile::P90), self.p90_ms),
            ("p99", Some(Percentile::P99), self.p99_ms),
            ("p99.9", Some(Percentile::P999), self.p999_ms),
            ("max", None, self.max_ms),
        ]
        .into_iter()
        .filter_map(|(name, percentile, limit)| Some(Limit { name, percentile, limit_ms: limit? }))
    }

    fn validate(&self, at: &str) -> Result<(), String> {
        if self.given().next().is_none() {
            return Err(format!(
                "{at} limits nothing; give one of p50_ms, p90_ms, p99_ms, p999_ms, max_ms"
            ));
        }
        self.given().try_for_each(|limit| latency(&format!("{at} {}", limit.name), limit.limit_ms))
    }
}

impl Limit {
    fn claim(&self, of: &str) -> Claim {
        Claim { what: format!("{of} {}", self.name), limit: Quantity::Ms(self.limit_ms) }
    }

    fn unknown(&self, of: &str, count: u64, why: String) -> Verdict {
        self.claim(of).unknown(count, why)
    }

    fn check(&self, of: &str, histogram: &LatencyHistogram) -> Verdict {
        let count = histogram.count();
        if let Some(percentile) = self.percentile {
            let needed = values_needed(percentile);
            if count < needed {
                let why = format!("{} needs {needed} values, found {count}", self.name);
                return self.unknown(of, count, why);
            }
        }
        let found = match self.percentile {
            Some(percentile) => histogram.percentile(percentile),
            None => histogram.max(),
        };
        match found {
            Some(found) => {
                self.claim(of).found(Quantity::Ms(millis(found.as_nanos() as u64)), count)
            }
            None => self.unknown(of, 0, "there are no values".to_owned()),
        }
    }
}

/// A limit that has not been checked yet.
struct Claim {
    what: String,
    limit: Quantity,
}

impl Claim {
    fn found(self, found: Quantity, count: u64) -> Verdict {
        let is_kept = match (found, self.limit) {
            (Quantity::Ms(found), Quantity::Ms(limit))
            | (Quantity::Share(found), Quantity::Share(limit)) => found <= limit,
            (Quantity::Skipped, Quantity::Ms(_)) => false,
            _ => unreachable!("limit and result of {} have different units", self.what),
        };
        let (what, limit) = (self.what, self.limit);
        Verdict { what, limit, found: Some(found), count, is_kept, cannot_tell: None }
    }

    fn unknown(self, count: u64, why: String) -> Verdict {
        let (what, limit) = (self.what, self.limit);
        Verdict { what, limit, found: None, count, is_kept: false, cannot_tell: Some(why) }
    }

    /// Checks the share `late` of `count`, if `count` suffices to resolve the limit.
    fn share(self, late: u64, count: u64, of: &str) -> Verdict {
        let Quantity::Share(allowed) = self.limit else { unreachable!("{} is a share", self.what) };
        if count == 0 {
            return self.unknown(0, format!("there are no {of}"));
        }
        let found = late as f64 / count as f64;
        let needed = if allowed > 0.0 { (VALUES_BEYOND as f64 / allowed).ceil() } else { 0.0 };
        if found <= allowed && (count as f64) < needed {
            let limit = self.limit;
            let why =
                format!("{late} of {count} {of} were late; a limit of {limit} needs {needed} {of}");
            return self.unknown(count, why);
        }
        self.found(Quantity::Share(found), count)
    }
}

fn check_stage(phase: &Phase, stage: Stage, limit: &Limit) -> Verdict {
    let histogram = phase.statistics.stage(stage);
    if histogram.count() == 0 {
        let why = format!("{:?} did not run {}", stage.name(), phase.name.title());
        return limit.unknown(stage.name(), 0, why);
    }
    if stage == Stage::RESPONSE && phase.ticks_skipped > 0 {
        return check_response(phase, limit);
    }
    limit.check(stage.name(), histogram)
}

/// Checks a limit on the response in a phase with skipped ticks.
fn check_response(phase: &Phase, limit: &Limit) -> Verdict {
    let (of, due) = (Stage::RESPONSE.name(), phase.ticks_due());
    let needed = limit.percentile.map_or(0, values_needed);
    if due < needed {
        let why = format!("{} needs {needed} due ticks, found {due}", limit.name);
        return limit.unknown(of, due, why);
    }
    // The maximum is a skipped tick.
    let found = match limit.percentile.and_then(|percentile| phase.due_response(percentile)) {
        Some(DueResponse::Took(took)) => Quantity::Ms(millis(took.as_nanos() as u64)),
        Some(DueResponse::Skipped) | None => Quantity::Skipped,
    };
    limit.claim(of).found(found, due)
}

fn check_prefix_age(phase: &Phase, limit: &Limit) -> Verdict {
    let without = phase.statistics.ticks_without_prefix();
    if without > 0 {
        let ticks = phase.statistics.ticks();
        let why = format!("{without} of {ticks} ticks had no prefix");
        return limit.unknown(PREFIX_AGE, ticks, why);
    }
    limit.check(PREFIX_AGE, phase.statistics.prefix_age())
}

/// Checks the share of late ticks. Misses of the run's own deadline were counted at every tick; for
/// any other deadline the sampled ticks are searched. Skipped ticks are always late.
fn check_deadline(
    claim: Claim,
    deadline: Deadline,
    phase: &Phase,
    run_deadline_ms: f64,
) -> Verdict {
    let (due, skipped) = (phase.ticks_due(), phase.ticks_skipped);
    if deadline.ms == run_deadline_ms {
        return claim.share(phase.due_ticks_missed(), due, "due ticks");
    }
    if phase.samples_dropped > 0 {
        let why = format!(
            "the run's deadline was {run_deadline_ms} ms, and {} ticks were not sampled",
            phase.samples_dropped
        );
        return claim.unknown(due, why);
    }
    let stages = &phase.ticks.stages;
    let of_ticks = [Stage::RESPONSE, Stage::TICK].map(|stage| stages.get(stage.name()));
    let Some(column) = of_ticks.into_iter().flatten().next() else {
        return claim.unknown(due, "no tick was timed".to_owned());
    };
    let deadline_ns = nanos(deadline.ms);
    // A tick that was not timed counts as late.
    let is_late = |took: &&Option<u64>| took.is_none_or(|took| took > deadline_ns);
    let late = column.took_ns.iter().filter(is_late).count() as u64;
    claim.share(late.saturating_add(skipped), due, "due ticks")
}

/// Counts the prefills that started late. The time before the first and after the last prefill
/// counts too, so that a loop that stopped prefilling fails.
fn check_period(claim: Claim, period: RefreshPeriod, phase: &Phase) -> Verdict {
    let starts = &phase.refreshes.start_ns;
    let allowed_ns = nanos(period.ms + period.tolerance_ms);
    let (Some(first), Some(last)) = (starts.first(), starts.last()) else {
        return claim.unknown(0, format!("no prefill ran {}", phase.name.title()));
    };
    let distances = starts.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
    let mut late = distances.clone().filter(|&distance| distance > allowed_ns).count();
    let mut count = distances.count();
    if let (Some(begin), Some(end)) = (phase.ticks.start_ns.first(), phase.ticks.start_ns.last()) {
        // The prefill after the last one may still have been running at the end.
        let longest = phase.statistics.stage(Stage::PREFILL).max().unwrap_or_default();
        let running_ns = longest.as_nanos() as u64;
        let open = [
            first.saturating_sub(*begin) > allowed_ns,
            end.saturating_sub(*last) > allowed_ns.saturating_add(running_ns),
        ];
        let missing = open.into_iter().filter(|&is_late| is_late).count();
        late += missing;
        count += missing;
    }
    claim.share(late as u64, count as u64, "prefills after another")
}

fn longest_ms() -> f64 {
    LONGEST.as_secs_f64() * 1e3
}

/// Validates a latency limit. Histograms do not resolve latencies above the maximum.
fn latency(at: &str, ms: f64) -> Result<(), String> {
    if ms > 0.0 && ms < longest_ms() {
        return Ok(());
    }
    Err(format!("{at} is {ms}; it must be above 0 and below {} ms", longest_ms()))
}

fn share(at: &str, share: f64) -> Result<(), String> {
    if (0.0..1.0).contains(&share) {
        return Ok(());
    }
    Err(format!("{at} is {share}; it must be 0 or more and below 1"))
}

fn millis(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn nanos(ms: f64) -> u64 {
    Duration::from_secs_f64(ms / 1e3).as_nanos() as u64
}
