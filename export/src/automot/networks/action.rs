//! The action expert: BEV tokens, state and prefix KV cache → route, waypoints and decision.
//!
//! ```text
//! bev_tokens ─ project ─┐
//! state ─ encoders ─────┼─ layer 0 ─ … ─ layer n ─ norm ─┬─ decision head ─► decision_ids
//! query tokens ─────────┘    ▲              ▲            ├─ route head ────► route
//!                       keys.0, values.0   keys.n, …     └─ waypoint head ─► waypoints
//! ```
//!
//! Its heads are fewer and narrower than those of the understanding expert. Its queries and keys are
//! zero-padded to the width of the prefix KV cache before the rotation. In queries, the
//! rotation makes the padding non-zero, and it is multiplied by the keys of the prefix. In own keys
//! the padding remains zero: pairs with a padded element are only scaled by the cosine. Key heads that
//! no query reads are omitted.

use super::{ExportOptions, Sizes, understanding};
use crate::automot::checkpoint::{Checkpoint, TextConfig};
use crate::automot::names::{action as names, prefix_tensors};
use crate::automot::sizes::{ActionSizes, RopeNumbers};
use crate::checkpoint::CheckpointError;
use crate::dtype::DType;
use crate::family::NetworkError;
use crate::graph::{Graph, GraphError, Network, Value};
use crate::nn::{Probes, rotary, swiglu};
use crate::options::Precision;
use ndarray::{Array1, Array2, ShapeError};

/// The three groups of query tokens in order.
const QUERIES: [(&str, &str); 3] = [
    ("reasoning_queries", "reasoning_projector"),
    ("route_queries", "route_projector"),
    ("waypoint_queries", "waypoint_projector"),
];

/// Builds the network. Fails if the checkpoint's tensors do not fit its configuration.
pub fn build(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    sizes: &Sizes,
) -> Result<Network, NetworkError> {
    let queries = query_tokens(checkpoint, options.precision)?;
    let n_queries: usize = sizes.blocks[2..].iter().sum();
    let hidden = checkpoint.config().text.hidden_size;
    if queries.len() != n_queries * hidden {
        return Err(NetworkError::Config(format!(
            "query tokens are {} numbers, not {n_queries} rows of {hidden}",
            queries.len()
        )));
    }
    graph(checkpoint, options, sizes, &queries)
        .map_err(|source| NetworkError::Graph { network: names::NETWORK, source })
}

fn graph(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    sizes: &Sizes,
    queries: &[f32],
) -> Result<Network, GraphError> {
    let config = &checkpoint.config().text;
    let mut graph = options.precision.graph(names::NETWORK, checkpoint);
    let g = &mut graph;
    let mut probes = Probes::new(options.probes);

    let inputs = Inputs::declare(g, sizes, config)?;
    let mut x = g.within("embed", |g| embed(g, &inputs.bev_tokens, &inputs.state, queries))?;
    probes.add("input_embeds", &x);
    let mask =
        g.within("mask", |g| mask(g, &inputs.prefix_length, sizes.prefix_capacity, sizes.blocks));
    let rope = g.within("rope", |g| Rope::new(g, &inputs.position, sizes, config));
    for (l, prefix) in inputs.prefix.iter().enumerate() {
        let layer = Layer { index: l, checkpoint, sizes, rope: &rope };
        x = g.within(format!("layer.{l}"), |g| layer.run(g, &x, prefix, &mask, &mut probes))?;
        probes.add(format!("hidden.{l}"), &x);
    }
    let norm = g.weight(&format!("{}.norm_mot_gen.weight", understanding::PREFIX))?;
    let x = g.within("norm", |g| g.rms_norm(&x, &norm, config.rms_norm_eps));
    probes.add("last_hidden", &x);
    heads(g, &x, sizes.blocks, &mut probes)?;
    probes.emit(g);

    let numbers = RopeNumbers { rope_theta: config.rope_theta };
    let channels = inputs.bev_tokens.dim(1);
    let sizes = contract_sizes(sizes, config, channels);
    Ok(graph.finish().with_sizes(&sizes).with_numbers(&numbers))
}

struct Inputs {
    bev_tokens: Value,
    state: Value,
    position: Value,
    prefix_length: Value,
    /// Keys and values of the prefix by layer.
    prefix: Vec<[Value; 2]>,
}

impl Inputs {
    /// Declares the inputs, in binding order.
    fn declare(g: &mut Graph<'_>, sizes: &Sizes, config: &TextConfig) -> Result<Self, GraphError> {
        let Sizes { prefix_capacity, kv_heads, gen_head_dim, cells, .. } = *sizes;
        let channels = *g.shape_of("bev_encoder_proj.weight")?.last().unwrap_or(&0);
        let bev_tokens = g.input(
            names::BEV_TOKENS,
            g.dtype(),
            &[cells, channels],
            "BEV feature, row-major cells",
        );
        let state = g.input(
            names::STATE,
            DType::F32,
            &[5],
            "speed in m/s, target point x, y, next target point x, y in meters in the ego frame",
        );
        let position = g.input(
            names::POSITION,
            DType::I64,
            &[1],
            "position of the first own token, after the prefix",
        );
        let prefix_length =
            g.input(names::PREFIX_LENGTH, DType::I64, &[1], "tokens of the prefix that are real");
        let prefix = (0..config.num_hidden_layers)
            .map(|l| {
                let keys = [kv_heads, prefix_capacity, config.head_dim];
                let values = [kv_heads, prefix_capacity, gen_head_dim];
                let meaning =
                    "as the understanding expert made it; finite beyond prefix_length too";
                let [keys_name, values_name] = prefix_tensors(l);
                [
                    g.input(&keys_name, g.dtype(), &keys, meaning),
                    g.input(&values_name, g.dtype(), &values, meaning),
                ]
            })
            .collect();
        Ok(Self { bev_tokens, state, position, prefix_length, prefix })
    }
}

/// Adds the outputs: route, waypoints and decision.
fn heads(
    g: &mut Graph<'_>,
    x: &Value,
    blocks: [usize; 5],
    probes: &mut Probes,
) -> Result<(), GraphError> {
    let decision_at = blocks[0] + blocks[1];
    let route_at = decision_at + blocks[2];
    let waypoints_at = route_at + blocks[3];

    // The route head returns x and y - x of each point, which are summed over the coordinates. The
    // waypoint head returns steps, which are summed over time.
    let route = g.within("head.route", |g| -> Result<_, GraphError> {
        let route = g.slice(x, 0, route_at..waypoints_at);
        let route = point_head(g, &route, "route_head.mlp")?;
        probes.add("route_raw", &route);
        Ok(g.cumulative_sum(&route, 1))
    })?;
    let waypoints = g.within("head.waypoints", |g| -> Result<_, GraphError> {
        let waypoints = g.slice(x, 0, waypoints_at..x.dim(0));
        let waypoints = point_head(g, &waypoints, "waypoints_head.mlp")?;
        probes.add("waypoint_raw", &waypoints);
        Ok(g.cumulative_sum(&waypoints, 0))
    })?;
    let decision = g.within("head.decision", |g| -> Result<_, GraphError> {
        // The output head is tied to the embedding; a stored copy of it is ignored.
        let table = g.weight(&format!("{}.embed_tokens.weight", understanding::PREFIX))?;
        let rows = g.slice(x, 0, decision_at..route_at);
        let logits = g.gemm(&rows, &table, None, "decision_logits");
        probes.add("decision_logits", &logits);
        // Not every back end supports ArgMax of bfloat16.
        let logits = g.cast(&logits, DType::F32);
        Ok(g.arg_max(&logits, 1))
    })?;

    g.output(names::ROUTE, &route, "[points, (x, y)], meters in the ego frame, x ahead, y right");
    g.output(
        names::WAYPOINTS,
        &waypoints,
        "[points, (x, y)], meters in the ego frame, half-second steps",
    );
    g.output(names::DECISION_IDS, &decision, "most likely token of each decision query");
    Ok(())
}

fn contract_sizes(sizes: &Sizes, config: &TextConfig, channels: usize) -> ActionSizes {
    ActionSizes {
        layers: config.num_hidden_layers,
        hidden: config.hidden_size,
        prefix_capacity: sizes.prefix_capacity,
        kv_heads: sizes.kv_heads,
        key_dim: config.head_dim,
        value_dim: sizes.gen_head_dim,
        own_tokens: sizes.own_tokens(),
        cells: sizes.cells,
        channels,
    }
}

/// `[tokens, hidden]`: BEV cells, two target points, speed, queries.
fn embed(
    g: &mut Graph<'_>,
    bev_tokens: &Value,
    state: &Value,
    queries: &[f32],
) -> Result<Value, GraphError> {
    let cells = g.linear(bev_tokens, "bev_encoder_proj")?;
    let state = g.cast(state, g.dtype());
    let points = g.slice(&state, 0, 1..5);
    let points = g.reshape(&points, &[2, 2]);
    let points = encoder(g, &points, "target_point_encoder.mlp")?;
    let speed = g.slice(&state, 0, 0..1);
    let speed = g.reshape(&speed, &[1, 1]);
    let speed = encoder(g, &speed, "velocity_encoder")?;
    let hidden = cells.dim(1);
    let queries = g.constant("query_tokens", &[queries.len() / hidden, hidden], queries);
    Ok(g.concat(&[&cells, &points, &speed, &queries], 0))
}

fn encoder(g: &mut Graph<'_>, x: &Value, prefix: &str) -> Result<Value, GraphError> {
    let x = g.linear(x, &format!("{prefix}.0"))?;
    let x = g.relu(&x);
    let x = g.linear(&x, &format!("{prefix}.2"))?;
    let x = g.relu(&x);
    g.linear(&x, &format!("{prefix}.4"))
}

/// Two numbers per token in single precision.
fn point_head(g: &mut Graph<'_>, x: &Value, prefix: &str) -> Result<Value, GraphError> {
    let x = g.linear(x, &format!("{prefix}.0"))?;
    let x = g.swish(&x);
    let x = g.linear(&x, &format!("{prefix}.2"))?;
    let x = g.swish(&x);
    let x = g.linear(&x, &format!("{prefix}.4"))?;
    Ok(g.cast(&x, DType::F32))
}

/// Mask `[1, 1, tokens, capacity + tokens]` that is added to scores: all tokens attend to the valid
/// part of the prefix, and each block attends to itself and the previous blocks.
fn mask(g: &mut Graph<'_>, prefix_length: &Value, capacity: usize, blocks: [usize; 5]) -> Value {
    let own = block_mask(blocks);
    let n_tokens = own.len();
    // The indices of own columns exceed every prefix length.
    let columns = (0..capacity as i64)
        .chain(std::iter::repeat_n(i64::from(i32::MAX), n_tokens))
        .collect::<Vec<_>>();
    let columns = g.integers("columns", &[1, columns.len()], &columns);
    let in_prefix = g.less(&columns, prefix_length);
    let own = own
        .iter()
        .flat_map(|row| std::iter::repeat_n(false, capacity).chain(row.iter().copied()))
        .collect::<Vec<_>>();
    let own = g.booleans("visible_own_tokens", &[n_tokens, capacity + n_tokens], &own);
    let visible = g.or(&own, &in_prefix);
    let visible = g.reshape(&visible, &[1, 1, n_tokens, capacity + n_tokens]);
    g.additive_mask(&visible)
}

/// For each own token (row), the own tokens (columns) to which it attends.
fn block_mask(blocks: [usize; 5]) -> Vec<Vec<bool>> {
    let block_of = blocks
        .iter()
        .enumerate()
        .flat_map(|(block, &n)| std::iter::repeat_n(block, n))
        .collect::<Vec<_>>();
    block_of.iter().map(|row| block_of.iter().map(|column| column <= row).collect()).collect()
}

struct Layer<'a> {
    index: usize,
    checkpoint: &'a Checkpoint,
    sizes: &'a Sizes,
    rope: &'a Rope,
}

/// Cosines and sines, `[1, tokens, head_dim / 2]` each.
struct Rope {
    cos: Value,
    sin: Value,
    /// Sines for keys: zero for pairs with a padded element.
    key_sin: Value,
}

impl Rope {
    /// Computes the tables of the own tokens at consecutive positions from `position` on.
    fn new(g: &mut Graph<'_>, position: &Value, sizes: &Sizes, config: &TextConfig) -> Self {
        let n_tokens = sizes.own_tokens();
        let offsets = (0..n_tokens as i64).collect::<Vec<_>>();
        let offsets = g.integers("rope.offsets", &[n_tokens], &offsets);
        let positions = g.add(position, &offsets);
        let positions = g.cast(&positions, DType::F32);
        let positions = g.reshape(&positions, &[n_tokens, 1]);
        let (cos, sin) = rotary::tables(g, &positions, config.rope_theta, config.head_dim);
        let key_sin = within_own_width(g, &sin, sizes.gen_head_dim, config.head_dim);
        Self { cos, sin, key_sin }
    }
}

/// Zeroes the sines of pairs that exceed `own` of the `common` elements of a head, so that the padding
/// of a rotated key remains zero.
fn within_own_width(g: &mut Graph<'_>, sin: &Value, own: usize, common: usize) -> Value {
    if own == common {
        return sin.clone();
    }
    let half = common / 2;
    let kept = (0..half).map(|j| if j + half < own { 1.0 } else { 0.0 }).collect::<Vec<_>>();
    let kept = g.constant("rope.own_width", &[half], &kept);
    g.mul(sin, &kept)
}

impl Layer<'_> {
    /// Returns the residual stream after the layer.
    fn run(
        &self,
        g: &mut Graph<'_>,
        x: &Value,
        [keys, values]: &[Value; 2],
        mask: &Value,
        probes: &mut Probes,
    ) -> Result<Value, GraphError> {
        let epsilon = self.checkpoint.config().text.rms_norm_eps;
        let prefix = self.prefix();
        let norm = g.weight(&format!("{prefix}.input_layernorm_mot_gen.weight"))?;
        let h = g.rms_norm(x, &norm, epsilon);
        let attended = self.attend(g, &h, keys, values, mask)?;
        if self.index == 0 {
            probes.add("layer.0.attention", &attended);
        }
        let x = g.add(x, &attended);
        let norm = g.weight(&format!("{prefix}.post_attention_layernorm_mot_gen.weight"))?;
        let h = g.rms_norm(&x, &norm, epsilon);
        let h = swiglu(g, &h, &format!("{prefix}.mlp_mot_gen"))?;
        Ok(g.add(&x, &h))
    }

    /// Prefix of the layer's tensors.
    fn prefix(&self) -> String {
        format!("{}.layers.{}", understanding::PREFIX, self.index)
    }

    /// Attention over prefix and own tokens, and output projection.
    fn attend(
        &self,
        g: &mut Graph<'_>,
        h: &Value,
        prefix_keys: &Value,
        prefix_values: &Value,
        mask: &Value,
    ) -> Result<Value, GraphError> {
        let config = self.checkpoint.config();
        let (text, mot) = (&config.text, &config.mot);
        let Sizes { kv_heads, gen_head_dim, group, .. } = *self.sizes;
        let head_dim = text.head_dim;
        let prefix = format!("{}.self_attn", self.prefix());
        let Rope { cos, sin, key_sin } = self.rope;

        let queries = g.linear(h, &format!("{prefix}.q_proj_mot_gen"))?;
        let queries = g.split_heads(&queries, mot.num_attention_heads);
        let norm = g.weight(&format!("{prefix}.q_norm_mot_gen.weight"))?;
        let queries = g.rms_norm(&queries, &norm, text.rms_norm_eps);
        let queries = g.fit(&queries, 1, kv_heads * group);
        let queries = g.fit(&queries, 3, head_dim);
        let queries = g.rotary(&queries, cos, sin);

        let own_heads = mot.num_key_value_heads.min(kv_heads);
        let rows = 0..own_heads * gen_head_dim;
        let keys = g.linear_rows(h, &format!("{prefix}.k_proj_mot_gen"), rows.clone())?;
        let keys = g.split_heads(&keys, own_heads);
        let norm = g.weight(&format!("{prefix}.k_norm_mot_gen.weight"))?;
        let keys = g.rms_norm(&keys, &norm, text.rms_norm_eps);
        let keys = g.fit(&keys, 1, kv_heads);
        let keys = g.fit(&keys, 3, head_dim);
        let keys = g.rotary(&keys, cos, key_sin);
        let keys = with_prefix(g, prefix_keys, &keys);

        let values = g.linear_rows(h, &format!("{prefix}.v_proj_mot_gen"), rows)?;
        let values = g.split_heads(&values, own_heads);
        let values = g.fit(&values, 1, kv_heads);
        let values = with_prefix(g, prefix_values, &values);

        let scale = 1.0 / (head_dim as f32).sqrt();
        let attended = g.attention(&queries, &keys, &values, Some(mask), scale);
        let attended = g.slice(&attended, 1, 0..mot.num_attention_heads);
        let attended = g.join_heads(&attended);
        g.linear(&attended, &format!("{prefix}.o_proj_mot_gen"))
    }
}

/// Concatenates `[heads, capacity, dim]` and `[1, heads, tokens, dim]` to
/// `[1, heads, capacity + tokens, dim]`.
fn with_prefix(g: &mut Graph<'_>, prefix: &Value, own: &Value) -> Value {
    let prefix = g.reshape(prefix, &[1, prefix.dim(0), prefix.dim(1), prefix.dim(2)]);
    g.concat(&[&prefix, own], 2)
}

/// Computes the projected query tokens, which are constants of a checkpoint, row by row.
fn query_tokens(checkpoint: &Checkpoint, precision: Precision) -> Result<Vec<f32>, NetworkError> {
    let mut tokens = Vec::new();
    for (queries, projector) in QUERIES {
        let read = |name: &str| -> Result<(Vec<usize>, Vec<f32>), CheckpointError> {
            let values = checkpoint.values_f32(name)?;
            let values = values.into_iter().map(|value| precision.round(value)).collect();
            Ok((checkpoint.tensor(name)?.shape.clone(), values))
        };
        let read = |name: String| {
            read(&name).map_err(|source| NetworkError::Fold {
                network: names::NETWORK,
                source: Box::new(source),
            })
        };
        let matrix = |name: String| -> Result<Array2<f32>, NetworkError> {
            let (shape, values) = read(name.clone())?;
            let [rows, cols] = shape[..] else {
                return Err(NetworkError::Config(format!(
                    "{name} of shape {shape:?} is not a matrix"
                )));
            };
            Array2::from_shape_vec((rows, cols), values).map_err(|e| wrong_shape(&name, &e))
        };
        let x = matrix(format!("{queries}.weight"))?;
        let fc1 = matrix(format!("{projector}.fc1.weight"))?;
        let fc2 = matrix(format!("{projector}.fc2.weight"))?;
        let bias1 = Array1::from_vec(read(format!("{projector}.fc1.bias"))?.1);
        let bias2 = Array1::from_vec(read(format!("{projector}.fc2.bias"))?.1);
        let fits = x.ncols() == fc1.ncols()
            && fc1.nrows() == fc2.ncols()
            && bias1.len() == fc1.nrows()
            && bias2.len() == fc2.nrows();
        if !fits {
            return Err(NetworkError::Config(format!("{projector} does not fit {queries}")));
        }
        tokens.extend(project(&x, (&fc1, &bias1), (&fc2, &bias2), precision));
    }
    Ok(tokens)
}

fn wrong_shape(name: &str, error: &ShapeError) -> NetworkError {
    NetworkError::Config(format!("{name}: {error}"))
}

/// Computes `fc2(gelu_tanh(fc1(x)))` with every step rounded, row by row.
fn project(
    x: &Array2<f32>,
    (fc1, bias1): (&Array2<f32>, &Array1<f32>),
    (fc2, bias2): (&Array2<f32>, &Array1<f32>),
    precision: Precision,
) -> Vec<f32> {
    let round = |value| precision.round(value);
    let hidden = (x.dot(&fc1.t()) + bias1).mapv(|x| round(gelu_tanh(round(x))));
    (hidden.dot(&fc2.t()) + bias2).iter().map(|&x| round(x)).collect()
}

fn gelu_tanh(x: f32) -> f32 {
    let inner = std::f32::consts::FRAC_2_PI.sqrt() * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn mask_of_the_release_allows_7403_pairs() {
        let mask = block_mask([64, 3, 8, 20, 6]);
        assert_eq!(mask.iter().flatten().filter(|&&visible| visible).count(), 7403);
        assert!(mask[66][0] && mask[0][63] && !mask[0][64] && mask[100][0] && !mask[94][95]);
    }

    #[test]
    fn query_tokens_pass_both_projector_layers() {
        let x = array![[1.0, -2.0]];
        let (fc1, bias1) = (array![[1.0, 0.0], [0.0, 1.0]], array![0.5, 0.0]);
        let (fc2, bias2) = (array![[1.0, 1.0]], array![10.0]);
        let tokens = project(&x, (&fc1, &bias1), (&fc2, &bias2), Precision::F32);
        // gelu_tanh(1.5) = 1.3995715, gelu_tanh(-2) = -0.04540229.
        assert!((tokens[0] - (10.0 + 1.399_571_5 - 0.045_402_29)).abs() < 1e-6, "{tokens:?}");
    }
}
