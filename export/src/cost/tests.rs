//! One hand-computed example per operator, and what is refused.

use super::*;
use crate::checkpoint::TensorEntry;
use crate::contract::FORMAT;
use crate::graph::{Gelu, Graph, Initializer, Network, Padding, Value};
use crate::onnx::{GraphProto, TensorProto};

/// A graph file without weights: their shapes are all that costs need.
fn file(network: &Network) -> (Vec<u8>, Contract) {
    let info = |specs: &[TensorSpec]| {
        specs.iter().map(|s| ValueInfoProto::tensor(&s.name, s.dtype, &s.shape)).collect()
    };
    let tensor = |initializer: &Initializer| TensorProto {
        dims: initializer.dims.iter().map(|&dim| dim as i64).collect(),
        data_type: Some(DataType::from(initializer.dtype) as i32),
        name: Some(initializer.name.clone()),
        ..TensorProto::default()
    };
    let graph = GraphProto {
        node: network.nodes.clone(),
        name: Some(network.name.clone()),
        initializer: network.initializers.iter().map(tensor).collect(),
        input: info(&network.inputs),
        output: info(&network.outputs),
        value_info: network.values.clone(),
    };
    let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
    let contract = Contract {
        format: FORMAT,
        network: network.name.clone(),
        model: "test".to_owned(),
        inputs: network.inputs.clone(),
        outputs: network.outputs.clone(),
        sizes: network.sizes.clone(),
        numbers: network.numbers.clone(),
        graph_sha256: String::new(),
    };
    (model.encode_to_vec(), contract)
}

/// Tensors of a checkpoint that the examples need.
fn tensors() -> BTreeMap<String, TensorEntry> {
    let shapes: [(&str, &[usize]); 7] = [
        ("proj.weight", &[4, 6]),
        ("proj.bias", &[4]),
        ("conv.weight", &[8, 2, 3, 3]),
        ("conv.bias", &[8]),
        ("norm.weight", &[6]),
        ("norm.bias", &[6]),
        ("table.weight", &[100, 6]),
    ];
    let entry = |shape: &[usize]| TensorEntry {
        dtype: DType::Bf16,
        shape: shape.to_vec(),
        file: 0,
        offset: 0,
        length: 2 * shape.iter().product::<usize>() as u64,
    };
    shapes.iter().map(|(name, shape)| ((*name).to_owned(), entry(shape))).collect()
}

fn drawn(make: impl FnOnce(&mut Graph<'_>) -> Value) -> Network {
    let tensors = tensors();
    let mut graph = Graph::new("test", &tensors, DType::Bf16);
    let value = make(&mut graph);
    graph.output("y", &value, "result");
    graph.finish()
}

fn cost_of(make: impl FnOnce(&mut Graph<'_>) -> Value) -> NetworkCost {
    let (graph, contract) = file(&drawn(make));
    let cost = network_cost(&graph, &contract).unwrap();
    assert_eq!(cost.total, cost.parts.iter().map(|part| part.cost).sum(), "parts make the whole");
    cost
}

/// What the only node of operator `op` costs: bytes of stored numbers and activations read, bytes
/// written, operations of matrices, of attention, element by element.
#[track_caller]
fn costs(op: &str, make: impl FnOnce(&mut Graph<'_>) -> Value, expected: [u64; 6]) {
    let cost = cost_of(make);
    let found = cost.nodes.iter().filter(|node| node.operator == op).collect::<Vec<_>>();
    let [node] = found[..] else { panic!("{} nodes of {op}", found.len()) };
    let Cost { stored_bytes_read, activation_bytes_read, activation_bytes_written, .. } = node.cost;
    let Cost { matrix_flops, attention_flops, elementwise_ops, .. } = node.cost;
    let bytes = [stored_bytes_read, activation_bytes_read, activation_bytes_written];
    let operations = [matrix_flops, attention_flops, elementwise_ops];
    assert_eq!([bytes, operations].concat(), expected, "{op}");
}

fn x(g: &mut Graph<'_>, shape: &[usize]) -> Value {
    g.input("x", DType::Bf16, shape, "example")
}

#[test]
fn a_linear_reads_its_weight_and_adds_its_bias() {
    // [3, 6] by [4, 6]: 3 · 4 results of 6 multiply-adds; 24 + 4 stored numbers of two bytes.
    costs(
        "Gemm",
        |g| {
            let x = x(g, &[3, 6]);
            g.linear(&x, "proj").unwrap()
        },
        [56, 36, 24, 144, 0, 12],
    );
    let cost = cost_of(|g| {
        let x = x(g, &[3, 6]);
        g.linear(&x, "proj").unwrap()
    });
    assert_eq!((cost.total.parameters, cost.total.parameter_bytes), (28, 56));
    assert_eq!(cost.flops_by_dtype, BTreeMap::from([(DType::Bf16, 144)]));
    let compulsory =
        Compulsory { stored_bytes: 56, input_bytes: 36, output_bytes: 24, kv_bytes: 0 };
    assert_eq!((cost.compulsory, cost.compulsory.bytes()), (compulsory, 116));
}

#[test]
fn a_matrix_product_counts_every_matrix_of_a_batch() {
    // Two matrices [3, 5] by one [5, 7]: 2 · 21 results of 5 multiply-adds.
    let product = |g: &mut Graph<'_>| {
        let a = x(g, &[2, 3, 5]);
        let b = g.input("b", DType::Bf16, &[1, 5, 7], "example");
        g.matmul(&a, &b)
    };
    costs("MatMul", product, [0, 60 + 70, 84, 420, 0, 0]);
}

#[test]
fn a_convolution_counts_its_kernel_once_per_result() {
    // Four channels in two groups, 8 kernels of 2 · 3 · 3; stride 2 makes 4 x 6 a map of 2 x 3.
    let conv = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 4, 4, 6]);
        g.conv(&x, "conv", 2, Padding::Half).unwrap()
    };
    costs("Conv", conv, [2 * (144 + 8), 192, 96, 2 * 48 * 18, 0, 48]);
}

#[test]
fn attention_counts_both_products_and_every_column() {
    // 4 query heads over 2 key heads, 3 rows, 5 columns, 16 wide: 60 scores, twice 16 multiply-adds.
    let attention = |g: &mut Graph<'_>| {
        let q = x(g, &[1, 4, 3, 16]);
        let k = g.input("k", DType::Bf16, &[1, 2, 5, 16], "example");
        let v = g.input("v", DType::Bf16, &[1, 2, 5, 16], "example");
        let mask = g.input("mask", DType::Bf16, &[1, 1, 3, 5], "example");
        g.attention(&q, &k, &v, Some(&mask), 1.0)
    };
    costs("Attention", attention, [0, 384 + 320 + 320 + 30, 384, 0, 60 * 16 * 2 * 2, 60]);
}

/// Operators that do one thing per element of a `[3, 6]` bf16 result of one such input.
#[test]
fn operators_of_one_input_count_one_per_element() {
    type Make = fn(&mut Graph<'_>, &Value) -> Value;
    let unary: [(&str, Make); 5] = [
        ("Relu", |g, x| g.relu(x)),
        ("Sigmoid", |g, x| g.sigmoid(x)),
        ("Cos", |g, x| g.cos(x)),
        ("Sin", |g, x| g.sin(x)),
        ("Softmax", |g, x| g.softmax(x)),
    ];
    for (op, make) in unary {
        let make = |g: &mut Graph<'_>| {
            let x = x(g, &[3, 6]);
            make(g, &x)
        };
        costs(op, make, [0, 36, 36, 0, 0, 18]);
    }
    // Composite operators of a bf16 graph work in single precision, between casts.
    let gelu = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.gelu(&x, Gelu::Tanh)
    };
    costs("Gelu", gelu, [0, 72, 72, 0, 0, 18]);
}

#[test]
fn operators_of_two_inputs_count_the_broadcast_result() {
    type Make = fn(&mut Graph<'_>, &Value, &Value) -> Value;
    let binary: [(&str, Make, u64); 4] = [
        ("Add", |g, a, b| g.add(a, b), 36),
        ("Sub", |g, a, b| g.sub(a, b), 36),
        ("Mul", |g, a, b| g.mul(a, b), 36),
        ("Less", |g, a, b| g.less(a, b), 18),
    ];
    for (op, make, written) in binary {
        let make = |g: &mut Graph<'_>| {
            let a = x(g, &[3, 6]);
            let b = g.input("b", DType::Bf16, &[6], "example");
            make(g, &a, &b)
        };
        costs(op, make, [0, 36 + 12, written, 0, 0, 18]);
    }
    let select = |g: &mut Graph<'_>| {
        let a = x(g, &[3, 6]);
        let condition = g.input("c", DType::Bool, &[3, 1], "example");
        let zero = g.zeros(&[1]);
        let other = g.or(&condition, &condition);
        g.select(&other, &a, &zero)
    };
    costs("Where", select, [2, 3 + 36, 36, 0, 0, 18]);
    costs("Or", select, [0, 3 + 3, 3, 0, 0, 3]);
}

#[test]
fn normalizations_read_their_parameters_once_and_count_one_per_element() {
    let rms = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        let weight = g.weight("norm.weight").unwrap();
        g.rms_norm(&x, &weight, 1e-6)
    };
    costs("RMSNormalization", rms, [12, 36, 36, 0, 0, 18]);
    let layer = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.layer_norm(&x, "norm", 1e-6).unwrap()
    };
    // In single precision, and so are the two parameters that were cast: 18 + 6 + 6 elements.
    costs("LayerNormalization", layer, [0, 72 + 48, 72, 0, 0, 18]);
}

#[test]
fn a_rotation_reads_its_tables() {
    let rotary = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 2, 3, 4]);
        let cos = g.constant("cos", &[1, 3, 2], &[1.0; 6]);
        let sin = g.constant("sin", &[1, 3, 2], &[0.0; 6]);
        g.rotary(&x, &cos, &sin)
    };
    costs("RotaryEmbedding", rotary, [24, 48, 48, 0, 0, 24]);
    let cost = cost_of(rotary);
    assert_eq!((cost.total.parameters, cost.total.constant_bytes), (0, 24), "tables are constants");
}

#[test]
fn a_cast_changes_the_bytes_and_not_the_elements() {
    let cast = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.cast(&x, DType::F32)
    };
    costs("Cast", cast, [0, 36, 72, 0, 0, 18]);
}

#[test]
fn what_only_moves_numbers_computes_nothing() {
    let transpose = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.transpose(&x, &[1, 0])
    };
    costs("Transpose", transpose, [0, 36, 36, 0, 0, 0]);
    let concat = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.concat(&[&x, &x], 0)
    };
    costs("Concat", concat, [0, 72, 72, 0, 0, 0]);
    // Start, end and axis are stored lists of one 64-bit integer.
    let slice = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.slice(&x, 0, 1..2)
    };
    costs("Slice", slice, [24, 12, 12, 0, 0, 0]);
    let expand = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 6]);
        g.expand(&x, &[3, 6])
    };
    costs("Expand", expand, [16, 12, 36, 0, 0, 0]);
    let identity = |g: &mut Graph<'_>| x(g, &[3, 6]);
    costs("Identity", identity, [0, 36, 36, 0, 0, 0]);
}

#[test]
fn a_reshape_moves_nothing() {
    let reshape = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.reshape(&x, &[6, 3])
    };
    costs("Reshape", reshape, [0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_lookup_reads_the_rows_it_picks_and_holds_the_whole_table() {
    let gather = |g: &mut Graph<'_>| {
        let table = g.weight("table.weight").unwrap();
        let index = g.input("i", DType::I64, &[3], "example");
        g.gather(&table, &index)
    };
    costs("Gather", gather, [36, 24, 36, 0, 0, 0]);
    let cost = cost_of(gather);
    assert_eq!((cost.total.parameters, cost.total.parameter_bytes), (600, 1200));
    assert_eq!(cost.compulsory.stored_bytes, 36);
}

#[test]
fn reductions_count_what_they_reduce() {
    let arg_max = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.arg_max(&x, 1)
    };
    costs("ArgMax", arg_max, [0, 36, 24, 0, 0, 18]);
    // A running sum of [3, 2] is a masked [3, 3, 2] in single precision, summed.
    let running = |g: &mut Graph<'_>| {
        let x = g.input("x", DType::F32, &[3, 2], "example");
        g.cumulative_sum(&x, 0)
    };
    costs("ReduceSum", running, [8, 72, 24, 0, 0, 18]);
    let pool = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 2, 4, 6]);
        g.average_pool(&x, [2, 3])
    };
    costs("AveragePool", pool, [0, 192, 32, 0, 0, 48]);
    let global = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 2, 4, 6]);
        g.global_average_pool(&x)
    };
    // Its axes are a stored list of two 64-bit integers.
    costs("ReduceMean", global, [16, 96, 4, 0, 0, 48]);
}

#[test]
fn a_resize_counts_its_result() {
    let resize = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 2, 2, 3]);
        g.resize_linear(&x, [4, 6])
    };
    costs("Resize", resize, [32, 48, 192, 0, 0, 48]);
}

#[test]
fn a_weight_read_twice_is_held_once_and_read_twice() {
    let cost = cost_of(|g| {
        let x = x(g, &[3, 6]);
        let first = g.within("first", |g| g.linear(&x, "proj").unwrap());
        let second = g.within("second", |g| g.linear(&x, "proj").unwrap());
        g.add(&first, &second)
    });
    assert_eq!(cost.total.parameters, 28);
    assert_eq!((cost.total.stored_bytes_read, cost.compulsory.stored_bytes), (112, 56));
    let names = cost.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["first", "second", ""]);
    assert_eq!(cost.parts_named("second").parameters, 0, "the first reader has it");
}

#[test]
fn keys_and_values_are_told_apart_by_their_names() {
    for (name, expected) in [("keys.0", true), ("values.35", true), ("keys.", false)] {
        assert_eq!(is_kv(name), expected, "{name}");
    }
    assert!(!is_kv("probe.keys.0") && !is_kv("keys.x") && !is_kv("route"));
}

#[track_caller]
fn refused(change: impl FnOnce(&mut ModelProto, &mut Contract), message: &str) {
    let network = drawn(|g| {
        let x = x(g, &[3, 6]);
        let y = g.linear(&x, "proj").unwrap();
        g.relu(&y)
    });
    let (graph, mut contract) = file(&network);
    let mut model = ModelProto::decode(&graph[..]).unwrap();
    change(&mut model, &mut contract);
    let error = network_cost(&model.encode_to_vec(), &contract).unwrap_err();
    assert_eq!(error.to_string(), message);
}

#[test]
fn what_cannot_be_counted_is_an_error_and_never_zero() {
    let graph = |model: &mut ModelProto| model.graph.take().unwrap();
    refused(
        |model, _| {
            let mut changed = graph(model);
            changed.node[1].op_type = Some("Einsum".to_owned());
            model.graph = Some(changed);
        },
        "network \"test\": the cost of operator \"Einsum\" (node \"relu\") is not known; count it \
         in the exporter's cost model first",
    );
    refused(
        |model, _| {
            let mut changed = graph(model);
            changed.value_info.clear();
            model.graph = Some(changed);
        },
        "network \"test\": value \"proj\" has no known element type and static shape; export it \
         again",
    );
    refused(
        |model, _| {
            let mut changed = graph(model);
            changed.initializer.iter_mut().for_each(|tensor| {
                if tensor.dims.len() == 2 {
                    tensor.dims = vec![4, 5];
                }
            });
            model.graph = Some(changed);
        },
        "network \"test\": node \"proj\" (Gemm) does not add up: [3, 6] times [4, 5] is [3, 4]",
    );
    refused(
        |_, contract| contract.inputs[0].shape = vec![3, 7],
        "network \"test\": input \"x\" of the contract is not that of the graph; export it again",
    );
    refused(
        |_, contract| contract.outputs.clear(),
        "network \"test\": output \"y\" of the contract is not that of the graph; export it again",
    );
    refused(|model, _| model.graph = None, "the graph of network \"test\" is not an ONNX file");
}

#[test]
fn sizes_beyond_counting_are_an_error_and_no_overflow() {
    let (graph, mut contract) = file(&drawn(|g| x(g, &[3, 6])));
    let mut model = ModelProto::decode(&graph[..]).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let huge = usize::MAX / 4;
    graph.input[0] = ValueInfoProto::tensor("x", DType::Bf16, &[huge, huge]);
    contract.inputs[0].shape = vec![huge, huge];
    let error = network_cost(&model.encode_to_vec(), &contract).unwrap_err();
    assert!(matches!(error, CostError::Untyped { .. }), "{error}");
}
