//! The BEV encoder: camera image and LiDAR histogram → BEV tokens.
//!
//! ```text
//! image ─ normalize ─ stem ─ stage 1 ─┬─ + ─ stage 2 ─ … ─ stage 4 ─┐
//!                                   fusion            …           fusion
//! lidar ───────────── stem ─ stage 1 ─┴─ + ─ stage 2 ─ … ─ stage 4 ─┴─ + ─► bev_tokens
//! ```
//!
//! Both trunks are RegNet-Y networks with the depths and widths of the checkpoint's tensors. A fusion
//! is a small transformer over pooled cells of both maps. The feature pyramid and the image part of
//! the last fusion, which the AutoMoT release computes too, have no reader and are omitted.

use super::{ExportOptions, Sizes};
use crate::automot::checkpoint::{BevConfig, Checkpoint};
use crate::automot::names::bev as names;
use crate::automot::sizes::{BevNumbers, BevSizes};
use crate::dtype::DType;
use crate::family::NetworkError;
use crate::graph::{Affine, Graph, GraphError, Network, Padding, Value};
use crate::nn::Probes;
use std::collections::BTreeMap;

/// Prefix of the encoder's tensors.
const PREFIX: &str = "bev_encoder";

/// Stages of a trunk, each followed by a fusion.
const STAGES: usize = 4;

/// Epsilon of batch norms and of the fusions' layer norms.
const NORM_EPSILON: f64 = 1e-5;

/// Mean and deviation of each color channel of ImageNet, for values from 0 to 1.
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// Builds the network. Fails if the checkpoint's tensors do not fit its configuration.
pub fn build(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    sizes: &Sizes,
) -> Result<Network, NetworkError> {
    let norms = batch_norms(checkpoint)?;
    graph(checkpoint, options, sizes, &norms)
        .map_err(|source| NetworkError::Graph { network: names::NETWORK, source })
}

/// Batch norms of the encoder as affine maps, by the prefix of their tensors.
type BatchNorms = BTreeMap<String, Affine>;

/// Reads the batch norms. One without a running variance is reported where it is used.
fn batch_norms(checkpoint: &Checkpoint) -> Result<BatchNorms, NetworkError> {
    let mut norms = BatchNorms::new();
    let names = checkpoint.tensors().keys().filter(|name| name.starts_with(PREFIX));
    for prefix in names.filter_map(|name| name.strip_suffix(".running_var")) {
        let read = |part: &str| {
            checkpoint.values_f32(&format!("{prefix}.{part}")).map_err(|source| {
                NetworkError::Fold { network: names::NETWORK, source: Box::new(source) }
            })
        };
        let (weight, bias) = (read("weight")?, read("bias")?);
        let (mean, variance) = (read("running_mean")?, read("running_var")?);
        let lengths = [weight.len(), bias.len(), mean.len()];
        if lengths != [variance.len(); 3] {
            return Err(NetworkError::Config(format!(
                "the four tensors of {prefix} have {lengths:?} and {} channels",
                variance.len()
            )));
        }
        let factor = weight
            .iter()
            .zip(&variance)
            .map(|(&weight, &variance)| {
                f64::from(weight) / (f64::from(variance) + NORM_EPSILON).sqrt()
            })
            .collect::<Vec<_>>();
        let shift = bias.iter().zip(&mean).zip(&factor);
        let shift = shift
            .map(|((&bias, &mean), factor)| f64::from(bias) - f64::from(mean) * factor)
            .collect();
        norms.insert(prefix.to_owned(), Affine { factor, shift });
    }
    Ok(norms)
}

fn graph(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    sizes: &Sizes,
    norms: &BatchNorms,
) -> Result<Network, GraphError> {
    let config = &checkpoint.config().bev;
    let mut graph = options.precision.graph(names::NETWORK, checkpoint);
    let g = &mut graph;
    let mut probes = Probes::new(options.probes);

    let [height, width] = config.image_size;
    // Interleaved pixels, as from a camera: cropping full rows is then a view without a copy on the
    // host.
    let image =
        g.input(names::IMAGE, DType::U8, &[height, width, 3], "camera picture, RGB, cropped");
    let [rows, cols] = config.lidar_size;
    let histogram = g.input(
        names::LIDAR,
        DType::F32,
        &[config.lidar_channels, rows, cols],
        "histogram of points in 0 to 1; row is the y bin, column the x bin of the ego frame",
    );

    let image = g.within("normalize", |g| normalize(g, &image, config));
    probes.add("image_normalized", &image);
    let histogram = g.within("lidar.stem", |g| {
        let histogram = g.reshape(&histogram, &[1, config.lidar_channels, rows, cols]);
        g.cast(&histogram, g.dtype())
    });

    let trunks = ["image", "lidar"].map(|name| Trunk { name, norms });
    let [image_trunk, lidar_trunk] = &trunks;
    let mut image = image_trunk.stem(g, &image)?;
    let mut lidar = lidar_trunk.stem(g, &histogram)?;
    probes.add("stem_image", &image);
    probes.add("stem_lidar", &lidar);
    for i in 0..STAGES {
        image = image_trunk.stage(g, &image, i + 1)?;
        lidar = lidar_trunk.stage(g, &lidar, i + 1)?;
        probes.add(format!("stage{i}.encoder_image"), &image);
        probes.add(format!("stage{i}.encoder_lidar"), &lidar);
        let fusion_scope = format!("fusion.{i}");
        let (from_image, from_lidar) =
            g.within(&fusion_scope, |g| fusion(g, &image, &lidar, i, config))?;
        probes.add(format!("stage{i}.gpt_out_image"), &from_image);
        probes.add(format!("stage{i}.gpt_out_lidar"), &from_lidar);
        let to_lidar = format!("{PREFIX}.img_channel_to_lidar.{i}");
        lidar = g.within(&fusion_scope, |g| -> Result<Value, GraphError> {
            let cells = g.conv(&from_lidar, &to_lidar, 1, Padding::None)?;
            Ok(add_resized(g, &lidar, &cells))
        })?;
        if i + 1 < STAGES {
            image = g.within(&fusion_scope, |g| add_resized(g, &image, &from_image));
            probes.add(format!("stage{i}.fused_image"), &image);
        }
        probes.add(format!("stage{i}.fused_lidar"), &lidar);
    }

    let cells = lidar.dim(2) * lidar.dim(3);
    if cells != sizes.cells {
        return Err(GraphError::WrongShape {
            name: format!("{PREFIX} feature"),
            found: lidar.shape().to_vec(),
            needed: format!("{} cells", sizes.cells),
        });
    }
    let tokens = g.within("tokens", |g| cells_as_tokens(g, &lidar));
    g.output(names::BEV_TOKENS, &tokens, "[cells, channels], row-major cells, row is the y strip");
    probes.emit(g);

    let sizes = BevSizes {
        image_height: height,
        image_width: width,
        lidar_channels: config.lidar_channels,
        lidar_rows: rows,
        lidar_cols: cols,
        cells,
        channels: tokens.dim(1),
    };
    let [min_x_m, max_x_m, min_y_m, max_y_m] = config.bounds_m;
    let numbers = BevNumbers {
        min_x_m,
        max_x_m,
        min_y_m,
        max_y_m,
        hist_max_per_pixel: config.hist_max_per_pixel,
        lidar_split_height_m: config.lidar_split_height_m,
        max_height_lidar_m: config.max_height_lidar_m,
    };
    Ok(graph.finish().with_sizes(&sizes).with_numbers(&numbers))
}

/// Normalizes the image to `[1, 3, height, width]` in single precision, rounded in the last step.
fn normalize(g: &mut Graph<'_>, image: &Value, config: &BevConfig) -> Value {
    let [height, width] = config.image_size;
    // The cast comes first because TensorRT supports no other operator on bytes.
    let x = g.cast(image, DType::F32);
    let x = g.reshape(&x, &[1, height, width, 3]);
    let x = g.transpose(&x, &[0, 3, 1, 2]);
    if !config.normalize_imagenet {
        return g.cast(&x, g.dtype());
    }
    let (mean, deviation) = IMAGENET;
    if g.emulates() {
        // The release rounds each of three steps. Integers up to 256 are exact.
        let full = g.constant_f32("pixel_full", &[1], &[1.0 / 255.0]);
        let mean = g.constant_f32("pixel_mean", &[1, 3, 1, 1], &mean);
        let steps = deviation.map(|deviation| 1.0 / deviation);
        let steps = g.constant_f32("pixel_steps", &[1, 3, 1, 1], &steps);
        let x = g.mul(&x, &full);
        let x = g.rounded(&x);
        let x = g.sub(&x, &mean);
        let x = g.rounded(&x);
        let x = g.mul(&x, &steps);
        return g.cast(&x, g.dtype());
    }
    let scale = deviation.map(|deviation| 1.0 / (255.0 * deviation));
    let shift = [0, 1, 2].map(|c| mean[c] / deviation[c]);
    let scale = g.constant_f32("pixel_scale", &[1, 3, 1, 1], &scale);
    let shift = g.constant_f32("pixel_shift", &[1, 3, 1, 1], &shift);
    let x = g.mul(&x, &scale);
    let x = g.sub(&x, &shift);
    g.cast(&x, g.dtype())
}

/// The RegNet-Y network of the image or of the LiDAR histogram.
struct Trunk<'a> {
    name: &'static str,
    norms: &'a BatchNorms,
}

impl Trunk<'_> {
    fn prefix(&self) -> String {
        format!("{PREFIX}.{}_encoder", self.name)
    }

    fn stem(&self, g: &mut Graph<'_>, x: &Value) -> Result<Value, GraphError> {
        g.within(format!("{}.stem", self.name), |g| {
            let x = conv_norm(g, x, &format!("{}.stem", self.prefix()), 2, self.norms)?;
            Ok(g.relu(&x))
        })
    }

    /// Adds the blocks of a stage, which is counted from 1. The checkpoint determines their number.
    fn stage(&self, g: &mut Graph<'_>, x: &Value, stage: usize) -> Result<Value, GraphError> {
        let mut x = x.clone();
        for n in 1.. {
            let prefix = format!("{}.s{stage}.b{n}", self.prefix());
            if n > 1 && !g.has(&format!("{prefix}.conv1.conv.weight")) {
                break;
            }
            let scope = format!("{}.s{stage}/b{n}", self.name);
            // The first block of a stage halves the map.
            let stride = if n == 1 { 2 } else { 1 };
            x = g.within(scope, |g| block(g, &x, &prefix, stride, self.norms))?;
        }
        Ok(x)
    }
}

fn block(
    g: &mut Graph<'_>,
    x: &Value,
    prefix: &str,
    stride: usize,
    norms: &BatchNorms,
) -> Result<Value, GraphError> {
    let h = conv_norm(g, x, &format!("{prefix}.conv1"), 1, norms)?;
    let h = g.relu(&h);
    let h = conv_norm(g, &h, &format!("{prefix}.conv2"), stride, norms)?;
    let h = g.relu(&h);

    let squeezed = g.global_average_pool(&h);
    let squeezed = g.conv(&squeezed, &format!("{prefix}.se.fc1"), 1, Padding::None)?;
    let squeezed = g.relu(&squeezed);
    let squeezed = g.conv(&squeezed, &format!("{prefix}.se.fc2"), 1, Padding::None)?;
    let excite = g.sigmoid(&squeezed);
    let h = g.mul(&h, &excite);

    let h = conv_norm(g, &h, &format!("{prefix}.conv3"), 1, norms)?;
    let shortcut = if g.has(&format!("{prefix}.downsample.conv.weight")) {
        conv_norm(g, x, &format!("{prefix}.downsample"), stride, norms)?
    } else {
        x.clone()
    };
    if shortcut.shape() != h.shape() {
        return Err(GraphError::WrongShape {
            name: format!("{prefix}.conv3.conv.weight"),
            found: h.shape().to_vec(),
            needed: format!("a map of {:?} to add to the shortcut", shortcut.shape()),
        });
    }
    let sum = g.add(&h, &shortcut);
    Ok(g.relu(&sum))
}

/// Convolution with padding of half the kernel and the following batch norm folded in.
fn conv_norm(
    g: &mut Graph<'_>,
    x: &Value,
    prefix: &str,
    stride: usize,
    norms: &BatchNorms,
) -> Result<Value, GraphError> {
    let norm = format!("{prefix}.bn");
    let missing = || GraphError::NoSuchTensor { name: format!("{norm}.running_var") };
    let norm = norms.get(&norm).ok_or_else(missing)?;
    g.conv_affine(x, &format!("{prefix}.conv"), norm, stride, Padding::Half)
}

/// One fusion transformer: attention among the pooled cells of both maps. Returns the cells of the
/// image and of the LiDAR, `[1, channels, rows, cols]` each.
fn fusion(
    g: &mut Graph<'_>,
    image: &Value,
    lidar: &Value,
    i: usize,
    config: &BevConfig,
) -> Result<(Value, Value), GraphError> {
    let pooled = adaptive_average_pool(g, image, config.image_anchors);
    let n_image = pooled.dim(2) * pooled.dim(3);
    let channels = pooled.dim(1);
    let image_tokens = cells_as_tokens(g, &pooled);

    let pooled = adaptive_average_pool(g, lidar, config.lidar_anchors);
    let n_lidar = pooled.dim(2) * pooled.dim(3);
    let to_image = format!("{PREFIX}.lidar_channel_to_img.{i}");
    let pooled = g.conv(&pooled, &to_image, 1, Padding::None)?;
    let lidar_tokens = cells_as_tokens(g, &pooled);

    let prefix = format!("{PREFIX}.transformers.{i}");
    let tokens = g.concat(&[&image_tokens, &lidar_tokens], 0);
    let positions = g.weight_as(&format!("{prefix}.pos_emb"), &[n_image + n_lidar, channels])?;
    let mut x = g.add(&tokens, &positions);
    for b in 0.. {
        let prefix = format!("{prefix}.blocks.{b}");
        if b > 0 && !g.has(&format!("{prefix}.ln1.weight")) {
            break;
        }
        x = g.within(format!("block.{b}"), |g| fusion_block(g, &x, &prefix, config.n_head))?;
    }
    let x = g.layer_norm(&x, &format!("{prefix}.ln_f"), NORM_EPSILON)?;

    let cells = |g: &mut Graph<'_>, first: usize, [rows, cols]: [usize; 2]| {
        // Not slices: ONNX Runtime merges two slices of one tensor into a `Split`, which copies from
        // host memory in every run, and a CUDA graph of the run could not be replayed.
        let range = (first as i64..(first + rows * cols) as i64).collect::<Vec<_>>();
        let name = format!("tokens.{}..{}", first, first + range.len());
        let range = g.integers(&name, &[range.len()], &range);
        let tokens = g.gather(&x, &range);
        let tokens = g.transpose(&tokens, &[1, 0]);
        g.reshape(&tokens, &[1, channels, rows, cols])
    };
    let image_cells = cells(g, 0, config.image_anchors);
    let lidar_cells = cells(g, n_image, config.lidar_anchors);
    Ok((image_cells, lidar_cells))
}

fn fusion_block(
    g: &mut Graph<'_>,
    x: &Value,
    prefix: &str,
    heads: usize,
) -> Result<Value, GraphError> {
    let h = g.layer_norm(x, &format!("{prefix}.ln1"), NORM_EPSILON)?;
    let attended = attention(g, &h, &format!("{prefix}.attn"), heads)?;
    let x = g.add(x, &attended);
    let h = g.layer_norm(&x, &format!("{prefix}.ln2"), NORM_EPSILON)?;
    let h = g.linear(&h, &format!("{prefix}.mlp.0"))?;
    let h = g.relu(&h);
    let h = g.linear(&h, &format!("{prefix}.mlp.2"))?;
    Ok(g.add(&x, &h))
}

/// Attention written as separate operators: its heads are 18 to 378 wide, which the GPU kernels of the
/// `Attention` operator may not support.
fn attention(
    g: &mut Graph<'_>,
    h: &Value,
    prefix: &str,
    heads: usize,
) -> Result<Value, GraphError> {
    let [q, k, v] = ["query", "key", "value"].map(|part| -> Result<Value, GraphError> {
        let x = g.linear(h, &format!("{prefix}.{part}"))?;
        if !x.dim(1).is_multiple_of(heads) {
            return Err(GraphError::WrongShape {
                name: format!("{prefix}.{part}.weight"),
                found: vec![x.dim(1), h.dim(1)],
                needed: format!("a multiple of {heads} rows"),
            });
        }
        Ok(g.split_heads(&x, heads))
    });
    let (q, k, v) = (q?, k?, v?);
    let scale = 1.0 / (q.dim(3) as f32).sqrt();
    let q = g.scale(&q, scale, &format!("attention.scale.{}", q.dim(3)));
    let k = g.transpose(&k, &[0, 1, 3, 2]);
    let scores = g.matmul(&q, &k);
    let weights = g.softmax(&scores);
    let attended = g.matmul(&weights, &v);
    let attended = g.join_heads(&attended);
    g.linear(&attended, &format!("{prefix}.proj"))
}

/// Adds the cells, bilinearly resized to the size of the map.
fn add_resized(g: &mut Graph<'_>, map: &Value, cells: &Value) -> Value {
    let resized = g.resize_linear(cells, [map.dim(2), map.dim(3)]);
    g.add(map, &resized)
}

/// Reshapes `[1, channels, rows, cols]` to `[cells, channels]`.
fn cells_as_tokens(g: &mut Graph<'_>, map: &Value) -> Value {
    let (channels, cells) = (map.dim(1), map.dim(2) * map.dim(3));
    let tokens = g.reshape(map, &[channels, cells]);
    g.transpose(&tokens, &[1, 0])
}

/// Averages over `size` rows and columns of tiles, which overlap if the sizes do not divide.
fn adaptive_average_pool(g: &mut Graph<'_>, x: &Value, size: [usize; 2]) -> Value {
    let from = [x.dim(2), x.dim(3)];
    if from == size {
        return x.clone();
    }
    if from[0].is_multiple_of(size[0]) && from[1].is_multiple_of(size[1]) {
        return g.average_pool(x, [from[0] / size[0], from[1] / size[1]]);
    }
    let rows = pooling_matrix(from[0], size[0]);
    let name = format!("pool.rows.{}.{}", from[0], size[0]);
    let rows = g.constant(&name, &[1, 1, size[0], from[0]], &rows);
    let cols = pooling_matrix(from[1], size[1]);
    let name = format!("pool.cols.{}.{}", from[1], size[1]);
    let cols = g.constant(&name, &[1, 1, size[1], from[1]], &cols);
    let cols = g.transpose(&cols, &[0, 1, 3, 2]);
    let x = g.matmul(&rows, x);
    g.matmul(&x, &cols)
}

/// Matrix `[to, from]`; each row averages a tile.
fn pooling_matrix(from: usize, to: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; to * from];
    for i in 0..to {
        let tile = i * from / to..((i + 1) * from).div_ceil(to);
        let share = 1.0 / tile.len() as f32;
        matrix[i * from..][tile].fill(share);
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_overlap_if_the_sizes_do_not_divide() {
        let third = 1.0 / 3.0;
        assert_eq!(
            pooling_matrix(5, 2),
            [third, third, third, 0.0, 0.0, 0.0, 0.0, third, third, third]
        );
        assert_eq!(pooling_matrix(4, 2), [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5]);
    }
}
