//! Latencies of a profile, for drives that emulate its machine.

use super::latency_file::{LatencyFile, Phase, PhaseName, StageColumn};
use super::page::head::date;
use std::collections::BTreeMap;
use tandem::pilot::RecordedLatencies;
use tandem::timing::Stage;

impl LatencyFile {
    /// Returns the durations of prefills and ticks in order, from the phase `paced` or else
    /// `back_to_back`, in which both experts run. The latency of a tick is its response, or the tick
    /// itself if there is no response.
    pub fn recorded_latencies(&self) -> RecordedLatencies {
        let both = [PhaseName::Paced, PhaseName::BackToBack];
        let phases = both.into_iter().filter_map(|name| self.phase(name));
        let of = |phase: &Phase| RecordedLatencies {
            slow_ns: took(&phase.refreshes.stages, Stage::PREFILL),
            fast_ns: match took(&phase.ticks.stages, Stage::RESPONSE) {
                none if none.is_empty() => took(&phase.ticks.stages, Stage::TICK),
                responses => responses,
            },
        };
        let recorded: Vec<RecordedLatencies> = phases.map(of).collect();
        let has_both = |of: &&RecordedLatencies| !of.slow_ns.is_empty() && !of.fast_ns.is_empty();
        recorded.iter().find(has_both).or(recorded.first()).cloned().unwrap_or_default()
    }

    /// Returns machine and date of the profile, for reports of drives that emulate it.
    pub fn emulated_hardware(&self) -> String {
        let processor = self.machine.cpu.as_deref().unwrap_or("an unnamed CPU");
        let hardware = match self.run.device {
            tandem::pilot::DeviceName::Cuda(ordinal) => {
                let gpu = self.machine.gpus.get(ordinal).or(self.machine.gpus.first());
                gpu.map_or(processor, String::as_str)
            }
            _ => processor,
        };
        format!("emulated hardware: {hardware}, recorded on {}", date(self.taken_at_unix_s))
    }
}

fn took(stages: &BTreeMap<String, StageColumn>, stage: Stage) -> Vec<u64> {
    stages
        .get(stage.name())
        .map_or(Vec::new(), |column| column.took_ns.iter().flatten().copied().collect())
}
