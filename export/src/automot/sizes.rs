//! Sizes and numbers of AutoMoT's networks, as their contracts hold them.
//!
//! The exporter writes these structs into a contract ([`Contract::sizes`], [`Contract::numbers`]) and
//! the runtime reads them from it, so that each name exists once.

use crate::contract::{Contract, SizesError};
use serde::{Deserialize, Serialize};

/// Sizes of the vision tower.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VisionSizes {
    /// Height of a frame, pixels.
    pub frame_height: usize,
    /// Width of a frame, pixels.
    pub frame_width: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Copies of a frame in a patch.
    pub temporal_patch_size: usize,
    /// Side of the square of patches that become one token.
    pub spatial_merge_size: usize,
    /// Channels of a frame.
    pub in_channels: usize,
    /// Tokens of a frame.
    pub tokens: usize,
    /// Width of a token.
    pub hidden: usize,
    /// Deepstack maps.
    pub deepstack_maps: usize,
}

/// Sizes of the understanding expert, or of one of its layer groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnderstandingSizes {
    /// Layers of the expert, in all groups.
    pub layers: usize,
    /// The layers of this network; `None` if it has all of them.
    #[serde(flatten)]
    pub group: Option<GroupSizes>,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Capacity of the prefix KV cache, tokens.
    pub prefix_capacity: usize,
    /// Frames in a prompt.
    pub frames: usize,
    /// Image tokens of a frame.
    pub frame_tokens: usize,
    /// Heads of the keys and values in the prefix.
    pub kv_heads: usize,
    /// Width of a key.
    pub key_dim: usize,
    /// Width of a value.
    pub value_dim: usize,
    /// Deepstack maps.
    pub deepstack_maps: usize,
    /// Rows of the embedding table.
    pub vocab_size: usize,
}

/// The layers that one network of several computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupSizes {
    /// Number of groups.
    pub groups: usize,
    /// Index of this group.
    pub group: usize,
    /// Index of its first layer.
    pub first_layer: usize,
    /// Number of its layers.
    pub group_layers: usize,
}

/// Sizes of the BEV encoder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BevSizes {
    /// Height of the cropped picture, pixels.
    pub image_height: usize,
    /// Width of the cropped picture, pixels.
    pub image_width: usize,
    /// Channels of the LiDAR histogram.
    pub lidar_channels: usize,
    /// Rows of the LiDAR histogram.
    pub lidar_rows: usize,
    /// Columns of the LiDAR histogram.
    pub lidar_cols: usize,
    /// Cells of the BEV feature.
    pub cells: usize,
    /// Channels of the BEV feature.
    pub channels: usize,
}

/// Sizes of the action expert.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActionSizes {
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Capacity of the prefix KV cache, tokens.
    pub prefix_capacity: usize,
    /// Heads of the keys and values in the prefix.
    pub kv_heads: usize,
    /// Width of a key.
    pub key_dim: usize,
    /// Width of a value.
    pub value_dim: usize,
    /// Tokens of its own.
    pub own_tokens: usize,
    /// Cells of the BEV feature.
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

/// Numbers of the BEV encoder: how its LiDAR histogram is computed.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct BevNumbers {
    /// Least x of the grid in the ego frame.
    pub min_x_m: f64,
    /// Greatest x of the grid in the ego frame.
    pub max_x_m: f64,
    /// Least y of the grid in the ego frame.
    pub min_y_m: f64,
    /// Greatest y of the grid in the ego frame.
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
            /// Reads the sizes of a contract.
            ///
            /// # Errors
            /// If one is missing.
            pub fn of(contract: &Contract) -> Result<Self, SizesError> {
                contract.read_sizes()
            }
        })*
        $(impl $numbers {
            /// Reads the numbers of a contract.
            ///
            /// # Errors
            /// If one is missing.
            pub fn of(contract: &Contract) -> Result<Self, SizesError> {
                contract.read_numbers()
            }
        })*
    };
}

read_from_contracts!(VisionSizes UnderstandingSizes BevSizes ActionSizes; RopeNumbers BevNumbers);
