//! `tandem doctor`: what this machine has, and what is missing for what.

use super::{Outcome, print};
use crate::engine::onnxruntime::library::{self, Places};
use crate::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One thing that tandem can use.
#[derive(Serialize)]
struct Finding {
    item: &'static str,
    /// What was found, or `None`.
    found: Option<String>,
    /// What it allows.
    allows: &'static str,
    /// How to get it.
    get: &'static str,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let findings = examine();
    if arguments.json {
        print::line(&serde_json::to_string_pretty(&findings)?);
        return Ok(Outcome::Done);
    }
    print::line(&format!("tandem {}", env!("CARGO_PKG_VERSION")));
    for finding in &findings {
        match &finding.found {
            Some(found) => print::line(&format!("  ✓ {:<16} {found}", finding.item)),
            None => {
                print::line(&format!("  – {:<16} not found", finding.item));
                print::line(&format!("    {:<16} it would allow: {}", "", finding.allows));
                print::line(&format!("    {:<16} to get it: {}", "", finding.get));
            }
        }
    }
    Ok(Outcome::Done)
}

/// The machine in a few lines, for reports.
pub(super) fn machine() -> Vec<(String, String)> {
    let facts = [("CPU", Some(cpu())), ("memory", memory()), ("GPUs, driver", gpus())];
    facts
        .into_iter()
        .map(|(name, fact)| (name.to_owned(), fact.unwrap_or_else(|| "none".to_owned())))
        .collect()
}

fn examine() -> Vec<Finding> {
    vec![
        Finding {
            item: "CPU",
            found: Some(cpu()),
            allows: "the ONNX Runtime CPU back end",
            get: "",
        },
        Finding {
            item: "memory",
            found: memory(),
            allows: "knowing beforehand which checkpoints fit",
            get: "it is read from /proc/meminfo, which only Linux has",
        },
        Finding {
            item: "GPUs, driver",
            found: gpus(),
            allows: "engines on the GPU",
            get: "an NVIDIA GPU of compute capability 7.5 or later and its driver (nvidia-smi must run)",
        },
        Finding {
            item: "CUDA runtime",
            found: shared_library(&["libcudart.so.13", "libcudart.so.12"]),
            allows: "ONNX Runtime's CUDA execution provider",
            get: "the CUDA 13 runtime libraries, from your distribution or the Python package nvidia-cuda-runtime",
        },
        Finding {
            item: "ONNX Runtime",
            found: onnx_runtime(),
            allows: "the CPU back end, the reference for all others",
            get: "tandem fetches it at first use (python3 with pip), or set ORT_DYLIB_PATH",
        },
        Finding {
            item: "TensorRT",
            found: shared_library(&["libnvinfer.so.11", "libnvinfer.so.10"]),
            allows: "engines for Hopper, data-centre GPUs and DRIVE",
            get: "TensorRT 11 from NVIDIA",
        },
        Finding {
            item: "TensorRT-RTX",
            found: shared_library(&["libtensorrt_rtx.so.1"]),
            allows: "engines for RTX GPUs, built ahead of time even without a GPU",
            get: "the Python package tensorrt-rtx-cu13-libs, its folder in LD_LIBRARY_PATH",
        },
        Finding {
            item: "CARLA client",
            found: carla(),
            allows: "driving in CARLA 0.9.15",
            get: "the Python package carla 0.9.15, under Python 3.7 to 3.10",
        },
    ]
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        let line = info.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let flags = field("flags").unwrap_or_default();
    let has = |flag: &str| flags.split(' ').any(|have| have == flag);
    let known = [
        ("avx2", "AVX2"),
        ("avx512f", "AVX-512"),
        ("avx512_bf16", "AVX-512 BF16"),
        ("amx_tile", "AMX"),
    ];
    let names: Vec<&str> =
        known.into_iter().filter(|(flag, _)| has(flag)).map(|(_, name)| name).collect();
    format!(
        "{model}, {cores} cores usable, {}",
        if names.is_empty() { "no AVX2".into() } else { names.join(" ") }
    )
}

fn memory() -> Option<String> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let gib = |key: &str| {
        let line = info.lines().find(|line| line.starts_with(key))?;
        let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / 1024.0 / 1024.0)
    };
    Some(format!("{:.1} GiB, {:.1} GiB available", gib("MemTotal")?, gib("MemAvailable")?))
}

/// GPUs with their drivers, if there are any.
pub(super) fn gpus() -> Option<String> {
    let output = Command::new("nvidia-smi")
        .args(["--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rows: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(", ").collect();
            let [name, driver, memory, capability] = fields.as_slice() else { return None };
            Some(format!("{name} ({memory}, compute capability {capability}), driver {driver}"))
        })
        .collect();
    (!rows.is_empty()).then(|| rows.join("; "))
}

/// The first of `names` in LD_LIBRARY_PATH or the system's library cache.
fn shared_library(names: &[&str]) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
    let path = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        path.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from).collect();
    let cache = ["ldconfig", "/sbin/ldconfig"].iter().find_map(|program| {
        let output = Command::new(program).arg("-p").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    });
    let in_cache = |name: &str| {
        let cache = cache.as_deref()?;
        let line = cache.lines().find(|line| line.trim_start().starts_with(name))?;
        Some(PathBuf::from(line.split_once("=> ")?.1.trim()))
    };
    let in_folders =
        |name: &str| folders.iter().map(|folder| folder.join(name)).find(|p| p.exists());
    let found = names.iter().find_map(|name| in_folders(name).or_else(|| in_cache(name)))?;
    let target = std::fs::canonicalize(&found).unwrap_or(found);
    Some(display(&target))
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

fn onnx_runtime() -> Option<String> {
    match library::find(&Places::from_environment()) {
        Ok(None) => None,
        Err(error) => Some(format!("unusable: {error}")),
        Ok(Some(_)) => match OnnxRuntime::open(CpuOptions::default(), &mut |_| {}) {
            Ok(runtime) => {
                use crate::engine::Backend;
                Some(format!("{}, {}", runtime.name(), display(runtime.library())))
            }
            Err(error) => Some(format!("unusable: {error}")),
        },
    }
}

fn carla() -> Option<String> {
    let program = "import importlib.metadata as m; print(m.version('carla'))";
    let output = Command::new("python3").args(["-c", program]).output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then(|| format!("Python package carla {version}"))
}
