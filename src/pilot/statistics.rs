//! What the pilot counts.

/// Events of one route, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct PilotStatistics {
    /// Ticks answered.
    pub ticks: u64,
    /// Ticks that braked because there was no prefix yet, warm-up included.
    pub ticks_without_prefix: u64,
    /// Ticks whose control came after its budget.
    pub deadline_misses: u64,
    /// Real time: ticks of the world that went by without an answer, which held the command before
    /// and are in no other count.
    #[serde(default)]
    pub ticks_unanswered: u64,
    /// Ticks at which the command, or the plan that is followed, was that of the tick before, because
    /// no newer one was visible.
    pub ticks_held: u64,
    /// Ticks that braked because the trajectory held a NaN or an infinity.
    pub trajectories_not_finite: u64,
    /// Ticks at which the state filter broke down and began anew.
    pub filter_restarts: u64,
    /// Refreshes begun.
    pub refreshes_started: u64,
    /// Refreshes whose prefix was published.
    pub refreshes_published: u64,
    /// Refreshes that ended in an error; the old prefix stayed in use.
    pub refreshes_failed: u64,
    /// Ticks at which a refresh was due while the previous one was still running.
    pub refreshes_delayed: u64,
    /// Ticks at which a refresh was due and every KV slot was taken.
    pub slots_exhausted: u64,
}

impl PilotStatistics {
    /// Adds the counts of another route.
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
