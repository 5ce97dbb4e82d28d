//! Comparison of the four exported networks with the golden vectors, on ONNX Runtime's CPU back end.

use crate::vectors::{self, Compared, Vectors};
use std::collections::BTreeMap;
use std::path::Path;
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, NetworkFile};
use tandem::model::automot::Positions;
use tandem::model::automot::image::{PatchLayout, Size};
use tandem::tensor::{DType, HostTensor, TensorViewMut};
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::automot::checkpoint::AutomotConfig;
use tandem_export::contract::Contract;

/// Content of the prefix KV cache beyond the valid length. Reading it would change the results visibly.
const GARBAGE: f32 = 1e3;

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&vectors::folder()).unwrap_or_else(|error| panic!("{error}"))
}

/// Exports the golden checkpoint with probes, for `frames` frames of `frame_size` pixels per prompt.
fn export(frame_size: [usize; 2], frames: usize) -> tempfile::TempDir {
    export_as(&ExportOptions { frame_size, frames, probes: true, ..ExportOptions::default() })
}

/// Exports the golden checkpoint.
pub(crate) fn export_as(options: &ExportOptions) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("engine");
    tandem_export::folder::export_networks(&checkpoint(), options, &out, &mut |_| {})
        .unwrap_or_else(|error| panic!("{error}"));
    folder
}

/// Loads a network and runs it once with inputs by name. Returns the outputs by name.
pub(crate) fn run(
    folder: &Path,
    name: &str,
    mut inputs: BTreeMap<String, HostTensor>,
) -> BTreeMap<String, HostTensor> {
    let backend = OnnxRuntime::open(CpuOptions::default(), &mut |line| eprintln!("{line}"))
        .unwrap_or_else(|error| panic!("{error}"));
    let file = NetworkFile::read(&folder.join("engine"), name).unwrap();
    let engine = backend.load(&file).unwrap_or_else(|error| panic!("{error}"));
    let contract = engine.contract().clone();
    let ordered: Vec<HostTensor> = contract
        .inputs
        .iter()
        .map(|spec| inputs.remove(&spec.name).unwrap_or_else(|| panic!("no input {}", spec.name)))
        .collect();
    assert!(inputs.is_empty(), "{name} does not take {:?}", inputs.keys());
    let mut outputs: Vec<HostTensor> =
        contract.outputs.iter().map(|spec| HostTensor::zeros(spec.dtype, &spec.shape)).collect();
    let views: Vec<_> = ordered.iter().map(HostTensor::view).collect();
    let mut out: Vec<TensorViewMut<'_>> = outputs.iter_mut().map(HostTensor::view_mut).collect();
    engine.session().run(&views, &mut out).unwrap();
    drop(out);
    contract.outputs.into_iter().map(|spec| spec.name).zip(outputs).collect()
}

fn named(tensors: Vec<(&str, HostTensor)>) -> BTreeMap<String, HostTensor> {
    tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

fn integers(shape: &[usize], values: &[i64]) -> HostTensor {
    HostTensor::from_slice(shape, values)
}

/// Returns the number of heads that the action expert reads, and the width that it reads of each value.
fn read_part(config: &AutomotConfig) -> (usize, usize) {
    let group = config.text.num_attention_heads / config.text.num_key_value_heads;
    let heads = config.mot.num_attention_heads.div_ceil(group);
    (heads, config.text.hidden_size / config.text.num_attention_heads)
}

/// Converts `[heads, capacity, dim]` of a prefix to `[tokens, heads, dim]`, the layout of stored caches.
pub(crate) fn token_major(values: &[f32], shape: &[usize], tokens: usize) -> Vec<f32> {
    let [heads, capacity, dim] = shape[..] else { panic!("a cache has three axes") };
    let at = |i: usize| (i / dim % heads * capacity + i / (heads * dim)) * dim + i % dim;
    (0..tokens * heads * dim).map(|i| values[at(i)]).collect()
}

/// Converts the first `heads` heads and `dim` elements of `[tokens, heads, dim]` to
/// `[heads, capacity, dim]`, filled with `GARBAGE` after the tokens.
fn head_major(stored: &vectors::Stored, heads: usize, dim: usize, capacity: usize) -> HostTensor {
    let [tokens, all_heads, all_dims] = stored.shape[..] else { panic!("a cache has three axes") };
    let mut values = vec![GARBAGE; heads * capacity * dim];
    for (i, &value) in stored.values.iter().enumerate() {
        let (token, head, entry) =
            (i / (all_heads * all_dims), i / all_dims % all_heads, i % all_dims);
        if head < heads && entry < dim {
            values[(head * capacity + token) * dim + entry] = value as f32;
        }
    }
    assert!(tokens <= capacity);
    HostTensor::from_slice(&[heads, capacity, dim], &values)
}

/// Compares keys or values of a prefix with a stored cache, which may have more heads or fewer tokens.
#[track_caller]
pub(crate) fn compare_cache(
    vectors: &Vectors,
    stored: &str,
    found: &HostTensor,
    tokens: usize,
) -> Compared {
    let Some(cache) = vectors.get(stored) else { return Compared::NotStored };
    let shape = found.shape();
    let found = token_major(found.as_slice(), shape, tokens);
    let (heads, dim) = (shape[0].min(cache.shape[1]), shape[2].min(cache.shape[2]));
    vectors.compare_block(
        stored,
        &found,
        &[tokens, shape[0], shape[2]],
        &[cache.shape[0], heads, dim],
    );
    Compared::Within
}

/// Compares the first `tokens` rows of a probe with a stored `[tokens, width]`.
#[track_caller]
fn compare_rows(vectors: &Vectors, stored: &str, found: Option<&HostTensor>, tokens: usize) {
    let Some(found) = found else { return };
    let width = found.shape()[1];
    vectors.compare(stored, &found.as_slice()[..tokens * width], &[tokens, width]);
}

/// Checks the vision tower frame by frame. Returns all image tokens and deepstack maps of the case.
fn check_vision(vectors: &Vectors) -> (Vec<f32>, Vec<Vec<f32>>) {
    let checkpoint = checkpoint();
    let config = checkpoint.config();
    let vision = &config.vision;
    let hidden = vision.out_hidden_size;
    let maps = vision.deepstack_visual_indexes.len();
    let grids = vectors.need("image_grid_thw");
    let (mut patches, mut tokens) = (Vec::new(), Vec::new());
    let mut patch_values = 0;
    let mut deepstack = vec![Vec::new(); maps];
    let mut probes: BTreeMap<String, (usize, Vec<f32>)> = BTreeMap::new();
    for (image, grid) in grids.values.as_chunks::<3>().0.iter().enumerate() {
        let frame_size = [grid[1], grid[2]].map(|patches| patches as usize * vision.patch_size);
        let folder = export(frame_size, 1);
        let size = Size { width: frame_size[1], height: frame_size[0] };
        let layout = PatchLayout {
            patch_size: vision.patch_size,
            temporal_patch_size: vision.temporal_patch_size,
            merge_size: vision.spatial_merge_size,
        };
        let rgb: Vec<u8> =
            vectors.need(&format!("image.{image}")).values.iter().map(|&v| v as u8).collect();
        let mut input = vec![0.0; layout.patches(size) * layout.patch_values()];
        layout.write_patches(&rgb, size, &mut input);
        patch_values = layout.patch_values();
        let shape = [layout.patches(size), patch_values];
        let inputs = named(vec![("patches", HostTensor::from_slice(&shape, &input))]);
        let outputs = run(folder.path(), "vision", inputs);
        patches.extend(input);
        tokens.extend_from_slice(outputs["image_tokens"].as_slice::<f32>());
        let found = outputs["deepstack"].as_slice::<f32>();
        for (map, values) in found.chunks_exact(found.len() / maps).enumerate() {
            deepstack[map].extend_from_slice(values);
        }
        for (name, tensor) in outputs.iter().filter(|(name, _)| name.starts_with("probe.")) {
            let probe = probes.entry(name.replace("probe.", "vision.")).or_default();
            probe.0 = tensor.shape()[1];
            probe.1.extend(tensor.as_slice::<f32>());
        }
    }
    let rows = |values: &[f32], width: usize| [values.len() / width, width];
    vectors.compare("pixel_values", &patches, &rows(&patches, patch_values));
    for (name, (width, values)) in &probes {
        vectors.compare(name, values, &rows(values, *width));
    }
    vectors.compare("vision.merged", &tokens, &rows(&tokens, hidden)).needed();
    for (map, values) in deepstack.iter().enumerate() {
        let name = format!("vision.deepstack.{map}");
        vectors.compare(&name, values, &rows(values, hidden)).needed();
    }
    (tokens, deepstack)
}

/// Checks the keys and values of every layer of the understanding expert, and hidden states if stored.
fn check_understanding(
    vectors: &Vectors,
    image_tokens: &[f32],
    deepstack: &[Vec<f32>],
) -> BTreeMap<String, HostTensor> {
    let checkpoint = checkpoint();
    let config = checkpoint.config();
    let grids = vectors.need("image_grid_thw");
    let largest = grids
        .values
        .as_chunks::<3>()
        .0
        .iter()
        .map(|grid| [grid[1] as usize, grid[2] as usize].map(|n| n * config.vision.patch_size))
        .max_by_key(|size| size[0] * size[1])
        .expect("a slow case has an image");
    let folder = export(largest, grids.shape[0]);
    let contract =
        NetworkFile::read(&folder.path().join("engine"), "understanding").unwrap().contract;
    let capacity = contract.inputs[0].shape[0];
    let rows = contract.inputs[4].shape[0];
    let hidden = config.text.hidden_size;

    let ids = vectors.need("token_ids");
    let length = ids.values.len();
    let padded = |values: &[f64]| -> Vec<i64> {
        let mut padded: Vec<i64> = values.iter().map(|&value| value as i64).collect();
        padded.resize(capacity, 0);
        padded
    };
    let positions: Vec<i64> =
        vectors.need("position_ids").values.chunks_exact(length).flat_map(padded).collect();
    let mut images = 0;
    let slots: Vec<i64> = padded(&vectors.need("image_token_mask").values)
        .into_iter()
        .map(|is_image| {
            images += is_image;
            is_image * images
        })
        .collect();
    let mut visible: Vec<i64> = Vec::new();
    let segments = vectors.extra["split_lens"].as_array().unwrap().iter();
    for (tokens, mode) in segments.zip(vectors.extra["attn_modes"].as_array().unwrap()) {
        let (start, tokens) = (visible.len() as i64, tokens.as_i64().unwrap());
        match mode.as_str().unwrap() {
            "causal" => visible.extend(start + 1..=start + tokens),
            "full" => visible.extend((0..tokens).map(|_| start + tokens)),
            other => panic!("attention mode {other}"),
        }
    }
    visible.extend(visible.len() as i64 + 1..=capacity as i64);

    let mut tokens = image_tokens.to_vec();
    tokens.resize(rows * hidden, 0.0);
    let mut maps = Vec::new();
    for map in deepstack {
        maps.extend_from_slice(map);
        maps.resize(maps.len().next_multiple_of(rows * hidden), 0.0);
    }
    let outputs = run(
        folder.path(),
        "understanding",
        named(vec![
            ("token_ids", integers(&[capacity], &padded(&ids.values))),
            ("image_slot", integers(&[capacity], &slots)),
            ("position_ids", integers(&[3, capacity], &positions)),
            ("visible_until", integers(&[capacity], &visible)),
            ("image_tokens", HostTensor::from_slice(&[rows, hidden], &tokens)),
            ("deepstack", HostTensor::from_slice(&[deepstack.len(), rows, hidden], &maps)),
        ]),
    );
    compare_rows(vectors, "input_embeds", outputs.get("probe.input_embeds"), length);
    let layers = config.text.num_hidden_layers;
    for layer in 0..layers - 1 {
        let hidden = format!("hidden.{layer}");
        compare_rows(vectors, &hidden, outputs.get(&format!("probe.{hidden}")), length);
    }
    for layer in 0..layers {
        for (stored, found) in [("k_cache", "keys"), ("v_cache", "values")] {
            let found = &outputs[&format!("{found}.{layer}")];
            compare_cache(vectors, &format!("{stored}.{layer}"), found, length).needed();
        }
    }
    outputs
}

/// Checks vision tower and understanding expert of one case. Returns the prefix.
fn check_slow(case: &str) -> Option<BTreeMap<String, HostTensor>> {
    let Some(vectors) = Vectors::read(case) else {
        eprintln!("this set of vectors has no {case}");
        return None;
    };
    let (image_tokens, deepstack) = check_vision(&vectors);
    Some(check_understanding(&vectors, &image_tokens, &deepstack))
}

#[test]
fn golden_slow_a_vision_and_keys_and_values_of_every_layer() {
    check_slow("slow_A");
}

#[test]
fn golden_slow_b_frames_of_two_sizes() {
    check_slow("slow_B");
}

#[test]
fn golden_slow_c_four_frames_at_real_size() {
    check_slow("slow_C");
}

/// The cache of a stored case.
pub(crate) struct Cache<'a> {
    pub(crate) vectors: &'a Vectors,
    pub(crate) name: &'a str,
    /// The computed cache, compared with the stored part, if the set stores only a part.
    pub(crate) computed: Option<BTreeMap<String, HostTensor>>,
}

impl Cache<'_> {
    /// Returns all `length` tokens of the tensor `stored` of the set, which is `name` in the contract.
    fn complete(&mut self, stored: &str, name: &str, length: usize) -> vectors::Stored {
        let complete = self.vectors.get(stored).filter(|cache| cache.shape[0] == length);
        complete.unwrap_or_else(|| {
            let compute = || check_slow(self.name).expect("read above");
            let found = &self.computed.get_or_insert_with(compute)[name];
            let values = token_major(found.as_slice(), found.shape(), length);
            let shape = vec![length, found.shape()[0], found.shape()[2]];
            let values = values.into_iter().map(f64::from).collect();
            vectors::Stored { shape, values }
        })
    }
}

/// Returns the inputs of the action network for a stored frame and cache, if the set has the frame.
pub(crate) fn fast_inputs(
    vectors: &Vectors,
    cache: &mut Cache<'_>,
    contract: &Contract,
    frame: &str,
    uses: i64,
) -> Option<BTreeMap<String, HostTensor>> {
    let feature = vectors.get(&format!("{frame}.bev_feature"))?;
    let checkpoint = checkpoint();
    let config = checkpoint.config();
    let (heads, value_dim) = read_part(config);
    let capacity = contract.inputs[4].shape[1];
    let length = cache.vectors.need("token_ids").values.len();
    let next_position = cache.vectors.extra["next_rope_position"].as_i64().unwrap();
    let own_tokens = contract.sizes["own_tokens"].cast_signed();
    // Every frame after the first reuses the cache, with the position drift of the release.
    let position = Positions::ReleaseDrift.first(next_position, uses, own_tokens);
    let stored_positions = vectors.need(&format!("{frame}.position_ids"));
    assert_eq!(stored_positions.values[0] as i64, position, "{frame}: first position");

    let (channels, cells) = (feature.shape[1], feature.shape[2] * feature.shape[3]);
    let tokens: Vec<f32> = (0..cells * channels)
        .map(|i| feature.values[(i % channels) * cells + i / channels] as f32)
        .collect();
    let state: Vec<f32> = vectors
        .need(&format!("{frame}.v_target_point"))
        .values
        .iter()
        .map(|&value| value as f32)
        .collect();
    let mut inputs = named(vec![
        ("bev_tokens", HostTensor::from_slice(&[cells, channels], &tokens)),
        ("state", HostTensor::from_slice(&[5], &state)),
        ("position", integers(&[1], &[position])),
        ("prefix_length", integers(&[1], &[length as i64])),
    ]);
    for layer in 0..config.text.num_hidden_layers {
        for (stored, name, dim) in [
            (format!("k_cache.{layer}"), format!("keys.{layer}"), config.text.head_dim),
            (format!("v_cache.{layer}"), format!("values.{layer}"), value_dim),
        ] {
            let cache = cache.complete(&stored, &name, length);
            inputs.insert(name, head_major(&cache, heads, dim, capacity));
        }
    }
    Some(inputs)
}

/// Checks the action expert with a stored cache.
fn check_fast(fast: &str, slow: &str) {
    let (Some(vectors), Some(cache)) = (Vectors::read(fast), Vectors::read(slow)) else {
        eprintln!("this set of vectors has no {fast}");
        return;
    };
    let folder = export([256, 512], 4);
    let contract = NetworkFile::read(&folder.path().join("engine"), "action").unwrap().contract;
    let layers = contract.sizes["layers"] as usize;
    let mut cache = Cache { vectors: &cache, name: slow, computed: None };
    for (uses, frame) in ["f0", "f1", "f2"].into_iter().enumerate() {
        let Some(inputs) = fast_inputs(&vectors, &mut cache, &contract, frame, uses as i64) else {
            continue;
        };
        let outputs = run(folder.path(), "action", inputs);
        let compare = |stored: &str, found: &str| {
            let found = &outputs[found];
            let stored = format!("{frame}.{stored}");
            // Some vectors have a batch axis.
            let rank = vectors.get(&stored).map_or(0, |stored| stored.shape.len());
            let shape: Vec<usize> = match rank > found.shape().len() {
                true => [&[1], found.shape()].concat(),
                false => found.shape().to_vec(),
            };
            vectors.compare(&stored, found.as_slice(), &shape)
        };
        compare("input_embeds", "probe.input_embeds");
        compare("layer0.attn_out", "probe.layer.0.attention");
        for layer in 0..layers {
            compare(&format!("hidden.{layer}"), &format!("probe.hidden.{layer}"));
        }
        compare("last_hidden", "probe.last_hidden").needed();
        compare("route_raw", "probe.route_raw");
        compare("waypoint_raw", "probe.waypoint_raw");
        compare("reasoning_logits", "probe.decision_logits").needed();
        compare("route", "route").needed();
        compare("waypoints", "waypoints").needed();
        let ids = outputs["decision_ids"].as_slice::<i64>();
        vectors.compare_exactly(&format!("{frame}.reasoning_token_ids"), ids);
    }
}

#[test]
fn golden_fast_a_first_use_and_reuse_of_a_cache() {
    check_fast("fast_A", "slow_A");
}

#[test]
fn golden_fast_b() {
    check_fast("fast_B", "slow_B");
}

#[test]
fn golden_fast_c_real_prefix_length() {
    check_fast("fast_C", "slow_C");
}

#[test]
fn golden_trained_positions_do_not_drift() {
    assert_eq!(Positions::Trained.first(177, 3, 101), 177);
    assert_eq!(Positions::ReleaseDrift.first(177, 0, 101), 177);
    assert_eq!(Positions::ReleaseDrift.first(177, 2, 101), 379);
}

#[test]
fn golden_bev_encoder_stage_by_stage() {
    let Some(vectors) = Vectors::read("bev_encoder") else {
        eprintln!("this set of vectors has no bev_encoder");
        return;
    };
    let folder = export([256, 512], 4);
    for sample in ["s0", "s1", "s2", "s3"] {
        let Some(inputs) = bev_inputs(&vectors, sample) else { continue };
        let outputs = run(folder.path(), "bev", inputs);
        for (name, tensor) in outputs.iter().filter(|(name, _)| name.starts_with("probe.")) {
            assert_eq!(tensor.dtype(), DType::F32, "{name}");
            let name = format!("{sample}.{}", &name["probe.".len()..]);
            vectors.compare(&name, tensor.as_slice(), tensor.shape());
        }
        let shape = vectors.need(&format!("{sample}.bev_feature")).shape;
        let found = planes(&outputs["bev_tokens"]);
        vectors.compare(&format!("{sample}.bev_feature"), &found, &shape).needed();
    }
}

/// Returns the inputs of the BEV encoder for a stored sample, if the set has it.
pub(crate) fn bev_inputs(vectors: &Vectors, sample: &str) -> Option<BTreeMap<String, HostTensor>> {
    let image = vectors.get(&format!("{sample}.image"))?;
    let histogram = vectors.need(&format!("{sample}.lidar_bev"));
    let [channels, height, width] = image.shape[..] else { panic!("an image has three axes") };
    let plane = height * width;
    let pixels: Vec<u8> = (0..plane * channels)
        .map(|i| image.values[(i % channels) * plane + i / channels] as u8)
        .collect();
    let cells: Vec<f32> = histogram.values.iter().map(|&value| value as f32).collect();
    Some(named(vec![
        ("image", HostTensor::from_slice(&[height, width, channels], &pixels)),
        ("lidar", HostTensor::from_slice(&histogram.shape[1..], &cells)),
    ]))
}

/// Converts `[cells, channels]` to `[channels, cells]`.
pub(crate) fn planes(tokens: &HostTensor) -> Vec<f32> {
    let [cells, channels] = tokens.shape()[..] else { panic!("tokens have two axes") };
    let tokens = tokens.as_slice::<f32>();
    (0..channels * cells).map(|i| tokens[(i % cells) * channels + i / cells]).collect()
}
