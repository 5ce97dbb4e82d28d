//! The machine card: properties of the machine on which latencies depend.

use serde::{Deserialize, Serialize};
use std::fs;

/// Machine on which a profile was taken. `None` if the system does not report a value.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineCard {
    /// Operating system and kernel version.
    pub kernel: Option<String>,
    pub cpu: Option<String>,
    /// Number of logical cores that this process may use.
    pub cores: usize,
    /// True if the processor reports a hypervisor.
    pub is_virtual: bool,
    /// Current clock of each core as reported by the kernel, MHz.
    pub clocks_mhz: Vec<f64>,
    /// Frequency governor of the first core.
    pub governor: Option<String>,
    pub memory_bytes: Option<u64>,
    /// Load average over one minute at the start of the profile, which shows other work.
    pub load_1min: Option<f64>,
    /// GPUs with drivers and clocks; empty without GPUs.
    pub gpus: Vec<String>,
    /// Libraries that ran the networks, with versions.
    pub libraries: Vec<String>,
}

impl MachineCard {
    /// Returns the current card of this machine. `gpus` and `libraries` are provided by the caller.
    pub fn read(gpus: Vec<String>, libraries: Vec<String>) -> Self {
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let of = |key: &str| -> Vec<String> {
            let lines = cpu_info.lines().filter_map(|line| line.split_once(':'));
            lines.filter(|(name, _)| name.trim() == key).map(|(_, v)| v.trim().to_owned()).collect()
        };
        let text = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let memory_kib = text("/proc/meminfo").and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        Self {
            kernel: text("/proc/version")
                .map(|version| version.split_whitespace().take(3).collect::<Vec<_>>().join(" ")),
            cpu: of("model name").into_iter().next(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            is_virtual: of("flags").iter().any(|flags| flags.split(' ').any(|f| f == "hypervisor")),
            clocks_mhz: of("cpu MHz").iter().filter_map(|mhz| mhz.parse().ok()).collect(),
            governor: text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_bytes: memory_kib.map(|kib| kib * 1024),
            load_1min: text("/proc/loadavg")
                .and_then(|text| text.split_whitespace().next()?.parse().ok()),
            gpus,
            libraries,
        }
    }

    /// Returns the card as pairs of name and value, for pages and tables.
    pub fn facts(&self) -> Vec<(String, String)> {
        let unknown = || "unknown".to_owned();
        let clocks = match self.clocks_mhz.as_slice() {
            [] => unknown(),
            all => {
                all.iter().map(|mhz| format!("{mhz:.0}")).collect::<Vec<_>>().join(", ") + " MHz"
            }
        };
        let virtual_note = if self.is_virtual { ", virtual machine" } else { "" };
        [
            ("CPU", self.cpu.clone().unwrap_or_else(unknown)),
            ("cores", format!("{}{virtual_note}", self.cores)),
            ("clocks", clocks),
            ("governor", self.governor.clone().unwrap_or_else(unknown)),
            (
                "memory",
                self.memory_bytes.map_or_else(unknown, |bytes| {
                    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
                }),
            ),
            ("load at the start", self.load_1min.map_or_else(unknown, |load| load.to_string())),
            ("kernel", self.kernel.clone().unwrap_or_else(unknown)),
            ("GPUs", if self.gpus.is_empty() { "none".to_owned() } else { self.gpus.join("; ") }),
            ("libraries", self.libraries.join("; ")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
