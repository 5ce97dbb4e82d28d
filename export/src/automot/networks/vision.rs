//! The vision tower: patches of one frame → image tokens and deepstack maps.
//!
//! ```text
//! patches ─ patch embed ─ + position ─ block ─ block ─ … ─ block ─ merger ─► image_tokens
//!                                        └ deepstack merger, after some blocks ─► deepstack
//! ```
//!
//! Patches are in merge order: the patches that are merged into one token are consecutive.

use super::{ExportOptions, Sizes};
use crate::automot::checkpoint::{Checkpoint, VisionConfig};
use crate::automot::names::vision as names;
use crate::automot::sizes::VisionSizes;
use crate::dtype::DType;
use crate::family::NetworkError;
use crate::graph::{Gelu, Graph, GraphError, Network, Value};
use crate::nn::Probes;
use crate::nn::rotary::inverse_frequencies;
use crate::options::Precision;

/// Prefix of the tower's tensors.
const PREFIX: &str = "vision_model";

/// Epsilon of every LayerNorm of the tower.
const NORM_EPSILON: f64 = 1e-6;

/// Base of the tower's rotary frequencies.
const ROPE_THETA: f64 = 10_000.0;

/// Builds the network. Fails if the checkpoint's tensors do not fit its configuration.
pub fn build(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    sizes: &Sizes,
) -> Result<Network, NetworkError> {
    let config = &checkpoint.config().vision;
    let table = checkpoint.values_f32(&format!("{PREFIX}.pos_embed.weight")).map_err(|source| {
        NetworkError::Fold { network: names::NETWORK, source: Box::new(source) }
    })?;
    let side = config.num_position_embeddings.isqrt();
    if table.len() != side * side * config.hidden_size {
        return Err(NetworkError::Config(format!(
            "{} position embeddings of width {} are not {} numbers in a square",
            config.num_position_embeddings,
            config.hidden_size,
            table.len()
        )));
    }
    let order = merge_order(sizes.grid, config.spatial_merge_size);
    let precision = options.precision;
    let table = table.into_iter().map(|value| precision.round(value)).collect::<Vec<_>>();
    let resample = Resample { table: &table, side, width: config.hidden_size, precision };
    let positions = resample.to_grid(sizes.grid, &order);
    graph(checkpoint, options, sizes, config, &order, &positions)
        .map_err(|source| NetworkError::Graph { network: names::NETWORK, source })
}

fn graph(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    sizes: &Sizes,
    config: &VisionConfig,
    order: &[[usize; 2]],
    positions: &[f32],
) -> Result<Network, GraphError> {
    let mut graph = options.precision.graph(names::NETWORK, checkpoint);
    let g = &mut graph;
    let mut probes = Probes::new(options.probes);
    let (n_patches, width) = (sizes.patches, config.hidden_size);

    let patch_len =
        config.in_channels * config.temporal_patch_size * config.patch_size * config.patch_size;
    let patches = g.input(
        names::PATCHES,
        DType::F32,
        &[n_patches, patch_len],
        "patches of one frame in merge order; (channel, time, y, x) within a patch, p/127.5 - 1",
    );

    let kernel = g.weight_as(&format!("{PREFIX}.patch_embed.proj.weight"), &[width, patch_len])?;
    let bias = g.weight(&format!("{PREFIX}.patch_embed.proj.bias"))?;
    let positions = g.constant("position_embedding", &[n_patches, width], positions);
    let mut x = g.within("patch_embed", |g| {
        let patches = g.cast(&patches, g.dtype());
        let embedded = g.gemm(&patches, &kernel, Some(&bias), "gemm");
        probes.add("patch_embed", &embedded);
        g.add(&embedded, &positions)
    });
    probes.add("block_input", &x);

    let rope = rotary_tables(g, config, order);
    let mut deepstack = Vec::new();
    for i in 0..config.depth {
        x = g.within(format!("block.{i}"), |g| block(g, &x, i, config, &rope))?;
        probes.add(format!("block.{i}"), &x);
        if let Some(d) = config.deepstack_visual_indexes.iter().position(|&after| after == i) {
            let prefix = format!("{PREFIX}.deepstack_merger_list.{d}");
            let map = g.within(format!("deepstack.{d}"), |g| -> Result<_, GraphError> {
                let map = deepstack_merger(g, &x, &prefix, config)?;
                Ok(g.reshape(&map, &[1, map.dim(0), map.dim(1)]))
            })?;
            deepstack.push((d, map));
        }
    }
    let tokens = g.within("merger", |g| merger(g, &x, config))?;

    g.output(names::IMAGE_TOKENS, &tokens, "[tokens, hidden], row-major merged patches");
    if !deepstack.is_empty() {
        deepstack.sort_by_key(|(d, _)| *d);
        let maps = deepstack.iter().map(|(_, map)| map).collect::<Vec<_>>();
        let maps = g.within("deepstack", |g| g.concat(&maps, 0));
        g.output(
            names::DEEPSTACK,
            &maps,
            "[maps, tokens, hidden], added after the first text layers",
        );
    }
    probes.emit(g);

    let [frame_height, frame_width] = options.frame_size;
    Ok(graph.finish().with_sizes(&VisionSizes {
        frame_height,
        frame_width,
        patch_size: config.patch_size,
        temporal_patch_size: config.temporal_patch_size,
        spatial_merge_size: config.spatial_merge_size,
        in_channels: config.in_channels,
        tokens: sizes.frame_tokens,
        hidden: config.out_hidden_size,
        deepstack_maps: deepstack.len(),
    }))
}

fn block(
    g: &mut Graph<'_>,
    x: &Value,
    i: usize,
    config: &VisionConfig,
    (cos, sin): &(Value, Value),
) -> Result<Value, GraphError> {
    let prefix = format!("{PREFIX}.blocks.{i}");
    let (n, heads) = (x.dim(0), config.num_heads);
    let head_dim = config.hidden_size / heads;

    let h = g.layer_norm(x, &format!("{prefix}.norm1"), NORM_EPSILON)?;
    let qkv = g.linear(&h, &format!("{prefix}.attn.qkv"))?;
    let qkv = g.reshape(&qkv, &[n, 3, heads, head_dim]);
    let qkv = g.transpose(&qkv, &[1, 2, 0, 3]);
    let [q, k, v] = [0, 1, 2].map(|part| g.slice(&qkv, 0, part..part + 1));
    let q = g.rotary(&q, cos, sin);
    let k = g.rotary(&k, cos, sin);
    let attended = g.attention(&q, &k, &v, None, 1.0 / (head_dim as f32).sqrt());
    let attended = g.join_heads(&attended);
    let attended = g.linear(&attended, &format!("{prefix}.attn.proj"))?;
    let x = g.add(x, &attended);

    let h = g.layer_norm(&x, &format!("{prefix}.norm2"), NORM_EPSILON)?;
    let h = g.linear(&h, &format!("{prefix}.mlp.linear_fc1"))?;
    let h = g.gelu(&h, Gelu::Tanh);
    let h = g.linear(&h, &format!("{prefix}.mlp.linear_fc2"))?;
    Ok(g.add(&x, &h))
}

/// Normalizes each patch, then merges squares of patches.
fn merger(g: &mut Graph<'_>, x: &Value, config: &VisionConfig) -> Result<Value, GraphError> {
    let prefix = format!("{PREFIX}.merger");
    let x = g.layer_norm(x, &format!("{prefix}.norm"), NORM_EPSILON)?;
    let x = grouped(g, &x, config);
    merge(g, &x, &prefix)
}

/// Merges squares of patches, then normalizes each square.
fn deepstack_merger(
    g: &mut Graph<'_>,
    x: &Value,
    prefix: &str,
    config: &VisionConfig,
) -> Result<Value, GraphError> {
    let x = grouped(g, x, config);
    let x = g.layer_norm(&x, &format!("{prefix}.norm"), NORM_EPSILON)?;
    merge(g, &x, prefix)
}

fn merge(g: &mut Graph<'_>, x: &Value, prefix: &str) -> Result<Value, GraphError> {
    let x = g.linear(x, &format!("{prefix}.linear_fc1"))?;
    let x = g.gelu(&x, Gelu::Exact);
    g.linear(&x, &format!("{prefix}.linear_fc2"))
}

fn grouped(g: &mut Graph<'_>, x: &Value, config: &VisionConfig) -> Value {
    let square = config.spatial_merge_size * config.spatial_merge_size;
    g.reshape(x, &[x.dim(0) / square, x.dim(1) * square])
}

/// Row and column of every patch in merge order.
fn merge_order(grid: [usize; 2], merge: usize) -> Vec<[usize; 2]> {
    let mut order = Vec::with_capacity(grid[0] * grid[1]);
    for row_block in 0..grid[0] / merge {
        for col_block in 0..grid[1] / merge {
            for row in 0..merge {
                for col in 0..merge {
                    order.push([row_block * merge + row, col_block * merge + col]);
                }
            }
        }
    }
    order
}

/// Bilinear resampling of the square position table with aligned corners.
struct Resample<'a> {
    table: &'a [f32],
    side: usize,
    width: usize,
    /// Precision to which weights, products and sums are rounded, as in the AutoMoT release.
    precision: Precision,
}

impl Resample<'_> {
    /// Returns the embedding of every patch of a grid, in `order`.
    fn to_grid(&self, grid: [usize; 2], order: &[[usize; 2]]) -> Vec<f32> {
        let side = self.side;
        // For each row or column, the two neighboring entries and the offset from the first.
        let along = |n: usize| -> Vec<(usize, usize, f32)> {
            let step = if n > 1 { (side - 1) as f32 / (n - 1) as f32 } else { 0.0 };
            (0..n)
                .map(|i| {
                    let at = i as f32 * step;
                    let low = (at.floor() as usize).min(side - 1);
                    (low, (low + 1).min(side - 1), at - low as f32)
                })
                .collect()
        };
        let (rows, cols) = (along(grid[0]), along(grid[1]));
        let entry = |row: usize, col: usize| &self.table[(row * side + col) * self.width..];
        let round = |value| self.precision.round(value);
        let mut embedding = Vec::with_capacity(order.len() * self.width);
        for &[row, col] in order {
            let ((top, bottom, down), (left, right, over)) = (rows[row], cols[col]);
            let corners = [
                (entry(top, left), round((1.0 - down) * (1.0 - over))),
                (entry(top, right), round((1.0 - down) * over)),
                (entry(bottom, left), round(down * (1.0 - over))),
                (entry(bottom, right), round(down * over)),
            ];
            embedding.extend((0..self.width).map(|c| {
                let parts = corners.iter().map(|(values, share)| round(values[c] * share));
                parts.fold(0.0, |sum, part| round(sum + part))
            }));
        }
        embedding
    }
}

/// Cosines and sines `[1, patches, head_dim / 2]`. The first half of the pairs is rotated by the
/// row, the second by the column.
fn rotary_tables(g: &mut Graph<'_>, config: &VisionConfig, order: &[[usize; 2]]) -> (Value, Value) {
    let half = config.hidden_size / config.num_heads / 2;
    let frequencies = inverse_frequencies(ROPE_THETA, half);
    let angles = order
        .iter()
        .flat_map(|at| at.iter().flat_map(|&n| frequencies.iter().map(move |f| n as f32 * f)))
        .collect::<Vec<_>>();
    let dims = [1, order.len(), half];
    let cos = angles.iter().map(|angle| angle.cos()).collect::<Vec<_>>();
    let sin = angles.iter().map(|angle| angle.sin()).collect::<Vec<_>>();
    // The AutoMoT release rotates in single precision here.
    let mut table = |name, values: &[f32]| g.constant_f32(name, &dims, values);
    (table("rope.cos", &cos), table("rope.sin", &sin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_order_groups_squares_of_patches() {
        let order = merge_order([2, 4], 2);
        let expected = [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]];
        assert_eq!(order, expected);
    }

    #[test]
    fn resampling_keeps_corners_and_averages_the_middle() {
        let table = [1.0, 2.0, 3.0, 6.0];
        let order = merge_order([3, 3], 1);
        let resample = Resample { table: &table, side: 2, width: 1, precision: Precision::F32 };
        let found = resample.to_grid([3, 3], &order);
        assert_eq!(found, [1.0, 1.5, 2.0, 2.0, 3.0, 4.0, 3.0, 4.5, 6.0]);
    }
}
