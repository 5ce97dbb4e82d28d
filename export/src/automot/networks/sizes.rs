//! Sizes that several networks share.

use super::ExportOptions;
use crate::automot::checkpoint::Checkpoint;
use crate::family::NetworkError;

/// Maximum number of tokens of system prompt, user prompt and instruction.
const TEXT_TOKENS: usize = 116;

/// Prefix capacities are multiples of this.
const CAPACITY_STEP: usize = 64;

/// Maximum number of frames per prompt.
const MAX_FRAMES: usize = 256;

/// Maximum capacity of the prefix KV cache, tokens.
const MAX_PREFIX_CAPACITY: usize = 1 << 16;

/// Maximum number of pixels of a frame: that of Qwen3-VL's preprocessor.
const MAX_PIXELS: usize = 1 << 24;

/// Sizes derived from the configuration and the options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Rows and columns of patches in a frame.
    pub grid: [usize; 2],
    pub patches: usize,
    /// Image tokens per frame, after merging.
    pub frame_tokens: usize,
    /// Image tokens of all frames of a prompt.
    pub image_tokens: usize,
    /// Capacity of the prefix KV cache, tokens.
    pub prefix_capacity: usize,
    /// Query heads that share a key head of the understanding expert.
    pub group: usize,
    /// Number of leading key and value heads of the understanding expert that the action expert reads.
    pub kv_heads: usize,
    /// Width of the action expert's heads, and of the part of each value head that it reads.
    pub gen_head_dim: usize,
    /// Cells of the BEV feature, one token each.
    pub cells: usize,
    /// Tokens of the action expert by block: BEV cells, state, decision, route, waypoints.
    pub blocks: [usize; 5],
}

impl Sizes {
    /// Derives the sizes. Fails if the options or the configuration are
    /// inconsistent or out of range.
    pub fn new(checkpoint: &Checkpoint, options: &ExportOptions) -> Result<Self, NetworkError> {
        let config = checkpoint.config();
        let (text, vision, mot) = (&config.text, &config.vision, &config.mot);

        let multiple = vision.patch_size * vision.spatial_merge_size;
        if options.frame_size.iter().any(|&side| side == 0 || !side.is_multiple_of(multiple)) {
            return Err(NetworkError::FrameSize { frame: options.frame_size, multiple });
        }
        let pixels = options.frame_size[0].saturating_mul(options.frame_size[1]);
        let [least, most] = config.frame_pixels.unwrap_or([1, MAX_PIXELS]);
        let bounds = [least, most.min(MAX_PIXELS)];
        if !(bounds[0]..=bounds[1]).contains(&pixels) {
            return Err(NetworkError::FramePixels { frame: options.frame_size, bounds });
        }
        let grid = options.frame_size.map(|side| side / vision.patch_size);
        let patches = grid[0] * grid[1];
        let frame_tokens = patches / (vision.spatial_merge_size * vision.spatial_merge_size);

        if !(1..=MAX_FRAMES).contains(&options.frames) {
            return Err(NetworkError::Frames { frames: options.frames, limit: MAX_FRAMES });
        }
        // Every image is enclosed by a start and an end marker.
        let images = options.frames * (frame_tokens + 2);
        let fits = (images + TEXT_TOKENS).next_multiple_of(CAPACITY_STEP);
        let prefix_capacity = options.prefix_capacity.unwrap_or(fits);
        if prefix_capacity > MAX_PREFIX_CAPACITY {
            let (capacity, limit) = (prefix_capacity, MAX_PREFIX_CAPACITY);
            return Err(NetworkError::PrefixLimit { capacity, limit });
        }
        if prefix_capacity <= images {
            let needed = images + 1;
            return Err(NetworkError::PrefixCapacity { capacity: prefix_capacity, needed });
        }

        if text.num_key_value_heads == 0
            || !text.num_attention_heads.is_multiple_of(text.num_key_value_heads)
        {
            return Err(NetworkError::Config(format!(
                "{} query heads over {} key heads",
                text.num_attention_heads, text.num_key_value_heads
            )));
        }
        let group = text.num_attention_heads / text.num_key_value_heads;
        let kv_heads = mot.num_attention_heads.div_ceil(group);
        let gen_head_dim = text.hidden_size / text.num_attention_heads;
        if kv_heads > text.num_key_value_heads || gen_head_dim > text.head_dim {
            return Err(NetworkError::Config(format!(
                "the action expert reads {kv_heads} heads of {gen_head_dim}, the understanding \
                 expert has {} of {}",
                text.num_key_value_heads, text.head_dim
            )));
        }

        let cells = config.bev.lidar_anchors[0] * config.bev.lidar_anchors[1];
        Ok(Self {
            grid,
            patches,
            frame_tokens,
            image_tokens: options.frames * frame_tokens,
            prefix_capacity,
            group,
            kv_heads,
            gen_head_dim,
            cells,
            // The second block is two target points and the speed.
            blocks: [cells, 3, mot.reasoning_tokens, mot.route_tokens, mot.waypoint_tokens],
        })
    }

    /// Number of tokens of the action expert.
    pub fn own_tokens(&self) -> usize {
        self.blocks.iter().sum()
    }
}
