//! List of all tensors of a checkpoint: name, shape according to the configuration, network, and
//! whether that network reads it.

use super::config::{AutomotConfig, BevConfig, MotConfig, TextConfig, VisionConfig};
use super::trunk::Trunk;

/// Hidden widths of the encoders of target points and speed, constants of the AutoMoT release.
pub const POINT_ENCODER_WIDTHS: [usize; 2] = [256, 512];

/// Hidden widths of the route and waypoint heads, constants of the AutoMoT release.
pub const HEAD_WIDTHS: [usize; 2] = [512, 256];

/// Width of the feature pyramid of the BEV encoder, which inference does not compute.
const PYRAMID_WIDTH: usize = 64;

/// Outputs of the velocity head, which is only used in training.
const VELOCITY_OUTPUTS: usize = 3;

/// A network of the model, as exported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Network {
    Vision,
    /// The text stack of the understanding expert.
    Understanding,
    /// The action expert with its encoders and heads.
    Action,
    Bev,
}

impl Network {
    /// Returns the name of the network in messages.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Vision => "vision",
            Self::Understanding => "understanding",
            Self::Action => "action",
            Self::Bev => "BEV",
        }
    }
}

/// Role of a tensor in its layer, which determines the distribution of random weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Weight of a linear layer or convolution; all dimensions except the first are its inputs.
    Weight,
    /// Like `Weight`, at the end of a branch that is added to a residual stream.
    ResidualWeight {
        /// Number of such branches of the stream.
        branches: usize,
    },
    /// Bias of a linear layer or convolution.
    Bias,
    /// Weight of a normalization.
    Gain,
    /// Weight of a normalization at the end of a convolutional residual branch.
    ResidualGain,
    /// Bias of a normalization layer.
    Shift,
    /// Running mean of a batch norm.
    Mean,
    /// Running variance of a batch norm.
    Variance,
    /// `num_batches_tracked` of a batch norm: a scalar i64.
    Counter,
    /// Rows that are looked up or used directly: embeddings, positions, queries.
    Table,
}

/// One tensor of a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    pub network: Network,
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    pub role: Role,
    /// True if the network reads it at inference.
    pub is_needed: bool,
}

impl Expected {
    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// True unless it is a buffer: a statistic of a batch norm.
    pub fn is_parameter(&self) -> bool {
        !matches!(self.role, Role::Mean | Role::Variance | Role::Counter)
    }
}

/// Returns the number of elements of all parameters.
pub fn parameters(tensors: &[Expected]) -> usize {
    tensors.iter().filter(|tensor| tensor.is_parameter()).map(Expected::elements).sum()
}

/// Lists all tensors of the model.
pub fn all(
    config: &AutomotConfig,
    image: &Trunk,
    lidar: &Trunk,
    projected_channels: usize,
) -> Vec<Expected> {
    let mut tensors = vision(&config.vision);
    tensors.extend(understanding(&config.text));
    tensors.extend(action_stack(&config.text, &config.mot));
    tensors.extend(action_ends(config.text.hidden_size, &config.mot, projected_channels));
    tensors.extend(bev(&config.bev, image, lidar));
    tensors
}

/// Lists the tensors of the vision tower with its mergers.
pub fn vision(vision: &VisionConfig) -> Vec<Expected> {
    let mut list = List::new(Network::Vision, "vision_model.");
    let width = vision.hidden_size;
    let merged = width * vision.spatial_merge_size.pow(2);
    let residual = Role::ResidualWeight { branches: 2 * vision.depth };
    let patch = vision.patch_size;
    let pixels = [width, vision.in_channels, vision.temporal_patch_size, patch, patch];
    list.add("patch_embed.proj.weight", &pixels, Role::Weight);
    list.add("patch_embed.proj.bias", &[width], Role::Bias);
    list.add("pos_embed.weight", &[vision.num_position_embeddings, width], Role::Table);
    for block in 0..vision.depth {
        let at = |part: &str| format!("blocks.{block}.{part}");
        list.norm(&at("norm1"), width);
        list.norm(&at("norm2"), width);
        list.linear(&at("attn.qkv"), 3 * width, width, Role::Weight);
        list.linear(&at("attn.proj"), width, width, residual);
        list.linear(&at("mlp.linear_fc1"), vision.intermediate_size, width, Role::Weight);
        list.linear(&at("mlp.linear_fc2"), width, vision.intermediate_size, residual);
    }
    let deepstack = (0..vision.deepstack_visual_indexes.len())
        .map(|map| (format!("deepstack_merger_list.{map}"), merged));
    for (merger, norm_width) in [("merger".to_owned(), width)].into_iter().chain(deepstack) {
        list.norm(&format!("{merger}.norm"), norm_width);
        list.linear(&format!("{merger}.linear_fc1"), merged, merged, Role::Weight);
        list.linear(&format!("{merger}.linear_fc2"), vision.out_hidden_size, merged, Role::Weight);
    }
    list.tensors
}

/// Lists the tensors of the understanding expert's text stack with embedding and final norm. The
/// output head is tied to the embedding.
pub fn understanding(text: &TextConfig) -> Vec<Expected> {
    let mut list = List::new(Network::Understanding, "language_model.model.");
    list.add("embed_tokens.weight", &[text.vocab_size, text.hidden_size], Role::Table);
    list.add("norm.weight", &[text.hidden_size], Role::Gain);
    text_layers(
        &mut list,
        text,
        &Branch {
            suffix: "",
            heads: text.num_attention_heads,
            kv_heads: text.num_key_value_heads,
            head_dim: text.head_dim,
            intermediate: text.intermediate_size,
        },
    );
    list.tensors
}

/// Lists the tensors of the action expert's transformer.
pub fn action_stack(text: &TextConfig, mot: &MotConfig) -> Vec<Expected> {
    let mut list = List::new(Network::Action, "language_model.model.");
    list.add("norm_mot_gen.weight", &[text.hidden_size], Role::Gain);
    text_layers(
        &mut list,
        text,
        &Branch {
            suffix: "_mot_gen",
            heads: mot.num_attention_heads,
            kv_heads: mot.num_key_value_heads,
            head_dim: text.hidden_size / text.num_attention_heads,
            intermediate: mot.intermediate_size,
        },
    );
    list.tensors
}

/// One of the two stacks that share the names of layers.
struct Branch {
    suffix: &'static str,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    intermediate: usize,
}

fn text_layers(list: &mut List, text: &TextConfig, branch: &Branch) {
    let hidden = text.hidden_size;
    let Branch { suffix, heads, kv_heads, head_dim, intermediate } = *branch;
    let residual = Role::ResidualWeight { branches: 2 * text.num_hidden_layers };
    for layer in 0..text.num_hidden_layers {
        let mut add = |part: String, shape: &[usize], role| {
            list.add(&format!("layers.{layer}.{part}.weight"), shape, role);
        };
        add(format!("input_layernorm{suffix}"), &[hidden], Role::Gain);
        add(format!("post_attention_layernorm{suffix}"), &[hidden], Role::Gain);
        add(format!("self_attn.q_norm{suffix}"), &[head_dim], Role::Gain);
        add(format!("self_attn.k_norm{suffix}"), &[head_dim], Role::Gain);
        add(format!("self_attn.q_proj{suffix}"), &[heads * head_dim, hidden], Role::Weight);
        add(format!("self_attn.k_proj{suffix}"), &[kv_heads * head_dim, hidden], Role::Weight);
        add(format!("self_attn.v_proj{suffix}"), &[kv_heads * head_dim, hidden], Role::Weight);
        add(format!("self_attn.o_proj{suffix}"), &[hidden, heads * head_dim], residual);
        add(format!("mlp{suffix}.gate_proj"), &[intermediate, hidden], Role::Weight);
        add(format!("mlp{suffix}.up_proj"), &[intermediate, hidden], Role::Weight);
        add(format!("mlp{suffix}.down_proj"), &[hidden, intermediate], residual);
    }
}

/// Lists the tensors before and after the action expert's transformer: encoders, queries, projectors,
/// heads. `projected_channels` is the input width of `bev_encoder_proj`.
pub fn action_ends(hidden: usize, mot: &MotConfig, projected_channels: usize) -> Vec<Expected> {
    let mut list = List::new(Network::Action, "");
    list.linear("bev_encoder_proj", hidden, projected_channels, Role::Weight);
    let [first, second] = POINT_ENCODER_WIDTHS;
    for (encoder, inputs) in [("target_point_encoder.mlp", 2), ("velocity_encoder", 1)] {
        list.linear(&format!("{encoder}.0"), first, inputs, Role::Weight);
        list.linear(&format!("{encoder}.2"), second, first, Role::Weight);
        list.linear(&format!("{encoder}.4"), hidden, second, Role::Weight);
    }
    for (queries, tokens, width) in [
        ("reasoning", mot.reasoning_tokens, mot.reasoning_query_dim),
        ("route", mot.route_tokens, mot.action_query_dim),
        ("waypoint", mot.waypoint_tokens, mot.action_query_dim),
    ] {
        list.add(&format!("{queries}_queries.weight"), &[tokens, width], Role::Table);
        list.linear(&format!("{queries}_projector.fc1"), hidden, width, Role::Weight);
        list.linear(&format!("{queries}_projector.fc2"), hidden, hidden, Role::Weight);
    }
    let [first, second] = HEAD_WIDTHS;
    for (head, tokens) in
        [("route_head", mot.route_tokens), ("waypoints_head", mot.waypoint_tokens)]
    {
        list.linear(&format!("{head}.mlp.0"), first, hidden, Role::Weight);
        list.linear(&format!("{head}.mlp.2"), second, first, Role::Weight);
        list.add(&format!("{head}.mlp.4.weight"), &[2, second], Role::Weight);
        list.unused(|list| list.add(&format!("{head}.query"), &[1, tokens, hidden], Role::Table));
    }
    list.unused(|list| {
        list.linear("velocity_head.0", hidden, hidden, Role::Weight);
        list.linear("velocity_head.2", VELOCITY_OUTPUTS, hidden, Role::Weight);
    });
    list.tensors
}

/// Lists the tensors of the BEV encoder: two trunks, their fusion and the unused feature pyramid.
pub fn bev(bev: &BevConfig, image: &Trunk, lidar: &Trunk) -> Vec<Expected> {
    let mut tensors = trunk("bev_encoder.image_encoder.", image);
    tensors.extend(trunk("bev_encoder.lidar_encoder.", lidar));
    let mut list = List { tensors, ..List::new(Network::Bev, "bev_encoder.") };
    let fused_tokens =
        bev.image_anchors.iter().product::<usize>() + bev.lidar_anchors.iter().product::<usize>();
    for (stage, (image, lidar)) in image.stages.iter().zip(&lidar.stages).enumerate() {
        let width = image.width;
        let residual = Role::ResidualWeight { branches: 2 * bev.n_layer };
        let prefix = format!("transformers.{stage}");
        list.add(&format!("{prefix}.pos_emb"), &[1, fused_tokens, width], Role::Table);
        for block in 0..bev.n_layer {
            let at = |part: &str| format!("{prefix}.blocks.{block}.{part}");
            list.norm(&at("ln1"), width);
            list.norm(&at("ln2"), width);
            for part in ["key", "query", "value"] {
                list.linear(&at(&format!("attn.{part}")), width, width, Role::Weight);
            }
            list.linear(&at("attn.proj"), width, width, residual);
            list.linear(&at("mlp.0"), bev.block_exp * width, width, Role::Weight);
            list.linear(&at("mlp.2"), width, bev.block_exp * width, residual);
        }
        list.norm(&format!("{prefix}.ln_f"), width);
        list.conv(&format!("lidar_channel_to_img.{stage}"), [width, lidar.width, 1, 1]);
        list.conv(&format!("img_channel_to_lidar.{stage}"), [lidar.width, width, 1, 1]);
    }
    list.unused(|list| {
        list.conv("c5_conv", [PYRAMID_WIDTH, lidar.width(), 1, 1]);
        list.conv("up_conv5", [PYRAMID_WIDTH, PYRAMID_WIDTH, 3, 3]);
        list.conv("up_conv4", [PYRAMID_WIDTH, PYRAMID_WIDTH, 3, 3]);
    });
    list.tensors
}

/// Lists the tensors of one convolutional trunk under `prefix`.
pub fn trunk(prefix: &'static str, trunk: &Trunk) -> Vec<Expected> {
    let mut list = List::new(Network::Bev, prefix);
    list.conv_norm("stem", [trunk.stem, trunk.in_channels, 3, 3], Role::Gain);
    let mut inputs = trunk.stem;
    for (stage, shape) in trunk.stages.iter().enumerate() {
        let width = shape.width;
        for (block, &squeezed) in shape.squeezed.iter().enumerate() {
            let at = |part: &str| format!("s{}.b{}.{part}", stage + 1, block + 1);
            list.conv_norm(&at("conv1"), [width, inputs, 1, 1], Role::Gain);
            list.conv_norm(&at("conv2"), [width, shape.group_width, 3, 3], Role::Gain);
            list.conv(&at("se.fc1"), [squeezed, width, 1, 1]);
            list.conv(&at("se.fc2"), [width, squeezed, 1, 1]);
            list.conv_norm(&at("conv3"), [width, width, 1, 1], Role::ResidualGain);
            if block == 0 {
                list.conv_norm(&at("downsample"), [width, inputs, 1, 1], Role::Gain);
            }
            inputs = width;
        }
    }
    list.tensors
}

/// Collects the tensors of one network.
struct List {
    network: Network,
    prefix: &'static str,
    is_needed: bool,
    tensors: Vec<Expected>,
}

impl List {
    fn new(network: Network, prefix: &'static str) -> Self {
        Self { network, prefix, is_needed: true, tensors: Vec::new() }
    }

    fn add(&mut self, name: &str, shape: &[usize], role: Role) {
        self.tensors.push(Expected {
            network: self.network,
            name: format!("{}{name}", self.prefix),
            shape: shape.to_vec(),
            role,
            is_needed: self.is_needed && role != Role::Counter,
        });
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, role: Role) {
        self.add(&format!("{name}.weight"), &[outputs, inputs], role);
        self.add(&format!("{name}.bias"), &[outputs], Role::Bias);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(&format!("{name}.weight"), &[width], Role::Gain);
        self.add(&format!("{name}.bias"), &[width], Role::Shift);
    }

    fn conv(&mut self, name: &str, shape: [usize; 4]) {
        self.add(&format!("{name}.weight"), &shape, Role::Weight);
        self.add(&format!("{name}.bias"), &shape[..1], Role::Bias);
    }

    /// Adds a convolution without bias, followed by a batch norm.
    fn conv_norm(&mut self, name: &str, shape: [usize; 4], gain: Role) {
        self.add(&format!("{name}.conv.weight"), &shape, Role::Weight);
        for (part, role) in [
            ("weight", gain),
            ("bias", Role::Shift),
            ("running_mean", Role::Mean),
            ("running_var", Role::Variance),
        ] {
            self.add(&format!("{name}.bn.{part}"), &shape[..1], role);
        }
        self.add(&format!("{name}.bn.num_batches_tracked"), &[], Role::Counter);
    }

    /// Adds tensors that inference does not read.
    fn unused(&mut self, add: impl FnOnce(&mut Self)) {
        self.is_needed = false;
        add(self);
        self.is_needed = true;
    }
}
