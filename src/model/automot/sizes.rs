//! Checks the sizes of contracts against tensor shapes and against each other.
//!
//! Contracts are files, so every number used by preprocessing is checked when the networks are
//! loaded. Code after this check can rely on consistent sizes.

use super::lidar::HistogramConfig;
use super::networks::{Contracts, NetworksError, action, bev, vision};
use crate::tensor::DType;
use std::ops::RangeInclusive;
use tandem_export::automot::names::{PrefixPart, understanding as names};
use tandem_export::automot::sizes::{
    ActionSizes, BevNumbers, BevSizes, RopeNumbers, UnderstandingSizes, VisionSizes,
};
use tandem_export::contract::{Contract, TensorSpec};
use tandem_files::shortened;

/// Maximum number of layers, groups and deepstack maps of a network.
const MAX_LAYERS: usize = 1024;

/// Maximum of other counts.
const MAX_COUNT: usize = 1 << 24;

/// Maximum side of an image, pixels.
const MAX_SIDE: usize = 1 << 14;

/// Maximum number of frames in a prompt.
const MAX_FRAMES: usize = 8;

/// Maximum number of points that saturate a cell of the histogram, as counted by a byte.
const MAX_POINTS: usize = 255;

/// Maximum coordinate of the histogram's grid, meters.
const MAX_COORDINATE_M: f64 = 10_000.0;

/// Tolerance for an integral number of grid rows.
const CELL_TOLERANCE: f64 = 1e-6;

/// Maximum size of a tensor, bytes.
const MAX_TENSOR_BYTES: usize = 1 << 38;

/// Number of features of a driving state: speed and two target points.
const STATE: usize = 5;

/// Number of state tokens of the action expert: two target points and the speed.
const STATE_TOKENS: usize = 3;

/// Checks one contract alone, so that computing with its sizes cannot overflow or run forever.
pub(super) fn check_alone(contract: &Contract) -> Result<(), NetworksError> {
    let check = Check(contract);
    for (key, &value) in &contract.numbers {
        if !value.is_finite() {
            return Err(check.contradiction(format!("{} is {value}", shortened(key))));
        }
    }
    if is_understanding(&contract.network) {
        let sizes = UnderstandingSizes::of(contract)?;
        check.range("layers", sizes.layers, 1..=MAX_LAYERS)?;
        if let Some(group) = sizes.group {
            check.range("groups", group.groups, 1..=MAX_LAYERS)?;
            check.range("group_layers", group.group_layers, 1..=MAX_LAYERS)?;
            check.range("group", group.group, 0..=MAX_LAYERS)?;
            check.range("first_layer", group.first_layer, 0..=MAX_LAYERS)?;
        }
    }
    for spec in contract.inputs.iter().chain(&contract.outputs) {
        let bytes = spec.shape.iter().try_fold(spec.dtype.size(), |a, &b| a.checked_mul(b));
        if spec.shape.contains(&0) || bytes.is_none_or(|bytes| bytes > MAX_TENSOR_BYTES) {
            let (name, shape) = (shortened(&spec.name), shortened(format!("{:?}", spec.shape)));
            return Err(check.contradiction(format!("{name} has the shape {shape}")));
        }
    }
    Ok(())
}

/// Returns true for the understanding expert and its layer groups.
fn is_understanding(network: &str) -> bool {
    network == names::NETWORK || names::group_number(network).is_some()
}

/// Checks contracts that have AutoMoT's tensors in order.
pub(super) fn check(contracts: &Contracts) -> Result<(), NetworksError> {
    let Contracts { vision, understanding, bev, action } = contracts;
    let frames = check_vision(&Check(vision))?;
    for group in understanding {
        check_understanding(&Check(group), &frames)?;
    }
    let feature = check_bev(&Check(bev))?;
    let layers = check_action(&Check(action), &feature)?;
    understanding.iter().try_for_each(|group| {
        let found = UnderstandingSizes::of(group)?.layers;
        Check(group).equals("layers", found, layers, action::NETWORK)
    })
}

/// Output sizes of the vision tower for one frame.
struct FrameFeatures {
    tokens: usize,
    hidden: usize,
    maps: usize,
    dtype: DType,
}

fn check_vision(check: &Check<'_>) -> Result<FrameFeatures, NetworksError> {
    let sizes = VisionSizes::of(check.0)?;
    let (height, width) = (sizes.frame_height, sizes.frame_width);
    check.range("frame_height", height, 1..=MAX_SIDE)?;
    check.range("frame_width", width, 1..=MAX_SIDE)?;
    let (patch, merge) = (sizes.patch_size, sizes.spatial_merge_size);
    check.range("patch_size", patch, 1..=MAX_SIDE)?;
    let repeated = sizes.temporal_patch_size;
    check.range("temporal_patch_size", repeated, 1..=MAX_LAYERS)?;
    check.range("spatial_merge_size", merge, 1..=MAX_SIDE)?;
    check.equals("in_channels", sizes.in_channels, 3, "the channels of an RGB image")?;
    let block = patch * merge;
    if !height.is_multiple_of(block) || !width.is_multiple_of(block) {
        return Err(check.contradiction(format!(
            "frames of {height} × {width} pixels are not divisible into blocks of patch_size × \
             spatial_merge_size = {block}"
        )));
    }
    let patches = (height / patch) * (width / patch);
    let tokens = patches / (merge * merge);
    check.equals("tokens", sizes.tokens, tokens, "frame, patch_size and spatial_merge_size")?;
    let (hidden, maps) = (sizes.hidden, sizes.deepstack_maps);
    check.range("hidden", hidden, 1..=MAX_COUNT)?;
    check.range("deepstack_maps", maps, 1..=MAX_LAYERS)?;
    let Contract { inputs, outputs, .. } = check.0;
    check.tensor(&inputs[0], DType::F32, &[patches, 3 * repeated * patch * patch])?;
    let dtype = outputs[0].dtype;
    check.tensor(&outputs[0], check.float(&outputs[0])?, &[tokens, hidden])?;
    check.tensor(&outputs[1], dtype, &[maps, tokens, hidden])?;
    Ok(FrameFeatures { tokens, hidden, maps, dtype })
}

fn check_understanding(check: &Check<'_>, features: &FrameFeatures) -> Result<(), NetworksError> {
    let FrameFeatures { tokens, hidden, maps, dtype } = *features;
    let sizes = UnderstandingSizes::of(check.0)?;
    let frames = sizes.frames;
    check.range("frames", frames, 1..=MAX_FRAMES)?;
    check.equals("frame_tokens", sizes.frame_tokens, tokens, vision::NETWORK)?;
    check.equals("hidden", sizes.hidden, hidden, vision::NETWORK)?;
    check.equals("deepstack_maps", sizes.deepstack_maps, maps, vision::NETWORK)?;
    let capacity = sizes.prefix_capacity;
    check.range("prefix_capacity", capacity, 1..=MAX_COUNT)?;
    check.range("vocab_size", sizes.vocab_size, 1..=MAX_COUNT)?;
    check.rope_theta()?;
    for spec in &check.0.inputs {
        match spec.name.as_str() {
            names::TOKEN_IDS | names::IMAGE_SLOT | names::VISIBLE_UNTIL => {
                check.tensor(spec, DType::I64, &[capacity])?;
            }
            names::POSITION_IDS => check.tensor(spec, DType::I64, &[3, capacity])?,
            names::IMAGE_TOKENS => check.tensor(spec, dtype, &[frames * tokens, hidden])?,
            names::DEEPSTACK => check.tensor(spec, dtype, &[maps, frames * tokens, hidden])?,
            name if name.starts_with(names::HIDDEN) => {
                check.tensor(spec, dtype, &[capacity, hidden])?;
            }
            _ => return Err(check.unknown(spec)),
        }
    }
    for spec in &check.0.outputs {
        if spec.name.starts_with(names::HIDDEN) {
            check.tensor(spec, dtype, &[capacity, hidden])?;
        }
    }
    let UnderstandingSizes { kv_heads, key_dim, value_dim, .. } = sizes;
    check_prefix(check, &Prefix { kv_heads, capacity, key_dim, value_dim }, &check.0.outputs)
}

/// Sizes of the keys and values of a layer.
struct Prefix {
    kv_heads: usize,
    capacity: usize,
    key_dim: usize,
    value_dim: usize,
}

/// Checks the keys and values among `specs`.
fn check_prefix(
    check: &Check<'_>,
    prefix: &Prefix,
    specs: &[TensorSpec],
) -> Result<(), NetworksError> {
    let Prefix { kv_heads, capacity, key_dim, value_dim } = *prefix;
    check.range("kv_heads", kv_heads, 1..=MAX_COUNT)?;
    check.range("prefix_capacity", capacity, 1..=MAX_COUNT)?;
    check.range("key_dim", key_dim, 1..=MAX_COUNT)?;
    check.range("value_dim", value_dim, 1..=MAX_COUNT)?;
    let mut dtype = None;
    for spec in specs {
        let width = match PrefixPart::of(&spec.name) {
            Some(PrefixPart::Keys) => key_dim,
            Some(PrefixPart::Values) => value_dim,
            None => continue,
        };
        let dtype = *dtype.get_or_insert(check.float(spec)?);
        check.tensor(spec, dtype, &[kv_heads, capacity, width])?;
    }
    Ok(())
}

fn check_bev(check: &Check<'_>) -> Result<BevSizes, NetworksError> {
    let sizes = BevSizes::of(check.0)?;
    let (height, width) = (sizes.image_height, sizes.image_width);
    check.range("image_height", height, 1..=MAX_SIDE)?;
    check.range("image_width", width, 1..=MAX_SIDE)?;
    let (channels, rows, columns) = (sizes.lidar_channels, sizes.lidar_rows, sizes.lidar_cols);
    check.range("lidar_channels", channels, 1..=2)?;
    check.range("lidar_rows", rows, 1..=MAX_SIDE)?;
    check.range("lidar_cols", columns, 1..=MAX_SIDE)?;
    check.range("cells", sizes.cells, 1..=MAX_COUNT)?;
    check.range("channels", sizes.channels, 1..=MAX_COUNT)?;
    let Contract { inputs, outputs, .. } = check.0;
    check.tensor(&inputs[0], DType::U8, &[height, width, 3])?;
    check.tensor(&inputs[1], DType::F32, &[channels, rows, columns])?;
    check.tensor(&outputs[0], check.float(&outputs[0])?, &[sizes.cells, sizes.channels])?;
    check.points(BevNumbers::of(check.0)?.hist_max_per_pixel)?;
    let config = histogram(check.0)?;
    let [x, y] = [config.x_range_m, config.y_range_m];
    for (axis, [low, high]) in [("x", x), ("y", y)] {
        if !(low < high && low >= -MAX_COORDINATE_M && high <= MAX_COORDINATE_M) {
            return Err(
                check.contradiction(format!("min_{axis}_m is {low} and max_{axis}_m is {high}"))
            );
        }
    }
    let shape = config.shape();
    let exact_rows = (y[1] - y[0]) * config.cells_per_meter;
    if shape != [channels, rows, columns] || (exact_rows - rows as f64).abs() > CELL_TOLERANCE {
        return Err(check.contradiction(format!(
            "a grid from {} to {} m and from {} to {} m has {shape:?} cells at {} cells per meter, \
             the network expects [{channels}, {rows}, {columns}]",
            x[0], x[1], y[0], y[1], config.cells_per_meter
        )));
    }
    Ok(sizes)
}

/// Returns the histogram parameters of the BEV encoder.
pub(super) fn histogram(bev: &Contract) -> Result<HistogramConfig, NetworksError> {
    let (sizes, numbers) = (BevSizes::of(bev)?, BevNumbers::of(bev)?);
    let x_range_m = [numbers.min_x_m, numbers.max_x_m];
    Ok(HistogramConfig {
        x_range_m,
        y_range_m: [numbers.min_y_m, numbers.max_y_m],
        cells_per_meter: sizes.lidar_cols as f64 / (x_range_m[1] - x_range_m[0]),
        full_cell_points: numbers.hist_max_per_pixel as u32,
        split_height_m: numbers.lidar_split_height_m,
        max_height_m: numbers.max_height_lidar_m,
        ground_plane: sizes.lidar_channels == 2,
    })
}

/// Checks the action expert; returns its number of layers.
fn check_action(check: &Check<'_>, feature: &BevSizes) -> Result<usize, NetworksError> {
    let sizes = ActionSizes::of(check.0)?;
    let Contract { inputs, outputs, .. } = check.0;
    check.equals("cells", sizes.cells, feature.cells, bev::NETWORK)?;
    check.equals("channels", sizes.channels, feature.channels, bev::NETWORK)?;
    check.range("hidden", sizes.hidden, 1..=MAX_COUNT)?;
    check.rope_theta()?;
    check.tensor(&inputs[1], DType::F32, &[STATE])?;
    check.tensor(&inputs[2], DType::I64, &[1])?;
    check.tensor(&inputs[3], DType::I64, &[1])?;
    let prefix = &inputs[action::INPUTS.len()..];
    if !prefix.len().is_multiple_of(2) {
        return Err(check.contradiction("it has keys without values".into()));
    }
    check.range("layers", sizes.layers, 1..=MAX_LAYERS)?;
    check.equals("layers", sizes.layers, prefix.len() / 2, "the number of its keys")?;
    let ActionSizes { kv_heads, prefix_capacity: capacity, key_dim, value_dim, .. } = sizes;
    check_prefix(check, &Prefix { kv_heads, capacity, key_dim, value_dim }, prefix)?;
    let [route, waypoints, decision] =
        [0, 1, 2].map(|place| outputs[place].shape.first().copied().unwrap_or(0));
    check.tensor(&outputs[0], DType::F32, &[route, 2])?;
    check.tensor(&outputs[1], DType::F32, &[waypoints, 2])?;
    check.tensor(&outputs[2], DType::I64, &[decision])?;
    let own = [feature.cells, STATE_TOKENS, route, waypoints, decision].into_iter().sum();
    let by = "the sum of cells, state, decision and points";
    check.equals("own_tokens", sizes.own_tokens, own, by)?;
    Ok(sizes.layers)
}

/// Checks for one contract.
struct Check<'a>(&'a Contract);

impl Check<'_> {
    fn contradiction(&self, what: String) -> NetworksError {
        NetworksError::Contradiction { network: self.0.network.clone(), what }
    }

    fn unknown(&self, spec: &TensorSpec) -> NetworksError {
        self.contradiction(format!("it has the tensor {:?}", shortened(&spec.name)))
    }

    fn rope_theta(&self) -> Result<(), NetworksError> {
        match RopeNumbers::of(self.0)?.rope_theta {
            theta if theta > 0.0 => Ok(()),
            theta => Err(self.contradiction(format!("rope_theta is {theta}"))),
        }
    }

    /// Checks the number of points that saturate a cell.
    fn points(&self, points: f64) -> Result<(), NetworksError> {
        let max = MAX_POINTS as f64;
        if points.fract() == 0.0 && (1.0..=max).contains(&points) {
            return Ok(());
        }
        let what = format!("hist_max_per_pixel is {points}, expected 1 to {max}");
        Err(self.contradiction(what))
    }

    fn range(
        &self,
        key: &str,
        value: usize,
        range: RangeInclusive<usize>,
    ) -> Result<(), NetworksError> {
        if range.contains(&value) {
            return Ok(());
        }
        let (min, max) = (range.start(), range.end());
        Err(self.contradiction(format!("{key} is {value}, expected {min} to {max}")))
    }

    fn equals(
        &self,
        key: &str,
        found: usize,
        expected: usize,
        by: &str,
    ) -> Result<(), NetworksError> {
        if found == expected {
            return Ok(());
        }
        Err(self.contradiction(format!("{key} is {found}, expected {expected} by {by}")))
    }

    /// Returns the element type of a floating-point tensor.
    fn float(&self, spec: &TensorSpec) -> Result<DType, NetworksError> {
        match spec.dtype {
            DType::F32 | DType::F16 | DType::Bf16 => Ok(spec.dtype),
            DType::I64 | DType::U8 | DType::Bool => {
                let name = shortened(&spec.name);
                Err(self.contradiction(format!("{name:?} has the type {}", spec.dtype)))
            }
        }
    }

    fn tensor(
        &self,
        spec: &TensorSpec,
        dtype: DType,
        shape: &[usize],
    ) -> Result<(), NetworksError> {
        if spec.dtype == dtype && spec.shape == shape {
            return Ok(());
        }
        let (name, found) = (shortened(&spec.name), shortened(format!("{:?}", spec.shape)));
        Err(self.contradiction(format!(
            "{name:?} is {} {found}, expected {dtype} {shape:?} by the sizes",
            spec.dtype
        )))
    }
}
