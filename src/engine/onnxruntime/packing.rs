//! Decides for which networks the library packs matrices, that is, copies them into its own layout.
//!
//! Without a packed copy the library rearranges a matrix in each product, which costs relatively more
//! for fewer rows. Unpacked over packed time on one core of an AMD EPYC (AVX-512): action expert (101
//! rows) 1.14 at mid size and 1.38 at release width; vision tower (512 rows) 1.05 and understanding
//! expert (640 rows) 1.02 at mid size (`benchmarks/results/packing.json`). The copy doubles the memory
//! of the matrices, so large ones are packed only for few rows, and never above a limit.

use std::collections::BTreeMap;
use tandem_export::onnx::{GraphProto, ValueInfoProto};

/// Matrices up to this total size are packed for any number of rows, bytes.
const SMALL_BYTES: u64 = 256 << 20;

/// Matrices above this total size are never packed, bytes.
const LARGE_BYTES: u64 = 2 << 30;

/// Maximum number of rows for which more than [`SMALL_BYTES`] are packed.
const FEW_ROWS: u64 = 128;

/// Size of an element in the library's products, which are in single precision.
const ELEMENT_BYTES: u64 = 4;

/// Constant matrices of a network's products.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Matrices {
    /// Total size in the library's layout.
    pub(super) bytes: u64,
    /// Rows of the largest product.
    pub(super) rows: u64,
}

impl Matrices {
    /// Finds the matrices of an exported graph.
    pub(super) fn of(graph: &GraphProto) -> Self {
        let weights =
            graph.initializer.iter().map(|tensor| (tensor.name(), elements(&tensor.dims)));
        let mut weights: BTreeMap<&str, u64> = weights.collect();
        let values = graph.value_info.iter().chain(&graph.output);
        let shapes: BTreeMap<&str, Vec<i64>> =
            values.filter_map(|info| Some((info.name.as_deref()?, shape(info)?))).collect();
        let mut found = Self::default();
        for node in &graph.node {
            if !matches!(node.op_type.as_deref(), Some("Gemm" | "MatMul")) {
                continue;
            }
            // A matrix shared by two products is counted once.
            let Some(size) = node.input.get(1).and_then(|name| weights.remove(name.as_str()))
            else {
                continue;
            };
            found.bytes = found.bytes.saturating_add(size.saturating_mul(ELEMENT_BYTES));
            let made = node.output.first().and_then(|name| shapes.get(name.as_str()));
            let rows = made.and_then(|shape| shape.split_last()).map(|(_, rows)| elements(rows));
            found.rows = found.rows.max(rows.unwrap_or(0));
        }
        found
    }

    /// Returns whether the faster runs justify the memory of packing.
    pub(super) fn are_worth_packing(self) -> bool {
        self.bytes <= SMALL_BYTES || (self.rows <= FEW_ROWS && self.bytes <= LARGE_BYTES)
    }

    /// Returns whether packing would make runs much faster but exceeds the memory limit.
    pub(super) fn are_too_large(self) -> bool {
        self.rows <= FEW_ROWS && self.bytes > LARGE_BYTES
    }
}

/// Returns the number of elements, saturating because shapes of values are not checked.
fn elements(dims: &[i64]) -> u64 {
    dims.iter().fold(1, |count, dim| count.saturating_mul(dim.unsigned_abs()))
}

fn shape(info: &ValueInfoProto) -> Option<Vec<i64>> {
    let shape = info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
    shape.dim.iter().map(|dim| dim.dim_value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use tandem_export::graph::Graph;
    use tandem_export::onnx::{Dimension, NodeProto, TensorProto};

    /// Two products of 5 rows share a constant 6 × 6 matrix; a third multiplies by an input.
    #[test]
    fn constant_matrices_are_counted_once() {
        let tensors = BTreeMap::new();
        let mut graph = Graph::new("example", &tensors, DType::F32);
        let x = graph.input("x", DType::F32, &[5, 6], "example");
        let square = graph.constant("square", &[6, 6], &[0.0; 36]);
        let y = graph.gemm(&x, &square, None, "first");
        let y = graph.gemm(&y, &square, None, "second");
        let other = graph.input("other", DType::F32, &[7, 6], "example");
        let y = graph.gemm(&y, &other, None, "third");
        graph.output("y", &y, "example");
        let network = graph.finish();
        let initializer = network.initializers.iter().map(|initializer| TensorProto {
            dims: initializer.dims.iter().map(|&dim| dim as i64).collect(),
            name: Some(initializer.name.clone()),
            ..TensorProto::default()
        });
        let graph = GraphProto {
            initializer: initializer.collect(),
            node: network.nodes,
            value_info: network.values,
            ..GraphProto::default()
        };
        assert_eq!(Matrices::of(&graph), Matrices { bytes: 36 * 4, rows: 5 });
    }

    #[test]
    fn element_counts_saturate() {
        let dims = vec![i64::MAX, 4, i64::MIN];
        let matrix = TensorProto {
            dims: dims.clone(),
            name: Some("matrix".into()),
            ..TensorProto::default()
        };
        let dimension = |&dim: &i64| Dimension { dim_value: Some(dim) };
        let mut made = ValueInfoProto::tensor("y", DType::F32, &[]);
        let tensor = made.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
        tensor.shape.as_mut().unwrap().dim = dims.iter().map(dimension).collect();
        let product = NodeProto {
            input: vec!["x".into(), "matrix".into()],
            output: vec!["y".into()],
            op_type: Some("MatMul".into()),
            ..NodeProto::default()
        };
        let graph = GraphProto {
            initializer: vec![matrix],
            node: vec![product],
            value_info: vec![made],
            ..GraphProto::default()
        };
        assert_eq!(Matrices::of(&graph), Matrices { bytes: u64::MAX, rows: u64::MAX });
    }

    #[test]
    fn large_matrices_are_packed_only_for_few_rows() {
        let check = |megabytes: u64, rows, is_packed, is_too_large| {
            let matrices = Matrices { bytes: megabytes << 20, rows };
            assert_eq!(matrices.are_worth_packing(), is_packed, "{matrices:?}");
            assert_eq!(matrices.are_too_large(), is_too_large, "{matrices:?}");
        };
        check(200, 640, true, false);
        check(1600, 640, false, false);
        check(1600, 101, true, false);
        check(8200, 101, false, true);
        check(8200, 640, false, false);
    }
}
