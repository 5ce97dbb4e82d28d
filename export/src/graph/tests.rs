//! Tests of graphs.

use super::*;

/// Entries of a checkpoint file.
fn tensors() -> BTreeMap<String, TensorEntry> {
    let entry = |dtype, shape: &[usize], offset| TensorEntry {
        dtype,
        shape: shape.to_vec(),
        file: 1,
        offset,
        length: (shape.iter().product::<usize>() * DType::size(dtype)) as u64,
    };
    BTreeMap::from([
        ("layer.proj.weight".to_owned(), entry(DType::Bf16, &[4, 6], 1000)),
        ("layer.proj.bias".to_owned(), entry(DType::F32, &[4], 1048)),
        ("layer.norm.weight".to_owned(), entry(DType::Bf16, &[5], 1064)),
        ("layer.count".to_owned(), entry(DType::I64, &[1], 2000)),
    ])
}

fn source_of(network: &Network, name: &str) -> Source {
    let found = network.initializers.iter().find(|initializer| initializer.name == name);
    found.unwrap_or_else(|| panic!("no initializer {name}")).source.clone()
}

/// Builds a graph with the value of `make` as its output.
fn network(dtype: DType, make: impl FnOnce(&mut Graph<'_>) -> Value) -> Network {
    let tensors = tensors();
    let mut graph = Graph::new("test", &tensors, dtype);
    let value = make(&mut graph);
    graph.output("y", &value, "result");
    graph.finish()
}

#[test]
fn weight_is_referenced_or_converted_by_its_type() {
    let network = network(DType::Bf16, |g| {
        let x = g.input("x", DType::Bf16, &[3, 6], "rows");
        g.linear(&x, "layer.proj").unwrap()
    });
    let weight = Stored { file: 1, offset: 1000, length: 48 };
    assert_eq!(source_of(&network, "layer.proj.weight"), Source::Stored(weight));
    let bias = Stored { file: 1, offset: 1048, length: 16 };
    assert_eq!(source_of(&network, "layer.proj.bias"), Source::Converted(bias, DType::F32));
    assert_eq!(network.outputs[0].shape, [3, 4]);
}

#[test]
fn rows_of_a_weight_are_a_byte_range() {
    let network = network(DType::Bf16, |g| {
        let x = g.input("x", DType::Bf16, &[3, 6], "rows");
        g.linear_rows(&x, "layer.proj", 1..3).unwrap()
    });
    // Rows of six two-byte numbers: row 1 starts 12 bytes in, two rows are 24 bytes.
    let rows = Stored { file: 1, offset: 1012, length: 24 };
    assert_eq!(source_of(&network, "layer.proj.weight.rows.1..3"), Source::Stored(rows));
    assert_eq!(network.outputs[0].shape, [3, 2]);
}

#[test]
fn weight_can_have_other_dimensions() {
    let network = network(DType::Bf16, |g| g.weight_as("layer.proj.weight", &[2, 3, 4]).unwrap());
    let [weight] = &network.initializers[..] else { panic!("{:?}", network.initializers) };
    assert_eq!(weight.dims, [2, 3, 4]);
    assert_eq!(weight.source, Source::Stored(Stored { file: 1, offset: 1000, length: 48 }));
}

/// Checks the error for a checkpoint that does not fit.
#[track_caller]
fn check_error(use_it: impl FnOnce(&mut Graph<'_>) -> Result<Value, GraphError>, message: &str) {
    let tensors = tensors();
    let mut graph = Graph::new("test", &tensors, DType::Bf16);
    assert_eq!(use_it(&mut graph).unwrap_err().to_string(), message);
}

#[test]
fn missing_or_wrong_tensor_is_an_error() {
    check_error(|g| g.weight("layer.gone"), "checkpoint has no tensor \"layer.gone\"");
    check_error(
        |g| g.weight("layer.count"),
        "tensor \"layer.count\" is i64, the network needs a floating-point tensor",
    );
    check_error(
        |g| g.weight_rows("layer.proj.weight", 3..5),
        "tensor \"layer.proj.weight\" has shape [4, 6], the network needs rows 3..5",
    );
    check_error(
        |g| g.weight_as("layer.proj.weight", &[5, 5]),
        "tensor \"layer.proj.weight\" has shape [4, 6], the network needs as many elements as \
         [5, 5]",
    );
    check_error(
        |g| {
            let x = g.input("x", DType::Bf16, &[3, 7], "rows");
            g.linear(&x, "layer.proj")
        },
        "tensor \"layer.proj.weight\" has shape [4, 6], the network needs [_, 7]",
    );
}

/// Calls an operator on values of the given shapes, which must panic.
fn misuse(shapes: &[&[usize]], call: impl FnOnce(&mut Graph<'_>, &[Value])) {
    let tensors = tensors();
    let mut graph = Graph::new("test", &tensors, DType::F32);
    let values = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| graph.input(&format!("x{i}"), DType::F32, shape, "misused"))
        .collect::<Vec<_>>();
    call(&mut graph, &values);
}

#[test]
#[should_panic(expected = "add of x0 f32 [2, 3] and x1 f32 [2, 4]")]
fn add_panics_with_both_shapes() {
    misuse(&[&[2, 3], &[2, 4]], |g, x| _ = g.add(&x[0], &x[1]));
}

#[test]
#[should_panic(expected = "matmul of x0 f32 [1, 2, 3] and x1 f32 [1, 2, 3]")]
fn matmul_requires_matching_inner_sizes() {
    misuse(&[&[1, 2, 3], &[1, 2, 3]], |g, x| _ = g.matmul(&x[0], &x[1]));
}

#[test]
#[should_panic(expected = "reshape of x0 f32 [2, 3] to [4, 2]")]
fn reshape_keeps_the_number_of_elements() {
    misuse(&[&[2, 3]], |g, x| _ = g.reshape(&x[0], &[4, 2]));
}

#[test]
#[should_panic(expected = "slice 2..5 along axis 1 of x0 f32 [2, 4]")]
fn slice_requires_a_range_within_the_axis() {
    misuse(&[&[2, 4]], |g, x| _ = g.slice(&x[0], 1, 2..5));
}

#[test]
#[should_panic(expected = "concat along axis 0 of x0 f32 [2, 4] and x1 f32 [2, 3]")]
fn concat_requires_equal_other_axes() {
    misuse(&[&[2, 4], &[2, 3]], |g, x| _ = g.concat(&[&x[0], &x[1]], 0));
}

#[test]
#[should_panic(expected = "attention of")]
fn attention_refuses_values_wider_than_keys() {
    let shapes: [&[usize]; 3] = [&[1, 4, 3, 8], &[1, 2, 5, 8], &[1, 2, 5, 10]];
    misuse(&shapes, |g, x| _ = g.attention(&x[0], &x[1], &x[2], None, 1.0));
}

#[test]
#[should_panic(expected = "rotary of")]
fn rotary_requires_one_angle_per_pair() {
    let shapes: [&[usize]; 2] = [&[1, 4, 3, 8], &[1, 3, 8]];
    misuse(&shapes, |g, x| _ = g.rotary(&x[0], &x[1], &x[1]));
}

#[test]
#[should_panic(expected = "types of x0 f32 [2] and list.1.2 i64 [2]")]
fn mixed_element_types_panic() {
    misuse(&[&[2]], |g, x| {
        let list = g.list(&[1, 2]);
        g.add(&x[0], &list);
    });
}

#[test]
fn shapes_broadcast_by_the_rules_of_onnx() {
    let network = network(DType::F32, |g| {
        let a = g.input("a", DType::F32, &[4, 1, 3], "a");
        let b = g.input("b", DType::F32, &[5, 1], "b");
        g.mul(&a, &b)
    });
    assert_eq!(network.outputs[0].shape, [4, 5, 3]);
}

#[test]
fn fit_truncates_or_pads_with_zeros() {
    let network = network(DType::F32, |g| {
        let x = g.input("x", DType::F32, &[2, 3], "x");
        let wide = g.fit(&x, 1, 5);
        g.fit(&wide, 0, 1)
    });
    assert_eq!(network.outputs[0].shape, [1, 5]);
    assert_eq!(source_of(&network, "zeros.2x2"), Source::Inline(vec![0; 16]));
}

#[test]
fn nodes_have_their_scope_and_outputs_their_name() {
    let network = network(DType::F32, |g| {
        let x = g.input("x", DType::F32, &[2], "x");
        g.within("layer.0", |g| {
            let x = g.relu(&x);
            let x = g.relu(&x);
            g.within("inner", |g| g.sigmoid(&x))
        })
    });
    let names = network.nodes.iter().filter_map(|node| node.name.as_deref()).collect::<Vec<_>>();
    assert_eq!(names, ["layer.0/relu", "layer.0/relu_2", "layer.0/inner/sigmoid"]);
    assert_eq!(network.nodes[2].output, ["y"]);
    assert_eq!(network.values.len(), 2, "the output is typed as an output only");
}

#[test]
fn input_or_second_name_as_output_is_an_identity_node() {
    let tensors = tensors();
    let mut graph = Graph::new("test", &tensors, DType::F32);
    let x = graph.input("x", DType::F32, &[2], "x");
    let y = graph.relu(&x);
    for (name, value) in [("same", &x), ("first", &y), ("second", &y)] {
        graph.output(name, value, "copy");
    }
    let network = graph.finish();
    let made = network
        .nodes
        .iter()
        .map(|node| {
            (node.op_type.as_deref().unwrap(), node.input[0].as_str(), node.output[0].as_str())
        })
        .collect::<Vec<_>>();
    let expected =
        [("Relu", "x", "first"), ("Identity", "x", "same"), ("Identity", "first", "second")];
    assert_eq!(made, expected);
}

#[test]
fn unused_nodes_and_initializers_are_removed() {
    let network = network(DType::F32, |g| {
        let x = g.input("x", DType::F32, &[2], "x");
        let unused = g.constant("unused", &[2], &[1.0, 2.0]);
        g.add(&x, &unused);
        g.relu(&x)
    });
    assert_eq!(network.nodes.len(), 1);
    assert_eq!(network.initializers, []);
}

#[test]
fn only_small_constants_are_inline() {
    let network = network(DType::Bf16, |g| {
        let small = g.constant("small", &[511], &[1.0; 511]);
        let large = g.constant("large", &[512], &[1.0; 512]);
        g.concat(&[&small, &large], 0)
    });
    assert!(matches!(source_of(&network, "small"), Source::Inline(_)));
    assert!(matches!(source_of(&network, "large"), Source::Folded(_)));
}

#[test]
fn constants_round_to_nearest_even() {
    // 1 + 2^-8 and 1 + 3 · 2^-8 are midway between two bfloat16 numbers.
    let bytes = encode(&[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -2.0], DType::Bf16);
    assert_eq!(bytes, [0x80, 0x3f, 0x82, 0x3f, 0x00, 0xc0]);
}

fn operators(network: &Network) -> Vec<&str> {
    network.nodes.iter().map(|node| node.op_type.as_deref().unwrap()).collect()
}

#[test]
fn composite_operators_are_computed_in_single_precision() {
    for (dtype, expected) in [
        (DType::F32, &["Gelu", "Resize"][..]),
        (DType::Bf16, &["Cast", "Gelu", "Cast", "Cast", "Resize", "Cast"]),
        (DType::F16, &["Cast", "Gelu", "Cast", "Cast", "Resize", "Cast"]),
    ] {
        let network = network(dtype, |g| {
            let x = g.input("x", dtype, &[1, 2, 3, 4], "map");
            let x = g.gelu(&x, Gelu::Exact);
            g.resize_linear(&x, [6, 8])
        });
        assert_eq!((&operators(&network)[..], network.outputs[0].dtype), (expected, dtype));
    }
}

#[test]
fn rotary_with_f32_tables_is_computed_in_single_precision() {
    for (table, expected) in [
        (DType::F32, &["Cast", "RotaryEmbedding", "Cast"][..]),
        (DType::Bf16, &["RotaryEmbedding"]),
    ] {
        let network = network(DType::Bf16, |g| {
            let x = g.input("x", DType::Bf16, &[1, 2, 3, 4], "heads");
            let angles = g.constant_as("angles", table, &[1, 3, 2], &[0.0; 6]);
            g.rotary(&x, &angles, &angles)
        });
        assert_eq!(operators(&network), expected);
    }
}

#[test]
fn attention_pads_heads_to_a_supported_width() {
    // Width of keys, of values, and of the operator's inputs.
    for (dim, value_dim, fused) in [(128, 80, 128), (128, 128, 128), (12, 8, 16), (20, 20, 24)] {
        let network = network(DType::Bf16, |g| {
            let [q, k, v] = [("q", dim), ("k", dim), ("v", value_dim)]
                .map(|(name, dim)| g.input(name, DType::Bf16, &[1, 2, 3, dim], "heads"));
            g.attention(&q, &k, &v, None, 1.0)
        });
        assert_eq!(network.outputs[0].shape, [1, 2, 3, value_dim]);
        let of = |n: usize| ValueInfoProto::tensor("attention", DType::Bf16, &[1, 2, 3, n]);
        let operator = network.values.iter().find(|value| value.name == of(fused).name);
        let seen = operator.cloned().unwrap_or_else(|| of(network.outputs[0].shape[3]));
        assert_eq!(seen, of(fused), "heads of {dim} and {value_dim}");
    }
}
