//! The named parts of a tick and of a refresh.
//!
//! This crate lists the stages of the loop itself. A model family adds those of its own parts to
//! [`STAGES`], so that tables, pages and files show them without naming a family.

use linkme::distributed_slice;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;
use std::time::Duration;

/// The most stages that one program may link.
pub const MAX_STAGES: usize = 48;

/// Every stage of this program, in no particular order: those of the loop, and those that model
/// families list with `#[distributed_slice(STAGES)]`.
#[distributed_slice]
pub static STAGES: [StageSpec];

/// A stage, as it is listed in [`STAGES`].
#[derive(Debug)]
pub struct StageSpec {
    /// The name that tables and files print; unique.
    pub name: &'static str,
    /// The stage that this one is a part of.
    pub parent: Option<Stage>,
    /// Place among the parts of its parent, in reading order.
    pub order: u8,
    /// What the time is spent on.
    pub role: Role,
    /// Whether statistics count its runs one by one, rather than the sum of all runs of a tick or
    /// refresh.
    pub counts_runs: bool,
}

/// What a stage spends its time on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Host code.
    Host,
    /// A network that runs at every tick.
    FastNetwork,
    /// A network that runs at every refresh.
    SlowNetwork,
    /// Copies between the host and a device.
    Copy,
    /// Waiting for a thread, a sensor or the vehicle.
    Waiting,
}

/// A part of the loop that is timed.
#[derive(Clone, Copy)]
pub struct Stage(&'static StageSpec);

/// Lists the stages of a model family in [`STAGES`] and makes a constant of each:
///
/// ```
/// use tandem_timing::Stage;
/// tandem_timing::stages! {
///     /// The network that plans.
///     pub PLAN = "plan", Some(Stage::TICK), 70, FastNetwork;
/// }
/// assert_eq!(Stage::named("plan"), Some(PLAN));
/// ```
///
/// A line gives the name, the parent, the place among the parent's parts and the [`Role`]; `each run`
/// at its end sets [`StageSpec::counts_runs`].
#[macro_export]
macro_rules! stages {
    ($($(#[$doc:meta])* $vis:vis $name:ident = $text:literal, $parent:expr, $order:literal,
        $role:ident $(, each $run:ident)?;)*) => {
        $($(#[$doc])* $vis const $name: $crate::Stage =
            $crate::listed_stage!($text, $parent, $order, $role $(, each $run)?);)*
    };
}

/// An element of [`STAGES`], for [`stages!`].
#[doc(hidden)]
#[macro_export]
macro_rules! listed_stage {
    ($text:literal, $parent:expr, $order:literal, $role:ident $(, each $run:ident)?) => {{
        #[expect(unsafe_code, reason = "linkme places the elements of a slice in a link section")]
        #[$crate::linkme::distributed_slice($crate::STAGES)]
        #[linkme(crate = $crate::linkme)]
        static SPEC: $crate::StageSpec = $crate::StageSpec {
            name: $text,
            parent: $parent,
            order: $order,
            role: $crate::Role::$role,
            counts_runs: false $(|| stringify!($run).len() > 0)?,
        };
        $crate::Stage::of(&SPEC)
    }};
}

/// Lists the loop's own stages.
macro_rules! loop_stages {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $parent:expr, $order:literal, $role:ident;)*) => {
        impl Stage {
            $($(#[$doc])* pub const $name: Self = listed_stage!($text, $parent, $order, $role);)*
        }
    };
}

loop_stages! {
    /// From the instant at which a tick was due until its command was sent; only where a loop keeps
    /// real time.
    RESPONSE = "response", None, 0, Host;
    /// How late the loop woke up for the tick.
    WAKE = "wake-up", Some(Stage::RESPONSE), 0, Waiting;
    /// Sensor readings into the observation.
    RECEIVE = "sensor receive", Some(Stage::RESPONSE), 1, Waiting;
    /// The whole tick, from observation to control.
    TICK = "tick", Some(Stage::RESPONSE), 2, Host;
    /// Inertial, satellite and speed readings to a pose.
    STATE_FILTER = "state filter", Some(Stage::TICK), 0, Host;
    /// A finished refresh becomes the latest prefix.
    PUBLISH = "publish", Some(Stage::TICK), 30, Host;
    /// The input of a due refresh is gathered and sent to the understanding expert.
    REQUEST = "refresh request", Some(Stage::TICK), 40, Host;
    /// Readings to the device (H2D); only where its memory is apart from the host's.
    UPLOAD = "upload", Some(Stage::TICK), 60, Copy;
    /// The heads' outputs to the host (D2H); only where the device's memory is apart from it.
    DOWNLOAD = "download", Some(Stage::TICK), 90, Copy;
    /// Plan to steer, throttle, brake.
    CONTROL = "control", Some(Stage::TICK), 110, Host;
    /// The command on its way to the vehicle.
    SEND = "send", Some(Stage::RESPONSE), 3, Waiting;
    /// The whole refresh, from its request to the sealed prefix.
    REFRESH = "refresh", None, 1, Host;
    /// The refresh waits for the understanding expert's thread to wake up.
    HAND_OFF = "hand-off", Some(Stage::REFRESH), 0, Waiting;
    /// The written slot becomes a snapshot.
    SEAL = "seal", Some(Stage::REFRESH), 90, Host;
}

/// All stages in reading order, with the place of each.
struct Table {
    stages: Vec<Stage>,
    /// By place in [`STAGES`].
    index: [u8; MAX_STAGES],
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let specs: &'static [StageSpec] = &STAGES;
        assert!(specs.len() <= MAX_STAGES, "{} stages, {MAX_STAGES} at most", specs.len());
        let mut stages = Vec::with_capacity(specs.len());
        push_parts(&mut stages, specs, None);
        assert_eq!(stages.len(), specs.len(), "the parent of every stage is listed");
        let mut index = [0; MAX_STAGES];
        for (place, stage) in stages.iter().enumerate() {
            let name = stage.name();
            assert!(!stages[..place].iter().any(|other| other.name() == name), "two {name:?}");
            index[stage.link_index()] = place as u8;
        }
        Table { stages, index }
    })
}

/// Adds the parts of `parent` in order, each followed by its own parts.
fn push_parts(stages: &mut Vec<Stage>, specs: &'static [StageSpec], parent: Option<Stage>) {
    let is_part = |spec: &&StageSpec| match (spec.parent, parent) {
        (None, None) => true,
        (Some(Stage(of)), Some(Stage(parent))) => std::ptr::eq(of, parent),
        _ => false,
    };
    let mut parts: Vec<&'static StageSpec> = specs.iter().filter(is_part).collect();
    parts.sort_by_key(|spec| (spec.order, spec.name));
    for spec in parts {
        stages.push(Stage(spec));
        push_parts(stages, specs, Some(Stage(spec)));
    }
}

impl Stage {
    /// The stage of `spec`, which is an element of [`STAGES`].
    pub const fn of(spec: &'static StageSpec) -> Self {
        Self(spec)
    }

    /// All stages in reading order: a stage stands after its parent.
    pub fn all() -> &'static [Self] {
        &table().stages
    }

    /// Place in [`STAGES`].
    fn link_index(self) -> usize {
        let offset = std::ptr::from_ref(self.0).addr() - STAGES.as_ptr().addr();
        offset / size_of::<StageSpec>()
    }

    /// Place in [`Stage::all`], below [`MAX_STAGES`].
    pub fn index(self) -> usize {
        usize::from(table().index[self.link_index()])
    }

    /// The name that tables and files print.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The stage of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().iter().copied().find(|stage| stage.name() == name)
    }

    /// The stage that this one is a part of.
    pub fn parent(self) -> Option<Self> {
        self.0.parent
    }

    /// What the time is spent on.
    pub fn role(self) -> Role {
        self.0.role
    }

    /// True for stages of either expert's networks.
    pub fn is_network(self) -> bool {
        matches!(self.0.role, Role::FastNetwork | Role::SlowNetwork)
    }

    /// The stages that this one is made of, in reading order.
    pub fn parts(self) -> impl Iterator<Item = Self> {
        Self::all().iter().copied().filter(move |stage| stage.parent() == Some(self))
    }

    /// Whether it begins on one thread and ends on another. All others end where they began, the
    /// last begun first.
    pub fn crosses_threads(self) -> bool {
        self == Self::REFRESH || self == Self::HAND_OFF
    }

    /// Whether statistics count its runs one by one, rather than what all runs of a tick or refresh
    /// took together.
    pub fn counts_runs(self) -> bool {
        self.0.counts_runs
    }

    /// How deep it is nested, from 0.
    pub fn depth(self) -> usize {
        self.parent().map_or(0, |parent| parent.depth() + 1)
    }
}

impl PartialEq for Stage {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Stage {}

impl PartialOrd for Stage {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Stage {
    /// Reading order.
    fn cmp(&self, other: &Self) -> Ordering {
        self.index().cmp(&other.index())
    }
}

impl Hash for Stage {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What each stage took, in one fixed array; a stage that did not run is absent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StageTimes([Option<Duration>; MAX_STAGES]);

impl Default for StageTimes {
    fn default() -> Self {
        Self([None; MAX_STAGES])
    }
}

impl StageTimes {
    /// Notes what `stage` took, over what was noted before.
    pub fn set(&mut self, stage: Stage, took: Duration) {
        self.0[stage.index()] = Some(took);
    }

    /// Adds `took` to what was noted for `stage`.
    pub fn add(&mut self, stage: Stage, took: Duration) {
        let sum = &mut self.0[stage.index()];
        *sum = Some(sum.unwrap_or_default() + took);
    }

    /// What `stage` took, if it ran.
    pub fn took(&self, stage: Stage) -> Option<Duration> {
        self.0[stage.index()]
    }

    /// The part of `stage` that none of its own parts accounts for; `None` if it did not run or none
    /// of its parts did. Below zero where parts overlap.
    pub fn rest_ns(&self, stage: Stage) -> Option<i64> {
        let ns = |took: Duration| took.as_nanos() as i64;
        let parts = stage.parts().filter_map(|part| self.took(part)).map(ns);
        let parts = parts.reduce(|sum, part| sum + part)?;
        Some(ns(self.took(stage)?) - parts)
    }

    /// The stages that ran, in reading order.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::all().iter().copied().filter_map(|stage| Some((stage, self.took(stage)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    stages! {
        /// A network of a tick, as a model family lists one.
        NETWORK = "test network", Some(Stage::TICK), 70, FastNetwork;
        /// Its part, counted run by run.
        PART = "test network part", Some(NETWORK), 0, FastNetwork, each run;
    }

    #[test]
    fn every_stage_has_its_own_place_and_name() {
        for (place, &stage) in Stage::all().iter().enumerate() {
            assert_eq!(stage.index(), place, "{}", stage.name());
            assert_eq!(Stage::named(stage.name()), Some(stage));
        }
    }

    #[test]
    fn a_stage_stands_after_its_parent() {
        for &stage in Stage::all() {
            assert!(stage.parent().is_none_or(|parent| parent < stage), "{}", stage.name());
        }
    }

    #[test]
    fn stages_of_other_crates_stand_among_those_of_the_loop() {
        let parts: Vec<&str> = Stage::TICK.parts().map(|part| part.name()).collect();
        let loop_and_test = [
            "state filter",
            "publish",
            "refresh request",
            "upload",
            "test network",
            "download",
            "control",
        ];
        assert_eq!(parts, loop_and_test);
        assert_eq!(PART.depth(), 3);
    }

    #[test]
    fn the_rest_is_what_no_part_accounts_for() {
        let (network, part) = (NETWORK, PART);
        let mut times = StageTimes::default();
        assert_eq!(times.rest_ns(Stage::TICK), None);
        times.set(Stage::TICK, Duration::from_nanos(100));
        times.set(network, Duration::from_nanos(60));
        times.add(Stage::CONTROL, Duration::from_nanos(10));
        times.add(Stage::CONTROL, Duration::from_nanos(15));
        assert_eq!(times.rest_ns(Stage::TICK), Some(15));
        assert_eq!(times.rest_ns(network), None, "it has no parts here");
        times.add(part, Duration::from_nanos(20));
        times.add(part, Duration::from_nanos(25));
        assert_eq!(times.rest_ns(network), Some(15));
    }
}
