//! A latency file that was not measured.

use std::collections::BTreeMap;
use tandem::pilot::{RealTimeReport, RunFile};
use tandem_profile::{EngineIdentity, FORMAT, LatencyFile, MachineCard, Phase, ProfilerCost};

/// Returns a latency file of `phases` with a synthetic machine, engine and run.
pub fn latency_file(phases: Vec<Phase>) -> LatencyFile {
    LatencyFile {
        format: FORMAT,
        tandem: "0".into(),
        taken_at_unix_s: 1,
        command: "a test".into(),
        machine: MachineCard {
            kernel: None,
            cpu: Some("a processor".into()),
            cores: 2,
            is_virtual: false,
            clocks_mhz: Vec::new(),
            governor: None,
            memory_bytes: None,
            load_1min: None,
            gpus: Vec::new(),
            libraries: Vec::new(),
        },
        engine: EngineIdentity {
            folder: "none".into(),
            backend: "none".into(),
            graphs_sha256: BTreeMap::new(),
            built: BTreeMap::new(),
        },
        run: RunFile::default(),
        observations: "none".into(),
        real_time: RealTimeReport::default(),
        profiler: ProfilerCost { stage_ns: 1, tick_ns: 2, trace_ns: 3, rounds: 1 },
        first_control: None,
        phases,
    }
}
