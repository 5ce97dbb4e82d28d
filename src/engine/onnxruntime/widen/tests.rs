//! Tests of widened convolutions.

use super::*;
use crate::engine::onnxruntime::{CpuOptions, OnnxRuntime};
use crate::tensor::DType;
use ort::value::Tensor;
use tandem_export::onnx::{
    AttributeProto, DataLocation, OPSET, OperatorSetIdProto, StringStringEntryProto, ValueInfoProto,
};

/// Height and width of the feature maps.
const SIDE: usize = 6;

/// Number of channels of the network's input and output.
const ENDS: usize = 3;

/// A RegNet-Y block: `x` → 1×1 → grouped 3×3 → squeeze-and-excitation gate → 1×1 → `y`.
struct Block {
    graph: GraphProto,
    channels: usize,
    state: u64,
}

impl Block {
    fn new(groups: usize, width: usize) -> Self {
        let channels = groups * width;
        let mut block = Self { graph: GraphProto::default(), channels, state: 7 };
        block.conv("x", "a", [channels, ENDS, 1, 1], 1);
        block.map("Relu", &["a"], "b");
        block.conv("b", "c", [channels, width, 3, 3], groups);
        block.map("Relu", &["c"], "d");
        block.graph.initializer.push(TensorProto {
            dims: vec![2],
            data_type: Some(DataType::Int64 as i32),
            name: Some("axes".into()),
            raw_data: Some([2_i64, 3].map(i64::to_le_bytes).concat()),
            ..TensorProto::default()
        });
        let keep = vec![AttributeProto::int("keepdims", 1)];
        block.node("ReduceMean", &["d", "axes"], "m", keep, [1, channels, 1, 1]);
        block.conv("m", "n", [2, channels, 1, 1], 1);
        block.conv("n", "o", [channels, 2, 1, 1], 1);
        block.node("Sigmoid", &["o"], "p", vec![], [1, channels, 1, 1]);
        block.map("Mul", &["d", "p"], "q");
        block.conv("q", "y", [ENDS, channels, 1, 1], 1);
        let end = |name: &str| ValueInfoProto::tensor(name, DType::F32, &[1, ENDS, SIDE, SIDE]);
        block.graph.value_info.retain(|info| info.name.as_deref() != Some("y"));
        block.graph.name = Some("block".into());
        block.graph.input = vec![end("x")];
        block.graph.output = vec![end("y")];
        block
    }

    fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<AttributeProto>,
        shape: [usize; 4],
    ) {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|name| name.to_string()).collect(),
            output: vec![output.to_owned()],
            name: Some(output.to_owned()),
            op_type: Some(op.to_owned()),
            attribute,
        });
        self.graph.value_info.push(ValueInfoProto::tensor(output, DType::F32, &shape));
    }

    fn map(&mut self, op: &str, inputs: &[&str], output: &str) {
        self.node(op, inputs, output, vec![], [1, self.channels, SIDE, SIDE]);
    }

    fn conv(&mut self, input: &str, output: &str, kernel: [usize; 4], groups: usize) {
        let (weight, bias) = (format!("{output}.weight"), format!("{output}.bias"));
        self.weight(&weight, &kernel);
        self.weight(&bias, &kernel[..1]);
        let side = kernel[2] as i64;
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[side; 2]),
            AttributeProto::ints("pads", &[side / 2; 4]),
            AttributeProto::int("group", groups as i64),
        ];
        let length = if input == "m" || input == "n" { 1 } else { SIDE };
        let shape = [1, kernel[0], length, length];
        self.node("Conv", &[input, &weight, &bias], output, attributes, shape);
    }

    fn weight(&mut self, name: &str, dims: &[usize]) {
        let values = self.values(dims.iter().product());
        self.graph.initializer.push(TensorProto {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(DataType::Float as i32),
            name: Some(name.to_owned()),
            raw_data: Some(bytemuck::cast_slice(&values).to_vec()),
            ..TensorProto::default()
        });
    }

    /// Generates pseudo-random values from -1 to 1.
    fn values(&mut self, count: usize) -> Vec<f32> {
        let mut next = || {
            self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (self.state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn encoded(&self) -> Vec<u8> {
        let model = ModelProto {
            ir_version: Some(10),
            graph: Some(self.graph.clone()),
            opset_import: vec![OperatorSetIdProto { domain: None, version: Some(OPSET) }],
            ..ModelProto::default()
        };
        model.encode_to_vec()
    }
}

fn widened_block(block: &Block, width: usize) -> Vec<u8> {
    widened(&block.encoded(), width, |_| None).unwrap()
}

fn answer(model: &[u8], x: &[f32]) -> Vec<f32> {
    let library = OnnxRuntime::open(CpuOptions::default(), &mut |_| {}).unwrap();
    let mut session = library.builder(true).unwrap().commit_from_memory(model).unwrap();
    let x = Tensor::from_array(([1, ENDS, SIDE, SIDE], x.to_vec())).unwrap();
    let answers = session.run(ort::inputs!["x" => x]).unwrap();
    answers["y"].try_extract_tensor::<f32>().unwrap().1.to_vec()
}

/// Returns the number of groups and of channels per group of the grouped convolution.
fn grouped(model: &[u8]) -> (usize, usize) {
    let graph = ModelProto::decode(model).unwrap().graph.unwrap();
    let conv = graph.node.iter().find(|node| node.name.as_deref() == Some("c")).unwrap();
    let kernel = graph.initializer.iter().find(|tensor| tensor.name() == "c.weight").unwrap();
    (groups(conv).unwrap(), kernel.dims[1] as usize)
}

#[test]
fn widened_convolutions_give_equal_results() {
    for (groups, width, block, expected) in [
        (4, 8, 16, (2, 16)),
        (3, 8, 16, (2, 16)),
        (3, 24, 16, (2, 48)),
        (9, 24, 16, (5, 48)),
        (5, 6, 16, (1, 48)),
        (3, 6, 8, (1, 24)),
        (2, 2, 16, (1, 16)),
    ] {
        let mut case = Block::new(groups, width);
        let model = widened_block(&case, block);
        assert_eq!(grouped(&model), expected, "{groups} groups of {width}");
        let x = case.values(ENDS * SIDE * SIDE);
        let (found, plain) = (answer(&model, &x), answer(&case.encoded(), &x));
        let scale = plain.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        assert!(scale > 0.1, "{scale}");
        // Each sum has up to 9 × 48 products, in another order.
        for (a, b) in found.iter().zip(&plain) {
            assert!((a - b).abs() <= 1e-5 * scale, "{groups} groups of {width}: {a} and {b}");
        }
    }
}

#[test]
fn convolutions_with_unknown_neighbors_are_not_changed() {
    type Change = fn(&mut GraphProto);
    let changed: [(&str, Change); 6] = [
        ("an unknown operator", |graph| graph.node[1].op_type = Some("Softmax".into())),
        ("an output of the network", |graph| {
            graph.output.push(ValueInfoProto::tensor("d", DType::F32, &[1, 18, SIDE, SIDE]));
        }),
        ("a value without a shape", |graph| {
            graph.value_info.retain(|info| info.name.as_deref() != Some("p"));
        }),
        ("a weight that two nodes read", |graph| {
            graph.node[0].input[2] = "c.bias".into();
        }),
        ("a weight in half precision", |graph| {
            let kernel = graph.initializer.iter_mut().find(|tensor| tensor.name() == "y.weight");
            kernel.unwrap().data_type = Some(DataType::Float16 as i32);
        }),
        ("a weight shorter than its shape", |graph| {
            let kernel = graph.initializer.iter_mut().find(|tensor| tensor.name() == "c.weight");
            kernel.unwrap().raw_data.as_mut().unwrap().truncate(12);
        }),
    ];
    let case = Block::new(3, 6);
    assert_ne!(widened_block(&case, 16), case.encoded());
    for (what, change) in changed {
        let mut case = Block::new(3, 6);
        change(&mut case.graph);
        assert_eq!(widened_block(&case, 16), case.encoded(), "{what}");
    }
}

#[test]
fn depthwise_wide_and_foreign_models_are_not_changed() {
    for (groups, width, block) in [(5, 1, 16), (1, 24, 16), (3, 32, 16), (9, 24, 8)] {
        let case = Block::new(groups, width);
        assert_eq!(widened_block(&case, block), case.encoded(), "{groups} groups of {width}");
    }
    // A field that the exporter does not write.
    let foreign = [Block::new(3, 6).encoded().as_slice(), &[0xc0, 0x3e, 5]].concat();
    assert_eq!(widened(&foreign, 16, |_| None).unwrap(), foreign);
}

#[test]
fn missing_external_weight_leaves_the_convolution_unchanged() {
    let mut case = Block::new(3, 6);
    let expected = widened_block(&case, 16);
    let kernel = case.graph.initializer.iter_mut().find(|tensor| tensor.name() == "c.weight");
    let kernel = kernel.unwrap();
    let values = kernel.raw_data.take().unwrap();
    kernel.data_location = Some(DataLocation::External as i32);
    kernel.external_data = vec![
        StringStringEntryProto::new("location", "weights.bin"),
        StringStringEntryProto::new("offset", "0"),
        StringStringEntryProto::new("length", values.len().to_string()),
    ];
    let model = case.encoded();
    assert_eq!(widened(&model, 16, |_| Some(&values)).unwrap(), expected);
    assert_eq!(widened(&model, 16, |_| None).unwrap(), model);
}
