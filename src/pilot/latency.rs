//! Latencies of the experts in virtual time.
//!
//! A latency is sampled as a function of seed, expert and frame. It therefore does not depend on
//! the order of calls, and settings that share a seed are compared under common random numbers: a
//! frame that is slow in one is slow in the other.

use super::Schedule;
use crate::scene::RouteId;
use crate::scene::random::SplitMix64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::f64::consts::{PI, SQRT_2};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Upper bound of a latency; larger samples are clamped to it.
pub const LONGEST_LATENCY: Duration = Duration::from_secs(60);

/// Distance between the 50th and 99th percentiles of a normal distribution in standard deviations.
const P99_DEVIATIONS: f64 = 2.326_347_874_040_841;

/// A latency as given in a run file or on a command line. Times are in milliseconds.
///
/// ```
/// use tandem::pilot::LatencySpec;
/// let spec: LatencySpec = "lognormal:p50=300,p99=700".parse()?;
/// assert_eq!(spec, LatencySpec::LogNormal { p50: 300.0, p99: 700.0 });
/// # Ok::<(), tandem::pilot::LatencyError>(())
/// ```
#[derive(Clone, PartialEq, Debug)]
pub enum LatencySpec {
    /// `35`: constant.
    Fixed(f64),
    /// `uniform:min=20,max=60`.
    Uniform { min: f64, max: f64 },
    /// `normal:mean=40,sd=5`: truncated at 0 by rejection. Mean and standard deviation are those of
    /// the normal distribution before truncation.
    Normal { mean: f64, sd: f64 },
    /// `lognormal:p50=300,p99=700`: right-skewed, as measured latencies are.
    LogNormal { p50: f64, p99: f64 },
    /// `file:latency.json`: latencies recorded by `tandem profile`, replayed in order from an
    /// entry that the seed selects.
    File(PathBuf),
    /// `replayed:DIR`: the latency of each expert run in the drives of a result folder.
    Replayed(PathBuf),
}

impl LatencySpec {
    /// A latency of 0.
    pub const ZERO: Self = Self::Fixed(0.0);

    /// Returns true if the latency is always 0.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// Returns the position on a plot's axis in milliseconds: the constant, or the median of the
    /// distribution before truncation; `None` for recorded latencies.
    pub fn nominal_millis(&self) -> Option<f64> {
        match *self {
            Self::Fixed(millis) => Some(millis),
            Self::Uniform { min, max } => Some(f64::midpoint(min, max)),
            Self::Normal { mean, .. } => Some(mean),
            Self::LogNormal { p50, .. } => Some(p50),
            Self::File(_) | Self::Replayed(_) => None,
        }
    }

    /// Returns the distribution, or `None` if a recording is needed.
    fn distribution(&self) -> Result<Option<LatencySource>, LatencyError> {
        let text = self.to_string();
        let check = |name, millis: f64| {
            let longest = LONGEST_LATENCY.as_secs_f64() * 1000.0;
            if (0.0..=longest).contains(&millis) {
                return Ok(nanos(millis));
            }
            Err(LatencyError::Range { spec: text.clone(), name, found: millis })
        };
        let order = |name, least: f64, other, most: f64| {
            if least <= most {
                return Ok(());
            }
            Err(LatencyError::Order { spec: text.clone(), name, other })
        };
        Ok(Some(match *self {
            Self::Fixed(millis) => LatencySource::Fixed(clamped(check("the latency", millis)?)),
            Self::Uniform { min, max } => {
                let (min_ns, max_ns) = (check("min", min)?, check("max", max)?);
                order("min", min, "max", max)?;
                LatencySource::Uniform { min_ns, max_ns }
            }
            Self::Normal { mean, sd } => {
                LatencySource::Normal { mean_ns: check("mean", mean)?, sd_ns: check("sd", sd)? }
            }
            Self::LogNormal { p50, p99 } => {
                let (median_ns, p99_ns) = (check("p50", p50)?, check("p99", p99)?);
                if median_ns == 0.0 {
                    return Err(LatencyError::Range { spec: text, name: "p50", found: p50 });
                }
                order("p50", p50, "p99", p99)?;
                let sigma = (p99_ns / median_ns).ln() / P99_DEVIATIONS;
                LatencySource::LogNormal { median_ns, sigma }
            }
            Self::File(_) | Self::Replayed(_) => return Ok(None),
        }))
    }
}

fn nanos(millis: f64) -> f64 {
    millis * 1e6
}

/// Clamps a sample to 0..=[`LONGEST_LATENCY`] and rounds it to nanoseconds.
fn clamped(nanos: f64) -> Duration {
    let longest = LONGEST_LATENCY.as_nanos() as f64;
    Duration::from_nanos(nanos.clamp(0.0, longest).round() as u64)
}

impl fmt::Display for LatencySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(millis) => write!(f, "{millis}"),
            Self::Uniform { min, max } => write!(f, "uniform:min={min},max={max}"),
            Self::Normal { mean, sd } => write!(f, "normal:mean={mean},sd={sd}"),
            Self::LogNormal { p50, p99 } => write!(f, "lognormal:p50={p50},p99={p99}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Replayed(path) => write!(f, "replayed:{}", path.display()),
        }
    }
}

impl FromStr for LatencySpec {
    type Err = LatencyError;

    fn from_str(text: &str) -> Result<Self, LatencyError> {
        let unknown = || LatencyError::Syntax { spec: text.to_owned() };
        if let Ok(millis) = text.trim().parse() {
            return Ok(Self::Fixed(millis));
        }
        let (kind, rest) = text.trim().split_once(':').ok_or_else(unknown)?;
        let path = || {
            if rest.is_empty() { Err(unknown()) } else { Ok(PathBuf::from(rest)) }
        };
        let two = |names: [&str; 2]| -> Result<[f64; 2], LatencyError> {
            let mut values = [None; 2];
            for part in rest.split(',') {
                let (name, value) = part.split_once('=').ok_or_else(unknown)?;
                let place = names.iter().position(|known| *known == name.trim());
                let place = place.filter(|&place| values[place].is_none()).ok_or_else(unknown)?;
                values[place] = Some(value.trim().parse().ok().ok_or_else(unknown)?);
            }
            let [Some(first), Some(second)] = values else { return Err(unknown()) };
            Ok([first, second])
        };
        match kind {
            "fixed" => rest.trim().parse().ok().map(Self::Fixed).ok_or_else(unknown),
            "uniform" => two(["min", "max"]).map(|[min, max]| Self::Uniform { min, max }),
            "normal" => two(["mean", "sd"]).map(|[mean, sd]| Self::Normal { mean, sd }),
            "lognormal" => two(["p50", "p99"]).map(|[p50, p99]| Self::LogNormal { p50, p99 }),
            "file" => path().map(Self::File),
            "replayed" => path().map(Self::Replayed),
            _ => Err(unknown()),
        }
    }
}

impl Serialize for LatencySpec {
    /// Writes a number if the latency is constant, text otherwise.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(millis) => serializer.serialize_f64(*millis),
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for LatencySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpecVisitor;
        impl serde::de::Visitor<'_> for SpecVisitor {
            type Value = LatencySpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a latency: milliseconds, or text such as lognormal:p50=300,p99=700")
            }
            fn visit_f64<E>(self, millis: f64) -> Result<LatencySpec, E> {
                Ok(LatencySpec::Fixed(millis))
            }
            fn visit_i64<E>(self, millis: i64) -> Result<LatencySpec, E> {
                Ok(LatencySpec::Fixed(millis as f64))
            }
            fn visit_u64<E>(self, millis: u64) -> Result<LatencySpec, E> {
                Ok(LatencySpec::Fixed(millis as f64))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<LatencySpec, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(SpecVisitor)
    }
}

/// Splits a list at its commas, except those inside `NAME:KEY=VALUE,KEY=VALUE`: a part that starts
/// with a known key belongs to the latency before it.
pub fn split_latencies(list: &str) -> Vec<String> {
    let keys = ["min", "max", "mean", "sd", "p50", "p99"];
    let mut parts: Vec<String> = Vec::new();
    for part in list.split(',') {
        let is_key = part.split_once('=').is_some_and(|(name, _)| keys.contains(&name.trim()));
        match parts.last_mut() {
            Some(last) if is_key => *last += &format!(",{part}"),
            _ => parts.push(part.trim().to_owned()),
        }
    }
    parts
}

/// Release policy of the fast expert's action steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FastReleases {
    /// A step is released at every tick, even while earlier ones are in flight: a delay of n
    /// ticks is a queue of n steps.
    #[default]
    Overlap,
    /// One step is in flight, as on one GPU: the next starts with the newest observation at the
    /// first tick at which the device is idle.
    Busy,
}

impl FastReleases {
    /// Returns the value used in run files and on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Busy => "busy",
        }
    }
}

/// Expert that a latency belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expert {
    /// The understanding expert: a prefill, from its request until its prefix is visible.
    Slow,
    /// The action expert with the rest of the tick: from the observation to the command.
    Fast,
}

impl fmt::Display for Expert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slow => "slow",
            Self::Fast => "fast",
        })
    }
}

/// Latencies of a recorded run in order of time, nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecordedLatencies {
    /// One per prefill.
    pub slow_ns: Vec<u64>,
    /// One per tick.
    pub fast_ns: Vec<u64>,
}

/// Source that latencies are sampled from.
#[derive(Clone, PartialEq, Debug)]
pub enum LatencySource {
    Fixed(Duration),
    Uniform {
        min_ns: f64,
        max_ns: f64,
    },
    /// Normal, truncated at 0 by rejection; the parameters are those before truncation.
    Normal {
        mean_ns: f64,
        sd_ns: f64,
    },
    /// `sigma` is the standard deviation of the logarithm.
    LogNormal {
        median_ns: f64,
        sigma: f64,
    },
    /// Recorded latencies in nanoseconds, replayed cyclically; never empty.
    Recorded(Arc<[u64]>),
    /// Latencies of a recorded drive by frame; `None` until the drive is selected.
    Replayed(Option<Arc<Schedule>>),
}

/// The latencies of both experts.
#[derive(Clone, PartialEq, Debug)]
pub struct Latencies {
    pub slow: LatencySource,
    pub fast: LatencySource,
    pub fast_releases: FastReleases,
    pub seed: u64,
    /// Ticks from one prefill to the next, by which recorded prefill latencies are indexed.
    pub refresh_period_ticks: u64,
}

impl Latencies {
    /// Zero latencies.
    pub const NONE: Self = Self {
        slow: LatencySource::Fixed(Duration::ZERO),
        fast: LatencySource::Fixed(Duration::ZERO),
        fast_releases: FastReleases::Overlap,
        seed: 0,
        refresh_period_ticks: 1,
    };

    /// Samples the latency of the run of `expert` that is released at `frame`. Fails if a
    /// replayed drive has no such run.
    pub fn sample(&self, expert: Expert, frame: u64) -> Result<Duration, LatencyError> {
        let source = match expert {
            Expert::Slow => &self.slow,
            Expert::Fast => &self.fast,
        };
        let purpose = match expert {
            Expert::Slow => 1,
            Expert::Fast => 2,
        };
        let numbers = |attempt: u64| RandomKey { seed: self.seed, purpose, frame, attempt };
        Ok(match source {
            LatencySource::Fixed(latency) => *latency,
            LatencySource::Uniform { min_ns, max_ns } => {
                clamped(min_ns + numbers(0).uniform(0) * (max_ns - min_ns))
            }
            LatencySource::Normal { mean_ns, sd_ns } => {
                let sample = |attempt| mean_ns + sd_ns * numbers(attempt).normal();
                // The mean is not negative, so at least half of all samples are accepted.
                let accepted = (0..).map(sample).find(|nanos| *nanos >= 0.0);
                clamped(accepted.expect("a sample that is not negative is found"))
            }
            LatencySource::LogNormal { median_ns, sigma } => {
                clamped(median_ns * (sigma * numbers(0).normal()).exp())
            }
            LatencySource::Recorded(latencies) => {
                let period = match expert {
                    Expert::Slow => self.refresh_period_ticks.max(1),
                    Expert::Fast => 1,
                };
                let first = RandomKey { seed: self.seed, purpose, frame: 0, attempt: 0 }.bits(1);
                let place = (first % latencies.len() as u64 + frame / period) as usize;
                Duration::from_nanos(latencies[place % latencies.len()]).min(LONGEST_LATENCY)
            }
            LatencySource::Replayed(schedule) => schedule
                .as_ref()
                .and_then(|schedule| schedule.latency(expert, frame))
                .ok_or(LatencyError::NotRecorded { expert, frame })?,
        })
    }

    /// Returns these latencies for one drive along `route` in a world of `seed`, replaying
    /// `schedule` where a drive is replayed.
    pub fn for_drive(&self, seed: u64, route: &RouteId, schedule: Option<Arc<Schedule>>) -> Self {
        let replayed = |source: &LatencySource| match source {
            LatencySource::Replayed(_) => LatencySource::Replayed(schedule.clone()),
            other => other.clone(),
        };
        let drive = RandomKey { seed, purpose: 0, frame: route.seed(), attempt: 0 };
        let seed = drive.bits(0);
        Self { slow: replayed(&self.slow), fast: replayed(&self.fast), seed, ..self.clone() }
    }

    /// Returns true if drives are replayed, so that each needs its schedule.
    pub fn is_replayed(&self) -> bool {
        [&self.slow, &self.fast].iter().any(|source| matches!(source, LatencySource::Replayed(_)))
    }
}

impl LatencySource {
    /// Returns the source that `spec` describes for `expert`; `open` reads recordings. Fails if a
    /// number is out of range, or the recording has no latencies of this expert.
    pub fn new(
        spec: &LatencySpec,
        expert: Expert,
        open: &mut OpenRecording<'_>,
    ) -> Result<Self, LatencyError> {
        if let Some(source) = spec.distribution()? {
            return Ok(source);
        }
        let LatencySpec::File(path) = spec else { return Ok(Self::Replayed(None)) };
        let recorded = open(path).map_err(|source| LatencyError::File { source })?;
        let latencies = match expert {
            Expert::Slow => recorded.slow_ns,
            Expert::Fast => recorded.fast_ns,
        };
        if latencies.is_empty() {
            return Err(LatencyError::NothingRecorded { path: path.clone(), expert });
        }
        Ok(Self::Recorded(latencies.into()))
    }

    /// Returns true if the latency is always 0.
    pub fn is_zero(&self) -> bool {
        *self == Self::Fixed(Duration::ZERO)
    }
}

/// Reads the latencies of a recorded run.
pub type OpenRecording<'a> = dyn FnMut(&std::path::Path) -> Result<RecordedLatencies, Box<dyn std::error::Error + Send + Sync>>
    + 'a;

/// Random numbers that are a function of their purpose.
struct RandomKey {
    seed: u64,
    purpose: u64,
    frame: u64,
    attempt: u64,
}

impl RandomKey {
    /// Returns 64 random bits, independent for each `stream`.
    fn bits(&self, stream: u64) -> u64 {
        [self.purpose, self.frame, self.attempt, stream]
            .into_iter()
            .fold(self.seed, SplitMix64::hash)
    }

    /// Uniform in the open interval from 0 to 1.
    fn uniform(&self, stream: u64) -> f64 {
        ((self.bits(stream) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    fn normal(&self) -> f64 {
        let radius = (-self.uniform(0).ln()).sqrt() * SQRT_2;
        radius * (2.0 * PI * self.uniform(1)).cos()
    }
}

/// Error returned for a latency that cannot be emulated.
#[derive(Debug, thiserror::Error)]
pub enum LatencyError {
    #[error(
        "{spec:?} is not a latency; give milliseconds, uniform:min=A,max=B, normal:mean=A,sd=B, \
         lognormal:p50=A,p99=B, file:latency.json or replayed:DIR"
    )]
    Syntax { spec: String },
    #[error("latency {spec:?}: {name} is {found}, it must be {} ms", 
        if *name == "p50" { "above 0 and at most 60000" } else { "between 0 and 60000" })]
    Range { spec: String, name: &'static str, found: f64 },
    #[error("latency {spec:?}: {name} is above {other}")]
    Order { spec: String, name: &'static str, other: &'static str },
    #[error("no latencies to emulate: {source}")]
    File { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{path:?} recorded no latency of the {expert} expert; `tandem profile` records both")]
    NothingRecorded { path: PathBuf, expert: Expert },
    #[error(
        "the recorded schedule has no run of the {expert} expert at frame {frame}: the recorded drive \
         differs from this one (route, seed, driver, run file or version)"
    )]
    NotRecorded { expert: Expert, frame: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(spec: &str) -> Result<LatencySource, LatencyError> {
        let mut none = |_: &std::path::Path| -> Result<RecordedLatencies, _> { Err("none".into()) };
        LatencySource::new(&spec.parse()?, Expert::Fast, &mut none)
    }

    fn latencies(fast: LatencySource, seed: u64) -> Latencies {
        Latencies { fast, seed, ..Latencies::NONE }
    }

    /// Returns the latencies at frames 1 to `n`, sorted, milliseconds.
    fn sorted(spec: &str, n: u64) -> Vec<f64> {
        let latencies = latencies(source(spec).unwrap(), 11);
        let sample = |frame| latencies.sample(Expert::Fast, frame).unwrap().as_secs_f64() * 1e3;
        let mut samples: Vec<f64> = (1..=n).map(sample).collect();
        samples.sort_unstable_by(f64::total_cmp);
        samples
    }

    #[test]
    fn samples_have_the_specified_percentiles() {
        let near = |found: f64, expected: f64, by: f64| {
            assert!((found / expected - 1.0).abs() < by, "{found} for {expected}");
        };
        let n = 100_000;
        let lognormal = sorted("lognormal:p50=300,p99=700", n);
        near(lognormal[n as usize / 2], 300.0, 0.01);
        near(lognormal[n as usize / 100 * 99], 700.0, 0.02);
        let normal = sorted("normal:mean=40,sd=5", n);
        near(normal[n as usize / 2], 40.0, 0.01);
        near(normal[n as usize / 100 * 99], 40.0 + 5.0 * P99_DEVIATIONS, 0.01);
        let uniform = sorted("uniform:min=20,max=60", n);
        near(uniform[n as usize / 2], 40.0, 0.01);
        near(uniform[n as usize / 100 * 99], 59.6, 0.01);
        assert!(uniform[0] >= 20.0 && uniform[n as usize - 1] <= 60.0);
    }

    #[test]
    fn normal_latency_is_truncated_at_zero_not_clamped() {
        let samples = sorted("normal:mean=0,sd=10", 20_000);
        assert!(samples[0] > 0.0 && samples[199] > 0.0, "rejected, not clamped");
        // The median of a half-normal distribution is at 0.6745 standard deviations.
        assert!((samples[10_000] - 6.745).abs() < 0.2, "{}", samples[10_000]);
    }

    #[test]
    fn settings_with_one_seed_share_random_numbers() {
        let [short, long] = ["lognormal:p50=30,p99=70", "lognormal:p50=300,p99=700"]
            .map(|spec| latencies(source(spec).unwrap(), 3));
        for frame in 1..200 {
            let [short, long] =
                [&short, &long].map(|l| l.sample(Expert::Fast, frame).unwrap().as_secs_f64());
            assert!((long / short - 10.0).abs() < 1e-6, "frame {frame}: {short} {long}");
        }
    }

    proptest! {
        #[test]
        fn latency_depends_only_on_seed_expert_and_frame(seed: u64, frame in 1..4000_u64) {
            let spec = "lognormal:p50=50,p99=90";
            let both = || Latencies { slow: source(spec).unwrap(), ..latencies(source(spec).unwrap(), seed) };
            let (alone, busy) = (both(), both());
            for other in (1..50).rev() {
                busy.sample(Expert::Slow, other).unwrap();
            }
            let sample = |l: &Latencies, expert, frame| l.sample(expert, frame).unwrap();
            prop_assert_eq!(sample(&alone, Expert::Fast, frame), sample(&busy, Expert::Fast, frame));
            prop_assert_ne!(sample(&alone, Expert::Fast, frame), sample(&alone, Expert::Slow, frame));
            prop_assert_ne!(sample(&alone, Expert::Fast, frame), sample(&alone, Expert::Fast, frame + 1));
            let other = Latencies { seed: seed ^ 1, ..both() };
            prop_assert_ne!(sample(&alone, Expert::Fast, frame), sample(&other, Expert::Fast, frame));
        }

        #[test]
        fn spec_roundtrips_through_text_and_json(spec in prop_oneof![
            (0..480_000_u32).prop_map(|eighths| LatencySpec::Fixed(f64::from(eighths) / 8.0)),
            (0..9_u8, 9..60_u8).prop_map(|(min, max)| LatencySpec::Uniform { min: min.into(), max: max.into() }),
            (0..9_u8, 0..60_u8).prop_map(|(mean, sd)| LatencySpec::Normal { mean: mean.into(), sd: sd.into() }),
            (1..9_u8, 9..60_u8).prop_map(|(p50, p99)| LatencySpec::LogNormal { p50: p50.into(), p99: p99.into() }),
            "[a-z/]{1,9}".prop_map(|path| LatencySpec::File(path.into())),
            "[a-z/]{1,9}".prop_map(|path| LatencySpec::Replayed(path.into())),
        ]) {
            prop_assert_eq!(&spec.to_string().parse::<LatencySpec>().unwrap(), &spec);
            let json = serde_json::to_string(&spec).unwrap();
            prop_assert_eq!(serde_json::from_str::<LatencySpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn recorded_latencies_are_replayed_in_order_from_seeded_offset() {
        let recorded: Arc<[u64]> = (0..100).map(|i| i * 1000).collect();
        let replayed = |seed: u64| -> Vec<u64> {
            let both = LatencySource::Recorded(Arc::clone(&recorded));
            let slow = both.clone();
            let l = Latencies { slow, refresh_period_ticks: 2, ..latencies(both, seed) };
            let micros = |expert, frame| l.sample(expert, frame).unwrap().as_micros() as u64;
            let slow: Vec<u64> = (0..100).map(|frame| micros(Expert::Slow, 2 * frame)).collect();
            assert!(slow.windows(2).all(|pair| (pair[0] + 1) % 100 == pair[1]), "{slow:?}");
            (0..100).map(|frame| micros(Expert::Fast, frame)).collect()
        };
        let (one, other) = (replayed(1), replayed(2));
        assert!(one.windows(2).all(|pair| (pair[0] + 1) % 100 == pair[1]), "{one:?}");
        assert_ne!(one[0], other[0]);
    }

    #[track_caller]
    fn check_error(spec: &str, parts: &[&str]) {
        let error = source(spec).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} is missing in: {error}");
        }
    }

    #[test]
    fn invalid_spec_is_refused_with_valid_forms() {
        check_error("", &["\"\"", "milliseconds", "lognormal:p50=A,p99=B"]);
        check_error("fast", &["\"fast\"", "not a latency"]);
        check_error("normal:mean=4", &["normal:mean=4", "normal:mean=A,sd=B"]);
        check_error("normal:mean=4,mean=5", &["not a latency"]);
        check_error("normal:mean=4,sd=5,p50=1", &["not a latency"]);
        check_error("file:", &["file:latency.json"]);
    }

    #[test]
    fn out_of_range_numbers_are_refused() {
        check_error("-1", &["-1", "between 0 and 60000 ms"]);
        check_error("NaN", &["NaN", "between 0 and 60000 ms"]);
        check_error("60001", &["60001"]);
        check_error("uniform:min=6,max=2", &["min is above max"]);
        check_error("lognormal:p50=0,p99=2", &["p50 is 0", "above 0"]);
        check_error("lognormal:p50=3,p99=2", &["p50 is above p99"]);
        check_error("normal:mean=-3,sd=2", &["mean is -3"]);
    }

    #[test]
    fn list_splits_between_latencies_not_inside() {
        let parts = split_latencies("0, 100,lognormal:p50=300,p99=700,uniform:min=1,max=2,5");
        let expected = ["0", "100", "lognormal:p50=300,p99=700", "uniform:min=1,max=2", "5"];
        assert_eq!(parts, expected);
    }
}
