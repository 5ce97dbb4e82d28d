//! Comparison of the tensors of a run with a contract.

use super::SessionRunError;
use crate::device::{Buffer, DeviceView, DeviceViewMut};
use crate::tensor::DType;
use crate::tensor::{TensorView, TensorViewMut};
use tandem_export::contract::{Contract, TensorSpec};

/// Returns the buffers of all tensors, inputs first.
pub(super) fn buffers_of<'a>(
    inputs: &'a [DeviceView<'_>],
    outputs: &'a [DeviceViewMut<'_>],
) -> impl Iterator<Item = &'a Buffer> {
    inputs.iter().map(|view| view.buffer).chain(outputs.iter().map(|view| view.buffer))
}

/// Input or output tensor of a run.
pub(super) trait Tensor {
    /// Returns the element type, the shape and the length in bytes.
    fn layout(&self) -> (DType, &[usize], usize);
}

impl Tensor for DeviceView<'_> {
    fn layout(&self) -> (DType, &[usize], usize) {
        (self.dtype, self.shape, self.buffer.bytes())
    }
}

impl Tensor for DeviceViewMut<'_> {
    fn layout(&self) -> (DType, &[usize], usize) {
        (self.dtype, self.shape, self.buffer.bytes())
    }
}

impl Tensor for TensorView<'_> {
    fn layout(&self) -> (DType, &[usize], usize) {
        (self.dtype, self.shape, self.bytes.len())
    }
}

impl Tensor for TensorViewMut<'_> {
    fn layout(&self) -> (DType, &[usize], usize) {
        (self.dtype, self.shape, self.bytes.len())
    }
}

/// Checks that the tensors of a run match the contract. Fails if their number, a type or a shape
/// differs. Panics if a length is not the product of type and shape.
pub(super) fn check_tensors(
    contract: &Contract,
    inputs: &[impl Tensor],
    outputs: &[impl Tensor],
) -> Result<(), SessionRunError> {
    let network = &contract.network;
    count(network, "input", contract.inputs.len(), inputs.len())?;
    count(network, "output", contract.outputs.len(), outputs.len())?;
    for (spec, view) in contract.inputs.iter().zip(inputs) {
        check_tensor(network, "input", spec, view.layout())?;
    }
    for (spec, view) in contract.outputs.iter().zip(outputs) {
        check_tensor(network, "output", spec, view.layout())?;
    }
    Ok(())
}

fn count(
    network: &str,
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), SessionRunError> {
    if expected == found {
        return Ok(());
    }
    Err(SessionRunError::Count { network: network.to_owned(), what, expected, found })
}

fn check_tensor(
    network: &str,
    what: &'static str,
    spec: &TensorSpec,
    (dtype, shape, bytes): (DType, &[usize], usize),
) -> Result<(), SessionRunError> {
    if spec.dtype == dtype && spec.shape == shape {
        let expected = shape.iter().product::<usize>() * dtype.size();
        assert_eq!(bytes, expected, "the view of {what} {:?} has the wrong length", spec.name);
        return Ok(());
    }
    Err(SessionRunError::Tensor {
        network: network.to_owned(),
        what,
        name: spec.name.clone(),
        expected_dtype: spec.dtype,
        expected_shape: spec.shape.clone(),
        found_dtype: dtype,
        found_shape: shape.to_vec(),
    })
}
