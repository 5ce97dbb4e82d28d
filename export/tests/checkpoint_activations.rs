//! Random weights must give activations of order one at any depth. The tests run two simple forward
//! passes: the text stack with attention only to the token itself (the largest possible output of
//! attention), and a complete convolutional trunk.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::Path;
use tandem_export::automot::Checkpoint;
use tandem_export::automot::checkpoint::Trunk;
use tandem_export::automot::synth::{SynthSpec, synthesize};

/// A tiny checkpoint with a changed specification.
fn synthesized(change: impl FnOnce(&mut SynthSpec)) -> (tempfile::TempDir, Checkpoint) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/tiny.json");
    let mut spec: SynthSpec = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut spec);
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("checkpoint");
    synthesize(&spec, 3, &dir, |_, _| {}).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    (holder, checkpoint)
}

fn rms(values: &[f32]) -> f32 {
    (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt()
}

fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}

/// Checks that the root mean square is within a factor of ten of one, far from overflow and
/// underflow of bf16 and f16.
#[track_caller]
fn check_order_one(values: &[f32], place: &str) {
    let found = rms(values);
    assert!((0.1..10.0).contains(&found), "{place} has a root mean square of {found}");
}

#[test]
fn thirty_six_layers_of_text_keep_their_scale() {
    let (_holder, checkpoint) = synthesized(|spec| spec.text.num_hidden_layers = 36);
    let text = &checkpoint.config().text;
    let group = text.num_attention_heads / text.num_key_value_heads;
    let weight =
        |name: &str| checkpoint.values_f32(&format!("language_model.model.{name}.weight")).unwrap();
    let linear = |name: &str, input: &[f32]| -> Vec<f32> {
        let dot = |row: &[f32]| row.iter().zip(input).map(|(a, b)| a * b).sum();
        weight(name).chunks(input.len()).map(dot).collect()
    };
    let norm = |name: &str, input: &[f32]| -> Vec<f32> {
        let scale = rms(input).recip();
        input.iter().zip(weight(name)).map(|(value, gain)| value * scale * gain).collect()
    };
    let add = |stream: &mut [f32], branch: &[f32]| {
        stream.iter_mut().zip(branch).for_each(|(stream, branch)| *stream += branch);
    };

    let mut stream = weight("embed_tokens")[..text.hidden_size].to_vec();
    for layer in 0..text.num_hidden_layers {
        let at = |part: &str| format!("layers.{layer}.{part}");
        let values = linear(&at("self_attn.v_proj"), &norm(&at("input_layernorm"), &stream));
        let heads = values.chunks(text.head_dim);
        let attended: Vec<f32> = heads.flat_map(|head| head.repeat(group)).collect();
        add(&mut stream, &linear(&at("self_attn.o_proj"), &attended));
        let normed = norm(&at("post_attention_layernorm"), &stream);
        let gate = linear(&at("mlp.gate_proj"), &normed);
        let up = linear(&at("mlp.up_proj"), &normed);
        let hidden: Vec<f32> =
            gate.iter().zip(up).map(|(gate, up)| gate * sigmoid(*gate) * up).collect();
        add(&mut stream, &linear(&at("mlp.down_proj"), &hidden));
        check_order_one(&stream, &format!("the stream after layer {layer}"));
    }
}

/// A map `[channels, side, side]`.
struct Map {
    side: usize,
    values: Vec<f32>,
}

/// The layers of one convolutional trunk.
struct Layers<'a> {
    checkpoint: &'a Checkpoint,
    prefix: &'a str,
}

impl Layers<'_> {
    fn values(&self, name: &str) -> Vec<f32> {
        self.checkpoint.values_f32(&format!("{}{name}", self.prefix)).unwrap()
    }

    /// Convolution with padding that keeps the side, followed by a batch norm.
    fn conv_norm(&self, name: &str, input: &Map, stride: usize) -> Map {
        let weights = self.values(&format!("{name}.conv.weight"));
        let entry = format!("{}{name}.conv.weight", self.prefix);
        let shape = &self.checkpoint.tensor(&entry).unwrap().shape;
        let (outputs, per_group, kernel) = (shape[0], shape[1], shape[2]);
        let groups = input.values.len() / input.side.pow(2) / per_group;
        let (gain, shift) =
            (self.values(&format!("{name}.bn.weight")), self.values(&format!("{name}.bn.bias")));
        let (mean, variance) = (
            self.values(&format!("{name}.bn.running_mean")),
            self.values(&format!("{name}.bn.running_var")),
        );
        let side = input.side.div_ceil(stride);
        let mut values = Vec::with_capacity(outputs * side * side);
        for output in 0..outputs {
            let first = output / (outputs / groups) * per_group;
            let kernels = &weights[output * per_group * kernel * kernel..];
            let scale = gain[output] / (variance[output] + 1e-5).sqrt();
            for (row, column) in
                (0..side).flat_map(|row| (0..side).map(move |column| (row, column)))
            {
                let mut sum = 0.0;
                for (channel, tap) in
                    (0..per_group).flat_map(|c| (0..kernel * kernel).map(move |tap| (c, tap)))
                {
                    let y = (row * stride + tap / kernel).wrapping_sub(kernel / 2);
                    let x = (column * stride + tap % kernel).wrapping_sub(kernel / 2);
                    if y < input.side && x < input.side {
                        sum += kernels[channel * kernel * kernel + tap]
                            * input.values[((first + channel) * input.side + y) * input.side + x];
                    }
                }
                values.push((sum - mean[output]) * scale + shift[output]);
            }
        }
        Map { side, values }
    }

    fn squeeze_excite(&self, name: &str, map: &mut Map) {
        let area = map.side.pow(2);
        let means: Vec<f32> = map
            .values
            .chunks(area)
            .map(|channel| channel.iter().sum::<f32>() / area as f32)
            .collect();
        let linear = |layer: &str, input: &[f32]| -> Vec<f32> {
            let bias = self.values(&format!("{name}.{layer}.bias"));
            let dot = |row: &[f32]| row.iter().zip(input).map(|(a, b)| a * b).sum::<f32>();
            let weights = self.values(&format!("{name}.{layer}.weight"));
            weights.chunks(input.len()).zip(bias).map(|(row, bias)| dot(row) + bias).collect()
        };
        let squeezed: Vec<f32> =
            linear("fc1", &means).into_iter().map(|value| value.max(0.0)).collect();
        for (channel, gate) in map.values.chunks_mut(area).zip(linear("fc2", &squeezed)) {
            channel.iter_mut().for_each(|value| *value *= sigmoid(gate));
        }
    }

    fn block(&self, name: &str, input: &Map, is_first: bool) -> Map {
        let stride = if is_first { 2 } else { 1 };
        let narrow = relu(self.conv_norm(&format!("{name}.conv1"), input, 1));
        let mut wide = relu(self.conv_norm(&format!("{name}.conv2"), &narrow, stride));
        self.squeeze_excite(&format!("{name}.se"), &mut wide);
        let mut output = self.conv_norm(&format!("{name}.conv3"), &wide, 1);
        let shortcut =
            is_first.then(|| self.conv_norm(&format!("{name}.downsample"), input, stride));
        let shortcut = shortcut.as_ref().unwrap_or(input);
        output.values.iter_mut().zip(&shortcut.values).for_each(|(value, added)| *value += added);
        relu(output)
    }
}

fn relu(mut map: Map) -> Map {
    map.values.iter_mut().for_each(|value| *value = value.max(0.0));
    map
}

/// Runs the camera trunk of an architecture on a small image.
fn check_trunk(architecture: &str) {
    const SIDE: usize = 64;
    let (_holder, checkpoint) = synthesized(|spec| {
        spec.bev.image_architecture = architecture.to_owned();
        spec.bev.lidar_architecture = architecture.to_owned();
    });
    let layers = Layers { checkpoint: &checkpoint, prefix: "bev_encoder.image_encoder." };
    // Values in the range of ImageNet's normalization, with some texture.
    let values = (0..3 * SIDE * SIDE).map(|pixel| (pixel as f32 * 0.7).sin() * 1.5).collect();
    let mut map = relu(layers.conv_norm("stem", &Map { side: SIDE, values }, 2));
    let trunk = Trunk::of_architecture(architecture, 3).unwrap();
    for (stage, shape) in trunk.stages.iter().enumerate() {
        for block in 0..shape.squeezed.len() {
            let name = format!("s{}.b{}", stage + 1, block + 1);
            map = layers.block(&name, &map, block == 0);
            check_order_one(&map.values, &format!("{architecture} {name}"));
        }
    }
}

#[test]
fn small_trunk_keeps_its_scale() {
    check_trunk("regnety_002");
}

#[test]
fn deepest_trunk_keeps_its_scale() {
    check_trunk("regnety_016");
}
