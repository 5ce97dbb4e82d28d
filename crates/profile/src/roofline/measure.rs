//! Measurement of this CPU's peak rates: memory by reading and copying buffers far larger than the
//! caches, matrix units by products on the ONNX Runtime back end.

use super::peak_rates::{PeakRates, Source};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;
use std::path::PathBuf;
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime, OpenError};
use tandem::engine::{Backend, LoadError, NetworkFile, SessionRunError};
use tandem::tensor::{DType, HostTensor};
use tandem::timing::{Stopwatch, wall_time_unix_s};
use tandem_export::contract::{self, Contract};
use tandem_export::cost::{CostError, network_cost};
use tandem_export::graph::{Graph, Source as Bytes};
use tandem_export::onnx::{
    DataType, GraphProto, IR_VERSION, ModelProto, OPSET, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};

/// Format of [`Measurement`]; readers reject other formats.
pub const FORMAT: u32 = 1;

/// Description of the method, stored in every [`Measurement`].
const METHOD: &str = "memory: each thread sums (read) or copies (copy) its own part of buffers far \
    larger than the caches, after one pass that is not timed; a copied byte counts twice, as read \
    and as written; the time includes starting the threads. matrices: square single-precision \
    products with a constant factor on the ONNX Runtime back end, after one run that is not timed. \
    Peak rates are the best samples.";

/// Settings of a measurement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Thread counts, each measured separately.
    pub threads: Vec<usize>,
    /// Total size of all buffers, bytes.
    pub buffer_bytes: usize,
    /// Timed passes over the buffers per thread count.
    pub passes: usize,
    /// Numbers of rows of the square matrices.
    pub matrix_sides: Vec<usize>,
    /// Timed products per side and thread count.
    pub products: usize,
}

impl Plan {
    /// Returns settings that take seconds on a machine with `cores` cores and `cache_bytes` of
    /// last-level cache. Thread counts double from one to all cores.
    pub fn usual(cores: usize, cache_bytes: usize) -> Self {
        let doubled = std::iter::successors(Some(1), |threads| Some(threads * 2));
        Self {
            threads: doubled.take_while(|&threads| threads < cores).chain([cores]).collect(),
            buffer_bytes: (8 * cache_bytes).max(512 << 20),
            passes: 9,
            matrix_sides: vec![1024, 2048],
            products: 7,
        }
    }
}

/// Access pattern of a memory measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    Read,
    Copy,
}

impl Access {
    /// Returns the name, as printed in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Copy => "copy",
        }
    }
}

/// Samples of passes over memory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemorySamples {
    pub access: Access,
    pub threads: usize,
    /// Bytes that one pass moves.
    pub bytes: u64,
    pub best_bytes_per_s: f64,
    pub median_bytes_per_s: f64,
    /// Duration of every pass in order, seconds.
    pub seconds: Vec<f64>,
}

/// Samples of matrix products.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixSamples {
    pub dtype: DType,
    pub threads: usize,
    /// Number of rows and of columns of both factors.
    pub side: usize,
    /// Operations of one product; a multiply-add is two.
    pub flops: u64,
    pub best_flops_per_s: f64,
    pub median_flops_per_s: f64,
    /// Duration of every product in order, seconds.
    pub seconds: Vec<f64>,
}

/// Measured peak rates of a machine with every sample; content of the file that `tandem doctor
/// --measure --out` writes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// [`FORMAT`] at the time of writing.
    pub format: u32,
    /// Facts about the machine, name and value.
    pub machine: Vec<(String, String)>,
    /// Time of the measurement, seconds since the Unix epoch.
    pub measured_at_unix_s: u64,
    pub tandem: String,
    /// Library that ran the products, with version.
    pub library: String,
    pub method: String,
    /// Total size of all buffers, bytes.
    pub buffer_bytes: usize,
    pub memory: Vec<MemorySamples>,
    pub matrices: Vec<MatrixSamples>,
    /// Rates that were not measured, with the reason.
    pub not_measured: Vec<String>,
}

/// Error returned when a machine cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    #[error("nothing to measure: {what} is empty or zero")]
    Empty {
        /// Field of the plan, as in the source.
        what: &'static str,
    },
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Run(#[from] SessionRunError),
    #[error(transparent)]
    Cost(#[from] CostError),
}

/// Error returned when a measurement contains no usable peak rates.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum MeasurementError {
    #[error("measurement has format {found}, but this version reads {FORMAT}; measure again")]
    Format { found: u32 },
    /// A rate is missing or not a positive number.
    #[error("the measurement has no usable {what}; measure again")]
    MissingRate { what: &'static str },
}

/// Measures this machine and reports each step to `progress`.
///
/// # Errors
/// The plan is empty, a thread does not start, or the ONNX Runtime back end fails.
pub fn measure(
    plan: &Plan,
    machine: Vec<(String, String)>,
    progress: &mut dyn FnMut(&str),
) -> Result<Measurement, MeasureError> {
    let numbers = [
        ("threads", plan.threads.iter().copied().min().unwrap_or(0)),
        ("buffer_bytes", plan.buffer_bytes / size_of::<u64>() / 2),
        ("passes", plan.passes),
        ("matrix_sides", plan.matrix_sides.iter().copied().min().unwrap_or(0)),
        ("products", plan.products),
    ];
    if let Some((what, _)) = numbers.into_iter().find(|(_, number)| *number == 0) {
        return Err(MeasureError::Empty { what });
    }

    let mut memory = Vec::new();
    let words = plan.buffer_bytes / size_of::<u64>() / 2;
    // Initialized so that every page is allocated.
    let (from, mut to) = (vec![1_u64; words], vec![2_u64; words]);
    for &threads in &plan.threads {
        progress(&format!("memory, threads: {threads}"));
        memory.push(read_memory(&from, &to, threads, plan.passes)?);
        memory.push(copy_memory(&from, &mut to, threads, plan.passes)?);
    }
    drop((from, to));

    let mut library = String::new();
    let mut matrices = Vec::new();
    for &threads in &plan.threads {
        let options = CpuOptions { threads, prepack: true };
        let backend = OnnxRuntime::open(options, progress)?;
        library = backend.name();
        for &side in &plan.matrix_sides {
            progress(&format!("products of side {side}, threads: {threads}"));
            matrices.push(multiply(&backend, threads, side, plan.products)?);
        }
    }
    Ok(Measurement {
        format: FORMAT,
        machine,
        measured_at_unix_s: wall_time_unix_s(),
        tandem: env!("CARGO_PKG_VERSION").to_owned(),
        library,
        method: METHOD.to_owned(),
        buffer_bytes: plan.buffer_bytes,
        memory,
        matrices,
        not_measured: vec![
            "GPUs: only the CPU is measured; `tandem roofline --device NAME` has datasheet rates"
                .to_owned(),
            "bf16 and f16: the CPU back end computes its networks in f32".to_owned(),
        ],
    })
}

impl Measurement {
    /// Returns the peak rates for a network on `threads` threads, or for the complete machine:
    /// the best sample of memory, and of products in each element type. A thread count that was
    /// not measured gets the rates of the next larger one, or of the largest: a peak rate may be
    /// too high, but not too low.
    ///
    /// # Errors
    /// The measurement has another format, or lacks a positive rate.
    pub fn peak_rates(&self, threads: Option<usize>) -> Result<PeakRates, MeasurementError> {
        if self.format != FORMAT {
            return Err(MeasurementError::Format { found: self.format });
        }
        let is_rate = |rate: f64| rate.is_finite() && rate > 0.0;
        let counts = || self.memory.iter().map(|samples| samples.threads);
        let threads = threads.and_then(|threads| {
            counts().filter(|&count| count >= threads).min().or_else(|| counts().max())
        });
        let is_of_threads = |count: usize| threads.is_none_or(|threads| threads == count);
        let mut bytes_per_s = 0.0_f64;
        for samples in self.memory.iter().filter(|samples| is_of_threads(samples.threads)) {
            if !is_rate(samples.best_bytes_per_s) {
                return Err(MeasurementError::MissingRate { what: "memory rate" });
            }
            bytes_per_s = bytes_per_s.max(samples.best_bytes_per_s);
        }
        let mut flops_per_s = BTreeMap::new();
        for samples in self.matrices.iter().filter(|samples| is_of_threads(samples.threads)) {
            if !is_rate(samples.best_flops_per_s) {
                return Err(MeasurementError::MissingRate { what: "matrix rate" });
            }
            let best: &mut f64 = flops_per_s.entry(samples.dtype).or_default();
            *best = best.max(samples.best_flops_per_s);
        }
        if bytes_per_s == 0.0 {
            return Err(MeasurementError::MissingRate { what: "memory rate" });
        }
        if flops_per_s.is_empty() {
            return Err(MeasurementError::MissingRate { what: "matrix rate" });
        }
        let machine =
            self.machine.iter().map(|(name, fact)| format!("{name}: {fact}")).collect::<Vec<_>>();
        Ok(PeakRates {
            name: self.machine.first().map_or("this machine", |(_, fact)| fact).to_owned(),
            threads,
            bytes_per_s,
            flops_per_s,
            source: Source::Measured { machine: machine.join("; "), method: self.method.clone() },
        })
    }
}

fn read_memory(
    from: &[u64],
    to: &[u64],
    threads: usize,
    passes: usize,
) -> Result<MemorySamples, MeasureError> {
    let mut parts = parts(from, threads).zip(parts(to, threads)).collect::<Vec<_>>();
    let sum = |words: &[u64]| words.iter().fold(0_u64, |sum, &word| sum.wrapping_add(word));
    let pass = |(first, second): &mut (&[u64], &[u64])| {
        black_box(sum(first).wrapping_add(sum(second)));
    };
    let bytes = (size_of_val(from) + size_of_val(to)) as u64;
    let seconds = timed(&mut parts, passes, pass)?;
    Ok(memory_samples(Access::Read, threads, bytes, seconds))
}

fn copy_memory(
    from: &[u64],
    to: &mut [u64],
    threads: usize,
    passes: usize,
) -> Result<MemorySamples, MeasureError> {
    let bytes = 2 * size_of_val(from) as u64;
    let per_thread = from.len().div_ceil(threads);
    let mut parts = parts(from, threads).zip(to.chunks_mut(per_thread)).collect::<Vec<_>>();
    let pass = |(from, to): &mut (&[u64], &mut [u64])| {
        to.copy_from_slice(from);
        black_box(&to[0]);
    };
    let seconds = timed(&mut parts, passes, pass)?;
    Ok(memory_samples(Access::Copy, threads, bytes, seconds))
}

/// Splits `words` into `threads` parts of equal length; the last one may be shorter.
fn parts(words: &[u64], threads: usize) -> std::slice::Chunks<'_, u64> {
    words.chunks(words.len().div_ceil(threads))
}

/// Returns the seconds of every pass over all parts, one thread per part,
/// without a first pass for warm-up.
fn timed<P: Send>(
    parts: &mut [P],
    passes: usize,
    pass: impl Fn(&mut P) + Sync,
) -> Result<Vec<f64>, MeasureError> {
    let run = |parts: &mut [P]| -> Result<f64, MeasureError> {
        let watch = Stopwatch::start();
        std::thread::scope(|scope| {
            // The calling thread processes the first part, so that one thread spawns no other.
            let (first, rest) = parts.split_first_mut().expect("the buffers are not empty");
            for part in rest {
                std::thread::Builder::new()
                    .name("measure".to_owned())
                    .spawn_scoped(scope, || pass(part))
                    .map_err(MeasureError::Thread)?;
            }
            pass(first);
            Ok::<(), MeasureError>(())
        })?;
        Ok(watch.elapsed().as_secs_f64())
    };
    run(parts)?;
    (0..passes).map(|_| run(parts)).collect()
}

fn memory_samples(access: Access, threads: usize, bytes: u64, seconds: Vec<f64>) -> MemorySamples {
    let (best, median) = best_and_median(&seconds);
    let rate = |seconds: f64| bytes as f64 / seconds;
    let (best_bytes_per_s, median_bytes_per_s) = (rate(best), rate(median));
    MemorySamples { access, threads, bytes, best_bytes_per_s, median_bytes_per_s, seconds }
}

/// Measures products of two `[side, side]` matrices, one of them a constant of the graph.
fn multiply(
    backend: &dyn Backend,
    threads: usize,
    side: usize,
    products: usize,
) -> Result<MatrixSamples, MeasureError> {
    let file = product(side);
    let flops = network_cost(&file.graph, &file.contract)?.total.flops();
    let mut session = backend.load(&file)?.session();
    let x = HostTensor::from_slice(&[side, side], &factor(side));
    let mut y = HostTensor::zeros(DType::F32, &[side, side]);
    let mut seconds = Vec::with_capacity(products);
    session.run(&[x.view()], &mut [y.view_mut()])?;
    for _ in 0..products {
        let watch = Stopwatch::start();
        session.run(&[x.view()], &mut [y.view_mut()])?;
        seconds.push(watch.elapsed().as_secs_f64());
    }
    let (best, median) = best_and_median(&seconds);
    let rate = |seconds: f64| flops as f64 / seconds;
    let (best_flops_per_s, median_flops_per_s) = (rate(best), rate(median));
    let dtype = DType::F32;
    Ok(MatrixSamples { dtype, threads, side, flops, best_flops_per_s, median_flops_per_s, seconds })
}

/// Builds a network that multiplies its input `[side, side]` by a constant.
fn product(side: usize) -> NetworkFile {
    let tensors = BTreeMap::new();
    let mut graph = Graph::new("product", &tensors, DType::F32);
    let x = graph.input("x", DType::F32, &[side, side], "factor");
    let weight = graph.constant("constant", &[side, side], &factor(side));
    let y = graph.gemm(&x, &weight, None, "product");
    graph.output("y", &y, "product");
    let network = graph.finish();

    let info =
        |spec: &contract::TensorSpec| ValueInfoProto::tensor(&spec.name, spec.dtype, &spec.shape);
    let initializer = network.initializers.iter().map(|initializer| {
        let (Bytes::Inline(bytes) | Bytes::Folded(bytes)) = &initializer.source else {
            unreachable!("the graph is built without a checkpoint")
        };
        TensorProto {
            dims: initializer.dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(DataType::from(initializer.dtype) as i32),
            name: Some(initializer.name.clone()),
            raw_data: Some(bytes.clone()),
            ..TensorProto::default()
        }
    });
    let proto = GraphProto {
        initializer: initializer.collect(),
        name: Some(network.name.clone()),
        input: network.inputs.iter().map(info).collect(),
        output: network.outputs.iter().map(info).collect(),
        value_info: network.values,
        node: network.nodes,
    };
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) };
    let model = ModelProto {
        ir_version: Some(IR_VERSION),
        graph: Some(proto),
        opset_import: vec![opset],
        ..ModelProto::default()
    };
    let contract = Contract {
        format: contract::FORMAT,
        network: network.name,
        model: "measurement".to_owned(),
        inputs: network.inputs,
        outputs: network.outputs,
        sizes: network.sizes,
        numbers: network.numbers,
        // Only readers of files compare it.
        graph_sha256: String::new(),
    };
    NetworkFile { folder: PathBuf::new(), contract, graph: model.encode_to_vec(), built: None }
}

/// Returns pseudo-random numbers between -0.5 and 0.5 without denormals, which
/// are slow on some processors.
fn factor(side: usize) -> Vec<f32> {
    (0..side * side).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5).collect()
}

/// Returns the shortest and the median duration.
fn best_and_median(seconds: &[f64]) -> (f64, f64) {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Plan {
        Plan {
            threads: vec![1, 3],
            buffer_bytes: 1 << 20,
            passes: 4,
            matrix_sides: vec![32],
            products: 3,
        }
    }

    #[test]
    fn samples_are_kept_and_peak_rates_are_the_best() {
        let machine = vec![("CPU".to_owned(), "a CPU".to_owned())];
        let measurement = measure(&small(), machine, &mut |_| {}).unwrap();
        assert_eq!(
            measurement.memory.len(),
            4,
            "two access patterns with one and with three threads"
        );
        for samples in &measurement.memory {
            assert_eq!(samples.seconds.len(), 4);
            assert_eq!(samples.bytes, 1 << 20, "{samples:?}");
            assert!(samples.best_bytes_per_s >= samples.median_bytes_per_s);
        }
        for samples in &measurement.matrices {
            assert_eq!((samples.seconds.len(), samples.flops), (3, 2 * 32 * 32 * 32));
        }
        let rates = measurement.peak_rates(None).unwrap();
        let best = measurement.memory.iter().map(|samples| samples.best_bytes_per_s);
        assert_eq!(rates.bytes_per_s, best.fold(0.0, f64::max));
        assert_eq!(rates.name, "a CPU");
        assert!(rates.flops_per_s[&DType::F32] > 0.0);

        let text = serde_json::to_string(&measurement).unwrap();
        let read: Measurement = serde_json::from_str(&text).unwrap();
        assert_eq!(read.peak_rates(None).unwrap().flops_per_s.len(), 1);
        let mut other = read.clone();
        other.format = 2;
        assert_eq!(other.peak_rates(None), Err(MeasurementError::Format { found: 2 }));
        let mut broken = read.clone();
        broken.memory[0].best_bytes_per_s = f64::NAN;
        assert_eq!(
            broken.peak_rates(None),
            Err(MeasurementError::MissingRate { what: "memory rate" })
        );
        let mut lacking = read;
        lacking.matrices.clear();
        assert_eq!(
            lacking.peak_rates(None),
            Err(MeasurementError::MissingRate { what: "matrix rate" })
        );
    }

    #[test]
    fn peak_rates_are_those_of_the_thread_count() {
        let mut measurement =
            measure(&Plan { threads: vec![1, 2, 4], ..small() }, Vec::new(), &mut |_| {}).unwrap();
        for samples in &mut measurement.memory {
            samples.best_bytes_per_s = samples.threads as f64 * 1e9;
        }
        for samples in &mut measurement.matrices {
            samples.best_flops_per_s = samples.threads as f64 * 1e10;
        }
        let check = |threads, expected: usize| {
            let found = measurement.peak_rates(threads).unwrap();
            assert_eq!(found.bytes_per_s, expected as f64 * 1e9, "{threads:?}");
            assert_eq!(found.flops_per_s[&DType::F32], expected as f64 * 1e10, "{threads:?}");
            assert_eq!(found.threads, threads.map(|_| expected));
        };
        check(Some(1), 1);
        check(Some(2), 2);
        check(Some(3), 4);
        check(Some(8), 4);
        check(None, 4);
    }

    #[test]
    fn product_network_multiplies_matrices() {
        let backend =
            OnnxRuntime::open(CpuOptions { threads: 1, prepack: true }, &mut |_| {}).unwrap();
        let side = 24;
        let mut session = backend.load(&product(side)).unwrap().session();
        let values = factor(side);
        let x = HostTensor::from_slice(&[side, side], &values);
        let mut y = HostTensor::zeros(DType::F32, &[side, side]);
        session.run(&[x.view()], &mut [y.view_mut()]).unwrap();
        for (i, found) in y.as_slice::<f32>().iter().enumerate() {
            let row = |n: usize| &values[n * side..(n + 1) * side];
            let expected: f32 = row(i / side).iter().zip(row(i % side)).map(|(a, b)| a * b).sum();
            assert!((found - expected).abs() < 1e-4, "{i}: {found} is not {expected}");
        }
    }

    #[test]
    fn copy_is_complete_for_any_thread_count() {
        for threads in [1, 2, 7] {
            let (from, mut to) = ((0..100).collect::<Vec<u64>>(), vec![0; 100]);
            copy_memory(&from, &mut to, threads, 1).unwrap();
            assert_eq!(from, to, "{threads} threads");
        }
    }

    #[test]
    fn empty_plan_is_rejected() {
        let plan = Plan { threads: Vec::new(), ..small() };
        let error = measure(&plan, Vec::new(), &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "nothing to measure: threads is empty or zero");
        let plan = Plan { buffer_bytes: 8, ..small() };
        let error = measure(&plan, Vec::new(), &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "nothing to measure: buffer_bytes is empty or zero");
    }

    #[test]
    fn thread_counts_double_up_to_all_cores() {
        assert_eq!(Plan::usual(1, 0).threads, [1]);
        assert_eq!(Plan::usual(2, 0).threads, [1, 2]);
        assert_eq!(Plan::usual(6, 0).threads, [1, 2, 4, 6]);
        assert_eq!(Plan::usual(2, 1 << 30).buffer_bytes, 8 << 30);
    }
}
