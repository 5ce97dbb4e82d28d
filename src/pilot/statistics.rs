//! Counters of the pilot.

/// Counters of one or several routes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct PilotStatistics {
    pub ticks: u64,
    /// Ticks that braked because no prefix was published yet, including warm-up.
    pub ticks_without_prefix: u64,
    /// Ticks whose command missed its deadline.
    pub deadline_misses: u64,
    /// Real time: simulation ticks without a control tick, which kept the last command;
    /// included in no other counter.
    #[serde(default)]
    pub ticks_unanswered: u64,
    /// Ticks that reused the command, or the plan being followed, of the previous tick, because
    /// no newer result was visible.
    pub ticks_held: u64,
    /// Ticks that braked because the trajectory contained a NaN or an infinity.
    pub trajectories_not_finite: u64,
    /// Restarts of the state filter.
    pub filter_restarts: u64,
    pub refreshes_started: u64,
    /// Prefills whose prefix was published.
    pub refreshes_published: u64,
    /// Prefills that failed; the previous prefix stayed in use.
    pub refreshes_failed: u64,
    /// Ticks at which a prefill was due while the previous one was running.
    pub refreshes_delayed: u64,
    /// Ticks at which a prefill was due and no KV slot was free.
    pub slots_exhausted: u64,
}

impl PilotStatistics {
    /// Adds the counters of another route.
    pub fn add(&mut self, other: &Self) {
        self.ticks += other.ticks;
        self.ticks_without_prefix += other.ticks_without_prefix;
        self.deadline_misses += other.deadline_misses;
        self.ticks_unanswered += other.ticks_unanswered;
        self.ticks_held += other.ticks_held;
        self.trajectories_not_finite += other.trajectories_not_finite;
        self.filter_restarts += other.filter_restarts;
        self.refreshes_started += other.refreshes_started;
        self.refreshes_published += other.refreshes_published;
        self.refreshes_failed += other.refreshes_failed;
        self.refreshes_delayed += other.refreshes_delayed;
        self.slots_exhausted += other.slots_exhausted;
    }
}
