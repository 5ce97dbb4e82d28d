//! Measures the four networks of an engine folder separately, on inputs with the sizes of the
//! AutoMoT release, and prints one line of JSON with all samples.
//!
//! The inputs come from one run in sequence: four noise frames are the input of the vision tower;
//! its tokens and a prompt of the release's layout that of the understanding expert; its keys and
//! values that of the action expert. The BEV encoder runs on a noise image and a sparse histogram.
//! `--dump` writes inputs and outputs of these runs, so that a peer can run on the same numbers.

use anyhow::{Context, ensure};
use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView as Stored, serialize_to_file};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, Session, read_network};
use tandem::model::automot::networks::{action, bev, understanding, vision};
use tandem::model::automot::tokenizer::SpecialTokens;
use tandem::model::automot::tokens::{
    ImageGrid, InstructionMask, PromptTokens, SequenceBuffers, SequenceExtent,
};
use tandem::tensor::{DType, HostTensor, TensorViewMut};
use tandem::timing::Stopwatch;
use tandem_export::automot::sizes::VisionSizes;
use tandem_export::contract::Contract;

/// Tokens before the frames in the release's prompt.
const PREFIX_TOKENS: usize = 16;

/// Tokens after the frames for a typical target point: with four frames of 128 tokens, 625 in
/// total.
const INSTRUCTION_TOKENS: usize = 89;

/// Upper bound of the token ids of noise text, valid in every vocabulary.
const TEXT_IDS: u32 = 900;

/// Speed, m/s, and two target points, meters.
const STATE: [f32; 5] = [5.43, 12.345_678, -0.123_456, 45.678_9, 1.234_567];

/// Number of runs before the first sample.
const WARM_UP: usize = 3;

#[derive(Parser)]
#[command(about = "Times the networks of an engine folder; prints one line of JSON")]
struct Arguments {
    /// Engine folder written by `tandem export`
    engine: PathBuf,
    /// Number of threads of a network
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Maximum number of samples per network
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// Time limit per network, seconds; applies after --fewest samples
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    seconds: f64,
    /// Minimum number of samples per network
    #[arg(long, default_value_t = 10)]
    fewest: usize,
    /// Keep the memory layout of matrices in the checkpoint
    #[arg(long)]
    no_prepack: bool,
    /// Folder to write the inputs and outputs of one run to
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "the program prints its result")]
fn main() -> anyhow::Result<()> {
    println!("{}", measure(&Arguments::parse())?);
    Ok(())
}

fn measure(arguments: &Arguments) -> anyhow::Result<Value> {
    let options = CpuOptions { threads: arguments.threads, prepack: !arguments.no_prepack };
    let backend = OnnxRuntime::open(options, &mut |line| eprintln!("{line}"))?;
    let load = |name| Network::load(&backend, &arguments.engine, name);
    let mut tower = load(vision::NETWORK)?;
    let mut slow = load(understanding::NETWORK)?;
    let mut fast = load(action::NETWORK)?;
    let mut encoder = load(bev::NETWORK)?;
    let extent = chain(&mut tower, &mut slow, &mut fast)?;
    encode_bev(&mut encoder)?;
    if let Some(folder) = &arguments.dump {
        fs::create_dir_all(folder)?;
        for network in [&tower, &slow, &encoder, &fast] {
            network.dump(folder, extent)?;
        }
    }
    let mut networks = serde_json::Map::new();
    for mut network in [fast, slow, encoder, tower] {
        network.warm_up()?;
        let before = cpu_time_us();
        let samples = network.sample(arguments)?;
        let cpu = cpu_time_us().zip(before).map(|(after, before)| after - before);
        let mut report = summary(&samples, cpu);
        report["load_us"] = json!(network.load_us.round());
        report["load_anonymous_bytes"] = json!(network.load_bytes);
        networks.insert(network.contract.network, report);
    }
    Ok(json!({
        "bench": "networks",
        "library": backend.name(),
        "threads": arguments.threads,
        "prepack": options.prepack,
        "warm_up": WARM_UP,
        "valid_tokens": extent.valid_tokens,
        "networks": networks,
    }))
}

/// A loaded network with its input and output tensors, in the order of the contract.
struct Network {
    contract: Contract,
    session: Box<dyn Session>,
    inputs: Vec<HostTensor>,
    outputs: Vec<HostTensor>,
    load_us: f64,
    /// Anonymous memory allocated by loading, without mapped files.
    load_bytes: Option<u64>,
}

impl Network {
    fn load(backend: &dyn Backend, folder: &Path, name: &str) -> anyhow::Result<Self> {
        let file = read_network(folder, name)?;
        let (before, stopwatch) = (anonymous_bytes(), Stopwatch::start());
        let engine = backend.load(&file)?;
        let load_us = stopwatch.elapsed().as_nanos() as f64 / 1000.0;
        let load_bytes =
            anonymous_bytes().zip(before).map(|(after, before)| after.saturating_sub(before));
        let contract = engine.contract().clone();
        let inputs = contract.inputs.iter().map(|spec| HostTensor::zeros(spec.dtype, &spec.shape));
        let outputs =
            contract.outputs.iter().map(|spec| HostTensor::zeros(spec.dtype, &spec.shape));
        let (inputs, outputs) = (inputs.collect(), outputs.collect());
        let session = engine.session();
        Ok(Self { contract, session, inputs, outputs, load_us, load_bytes })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let inputs: Vec<_> = self.inputs.iter().map(HostTensor::view).collect();
        let mut outputs: Vec<TensorViewMut<'_>> =
            self.outputs.iter_mut().map(HostTensor::view_mut).collect();
        Ok(self.session.run(&inputs, &mut outputs)?)
    }

    fn warm_up(&mut self) -> anyhow::Result<()> {
        (0..WARM_UP).try_for_each(|_| self.run())
    }

    /// Returns the latency of each run, microseconds. Views are created before, as in a driver.
    fn sample(&mut self, arguments: &Arguments) -> anyhow::Result<Vec<f64>> {
        let inputs: Vec<_> = self.inputs.iter().map(HostTensor::view).collect();
        let mut outputs: Vec<TensorViewMut<'_>> =
            self.outputs.iter_mut().map(HostTensor::view_mut).collect();
        let mut samples = Vec::with_capacity(arguments.runs);
        let begin = Stopwatch::start();
        while samples.len() < arguments.runs {
            let spent = begin.elapsed().as_secs_f64();
            if samples.len() >= arguments.fewest && spent > arguments.seconds {
                break;
            }
            let stopwatch = Stopwatch::start();
            self.session.run(&inputs, &mut outputs)?;
            samples.push((stopwatch.elapsed().as_nanos() as f64 / 100.0).round() / 10.0);
        }
        Ok(samples)
    }

    fn input(&mut self, name: &str) -> anyhow::Result<&mut HostTensor> {
        let network = &self.contract.network;
        let index = self.contract.input(name).with_context(|| format!("{network}: no {name}"))?;
        Ok(&mut self.inputs[index])
    }

    fn dump(&self, folder: &Path, extent: SequenceExtent) -> anyhow::Result<()> {
        let inputs = self.contract.inputs.iter().zip(&self.inputs).map(|pair| ("in", pair));
        let outputs = self.contract.outputs.iter().zip(&self.outputs).map(|pair| ("out", pair));
        let stored = inputs
            .chain(outputs)
            .map(|(side, (spec, tensor))| {
                let dtype = match tensor.dtype() {
                    DType::F32 => Dtype::F32,
                    DType::I64 => Dtype::I64,
                    DType::U8 => Dtype::U8,
                    other => anyhow::bail!("{} is {other}; export with precision f32", spec.name),
                };
                let view = Stored::new(dtype, tensor.shape().to_vec(), tensor.bytes())?;
                Ok((format!("{side}.{}", spec.name), view))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let Contract { sizes, numbers, .. } = &self.contract;
        let sizes = sizes.iter().map(|(name, size)| (name.clone(), size.to_string()));
        let numbers = numbers.iter().map(|(name, number)| (name.clone(), number.to_string()));
        let mut about: HashMap<_, _> = sizes.chain(numbers).collect();
        about.insert("valid_tokens".into(), extent.valid_tokens.to_string());
        let path = folder.join(format!("{}.safetensors", self.contract.network));
        Ok(serialize_to_file(stored, Some(about), &path)?)
    }
}

/// Fills all inputs and runs the three networks once, each on the outputs of the previous one.
fn chain(
    tower: &mut Network,
    slow: &mut Network,
    fast: &mut Network,
) -> anyhow::Result<SequenceExtent> {
    let mut noise = StdRng::seed_from_u64(1);
    let frames = encode_frames(tower, slow, &mut noise)?;
    let extent = lay_out(slow, frames, &mut noise)?;
    slow.run()?;

    for value in fast.input("bev_tokens")?.as_mut_slice::<f32>() {
        *value = noise.random_range(-1.0..1.0);
    }
    fast.input("state")?.as_mut_slice().copy_from_slice(&STATE);
    fast.input("position")?.as_mut_slice::<i64>()[0] = extent.next_position;
    fast.input("prefix_length")?.as_mut_slice::<i64>()[0] = extent.valid_tokens as i64;
    for (spec, tensor) in slow.contract.outputs.iter().zip(&slow.outputs) {
        fast.input(&spec.name)?.bytes_mut().copy_from_slice(tensor.bytes());
    }
    fast.run()?;
    Ok(extent)
}

/// Runs the BEV encoder on a noise image and a histogram with points in one of eight cells.
fn encode_bev(encoder: &mut Network) -> anyhow::Result<()> {
    let mut noise = StdRng::seed_from_u64(2);
    noise.fill(encoder.input("image")?.as_mut_slice::<u8>());
    for value in encoder.input("lidar")?.as_mut_slice::<f32>() {
        let is_hit = noise.random_range(0..8) == 0;
        *value = if is_hit { noise.random_range(0.0..1.0) } else { 0.0 };
    }
    encoder.run()
}

/// Runs the tower on noise frames and copies its tokens and maps to the understanding expert's
/// inputs.
fn encode_frames(
    tower: &mut Network,
    slow: &mut Network,
    noise: &mut StdRng,
) -> anyhow::Result<Vec<ImageGrid>> {
    let sizes = VisionSizes::of(&tower.contract)?;
    let side = sizes.patch_size * sizes.spatial_merge_size;
    let grid = ImageGrid { rows: sizes.frame_height / side, columns: sizes.frame_width / side };
    let rows = slow.input("image_tokens")?.shape()[0];
    let n_frames = rows / grid.tokens();
    ensure!(
        n_frames * grid.tokens() == rows,
        "{rows} image tokens are not a multiple of a frame's"
    );
    for frame in 0..n_frames {
        for value in tower.input("patches")?.as_mut_slice::<f32>() {
            *value = noise.random_range(-1.0..1.0);
        }
        tower.run()?;
        for (spec, output) in tower.contract.outputs.iter().zip(&tower.outputs) {
            let output = output.as_slice::<f32>();
            let all = slow.input(&spec.name)?.as_mut_slice::<f32>();
            // Image tokens are one map; deepstack maps have a separate axis.
            let maps = if spec.shape.len() == 3 { spec.shape[0] } else { 1 };
            copy_frame(output, all, frame, n_frames, maps);
        }
    }
    Ok(vec![grid; n_frames])
}

/// Copies the tower's output for one frame into the layout `[map, frame, ..]`.
fn copy_frame(output: &[f32], all: &mut [f32], frame: usize, n_frames: usize, maps: usize) {
    let part = output.len() / maps;
    for (map, values) in output.chunks_exact(part).enumerate() {
        all[(map * n_frames + frame) * part..][..part].copy_from_slice(values);
    }
}

/// Writes a prompt of the release's length with noise text into the inputs.
fn lay_out(
    slow: &mut Network,
    frames: Vec<ImageGrid>,
    noise: &mut StdRng,
) -> anyhow::Result<SequenceExtent> {
    let mut text = |n| (0..n).map(|_| noise.random_range(0..TEXT_IDS)).collect::<Vec<_>>();
    let (prefix, instruction) = (text(PREFIX_TOKENS), text(INSTRUCTION_TOKENS));
    let [message_start, message_end, vision_start, vision_end, image_pad] =
        [0, 1, 2, 3, 4].map(|id| TEXT_IDS + id);
    let prompt = PromptTokens {
        prefix: &prefix,
        frames: &frames,
        instruction: &instruction,
        special: SpecialTokens { message_start, message_end, vision_start, vision_end, image_pad },
        instruction_mask: InstructionMask::Causal,
    };
    let capacity = slow.input("token_ids")?.shape()[0];
    let mut token_ids = vec![0; capacity];
    let mut position_ids = vec![0; 3 * capacity];
    let mut image_slot = vec![0; capacity];
    let mut visible_until = vec![0; capacity];
    let extent = prompt.lay_out(SequenceBuffers {
        token_ids: &mut token_ids,
        position_ids: &mut position_ids,
        image_slot: &mut image_slot,
        visible_until: &mut visible_until,
    })?;
    for (name, values) in [
        ("token_ids", token_ids),
        ("position_ids", position_ids),
        ("image_slot", image_slot),
        ("visible_until", visible_until),
    ] {
        slow.input(name)?.as_mut_slice().copy_from_slice(&values);
    }
    Ok(extent)
}

/// Returns the CPU time of all threads of this process so far, as Linux reports it. On a shared
/// machine it is more reliable than wall time.
fn cpu_time_us() -> Option<f64> {
    let threads = fs::read_dir("/proc/self/task").ok()?;
    let nanos = threads.map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    Some(nanos.sum::<Option<f64>>()? / 1000.0)
}

/// Returns the anonymous resident memory of this process (without mapped files), bytes.
fn anonymous_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Returns nearest-rank percentiles, CPU time per run, and all samples in the order of the runs.
fn summary(samples: &[f64], cpu_us: Option<f64>) -> Value {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
    json!({
        "count": sorted.len(),
        "p50_us": rank(50),
        "p99_us": rank(99),
        "min_us": sorted[0],
        "cpu_us_per_run": cpu_us.map(|cpu| (cpu / sorted.len() as f64).round()),
        "samples_us": samples,
    })
}
