//! Bytes and operations of each operator that the exporter writes.

use super::{Typed, product};
use crate::onnx::NodeProto;

/// Bytes and operations of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Count {
    pub(super) matrix_flops: u64,
    pub(super) attention_flops: u64,
    pub(super) elementwise_ops: u64,
    /// Bytes read of each input, in order; zero for an absent input.
    pub(super) read: Vec<u64>,
    /// Bytes written; zero for a view.
    pub(super) written: u64,
}

/// Counts one node. Returns `None` for an unknown operator, and a description as the error if the
/// shapes contradict each other.
pub(super) fn count(
    node: &NodeProto,
    inputs: &[Option<&Typed>],
    output: &Typed,
) -> Result<Option<Count>, String> {
    let input =
        |i: usize| inputs.get(i).copied().flatten().ok_or_else(|| format!("input {i} is missing"));
    let mut count = Count {
        matrix_flops: 0,
        attention_flops: 0,
        elementwise_ops: 0,
        read: inputs.iter().map(|input| input.map_or(0, |typed| typed.bytes)).collect(),
        written: output.bytes,
    };
    match node.op_type() {
        "Gemm" => {
            count.matrix_flops = gemm(node, input(0)?, input(1)?, output)?;
            count.elementwise_ops = bias(inputs.get(2), output);
        }
        "MatMul" => count.matrix_flops = matmul(input(0)?, input(1)?, output)?,
        "Conv" => {
            count.matrix_flops = conv(node, input(0)?, input(1)?, output)?;
            count.elementwise_ops = bias(inputs.get(2), output);
        }
        "Attention" => {
            let (products, scores) = attention(input(0)?, input(1)?, input(2)?, output)?;
            count.attention_flops = products;
            count.elementwise_ops = scores;
        }
        // One operation per element of the result.
        "Add" | "Sub" | "Mul" | "Less" | "Or" | "Where" | "Cast" | "Relu" | "Gelu" | "Sigmoid"
        | "Cos" | "Sin" | "Softmax" | "RMSNormalization" | "LayerNormalization"
        | "RotaryEmbedding" | "Resize" => {
            count.elementwise_ops = output.elements();
        }
        // One operation per element of the reduced input.
        "ReduceSum" | "ArgMax" | "ReduceMean" | "AveragePool" => {
            count.elementwise_ops = input(0)?.elements();
        }
        // No operations, only memory traffic.
        "Concat" | "Expand" | "Identity" | "Transpose" => {}
        // Reads at most the size of the result.
        "Slice" | "Gather" => count.read[0] = input(0)?.bytes.min(output.bytes),
        // A view: no memory traffic.
        "Reshape" => {
            if input(0)?.elements() != output.elements() {
                return Err(format!("{:?} reshaped to {:?}", input(0)?.shape, output.shape));
            }
            count.read.fill(0);
            count.written = 0;
        }
        _ => return Ok(None),
    }
    Ok(Some(count))
}

/// Number of operations, two per multiply-add.
fn multiply_adds(sizes: &[u64]) -> Result<u64, String> {
    let operations = product(sizes).and_then(|n| n.checked_mul(2));
    operations.ok_or_else(|| format!("the product of {sizes:?} overflows"))
}

fn bias(bias: Option<&Option<&Typed>>, output: &Typed) -> u64 {
    if bias.is_some_and(Option::is_some) { output.elements() } else { 0 }
}

/// `2 · m · n · k` of `[m, k]` (or its transpose) times `[k, n]` (or its transpose).
fn gemm(node: &NodeProto, a: &Typed, b: &Typed, output: &Typed) -> Result<u64, String> {
    let is_set = |name: &str| integer(node, name).is_some_and(|value| value != 0);
    let ([a0, a1], [b0, b1], [m, n]) = (matrix(a)?, matrix(b)?, matrix(output)?);
    let [rows, k] = if is_set("transA") { [a1, a0] } else { [a0, a1] };
    let [depth, cols] = if is_set("transB") { [b1, b0] } else { [b0, b1] };
    if [rows, k, cols] != [m, depth, n] {
        return Err(format!("{:?} times {:?} is {:?}", a.shape, b.shape, output.shape));
    }
    multiply_adds(&[m, n, k])
}

/// `2 · m · n · k` for every matrix of the result.
fn matmul(a: &Typed, b: &Typed, output: &Typed) -> Result<u64, String> {
    let tail = |typed: &Typed| match typed.shape[..] {
        [.., rows, cols] => Some([rows, cols]),
        _ => None,
    };
    let (Some([rows, k]), Some([depth, cols]), Some([m, n])) = (tail(a), tail(b), tail(output))
    else {
        return Err(format!("{:?} and {:?} are not matrices", a.shape, b.shape));
    };
    if [rows, k, cols] != [m, depth, n] {
        return Err(format!("{:?} times {:?} is {:?}", a.shape, b.shape, output.shape));
    }
    multiply_adds(&[output.elements(), k])
}

/// One multiply-add per element of the result and element of its kernel. The depth of a kernel is
/// the number of channels of a group.
fn conv(node: &NodeProto, x: &Typed, weight: &Typed, output: &Typed) -> Result<u64, String> {
    let groups = u64::try_from(integer(node, "group").unwrap_or(1)).unwrap_or(0);
    let [_, depth, height, width] = weight.shape[..] else {
        return Err(format!("kernel of shape {:?}", weight.shape));
    };
    let channels = depth.checked_mul(groups);
    if channels.is_none() || x.dim(1) != channels || output.dim(1) != weight.dim(0) {
        let (x, weight, output) = (&x.shape, &weight.shape, &output.shape);
        return Err(format!("{weight:?} in {groups} groups over {x:?} is {output:?}"));
    }
    multiply_adds(&[output.elements(), depth, height, width])
}

/// Operations of `q · kᵀ` and of the scores times `v`, and the number of scores.
fn attention(q: &Typed, k: &Typed, v: &Typed, output: &Typed) -> Result<(u64, u64), String> {
    let inconsistent =
        || format!("{:?}, {:?}, {:?} to {:?}", q.shape, k.shape, v.shape, output.shape);
    let ([batch, heads, rows, dim], [_, key_heads, columns, key_dim]) =
        (four(q).ok_or_else(inconsistent)?, four(k).ok_or_else(inconsistent)?);
    let [_, value_heads, value_rows, value_dim] = four(v).ok_or_else(inconsistent)?;
    let fits = dim == key_dim
        && (key_heads, columns) == (value_heads, value_rows)
        && key_heads > 0
        && heads.is_multiple_of(key_heads)
        && output.shape[..] == [batch, heads, rows, value_dim];
    if !fits {
        return Err(inconsistent());
    }
    let scores = [batch, heads, rows, columns];
    let products =
        [dim, value_dim].map(|width| multiply_adds(&[batch, heads, rows, columns, width]));
    let [scored, weighed] = products;
    let flops = scored?.checked_add(weighed?).ok_or_else(inconsistent)?;
    Ok((flops, product(&scores).ok_or_else(inconsistent)?))
}

fn matrix(typed: &Typed) -> Result<[u64; 2], String> {
    match typed.shape[..] {
        [rows, cols] => Ok([rows, cols]),
        _ => Err(format!("{:?} is not a matrix", typed.shape)),
    }
}

fn four(typed: &Typed) -> Option<[u64; 4]> {
    typed.shape[..].try_into().ok()
}

fn integer(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name() == name)?.i
}
