//! The small files of a synthesized checkpoint folder, in the format of the AutoMoT release.

use super::SynthSpec;
use crate::dtype::DType;
use serde_json::{Value, json};

/// A byte-level BPE like Qwen2's with a thousand entries. The other rows of a
/// larger vocabulary are unused.
pub(super) const TOKENIZER: &str = include_str!("tokenizer.json");

/// Number of ids of the tokenizer file, including special tokens.
pub(super) const TOKENIZER_IDS: usize = 1000;

/// Returns name and text of every small file.
pub(super) fn all(spec: &SynthSpec) -> Vec<(&'static str, String)> {
    let pretty = |value: Value| format!("{value:#}\n");
    vec![
        ("config.json", pretty(config(spec))),
        ("automot_args.json", pretty(automot_args(spec))),
        ("bev_config.json", pretty(bev_config(spec))),
        ("preprocessor_config.json", pretty(preprocessor_config(spec))),
        ("tokenizer.json", TOKENIZER.to_owned()),
    ]
}

fn config(spec: &SynthSpec) -> Value {
    let (text, vision) = (&spec.text, &spec.vision);
    let dtype = if spec.dtype == DType::Bf16 { "bfloat16" } else { "float32" };
    json!({
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": 992,
        "video_token_id": 993,
        "vision_start_token_id": 989,
        "vision_end_token_id": 990,
        "tie_word_embeddings": true,
        "text_config": {
            "model_type": "qwen3_vl_text",
            "dtype": dtype,
            "bos_token_id": 980,
            "eos_token_id": 982,
            "attention_bias": false,
            "hidden_act": "silu",
            "vocab_size": text.vocab_size,
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "head_dim": text.head_dim,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": text.rope_theta,
            "rope_scaling": {
                "mrope_interleaved": true,
                "mrope_section": text.mrope_section,
                "rope_type": "default",
            },
            "max_position_embeddings": 262_144,
            "tie_word_embeddings": true,
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "hidden_act": "gelu_pytorch_tanh",
            "depth": vision.depth,
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_heads": vision.num_heads,
            "in_channels": vision.in_channels,
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "spatial_merge_size": vision.spatial_merge_size,
            "out_hidden_size": vision.out_hidden_size,
            "num_position_embeddings": vision.num_position_embeddings,
            "deepstack_visual_indexes": vision.deepstack_visual_indexes,
        },
    })
}

fn automot_args(spec: &SynthSpec) -> Value {
    let mot = &spec.mot;
    json!({
        "mot_num_attention_heads": mot.num_attention_heads,
        "mot_num_key_value_heads": mot.num_key_value_heads,
        "mot_intermediate_size": mot.intermediate_size,
        "reasoning_query_dim": mot.reasoning_query_dim,
        "reasoning_query_max_num_tokens": mot.reasoning_tokens,
        "action_query_dim": mot.action_query_dim,
        "action_query_tokens": mot.route_tokens + mot.waypoint_tokens,
        "connector_act": "gelu_pytorch_tanh",
    })
}

/// Contains jsonpickle's tags, so that readers are tested with them.
fn bev_config(spec: &SynthSpec) -> Value {
    let bev = &spec.bev;
    let [min_x, max_x, min_y, max_y] = bev.bounds_m;
    json!({
        "py/object": "config.GlobalConfig",
        "lidar_pos": {"py/tuple": [0.0, 0.0, 2.5]},
        "lidar_rot": {"py/tuple": [0.0, 0.0, -90.0]},
        "crop_image": true,
        "cropped_height": bev.image_size[0],
        "cropped_width": bev.image_size[1],
        "lidar_resolution_height": bev.lidar_size[0],
        "lidar_resolution_width": bev.lidar_size[1],
        "lidar_seq_len": bev.lidar_channels,
        "use_ground_plane": false,
        "img_vert_anchors": bev.image_anchors[0],
        "img_horz_anchors": bev.image_anchors[1],
        "lidar_vert_anchors": bev.lidar_anchors[0],
        "lidar_horz_anchors": bev.lidar_anchors[1],
        "image_architecture": bev.image_architecture,
        "lidar_architecture": bev.lidar_architecture,
        "n_layer": bev.n_layer,
        "n_head": bev.n_head,
        "block_exp": bev.block_exp,
        "normalize_imagenet": bev.normalize_imagenet,
        "min_x": min_x,
        "max_x": max_x,
        "min_y": min_y,
        "max_y": max_y,
        "pixels_per_meter": bev.lidar_size[1] as f64 / (max_x - min_x),
        "hist_max_per_pixel": bev.hist_max_per_pixel,
        "lidar_split_height": bev.lidar_split_height_m,
        "max_height_lidar": bev.max_height_lidar_m,
        "transformer_decoder_join": true,
    })
}

/// Qwen3-VL's settings with a lower bound on a frame's pixels that accepts small frames.
fn preprocessor_config(spec: &SynthSpec) -> Value {
    json!({
        "size": {"longest_edge": 16_777_216, "shortest_edge": 1024},
        "patch_size": spec.vision.patch_size,
        "temporal_patch_size": spec.vision.temporal_patch_size,
        "merge_size": spec.vision.spatial_merge_size,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessorFast",
    })
}
