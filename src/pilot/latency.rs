//! How long the experts take in virtual time.
//!
//! A latency is drawn as a function of seed, expert and frame, so that it depends neither on who asks
//! first nor on what was asked before, and two settings that share a seed are a pair: what is slow in
//! one is slow in the other.

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

/// The longest latency there is: what is drawn beyond it takes this long.
pub const LONGEST_LATENCY: Duration = Duration::from_secs(60);

/// What separates the 99th from the 50th percentile of a normal distribution, standard deviations.
const P99_DEVIATIONS: f64 = 2.326_347_874_040_841;

/// A latency as a run file or a command line names it. Times are milliseconds.
///
/// ```
/// use tandem::pilot::LatencySpec;
/// let spec: LatencySpec = "lognormal:p50=300,p99=700".parse()?;
/// assert_eq!(spec, LatencySpec::LogNormal { p50: 300.0, p99: 700.0 });
/// # Ok::<(), tandem::pilot::LatencyError>(())
/// ```
#[derive(Clone, PartialEq, Debug)]
pub enum LatencySpec {
    /// `35`: always the same.
    Fixed(f64),
    /// `uniform:min=20,max=60`.
    Uniform {
        /// The least.
        min: f64,
        /// The most.
        max: f64,
    },
    /// `normal:mean=40,sd=5`, draws below 0 drawn again.
    Normal {
        /// The mean before draws below 0 are drawn again.
        mean: f64,
        /// The standard deviation before that.
        sd: f64,
    },
    /// `lognormal:p50=300,p99=700`: long to the right, as latencies are.
    LogNormal {
        /// The median.
        p50: f64,
        /// The 99th percentile.
        p99: f64,
    },
    /// `file:latency.json`: what `tandem profile` recorded, one entry after the other, from one that
    /// the seed chooses.
    File(PathBuf),
    /// `replayed:DIR`: what each inference took in the drives of a result folder.
    Replayed(PathBuf),
}

impl LatencySpec {
    /// No latency.
    pub const ZERO: Self = Self::Fixed(0.0);

    /// Whether it takes no time, ever.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// Where it lies on an axis, milliseconds: what is fixed as it is, a distribution by its median
    /// before draws below 0 are drawn again; `None` for what was recorded.
    pub fn nominal_millis(&self) -> Option<f64> {
        match *self {
            Self::Fixed(millis) => Some(millis),
            Self::Uniform { min, max } => Some(f64::midpoint(min, max)),
            Self::Normal { mean, .. } => Some(mean),
            Self::LogNormal { p50, .. } => Some(p50),
            Self::File(_) | Self::Replayed(_) => None,
        }
    }

    /// What it draws from, if that is all in the words.
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
            Self::Fixed(millis) => LatencySource::Fixed(whole_nanos(check("the latency", millis)?)),
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

/// Nanoseconds as drawn: at least 0, at most [`LONGEST_LATENCY`], to the nearest one.
fn whole_nanos(nanos: f64) -> Duration {
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
    /// Milliseconds where it is fixed, its words otherwise.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(millis) => serializer.serialize_f64(*millis),
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for LatencySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl serde::de::Visitor<'_> for Words {
            type Value = LatencySpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a latency: milliseconds, or words such as lognormal:p50=300,p99=700")
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
        deserializer.deserialize_any(Words)
    }
}

/// Splits a list at its commas, but for those inside `NAME:KEY=VALUE,KEY=VALUE`: a part that is a key
/// of the latency before it is not one of its own.
pub fn split_latencies(list: &str) -> Vec<String> {
    let keys = ["min", "max", "mean", "sd", "p50", "p99"];
    let mut parts: Vec<String> = Vec::new();
    for word in list.split(',') {
        let is_key = word.split_once('=').is_some_and(|(name, _)| keys.contains(&name.trim()));
        match parts.last_mut() {
            Some(last) if is_key => *last += &format!(",{word}"),
            _ => parts.push(word.trim().to_owned()),
        }
    }
    parts
}

/// Whether inferences of the fast expert overlap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FastReleases {
    /// One is released at every tick, whatever is still under way: a delay of n ticks is a queue of n.
    #[default]
    Overlap,
    /// One is in flight, as on one GPU: the next starts with the newest observation at the first tick
    /// at which the device is free.
    Busy,
}

impl FastReleases {
    /// The word of run files and command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Busy => "busy",
        }
    }
}

/// The two experts, as latencies tell them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expert {
    /// The understanding expert: a refresh, from its request to the visible prefix.
    Slow,
    /// The action expert with all else that a tick does: from the observation to the command.
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

/// Latencies of a recorded run, in its order, nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecordedLatencies {
    /// One per refresh.
    pub slow_ns: Vec<u64>,
    /// One per tick.
    pub fast_ns: Vec<u64>,
}

/// What latencies are drawn from.
#[derive(Clone, PartialEq, Debug)]
pub enum LatencySource {
    /// Always the same.
    Fixed(Duration),
    /// All between two bounds are equally likely, nanoseconds.
    Uniform {
        /// The least.
        min_ns: f64,
        /// The most.
        max_ns: f64,
    },
    /// Normal, draws below 0 drawn again, nanoseconds.
    Normal {
        /// The mean of all draws.
        mean_ns: f64,
        /// Their standard deviation.
        sd_ns: f64,
    },
    /// Log-normal.
    LogNormal {
        /// The median, nanoseconds.
        median_ns: f64,
        /// The standard deviation of the logarithm.
        sigma: f64,
    },
    /// Recorded ones, nanoseconds, in their order and round and round; never empty.
    Recorded(Arc<[u64]>),
    /// Those of a recorded drive, frame by frame; `None` until it is known which drive.
    Replayed(Option<Arc<Schedule>>),
}

/// The latencies of both experts.
#[derive(Clone, PartialEq, Debug)]
pub struct Latencies {
    /// Of a refresh.
    pub slow: LatencySource,
    /// Of a tick.
    pub fast: LatencySource,
    /// Whether inferences of the fast expert overlap.
    pub fast_releases: FastReleases,
    /// Seed of the draws.
    pub seed: u64,
    /// Ticks from one refresh to the next: recorded refreshes are taken one by one.
    pub refresh_period_ticks: u64,
}

impl Latencies {
    /// Nothing takes time.
    pub const NONE: Self = Self {
        slow: LatencySource::Fixed(Duration::ZERO),
        fast: LatencySource::Fixed(Duration::ZERO),
        fast_releases: FastReleases::Overlap,
        seed: 0,
        refresh_period_ticks: 1,
    };

    /// What the inference of `expert` takes that is released at `frame`.
    ///
    /// # Errors
    /// If a recorded drive is replayed that has no such inference.
    pub fn draw(&self, expert: Expert, frame: u64) -> Result<Duration, LatencyError> {
        let source = match expert {
            Expert::Slow => &self.slow,
            Expert::Fast => &self.fast,
        };
        let purpose = match expert {
            Expert::Slow => 1,
            Expert::Fast => 2,
        };
        let numbers = |attempt: u64| Numbers { seed: self.seed, purpose, frame, attempt };
        Ok(match source {
            LatencySource::Fixed(latency) => *latency,
            LatencySource::Uniform { min_ns, max_ns } => {
                whole_nanos(min_ns + numbers(0).uniform(0) * (max_ns - min_ns))
            }
            LatencySource::Normal { mean_ns, sd_ns } => {
                let draw = |attempt| mean_ns + sd_ns * numbers(attempt).normal();
                // The mean is not below 0, so every second draw at least is good.
                let drawn = (0..).map(draw).find(|nanos| *nanos >= 0.0);
                whole_nanos(drawn.expect("one of any number of draws is not below 0"))
            }
            LatencySource::LogNormal { median_ns, sigma } => {
                whole_nanos(median_ns * (sigma * numbers(0).normal()).exp())
            }
            LatencySource::Recorded(latencies) => {
                let period = match expert {
                    Expert::Slow => self.refresh_period_ticks.max(1),
                    Expert::Fast => 1,
                };
                let first = Numbers { seed: self.seed, purpose, frame: 0, attempt: 0 }.bits(1);
                let place = (first % latencies.len() as u64 + frame / period) as usize;
                Duration::from_nanos(latencies[place % latencies.len()]).min(LONGEST_LATENCY)
            }
            LatencySource::Replayed(schedule) => schedule
                .as_ref()
                .and_then(|schedule| schedule.latency(expert, frame))
                .ok_or(LatencyError::NotRecorded { expert, frame })?,
        })
    }

    /// These latencies for one drive, along `route` in a world of `seed`; what is replayed is
    /// `schedule`.
    pub fn for_drive(&self, seed: u64, route: &RouteId, schedule: Option<Arc<Schedule>>) -> Self {
        let replayed = |source: &LatencySource| match source {
            LatencySource::Replayed(_) => LatencySource::Replayed(schedule.clone()),
            other => other.clone(),
        };
        let drive = Numbers { seed, purpose: 0, frame: route.seed(), attempt: 0 };
        let seed = drive.bits(0);
        Self { slow: replayed(&self.slow), fast: replayed(&self.fast), seed, ..self.clone() }
    }

    /// Whether drives are replayed, so that each needs its schedule.
    pub fn is_replayed(&self) -> bool {
        [&self.slow, &self.fast].iter().any(|source| matches!(source, LatencySource::Replayed(_)))
    }
}

impl LatencySource {
    /// What `spec` names for `expert`. `open` reads the file that it may name.
    ///
    /// # Errors
    /// If the numbers of `spec` make no sense, or its file has nothing for this expert.
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

    /// Whether it takes no time, ever.
    pub fn is_zero(&self) -> bool {
        *self == Self::Fixed(Duration::ZERO)
    }
}

/// Reads the latencies that a file recorded.
pub type OpenRecording<'a> = dyn FnMut(&std::path::Path) -> Result<RecordedLatencies, Box<dyn std::error::Error + Send + Sync>>
    + 'a;

/// Random numbers that are a function of what they are for.
struct Numbers {
    seed: u64,
    purpose: u64,
    frame: u64,
    attempt: u64,
}

impl Numbers {
    /// 64 random bits, each `stream` others.
    fn bits(&self, stream: u64) -> u64 {
        [self.purpose, self.frame, self.attempt, stream]
            .into_iter()
            .fold(self.seed, SplitMix64::hash)
    }

    /// Between 0 and 1, neither of them.
    fn uniform(&self, stream: u64) -> f64 {
        ((self.bits(stream) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Normal with mean 0 and standard deviation 1 (Box and Muller).
    fn normal(&self) -> f64 {
        let radius = (-self.uniform(0).ln()).sqrt() * SQRT_2;
        radius * (2.0 * PI * self.uniform(1)).cos()
    }
}

/// A latency cannot be.
#[derive(Debug, thiserror::Error)]
pub enum LatencyError {
    /// No such words.
    #[error(
        "{spec:?} is no latency; give milliseconds, uniform:min=A,max=B, normal:mean=A,sd=B, \
         lognormal:p50=A,p99=B, file:latency.json or replayed:DIR"
    )]
    Syntax {
        /// The words.
        spec: String,
    },
    /// A number outside its range.
    #[error("latency {spec:?}: {name} is {found}, it must be {} ms", 
        if *name == "p50" { "above 0 and at most 60000" } else { "between 0 and 60000" })]
    Range {
        /// The words.
        spec: String,
        /// Which number.
        name: &'static str,
        /// Its value.
        found: f64,
    },
    /// Two numbers the wrong way round.
    #[error("latency {spec:?}: {name} is above {other}")]
    Order {
        /// The words.
        spec: String,
        /// The one that is too large.
        name: &'static str,
        /// The one that it must not exceed.
        other: &'static str,
    },
    /// A recording cannot be used.
    #[error("no latencies to emulate: {source}")]
    File {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A recording lacks one expert.
    #[error("{path:?} recorded no latency of the {expert} expert; `tandem profile` records both")]
    NothingRecorded {
        /// The file.
        path: PathBuf,
        /// Which expert.
        expert: Expert,
    },
    /// A replayed drive went another way.
    #[error(
        "the recorded schedule has no {expert} inference at frame {frame}: this drive is not the one \
         that was recorded (another route, seed, driver, run file or version)"
    )]
    NotRecorded {
        /// Which expert.
        expert: Expert,
        /// The frame it was released at.
        frame: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(words: &str) -> Result<LatencySource, LatencyError> {
        let mut none = |_: &std::path::Path| -> Result<RecordedLatencies, _> { Err("none".into()) };
        LatencySource::new(&words.parse()?, Expert::Fast, &mut none)
    }

    fn latencies(fast: LatencySource, seed: u64) -> Latencies {
        Latencies { fast, seed, ..Latencies::NONE }
    }

    /// Draws at frames 1 to `n`, sorted, milliseconds.
    fn sorted(words: &str, n: u64) -> Vec<f64> {
        let latencies = latencies(source(words).unwrap(), 11);
        let draw = |frame| latencies.draw(Expert::Fast, frame).unwrap().as_secs_f64() * 1e3;
        let mut drawn: Vec<f64> = (1..=n).map(draw).collect();
        drawn.sort_unstable_by(f64::total_cmp);
        drawn
    }

    #[test]
    fn draws_have_the_percentiles_that_were_asked_for() {
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
    fn a_normal_latency_is_cut_off_at_zero_not_heaped_there() {
        let drawn = sorted("normal:mean=0,sd=10", 20_000);
        assert!(drawn[0] > 0.0 && drawn[199] > 0.0, "drawn again, not clamped");
        // Half a normal distribution: its median is at 0.6745 standard deviations.
        assert!((drawn[10_000] - 6.745).abs() < 0.2, "{}", drawn[10_000]);
    }

    #[test]
    fn what_is_slow_in_one_setting_is_slow_in_its_pair() {
        let [short, long] = ["lognormal:p50=30,p99=70", "lognormal:p50=300,p99=700"]
            .map(|words| latencies(source(words).unwrap(), 3));
        for frame in 1..200 {
            let [short, long] =
                [&short, &long].map(|l| l.draw(Expert::Fast, frame).unwrap().as_secs_f64());
            assert!((long / short - 10.0).abs() < 1e-6, "frame {frame}: {short} {long}");
        }
    }

    proptest! {
        #[test]
        fn a_draw_depends_on_seed_expert_and_frame_alone(seed: u64, frame in 1..4000_u64) {
            let words = "lognormal:p50=50,p99=90";
            let both = || Latencies { slow: source(words).unwrap(), ..latencies(source(words).unwrap(), seed) };
            let (alone, busy) = (both(), both());
            for other in (1..50).rev() {
                busy.draw(Expert::Slow, other).unwrap();
            }
            let draw = |l: &Latencies, expert, frame| l.draw(expert, frame).unwrap();
            prop_assert_eq!(draw(&alone, Expert::Fast, frame), draw(&busy, Expert::Fast, frame));
            prop_assert_ne!(draw(&alone, Expert::Fast, frame), draw(&alone, Expert::Slow, frame));
            prop_assert_ne!(draw(&alone, Expert::Fast, frame), draw(&alone, Expert::Fast, frame + 1));
            let other = Latencies { seed: seed ^ 1, ..both() };
            prop_assert_ne!(draw(&alone, Expert::Fast, frame), draw(&other, Expert::Fast, frame));
        }

        #[test]
        fn words_come_back(spec in prop_oneof![
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
    fn recorded_latencies_come_in_their_order_from_where_the_seed_says() {
        let recorded: Arc<[u64]> = (0..100).map(|i| i * 1000).collect();
        let drawn = |seed: u64| -> Vec<u64> {
            let both = LatencySource::Recorded(Arc::clone(&recorded));
            let slow = both.clone();
            let l = Latencies { slow, refresh_period_ticks: 2, ..latencies(both, seed) };
            let micros = |expert, frame| l.draw(expert, frame).unwrap().as_micros() as u64;
            let slow: Vec<u64> = (0..100).map(|frame| micros(Expert::Slow, 2 * frame)).collect();
            assert!(slow.windows(2).all(|pair| (pair[0] + 1) % 100 == pair[1]), "{slow:?}");
            (0..100).map(|frame| micros(Expert::Fast, frame)).collect()
        };
        let (one, other) = (drawn(1), drawn(2));
        assert!(one.windows(2).all(|pair| (pair[0] + 1) % 100 == pair[1]), "{one:?}");
        assert_ne!(one[0], other[0]);
    }

    #[track_caller]
    fn refused(words: &str, says: &[&str]) {
        let error = source(words).unwrap_err().to_string();
        for word in says {
            assert!(error.contains(word), "{word:?} is missing in: {error}");
        }
    }

    #[test]
    fn words_that_are_no_latency_are_refused_with_what_is() {
        refused("", &["\"\"", "milliseconds", "lognormal:p50=A,p99=B"]);
        refused("fast", &["\"fast\"", "no latency"]);
        refused("normal:mean=4", &["normal:mean=4", "normal:mean=A,sd=B"]);
        refused("normal:mean=4,mean=5", &["no latency"]);
        refused("normal:mean=4,sd=5,p50=1", &["no latency"]);
        refused("file:", &["file:latency.json"]);
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        refused("-1", &["-1", "between 0 and 60000 ms"]);
        refused("NaN", &["NaN", "between 0 and 60000 ms"]);
        refused("60001", &["60001"]);
        refused("uniform:min=6,max=2", &["min is above max"]);
        refused("lognormal:p50=0,p99=2", &["p50 is 0", "above 0"]);
        refused("lognormal:p50=3,p99=2", &["p50 is above p99"]);
        refused("normal:mean=-3,sd=2", &["mean is -3"]);
    }

    #[test]
    fn a_list_splits_between_latencies_and_not_inside_one() {
        let parts = split_latencies("0, 100,lognormal:p50=300,p99=700,uniform:min=1,max=2,5");
        let expected = ["0", "100", "lognormal:p50=300,p99=700", "uniform:min=1,max=2", "5"];
        assert_eq!(parts, expected);
    }
}
