//! Emulation of bfloat16 arithmetic in single precision, for machines without bfloat16.
//!
//! An emulating graph is built like any bfloat16 graph, but its bfloat16 values are stored in single
//! precision and rounded to the nearest bfloat16 number: weights and constants when they are written,
//! inputs where they enter, and the result of every arithmetic operator by a pair of casts after it.
//! Every operator therefore takes and returns bfloat16 numbers and computes in single precision, as
//! the kernels of a GPU do.
//!
//! Operators for which the AutoMoT release rounds more or less than the result check
//! [`Graph::emulates`] where they are added.

use super::{Graph, Value, encode};
use crate::dtype::DType;
use crate::onnx::{AttributeProto, DataType};
use half::bf16;

/// Operators that only move or select numbers: their results need no rounding.
const EXACT: [&str; 9] =
    ["Concat", "Expand", "Gather", "Identity", "Relu", "Reshape", "Slice", "Transpose", "Where"];

impl Graph<'_> {
    /// Makes this bfloat16 graph emulate its type in single precision.
    ///
    /// # Panics
    /// If the graph has another type, or already has values.
    pub fn emulating(mut self) -> Self {
        assert_eq!(self.dtype, DType::Bf16, "only bf16 is emulated");
        assert!(self.taken.is_empty(), "the graph already has values");
        self.emulated = true;
        self
    }

    /// True if the graph stores bfloat16 numbers in single precision.
    pub fn emulates(&self) -> bool {
        self.emulated
    }

    /// Type in which a value of type `dtype` is stored in the graph.
    pub(super) fn storage_type(&self, dtype: DType) -> DType {
        if self.emulated && dtype == DType::Bf16 { DType::F32 } else { dtype }
    }

    /// True if the result of `op`, of type `dtype`, must be rounded.
    pub(super) fn needs_rounding(&self, op: &str, dtype: DType) -> bool {
        self.emulated && dtype == DType::Bf16 && !EXACT.contains(&op)
    }

    /// Rounds `x`, stored in single precision, to bfloat16 by a pair of casts.
    pub(super) fn round_by_casts(&mut self, x: &Value) -> Value {
        let [narrow, wide] = ["bf16", "on_grid"].map(|suffix| format!("{}.{suffix}", x.name));
        let value = |name: &String, dtype| Value { name: name.clone(), dtype, ..x.clone() };
        if self.taken.insert(wide.clone()) {
            assert!(self.taken.insert(narrow.clone()), "two values are named {narrow}");
            // The only value of a real bfloat16 type is between these two nodes.
            let steps = [(&x.name, &narrow, DType::Bf16), (&narrow, &wide, DType::F32)];
            for (from, name, dtype) in steps {
                let to = AttributeProto::int("to", DataType::from(dtype) as i64);
                self.push_node("Cast", vec![from.clone()], vec![name.clone()], vec![to]);
                self.results.push(value(name, dtype));
            }
        }
        value(&wide, DType::Bf16)
    }

    /// Rounds the single-precision `x` to the network's type and keeps it in single precision, where
    /// the AutoMoT release rounds. Returns `x` unchanged unless this graph emulates.
    pub fn rounded(&mut self, x: &Value) -> Value {
        if !self.emulated {
            return x.clone();
        }
        let x = self.cast(x, self.dtype);
        self.cast(&x, DType::F32)
    }

    /// Bytes of a constant of type `dtype` in its storage type.
    pub(super) fn encoded(&self, values: &[f32], dtype: DType) -> Vec<u8> {
        if self.storage_type(dtype) == dtype {
            return encode(values, dtype);
        }
        let values = values.iter().map(|&value| round_bf16(value)).collect::<Vec<_>>();
        encode(&values, DType::F32)
    }
}

/// Rounds to the nearest bfloat16 number, ties to even.
pub(crate) fn round_bf16(value: f32) -> f32 {
    bf16::from_f32(value).to_f32()
}
