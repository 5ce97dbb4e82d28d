//! Sizes and numbers in the contracts of AutoMoT's networks.
//!
//! The exporter writes these structs into a contract ([`Contract::sizes`], [`Contract::numbers`]) and
//! the runtime reads them, so that each name is defined once.

use crate::contract::{Contract, SizesError};
use serde::{Deserialize, Serialize};

/// Sizes of the vision tower.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VisionSizes {
    /// Pixels.
    pub frame_height: usize,
    /// Pixels.
    pub frame_width: usize,
    /// Height and width of a patch, pixels.
    pub patch_size: usize,
    /// Copies of a frame in a patch.
    pub temporal_patch_size: usize,
    /// Side of the square of patches that are merged into one token.
    pub spatial_merge_size: usize,
    pub in_channels: usize,
    /// Tokens per frame, after merging patches.
    pub tokens: usize,
    /// Width of a token, as of the text stack.
    pub hidden: usize,
    pub deepstack_maps: usize,
}

/// Sizes of the understanding expert, or of one of its layer groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnderstandingSizes {
    /// Layers of the expert, in all groups.
    pub layers: usize,
    /// Layers of this network; `None` if it has all of them.
    #[serde(flatten)]
    pub group: Option<GroupSizes>,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Capacity of the prefix KV cache, tokens.
    pub prefix_capacity: usize,
    /// Number of frames per prompt.
    pub frames: usize,
    /// Number of image tokens per frame.
    pub frame_tokens: usize,
    /// Heads of the keys and values in the prefix.
    pub kv_heads: usize,
    /// Width of a key head, elements.
    pub key_dim: usize,
    /// Width of a value head, elements.
    pub value_dim: usize,
    pub deepstack_maps: usize,
    /// Rows of the embedding table.
    pub vocab_size: usize,
}

/// Layers of a network that is one of several layer groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupSizes {
    pub groups: usize,
    /// Index of this group, from zero.
    pub group: usize,
    /// Index of the first layer of the group.
    pub first_layer: usize,
    /// Number of layers of the group.
    pub group_layers: usize,
}

/// Sizes of the BEV encoder and its inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BevSizes {
    /// Height of the cropped image, pixels.
    pub image_height: usize,
    /// Width of the cropped image, pixels.
    pub image_width: usize,
    pub lidar_channels: usize,
    /// Rows of the LiDAR histogram.
    pub lidar_rows: usize,
    /// Columns of the LiDAR histogram.
    pub lidar_cols: usize,
    pub cells: usize,
    /// Channels of the BEV feature.
    pub channels: usize,
}

/// Sizes of the action expert.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActionSizes {
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Capacity of the prefix KV cache, tokens.
    pub prefix_capacity: usize,
    /// Heads of the keys and values in the prefix.
    pub kv_heads: usize,
    /// Width of a key head, elements.
    pub key_dim: usize,
    /// Width of a value head, elements.
    pub value_dim: usize,
    /// Tokens of the action expert itself.
    pub own_tokens: usize,
    pub cells: usize,
    /// Channels of the BEV feature.
    pub channels: usize,
}

/// Numbers of the understanding expert and of the action expert.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct RopeNumbers {
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

/// Numbers of the BEV encoder: parameters of its LiDAR histogram. Coordinates are in the ego frame.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct BevNumbers {
    pub min_x_m: f64,
    pub max_x_m: f64,
    pub min_y_m: f64,
    pub max_y_m: f64,
    /// Number of points at which a cell saturates.
    pub hist_max_per_pixel: f64,
    /// Points at or below this height are ground.
    pub lidar_split_height_m: f64,
    /// Points at or above this height are dropped.
    pub max_height_lidar_m: f64,
}

macro_rules! read_from_contracts {
    ($($sizes:ident)*; $($numbers:ident)*) => {
        $(impl $sizes {
            /// Reads the sizes from a contract. Fails if one is missing.
            pub fn of(contract: &Contract) -> Result<Self, SizesError> {
                contract.read_sizes()
            }
        })*
        $(impl $numbers {
            /// Reads the numbers from a contract. Fails if one is missing.
            pub fn of(contract: &Contract) -> Result<Self, SizesError> {
                contract.read_numbers()
            }
        })*
    };
}

read_from_contracts!(VisionSizes UnderstandingSizes BevSizes ActionSizes; RopeNumbers BevNumbers);
