//! The understanding expert: a prompt with image tokens → keys and values of every layer.
//!
//! ```text
//! token_ids ─ embed ┐                         ┌ + deepstack.l, at image tokens
//! image_tokens ─────┴─ layer 0 ─ … ─ layer l ─┴─ … ─ keys and values of the last layer
//!                        └► keys.0, values.0   └► keys.l, values.l
//! ```
//!
//! The outputs are the parts that the action expert reads: the first heads, and the first elements of
//! values. The hidden state after the last layer has no reader, so that layer consists of its key and
//! value projections.
//!
//! The layers may be divided among several networks that run in sequence. Each passes its hidden state
//! to the next. Masks and rotary tables are recomputed in each, from the same inputs.

use super::{ExportOptions, Sizes};
use crate::automot::checkpoint::{AutomotConfig, Checkpoint, TextConfig};
use crate::automot::names::{prefix_tensors, understanding as names};
use crate::automot::sizes::{GroupSizes, RopeNumbers, UnderstandingSizes};
use crate::dtype::DType;
use crate::family::NetworkError;
use crate::graph::{Graph, GraphError, Network, Value};
use crate::nn::rotary::{self, mrope_axes};
use crate::nn::{Probes, swiglu};
use std::ops::Range;

/// Prefix of the text stack's tensors.
pub(super) const PREFIX: &str = "language_model.model";

/// The layers of one network.
struct Group {
    index: usize,
    of: usize,
    layers: Range<usize>,
}

impl Group {
    fn name(&self) -> String {
        if self.of == 1 { names::NETWORK.to_owned() } else { names::group(self.index) }
    }

    fn embeds(&self) -> bool {
        self.layers.start == 0
    }
}

/// Builds the network, or the networks of the layer groups in execution order. Fails if the
/// checkpoint's tensors do not fit its configuration, or there are more groups than layers.
pub fn build(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    sizes: &Sizes,
) -> Result<Vec<Network>, NetworkError> {
    let layers = checkpoint.config().text.num_hidden_layers;
    let groups = options.understanding_groups;
    if !(1..=layers).contains(&groups) {
        return Err(NetworkError::LayerGroups { groups, layers });
    }
    let boundary = |index| index * layers / groups;
    (0..groups)
        .map(|index| Group { index, of: groups, layers: boundary(index)..boundary(index + 1) })
        .map(|group| graph(checkpoint, options, sizes, &group))
        .collect::<Result<_, _>>()
        .map_err(|source| NetworkError::Graph { network: names::NETWORK, source })
}

fn graph(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    sizes: &Sizes,
    group: &Group,
) -> Result<Network, GraphError> {
    let config = &checkpoint.config().text;
    let mut graph = options.precision.graph(&group.name(), checkpoint);
    let g = &mut graph;
    let mut probes = Probes::new(options.probes);

    let inputs = Inputs::declare(g, checkpoint.config(), sizes, group);
    let mut x = inputs.hidden(g)?;
    if group.embeds() {
        probes.add("input_embeds", &x);
    }
    let mask = inputs.visible_until.as_ref().map(|until| g.within("mask", |g| mask(g, until)));
    let rope = g.within("rope", |g| rope(g, &inputs.position_ids, config));

    let mut kept = Vec::new();
    for l in group.layers.clone() {
        let layer = Layer { index: l, checkpoint, sizes, inputs: &inputs, rope: &rope };
        let (keys_and_values, after) =
            g.within(format!("layer.{l}"), |g| layer.run(g, &x, mask.as_ref(), &mut probes))?;
        kept.push((l, keys_and_values));
        x = after.unwrap_or(x);
    }

    for (l, (keys, values)) in &kept {
        let [keys_name, values_name] = prefix_tensors(*l);
        g.output(&keys_name, keys, "[kv_heads, tokens, head_dim], normed and rotated");
        g.output(&values_name, values, "[kv_heads, tokens, action head_dim]");
    }
    if group.layers.end < config.num_hidden_layers {
        let name = names::hidden(group.layers.end - 1);
        g.output(&name, &x, "[tokens, hidden], for the network after this one");
    }
    probes.emit(g);

    let numbers = RopeNumbers { rope_theta: config.rope_theta };
    let sizes = contract_sizes(checkpoint.config(), options, sizes, group);
    Ok(graph.finish().with_sizes(&sizes).with_numbers(&numbers))
}

/// The inputs of a group; `None` for those that it does not read.
struct Inputs {
    token_ids: Option<Value>,
    /// Hidden states of the previous group.
    before: Option<Value>,
    image_slot: Option<Value>,
    position_ids: Value,
    visible_until: Option<Value>,
    image_tokens: Option<Value>,
    deepstack: Option<Value>,
}

impl Inputs {
    /// Declares the inputs, in binding order.
    fn declare(g: &mut Graph<'_>, config: &AutomotConfig, sizes: &Sizes, group: &Group) -> Self {
        let n_maps = config.vision.deepstack_visual_indexes.len();
        let (capacity, hidden) = (sizes.prefix_capacity, config.text.hidden_size);
        // Layers with attention and MLP: all except the last layer of the expert.
        let full = group.layers.start..group.layers.end.min(config.text.num_hidden_layers - 1);
        let adds_maps = full.start < n_maps && !full.is_empty();

        let token_ids = group.embeds().then(|| {
            g.input(names::TOKEN_IDS, DType::I64, &[capacity], "token ids; any id as padding")
        });
        let before = (!group.embeds()).then(|| {
            let name = names::hidden(group.layers.start - 1);
            let meaning = "hidden states that the network before gave";
            g.input(&name, g.dtype(), &[capacity, hidden], meaning)
        });
        let image_slot = (group.embeds() || adds_maps).then(|| {
            let meaning = "0 at text, k + 1 at the k-th image token of the prompt";
            g.input(names::IMAGE_SLOT, DType::I64, &[capacity], meaning)
        });
        let meaning = "positions in time, height and width";
        let position_ids = g.input(names::POSITION_IDS, DType::I64, &[3, capacity], meaning);
        let visible_until = (!full.is_empty()).then(|| {
            let meaning = "token i attends to tokens below this, and always to token 0; 0 will do \
                           at padding";
            g.input(names::VISIBLE_UNTIL, DType::I64, &[capacity], meaning)
        });
        let image_tokens = group.embeds().then(|| {
            let meaning = "image tokens of all frames, oldest frame first";
            g.input(names::IMAGE_TOKENS, g.dtype(), &[sizes.image_tokens, hidden], meaning)
        });
        let deepstack = adds_maps.then(|| {
            let shape = [n_maps, sizes.image_tokens, hidden];
            let meaning = "deepstack maps of all frames: [map, token, hidden]";
            g.input(names::DEEPSTACK, g.dtype(), &shape, meaning)
        });
        Self { token_ids, before, image_slot, position_ids, visible_until, image_tokens, deepstack }
    }

    /// Returns the input of the first layer.
    fn hidden(&self, g: &mut Graph<'_>) -> Result<Value, GraphError> {
        match (&self.before, &self.token_ids, &self.image_slot, &self.image_tokens) {
            (Some(hidden), ..) => Ok(hidden.clone()),
            (None, Some(ids), Some(slot), Some(tokens)) => {
                g.within("embed", |g| embed(g, ids, slot, tokens))
            }
            _ => unreachable!("a group takes hidden states or the inputs of the embedding"),
        }
    }
}

/// Cosines and sines of the tokens' positions.
fn rope(g: &mut Graph<'_>, position_ids: &Value, config: &TextConfig) -> (Value, Value) {
    let axes = mrope_axes(config.mrope_section);
    let axes = axes.into_iter().map(|axis| axis as i64).collect::<Vec<_>>();
    let axes = g.integers("rope.axes", &[axes.len()], &axes);
    let positions = g.cast(position_ids, DType::F32);
    let by_pair = g.gather(&positions, &axes);
    let by_token = g.transpose(&by_pair, &[1, 0]);
    rotary::tables(g, &by_token, config.rope_theta, config.head_dim)
}

fn contract_sizes(
    config: &AutomotConfig,
    options: &ExportOptions,
    sizes: &Sizes,
    group: &Group,
) -> UnderstandingSizes {
    UnderstandingSizes {
        layers: config.text.num_hidden_layers,
        group: (group.of > 1).then(|| GroupSizes {
            groups: group.of,
            group: group.index,
            first_layer: group.layers.start,
            group_layers: group.layers.len(),
        }),
        hidden: config.text.hidden_size,
        prefix_capacity: sizes.prefix_capacity,
        frames: options.frames,
        frame_tokens: sizes.frame_tokens,
        kv_heads: sizes.kv_heads,
        key_dim: config.text.head_dim,
        value_dim: sizes.gen_head_dim,
        deepstack_maps: config.vision.deepstack_visual_indexes.len(),
        vocab_size: config.text.vocab_size,
    }
}

/// Embeds text tokens and inserts image tokens at their positions.
fn embed(
    g: &mut Graph<'_>,
    token_ids: &Value,
    image_slot: &Value,
    image_tokens: &Value,
) -> Result<Value, GraphError> {
    let table = g.weight(&format!("{PREFIX}.embed_tokens.weight"))?;
    let text = g.gather(&table, token_ids);
    let images = at_image_tokens(g, image_tokens, image_slot);
    let zero = g.integers("first_slot", &[1], &[0]);
    let is_image = g.less(&zero, image_slot);
    let is_image = g.reshape(&is_image, &[image_slot.dim(0), 1]);
    Ok(g.select(&is_image, &images, &text))
}

/// Returns rows of `tokens` at the positions of image tokens, and zeros at text.
fn at_image_tokens(g: &mut Graph<'_>, tokens: &Value, image_slot: &Value) -> Value {
    let text = g.zeros(&[1, tokens.dim(1)]);
    let table = g.concat(&[&text, tokens], 0);
    g.gather(&table, image_slot)
}

/// Mask `[1, 1, tokens, tokens]` that is added to scores.
fn mask(g: &mut Graph<'_>, visible_until: &Value) -> Value {
    let n = visible_until.dim(0);
    // Every row attends to the first token, as all real tokens do. A padding row without a visible
    // column would be NaN, and masked NaN values still make a sum NaN.
    let columns = (0..n as i64).map(|c| if c == 0 { -1 } else { c }).collect::<Vec<_>>();
    let columns = g.integers("columns", &[1, n], &columns);
    let until = g.reshape(visible_until, &[n, 1]);
    let visible = g.less(&columns, &until);
    let visible = g.reshape(&visible, &[1, 1, n, n]);
    g.additive_mask(&visible)
}

struct Layer<'a> {
    index: usize,
    checkpoint: &'a Checkpoint,
    sizes: &'a Sizes,
    inputs: &'a Inputs,
    rope: &'a (Value, Value),
}

impl Layer<'_> {
    /// Returns the keys and values that the action expert reads, and the residual stream after the
    /// layer; `None` for the last layer.
    fn run(
        &self,
        g: &mut Graph<'_>,
        x: &Value,
        mask: Option<&Value>,
        probes: &mut Probes,
    ) -> Result<((Value, Value), Option<Value>), GraphError> {
        let config = &self.checkpoint.config().text;
        let (prefix, epsilon) = (self.prefix(), config.rms_norm_eps);
        let is_last = self.index + 1 == config.num_hidden_layers;
        let norm = g.weight(&format!("{prefix}.input_layernorm.weight"))?;
        let h = g.rms_norm(x, &norm, epsilon);
        let n_heads = if is_last { self.sizes.kv_heads } else { config.num_key_value_heads };
        let (keys, values) = self.keys_and_values(g, &h, n_heads)?;
        let kept = self.kept(g, &keys, &values);
        let Some(mask) = mask.filter(|_| !is_last) else {
            return Ok((kept, None));
        };
        let attended = self.attend(g, &h, &keys, &values, mask)?;
        if self.index == 0 {
            probes.add("layer.0.attention", &attended);
        }
        let x = g.add(x, &attended);
        let norm = g.weight(&format!("{prefix}.post_attention_layernorm.weight"))?;
        let h = g.rms_norm(&x, &norm, epsilon);
        let h = swiglu(g, &h, &format!("{prefix}.mlp"))?;
        let x = g.add(&x, &h);
        let x = self.with_map(g, x);
        probes.add(format!("hidden.{}", self.index), &x);
        Ok((kept, Some(x)))
    }

    /// Adds the deepstack map of the layer, if it has one, to the residual stream.
    fn with_map(&self, g: &mut Graph<'_>, x: Value) -> Value {
        let l = self.index;
        let (Some(maps), Some(slot)) = (&self.inputs.deepstack, &self.inputs.image_slot) else {
            return x;
        };
        if l >= maps.dim(0) {
            return x;
        }
        let map = g.slice(maps, 0, l..l + 1);
        let map = g.reshape(&map, &[maps.dim(1), maps.dim(2)]);
        let map = at_image_tokens(g, &map, slot);
        g.add(&x, &map)
    }

    /// Prefix of the layer's tensors.
    fn prefix(&self) -> String {
        format!("{PREFIX}.layers.{}", self.index)
    }

    /// Computes keys and values of the first `n_heads` heads, `[1, heads, tokens, head_dim]` each.
    fn keys_and_values(
        &self,
        g: &mut Graph<'_>,
        h: &Value,
        n_heads: usize,
    ) -> Result<(Value, Value), GraphError> {
        let config = &self.checkpoint.config().text;
        let rows = 0..n_heads * config.head_dim;
        let prefix = format!("{}.self_attn", self.prefix());
        let keys = g.linear_rows(h, &format!("{prefix}.k_proj"), rows.clone())?;
        let keys = g.split_heads(&keys, n_heads);
        let norm = g.weight(&format!("{prefix}.k_norm.weight"))?;
        let keys = g.rms_norm(&keys, &norm, config.rms_norm_eps);
        let keys = g.rotary(&keys, &self.rope.0, &self.rope.1);
        let values = g.linear_rows(h, &format!("{prefix}.v_proj"), rows)?;
        let values = g.split_heads(&values, n_heads);
        Ok((keys, values))
    }

    /// Slices the parts that the action expert reads.
    fn kept(&self, g: &mut Graph<'_>, keys: &Value, values: &Value) -> (Value, Value) {
        let Sizes { kv_heads, gen_head_dim, prefix_capacity, .. } = *self.sizes;
        // Reshaped before slicing: a reshape that writes an output is a copy.
        let [keys, values] =
            [keys, values].map(|x| g.reshape(x, &[x.dim(1), prefix_capacity, x.dim(3)]));
        let keys = g.slice(&keys, 0, 0..kv_heads);
        let values = g.slices(&values, [(0, 0..kv_heads), (2, 0..gen_head_dim)]);
        (keys, values)
    }

    /// Attention and output projection.
    fn attend(
        &self,
        g: &mut Graph<'_>,
        h: &Value,
        keys: &Value,
        values: &Value,
        mask: &Value,
    ) -> Result<Value, GraphError> {
        let config = &self.checkpoint.config().text;
        let prefix = format!("{}.self_attn", self.prefix());
        let queries = g.linear(h, &format!("{prefix}.q_proj"))?;
        let queries = g.split_heads(&queries, config.num_attention_heads);
        let norm = g.weight(&format!("{prefix}.q_norm.weight"))?;
        let queries = g.rms_norm(&queries, &norm, config.rms_norm_eps);
        let queries = g.rotary(&queries, &self.rope.0, &self.rope.1);
        let scale = 1.0 / (config.head_dim as f32).sqrt();
        let attended = g.attention(&queries, keys, values, Some(mask), scale);
        let attended = g.join_heads(&attended);
        g.linear(&attended, &format!("{prefix}.o_proj"))
    }
}
