//! Operators as methods of [`Graph`]: only standard operators that ONNX Runtime and TensorRT run.

use super::{Affine, Graph, GraphError, Value, rounded};
use crate::dtype::DType;
use crate::onnx::{AttributeProto, DataType};
use std::ops::Range;

/// Form of the GELU activation function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gelu {
    /// Defined by the error function.
    Exact,
    /// With the tanh approximation.
    Tanh,
}

/// Zero padding of a convolution on each edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Padding {
    None,
    /// Half the kernel, so that stride 1 keeps the size.
    Half,
}

impl Graph<'_> {
    /// `x · weightᵀ + bias` with the checkpoint's `{prefix}.weight` and, if present, `.bias`. Fails
    /// if the weight is missing or does not fit the width of `x`.
    pub fn linear(&mut self, x: &Value, prefix: &str) -> Result<Value, GraphError> {
        let weight = self.weight(&format!("{prefix}.weight"))?;
        let bias = format!("{prefix}.bias");
        let bias = if self.has(&bias) { Some(self.weight(&bias)?) } else { None };
        self.checked_gemm(x, &weight, bias.as_ref(), prefix)
    }

    /// Like [`Graph::linear`] with a range of rows of the weight and without bias. Fails if the
    /// weight is missing, has fewer rows or does not fit the width of `x`.
    pub fn linear_rows(
        &mut self,
        x: &Value,
        prefix: &str,
        rows: Range<usize>,
    ) -> Result<Value, GraphError> {
        let weight = self.weight_rows(&format!("{prefix}.weight"), rows)?;
        self.checked_gemm(x, &weight, None, prefix)
    }

    fn checked_gemm(
        &mut self,
        x: &Value,
        weight: &Value,
        bias: Option<&Value>,
        prefix: &str,
    ) -> Result<Value, GraphError> {
        if weight.rank() != 2 || weight.dim(1) != x.shape()[x.rank() - 1] {
            return Err(GraphError::WrongShape {
                name: format!("{prefix}.weight"),
                found: weight.shape.clone(),
                needed: format!("[_, {}]", x.shape()[x.rank() - 1]),
            });
        }
        // The last two parts of the name identify the linear within its layer.
        let hint = prefix.rsplitn(3, '.').take(2).collect::<Vec<_>>();
        let hint = hint.into_iter().rev().collect::<Vec<_>>().join(".");
        Ok(self.gemm(x, weight, bias, &hint))
    }

    /// `x · weightᵀ + bias` for `x` `[rows, in]` and `weight` `[out, in]`.
    pub fn gemm(&mut self, x: &Value, weight: &Value, bias: Option<&Value>, hint: &str) -> Value {
        assert!(
            x.rank() == 2 && weight.rank() == 2 && x.dim(1) == weight.dim(1),
            "gemm of {} and {}",
            x.describe(),
            weight.describe()
        );
        same_dtype(x, weight);
        let mut inputs = vec![x, weight];
        if let Some(bias) = bias {
            assert!(
                bias.shape() == [weight.dim(0)],
                "gemm with {} and bias {}",
                weight.describe(),
                bias.describe()
            );
            same_dtype(x, bias);
            inputs.push(bias);
        }
        let attributes = vec![AttributeProto::int("transB", 1)];
        self.node("Gemm", hint, &inputs, attributes, x.dtype, &[x.dim(0), weight.dim(0)])
    }

    /// Matrix product over the last two axes; the other axes broadcast.
    pub fn matmul(&mut self, a: &Value, b: &Value) -> Value {
        assert!(
            a.rank() >= 2 && b.rank() >= 2 && a.dim(a.rank() - 1) == b.dim(b.rank() - 2),
            "matmul of {} and {}",
            a.describe(),
            b.describe()
        );
        same_dtype(a, b);
        let mut shape = broadcast(&a.shape[..a.rank() - 2], &b.shape[..b.rank() - 2])
            .unwrap_or_else(|| panic!("matmul of {} and {}", a.describe(), b.describe()));
        shape.extend([a.dim(a.rank() - 2), b.dim(b.rank() - 1)]);
        self.node("MatMul", "matmul", &[a, b], Vec::new(), a.dtype, &shape)
    }

    /// Elementwise sum, with broadcasting.
    pub fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.elementwise("Add", "add", a, b, a.dtype)
    }

    /// Difference, with broadcasting.
    pub fn sub(&mut self, a: &Value, b: &Value) -> Value {
        self.elementwise("Sub", "sub", a, b, a.dtype)
    }

    /// Product, with broadcasting.
    pub fn mul(&mut self, a: &Value, b: &Value) -> Value {
        self.elementwise("Mul", "mul", a, b, a.dtype)
    }

    /// `a < b`, with broadcasting.
    pub fn less(&mut self, a: &Value, b: &Value) -> Value {
        self.elementwise("Less", "less", a, b, DType::Bool)
    }

    /// `a` or `b`, with broadcasting.
    pub fn or(&mut self, a: &Value, b: &Value) -> Value {
        assert_eq!(a.dtype, DType::Bool, "or of {}", a.describe());
        self.elementwise("Or", "or", a, b, DType::Bool)
    }

    fn elementwise(&mut self, op: &str, hint: &str, a: &Value, b: &Value, dtype: DType) -> Value {
        same_dtype(a, b);
        let shape = broadcast(&a.shape, &b.shape)
            .unwrap_or_else(|| panic!("{hint} of {} and {}", a.describe(), b.describe()));
        self.node(op, hint, &[a, b], Vec::new(), dtype, &shape)
    }

    /// `yes` where `condition` is true, else `no`, with broadcasting.
    pub fn select(&mut self, condition: &Value, yes: &Value, no: &Value) -> Value {
        assert_eq!(condition.dtype, DType::Bool, "select by {}", condition.describe());
        same_dtype(yes, no);
        let shape = broadcast(&yes.shape, &no.shape)
            .and_then(|shape| broadcast(&shape, &condition.shape))
            .unwrap_or_else(|| {
                panic!(
                    "select by {} of {} and {}",
                    condition.describe(),
                    yes.describe(),
                    no.describe()
                )
            });
        self.node("Where", "select", &[condition, yes, no], Vec::new(), yes.dtype, &shape)
    }

    /// Root-mean-square norm over the last axis, computed in single precision.
    pub fn rms_norm(&mut self, x: &Value, weight: &Value, epsilon: f64) -> Value {
        assert!(
            weight.shape() == [x.dim(x.rank() - 1)],
            "rms_norm of {} by {}",
            x.describe(),
            weight.describe()
        );
        same_dtype(x, weight);
        let attributes =
            vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", epsilon as f32)];
        let (op, hint) = ("RMSNormalization", "rms_norm");
        if self.emulates() {
            // The normalized value is rounded before it is multiplied by the weight, as the operator
            // does in bfloat16.
            let n = weight.dim(0);
            let ones = self.constant(&format!("ones.{n}"), &[n], &vec![1.0; n]);
            let normalized = self.node(op, hint, &[x, &ones], attributes, x.dtype, x.shape());
            return self.mul(&normalized, weight);
        }
        self.node(op, hint, &[x, weight], attributes, x.dtype, x.shape())
    }

    /// Applies `step` to `x` in single precision and rounds the result once to the type of `x`.
    ///
    /// The kernels of the AutoMoT release do this inside one operator. A back end may split the
    /// operator into several and round after each, unless the graph contains the casts.
    fn in_single(&mut self, x: &Value, step: impl FnOnce(&mut Self, &Value) -> Value) -> Value {
        let single = self.cast(x, DType::F32);
        let result = step(self, &single);
        self.cast(&result, x.dtype)
    }

    /// Layer norm over the last axis with the checkpoint's `{prefix}.weight` and `.bias`, rounded
    /// once. Fails if one of them is missing or has another width.
    pub fn layer_norm(
        &mut self,
        x: &Value,
        prefix: &str,
        epsilon: f64,
    ) -> Result<Value, GraphError> {
        let weight = self.weight(&format!("{prefix}.weight"))?;
        let bias = self.weight(&format!("{prefix}.bias"))?;
        let width = x.dim(x.rank() - 1);
        for value in [&weight, &bias] {
            if value.shape() != [width] {
                return Err(GraphError::WrongShape {
                    name: value.name.clone(),
                    found: value.shape.clone(),
                    needed: format!("[{width}]"),
                });
            }
        }
        let attributes =
            vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", epsilon as f32)];
        Ok(self.in_single(x, |g, x| {
            let [weight, bias] = [&weight, &bias].map(|value| g.cast(value, x.dtype));
            let inputs = [x, &weight, &bias];
            let hint = "layer_norm";
            g.node("LayerNormalization", hint, &inputs, attributes, x.dtype, x.shape())
        }))
    }

    /// GELU activation function, rounded once.
    pub fn gelu(&mut self, x: &Value, form: Gelu) -> Value {
        let approximate = match form {
            Gelu::Exact => "none",
            Gelu::Tanh => "tanh",
        };
        let attributes = vec![AttributeProto::string("approximate", approximate)];
        self.in_single(x, |g, x| g.node("Gelu", "gelu", &[x], attributes, x.dtype, x.shape()))
    }

    /// `x · sigmoid(x)`, also called SiLU.
    ///
    /// Written as two operators because ONNX Runtime's CUDA provider has no kernel for
    /// `Swish` and splits it into four.
    pub fn swish(&mut self, x: &Value) -> Value {
        if self.emulates() {
            // The release rounds only the product.
            return self.in_single(x, |g, x| {
                let gate = g.sigmoid(x);
                g.mul(x, &gate)
            });
        }
        let gate = self.sigmoid(x);
        self.mul(x, &gate)
    }

    /// ReLU activation function: `max(x, 0)`.
    pub fn relu(&mut self, x: &Value) -> Value {
        self.unary("Relu", "relu", x)
    }

    /// Elementwise logistic function.
    pub fn sigmoid(&mut self, x: &Value) -> Value {
        self.unary("Sigmoid", "sigmoid", x)
    }

    /// Elementwise cosine of angles in radians.
    pub fn cos(&mut self, x: &Value) -> Value {
        self.unary("Cos", "cos", x)
    }

    /// Elementwise sine of angles in radians.
    pub fn sin(&mut self, x: &Value) -> Value {
        self.unary("Sin", "sin", x)
    }

    fn unary(&mut self, op: &str, hint: &str, x: &Value) -> Value {
        self.node(op, hint, &[x], Vec::new(), x.dtype, x.shape())
    }

    /// Softmax over the last axis.
    pub fn softmax(&mut self, x: &Value) -> Value {
        let attributes = vec![AttributeProto::int("axis", -1)];
        self.node("Softmax", "softmax", &[x], attributes, x.dtype, x.shape())
    }

    /// Converts to another element type. Adds no node if `x` already has this type.
    pub fn cast(&mut self, x: &Value, dtype: DType) -> Value {
        if x.dtype == dtype {
            return x.clone();
        }
        let (from, to) = (self.storage_type(x.dtype), self.storage_type(dtype));
        if from == to {
            // A cast to or from an emulated type.
            let value = Value { dtype, ..x.clone() };
            return if dtype == to { value } else { self.round_by_casts(&value) };
        }
        let attributes = vec![AttributeProto::int("to", DataType::from(to) as i64)];
        self.node("Cast", "cast", &[x], attributes, dtype, x.shape())
    }

    /// Changes the dimensions. Adds no node if they are the same.
    pub fn reshape(&mut self, x: &Value, dims: &[usize]) -> Value {
        assert_eq!(
            x.shape.iter().product::<usize>(),
            dims.iter().product::<usize>(),
            "reshape of {} to {dims:?}",
            x.describe()
        );
        if x.shape() == dims {
            return x.clone();
        }
        let list = dims.iter().map(|&dim| dim as i64).collect::<Vec<_>>();
        let list = self.list(&list);
        self.node("Reshape", "reshape", &[x, &list], Vec::new(), x.dtype, dims)
    }

    /// Permutes axes: axis `i` of the result is axis `order[i]` of `x`.
    pub fn transpose(&mut self, x: &Value, order: &[usize]) -> Value {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        assert!(
            sorted.iter().copied().eq(0..x.rank()),
            "transpose of {} by {order:?}",
            x.describe()
        );
        let shape = order.iter().map(|&axis| x.dim(axis)).collect::<Vec<_>>();
        let perm = order.iter().map(|&axis| axis as i64).collect::<Vec<_>>();
        let attributes = vec![AttributeProto::ints("perm", &perm)];
        self.node("Transpose", "transpose", &[x], attributes, x.dtype, &shape)
    }

    /// Concatenates `parts` along `axis`.
    pub fn concat(&mut self, parts: &[&Value], axis: usize) -> Value {
        let first = parts[0];
        let mut shape = first.shape.clone();
        shape[axis] = 0;
        for part in parts {
            same_dtype(first, part);
            let fits = part.rank() == first.rank()
                && (0..first.rank()).all(|a| a == axis || part.dim(a) == first.dim(a));
            assert!(
                fits,
                "concat along axis {axis} of {} and {}",
                first.describe(),
                part.describe()
            );
            shape[axis] += part.dim(axis);
        }
        if let [only] = parts {
            return (*only).clone();
        }
        let attributes = vec![AttributeProto::int("axis", axis as i64)];
        self.node("Concat", "concat", parts, attributes, first.dtype, &shape)
    }

    /// Slices `axis`. Adds no node if `range` covers the axis.
    pub fn slice(&mut self, x: &Value, axis: usize, range: Range<usize>) -> Value {
        self.slices(x, [(axis, range)])
    }

    /// Slices several axes with one operator. Adds no node if the ranges cover `x`.
    pub fn slices<const N: usize>(
        &mut self,
        x: &Value,
        ranges: [(usize, Range<usize>); N],
    ) -> Value {
        let mut shape = x.shape.clone();
        let (mut starts, mut ends, mut axes) = (Vec::new(), Vec::new(), Vec::new());
        for (axis, range) in ranges {
            assert!(
                range.start < range.end && range.end <= x.dim(axis),
                "slice {range:?} along axis {axis} of {}",
                x.describe()
            );
            if range.len() == x.dim(axis) {
                continue;
            }
            shape[axis] = range.len();
            starts.push(range.start as i64);
            ends.push(range.end as i64);
            axes.push(axis as i64);
        }
        if axes.is_empty() {
            return x.clone();
        }
        let [starts, ends, axes] = [starts, ends, axes].map(|values| self.list(&values));
        self.node("Slice", "slice", &[x, &starts, &ends, &axes], Vec::new(), x.dtype, &shape)
    }

    /// Changes the length of `axis` by truncation or zero padding at the end.
    pub fn fit(&mut self, x: &Value, axis: usize, length: usize) -> Value {
        if length <= x.dim(axis) {
            return self.slice(x, axis, 0..length);
        }
        let mut missing = x.shape.clone();
        missing[axis] = length - x.dim(axis);
        let zeros = self.zeros(&missing);
        self.concat(&[x, &zeros], axis)
    }

    /// Looks up rows of `table` (along its first axis) by index.
    pub fn gather(&mut self, table: &Value, index: &Value) -> Value {
        assert_eq!(index.dtype, DType::I64, "gather by {}", index.describe());
        let shape = [&index.shape[..], &table.shape[1..]].concat();
        let attributes = vec![AttributeProto::int("axis", 0)];
        self.node("Gather", "gather", &[table, index], attributes, table.dtype, &shape)
    }

    /// Broadcasts `x` to the dimensions `dims`.
    pub fn expand(&mut self, x: &Value, dims: &[usize]) -> Value {
        assert!(
            broadcast(&x.shape, dims).as_deref() == Some(dims),
            "expand of {} to {dims:?}",
            x.describe()
        );
        let list = dims.iter().map(|&dim| dim as i64).collect::<Vec<_>>();
        let list = self.list(&list);
        self.node("Expand", "expand", &[x, &list], Vec::new(), x.dtype, dims)
    }

    /// Index of the largest element along `axis`. The axis is removed.
    pub fn arg_max(&mut self, x: &Value, axis: usize) -> Value {
        let mut shape = x.shape.clone();
        shape.remove(axis);
        let attributes =
            vec![AttributeProto::int("axis", axis as i64), AttributeProto::int("keepdims", 0)];
        self.node("ArgMax", "arg_max", &[x], attributes, DType::I64, &shape)
    }

    /// Cumulative sum along `axis` of a single-precision matrix.
    ///
    /// Computed as a masked sum: not every back end has `CumSum`, and a GPU may compute `MatMul` with
    /// ten mantissa bits. The axis has only a few points.
    pub fn cumulative_sum(&mut self, x: &Value, axis: usize) -> Value {
        assert!(
            x.rank() == 2 && axis < 2 && x.dtype == DType::F32,
            "cumulative sum along axis {axis} of {}",
            x.describe()
        );
        let n = x.dim(axis);
        let upto = (0..n * n).map(|i| f32::from(u8::from(i % n <= i / n))).collect::<Vec<_>>();
        let name = format!("upto.{n}.axis.{axis}");
        // A new axis before the summed one selects the last element of each partial sum.
        let (dims, mask) =
            if axis == 0 { ([n, n, 1], [1, n, x.dim(1)]) } else { ([1, n, n], [x.dim(0), 1, n]) };
        let upto = self.constant_f32(&name, &dims, &upto);
        let x3 = self.reshape(x, &mask);
        let parts = self.mul(&x3, &upto);
        let axes = self.list(&[axis as i64 + 1]);
        let attributes = vec![AttributeProto::int("keepdims", 0)];
        self.node("ReduceSum", "cumulative_sum", &[&parts, &axes], attributes, x.dtype, x.shape())
    }

    /// Mask that is added to scores: zero where `visible` is true, and elsewhere a negative number so
    /// large that its softmax is zero. Every row must have a visible column.
    ///
    /// Computed once per network, because ONNX Runtime's CUDA provider converts a boolean mask to this
    /// form in every layer. It is finite because sums of infinite scores are NaN.
    pub fn additive_mask(&mut self, visible: &Value) -> Value {
        let hidden = if self.dtype() == DType::F16 { half::f16::MIN.to_f32() } else { -1e30 };
        let zero = self.constant("score.seen", &[1], &[0.0]);
        let hidden = self.constant("score.hidden", &[1], &[hidden]);
        self.select(visible, &zero, &hidden)
    }

    /// Softmax attention of `q` `[1, heads, rows, dim]` over `k` `[1, kv_heads, columns, dim]` and
    /// `v` `[1, kv_heads, columns, value_dim]`; each key head serves `heads / kv_heads` query heads.
    /// `mask` (`[1, 1, rows, columns]`, see [`Graph::additive_mask`]) is added to the scores.
    ///
    /// Heads are zero-padded to a width that TensorRT has a kernel for, and values to the width of
    /// keys. The result is sliced back to `value_dim`.
    pub fn attention(
        &mut self,
        q: &Value,
        k: &Value,
        v: &Value,
        mask: Option<&Value>,
        scale: f32,
    ) -> Value {
        let what = || format!("attention of {}, {}, {}", q.describe(), k.describe(), v.describe());
        assert!(q.rank() == 4 && k.rank() == 4 && q.dim(0) == 1 && k.dim(0) == 1, "{}", what());
        assert!(
            v.rank() == 4
                && k.shape()[..3] == v.shape()[..3]
                && q.dim(3) == k.dim(3)
                && v.dim(3) <= k.dim(3),
            "{}",
            what()
        );
        assert!(q.dim(1).is_multiple_of(k.dim(1)), "{}", what());
        same_dtype(q, k);
        same_dtype(q, v);
        let (value_dim, width) = (v.dim(3), fused_width(k.dim(3)));
        let [q, k, v] = [q, k, v].map(|x| self.fit(x, 3, width));
        let mut inputs = vec![&q, &k, &v];
        if let Some(mask) = mask {
            assert!(
                mask.dtype == q.dtype && mask.shape() == [1, 1, q.dim(2), k.dim(2)],
                "attention of {}, {} under mask {}",
                q.describe(),
                k.describe(),
                mask.describe()
            );
            inputs.push(mask);
        }
        let attributes = vec![AttributeProto::float("scale", scale)];
        let result = self.node("Attention", "attention", &inputs, attributes, q.dtype, q.shape());
        self.slice(&result, 3, 0..value_dim)
    }

    /// Rotates the pairs `(j, j + dim / 2)` of `x` `[1, heads, rows, dim]` by angles that are given by
    /// their cosines and sines, `[1, rows, dim / 2]` each.
    ///
    /// With single-precision tables it rotates in single precision and rounds once. With tables of the
    /// type of `x`, every product and sum is rounded: TensorRT computes the operator in this way, and
    /// an emulating graph uses a separate node for each step.
    pub fn rotary(&mut self, x: &Value, cos: &Value, sin: &Value) -> Value {
        assert!(
            x.rank() == 4
                && cos.shape() == [x.dim(0), x.dim(2), x.dim(3) / 2]
                && cos.shape() == sin.shape(),
            "rotary of {} by {} and {}",
            x.describe(),
            cos.describe(),
            sin.describe()
        );
        same_dtype(cos, sin);
        if cos.dtype != x.dtype {
            assert_eq!(cos.dtype, DType::F32, "rotary of {} by {}", x.describe(), cos.describe());
            return self.in_single(x, |g, x| g.rotary(x, cos, sin));
        }
        if self.emulates() && x.dtype == self.dtype() {
            return self.rotary_by_parts(x, cos, sin);
        }
        let attributes = vec![AttributeProto::int("interleaved", 0)];
        self.node("RotaryEmbedding", "rotary", &[x, cos, sin], attributes, x.dtype, x.shape())
    }

    /// Like [`Graph::rotary`], with a separate, rounded operator for each product and sum.
    fn rotary_by_parts(&mut self, x: &Value, cos: &Value, sin: &Value) -> Value {
        let half = x.dim(3) / 2;
        let per_row = [1, 1, x.dim(2), half];
        let (cos, sin) = (self.reshape(cos, &per_row), self.reshape(sin, &per_row));
        let first = self.slice(x, 3, 0..half);
        let second = self.slice(x, 3, half..2 * half);
        let [a, b] = [(&first, &cos), (&second, &sin)].map(|(x, y)| self.mul(x, y));
        let rotated_first = self.sub(&a, &b);
        let [a, b] = [(&second, &cos), (&first, &sin)].map(|(x, y)| self.mul(x, y));
        let rotated_second = self.add(&a, &b);
        self.concat(&[&rotated_first, &rotated_second], 3)
    }

    /// `x` times a single-precision factor, which is not rounded to the type of `x`, as in the
    /// kernels of the AutoMoT release.
    pub fn scale(&mut self, x: &Value, factor: f32, name: &str) -> Value {
        self.in_single(x, |g, x| {
            let factor = g.constant_f32(name, &[1], &[factor]);
            g.mul(x, &factor)
        })
    }

    /// Convolution of `x` `[1, channels, height, width]` with the checkpoint's `{prefix}.weight` and,
    /// if present, `.bias`. The number of groups follows from the second axis of the weight.
    ///
    /// Fails if the weight is missing or does not fit the channels of `x`.
    pub fn conv(
        &mut self,
        x: &Value,
        prefix: &str,
        stride: usize,
        padding: Padding,
    ) -> Result<Value, GraphError> {
        let weight = self.weight(&format!("{prefix}.weight"))?;
        let bias = format!("{prefix}.bias");
        let bias = if self.has(&bias) { Some(self.weight(&bias)?) } else { None };
        self.convolve(x, &weight, bias.as_ref(), stride, padding)
    }

    /// Convolution with the checkpoint's `{prefix}.weight`, followed by `after`, which is folded into
    /// weight and bias. Both are rounded once.
    ///
    /// Fails if the weight is missing or does not fit the channels of `x` or of `after`.
    pub fn conv_affine(
        &mut self,
        x: &Value,
        prefix: &str,
        after: &Affine,
        stride: usize,
        padding: Padding,
    ) -> Result<Value, GraphError> {
        let weight = self.weight_scaled(&format!("{prefix}.weight"), &after.factor)?;
        let name = format!("{prefix}.folded_shift");
        let dtype = self.dtype();
        let shift = after.shift.iter().map(|&value| match rounded(value, dtype) {
            shift if shift.is_infinite() => {
                Err(GraphError::Range { name: name.clone(), value, dtype })
            }
            shift => Ok(shift),
        });
        let shift = shift.collect::<Result<Vec<_>, _>>()?;
        let bias = self.constant(&name, &[shift.len()], &shift);
        self.convolve(x, &weight, Some(&bias), stride, padding)
    }

    fn convolve(
        &mut self,
        x: &Value,
        weight: &Value,
        bias: Option<&Value>,
        stride: usize,
        padding: Padding,
    ) -> Result<Value, GraphError> {
        let channels = x.dim(1);
        let fits = weight.rank() == 4
            && channels.is_multiple_of(weight.dim(1))
            && weight.dim(0).is_multiple_of(channels / weight.dim(1));
        if !fits {
            return Err(GraphError::WrongShape {
                name: weight.name.clone(),
                found: weight.shape.clone(),
                needed: format!("a kernel for {channels} channels"),
            });
        }
        let pad = |kernel: usize| match padding {
            Padding::None => 0,
            Padding::Half => kernel / 2,
        };
        let (pad_h, pad_w) = (pad(weight.dim(2)), pad(weight.dim(3)));
        let shape = [
            1,
            weight.dim(0),
            (x.dim(2) + 2 * pad_h - weight.dim(2)) / stride + 1,
            (x.dim(3) + 2 * pad_w - weight.dim(3)) / stride + 1,
        ];
        let inputs = [x, weight].into_iter().chain(bias).collect::<Vec<_>>();
        let (h, w) = (pad_h as i64, pad_w as i64);
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &[weight.dim(2) as i64, weight.dim(3) as i64]),
            AttributeProto::ints("strides", &[stride as i64; 2]),
            AttributeProto::ints("pads", &[h, w, h, w]),
            AttributeProto::int("group", (channels / weight.dim(1)) as i64),
        ];
        Ok(self.node("Conv", "conv", &inputs, attributes, x.dtype, &shape))
    }

    /// Mean over tiles of size `tile` (height, width) of `x` `[1, channels,
    /// height, width]`, rounded once.
    pub fn average_pool(&mut self, x: &Value, tile: [usize; 2]) -> Value {
        assert!(
            x.rank() == 4 && x.dim(2).is_multiple_of(tile[0]) && x.dim(3).is_multiple_of(tile[1]),
            "average pool of {} by {tile:?}",
            x.describe()
        );
        let shape = [x.dim(0), x.dim(1), x.dim(2) / tile[0], x.dim(3) / tile[1]];
        let tile = tile.map(|n| n as i64);
        let attributes = vec![
            AttributeProto::ints("kernel_shape", &tile),
            AttributeProto::ints("strides", &tile),
        ];
        self.in_single(x, |g, x| {
            g.node("AveragePool", "average_pool", &[x], attributes, x.dtype, &shape)
        })
    }

    /// Mean over height and width of `x` `[1, channels, height, width]`, as `[1, channels, 1, 1]`.
    ///
    /// Uses `ReduceMean` because ONNX Runtime's CUDA provider has no bf16
    /// kernel for `GlobalAveragePool`.
    pub fn global_average_pool(&mut self, x: &Value) -> Value {
        let shape = [x.dim(0), x.dim(1), 1, 1];
        let axes = self.list(&[2, 3]);
        let attributes = vec![AttributeProto::int("keepdims", 1)];
        // Kernels sum in single precision. Casts in the graph would be separate launches.
        self.node("ReduceMean", "global_average_pool", &[x, &axes], attributes, x.dtype, &shape)
    }

    /// Bilinear resampling of `x` `[1, channels, height, width]` with half-pixel centers, rounded once.
    pub fn resize_linear(&mut self, x: &Value, size: [usize; 2]) -> Value {
        if [x.dim(2), x.dim(3)] == size {
            return x.clone();
        }
        let shape = [x.dim(0), x.dim(1), size[0], size[1]];
        let sizes = self.list(&shape.map(|n| n as i64));
        let attributes = vec![
            AttributeProto::string("mode", "linear"),
            AttributeProto::string("coordinate_transformation_mode", "half_pixel"),
        ];
        self.in_single(x, |g, x| {
            // Region and scales are absent optional inputs.
            let inputs = vec![x.name.clone(), String::new(), String::new(), sizes.name.clone()];
            g.raw_node("Resize", "resize", inputs, attributes, x.dtype, &shape)
        })
    }

    /// `x` `[rows, heads · dim]` as `[1, heads, rows, dim]`.
    pub fn split_heads(&mut self, x: &Value, heads: usize) -> Value {
        assert!(
            x.rank() == 2 && x.dim(1).is_multiple_of(heads),
            "{heads} heads of {}",
            x.describe()
        );
        let by_row = self.reshape(x, &[1, x.dim(0), heads, x.dim(1) / heads]);
        self.transpose(&by_row, &[0, 2, 1, 3])
    }

    /// `x` `[1, heads, rows, dim]` as `[rows, heads · dim]`.
    pub fn join_heads(&mut self, x: &Value) -> Value {
        let by_row = self.transpose(x, &[0, 2, 1, 3]);
        self.reshape(&by_row, &[x.dim(2), x.dim(1) * x.dim(3)])
    }
}

/// Smallest width of at least `dim` that TensorRT's fused attention accepts with a mask: a
/// multiple of 8, at least 16.
fn fused_width(dim: usize) -> usize {
    dim.next_multiple_of(8).max(16)
}

fn same_dtype(a: &Value, b: &Value) {
    assert_eq!(a.dtype, b.dtype, "types of {} and {}", a.describe(), b.describe());
}

/// Shape of an elementwise result; `None` if the shapes do not broadcast.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis])
    };
    (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}
