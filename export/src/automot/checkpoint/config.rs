//! Validated sizes of an AutoMoT checkpoint.

use crate::dtype::DType;
use serde::{Deserialize, Serialize};

/// Sizes of the networks from `config.json`, `automot_args.json` and `bev_config.json`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AutomotConfig {
    /// Understanding expert: the text transformer.
    pub text: TextConfig,
    pub vision: VisionConfig,
    /// Action expert and its tokens.
    pub mot: MotConfig,
    pub bev: BevConfig,
    pub tokens: SpecialTokens,
    /// Type in `config.json` for loading the weights; stored tensors may have another.
    pub dtype: Option<DType>,
    /// Minimum and maximum number of pixels of a frame that the preprocessor does not resize; `None`
    /// without a preprocessor configuration.
    pub frame_pixels: Option<[usize; 2]>,
}

impl AutomotConfig {
    /// Describes the networks as text, one line each.
    pub(crate) fn networks_as_text(&self) -> Vec<String> {
        let Self { text, vision, mot, bev, .. } = self;
        vec![
            format!(
                "vision tower: {} blocks of {}, {} heads, patches of {} pixels, deepstack after {:?}",
                vision.depth,
                vision.hidden_size,
                vision.num_heads,
                vision.patch_size,
                vision.deepstack_visual_indexes
            ),
            format!(
                "understanding expert: {} layers of {}, {} query and {} key heads of {}, vocabulary \
                 of {}, rope theta {}",
                text.num_hidden_layers,
                text.hidden_size,
                text.num_attention_heads,
                text.num_key_value_heads,
                text.head_dim,
                text.vocab_size,
                text.rope_theta
            ),
            format!(
                "action expert: {} query and {} key heads, {} decision, {} route and {} waypoint \
                 queries",
                mot.num_attention_heads,
                mot.num_key_value_heads,
                mot.reasoning_tokens,
                mot.route_tokens,
                mot.waypoint_tokens
            ),
            format!(
                "BEV encoder: {} and {}, image {}x{}, LiDAR histogram {}x{} of {} channels",
                bev.image_architecture,
                bev.lidar_architecture,
                bev.image_size[0],
                bev.image_size[1],
                bev.lidar_size[0],
                bev.lidar_size[1],
                bev.lidar_channels
            ),
        ]
    }
}

/// `text_config` of `config.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Hidden width of the SwiGLU MLP.
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    /// Epsilon of every RMSNorm of the text stack.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Number of rotary frequencies of time, height and width; the sum is `head_dim / 2`.
    pub mrope_section: [usize; 3],
}

/// `vision_config` of `config.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    pub depth: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Hidden width of the MLP of a block.
    pub intermediate_size: usize,
    pub num_heads: usize,
    pub in_channels: usize,
    /// Height and width of a patch, pixels.
    pub patch_size: usize,
    /// Consecutive frames per patch.
    pub temporal_patch_size: usize,
    /// Side of the square of patches that are merged into one token.
    pub spatial_merge_size: usize,
    /// Width of the merged tokens: the text stack's hidden size.
    pub out_hidden_size: usize,
    /// Rows of the position table; a square number.
    pub num_position_embeddings: usize,
    /// Indices of the blocks after which a deepstack map is taken.
    pub deepstack_visual_indexes: Vec<usize>,
}

/// Sizes of the action expert: defaults of the AutoMoT release, overridden by `automot_args.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MotConfig {
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    /// Hidden width of the SwiGLU MLP.
    pub intermediate_size: usize,
    pub reasoning_tokens: usize,
    pub route_tokens: usize,
    pub waypoint_tokens: usize,
    /// Width of a stored decision query.
    pub reasoning_query_dim: usize,
    /// Width of a stored route or waypoint query.
    pub action_query_dim: usize,
}

/// Settings of `bev_config.json` that do not follow from the shapes of tensors.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BevConfig {
    /// Height and width of the camera image after cropping (the top left corner is kept), pixels.
    pub image_size: [usize; 2],
    /// Height and width of the LiDAR histogram, cells.
    pub lidar_size: [usize; 2],
    pub lidar_channels: usize,
    /// Rows and columns of image tokens in the fusion transformers.
    pub image_anchors: [usize; 2],
    /// Rows and columns of LiDAR tokens in the fusion transformers.
    pub lidar_anchors: [usize; 2],
    /// Attention heads of the fusion transformers.
    pub n_head: usize,
    /// True if the image is normalized by the mean and deviation of ImageNet.
    pub normalize_imagenet: bool,
    /// Edges of the histogram in the ego frame: min x, max x, min y, max y.
    pub bounds_m: [f64; 4],
    /// Number of points at which a cell saturates.
    pub hist_max_per_pixel: f64,
    /// Points at or below this height in the ego frame are ground.
    pub lidar_split_height_m: f64,
    /// Points at or above this height are dropped.
    pub max_height_lidar_m: f64,
    /// Blocks of each fusion transformer.
    pub n_layer: usize,
    /// Width of the MLP of a fusion block divided by the width of the transformer.
    pub block_exp: usize,
    /// Name of the camera trunk's architecture.
    pub image_architecture: String,
    /// Name of the LiDAR trunk's architecture.
    pub lidar_architecture: String,
}

/// Special token ids of `config.json`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SpecialTokens {
    /// Placeholder of an image token.
    pub image_pad: u32,
    /// Marker before the tokens of each image.
    pub vision_start: u32,
    /// Marker after the tokens of each image.
    pub vision_end: u32,
}
