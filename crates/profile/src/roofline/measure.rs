//! Measures this machine's ceilings on the CPU: memory by reading and copying buffers far larger
//! than any cache, matrix units by products that the ONNX Runtime back end runs.

use super::ceilings::{Ceilings, Source};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;
use std::path::PathBuf;
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime, OpenError};
use tandem::engine::{Backend, LoadError, NetworkFile, RunError};
use tandem::tensor::{DType, HostTensor};
use tandem::timing::{Stopwatch, wall_time_unix_s};
use tandem_export::contract::{self, Contract};
use tandem_export::cost::{CostError, network_cost};
use tandem_export::graph::{Graph, Source as Bytes};
use tandem_export::onnx::{
    DataType, GraphProto, IR_VERSION, ModelProto, OPSET, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};

/// Version of [`Measurement`]'s layout; a reader refuses another.
pub const FORMAT: u32 = 1;

/// How the numbers of a [`Measurement`] come about.
const METHOD: &str = "memory: every thread sums (read) or copies (copy) its own part of buffers far \
    larger than the caches, after one pass that is not timed; a copied byte counts twice, read and \
    written; starting threads is within the time. matrices: square single-precision products with \
    a constant factor on the ONNX Runtime back end, after one run that is not timed. Ceilings are \
    the best samples.";

/// What to measure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Thread counts, each measured by itself.
    pub threads: Vec<usize>,
    /// Bytes of all buffers together.
    pub buffer_bytes: usize,
    /// Timed passes over the buffers for each count of threads.
    pub passes: usize,
    /// Sides of the square matrices.
    pub matrix_sides: Vec<usize>,
    /// Timed products for each side and count of threads.
    pub products: usize,
}

impl Plan {
    /// Samples that settle within seconds on a machine with `cores` cores and `cache_bytes` of
    /// last-level cache: one thread, then twice as many each time, up to every core.
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

/// What memory was measured with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Reading.
    Read,
    /// Copying.
    Copy,
}

impl Access {
    /// The word that tables print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Copy => "copy",
        }
    }
}

/// Passes over memory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemorySamples {
    /// Reading or copying.
    pub access: Access,
    /// Threads.
    pub threads: usize,
    /// Bytes that one pass moves.
    pub bytes: u64,
    /// Fastest pass, bytes per second.
    pub best_bytes_per_s: f64,
    /// Median pass, bytes per second.
    pub median_bytes_per_s: f64,
    /// Every pass, in order, seconds.
    pub seconds: Vec<f64>,
}

/// Products of matrices.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixSamples {
    /// Element type of the factors.
    pub dtype: DType,
    /// Threads.
    pub threads: usize,
    /// Rows and columns of both factors.
    pub side: usize,
    /// Operations of one product, two per multiply-add.
    pub flops: u64,
    /// Fastest product, operations per second.
    pub best_flops_per_s: f64,
    /// Median product, operations per second.
    pub median_flops_per_s: f64,
    /// Every product, in order, seconds.
    pub seconds: Vec<f64>,
}

/// A machine's measured ceilings with every sample; the content of the file that `tandem doctor
/// --measure --out` writes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// [`FORMAT`] at the time of writing.
    pub format: u32,
    /// The machine, fact by fact.
    pub machine: Vec<(String, String)>,
    /// Seconds since the Unix epoch when it was measured.
    pub measured_at_unix_s: u64,
    /// Version of tandem.
    pub tandem: String,
    /// The library that ran the products.
    pub library: String,
    /// How it was measured.
    pub method: String,
    /// Bytes of all buffers together.
    pub buffer_bytes: usize,
    /// Memory.
    pub memory: Vec<MemorySamples>,
    /// Matrix units.
    pub matrices: Vec<MatrixSamples>,
    /// What was not measured, and why.
    pub not_measured: Vec<String>,
}

/// A machine could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The plan has no samples in it.
    #[error("nothing to measure: {what} is empty or zero")]
    Empty {
        /// Which number of the plan.
        what: &'static str,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The back end is not there.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The back end refuses the product's graph.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The back end fails on it.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The product's graph cannot be counted.
    #[error(transparent)]
    Cost(#[from] CostError),
}

/// A measurement holds no ceilings.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum MeasurementError {
    /// It has another format.
    #[error("format {found} of a measurement, this tandem reads format {FORMAT}; measure again")]
    Format {
        /// Its format.
        found: u32,
    },
    /// A rate is missing, or is no positive number.
    #[error("the measurement has no usable {what}; measure again")]
    NoRate {
        /// Which rate.
        what: &'static str,
    },
}

/// Measures this machine, telling `progress` what is next.
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
    // Written once so that every page is there.
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
            "GPUs: only the CPU is measured; `tandem roofline --device NAME` has the rates of datasheets".to_owned(),
            "bf16 and f16: the CPU back end computes its networks in f32".to_owned(),
        ],
    })
}

impl Measurement {
    /// Ceilings of a network that runs on `threads` threads, or of the whole machine: the best sample
    /// of memory, and of products in each element type.
    ///
    /// A number of threads that was not measured gets the rates of the next larger one, or of the
    /// largest: a ceiling may be too high, but not too low.
    ///
    /// # Errors
    /// The measurement is of another format, or lacks a positive rate.
    pub fn ceilings(&self, threads: Option<usize>) -> Result<Ceilings, MeasurementError> {
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
                return Err(MeasurementError::NoRate { what: "memory rate" });
            }
            bytes_per_s = bytes_per_s.max(samples.best_bytes_per_s);
        }
        let mut flops_per_s = BTreeMap::new();
        for samples in self.matrices.iter().filter(|samples| is_of_threads(samples.threads)) {
            if !is_rate(samples.best_flops_per_s) {
                return Err(MeasurementError::NoRate { what: "matrix rate" });
            }
            let best: &mut f64 = flops_per_s.entry(samples.dtype).or_default();
            *best = best.max(samples.best_flops_per_s);
        }
        if bytes_per_s == 0.0 {
            return Err(MeasurementError::NoRate { what: "memory rate" });
        }
        if flops_per_s.is_empty() {
            return Err(MeasurementError::NoRate { what: "matrix rate" });
        }
        let machine =
            self.machine.iter().map(|(name, fact)| format!("{name}: {fact}")).collect::<Vec<_>>();
        Ok(Ceilings {
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

/// `words` in as many parts of one length, the last one shorter.
fn parts(words: &[u64], threads: usize) -> std::slice::Chunks<'_, u64> {
    words.chunks(words.len().div_ceil(threads))
}

/// Seconds of every pass over all parts, a thread each; the first pass is not among them.
fn timed<P: Send>(
    parts: &mut [P],
    passes: usize,
    pass: impl Fn(&mut P) + Sync,
) -> Result<Vec<f64>, MeasureError> {
    let run = |parts: &mut [P]| -> Result<f64, MeasureError> {
        let watch = Stopwatch::start();
        std::thread::scope(|scope| {
            // The calling thread takes the first part, so that one thread starts none.
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

/// Runs products of two `[side, side]` matrices, one of them a constant of the graph.
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

/// A network that multiplies its input `[side, side]` with a constant.
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
            unreachable!("the graph is drawn over no checkpoint")
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
        // Only a reader of files compares it.
        graph_sha256: String::new(),
    };
    NetworkFile { folder: PathBuf::new(), contract, graph: model.encode_to_vec(), built: None }
}

/// Numbers between -0.5 and 0.5 in no visible order: none is tiny, which some processors are slow at.
fn factor(side: usize) -> Vec<f32> {
    (0..side * side).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5).collect()
}

/// Shortest and median of some durations.
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
    fn every_sample_is_kept_and_the_ceilings_are_the_best_of_them() {
        let machine = vec![("CPU".to_owned(), "a CPU".to_owned())];
        let measurement = measure(&small(), machine, &mut |_| {}).unwrap();
        assert_eq!(measurement.memory.len(), 4, "two ways with one and with three threads");
        for samples in &measurement.memory {
            assert_eq!(samples.seconds.len(), 4);
            assert_eq!(samples.bytes, 1 << 20, "{samples:?}");
            assert!(samples.best_bytes_per_s >= samples.median_bytes_per_s);
        }
        for samples in &measurement.matrices {
            assert_eq!((samples.seconds.len(), samples.flops), (3, 2 * 32 * 32 * 32));
        }
        let ceilings = measurement.ceilings(None).unwrap();
        let best = measurement.memory.iter().map(|samples| samples.best_bytes_per_s);
        assert_eq!(ceilings.bytes_per_s, best.fold(0.0, f64::max));
        assert_eq!(ceilings.name, "a CPU");
        assert!(ceilings.flops_per_s[&DType::F32] > 0.0);

        let text = serde_json::to_string(&measurement).unwrap();
        let read: Measurement = serde_json::from_str(&text).unwrap();
        assert_eq!(read.ceilings(None).unwrap().flops_per_s.len(), 1);
        let mut other = read.clone();
        other.format = 2;
        assert_eq!(other.ceilings(None), Err(MeasurementError::Format { found: 2 }));
        let mut broken = read.clone();
        broken.memory[0].best_bytes_per_s = f64::NAN;
        assert_eq!(broken.ceilings(None), Err(MeasurementError::NoRate { what: "memory rate" }));
        let mut lacking = read;
        lacking.matrices.clear();
        assert_eq!(lacking.ceilings(None), Err(MeasurementError::NoRate { what: "matrix rate" }));
    }

    #[test]
    fn ceilings_are_those_of_as_many_threads_as_a_network_runs_on() {
        let mut measurement =
            measure(&Plan { threads: vec![1, 2, 4], ..small() }, Vec::new(), &mut |_| {}).unwrap();
        for samples in &mut measurement.memory {
            samples.best_bytes_per_s = samples.threads as f64 * 1e9;
        }
        for samples in &mut measurement.matrices {
            samples.best_flops_per_s = samples.threads as f64 * 1e10;
        }
        let check = |threads, expected: usize| {
            let found = measurement.ceilings(threads).unwrap();
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
    fn the_product_is_the_product() {
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
    fn copying_copies_every_word_whatever_the_number_of_threads() {
        for threads in [1, 2, 7] {
            let (from, mut to) = ((0..100).collect::<Vec<u64>>(), vec![0; 100]);
            copy_memory(&from, &mut to, threads, 1).unwrap();
            assert_eq!(from, to, "{threads} threads");
        }
    }

    #[test]
    fn an_empty_plan_is_refused() {
        let plan = Plan { threads: Vec::new(), ..small() };
        let error = measure(&plan, Vec::new(), &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "nothing to measure: threads is empty or zero");
        let plan = Plan { buffer_bytes: 8, ..small() };
        let error = measure(&plan, Vec::new(), &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "nothing to measure: buffer_bytes is empty or zero");
    }

    #[test]
    fn thread_counts_double_up_to_every_core() {
        assert_eq!(Plan::usual(1, 0).threads, [1]);
        assert_eq!(Plan::usual(2, 0).threads, [1, 2]);
        assert_eq!(Plan::usual(6, 0).threads, [1, 2, 4, 6]);
        assert_eq!(Plan::usual(2, 1 << 30).buffer_bytes, 8 << 30);
    }
}
