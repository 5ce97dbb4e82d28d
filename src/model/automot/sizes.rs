//! Sizes in contracts, compared with the shapes of their tensors and with each other.
//!
//! Contracts are files, so every number that preprocessing computes with is checked here, when the
//! networks are loaded: nothing behind this point meets a size that contradicts another.

use super::lidar::HistogramConfig;
use super::networks::{Contracts, NetworksError, action, bev, understanding, vision};
use crate::tensor::DType;
use std::ops::RangeInclusive;
use tandem_export::automot::names::{PrefixPart, understanding as names};
use tandem_export::contract::{Contract, TensorSpec};
use tandem_files::shortened;

/// Most layers, groups and deepstack maps of a network.
const MOST_LAYERS: usize = 1024;

/// Most of anything else that is counted.
const MOST: usize = 1 << 24;

/// Longest side of a picture, pixels.
const LONGEST_SIDE: usize = 1 << 14;

/// Most frames that a prompt has room for.
const MOST_FRAMES: usize = 8;

/// Most points that fill a cell of the histogram: what a byte counts.
const MOST_POINTS: usize = 255;

/// Farthest edge of the histogram's grid, meters.
const FARTHEST_M: f64 = 10_000.0;

/// Most by which the grid's rows may differ from whole cells.
const WHOLE_CELLS: f64 = 1e-6;

/// Largest tensor, bytes.
const LARGEST_TENSOR: usize = 1 << 38;

/// Numbers of features that a driving state has: speed and two target points.
const STATE: usize = 5;

/// Own tokens of the action expert beside the cells and the points: two target points and the speed.
const STATE_TOKENS: usize = 3;

/// Checks one contract by itself, so far that counting with its sizes ends.
pub(super) fn check_alone(contract: &Contract) -> Result<(), NetworksError> {
    let sizes = Sizes(contract);
    for (key, &value) in &contract.sizes {
        if !value.is_finite() {
            return Err(sizes.contradiction(format!("{} is {value}", shortened(key))));
        }
    }
    for key in ["layers", "groups", "group_layers"] {
        if contract.sizes.contains_key(key) {
            sizes.whole(key, 1..=MOST_LAYERS)?;
        }
    }
    for key in ["group", "first_layer"] {
        if contract.sizes.contains_key(key) {
            sizes.whole(key, 0..=MOST_LAYERS)?;
        }
    }
    for spec in contract.inputs.iter().chain(&contract.outputs) {
        let bytes = spec.shape.iter().try_fold(spec.dtype.size(), |a, &b| a.checked_mul(b));
        if spec.shape.contains(&0) || bytes.is_none_or(|bytes| bytes > LARGEST_TENSOR) {
            let (name, shape) = (shortened(&spec.name), shortened(format!("{:?}", spec.shape)));
            return Err(sizes.contradiction(format!("{name} has the shape {shape}")));
        }
    }
    Ok(())
}

/// Checks contracts that have AutoMoT's tensors, in its order.
pub(super) fn check(contracts: &Contracts) -> Result<(), NetworksError> {
    let Contracts { vision, understanding, bev, action } = contracts;
    let frames = check_vision(&Sizes(vision))?;
    for group in understanding {
        check_understanding(&Sizes(group), &frames)?;
    }
    check_bev(&Sizes(bev))?;
    check_action(&Sizes(action), &Sizes(bev))?;
    let layers = Sizes(action).whole("layers", 1..=MOST_LAYERS)?;
    understanding
        .iter()
        .try_for_each(|group| Sizes(group).equals("layers", layers, action::NETWORK))
}

/// What the vision tower gives for one frame.
struct FrameFeatures {
    tokens: usize,
    hidden: usize,
    maps: usize,
    dtype: DType,
}

fn check_vision(sizes: &Sizes<'_>) -> Result<FrameFeatures, NetworksError> {
    let [height, width] = [
        sizes.whole("frame_height", 1..=LONGEST_SIDE)?,
        sizes.whole("frame_width", 1..=LONGEST_SIDE)?,
    ];
    let patch = sizes.whole("patch_size", 1..=LONGEST_SIDE)?;
    let repeated = sizes.whole("temporal_patch_size", 1..=MOST_LAYERS)?;
    let merge = sizes.whole("spatial_merge_size", 1..=LONGEST_SIDE)?;
    // A camera's colors.
    sizes.equals("in_channels", 3, "a picture's channels")?;
    let block = patch * merge;
    if !height.is_multiple_of(block) || !width.is_multiple_of(block) {
        return Err(sizes.contradiction(format!(
            "frames of {height} × {width} pixels are not whole blocks of patch_size × \
             spatial_merge_size = {block}"
        )));
    }
    let patches = (height / patch) * (width / patch);
    let tokens = patches / (merge * merge);
    sizes.equals("tokens", tokens, "frame, patch_size and spatial_merge_size")?;
    let hidden = sizes.whole("hidden", 1..=MOST)?;
    let maps = sizes.whole("deepstack_maps", 1..=MOST_LAYERS)?;
    let Contract { inputs, outputs, .. } = sizes.0;
    sizes.tensor(&inputs[0], DType::F32, &[patches, 3 * repeated * patch * patch])?;
    let dtype = outputs[0].dtype;
    sizes.tensor(&outputs[0], sizes.float(&outputs[0])?, &[tokens, hidden])?;
    sizes.tensor(&outputs[1], dtype, &[maps, tokens, hidden])?;
    Ok(FrameFeatures { tokens, hidden, maps, dtype })
}

fn check_understanding(sizes: &Sizes<'_>, features: &FrameFeatures) -> Result<(), NetworksError> {
    let FrameFeatures { tokens, hidden, maps, dtype } = *features;
    let frames = sizes.whole("frames", 1..=MOST_FRAMES)?;
    sizes.equals("frame_tokens", tokens, vision::NETWORK)?;
    sizes.equals("hidden", hidden, vision::NETWORK)?;
    sizes.equals("deepstack_maps", maps, vision::NETWORK)?;
    let capacity = sizes.whole("prefix_capacity", 1..=MOST)?;
    sizes.whole("vocab_size", 1..=MOST)?;
    sizes.positive("rope_theta")?;
    for spec in &sizes.0.inputs {
        match spec.name.as_str() {
            names::TOKEN_IDS | names::IMAGE_SLOT | names::VISIBLE_UNTIL => {
                sizes.tensor(spec, DType::I64, &[capacity])?;
            }
            names::POSITION_IDS => sizes.tensor(spec, DType::I64, &[3, capacity])?,
            names::IMAGE_TOKENS => sizes.tensor(spec, dtype, &[frames * tokens, hidden])?,
            names::DEEPSTACK => sizes.tensor(spec, dtype, &[maps, frames * tokens, hidden])?,
            name if name.starts_with(names::HIDDEN) => {
                sizes.tensor(spec, dtype, &[capacity, hidden])?
            }
            _ => return Err(sizes.unknown(spec)),
        }
    }
    for spec in &sizes.0.outputs {
        if spec.name.starts_with(names::HIDDEN) {
            sizes.tensor(spec, dtype, &[capacity, hidden])?;
        }
    }
    check_prefix(sizes, &sizes.0.outputs)
}

/// Checks the keys and values among `specs`.
fn check_prefix(sizes: &Sizes<'_>, specs: &[TensorSpec]) -> Result<(), NetworksError> {
    let [heads, capacity, key_dim, value_dim] =
        ["kv_heads", "prefix_capacity", "key_dim", "value_dim"]
            .map(|key| sizes.whole(key, 1..=MOST));
    let (heads, capacity) = (heads?, capacity?);
    let (key_dim, value_dim) = (key_dim?, value_dim?);
    let mut dtype = None;
    for spec in specs {
        let width = match PrefixPart::of(&spec.name) {
            Some(PrefixPart::Keys) => key_dim,
            Some(PrefixPart::Values) => value_dim,
            None => continue,
        };
        let dtype = *dtype.get_or_insert(sizes.float(spec)?);
        sizes.tensor(spec, dtype, &[heads, capacity, width])?;
    }
    Ok(())
}

fn check_bev(sizes: &Sizes<'_>) -> Result<(), NetworksError> {
    let [height, width] = [
        sizes.whole("image_height", 1..=LONGEST_SIDE)?,
        sizes.whole("image_width", 1..=LONGEST_SIDE)?,
    ];
    let channels = sizes.whole("lidar_channels", 1..=2)?;
    let [rows, columns] = [
        sizes.whole("lidar_rows", 1..=LONGEST_SIDE)?,
        sizes.whole("lidar_cols", 1..=LONGEST_SIDE)?,
    ];
    let cells = sizes.whole("cells", 1..=MOST)?;
    let features = sizes.whole("channels", 1..=MOST)?;
    let Contract { inputs, outputs, .. } = sizes.0;
    sizes.tensor(&inputs[0], DType::U8, &[height, width, 3])?;
    sizes.tensor(&inputs[1], DType::F32, &[channels, rows, columns])?;
    sizes.tensor(&outputs[0], sizes.float(&outputs[0])?, &[cells, features])?;
    sizes.whole("hist_max_per_pixel", 1..=MOST_POINTS)?;
    let config = histogram(sizes.0)?;
    let [x, y] = [config.x_range_m, config.y_range_m];
    for (axis, [low, high]) in [("x", x), ("y", y)] {
        if !(low < high && low >= -FARTHEST_M && high <= FARTHEST_M) {
            return Err(
                sizes.contradiction(format!("min_{axis}_m is {low} and max_{axis}_m is {high}"))
            );
        }
    }
    let shape = config.shape();
    let exact_rows = (y[1] - y[0]) * config.cells_per_meter;
    if shape != [channels, rows, columns] || (exact_rows - rows as f64).abs() > WHOLE_CELLS {
        return Err(sizes.contradiction(format!(
            "a grid from {} to {} m and from {} to {} m has {shape:?} cells at {} cells per meter, \
             the network takes [{channels}, {rows}, {columns}]",
            x[0], x[1], y[0], y[1], config.cells_per_meter
        )));
    }
    Ok(())
}

/// The histogram that the BEV encoder takes.
pub(super) fn histogram(bev: &Contract) -> Result<HistogramConfig, NetworksError> {
    let sizes = Sizes(bev);
    let number = |key| sizes.number(key);
    let x_range_m = [number("min_x_m")?, number("max_x_m")?];
    Ok(HistogramConfig {
        x_range_m,
        y_range_m: [number("min_y_m")?, number("max_y_m")?],
        cells_per_meter: number("lidar_cols")? / (x_range_m[1] - x_range_m[0]),
        full_cell_points: number("hist_max_per_pixel")? as u32,
        split_height_m: number("lidar_split_height_m")?,
        max_height_m: number("max_height_lidar_m")?,
        ground_plane: number("lidar_channels")? == 2.0,
    })
}

fn check_action(sizes: &Sizes<'_>, bev: &Sizes<'_>) -> Result<(), NetworksError> {
    let Contract { inputs, outputs, .. } = sizes.0;
    let cells = bev.whole("cells", 1..=MOST)?;
    sizes.equals("cells", cells, bev::NETWORK)?;
    sizes.equals("channels", bev.whole("channels", 1..=MOST)?, bev::NETWORK)?;
    sizes.whole("hidden", 1..=MOST)?;
    sizes.positive("rope_theta")?;
    sizes.tensor(&inputs[1], DType::F32, &[STATE])?;
    sizes.tensor(&inputs[2], DType::I64, &[1])?;
    sizes.tensor(&inputs[3], DType::I64, &[1])?;
    let prefix = &inputs[action::INPUTS.len()..];
    if !prefix.len().is_multiple_of(2) {
        return Err(sizes.contradiction("it has keys without values".into()));
    }
    sizes.equals("layers", prefix.len() / 2, "the number of its keys")?;
    check_prefix(sizes, prefix)?;
    let [route, waypoints, decision] =
        [0, 1, 2].map(|place| outputs[place].shape.first().copied().unwrap_or(0));
    sizes.tensor(&outputs[0], DType::F32, &[route, 2])?;
    sizes.tensor(&outputs[1], DType::F32, &[waypoints, 2])?;
    sizes.tensor(&outputs[2], DType::I64, &[decision])?;
    let own = [cells, STATE_TOKENS, route, waypoints, decision].into_iter().sum();
    sizes.equals("own_tokens", own, "cells, state, decision and points together")
}

/// The sizes of a contract.
struct Sizes<'a>(&'a Contract);

impl Sizes<'_> {
    fn contradiction(&self, what: String) -> NetworksError {
        NetworksError::Contradiction { network: self.0.network.clone(), what }
    }

    fn unknown(&self, spec: &TensorSpec) -> NetworksError {
        self.contradiction(format!("it has the tensor {:?}", shortened(&spec.name)))
    }

    fn number(&self, key: &'static str) -> Result<f64, NetworksError> {
        let network = match self.0.network.as_str() {
            vision::NETWORK => vision::NETWORK,
            bev::NETWORK => bev::NETWORK,
            action::NETWORK => action::NETWORK,
            _ => understanding::NETWORK,
        };
        super::networks::size(self.0, network, key)
    }

    fn positive(&self, key: &'static str) -> Result<f64, NetworksError> {
        match self.number(key)? {
            value if value > 0.0 => Ok(value),
            value => Err(self.contradiction(format!("{key} is {value}"))),
        }
    }

    /// A size that counts something.
    fn whole(
        &self,
        key: &'static str,
        range: RangeInclusive<usize>,
    ) -> Result<usize, NetworksError> {
        let value = self.number(key)?;
        let (least, most) = (*range.start() as f64, *range.end() as f64);
        if value.fract() == 0.0 && (least..=most).contains(&value) {
            return Ok(value as usize);
        }
        Err(self.contradiction(format!("{key} is {value}, possible are {least} to {most}")))
    }

    fn equals(&self, key: &'static str, expected: usize, by: &str) -> Result<(), NetworksError> {
        let found = self.whole(key, 0..=MOST)?;
        if found == expected {
            return Ok(());
        }
        Err(self.contradiction(format!("{key} is {found}, by {by} it is {expected}")))
    }

    /// The element type of a tensor of floating-point numbers.
    fn float(&self, spec: &TensorSpec) -> Result<DType, NetworksError> {
        match spec.dtype {
            DType::F32 | DType::F16 | DType::Bf16 => Ok(spec.dtype),
            DType::I64 | DType::U8 | DType::Bool => {
                let name = shortened(&spec.name);
                Err(self.contradiction(format!("{name:?} is of {}", spec.dtype)))
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
            "{name:?} is {} {found}, by the sizes it is {dtype} {shape:?}",
            spec.dtype
        )))
    }
}
