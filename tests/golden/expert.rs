//! Comparison of AutoMoT's understanding expert, from frames and driving state to keys and values, with
//! the golden vectors. Includes prompt, tokens, frame features and their cache.

use crate::networks::compare_cache;
use crate::vectors::{self, Vectors};
use std::sync::Arc;
use tandem::device::{Device, DeviceTensor, HostDevice};
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, NetworkFile};
use tandem::kv_cache::{KvSnapshot, Layout, Slot, SlotPool};
use tandem::model::automot::AutomotInputs;
use tandem::model::automot::stages;
use tandem::model::automot::tokenizer::Tokenizer;
use tandem::model::automot::{AutomotUnderstanding, Networks};
use tandem::model::{OpenGate, PrefillRequest, UnderstandingExpert};
use tandem::scene::random::SplitMix64;
use tandem::scene::{CameraFrame, FrameId};
use tandem::tensor::HostTensor;
use tandem::timing::{StageSpans, Timestamp};
use tandem_export::automot::Checkpoint;
use tandem_export::automot::ExportOptions;
use tandem_export::folder::export_networks;
use tandem_export::options::Precision;

/// Loads the networks of the golden checkpoint. Its BEV encoder and action expert cannot be chained and
/// are not run here.
fn networks(options: &ExportOptions) -> Networks {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("engine");
    let checkpoint = Checkpoint::open(&vectors::folder()).unwrap();
    export_networks(&checkpoint, options, &out, &mut |_| {}).unwrap();
    let backend =
        OnnxRuntime::open(CpuOptions::default(), &mut |line| eprintln!("{line}")).unwrap();
    let load = |name: &str| backend.load(&NetworkFile::read(&out, name).unwrap()).unwrap();
    let understanding: Vec<_> = match options.understanding_groups {
        1 => vec![load("understanding")],
        groups => (0..groups).map(|group| load(&format!("understanding.{group}"))).collect(),
    };
    let contract = understanding[0].contract();
    let [keys, values] = [0, 1].map(|index| &contract.outputs[index]);
    let prefix = Layout {
        layers: contract.sizes["layers"] as usize,
        heads: keys.shape[0],
        capacity: keys.shape[1],
        key_dim: keys.shape[2],
        value_dim: values.shape[2],
        dtype: keys.dtype,
    };
    let (vision, bev, action) = (load("vision"), load("bev"), load("action"));
    let device: Arc<dyn Device> = Arc::new(HostDevice::new());
    let streams = device.streams(None).unwrap();
    Networks { vision, understanding, bev, action, prefix, device, streams }
}

/// Returns speed and target points of the prompt of a case.
fn state_of(prompt: &str) -> (f32, [[f32; 2]; 2]) {
    let text = std::fs::read(vectors::folder().join("text.json")).unwrap();
    let text: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let entry = text["prompts"].as_array().unwrap().iter().find(|entry| entry["prompt"] == prompt);
    let state: Vec<f32> =
        entry.expect("text.json has the state of every case")["state_float32_exact"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap() as f32)
            .collect();
    (state[0], [[state[1], state[2]], [state[3], state[4]]])
}

/// Copies a tensor of the prefix KV cache to host memory.
pub(crate) fn on_host(slot: &Slot, tensor: &DeviceTensor) -> HostTensor {
    tensor.to_host(slot.device()).unwrap()
}

/// Compares the keys and values of every layer with the cache of the case.
fn compare(vectors: &Vectors, snapshot: &KvSnapshot) {
    let length = snapshot.meta().valid_length;
    for layer in 0..snapshot.slot().layout().layers {
        let (keys, values) = (
            on_host(snapshot.slot(), snapshot.slot().keys(layer)),
            on_host(snapshot.slot(), snapshot.slot().values(layer)),
        );
        compare_cache(vectors, &format!("k_cache.{layer}"), &keys, length).needed();
        compare_cache(vectors, &format!("v_cache.{layer}"), &values, length).needed();
    }
}

/// Creates an expert with the golden checkpoint, its pool, and the request of a stored case.
pub(crate) fn expert_for(
    vectors: &Vectors,
    precision: Precision,
    groups: usize,
) -> (AutomotUnderstanding, SlotPool, PrefillRequest<AutomotInputs>) {
    let first = vectors.need("image.0");
    let (height, width) = (first.shape[0], first.shape[1]);
    let count = vectors.need("image_grid_thw").shape[0];
    let options = ExportOptions {
        precision,
        frame_size: [height, width],
        frames: count,
        understanding_groups: groups,
        ..ExportOptions::default()
    };
    let networks = networks(&options);
    let tokenizer = Tokenizer::read(&vectors::folder().join("tokenizer.json")).unwrap();
    let expert = AutomotUnderstanding::new(&networks, tokenizer).unwrap();
    let pool = SlotPool::new(&networks.device, networks.prefix, 3).unwrap();

    let frames = (0..count)
        .map(|index| {
            let rgb = vectors.need(&format!("image.{index}")).values;
            Arc::new(CameraFrame {
                id: FrameId(1 + 5 * index as u64),
                captured_at: Timestamp::ZERO,
                width: width as u32,
                height: height as u32,
                rgb: rgb.into_iter().map(|value| value as u8).collect(),
            })
        })
        .collect();
    let (speed_mps, target_points_m) = state_of(vectors.extra["prompt"].as_str().unwrap());
    let request = PrefillRequest {
        version: 1,
        captured_at: Timestamp::ZERO,
        random: SplitMix64::new(0),
        inputs: AutomotInputs { frames, target_points_m, speed_mps },
    };
    (expert, pool, request)
}

#[test]
fn golden_slow_c_from_frames_and_state_to_prefix() {
    let Some(vectors) = Vectors::read("slow_C") else {
        eprintln!("this set of vectors has no slow_C");
        return;
    };
    let (mut expert, pool, mut request) = expert_for(&vectors, Precision::F32, 1);
    let mut spans = StageSpans::default();
    let snapshot = expert.prefill(&request, pool.writer().unwrap(), &OpenGate, &mut spans).unwrap();
    let next = vectors.extra["next_rope_position"].as_i64().unwrap();
    assert_eq!(snapshot.meta().next_position, next);
    assert!(spans.took(stages::UNDERSTANDING).is_some() && spans.took(stages::VISION).is_some());
    compare(&vectors, &snapshot);

    // All frames are cached now. The second prefix is computed from cached features and is equal bit
    // for bit. The first must not change.
    request.version = 2;
    let again = expert.prefill(&request, pool.writer().unwrap(), &OpenGate, &mut spans).unwrap();
    for (first, second) in snapshot.slot().tensors().zip(again.slot().tensors()) {
        let on_host = |tensor| on_host(snapshot.slot(), tensor);
        assert!(
            on_host(first).bytes() == on_host(second).bytes(),
            "cached features changed the prefix"
        );
    }
    compare(&vectors, &snapshot);
}

/// Compares keys and values from `groups` networks with the golden ones and, bit for bit, with those of
/// one network: the same operators run on the same numbers in the same order, and hidden states are
/// passed in the type in which they are computed.
#[track_caller]
fn check_groups(case: &str, groups: usize) {
    let Some(vectors) = Vectors::read(case) else {
        eprintln!("this set of vectors has no {case}");
        return;
    };
    let refresh = |groups: usize| {
        let (mut expert, pool, request) = expert_for(&vectors, Precision::F32, groups);
        let mut spans = StageSpans::default();
        // The second refresh writes over what the first left in hidden states and slot.
        drop(expert.prefill(&request, pool.writer().unwrap(), &OpenGate, &mut spans).unwrap());
        let mut spans = StageSpans::default();
        let prefix =
            expert.prefill(&request, pool.writer().unwrap(), &OpenGate, &mut spans).unwrap();
        (prefix, spans)
    };
    let (whole, spans) = refresh(1);
    assert_eq!(spans.took(stages::UNDERSTANDING_GROUP), None, "a single network is not a group");
    let (divided, spans) = refresh(groups);
    compare(&vectors, &divided);
    assert_eq!(whole.meta(), divided.meta());
    for (index, (one, many)) in whole.slot().tensors().zip(divided.slot().tensors()).enumerate() {
        let (layer, what) = (index / 2, ["keys", "values"][index % 2]);
        let [one, many] = [one, many].map(|tensor| on_host(whole.slot(), tensor));
        assert!(one.bytes() == many.bytes(), "{case}: {what} of layer {layer} in {groups} groups");
    }
    let find = |stage| spans.iter().filter(move |span| span.stage == stage);
    let around = find(stages::UNDERSTANDING).next().unwrap();
    let mut free_from_ns = around.start_ns;
    for span in find(stages::UNDERSTANDING_GROUP) {
        assert!(span.start_ns >= free_from_ns, "groups run in sequence");
        free_from_ns = span.start_ns + span.took_ns;
    }
    assert!(free_from_ns <= around.start_ns + around.took_ns);
    assert_eq!(find(stages::UNDERSTANDING_GROUP).count(), groups);
}

#[test]
fn golden_slow_a_through_two_groups() {
    check_groups("slow_A", 2);
}

#[test]
fn golden_slow_a_through_three_groups() {
    check_groups("slow_A", 3);
}

#[test]
fn golden_slow_c_through_two_and_three_groups() {
    check_groups("slow_C", 2);
    check_groups("slow_C", 3);
}
