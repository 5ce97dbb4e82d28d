//! Reads the configuration files of a checkpoint folder into [`AutomotConfig`] and validates them.

use super::config::{AutomotConfig, BevConfig, MotConfig, SpecialTokens, TextConfig, VisionConfig};
use super::{ignored_keys, preprocessor};
use crate::checkpoint::{CheckpointError, Fields, MAX_COUNT, TensorEntry};
use crate::dtype::DType;
use std::collections::BTreeMap;
use std::path::Path;

/// File with the sizes of the understanding expert and the vision tower.
pub(super) const CONFIG_FILE: &str = "config.json";

/// Maximum number of layers of a stack. The largest published models have about 130.
const MAX_LAYERS: usize = 1024;

/// Maximum side of a camera image or a LiDAR histogram.
const MAX_SIDE: usize = 8192;

/// Pose of the LiDAR that tandem assumes when it merges sweeps: meters, degrees.
const LIDAR_MOUNT: [(&str, [f64; 3]); 2] =
    [("lidar_pos", [0.0, 0.0, 2.5]), ("lidar_rot", [0.0, 0.0, -90.0])];

/// Epsilon of the vision tower's norms, for which Qwen3-VL's configuration has no key.
const VISION_EPSILON: f64 = 1e-6;

/// Files that mark weights that need processing which the exporter does not support.
const UNSUPPORTED_WEIGHTS: [(&str, &str, &str); 4] = [
    ("quantize_config.json", "quantized", "convert them to f32, f16 or bf16"),
    ("quant_config.json", "quantized", "convert them to f32, f16 or bf16"),
    ("hf_quant_config.json", "quantized", "convert them to f32, f16 or bf16"),
    ("adapter_config.json", "an adapter of other weights", "merge them first"),
];

/// Reads a `config.json`, and `automot_args.json` and `bev_config.json` in its folder. The number and
/// width of queries follow from the tensors, where these exist.
///
/// Every key of `config.json` is used, checked, or in the list of ignored keys. The other two files
/// are dumps of all settings of a program, of which inference reads only the keys that are read here.
pub(super) fn read(
    config_file: &Path,
    tensors: &BTreeMap<String, TensorEntry>,
) -> Result<AutomotConfig, CheckpointError> {
    let dir = config_file.parent().unwrap_or(Path::new(""));
    for (file, what, advice) in UNSUPPORTED_WEIGHTS {
        let path = dir.join(file);
        if path.exists() {
            return Err(CheckpointError::UnsupportedWeights { path, what, advice });
        }
    }
    let config = Fields::read(config_file)?.ok_or(CheckpointError::NoFile {
        dir: dir.into(),
        name: "config.json",
        advice: "copy it from the source of the weights",
    })?;
    let args_file = dir.join("automot_args.json");
    let args = Fields::read(&args_file)?.unwrap_or_else(|| Fields::empty(&args_file));
    let bev_file = dir.join("bev_config.json");
    let bev = Fields::read(&bev_file)?.unwrap_or_else(|| Fields::empty(&bev_file));

    unquantized(&config, config_file)?;
    model_type(&config, &["qwen3_vl"])?;
    let text_fields = config.object("text_config")?;
    let text = text(&text_fields)?;
    let vision_fields = config.object("vision_config")?;
    let vision = vision(&vision_fields, &text)?;
    let mot = mot(&args, &text_fields, &text, tensors)?;
    let tokens = tokens(&config, &text)?;
    let mut named_dtype = None;
    for fields in [&config, &vision_fields, &text_fields] {
        tied(fields)?;
        named_dtype = dtype(fields)?.or(named_dtype);
        flags(fields, false, &["is_encoder_decoder", "is_decoder", "add_cross_attention"])?;
        flags(fields, false, &["tie_encoder_decoder", "use_bfloat16"])?;
    }
    text_fields.finish(ignored_keys::CONFIG)?;
    vision_fields.finish(ignored_keys::CONFIG)?;
    config.finish(ignored_keys::CONFIG)?;
    let frame_pixels = preprocessor::read(dir, &vision)?;
    let bev = self::bev(&bev)?;
    Ok(AutomotConfig { text, vision, mot, bev, tokens, dtype: named_dtype, frame_pixels })
}

/// Refuses another model type, if the file names one.
fn model_type(fields: &Fields, known: &[&str]) -> Result<(), CheckpointError> {
    let found = fields.text_or("model_type", known[0])?;
    if known.contains(&found.as_str()) {
        return Ok(());
    }
    Err(fields.invalid("model_type", format!("one of {known:?}, the supported types")))
}

fn unquantized(config: &Fields, file: &Path) -> Result<(), CheckpointError> {
    if config.has("quantization_config") || config.has("compression_config") {
        return Err(CheckpointError::UnsupportedWeights {
            path: file.into(),
            what: "quantized",
            advice: "convert them to f32, f16 or bf16",
        });
    }
    Ok(())
}

fn tied(fields: &Fields) -> Result<(), CheckpointError> {
    if fields.flag_or("tie_word_embeddings", true)? {
        return Ok(());
    }
    let expected = "true: the output head is the embedding";
    Err(fields.invalid("tie_word_embeddings", expected.into()))
}

/// Reads the type in which to load weights. The stored types are in the weight files.
fn dtype(fields: &Fields) -> Result<Option<DType>, CheckpointError> {
    const KNOWN: [(&str, Option<DType>); 4] = [
        ("float32", Some(DType::F32)),
        ("float16", Some(DType::F16)),
        ("bfloat16", Some(DType::Bf16)),
        ("auto", None),
    ];
    let mut dtype = None;
    for key in ["torch_dtype", "dtype"] {
        let found = fields.text_or(key, "auto")?;
        let found = found.trim_start_matches("torch.");
        let Some((_, known)) = KNOWN.iter().find(|(name, _)| *name == found) else {
            let names = KNOWN.map(|(name, _)| name);
            return Err(fields.invalid(key, format!("one of {names:?}")));
        };
        dtype = known.or(dtype);
    }
    Ok(dtype)
}

/// Checks boolean keys for which only one value is supported.
fn flags(fields: &Fields, only: bool, keys: &[&str]) -> Result<(), CheckpointError> {
    match keys.iter().find_map(|key| match fields.flag_or(key, only) {
        Ok(value) if value == only => None,
        Ok(_) => Some(fields.invalid(key, format!("{only}, the only supported value"))),
        Err(error) => Some(error),
    }) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The rotary embedding of the text stack.
#[derive(PartialEq)]
struct Rope {
    theta: f64,
    section: [usize; 3],
}

/// Reads the rotary keys of either layout: `rope_scaling` and a separate `rope_theta`, or
/// `rope_parameters`, which newer writers use for both. Repeated values must agree.
fn rope(fields: &Fields) -> Result<Rope, CheckpointError> {
    let separate = if fields.has("rope_theta") { Some(fields.number("rope_theta")?) } else { None };
    let mut rope: Option<Rope> = None;
    for key in ["rope_parameters", "rope_scaling"] {
        if !fields.has(key) {
            continue;
        }
        let holder = fields.object(key)?;
        let section = rope_section(&holder)?;
        let theta = match separate {
            Some(theta) if !holder.has("rope_theta") => theta,
            _ => holder.number("rope_theta")?,
        };
        if let Some(separate) = separate.filter(|separate| *separate != theta) {
            let expected = format!("{separate}, the value of the separate rope_theta");
            return Err(holder.invalid("rope_theta", expected));
        }
        if theta <= 1.0 {
            let holder = if separate.is_some() { fields } else { &holder };
            return Err(holder.invalid("rope_theta", "a number above one".into()));
        }
        holder.finish(&[])?;
        let found = Rope { theta, section };
        if rope.as_ref().is_some_and(|rope| *rope != found) {
            return Err(fields.invalid(key, "the same as rope_parameters".into()));
        }
        rope = Some(found);
    }
    match rope {
        Some(rope) => Ok(rope),
        // Returns the error that the key is missing.
        None => fields.object("rope_scaling").map(|_| unreachable!("it was looked for above")),
    }
}

/// Checks the type of the rotary embedding and reads the sections of time, height and width.
fn rope_section(rope: &Fields) -> Result<[usize; 3], CheckpointError> {
    // Older writers name the key `type`, and those of Qwen2-VL name the default "mrope".
    for key in ["rope_type", "type"] {
        if !["default", "mrope"].contains(&rope.text_or(key, "default")?.as_str()) {
            return Err(rope.invalid(key, "\"default\", the only supported type".into()));
        }
    }
    flags(rope, true, &["mrope_interleaved"])?;
    for key in ["factor", "attention_factor", "partial_rotary_factor"] {
        exactly(rope, key, 1.0)?;
    }
    let section = rope.indices("mrope_section")?;
    if let Some(&large) = section.iter().find(|&&pairs| pairs > MAX_COUNT) {
        return Err(
            rope.invalid("mrope_section", format!("numbers up to {MAX_COUNT}, not {large}"))
        );
    }
    <[usize; 3]>::try_from(section).map_err(|found| {
        rope.invalid("mrope_section", format!("three numbers, not {}", found.len()))
    })
}

/// Checks an optional number for which only one value is supported.
fn exactly(fields: &Fields, key: &str, only: f64) -> Result<(), CheckpointError> {
    if fields.number_or(key, only)? == only {
        return Ok(());
    }
    Err(fields.invalid(key, format!("{only}, the only supported value")))
}

/// Refuses windowed attention.
fn full_attention(fields: &Fields, layers: usize) -> Result<(), CheckpointError> {
    // The width of the window has no effect with an explicit false.
    let is_windowed = fields.flag_or("use_sliding_window", fields.has("sliding_window"))?;
    if is_windowed {
        let key =
            if fields.has("use_sliding_window") { "use_sliding_window" } else { "sliding_window" };
        return Err(fields.invalid(key, "full attention, the only supported kind".into()));
    }
    if fields.has("layer_types") {
        let types = fields.texts("layer_types")?;
        if types.len() != layers || types.iter().any(|layer| layer != "full_attention") {
            let expected = format!("{layers} times \"full_attention\", the only supported type");
            return Err(fields.invalid("layer_types", expected));
        }
    }
    Ok(())
}

fn text(fields: &Fields) -> Result<TextConfig, CheckpointError> {
    model_type(fields, &["qwen3_vl_text"])?;
    fixed(fields, "hidden_act", "silu")?;
    flags(fields, false, &["attention_bias", "mlp_bias"])?;
    for key in ["num_experts", "num_experts_per_tok", "moe_intermediate_size"] {
        if fields.has(key) && fields.number(key)? != 0.0 {
            return Err(fields.invalid(key, "0: mixtures of experts are not supported".into()));
        }
    }
    exactly(fields, "partial_rotary_factor", 1.0)?;
    let rope = rope(fields)?;
    let text = TextConfig {
        vocab_size: fields.count("vocab_size")?,
        hidden_size: fields.count("hidden_size")?,
        intermediate_size: fields.count("intermediate_size")?,
        num_hidden_layers: fields.count_up_to("num_hidden_layers", MAX_LAYERS)?,
        num_attention_heads: fields.count("num_attention_heads")?,
        num_key_value_heads: fields.count("num_key_value_heads")?,
        head_dim: fields.count("head_dim")?,
        rms_norm_eps: fields.number("rms_norm_eps")?,
        rope_theta: rope.theta,
        mrope_section: rope.section,
    };
    full_attention(fields, text.num_hidden_layers)?;
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
        return Err(fields.invalid(
            "head_dim",
            format!("twice the sum of mrope_section, {:?}", text.mrope_section),
        ));
    }
    Ok(text)
}

fn vision(fields: &Fields, text: &TextConfig) -> Result<VisionConfig, CheckpointError> {
    model_type(fields, &["qwen3_vl", "qwen3_vl_vision"])?;
    fixed(fields, "hidden_act", "gelu_pytorch_tanh")?;
    for key in ["layer_norm_eps", "norm_eps", "rms_norm_eps"] {
        exactly(fields, key, VISION_EPSILON)?;
    }
    let vision = VisionConfig {
        depth: fields.count_up_to("depth", MAX_LAYERS)?,
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
    if vision.in_channels != 3 {
        return Err(fields.invalid("in_channels", "3: a camera's red, green and blue".into()));
    }
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
            format!("increasing block indices below depth, {}", vision.depth),
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

/// Reads the sizes of the action expert. `automot_args.json` takes precedence over `text_config`, and
/// that over the defaults of the AutoMoT release, as program arguments do there over files.
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
    // The group size of the understanding expert determines which key head a query head reads. Heads
    // are padded to those of the understanding expert, so there cannot be more.
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
            return Err(args.invalid(key, format!("{found}, as in the query tensors")));
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

/// Returns the file that provides the value of `key`.
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
        n_layer: if fields.has("n_layer") {
            fields.count_up_to("n_layer", MAX_LAYERS)?
        } else {
            2
        },
        block_exp: fields.count_or("block_exp", 4)?,
        image_architecture: fields.text_or("image_architecture", "regnety_032")?,
        lidar_architecture: fields.text_or("lidar_architecture", "regnety_032")?,
    };
    for (keys, sides) in [
        (["cropped_height", "cropped_width"], bev.image_size),
        (["lidar_resolution_height", "lidar_resolution_width"], bev.lidar_size),
    ] {
        for (key, side) in keys.into_iter().zip(sides) {
            // Without cropping, the values come from the camera keys.
            let key =
                if fields.has(key) { key.to_owned() } else { key.replace("cropped", "camera") };
            fields.at_most(&key, side, MAX_SIDE)?;
        }
    }
    for (key, mount) in LIDAR_MOUNT {
        if fields.has(key) && fields.numbers(key, 3)? != mount {
            return Err(fields.invalid(key, format!("{mount:?}, the only supported mount")));
        }
    }
    flags(fields, true, &["transformer_decoder_join"])?;
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

/// Checks an optional string for which only one value is supported.
fn fixed(fields: &Fields, key: &str, only: &str) -> Result<(), CheckpointError> {
    if fields.text_or(key, only)? == only {
        return Ok(());
    }
    Err(fields.invalid(key, format!("{only:?}, the only supported value")))
}
