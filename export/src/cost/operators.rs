//! What each operator that the exporter writes reads, writes and computes.

use super::{Typed, product};
use crate::onnx::NodeProto;

/// What one node does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Count {
    pub(super) matrix_flops: u64,
    pub(super) attention_flops: u64,
    pub(super) elementwise_ops: u64,
    /// Bytes read of each input, in order; zero of an absent one.
    pub(super) read: Vec<u64>,
    /// Bytes of the result, if it is written at all.
    pub(super) written: u64,
}

/// Counts one node; nothing if its operator is unknown, words if its shapes contradict each other.
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
        // One per element of the result.
        "Add" | "Sub" | "Mul" | "Less" | "Or" | "Where" | "Cast" | "Relu" | "Gelu" | "Sigmoid"
        | "Cos" | "Sin" | "Softmax" | "RMSNormalization" | "LayerNormalization"
        | "RotaryEmbedding" | "Resize" => {
            count.elementwise_ops = output.elements();
        }
        // One per element of what is reduced.
        "ReduceSum" | "ArgMax" | "ReduceMean" | "AveragePool" => {
            count.elementwise_ops = input(0)?.elements();
        }
        // Moves numbers and computes nothing.
        "Concat" | "Expand" | "Identity" | "Transpose" => {}
        // Reads no more than it gives.
        "Slice" | "Gather" => count.read[0] = input(0)?.bytes.min(output.bytes),
        // The same bytes under another shape: nothing moves.
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

/// Two operations per multiply-add.
fn multiply_adds(sizes: &[u64]) -> Result<u64, String> {
    let operations = product(sizes).and_then(|n| n.checked_mul(2));
    operations.ok_or_else(|| format!("a product over {sizes:?} is beyond counting"))
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
        return Err(format!("{:?} times {:?} are no matrices", a.shape, b.shape));
    };
    if [rows, k, cols] != [m, depth, n] {
        return Err(format!("{:?} times {:?} is {:?}", a.shape, b.shape, output.shape));
    }
    multiply_adds(&[output.elements(), k])
}

/// Every element of the result takes one multiply-add per element of its kernel, and a kernel is as
/// deep as its group has channels.
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

/// Operations of `q · kᵀ` and of the scores times `v`, and how many scores there are.
fn attention(q: &Typed, k: &Typed, v: &Typed, output: &Typed) -> Result<(u64, u64), String> {
    let misfit = || format!("{:?}, {:?}, {:?} to {:?}", q.shape, k.shape, v.shape, output.shape);
    let ([batch, heads, rows, dim], [_, key_heads, columns, key_dim]) =
        (four(q).ok_or_else(misfit)?, four(k).ok_or_else(misfit)?);
    let [_, value_heads, value_rows, value_dim] = four(v).ok_or_else(misfit)?;
    let fits = dim == key_dim
        && (key_heads, columns) == (value_heads, value_rows)
        && key_heads > 0
        && heads.is_multiple_of(key_heads)
        && output.shape[..] == [batch, heads, rows, value_dim];
    if !fits {
        return Err(misfit());
    }
    let scores = [batch, heads, rows, columns];
    let products =
        [dim, value_dim].map(|width| multiply_adds(&[batch, heads, rows, columns, width]));
    let [scored, weighed] = products;
    let flops = scored?.checked_add(weighed?).ok_or_else(misfit)?;
    Ok((flops, product(&scores).ok_or_else(misfit)?))
}

fn matrix(typed: &Typed) -> Result<[u64; 2], String> {
    match typed.shape[..] {
        [rows, cols] => Ok([rows, cols]),
        _ => Err(format!("{:?} is no matrix", typed.shape)),
    }
}

fn four(typed: &Typed) -> Option<[u64; 4]> {
    typed.shape[..].try_into().ok()
}

fn integer(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name() == name)?.i
}
