//! Builder of ONNX graphs in which every value has an element type and a static shape.
//!
//! Operators check the shapes of their arguments and panic on a mismatch, because that is a bug of the
//! exporter. Names and widths from the checkpoint can be wrong for other reasons and are reported as
//! [`GraphError`].
//!
//! Weights are not loaded here: an [`Initializer`] describes the location or the computation of its
//! bytes.

mod emulation;
mod operators;

pub(crate) use emulation::round_bf16;
pub use operators::{Gelu, Padding};

use crate::checkpoint::TensorEntry;
use crate::contract::{TensorSpec, by_name};
use crate::dtype::DType;
use crate::onnx::{AttributeProto, NodeProto, ValueInfoProto};
use half::{bf16, f16};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Constants smaller than this are stored in the graph file, bytes.
pub const INLINE_BELOW: usize = 1024;

/// Scope of the nodes that round an input to an emulated type.
const INPUTS: &str = "inputs";

/// Scope of the `Identity` nodes that give a value a second name.
const OUTPUTS: &str = "outputs";

/// Error of building a graph from a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// A network needs a tensor that the checkpoint does not have.
    #[error("checkpoint has no tensor {name:?}")]
    NoSuchTensor { name: String },
    /// The shape of a tensor does not fit the network.
    #[error("tensor {name:?} has shape {found:?}, the network needs {needed}")]
    WrongShape {
        name: String,
        found: Vec<usize>,
        /// Description of the required shape.
        needed: String,
    },
    /// A constant that is computed from weights exceeds the range of the network's type.
    #[error("{name:?} has the value {value}, beyond the range of {dtype}; export as bf16")]
    Range {
        name: String,
        /// First value of the constant that is out of range.
        value: f64,
        dtype: DType,
    },
    /// A tensor's element type is not a floating-point type.
    #[error("tensor {name:?} is {found}, the network needs a floating-point tensor")]
    NotFloat { name: String, found: DType },
}

/// A tensor in the graph: an input, a weight, a constant or the result of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
}

impl Value {
    /// Returns the name of the value in the graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the element type of the value.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the length of an axis.
    pub fn dim(&self, axis: usize) -> usize {
        self.shape[axis]
    }

    /// Returns the number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    fn describe(&self) -> String {
        format!("{} {} {:?}", self.name, self.dtype, self.shape)
    }
}

/// A weight or constant of a graph.
#[derive(Clone, PartialEq, Debug)]
pub struct Initializer {
    pub name: String,
    /// Element type in the graph.
    pub dtype: DType,
    /// Dimensions in the graph, outermost first.
    pub dims: Vec<usize>,
    pub source: Source,
}

/// Source of the bytes of an [`Initializer`].
#[derive(Clone, PartialEq, Debug)]
pub enum Source {
    /// Referenced in a checkpoint file.
    Stored(Stored),
    /// Copied from a checkpoint file and converted from this element type.
    Converted(Stored, DType),
    /// Like [`Source::Converted`], and rounded to bfloat16.
    Rounded(Stored, DType),
    /// Copied from a checkpoint file and scaled.
    Scaled(Scaled),
    /// Computed at export and stored in the weights file.
    Folded(Vec<u8>),
    /// Computed at export and stored in the graph file.
    Inline(Vec<u8>),
}

/// A byte range of a checkpoint file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stored {
    /// Index into the checkpoint's files.
    pub file: usize,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Length of the range, bytes.
    pub length: u64,
}

/// A checkpoint tensor with a factor for each outermost row.
#[derive(Clone, PartialEq, Debug)]
pub struct Scaled {
    pub stored: Stored,
    pub from: DType,
    /// Element type to which each product is rounded once.
    pub to: DType,
    /// One factor per outermost row.
    pub factors: Vec<f64>,
}

impl Scaled {
    /// Iterates over the outermost rows of the tensor's bytes and their factors.
    pub(crate) fn rows<'b>(&self, bytes: &'b [u8]) -> impl Iterator<Item = (&'b [u8], f64)> {
        let row = (bytes.len() / self.factors.len()).max(1);
        bytes.chunks_exact(row).zip(self.factors.clone())
    }

    /// Returns `factor` times each value, rounded once to [`Self::to`].
    pub(crate) fn times(&self, values: &[f32], factor: f64) -> Vec<f32> {
        values.iter().map(|&value| rounded(f64::from(value) * factor, self.to)).collect()
    }
}

/// `factor · x + shift` per channel.
#[derive(Clone, PartialEq, Debug)]
pub struct Affine {
    /// One factor per output channel.
    pub factor: Vec<f64>,
    /// One shift per output channel.
    pub shift: Vec<f64>,
}

/// A finished graph with the data for its contract.
#[derive(Clone, PartialEq, Debug)]
pub struct Network {
    /// Name of the network, e.g. `vision`.
    pub name: String,
    /// Nodes in topological order.
    pub nodes: Vec<NodeProto>,
    /// Types of the results of nodes, except outputs.
    pub values: Vec<ValueInfoProto>,
    pub initializers: Vec<Initializer>,
    /// Inputs of the network in binding order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs of the network in binding order.
    pub outputs: Vec<TensorSpec>,
    /// Sizes in the contract, by name.
    pub sizes: BTreeMap<String, u64>,
    /// Other numbers in the contract, by name.
    pub numbers: BTreeMap<String, f64>,
}

impl Network {
    /// Sets the sizes from a struct of unsigned integers.
    #[must_use]
    pub fn with_sizes(self, sizes: &impl Serialize) -> Self {
        Self { sizes: by_name(sizes), ..self }
    }

    /// Sets the numbers from a struct of floating-point numbers.
    #[must_use]
    pub fn with_numbers(self, numbers: &impl Serialize) -> Self {
        Self { numbers: by_name(numbers), ..self }
    }
}

/// A graph under construction.
pub struct Graph<'a> {
    name: String,
    tensors: &'a BTreeMap<String, TensorEntry>,
    dtype: DType,
    emulated: bool,
    scope: Vec<String>,
    taken: BTreeSet<String>,
    nodes: Vec<NodeProto>,
    results: Vec<Value>,
    initializers: BTreeMap<String, Initializer>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<(String, TensorSpec)>,
}

impl<'a> Graph<'a> {
    /// Creates an empty graph over the tensors of a checkpoint. Weights and
    /// activations have the type `dtype`.
    pub fn new(name: &str, tensors: &'a BTreeMap<String, TensorEntry>, dtype: DType) -> Self {
        assert!(is_float(dtype), "a network cannot compute in {dtype}");
        Self {
            name: name.to_owned(),
            tensors,
            dtype,
            emulated: false,
            scope: Vec::new(),
            taken: BTreeSet::new(),
            nodes: Vec::new(),
            results: Vec::new(),
            initializers: BTreeMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// Element type of weights and activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Runs `build` with the prefix `scope/` for the names of the nodes that it adds.
    ///
    /// The outermost scope is the part of the network to which timings assign a node, so every
    /// node of a network has one.
    pub fn within<R>(&mut self, scope: impl Into<String>, build: impl FnOnce(&mut Self) -> R) -> R {
        self.scope.push(scope.into());
        let result = build(self);
        self.scope.pop();
        result
    }

    /// Adds an input with a static shape. `meaning` describes it in the contract.
    pub fn input(&mut self, name: &str, dtype: DType, shape: &[usize], meaning: &str) -> Value {
        assert!(self.taken.insert(name.to_owned()), "two values are named {name}");
        self.inputs.push(TensorSpec {
            name: name.to_owned(),
            dtype: self.storage_type(dtype),
            shape: shape.to_vec(),
            meaning: meaning.to_owned(),
        });
        let value = Value { name: name.to_owned(), dtype, shape: shape.to_vec() };
        if self.storage_type(dtype) == dtype {
            return value;
        }
        self.within(INPUTS, |graph| graph.round_by_casts(&value))
    }

    /// Makes `value` an output with this name.
    pub fn output(&mut self, name: &str, value: &Value, meaning: &str) {
        assert!(
            self.taken.insert(name.to_owned()),
            "two values are named {name}, one of them an output"
        );
        let is_output = self.outputs.iter().any(|(inner, _)| *inner == value.name);
        let is_result = self.results.iter().any(|result| result.name == value.name);
        // The value is renamed, unless its name is fixed: then it is copied by an `Identity` node.
        let inner = if is_output || !is_result {
            self.within(OUTPUTS, |graph| {
                graph.node("Identity", "identity", &[value], vec![], value.dtype, value.shape())
            })
        } else {
            value.clone()
        };
        let spec = TensorSpec {
            name: name.to_owned(),
            dtype: self.storage_type(value.dtype),
            shape: value.shape.clone(),
            meaning: meaning.to_owned(),
        };
        self.outputs.push((inner.name, spec));
    }

    /// True if the checkpoint has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Returns the shape of a tensor of the checkpoint. Fails if the checkpoint has no such tensor.
    pub fn shape_of(&self, name: &str) -> Result<&'a [usize], GraphError> {
        Ok(&self.entry(name)?.shape)
    }

    /// Adds a weight with its stored dimensions. Fails if the checkpoint has no
    /// such floating-point tensor.
    pub fn weight(&mut self, name: &str) -> Result<Value, GraphError> {
        let entry = self.entry(name)?;
        self.stored(name, name.to_owned(), entry.shape.clone(), 0..entry.shape.iter().product())
    }

    /// Adds a weight reinterpreted with other dimensions. Fails if the checkpoint has no such
    /// floating-point tensor, or its size differs.
    pub fn weight_as(&mut self, name: &str, dims: &[usize]) -> Result<Value, GraphError> {
        let entry = self.entry(name)?;
        let n_elements: usize = entry.shape.iter().product();
        if n_elements != dims.iter().product::<usize>() {
            return Err(GraphError::WrongShape {
                name: name.to_owned(),
                found: entry.shape.clone(),
                needed: format!("as many elements as {dims:?}"),
            });
        }
        self.stored(name, format!("{name}.as.{}", joined(dims, "x")), dims.to_vec(), 0..n_elements)
    }

    /// Adds a contiguous range of rows of a weight. Fails if the checkpoint has no such
    /// floating-point tensor, or fewer rows.
    pub fn weight_rows(&mut self, name: &str, rows: Range<usize>) -> Result<Value, GraphError> {
        let entry = self.entry(name)?;
        let n_rows = entry.shape.first().copied().unwrap_or(0);
        if rows.start >= rows.end || rows.end > n_rows {
            return Err(GraphError::WrongShape {
                name: name.to_owned(),
                found: entry.shape.clone(),
                needed: format!("rows {rows:?}"),
            });
        }
        if rows == (0..n_rows) {
            return self.weight(name);
        }
        let mut dims = entry.shape.clone();
        dims[0] = rows.len();
        let row: usize = entry.shape[1..].iter().product();
        let label = format!("{name}.rows.{}..{}", rows.start, rows.end);
        self.stored(name, label, dims, rows.start * row..rows.end * row)
    }

    /// Adds a weight with its outermost rows multiplied by `factors`. Fails if the checkpoint has no
    /// such floating-point tensor, or it has another number of rows.
    fn weight_scaled(&mut self, name: &str, factors: &[f64]) -> Result<Value, GraphError> {
        let entry = self.entry(name)?;
        if !is_float(entry.dtype) {
            return Err(GraphError::NotFloat { name: name.to_owned(), found: entry.dtype });
        }
        if entry.shape.first() != Some(&factors.len()) {
            return Err(GraphError::WrongShape {
                name: name.to_owned(),
                found: entry.shape.clone(),
                needed: format!("{} rows, one per factor", factors.len()),
            });
        }
        let source = Source::Scaled(Scaled {
            stored: Stored { file: entry.file, offset: entry.offset, length: entry.length },
            from: entry.dtype,
            to: self.dtype,
            factors: factors.to_vec(),
        });
        Ok(self.initializer(format!("{name}.scaled"), self.dtype, entry.shape.clone(), source))
    }

    fn entry(&self, name: &str) -> Result<&'a TensorEntry, GraphError> {
        let missing = || GraphError::NoSuchTensor { name: name.to_owned() };
        self.tensors.get(name).ok_or_else(missing)
    }

    fn stored(
        &mut self,
        tensor: &str,
        label: String,
        dims: Vec<usize>,
        elements: Range<usize>,
    ) -> Result<Value, GraphError> {
        let entry = self.entry(tensor)?;
        if !is_float(entry.dtype) {
            return Err(GraphError::NotFloat { name: tensor.to_owned(), found: entry.dtype });
        }
        let size = entry.dtype.size();
        let bytes = Stored {
            file: entry.file,
            offset: entry.offset + (elements.start * size) as u64,
            length: (elements.len() * size) as u64,
        };
        let source = match entry.dtype {
            DType::F32 | DType::F16 if self.emulated => Source::Rounded(bytes, entry.dtype),
            dtype if dtype == self.storage_type(self.dtype) => Source::Stored(bytes),
            dtype => Source::Converted(bytes, dtype),
        };
        Ok(self.initializer(label, self.dtype, dims, source))
    }

    /// Adds a floating-point constant of the network's element type.
    pub fn constant(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Value {
        self.constant_as(name, self.dtype, dims, values)
    }

    /// Adds a single-precision constant, independent of the network's element type.
    pub fn constant_f32(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Value {
        self.constant_as(name, DType::F32, dims, values)
    }

    /// Adds a floating-point constant of a given type.
    pub fn constant_as(
        &mut self,
        name: &str,
        dtype: DType,
        dims: &[usize],
        values: &[f32],
    ) -> Value {
        assert_eq!(values.len(), dims.iter().product::<usize>(), "constant {name} of {dims:?}");
        let bytes = self.encoded(values, dtype);
        self.computed(name.to_owned(), dtype, dims, bytes)
    }

    /// Adds a constant of 64-bit integers.
    pub fn integers(&mut self, name: &str, dims: &[usize], values: &[i64]) -> Value {
        assert_eq!(values.len(), dims.iter().product::<usize>(), "constant {name} of {dims:?}");
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.computed(name.to_owned(), DType::I64, dims, bytes)
    }

    /// Adds a constant of booleans, one byte each.
    pub fn booleans(&mut self, name: &str, dims: &[usize], values: &[bool]) -> Value {
        assert_eq!(values.len(), dims.iter().product::<usize>(), "constant {name} of {dims:?}");
        let bytes = values.iter().map(|&value| u8::from(value)).collect();
        self.computed(name.to_owned(), DType::Bool, dims, bytes)
    }

    /// Adds zeros of the network's element type.
    pub fn zeros(&mut self, dims: &[usize]) -> Value {
        let size = self.storage_type(self.dtype).size();
        let bytes = vec![0; dims.iter().product::<usize>() * size];
        self.computed(format!("zeros.{}", joined(dims, "x")), self.dtype, dims, bytes)
    }

    /// Adds a list of integers that an operator takes as an input (shape, axes, bounds).
    fn list(&mut self, values: &[i64]) -> Value {
        let name = format!("list.{}", joined(values, "."));
        self.integers(&name, &[values.len()], values)
    }

    fn computed(&mut self, name: String, dtype: DType, dims: &[usize], bytes: Vec<u8>) -> Value {
        let source =
            if bytes.len() < INLINE_BELOW { Source::Inline(bytes) } else { Source::Folded(bytes) };
        self.initializer(name, dtype, dims.to_vec(), source)
    }

    /// Adds an initializer, or returns the existing one.
    fn initializer(
        &mut self,
        name: String,
        dtype: DType,
        dims: Vec<usize>,
        source: Source,
    ) -> Value {
        let stored = self.storage_type(dtype);
        let new = Initializer { name: name.clone(), dtype: stored, dims: dims.clone(), source };
        match self.initializers.get(&name) {
            Some(old) => assert_eq!(*old, new, "two initializers are named {name}"),
            None => {
                assert!(self.taken.insert(name.clone()), "two values are named {name}");
                self.initializers.insert(name.clone(), new);
            }
        }
        Value { name, dtype, shape: dims }
    }

    /// Adds a node with one result.
    fn node(
        &mut self,
        op: &str,
        hint: &str,
        inputs: &[&Value],
        attributes: Vec<AttributeProto>,
        dtype: DType,
        shape: &[usize],
    ) -> Value {
        let inputs = inputs.iter().map(|value| value.name.clone()).collect();
        self.raw_node(op, hint, inputs, attributes, dtype, shape)
    }

    fn raw_node(
        &mut self,
        op: &str,
        hint: &str,
        input: Vec<String>,
        attribute: Vec<AttributeProto>,
        dtype: DType,
        shape: &[usize],
    ) -> Value {
        let name = self.fresh(hint);
        let output = vec![name.clone()];
        self.push_node(op, input, output, attribute);
        let value = Value { name, dtype: self.storage_type(dtype), shape: shape.to_vec() };
        self.results.push(value.clone());
        if self.needs_rounding(op, dtype) {
            self.round_by_casts(&value)
        } else {
            Value { dtype, ..value }
        }
    }

    fn push_node(
        &mut self,
        op: &str,
        input: Vec<String>,
        output: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) {
        // A rounded input has the name of the input, without a scope. Its node still needs the scope.
        let scope: String = self.scope.iter().flat_map(|scope| [scope.as_str(), "/"]).collect();
        let name = output.first().map(|value| match value.starts_with(&scope) {
            true => value.clone(),
            false => format!("{scope}{value}"),
        });
        self.nodes.push(NodeProto { input, output, name, op_type: Some(op.to_owned()), attribute });
    }

    /// Returns the unused name `scope/hint`, with a numeric suffix from the second use on.
    fn fresh(&mut self, hint: &str) -> String {
        let stem =
            self.scope.iter().map(String::as_str).chain([hint]).collect::<Vec<_>>().join("/");
        let name = (1..)
            .map(|n| if n == 1 { stem.clone() } else { format!("{stem}_{n}") })
            .find(|name| !self.taken.contains(name))
            .expect("some number is free");
        self.taken.insert(name.clone());
        name
    }

    /// Finishes the graph: removes unused nodes and renames outputs.
    pub fn finish(self) -> Network {
        let mut needed: BTreeSet<&str> =
            self.outputs.iter().map(|(inner, _)| inner.as_str()).collect();
        let mut used = vec![false; self.nodes.len()];
        for (node, used) in self.nodes.iter().zip(&mut used).rev() {
            *used = node.output.iter().any(|output| needed.contains(output.as_str()));
            if *used {
                needed.extend(node.input.iter().map(String::as_str));
            }
        }
        let initializers = self
            .initializers
            .values()
            .filter(|initializer| needed.contains(initializer.name.as_str()))
            .cloned()
            .collect();
        for input in &self.inputs {
            assert!(needed.contains(input.name.as_str()), "input {} is not used", input.name);
        }

        let renamed: BTreeMap<&str, &str> =
            self.outputs.iter().map(|(inner, spec)| (inner.as_str(), spec.name.as_str())).collect();
        let rename = |name: &String| {
            let name = name.as_str();
            renamed.get(name).copied().unwrap_or(name).to_owned()
        };
        let nodes = self
            .nodes
            .iter()
            .zip(&used)
            .filter(|(_, used)| **used)
            .map(|(node, _)| NodeProto {
                input: node.input.iter().map(rename).collect(),
                output: node.output.iter().map(rename).collect(),
                ..node.clone()
            })
            .collect();
        let values = self
            .results
            .iter()
            .zip(&used)
            .filter(|(value, used)| **used && !renamed.contains_key(value.name.as_str()))
            .map(|(value, _)| ValueInfoProto::tensor(&value.name, value.dtype, &value.shape))
            .collect();
        let outputs = self.outputs.iter().map(|(_, spec)| spec.clone()).collect();
        let (sizes, numbers) = Default::default();
        let Self { name, inputs, .. } = self;
        Network { name, nodes, values, initializers, inputs, outputs, sizes, numbers }
    }
}

/// True for element types that a network can compute in.
fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::Bf16)
}

/// Rounds `value` to `dtype`.
fn rounded(value: f64, dtype: DType) -> f32 {
    match dtype {
        DType::F32 => value as f32,
        DType::F16 => f16::from_f64(value).to_f32(),
        DType::Bf16 => bf16::from_f64(value).to_f32(),
        DType::I64 | DType::U8 | DType::Bool => panic!("{dtype} is not a floating-point type"),
    }
}

/// Little-endian bytes of `values` in a floating-point type, rounded to nearest even.
pub(crate) fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        DType::Bf16 => {
            values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect()
        }
        DType::I64 | DType::U8 | DType::Bool => panic!("{dtype} is not a floating-point type"),
    }
}

fn joined<T: ToString>(items: &[T], between: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests;
