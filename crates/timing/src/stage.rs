//! Named stages of a tick and of a prefill.
//!
//! This crate lists the stages of the control loop. Each model family adds its own stages to
//! [`STAGES`], so that tables, pages and files can show them without depending on a family.

use linkme::distributed_slice;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;
use std::time::Duration;

/// Maximum number of stages that one program may link.
pub const MAX_STAGES: usize = 48;

/// Every stage of this program, in no particular order: the stages of the loop and those that
/// model families add with [`stages!`](crate::stages!).
#[distributed_slice]
pub static STAGES: [StageSpec];

/// Entry of a stage in [`STAGES`].
#[derive(Debug)]
pub struct StageSpec {
    /// Unique name, as printed in tables and files.
    pub name: &'static str,
    pub parent: Option<Stage>,
    /// Sort key among the parts of the parent, in reading order.
    pub order: u8,
    pub role: Role,
    /// True if statistics record single runs instead of their sum per tick or prefill.
    pub counts_runs: bool,
}

/// Kind of work that a stage does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Host,
    /// Network that runs at every tick.
    FastNetwork,
    /// Network that runs at every prefill.
    SlowNetwork,
    /// Copies between host and device.
    Copy,
    /// Waiting for a thread, a sensor or the vehicle.
    Waiting,
}

/// A timed part of the loop, listed in [`STAGES`].
#[derive(Clone, Copy)]
pub struct Stage(&'static StageSpec);

/// Adds the stages of a model family to [`STAGES`] and defines a constant for each:
///
/// ```
/// use tandem_timing::Stage;
/// tandem_timing::stages! {
///     /// Planning network.
///     pub PLAN = "plan", Some(Stage::TICK), 70, FastNetwork;
/// }
/// assert_eq!(Stage::named("plan"), Some(PLAN));
/// ```
///
/// Each line has name, parent, sort key among the parent's parts and [`Role`]; a final `each run`
/// sets [`StageSpec::counts_runs`].
#[macro_export]
macro_rules! stages {
    ($($(#[$doc:meta])* $vis:vis $name:ident = $text:literal, $parent:expr, $order:literal,
        $role:ident $(, each $run:ident)?;)*) => {
        $($(#[$doc])* $vis const $name: $crate::Stage =
            $crate::listed_stage!($text, $parent, $order, $role $(, each $run)?);)*
    };
}

/// Defines one element of [`STAGES`]; used by [`stages!`].
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

/// Defines the stages of the loop itself.
macro_rules! loop_stages {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $parent:expr, $order:literal, $role:ident;)*) => {
        impl Stage {
            $($(#[$doc])* pub const $name: Self = listed_stage!($text, $parent, $order, $role);)*
        }
    };
}

loop_stages! {
    /// From the instant at which a tick is due until its command is sent; only in real-time loops.
    RESPONSE = "response", None, 0, Host;
    /// Delay from the instant at which the tick is due until the loop wakes up.
    WAKE = "wake-up", Some(Stage::RESPONSE), 0, Waiting;
    /// Copying sensor readings into the observation.
    RECEIVE = "sensor receive", Some(Stage::RESPONSE), 1, Waiting;
    /// The complete tick, from observation to control.
    TICK = "tick", Some(Stage::RESPONSE), 2, Host;
    /// Pose estimation from inertial, satellite and speed readings.
    STATE_FILTER = "state filter", Some(Stage::TICK), 0, Host;
    /// Publishing the prefix of a finished prefill.
    PUBLISH = "publish", Some(Stage::TICK), 30, Host;
    /// Collecting the input of a due prefill and sending it to the understanding expert.
    REQUEST = "refresh request", Some(Stage::TICK), 40, Host;
    /// Copying readings to the device (H2D); only for devices with separate memory.
    UPLOAD = "upload", Some(Stage::TICK), 60, Copy;
    /// Copying head outputs to the host (D2H); only for devices with separate memory.
    DOWNLOAD = "download", Some(Stage::TICK), 90, Copy;
    /// Conversion of the plan to steer, throttle and brake.
    CONTROL = "control", Some(Stage::TICK), 110, Host;
    /// Sending the command to the vehicle.
    SEND = "send", Some(Stage::RESPONSE), 3, Waiting;
    /// The complete prefill, from its request to the sealed prefix.
    PREFILL = "refresh", None, 1, Host;
    /// Waiting for the understanding expert's thread to wake up.
    HAND_OFF = "hand-off", Some(Stage::PREFILL), 0, Waiting;
    /// Sealing the written slot into a snapshot.
    SEAL = "seal", Some(Stage::PREFILL), 90, Host;
}

/// All stages in reading order, and the position of each.
struct Table {
    stages: Vec<Stage>,
    /// Position in `stages`, by index in [`STAGES`].
    index: [u8; MAX_STAGES],
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let specs: &'static [StageSpec] = &STAGES;
        assert!(specs.len() <= MAX_STAGES, "{} stages, at most {MAX_STAGES}", specs.len());
        let mut stages = Vec::with_capacity(specs.len());
        push_parts(&mut stages, specs, None);
        assert_eq!(stages.len(), specs.len(), "the parent of a stage is not listed");
        let mut index = [0; MAX_STAGES];
        for (place, stage) in stages.iter().enumerate() {
            let name = stage.name();
            assert!(
                !stages[..place].iter().any(|other| other.name() == name),
                "two stages named {name:?}"
            );
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
    /// Returns the stage of `spec`, which must be an element of [`STAGES`].
    pub const fn of(spec: &'static StageSpec) -> Self {
        Self(spec)
    }

    /// Returns all stages in reading order; a stage follows its parent.
    pub fn all() -> &'static [Self] {
        &table().stages
    }

    /// Returns the index of the entry in [`STAGES`].
    fn link_index(self) -> usize {
        let offset = std::ptr::from_ref(self.0).addr() - STAGES.as_ptr().addr();
        offset / size_of::<StageSpec>()
    }

    /// Returns the index in [`Stage::all`], below [`MAX_STAGES`].
    pub fn index(self) -> usize {
        usize::from(table().index[self.link_index()])
    }

    /// Returns the name, as printed in tables and files.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Returns the stage with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().iter().copied().find(|stage| stage.name() == name)
    }

    /// Returns the stage that this one is a part of.
    pub fn parent(self) -> Option<Self> {
        self.0.parent
    }

    /// Returns the kind of work that the stage does.
    pub fn role(self) -> Role {
        self.0.role
    }

    /// Returns true for stages of either expert's networks.
    pub fn is_network(self) -> bool {
        matches!(self.0.role, Role::FastNetwork | Role::SlowNetwork)
    }

    /// Returns the parts of this stage, in reading order.
    pub fn parts(self) -> impl Iterator<Item = Self> {
        Self::all().iter().copied().filter(move |stage| stage.parent() == Some(self))
    }

    /// Returns true if the stage begins on one thread and ends on another. All other stages end on
    /// the thread on which they began, in reverse order of their beginnings.
    pub fn crosses_threads(self) -> bool {
        self == Self::PREFILL || self == Self::HAND_OFF
    }

    /// Returns true if statistics record single runs instead of their sum per tick or prefill.
    pub fn counts_runs(self) -> bool {
        self.0.counts_runs
    }

    /// Returns the nesting depth, 0 for stages without a parent.
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

/// Duration of each stage in a fixed-size array; `None` for stages that did not run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StageTimes([Option<Duration>; MAX_STAGES]);

impl Default for StageTimes {
    fn default() -> Self {
        Self([None; MAX_STAGES])
    }
}

impl StageTimes {
    /// Sets the duration of `stage`, replacing an earlier value.
    pub fn set(&mut self, stage: Stage, took: Duration) {
        self.0[stage.index()] = Some(took);
    }

    /// Adds `took` to the duration of `stage`.
    pub fn add(&mut self, stage: Stage, took: Duration) {
        let sum = &mut self.0[stage.index()];
        *sum = Some(sum.unwrap_or_default() + took);
    }

    /// Returns the duration of `stage`; `None` if it did not run.
    pub fn took(&self, stage: Stage) -> Option<Duration> {
        self.0[stage.index()]
    }

    /// Returns the duration of `stage` minus that of its parts, negative if parts overlap; `None`
    /// if the stage or all of its parts did not run.
    pub fn rest_ns(&self, stage: Stage) -> Option<i64> {
        let ns = |took: Duration| took.as_nanos() as i64;
        let parts = stage.parts().filter_map(|part| self.took(part)).map(ns);
        let parts = parts.reduce(|sum, part| sum + part)?;
        Some(ns(self.took(stage)?) - parts)
    }

    /// Returns the stages that ran with their durations, in reading order.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::all().iter().copied().filter_map(|stage| Some((stage, self.took(stage)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    stages! {
        /// A network of a tick, as a model family defines it.
        NETWORK = "test network", Some(Stage::TICK), 70, FastNetwork;
        /// A part of it, counted per run.
        PART = "test network part", Some(NETWORK), 0, FastNetwork, each run;
    }

    #[test]
    fn stage_index_and_name_are_unique() {
        for (place, &stage) in Stage::all().iter().enumerate() {
            assert_eq!(stage.index(), place, "{}", stage.name());
            assert_eq!(Stage::named(stage.name()), Some(stage));
        }
    }

    #[test]
    fn stage_follows_its_parent() {
        for &stage in Stage::all() {
            assert!(stage.parent().is_none_or(|parent| parent < stage), "{}", stage.name());
        }
    }

    #[test]
    fn stages_of_other_crates_are_sorted_into_the_loop() {
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
    fn rest_is_duration_minus_parts() {
        let (network, part) = (NETWORK, PART);
        let mut times = StageTimes::default();
        assert_eq!(times.rest_ns(Stage::TICK), None);
        times.set(Stage::TICK, Duration::from_nanos(100));
        times.set(network, Duration::from_nanos(60));
        times.add(Stage::CONTROL, Duration::from_nanos(10));
        times.add(Stage::CONTROL, Duration::from_nanos(15));
        assert_eq!(times.rest_ns(Stage::TICK), Some(15));
        assert_eq!(times.rest_ns(network), None, "none of its parts ran");
        times.add(part, Duration::from_nanos(20));
        times.add(part, Duration::from_nanos(25));
        assert_eq!(times.rest_ns(network), Some(15));
    }
}
