//! One hand-computed example per operator, and error cases.

use super::*;
use crate::checkpoint::TensorEntry;
use crate::contract::FORMAT;
use crate::graph::{Gelu, Graph, Initializer, Network, Padding, Value};
use crate::onnx::{GraphProto, TensorProto};

/// Encodes a graph file without the bytes of its weights: costs depend only on their shapes.
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

/// Checkpoint tensors of the examples.
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

fn built(make: impl FnOnce(&mut Graph<'_>) -> Value) -> Network {
    let tensors = tensors();
    let mut graph = Graph::new("test", &tensors, DType::Bf16);
    let value = make(&mut graph);
    graph.output("y", &value, "result");
    graph.finish()
}

fn cost_of(make: impl FnOnce(&mut Graph<'_>) -> Value) -> NetworkCost {
    let (graph, contract) = file(&built(make));
    let cost = network_cost(&graph, &contract).unwrap();
    assert_eq!(cost.total, cost.parts.iter().map(|part| part.cost).sum(), "sum of the parts");
    cost
}

/// Checks the cost of the only node with operator `op`: stored bytes read, activation bytes read,
/// bytes written, matrix operations, attention operations, elementwise operations.
#[track_caller]
fn check(op: &str, make: impl FnOnce(&mut Graph<'_>) -> Value, expected: [u64; 6]) {
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
fn linear_counts_weight_and_bias() {
    // [3, 6] by [4, 6]: 3 · 4 results of 6 multiply-adds; 24 + 4 stored numbers of two bytes.
    check(
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
    let minimum_traffic =
        MinimumTraffic { stored_bytes: 56, input_bytes: 36, output_bytes: 24, kv_bytes: 0 };
    assert_eq!((cost.minimum_traffic, cost.minimum_traffic.bytes()), (minimum_traffic, 116));
}

#[test]
fn matrix_product_counts_every_matrix_of_a_batch() {
    // Two matrices [3, 5] by one [5, 7]: 2 · 21 results of 5 multiply-adds.
    let product = |g: &mut Graph<'_>| {
        let a = x(g, &[2, 3, 5]);
        let b = g.input("b", DType::Bf16, &[1, 5, 7], "example");
        g.matmul(&a, &b)
    };
    check("MatMul", product, [0, 60 + 70, 84, 420, 0, 0]);
}

#[test]
fn convolution_counts_its_kernel_once_per_result() {
    // Four channels in two groups, 8 kernels of 2 · 3 · 3; stride 2 reduces 4 x 6 to 2 x 3.
    let conv = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 4, 4, 6]);
        g.conv(&x, "conv", 2, Padding::Half).unwrap()
    };
    check("Conv", conv, [2 * (144 + 8), 192, 96, 2 * 48 * 18, 0, 48]);
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
    check("Attention", attention, [0, 384 + 320 + 320 + 30, 384, 0, 60 * 16 * 2 * 2, 60]);
}

/// Operators with one operation per element of a `[3, 6]` bf16 input.
#[test]
fn unary_operators_count_one_per_element() {
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
        check(op, make, [0, 36, 36, 0, 0, 18]);
    }
    // Composite operators of a bf16 graph compute in single precision, between casts.
    let gelu = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.gelu(&x, Gelu::Tanh)
    };
    check("Gelu", gelu, [0, 72, 72, 0, 0, 18]);
}

#[test]
fn binary_operators_count_the_broadcast_result() {
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
        check(op, make, [0, 36 + 12, written, 0, 0, 18]);
    }
    let select = |g: &mut Graph<'_>| {
        let a = x(g, &[3, 6]);
        let condition = g.input("c", DType::Bool, &[3, 1], "example");
        let zero = g.zeros(&[1]);
        let other = g.or(&condition, &condition);
        g.select(&other, &a, &zero)
    };
    check("Where", select, [2, 3 + 36, 36, 0, 0, 18]);
    check("Or", select, [0, 3 + 3, 3, 0, 0, 3]);
}

#[test]
fn normalizations_count_parameters_and_one_per_element() {
    let rms = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        let weight = g.weight("norm.weight").unwrap();
        g.rms_norm(&x, &weight, 1e-6)
    };
    check("RMSNormalization", rms, [12, 36, 36, 0, 0, 18]);
    let layer = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.layer_norm(&x, "norm", 1e-6).unwrap()
    };
    // In single precision, including the two cast parameters: 18 + 6 + 6 elements.
    check("LayerNormalization", layer, [0, 72 + 48, 72, 0, 0, 18]);
}

#[test]
fn rotary_reads_its_tables() {
    let rotary = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 2, 3, 4]);
        let cos = g.constant("cos", &[1, 3, 2], &[1.0; 6]);
        let sin = g.constant("sin", &[1, 3, 2], &[0.0; 6]);
        g.rotary(&x, &cos, &sin)
    };
    check("RotaryEmbedding", rotary, [24, 48, 48, 0, 0, 24]);
    let cost = cost_of(rotary);
    assert_eq!((cost.total.parameters, cost.total.constant_bytes), (0, 24), "tables are constants");
}

#[test]
fn cast_changes_bytes_and_not_elements() {
    let cast = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.cast(&x, DType::F32)
    };
    check("Cast", cast, [0, 36, 72, 0, 0, 18]);
}

#[test]
fn data_movement_has_no_operations() {
    let transpose = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.transpose(&x, &[1, 0])
    };
    check("Transpose", transpose, [0, 36, 36, 0, 0, 0]);
    let concat = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.concat(&[&x, &x], 0)
    };
    check("Concat", concat, [0, 72, 72, 0, 0, 0]);
    // Start, end and axis are stored lists of one 64-bit integer.
    let slice = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.slice(&x, 0, 1..2)
    };
    check("Slice", slice, [24, 12, 12, 0, 0, 0]);
    let expand = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 6]);
        g.expand(&x, &[3, 6])
    };
    check("Expand", expand, [16, 12, 36, 0, 0, 0]);
    let identity = |g: &mut Graph<'_>| x(g, &[3, 6]);
    check("Identity", identity, [0, 36, 36, 0, 0, 0]);
}

#[test]
fn reshape_is_free() {
    let reshape = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.reshape(&x, &[6, 3])
    };
    check("Reshape", reshape, [0, 0, 0, 0, 0, 0]);
}

#[test]
fn lookup_reads_selected_rows_and_counts_the_full_table() {
    let gather = |g: &mut Graph<'_>| {
        let table = g.weight("table.weight").unwrap();
        let index = g.input("i", DType::I64, &[3], "example");
        g.gather(&table, &index)
    };
    check("Gather", gather, [36, 24, 36, 0, 0, 0]);
    let cost = cost_of(gather);
    assert_eq!((cost.total.parameters, cost.total.parameter_bytes), (600, 1200));
    assert_eq!(cost.minimum_traffic.stored_bytes, 36);
}

#[test]
fn reductions_count_their_input() {
    let arg_max = |g: &mut Graph<'_>| {
        let x = x(g, &[3, 6]);
        g.arg_max(&x, 1)
    };
    check("ArgMax", arg_max, [0, 36, 24, 0, 0, 18]);
    // A cumulative sum of [3, 2] is a masked sum over [3, 3, 2] in single precision.
    let running = |g: &mut Graph<'_>| {
        let x = g.input("x", DType::F32, &[3, 2], "example");
        g.cumulative_sum(&x, 0)
    };
    check("ReduceSum", running, [8, 72, 24, 0, 0, 18]);
    let pool = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 2, 4, 6]);
        g.average_pool(&x, [2, 3])
    };
    check("AveragePool", pool, [0, 192, 32, 0, 0, 48]);
    let global = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 2, 4, 6]);
        g.global_average_pool(&x)
    };
    // Its axes are a stored list of two 64-bit integers.
    check("ReduceMean", global, [16, 96, 4, 0, 0, 48]);
}

#[test]
fn resize_counts_its_result() {
    let resize = |g: &mut Graph<'_>| {
        let x = x(g, &[1, 2, 2, 3]);
        g.resize_linear(&x, [4, 6])
    };
    check("Resize", resize, [32, 48, 192, 0, 0, 48]);
}

#[test]
fn weight_with_two_readers_is_one_parameter_and_two_reads() {
    let cost = cost_of(|g| {
        let x = x(g, &[3, 6]);
        let first = g.within("first", |g| g.linear(&x, "proj").unwrap());
        let second = g.within("second", |g| g.linear(&x, "proj").unwrap());
        g.add(&first, &second)
    });
    assert_eq!(cost.total.parameters, 28);
    assert_eq!((cost.total.stored_bytes_read, cost.minimum_traffic.stored_bytes), (112, 56));
    let names = cost.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["first", "second", ""]);
    assert_eq!(cost.parts_named("second").parameters, 0, "counted at the first reader");
}

#[test]
fn keys_and_values_are_recognized_by_name() {
    for (name, expected) in [("keys.0", true), ("values.35", true), ("keys.", false)] {
        assert_eq!(is_kv(name), expected, "{name}");
    }
    assert!(!is_kv("probe.keys.0") && !is_kv("keys.x") && !is_kv("route"));
}

#[track_caller]
fn check_error(change: impl FnOnce(&mut ModelProto, &mut Contract), message: &str) {
    let network = built(|g| {
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
fn uncountable_graph_is_an_error() {
    let graph = |model: &mut ModelProto| model.graph.take().unwrap();
    check_error(
        |model, _| {
            let mut changed = graph(model);
            changed.node[1].op_type = Some("Einsum".to_owned());
            model.graph = Some(changed);
        },
        "network \"test\": the cost model does not have operator \"Einsum\" (node \"relu\"); add \
         it there first",
    );
    check_error(
        |model, _| {
            let mut changed = graph(model);
            changed.value_info.clear();
            model.graph = Some(changed);
        },
        "network \"test\": value \"proj\" has no supported element type and static shape; export \
         it again",
    );
    check_error(
        |model, _| {
            let mut changed = graph(model);
            changed.initializer.iter_mut().for_each(|tensor| {
                if tensor.dims.len() == 2 {
                    tensor.dims = vec![4, 5];
                }
            });
            model.graph = Some(changed);
        },
        "network \"test\": node \"proj\" (Gemm) has inconsistent shapes: [3, 6] times [4, 5] is \
         [3, 4]",
    );
    check_error(
        |_, contract| contract.inputs[0].shape = vec![3, 7],
        "network \"test\": input \"x\" of the contract differs from the graph; export it again",
    );
    check_error(
        |_, contract| contract.outputs.clear(),
        "network \"test\": output \"y\" of the contract differs from the graph; export it again",
    );
    check_error(|model, _| model.graph = None, "the graph of network \"test\" is not an ONNX file");
}

#[test]
fn overflowing_sizes_are_an_error() {
    let (graph, mut contract) = file(&built(|g| x(g, &[3, 6])));
    let mut model = ModelProto::decode(&graph[..]).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let huge = usize::MAX / 4;
    graph.input[0] = ValueInfoProto::tensor("x", DType::Bf16, &[huge, huge]);
    contract.inputs[0].shape = vec![huge, huge];
    let error = network_cost(&model.encode_to_vec(), &contract).unwrap_err();
    assert!(matches!(error, CostError::Untyped { .. }), "{error}");
}
