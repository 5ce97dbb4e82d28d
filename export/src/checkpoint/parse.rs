//! The configuration files of a checkpoint folder, read into [`AutomotConfig`] and checked.

use super::config::{AutomotConfig, BevConfig, MotConfig, SpecialTokens, TextConfig, VisionConfig};
use super::fields::Fields;
use super::{CheckpointError, TensorEntry};
use std::collections::BTreeMap;
use std::path::Path;

/// Reads `config.json`, `automot_args.json` and `bev_config.json`. The numbers of queries and
/// their widths are the tensors' own, where there are such tensors.
pub(super) fn read(
    dir: &Path,
    tensors: &BTreeMap<String, TensorEntry>,
) -> Result<AutomotConfig, CheckpointError> {
    let config = Fields::read(&dir.join("config.json"))?.ok_or(CheckpointError::NoFile {
        dir: dir.into(),
        name: "config.json",
        advice: "copy it from where the weights came from",
    })?;
    let args_file = dir.join("automot_args.json");
    let args = Fields::read(&args_file)?.unwrap_or_else(|| Fields::empty(&args_file));
    let bev_file = dir.join("bev_config.json");
    let bev = Fields::read(&bev_file)?.unwrap_or_else(|| Fields::empty(&bev_file));

    let text_fields = config.object("text_config")?;
    let text = text(&text_fields)?;
    let vision = vision(&config.object("vision_config")?, &text)?;
    let mot = mot(&args, &text_fields, &text, tensors)?;
    let tokens = tokens(&config, &text)?;
    Ok(AutomotConfig { text, vision, mot, bev: self::bev(&bev)?, tokens })
}

fn text(fields: &Fields) -> Result<TextConfig, CheckpointError> {
    fixed(fields, "hidden_act", "silu")?;
    if fields.flag_or("attention_bias", false)? {
        return Err(fields.invalid("attention_bias", "false: the model has no such biases".into()));
    }
    // Newer writers gather both rotary keys in one object.
    let (rope, theta) = if fields.has("rope_parameters") {
        let rope = fields.object("rope_parameters")?;
        let theta = rope.number("rope_theta")?;
        (rope, theta)
    } else {
        (fields.object("rope_scaling")?, fields.number("rope_theta")?)
    };
    fixed(&rope, "rope_type", "default")?;
    if !rope.flag_or("mrope_interleaved", true)? {
        return Err(rope.invalid("mrope_interleaved", "true: the only layout of this model".into()));
    }
    if theta <= 1.0 {
        let holder = if fields.has("rope_parameters") { &rope } else { fields };
        return Err(holder.invalid("rope_theta", "a number above one".into()));
    }
    let section = rope.indices("mrope_section")?;
    let text = TextConfig {
        vocab_size: fields.count("vocab_size")?,
        hidden_size: fields.count("hidden_size")?,
        intermediate_size: fields.count("intermediate_size")?,
        num_hidden_layers: fields.count("num_hidden_layers")?,
        num_attention_heads: fields.count("num_attention_heads")?,
        num_key_value_heads: fields.count("num_key_value_heads")?,
        head_dim: fields.count("head_dim")?,
        rms_norm_eps: fields.number("rms_norm_eps")?,
        rope_theta: theta,
        mrope_section: <[usize; 3]>::try_from(section).map_err(|found| {
            rope.invalid("mrope_section", format!("three numbers, not {}", found.len()))
        })?,
    };
    if text.rms_norm_eps <= 0.0 {
        return Err(fields.invalid("rms_norm_eps", "a number above zero".into()));
    }
    if !text.num_attention_heads.is_multiple_of(text.num_key_value_heads) {
        return Err(fields.invalid(
            "num_attention_heads",
            format!("a multiple of num_key_value_heads, {}", text.num_key_value_heads),
        ));
    }
    if !text.hidden_size.is_multiple_of(text.num_attention_heads) {
        return Err(fields.invalid(
            "hidden_size",
            format!(
                "a multiple of num_attention_heads, {}: the quotient is the action expert's head",
                text.num_attention_heads
            ),
        ));
    }
    if !text.head_dim.is_multiple_of(2) {
        return Err(fields.invalid("head_dim", "an even number".into()));
    }
    let action_head_dim = text.hidden_size / text.num_attention_heads;
    if action_head_dim > text.head_dim {
        return Err(fields.invalid(
            "head_dim",
            format!(
                "at least hidden_size / num_attention_heads, {action_head_dim}: \
                 the action expert's heads are padded to it"
            ),
        ));
    }
    if text.mrope_section.iter().sum::<usize>() != text.head_dim / 2 {
        return Err(rope.invalid(
            "mrope_section",
            format!("numbers whose sum is head_dim / 2, {}", text.head_dim / 2),
        ));
    }
    Ok(text)
}

fn vision(fields: &Fields, text: &TextConfig) -> Result<VisionConfig, CheckpointError> {
    fixed(fields, "hidden_act", "gelu_pytorch_tanh")?;
    let vision = VisionConfig {
        depth: fields.count("depth")?,
        hidden_size: fields.count("hidden_size")?,
        intermediate_size: fields.count("intermediate_size")?,
        num_heads: fields.count("num_heads")?,
        in_channels: fields.count("in_channels")?,
        patch_size: fields.count("patch_size")?,
        temporal_patch_size: fields.count("temporal_patch_size")?,
        spatial_merge_size: fields.count("spatial_merge_size")?,
        out_hidden_size: fields.count("out_hidden_size")?,
        num_position_embeddings: fields.count("num_position_embeddings")?,
        deepstack_visual_indexes: fields.indices("deepstack_visual_indexes")?,
    };
    // Rotary angles: half of a head for the row, half for the column, each in pairs.
    if !vision.hidden_size.is_multiple_of(4 * vision.num_heads) {
        return Err(fields.invalid(
            "hidden_size",
            format!("a multiple of 4 num_heads, {}", 4 * vision.num_heads),
        ));
    }
    if vision.num_position_embeddings.isqrt().pow(2) != vision.num_position_embeddings {
        return Err(fields.invalid("num_position_embeddings", "a square number".into()));
    }
    if vision.out_hidden_size != text.hidden_size {
        return Err(fields
            .invalid("out_hidden_size", format!("text_config.hidden_size, {}", text.hidden_size)));
    }
    let deepstack = &vision.deepstack_visual_indexes;
    if deepstack.iter().any(|&index| index >= vision.depth) || !deepstack.is_sorted_by(|a, b| a < b)
    {
        return Err(fields.invalid(
            "deepstack_visual_indexes",
            format!("rising block indexes below depth, {}", vision.depth),
        ));
    }
    if deepstack.len() > text.num_hidden_layers {
        return Err(fields.invalid(
            "deepstack_visual_indexes",
            format!("at most one per text layer, {}", text.num_hidden_layers),
        ));
    }
    Ok(vision)
}

/// The action expert's sizes: `automot_args.json` over `text_config` over the release's defaults,
/// as the release's program arguments win over its files.
fn mot(
    args: &Fields,
    text_fields: &Fields,
    text: &TextConfig,
    tensors: &BTreeMap<String, TensorEntry>,
) -> Result<MotConfig, CheckpointError> {
    let size = |key: &str, default: usize| {
        args.count_or(key, text_fields.count_or(key, default)?)
            .map(|size| (size, holder(args, text_fields, key)))
    };
    fixed(args, "connector_act", "gelu_pytorch_tanh")?;
    let (num_attention_heads, heads_in) = size("mot_num_attention_heads", 16)?;
    let (num_key_value_heads, kv_heads_in) = size("mot_num_key_value_heads", 4)?;
    let (intermediate_size, _) = size("mot_intermediate_size", 4864)?;
    if num_attention_heads > text.num_attention_heads {
        return Err(heads_in.invalid(
            "mot_num_attention_heads",
            format!("at most num_attention_heads, {}", text.num_attention_heads),
        ));
    }
    // A query head reads the key head that the understanding expert's group says, whatever the two
    // counts here; only heads that the understanding expert has can be padded to.
    if num_key_value_heads > text.num_key_value_heads {
        return Err(kv_heads_in.invalid(
            "mot_num_key_value_heads",
            format!("at most num_key_value_heads, {}", text.num_key_value_heads),
        ));
    }

    let shape = |name: &str| -> Option<[usize; 2]> {
        <[usize; 2]>::try_from(tensors.get(name)?.shape.as_slice()).ok()
    };
    let reasoning = shape("reasoning_queries.weight").unwrap_or([
        args.count_or("reasoning_query_max_num_tokens", 8)?,
        args.count_or("reasoning_query_dim", 588)?,
    ]);
    let action_dim = args.count_or("action_query_dim", 588)?;
    let route = shape("route_queries.weight").unwrap_or([20, action_dim]);
    let waypoint = shape("waypoint_queries.weight").unwrap_or([6, action_dim]);
    for (key, found) in [
        ("reasoning_query_max_num_tokens", reasoning[0]),
        ("reasoning_query_dim", reasoning[1]),
        ("action_query_dim", route[1]),
        ("action_query_dim", waypoint[1]),
        ("action_query_tokens", route[0] + waypoint[0]),
    ] {
        if args.count_or(key, found)? != found {
            return Err(args.invalid(key, format!("{found}, as the query tensors have it")));
        }
    }
    Ok(MotConfig {
        num_attention_heads,
        num_key_value_heads,
        intermediate_size,
        reasoning_tokens: reasoning[0],
        route_tokens: route[0],
        waypoint_tokens: waypoint[0],
        reasoning_query_dim: reasoning[1],
        action_query_dim: route[1],
    })
}

/// The file whose value of `key` counts.
fn holder<'a>(args: &'a Fields, text: &'a Fields, key: &str) -> &'a Fields {
    if args.has(key) || !text.has(key) { args } else { text }
}

fn bev(fields: &Fields) -> Result<BevConfig, CheckpointError> {
    let image_size = if fields.flag_or("crop_image", true)? {
        [fields.count_or("cropped_height", 384)?, fields.count_or("cropped_width", 1024)?]
    } else {
        [fields.count_or("camera_height", 512)?, fields.count_or("camera_width", 1024)?]
    };
    let ground_planes = if fields.flag_or("use_ground_plane", false)? { 2 } else { 1 };
    let bev = BevConfig {
        image_size,
        lidar_size: [
            fields.count_or("lidar_resolution_height", 256)?,
            fields.count_or("lidar_resolution_width", 256)?,
        ],
        lidar_channels: ground_planes * fields.count_or("lidar_seq_len", 1)?,
        image_anchors: [
            fields.count_or("img_vert_anchors", 12)?,
            fields.count_or("img_horz_anchors", 32)?,
        ],
        lidar_anchors: [
            fields.count_or("lidar_vert_anchors", 8)?,
            fields.count_or("lidar_horz_anchors", 8)?,
        ],
        n_head: fields.count_or("n_head", 4)?,
        normalize_imagenet: fields.flag_or("normalize_imagenet", true)?,
        bounds_m: [
            fields.number_or("min_x", -32.0)?,
            fields.number_or("max_x", 32.0)?,
            fields.number_or("min_y", -32.0)?,
            fields.number_or("max_y", 32.0)?,
        ],
        hist_max_per_pixel: fields.number_or("hist_max_per_pixel", 5.0)?,
        lidar_split_height_m: fields.number_or("lidar_split_height", 0.2)?,
        max_height_lidar_m: fields.number_or("max_height_lidar", 100.0)?,
        n_layer: fields.count_or("n_layer", 2)?,
        block_exp: fields.count_or("block_exp", 4)?,
        image_architecture: fields.text_or("image_architecture", "regnety_032")?,
        lidar_architecture: fields.text_or("lidar_architecture", "regnety_032")?,
    };
    if bev.hist_max_per_pixel <= 0.0 {
        return Err(fields.invalid("hist_max_per_pixel", "a number above zero".into()));
    }
    let cells_per_m = fields.number_or("pixels_per_meter", 4.0)?;
    let [min_x, max_x, min_y, max_y] = bev.bounds_m;
    for (key, cells, meters) in [
        ("lidar_resolution_height", bev.lidar_size[0], max_y - min_y),
        ("lidar_resolution_width", bev.lidar_size[1], max_x - min_x),
    ] {
        if cells as f64 != meters * cells_per_m {
            return Err(fields.invalid(
                key,
                format!("{}: {meters} m at {cells_per_m} cells per meter", meters * cells_per_m),
            ));
        }
    }
    Ok(bev)
}

fn tokens(fields: &Fields, text: &TextConfig) -> Result<SpecialTokens, CheckpointError> {
    let token = |key: &str| {
        let id = fields.token(key)?;
        if (id as usize) < text.vocab_size {
            Ok(id)
        } else {
            Err(fields.invalid(key, format!("an id below vocab_size, {}", text.vocab_size)))
        }
    };
    Ok(SpecialTokens {
        image_pad: token("image_token_id")?,
        vision_start: token("vision_start_token_id")?,
        vision_end: token("vision_end_token_id")?,
    })
}

/// Checks a key that may be absent but of which the model knows one value only.
fn fixed(fields: &Fields, key: &str, only: &str) -> Result<(), CheckpointError> {
    if fields.text_or(key, only)? == only {
        return Ok(());
    }
    Err(fields.invalid(key, format!("{only:?}: the only one of this model")))
}
