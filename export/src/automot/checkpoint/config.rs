//! The sizes of an AutoMoT checkpoint, checked and complete.

use crate::dtype::DType;
use serde::{Deserialize, Serialize};

/// Everything that `config.json`, `automot_args.json` and `bev_config.json` say about the networks.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AutomotConfig {
    /// Understanding expert: the text transformer.
    pub text: TextConfig,
    /// Vision tower.
    pub vision: VisionConfig,
    /// Action expert and its tokens.
    pub mot: MotConfig,
    /// BEV encoder.
    pub bev: BevConfig,
    /// Special token ids.
    pub tokens: SpecialTokens,
    /// Type that `config.json` names for loading the weights; the tensors have their own.
    pub dtype: Option<DType>,
    /// Least and most pixels of a frame that the preprocessor does not resize; `None` if the
    /// checkpoint says nothing of its preprocessor.
    pub frame_pixels: Option<[usize; 2]>,
}

impl AutomotConfig {
    /// Describes the networks, one line each.
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
                "BEV encoder: {} and {}, picture {}x{}, LiDAR histogram {}x{} of {} channels",
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
    /// Width of the SwiGLU MLP.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Epsilon of every RMSNorm of the text stack.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How many rotary frequencies belong to time, height and width; sums to `head_dim / 2`.
    pub mrope_section: [usize; 3],
}

/// `vision_config` of `config.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Transformer blocks.
    pub depth: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Image channels.
    pub in_channels: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Frames folded into one patch.
    pub temporal_patch_size: usize,
    /// Side of the square of patches that the mergers fold into one token.
    pub spatial_merge_size: usize,
    /// Width of the merged tokens: the text stack's hidden size.
    pub out_hidden_size: usize,
    /// Rows of the position table; a square number.
    pub num_position_embeddings: usize,
    /// After which blocks a deepstack map is taken.
    pub deepstack_visual_indexes: Vec<usize>,
}

/// Sizes of the action expert: the release's program defaults, overridden by `automot_args.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MotConfig {
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of the SwiGLU MLP.
    pub intermediate_size: usize,
    /// Decision queries.
    pub reasoning_tokens: usize,
    /// Route queries.
    pub route_tokens: usize,
    /// Waypoint queries.
    pub waypoint_tokens: usize,
    /// Width of a stored decision query.
    pub reasoning_query_dim: usize,
    /// Width of a stored route or waypoint query.
    pub action_query_dim: usize,
}

/// What `bev_config.json` says that the tensors' shapes do not.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BevConfig {
    /// Height and width of the camera picture after cropping (top left corner kept), pixels.
    pub image_size: [usize; 2],
    /// Height and width of the LiDAR histogram, cells.
    pub lidar_size: [usize; 2],
    /// Channels of the LiDAR histogram.
    pub lidar_channels: usize,
    /// Rows and columns of image tokens in the fusion transformers.
    pub image_anchors: [usize; 2],
    /// Rows and columns of LiDAR tokens in the fusion transformers.
    pub lidar_anchors: [usize; 2],
    /// Attention heads of the fusion transformers.
    pub n_head: usize,
    /// True if the picture is normalized by ImageNet's mean and deviation.
    pub normalize_imagenet: bool,
    /// Edges of the histogram in the ego frame: min x, max x, min y, max y, meters.
    pub bounds_m: [f64; 4],
    /// Counts at and above this saturate a cell.
    pub hist_max_per_pixel: f64,
    /// Points at or below this height in the ego frame are ground, meters.
    pub lidar_split_height_m: f64,
    /// Points at or above this height are dropped, meters.
    pub max_height_lidar_m: f64,
    /// Blocks of each fusion transformer.
    pub n_layer: usize,
    /// Width of a fusion block's MLP over the transformer's.
    pub block_exp: usize,
    /// Name of the camera trunk's architecture.
    pub image_architecture: String,
    /// Name of the LiDAR trunk's architecture.
    pub lidar_architecture: String,
}

/// Special token ids of `config.json`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SpecialTokens {
    /// Stands where an image token goes.
    pub image_pad: u32,
    /// Before each image.
    pub vision_start: u32,
    /// After each image.
    pub vision_end: u32,
}
