//! The ONNX messages that the exporter writes, by hand: just the fields that our graphs use.
//!
//! Field numbers are those of `onnx.proto`. Singular fields are `Option` because the format is
//! proto2: a zero that is present and a zero that is absent differ, and checkers look at which.

use crate::dtype::DType;

/// Version of the file layout that goes with [`OPSET`].
pub const IR_VERSION: i64 = 12;

/// Version of the standard operator set: the first with `Attention(24)`.
pub const OPSET: i64 = 24;

/// A whole file: one graph and the operator sets that it speaks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelProto {
    /// [`IR_VERSION`].
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    /// Program that wrote the file.
    #[prost(string, optional, tag = "2")]
    pub producer_name: Option<String>,
    /// Its version.
    #[prost(string, optional, tag = "3")]
    pub producer_version: Option<String>,
    /// The graph.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    /// Operator sets, one per domain.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
}

/// An operator set: domain (empty for the standard one) and version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperatorSetIdProto {
    /// Domain; empty is the standard one.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    /// Version within the domain.
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

/// Nodes in topological order, with the tensors that enter and leave.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GraphProto {
    /// Nodes; each uses only values made before it.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// Name of the graph.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// Weights and constants.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// Inputs, in binding order.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    /// Outputs, in binding order.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// Types of the values in between; lets a checker compare its shape inference with ours.
    #[prost(message, repeated, tag = "13")]
    pub value_info: Vec<ValueInfoProto>,
}

/// One operator call.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeProto {
    /// Names of the values read; an empty name is an absent optional input.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Names of the values made.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// Name, unique in the graph.
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    /// Operator.
    #[prost(string, optional, tag = "4")]
    pub op_type: Option<String>,
    /// Attributes.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
}

/// A named constant of a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeProto {
    /// Name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Value of a `FLOAT`.
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    /// Value of an `INT`.
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// Value of a `STRING`.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub s: Option<Vec<u8>>,
    /// Value of an `INTS`.
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// Which of the above holds the value.
    #[prost(enumeration = "AttributeType", optional, tag = "20")]
    pub r#type: Option<i32>,
}

/// Kinds of attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum AttributeType {
    /// Not set.
    Undefined = 0,
    /// One float.
    Float = 1,
    /// One integer.
    Int = 2,
    /// One string.
    String = 3,
    /// Integers.
    Ints = 7,
}

impl AttributeProto {
    /// A float attribute.
    pub fn float(name: &str, value: f32) -> Self {
        Self { f: Some(value), ..Self::of(name, AttributeType::Float) }
    }

    /// An integer attribute.
    pub fn int(name: &str, value: i64) -> Self {
        Self { i: Some(value), ..Self::of(name, AttributeType::Int) }
    }

    /// A string attribute.
    pub fn string(name: &str, value: &str) -> Self {
        Self { s: Some(value.as_bytes().to_vec()), ..Self::of(name, AttributeType::String) }
    }

    /// An attribute that is a list of integers.
    pub fn ints(name: &str, values: &[i64]) -> Self {
        Self { ints: values.to_vec(), ..Self::of(name, AttributeType::Ints) }
    }

    fn of(name: &str, r#type: AttributeType) -> Self {
        Self { name: Some(name.to_owned()), r#type: Some(r#type as i32), ..Self::default() }
    }
}

/// A weight or constant, its bytes here or in a file beside the model.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorProto {
    /// Dimensions, outermost first.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// Element type.
    #[prost(enumeration = "DataType", optional, tag = "2")]
    pub data_type: Option<i32>,
    /// Name of the value.
    #[prost(string, optional, tag = "8")]
    pub name: Option<String>,
    /// Little-endian elements, when they are here.
    #[prost(bytes = "vec", optional, tag = "9")]
    pub raw_data: Option<Vec<u8>>,
    /// `location`, `offset` and `length`, when they are in a file.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// Where the elements are.
    #[prost(enumeration = "DataLocation", optional, tag = "14")]
    pub data_location: Option<i32>,
}

/// Where the elements of a [`TensorProto`] are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum DataLocation {
    /// In the message.
    Default = 0,
    /// In a file.
    External = 1,
}

/// Element types, as far as our graphs use them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum DataType {
    /// Not set.
    Undefined = 0,
    /// IEEE single precision.
    Float = 1,
    /// Unsigned byte.
    Uint8 = 2,
    /// Signed 64-bit integer.
    Int64 = 7,
    /// Boolean.
    Bool = 9,
    /// IEEE half precision.
    Float16 = 10,
    /// bfloat16.
    Bfloat16 = 16,
}

impl From<DType> for DataType {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::Float,
            DType::F16 => Self::Float16,
            DType::Bf16 => Self::Bfloat16,
            DType::I64 => Self::Int64,
            DType::U8 => Self::Uint8,
            DType::Bool => Self::Bool,
        }
    }
}

/// A pair of strings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringStringEntryProto {
    /// Key.
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    /// Value.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

impl StringStringEntryProto {
    /// `key` with `value`.
    pub fn new(key: &str, value: impl Into<String>) -> Self {
        Self { key: Some(key.to_owned()), value: Some(value.into()) }
    }
}

/// Name and type of a value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueInfoProto {
    /// Name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
}

impl ValueInfoProto {
    /// A tensor with static dimensions.
    pub fn tensor(name: &str, dtype: DType, shape: &[usize]) -> Self {
        let dim = shape.iter().map(|&n| Dimension { dim_value: Some(n as i64) }).collect();
        let tensor = TensorTypeProto {
            elem_type: Some(DataType::from(dtype) as i32),
            shape: Some(TensorShapeProto { dim }),
        };
        Self { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
    }
}

/// Type of a value; ours are all tensors.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypeProto {
    /// Element type and shape.
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorTypeProto>,
}

/// Element type and shape of a tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorTypeProto {
    /// Element type.
    #[prost(enumeration = "DataType", optional, tag = "1")]
    pub elem_type: Option<i32>,
    /// Shape.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// Shape of a tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorShapeProto {
    /// Dimensions, outermost first.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// One static dimension.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dimension {
    /// Length.
    #[prost(int64, optional, tag = "1")]
    pub dim_value: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn a_zero_attribute_is_written_and_not_left_out() {
        let bytes = AttributeProto::int("axis", 0).encode_to_vec();
        // name (tag 1), i (tag 3, varint 0), type (tag 20, varint 2).
        assert_eq!(bytes, [0x0a, 4, b'a', b'x', b'i', b's', 0x18, 0, 0xa0, 1, 2]);
    }

    #[test]
    fn a_tensor_type_nests_as_the_format_says() {
        let bytes = ValueInfoProto::tensor("x", DType::Bf16, &[3]).encode_to_vec();
        let shape = [0x12, 4, 0x0a, 2, 0x08, 3];
        let tensor = [&[0x08, 16][..], &shape].concat();
        let expected = [&[0x0a, 1, b'x', 0x12, 10, 0x0a, 8][..], &tensor].concat();
        assert_eq!(bytes, expected);
    }
}
