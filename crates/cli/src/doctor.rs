//! `tandem doctor`: checks which devices and libraries this machine has, and measures its peak
//! rates.

use super::{Outcome, print};
use anyhow::{Context, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem::engine::library::{self, LibrarySearch};
use tandem::engine::onnxruntime::{self, CpuOptions, OnnxRuntime};
use tandem::engine::tensorrt;
use tandem::process::{Program, ProgramOutput};
use tandem_profile::roofline::measure::{self, Measurement, Plan};

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  tandem doctor\n  tandem doctor --measure --out machine.json")]
pub(super) struct Arguments {
    /// Measure the CPU's peak rates of memory and matrix products; takes seconds
    #[arg(long)]
    measure: bool,
    /// Maximum number of threads of the measurement [default: all usable cores]
    #[arg(long, requires = "measure", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Write the measurement with all samples, for `tandem roofline --device measured:FILE`
    #[arg(long, requires = "measure", value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// A device or library that tandem can use.
#[derive(Serialize)]
struct Finding {
    item: &'static str,
    /// Description; `None` if it was not found.
    found: Option<String>,
    /// Features of tandem that it enables.
    allows: &'static str,
    /// Instructions to install it.
    get: &'static str,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    if arguments.measure {
        return measured(arguments);
    }
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
                print::line(&format!("    {:<16} enables: {}", "", finding.allows));
                print::line(&format!("    {:<16} install: {}", "", finding.get));
            }
        }
    }
    Ok(Outcome::Done)
}

fn measured(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let measurement = measure_machine(arguments.threads.map(usize::from))?;
    let json = serde_json::to_string_pretty(&measurement)?;
    if let Some(out) = &arguments.out {
        print::write_file(out, format!("{json}\n").as_bytes())?;
    }
    print::line(&if arguments.json { json } else { describe(&measurement)? });
    Ok(Outcome::Done)
}

/// Measures the peak rates of this machine's CPU with up to `threads` threads, or all usable cores.
pub(super) fn measure_machine(threads: Option<usize>) -> anyhow::Result<Measurement> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let plan = Plan::usual(threads.unwrap_or(cores), last_level_cache_bytes());
    if let Some(available) = memory_bytes("MemAvailable") {
        ensure!(
            plan.buffer_bytes as u64 <= available / 2,
            "measuring memory needs buffers of {:.1} GB, eight times the last-level cache, but only \
             {:.1} GB are available; free some memory and measure again",
            plan.buffer_bytes as f64 / 1e9,
            available as f64 / 1e9,
        );
    }
    let mut machine = machine();
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load = load.as_deref().and_then(|text| text.split(' ').next()).unwrap_or("unknown");
    if load.parse().is_ok_and(|load: f64| load > cores as f64 / 2.0) {
        print::note(&format!(
            "warning: the load average is {load} on {cores} cores; other processes slow the \
             measurement, so the peak rates are too low: measure again on an idle machine"
        ));
    }
    machine.push(("load average before".to_owned(), load.to_owned()));
    measure::measure(&plan, machine, &mut |next| print::note(&format!("measuring: {next}")))
        .context("measuring this machine")
}

/// Formats a measurement as tables.
fn describe(measurement: &Measurement) -> anyhow::Result<String> {
    let peak_rates = measurement.peak_rates(None)?;
    let samples = |best: f64, median: f64, count: usize| {
        [print::three_digits(best), print::three_digits(median), count.to_string()]
    };
    let memory = measurement.memory.iter().map(|m| {
        let numbers =
            samples(m.best_bytes_per_s / 1e9, m.median_bytes_per_s / 1e9, m.seconds.len());
        [vec![m.access.name().to_owned(), m.threads.to_string()], numbers.to_vec()].concat()
    });
    let matrices = measurement.matrices.iter().map(|m| {
        let numbers =
            samples(m.best_flops_per_s / 1e9, m.median_flops_per_s / 1e9, m.seconds.len());
        let what = vec![format!("{} {side} x {side}", m.dtype, side = m.side)];
        [what, vec![m.threads.to_string()], numbers.to_vec()].concat()
    });
    let mut lines: Vec<String> =
        measurement.machine.iter().map(|(name, fact)| format!("{name}: {fact}")).collect();
    lines.extend([
        String::new(),
        print::table(
            &["memory", "threads", "best GB/s", "median GB/s", "passes"],
            &memory.collect::<Vec<_>>(),
        ),
        String::new(),
        print::table(
            &["product", "threads", "best GFLOP/s", "median GFLOP/s", "runs"],
            &matrices.collect::<Vec<_>>(),
        ),
        String::new(),
        format!(
            "on {}, buffers of {:.0} MB",
            measurement.library,
            measurement.buffer_bytes as f64 / 1e6
        ),
        format!("method: {}", measurement.method),
    ]);
    let rates = peak_rates
        .flops_per_s
        .iter()
        .map(|(dtype, rate)| format!("{} GFLOP/s in {dtype}", print::three_digits(rate / 1e9)));
    lines.push(format!(
        "peak rates: {} GB/s, {}",
        print::three_digits(peak_rates.bytes_per_s / 1e9),
        rates.collect::<Vec<_>>().join(", ")
    ));
    lines.extend(measurement.not_measured.iter().map(|what| format!("not measured: {what}")));
    Ok(lines.join("\n"))
}

/// Returns the total size of the last-level caches, bytes; 0 if the system does not report it.
fn last_level_cache_bytes() -> usize {
    let read = |path: &Path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let mut caches = BTreeMap::new();
    let cpus = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    for cpu in cpus {
        // Each CPU lists its caches from the first level to the last.
        let last = (0..)
            .map(|i| cpu.path().join(format!("cache/index{i}")))
            .take_while(|cache| cache.is_dir())
            .last();
        let Some(cache) = last else { continue };
        let kib = read(&cache.join("size"))
            .and_then(|size| size.strip_suffix('K')?.parse::<usize>().ok());
        if let Some(kib) = kib {
            caches.insert(read(&cache.join("shared_cpu_list")), kib * 1024);
        }
    }
    caches.values().sum()
}

/// Returns the facts on this machine for reports.
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
            allows: "estimating which checkpoints fit",
            get: "not available: it is read from /proc/meminfo, which only Linux has",
        },
        Finding {
            item: "GPUs, driver",
            found: gpus(),
            allows: GPU_USE,
            get: "an NVIDIA GPU of compute capability 7.5 or later and its driver (nvidia-smi must run)",
        },
        Finding {
            item: "CUDA runtime",
            found: shared_library(&["libcudart.so.13"]),
            allows: "ONNX Runtime's CUDA execution provider, together with libcublas, libcurand and libcudnn 9",
            get: "the CUDA 13 runtime libraries, from your distribution or the Python package nvidia-cuda-runtime",
        },
        Finding {
            item: "ONNX Runtime",
            found: onnx_runtime(),
            allows: "the CPU back end, the reference for all others",
            get: "tandem downloads it at first use (needs python3 with pip), or set ORT_DYLIB_PATH",
        },
        Finding {
            item: "TensorRT",
            found: tensorrt_enterprise(),
            allows: "engines for the GPU of this machine, including data-center GPUs",
            get: "TensorRT 11 from NVIDIA (TENSORRT_DYLIB_PATH names libnvinfer.so.11), and tandem built with the feature `tensorrt-enterprise`",
        },
        Finding {
            item: "TensorRT-RTX",
            found: tensorrt_rtx(),
            allows: "engines for RTX GPUs, built ahead of time even without a GPU",
            get: "tandem built with the feature `tensorrt` downloads it at first use (needs python3 with pip), or set TENSORRT_RTX_DYLIB_PATH",
        },
        Finding {
            item: "CARLA client",
            found: carla(),
            allows: "no feature yet: tandem drives in its embedded world only",
            get: "the Python package carla 0.9.15, under Python 3.7 to 3.10",
        },
    ]
}

/// Features that a GPU enables in this build.
const GPU_USE: &str = if cfg!(feature = "cuda") {
    "driving and profiling on the GPU (`device: cuda:0` in a run file)"
} else {
    "driving and profiling on the GPU, with a tandem built with the feature `cuda` (this one is not)"
};

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
    let gib = |key: &str| Some(memory_bytes(key)? as f64 / (1_u64 << 30) as f64);
    Some(format!("{:.1} GiB, {:.1} GiB available", gib("MemTotal")?, gib("MemAvailable")?))
}

/// Reads a line of /proc/meminfo, bytes.
fn memory_bytes(key: &str) -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|line| line.starts_with(key))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Time limit of a program that reports versions.
const REPORT_LIMIT: Duration = Duration::from_secs(20);

/// Returns the output of `program`, if it succeeds.
fn output_of(program: &Program, arguments: &[&str]) -> Option<String> {
    let folder = tempfile::tempdir().ok()?;
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    let ended = program.run(&arguments, folder.path(), REPORT_LIMIT, &mut |_| {}).ok()?;
    let ProgramOutput { status, stdout, .. } = ended;
    status.success().then_some(stdout)
}

/// Returns the GPUs with their driver versions; `None` without a GPU.
pub(super) fn gpus() -> Option<String> {
    let query = "--query-gpu=name,driver_version,memory.total,compute_cap";
    let text = output_of(&Program::find("nvidia-smi")?, &[query, "--format=csv,noheader"])?;
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

/// Finds the first of `names` in LD_LIBRARY_PATH or the system's library cache.
fn shared_library(names: &[&str]) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
    let path = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        path.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from).collect();
    let cache = Program::find("ldconfig").unwrap_or_else(|| Program::at("/sbin/ldconfig"));
    let cache = output_of(&cache, &["-p"]);
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
    match library::find(&LibrarySearch::from_environment(onnxruntime::LIBRARY)) {
        Ok(None) => None,
        Err(error) => Some(format!("unusable: {error}")),
        Ok(Some(_)) => match OnnxRuntime::open(CpuOptions::default(), &mut |_| {}) {
            Ok(runtime) => {
                use tandem::engine::Backend;
                Some(format!(
                    "{}, {}, telemetry off ({}=1)",
                    runtime.name(),
                    display(runtime.library()),
                    onnxruntime::telemetry::VARIABLE
                ))
            }
            Err(error) => Some(format!("unusable: {error}")),
        },
    }
}

/// Finds TensorRT 11 by its environment variable, or where the system's loader finds it.
fn tensorrt_enterprise() -> Option<String> {
    let found = match library::find(&LibrarySearch::from_environment(tensorrt::ENTERPRISE)) {
        Ok(found) => found.map(|(path, _)| display(&path)),
        Err(error) => return Some(format!("unusable: {error}")),
    };
    let path = found.or_else(|| shared_library(&["libnvinfer.so.11"]))?;
    if cfg!(feature = "tensorrt-enterprise") {
        return Some(path);
    }
    Some(format!("{path}, but this tandem was built without the feature `tensorrt-enterprise`"))
}

fn tensorrt_rtx() -> Option<String> {
    match library::find(&LibrarySearch::from_environment(tensorrt::RTX)) {
        Ok(found) => found.map(|(path, _)| tensorrt_rtx_at(&path)),
        Err(error) => Some(format!("unusable: {error}")),
    }
}

#[cfg(feature = "tensorrt")]
fn tensorrt_rtx_at(path: &Path) -> String {
    match tensorrt::TensorRt::open_file(path) {
        Ok(library) => format!("{}, {}", library.name(), display(library.library())),
        Err(error) => format!("unusable: {error}"),
    }
}

#[cfg(not(feature = "tensorrt"))]
fn tensorrt_rtx_at(path: &Path) -> String {
    format!("{}, but this tandem was built without the feature `tensorrt`", display(path))
}

fn carla() -> Option<String> {
    let program = "import importlib.metadata as m; print(m.version('carla'))";
    // Not isolated (-I) like pip, because the package may be a user installation. The working
    // folder is empty.
    let version = output_of(&Program::find("python3")?, &["-c", program])?;
    Some(format!("Python package carla {}", version.trim()))
}
