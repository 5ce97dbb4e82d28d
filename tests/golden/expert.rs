//! AutoMoT's understanding expert from frames and driving state to keys and values, against the
//! golden vectors: prompt, tokens, frame features and their cache wired together.

use crate::networks::compare_cache;
use crate::vectors::{self, Vectors};
use std::sync::Arc;
use tandem::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use tandem::engine::{Backend, NetworkFile};
use tandem::kv_cache::{KvSnapshot, Layout, SlotPool};
use tandem::model::automot::tokenizer::Tokenizer;
use tandem::model::automot::{AutomotUnderstanding, Networks};
use tandem::model::{RefreshRequest, UnderstandingExpert};
use tandem::scene::{CameraFrame, FrameId};
use tandem::timing::{Stage, StageSpans, Timestamp};
use tandem_export::checkpoint::Checkpoint;
use tandem_export::folder::export_networks;
use tandem_export::networks::{ExportOptions, Precision};

/// The networks of the golden checkpoint, whose BEV encoder and action expert do not chain: nothing
/// here runs those two.
fn networks(options: &ExportOptions) -> Networks {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("engine");
    let checkpoint = Checkpoint::open(&vectors::folder()).unwrap();
    export_networks(&checkpoint, options, &out, &mut |_| {}).unwrap();
    let backend =
        OnnxRuntime::open(CpuOptions::default(), &mut |line| eprintln!("{line}")).unwrap();
    let load = |name| backend.load(&NetworkFile::read(&out, name).unwrap()).unwrap();
    let understanding = load("understanding");
    let [keys, values] = [0, 1].map(|index| &understanding.contract().outputs[index]);
    let prefix = Layout {
        layers: understanding.contract().outputs.len() / 2,
        heads: keys.shape[0],
        capacity: keys.shape[1],
        key_dim: keys.shape[2],
        value_dim: values.shape[2],
        dtype: keys.dtype,
    };
    let (vision, bev, action) = (load("vision"), load("bev"), load("action"));
    Networks { vision, understanding, bev, action, prefix }
}

/// Speed and target points of the prompt that a case was made with.
fn state_of(prompt: &str) -> (f32, [[f32; 2]; 2]) {
    let text = std::fs::read(vectors::folder().join("text.json")).unwrap();
    let text: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let entry = text["prompts"].as_array().unwrap().iter().find(|entry| entry["prompt"] == prompt);
    let state: Vec<f32> = entry.expect("text.json has every case's state")["state_float32_exact"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap() as f32)
        .collect();
    (state[0], [[state[1], state[2]], [state[3], state[4]]])
}

/// Compares every layer's keys and values with the case's cache.
fn compare(vectors: &Vectors, snapshot: &KvSnapshot) {
    let length = snapshot.meta().valid_length;
    for layer in 0..snapshot.slot().layout().layers {
        let (keys, values) = (snapshot.slot().keys(layer), snapshot.slot().values(layer));
        compare_cache(vectors, &format!("k_cache.{layer}"), keys, length).needed();
        compare_cache(vectors, &format!("v_cache.{layer}"), values, length).needed();
    }
}

/// An expert over the golden checkpoint, its pool, and the request of a stored case.
pub(crate) fn expert_for(
    vectors: &Vectors,
    precision: Precision,
) -> (AutomotUnderstanding, SlotPool, RefreshRequest) {
    let first = vectors.need("image.0");
    let (height, width) = (first.shape[0], first.shape[1]);
    let count = vectors.need("image_grid_thw").shape[0];
    let options = ExportOptions {
        precision,
        frame_size: [height, width],
        frames: count,
        ..ExportOptions::default()
    };
    let networks = networks(&options);
    let tokenizer = Tokenizer::read(&vectors::folder().join("tokenizer.json")).unwrap();
    let expert = AutomotUnderstanding::new(&networks, tokenizer).unwrap();
    let pool = SlotPool::new(networks.prefix, 3);

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
    let request = RefreshRequest {
        version: 1,
        captured_at: Timestamp::ZERO,
        frames,
        target_points_m,
        speed_mps,
    };
    (expert, pool, request)
}

#[test]
fn golden_slow_c_from_frames_and_state_to_a_sealed_prefix() {
    let Some(vectors) = Vectors::read("slow_C") else {
        eprintln!("this set of vectors has no slow_C");
        return;
    };
    let (mut expert, pool, mut request) = expert_for(&vectors, Precision::F32);
    let mut spans = StageSpans::default();
    let snapshot = expert.refresh(&request, pool.writer().unwrap(), &mut spans).unwrap();
    let next = vectors.extra["next_rope_position"].as_i64().unwrap();
    assert_eq!(snapshot.meta().next_position, next);
    assert!(spans.took(Stage::Understanding).is_some() && spans.took(Stage::Vision).is_some());
    compare(&vectors, &snapshot);

    // Every frame is known now: the second prefix rests on cached features and is the same, bit for
    // bit; the first must not change under its readers.
    request.version = 2;
    let again = expert.refresh(&request, pool.writer().unwrap(), &mut spans).unwrap();
    for (first, second) in snapshot.slot().tensors().zip(again.slot().tensors()) {
        assert!(first.bytes() == second.bytes(), "cached features changed a prefix");
    }
    compare(&vectors, &snapshot);
}
