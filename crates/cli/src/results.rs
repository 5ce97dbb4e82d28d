//! Results of the drives of a campaign, as tables and as JSON.

use super::drive::Tally;
use super::progress::Counts;
use super::{Outcome, print};
use std::collections::BTreeMap;
use tandem::pilot::{PilotStatistics, RealTimeReport};
use tandem::timing::{Stage, StageStatistics};
use tandem_evaluation::campaign::{Campaign, HeldElsewhere, Remaining, units};
use tandem_evaluation::scoring::{MergedTable, Record, Safety};
use tandem_files::shortened;

/// Ticks at the start of a route that latency statistics exclude: first runs, caches, page faults.
pub(super) const WARM_UP_TICKS: usize = 40;

/// Results of all drives of a campaign.
pub(super) struct Results {
    pub(super) table: MergedTable,
    /// True if it was stopped before the last drive.
    pub(super) is_cancelled: bool,
    /// Drives claimed by processes of other machines.
    pub(super) elsewhere: Vec<HeldElsewhere>,
    pub(super) counts: Counts,
    /// Latencies of all drives, including earlier ones.
    pub(super) statistics: StageStatistics,
    /// Counters of the pilots of this command's drives.
    pub(super) pilot: Option<PilotStatistics>,
    /// Result of the real-time options.
    pub(super) real_time: RealTimeReport,
    /// Records of finished drives.
    pub(super) records: Vec<Record>,
    /// Number of drives of the campaign, finished or not.
    pub(super) drives_total: usize,
}

impl Results {
    /// Reads the results of all processes from the folder after driving; `remaining` is the rest.
    pub(super) fn collect(
        campaign: &Campaign,
        remaining: Remaining,
        tally: &Tally,
    ) -> anyhow::Result<Self> {
        let table = campaign.table(0)?;
        let mut statistics = StageStatistics::new();
        let mut records = Vec::new();
        for unit in units(1, campaign.repetitions, campaign.routes.len()) {
            let id = campaign.route_id(unit);
            let record = table.records().find(|record| record.route_id == id);
            let Some(record) = record else { continue };
            let log = campaign.read_log(unit)?;
            statistics.merge(&log.statistics(WARM_UP_TICKS));
            records.push(record.clone());
        }
        Ok(Self {
            drives_total: table.total(),
            table,
            is_cancelled: remaining.is_cancelled,
            elsewhere: remaining.elsewhere,
            counts: tally.counts(),
            statistics,
            pilot: tally.pilot,
            real_time: tally.real_time.clone(),
            records,
        })
    }

    /// Returns the score table, notes on routes and the one-line summary.
    pub(super) fn scores(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .records
            .iter()
            .map(|record| {
                vec![
                    shortened(&record.route_id),
                    record.status.clone(),
                    format!("{:.2}", record.scores.score_route.value()),
                    format!("{:.3}", record.scores.score_penalty),
                    format!("{:.2}", record.scores.score_composed),
                    record.infractions.costly_count().to_string(),
                    format!("{:.1}", record.meta.duration_game),
                ]
            })
            .collect();
        let header =
            ["route", "status", "completion %", "penalty", "score", "infractions", "game s"];
        let mut notes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for record in &self.records {
            for note in &record.notes {
                notes.entry(note).or_default().push(shortened(&record.route_id));
            }
        }
        let notes = notes.iter().fold(String::new(), |out, (note, routes)| {
            format!("{out}{}: {note}\n", routes.join(", "))
        });
        format!("{}\n{notes}{}", print::table(&header, &rows), self.table)
    }

    /// Returns the table of safety counters, which scores do not show, if a drive has any.
    pub(super) fn safety_table(&self) -> Option<String> {
        let with = self.records.iter().filter_map(|record| Some((record, record.safety?)));
        let rows: Vec<Vec<String>> = with
            .map(|(record, safety)| {
                let counts = [
                    safety.commands_held,
                    safety.answers_not_finite,
                    safety.prefills_failed,
                    safety.filter_restarts,
                ];
                let ages = [safety.oldest_prefix_s, safety.oldest_camera_s, safety.oldest_lidar_s];
                let counts = counts.map(|count| count.to_string());
                let ages = ages.map(|age| format!("{age:.2}"));
                [&[record.route_id.clone()][..], &counts, &ages].concat()
            })
            .collect();
        let header = [
            "route",
            "held",
            "not finite",
            "prefills failed",
            "filter restarts",
            "oldest prefix s",
            "oldest camera s",
            "oldest LiDAR s",
        ];
        (!rows.is_empty()).then(|| print::table(&header, &rows))
    }

    /// Returns the safety counters over all drives.
    pub(super) fn safety(&self) -> Safety {
        total_safety(&self.records)
    }

    /// Returns one line with the origins of the results and the drives that ended by a software
    /// failure.
    pub(super) fn origins(&self) -> String {
        let Counts { kept, driven, workers_died } = self.counts;
        let (crashed, failed) = (self.ended("Simulation crashed"), self.ended("Agent crashed"));
        let others = self.table.finished.saturating_sub(kept + driven);
        let timed_out = match self.ended("Wall-time limit") {
            0 => String::new(),
            drives => format!(", {drives} by --route-timeout"),
        };
        format!(
            "{driven} driven now, {kept} kept from earlier runs, {others} by other processes; \
             {workers_died} workers died now; of all drives, {crashed} failed by crashes of workers, \
             {failed} by driver errors{timed_out}"
        )
    }

    /// Returns the number of drives with `text` in their status.
    fn ended(&self, text: &str) -> usize {
        self.records.iter().filter(|record| record.status.contains(text)).count()
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        let stages: BTreeMap<&str, _> = Stage::all()
            .iter()
            .copied()
            .filter_map(|stage| Some((stage.name(), self.statistics.stage(stage).summary()?)))
            .collect();
        serde_json::json!({
            "results": self.table,
            "campaign": {
                "finished": self.table.finished,
                "total": self.table.total(),
                "kept": self.counts.kept,
                "driven": self.counts.driven,
                "workers_died": self.counts.workers_died,
                "simulation_crashed": self.ended("Simulation crashed"),
                "driver_failed": self.ended("Agent crashed"),
                "wall_time_limit": self.ended("Wall-time limit"),
                "held_elsewhere": self.elsewhere.iter().map(|h| &h.route_id).collect::<Vec<_>>(),
            },
            "is_interrupted": self.is_cancelled,
            "latency": {
                "percentiles": "nearest rank over ticks after warm-up",
                "warm_up_ticks": WARM_UP_TICKS,
                "ticks": self.statistics.ticks(),
                "deadline_misses": self.statistics.deadline_misses(),
                "ticks_without_prefix": self.statistics.ticks_without_prefix(),
                "stages": stages,
                "prefix_age": self.statistics.prefix_age().summary(),
            },
            "safety": self.safety(),
            "pilot": self.pilot,
            "real_time": self.real_time,
        })
    }
}

/// Returns the sums of counters and the maximum ages over `records`.
pub(super) fn total_safety(records: &[Record]) -> Safety {
    let mut total = Safety::default();
    records.iter().filter_map(|record| record.safety).for_each(|safety| total.add(&safety));
    total
}

/// Prints the faults of the model during the drives, if any: their scores are of a broken model.
pub(super) fn check_safety(safety: &Safety) -> Outcome {
    match safety.faults() {
        None => Outcome::Done,
        Some(faults) => {
            print::note(&format!(
                "check failed: {faults}: these scores are those of a broken model; check its weights \
                 (tandem verify) and the sensor readings"
            ));
            Outcome::CheckFailed
        }
    }
}

/// Formats the latencies per stage.
pub(super) fn latency_table(statistics: &StageStatistics) -> String {
    let rows: Vec<Vec<String>> = Stage::all()
        .iter()
        .copied()
        .filter_map(|stage| {
            let summary = statistics.stage(stage).summary()?;
            let misses = if stage == Stage::TICK {
                statistics.deadline_misses().to_string()
            } else {
                String::new()
            };
            let [p50, p99, max] =
                [summary.p50_ns, summary.p99_ns, summary.max_ns].map(print::millis);
            Some(vec![stage.name().to_owned(), summary.count.to_string(), p50, p99, max, misses])
        })
        .collect();
    format!(
        "{}\nnearest-rank percentiles, without the first {WARM_UP_TICKS} ticks of each route",
        print::table(&["stage", "count", "p50 ms", "p99 ms", "max ms", "misses"], &rows)
    )
}

/// Formats the age of the prefix KV cache that ticks used, as one line.
pub(super) fn prefix_age_line(statistics: &StageStatistics) -> String {
    let without = statistics.ticks_without_prefix();
    match statistics.prefix_age().summary() {
        None => "no tick had a prefix".to_owned(),
        Some(age) => format!(
            "prefix age: p50 {} ms, p99 {} ms, max {} ms over {} ticks; {without} ticks without a prefix",
            print::millis(age.p50_ns),
            print::millis(age.p99_ns),
            print::millis(age.max_ns),
            age.count
        ),
    }
}
