//! bfloat16 arithmetic in single precision, for machines that cannot compute in bfloat16.
//!
//! An emulating graph is drawn like any bfloat16 graph. Where a value of that type appears it is
//! carried in single precision instead, on bfloat16's grid: weights and constants are rounded when
//! they are written, inputs where they enter, and the result of every operator that computes by a
//! pair of casts behind it. So every operator takes bfloat16 numbers, works in single precision
//! inside, and gives bfloat16 numbers, as the kernels of a GPU do.
//!
//! This file holds the policy; operators of which the release rounds more, or less, than the result
//! ask [`Graph::emulates`] where they are drawn.

use super::{Graph, Value, encode};
use crate::dtype::DType;
use crate::onnx::{AttributeProto, DataType};
use half::bf16;

/// Operators that move or pick numbers: what they give is on the grid when what they take is.
const EXACT: [&str; 9] =
    ["Concat", "Expand", "Gather", "Identity", "Relu", "Reshape", "Slice", "Transpose", "Where"];

impl Graph<'_> {
    /// Makes this bfloat16 graph emulate its type in single precision.
    ///
    /// # Panics
    /// If the graph's type is another one, or something was drawn already.
    pub fn emulating(mut self) -> Self {
        assert_eq!(self.dtype, DType::Bf16, "only bf16 is emulated");
        assert!(self.taken.is_empty(), "a graph emulates from its first value on");
        self.emulated = true;
        self
    }

    /// True if the graph carries bfloat16 numbers in single precision.
    pub fn emulates(&self) -> bool {
        self.emulated
    }

    /// The type that files and back ends see for a value of type `dtype`.
    pub(super) fn carried(&self, dtype: DType) -> DType {
        if self.emulated && dtype == DType::Bf16 { DType::F32 } else { dtype }
    }

    /// True if `op` may leave the grid when it gives numbers of type `dtype`.
    pub(super) fn leaves_grid(&self, op: &str, dtype: DType) -> bool {
        self.emulated && dtype == DType::Bf16 && !EXACT.contains(&op)
    }

    /// `x`, carried in single precision, rounded to the grid: a value of type bfloat16.
    pub(super) fn on_grid(&mut self, x: &Value) -> Value {
        let [narrow, wide] = ["bf16", "on_grid"].map(|suffix| format!("{}.{suffix}", x.name));
        let value = |name: &String, dtype| Value { name: name.clone(), dtype, ..x.clone() };
        if self.taken.insert(wide.clone()) {
            assert!(self.taken.insert(narrow.clone()), "two values are named {narrow}");
            // Spelled as nodes: between these two, and only there, numbers really are bfloat16.
            let steps = [(&x.name, &narrow, DType::Bf16), (&narrow, &wide, DType::F32)];
            for (from, name, dtype) in steps {
                let to = AttributeProto::int("to", DataType::from(dtype) as i64);
                self.push_node("Cast", vec![from.clone()], vec![name.clone()], vec![to]);
                self.made.push(value(name, dtype));
            }
        }
        value(&wide, DType::Bf16)
    }

    /// The single-precision `x` rounded to the network's type wherever the release rounds it,
    /// although it goes on in single precision; nothing unless this graph emulates.
    pub fn rounded(&mut self, x: &Value) -> Value {
        if !self.emulated {
            return x.clone();
        }
        let x = self.cast(x, self.dtype);
        self.cast(&x, DType::F32)
    }

    /// Bytes of a constant of type `dtype`, as this graph carries it.
    pub(super) fn encoded(&self, values: &[f32], dtype: DType) -> Vec<u8> {
        if self.carried(dtype) == dtype {
            return encode(values, dtype);
        }
        let values = values.iter().map(|&value| to_grid(value)).collect::<Vec<_>>();
        encode(&values, DType::F32)
    }
}

/// The nearest bfloat16 number, ties to even.
pub(crate) fn to_grid(value: f32) -> f32 {
    bf16::from_f32(value).to_f32()
}
